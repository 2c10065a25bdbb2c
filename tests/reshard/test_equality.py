"""The target becomes equal to the source while 8 writers write it, whatever is killed on the way.

Copying takes many cycles of a few rows each, so that snapshots, stream and watermark meet in every way.
SHARDPROXY_KILLS=30  more deaths of the engine's process than a usual run has
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from shardproxy.topology.keys import KeyType
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import Sides
from tests.reshard.traffic import KEYS, TABLES, Traffic

MOVING = MovingKeys(KeyType.INT, buckets=(b for b in range(4096) if b % 8))
KILLS = int(os.environ.get("SHARDPROXY_KILLS", "6"))
SMALL = {"cycle_seconds": 0.0, "chunk_bytes": 1500}


def begin(sides: Sides, seed: int, writers: int = 8, rows: int = 300) -> Traffic:
    for table in TABLES:
        sides.both(table)
    traffic = Traffic(sides.source, sides.database, writers, seed, rows)
    traffic.fill()
    traffic.start()
    return traffic


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_after_kills(sides: Sides, tmp_path: Path, seed: int) -> None:
    plan = sides.plan(KEYS, MOVING, **SMALL)
    traffic = begin(sides, seed)
    dice = random.Random(seed)
    try:
        for number in range(KILLS):
            died = sides.run_and_kill(plan, tmp_path, dice, ("start", "copy", "apply")[number % 3])
            assert died is None, died
    finally:
        traffic.stop()
    sides.finish(plan, tmp_path)
    assert sides.assert_equal(plan) > 100
    assert traffic.done > 100


def test_equal_over_rotated_binlogs(sides: Sides, tmp_path: Path) -> None:
    plan = sides.plan(KEYS, MOVING, **SMALL)
    traffic = begin(sides, 3)
    process = sides.start(plan, tmp_path, 0)
    try:
        until = time.monotonic() + 60
        while (sides.copied() == 0 or traffic.done < 800) and time.monotonic() < until and process.poll() is None:
            sides.source.rows("FLUSH BINARY LOGS")
            time.sleep(0.1)
    finally:
        traffic.stop()
        died = process.poll() is not None
        process.kill()
        said = process.communicate()[1]
    assert not died, said
    sides.finish(plan, tmp_path)
    assert sides.assert_equal(plan) > 100
