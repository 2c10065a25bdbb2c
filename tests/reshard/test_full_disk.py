"""A target that has no room for the rows that come, and a row in the way: what becomes of the stream, what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from shardproxy.errors import ReshardError
from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.reshard.runner import Running, State, broken
from shardproxy.reshard.throttle import Unlimited
from shardproxy.topology.keys import KeyType
from shardproxy.topology.moving import MovingKeys
from tests.proxy import eventually
from tests.reshard.sides import Sides

ALL = MovingKeys(KeyType.INT, intervals=[(0, 2**63)])
ROWS = 40  # of a MiB


@pytest.fixture(scope="module")
def small(flavor: FlavorName) -> Iterator[LocalCluster]:
    """Servers whose tables lie in one file, if innodb_file_per_table is off, that grows to 32 MiB and no further."""
    options = ["--innodb-data-file-path=ibdata1:12M:autoextend:max:32M", "--innodb-autoextend-increment=1"]
    with LocalCluster(flavor, shards=2, replicas=0, server_options=tuple(options)) as cluster:
        yield cluster


def test_a_disk_that_is_full_stops_a_stream_until_there_is_room(small: LocalCluster) -> None:
    sides = Sides.of(small, "full")
    sides.source.rows("SET GLOBAL innodb_file_per_table = ON")
    sides.target.rows("SET GLOBAL innodb_file_per_table = OFF")
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)")
    with sides.source.connect("full") as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, REPEAT('x', 1024 * 1024))", [(n,) for n in range(ROWS)])
    plan = sides.plan([("t", "id")], ALL)

    async def work() -> None:
        stream = Running(plan, Unlimited(), True)
        stream.begin()
        try:
            full = lambda: stream.state is State.BROKEN and "is full" in broken([stream])  # noqa: E731
            await asyncio.to_thread(eventually, full, "it says that the table is full", 60.0)
            process = sides.target.process
            process.command = [word.replace("max:32M", "max:200M") for word in process.command]
            await asyncio.to_thread(sides.target.restart)
            async with asyncio.timeout(90):
                await stream.when_copied()
            assert broken([stream]) == ""
        finally:
            await stream.close()

    asyncio.run(work())
    assert sides.assert_equal(plan) == ROWS


def test_a_row_that_stands_in_the_way_ends_a_stream(sides: Sides) -> None:
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE)")
    sides.target.rows("INSERT INTO t VALUES (-5, 7)", database=sides.database)
    sides.source.rows("INSERT INTO t VALUES (5, 7)", database=sides.database)

    async def work() -> None:
        stream = Running(sides.plan([("t", "id")], ALL), Unlimited(), True)
        stream.begin()
        try:
            with pytest.raises(ReshardError, match=r"Duplicate entry '7'.*stands in the way.*`resume` when it is gone"):
                await stream.when_copied()
            assert stream.state is State.ENDED
        finally:
            await stream.close()

    asyncio.run(work())
    assert sides.target.rows("SELECT * FROM t", database=sides.database) == [(-5, 7)]
