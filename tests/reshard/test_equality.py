"""The target becomes equal to the source while 8 writers write it, whatever is killed on the way.

SHARDPROXY_KILLS=30  more deaths of the engine's process than a usual run has
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from shardproxy.reshard.stream import StreamPlan
from shardproxy.topology.keys import KeyType
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import Sides
from tests.reshard.traffic import KEYS, TABLES, Traffic

MOVING = MovingKeys(KeyType.INT, buckets=range(0, 4096, 2))
KILLS = int(os.environ.get("SHARDPROXY_KILLS", "8"))


def begin(sides: Sides, seed: int, writers: int = 8, rows: int = 2000) -> Traffic:
    for table in TABLES:
        sides.both(table)
    traffic = Traffic(sides.source, sides.database, writers, seed, rows)
    traffic.fill()
    traffic.start()
    return traffic


def torment(sides: Sides, plan: StreamPlan, folder: Path, kills: int, seed: int) -> None:
    """Kill the engine's process at random moments, often before it has copied all."""
    dice = random.Random(seed)
    for _ in range(kills):
        process = sides.start(plan, folder, 0)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.4 + dice.random() * 2)
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        process.kill()
        process.communicate()


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_after_kills(sides: Sides, tmp_path: Path, seed: int) -> None:
    plan = sides.plan(KEYS, MOVING, cycle_seconds=0.05)
    traffic = begin(sides, seed)
    try:
        torment(sides, plan, tmp_path, KILLS, seed)
    finally:
        traffic.stop()
    sides.finish(plan, tmp_path)
    assert sides.assert_equal(plan) > 500
    assert traffic.done > 100


def test_equal_without_kills(sides: Sides, tmp_path: Path) -> None:
    plan = sides.plan(KEYS, MOVING, cycle_seconds=0.02)
    traffic = begin(sides, 3)
    process = sides.start(plan, tmp_path, 0)
    try:
        until = time.monotonic() + 60
        while traffic.done < 1500 and time.monotonic() < until and process.poll() is None:
            sides.source.rows("FLUSH BINARY LOGS")
            time.sleep(0.2)
    finally:
        traffic.stop()
        died = process.poll() is not None
        process.kill()
        said = process.communicate()[1]
    assert not died, said
    sides.finish(plan, tmp_path)
    assert sides.assert_equal(plan) > 500
