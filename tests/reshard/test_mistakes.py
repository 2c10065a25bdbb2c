"""The equality test can fail: with one rule of the protocol left out it turns red.

The mistakes are given time: a change that comes twice shows only when it inserts or deletes a row (a changed row is
written as a whole, and the second time makes no difference).
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shardproxy.reshard.stream import Mutations, StreamPlan
from tests.reshard.sides import Sides
from tests.reshard.test_equality import MOVING, begin
from tests.reshard.traffic import KEYS


def found_out(sides: Sides, plan: StreamPlan, folder: Path, kills: int) -> str:
    """What turned red within so many deaths of the engine: its own error, or rows that differ; "" for nothing."""
    traffic = begin(sides, 5)
    dice = random.Random(6)
    try:
        for number in range(kills):
            died = sides.run_and_kill(plan, folder, dice, ("copy", "apply")[number % 2])
            if died is not None:
                return died
    finally:
        traffic.stop()
    try:
        sides.finish(plan, folder)
        sides.assert_equal(plan)
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "mistake", [Mutations(position_first=0.5), Mutations(positions_apart=0.3)], ids=["position first", "apart"]
)
def test_mistakes_turn_red(sides: Sides, tmp_path: Path, mistake: Mutations) -> None:
    said = found_out(
        sides, sides.plan(KEYS, MOVING, cycle_seconds=0.0, chunk_bytes=6000, mutations=mistake), tmp_path, 12
    )
    # Which of them it is depends on the change that was lost or came twice.
    assert "were to be" in said or "Duplicate" in said or "only on the" in said or "changes are missing" in said, said
