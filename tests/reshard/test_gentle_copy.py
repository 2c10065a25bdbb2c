"""Copying in small steps, and the times by which its rate is judged."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from shardproxy.errors import BackendLost
from shardproxy.reshard.bookkeeping import open_writer
from shardproxy.reshard.copier import GENTLE_BYTES
from shardproxy.reshard.link import sent_to
from shardproxy.reshard.stream import Stream, StreamPlan, delete_moving, start_stream
from shardproxy.reshard.throttle import Throttle, ThrottleLimits
from shardproxy.reshard.timing import Timing
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Role, Server
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import LOGIN, Sides

_RATE = 400.0  # rows a second: 200 in a transaction and in a SELECT


@pytest.mark.parametrize("rows", [0, 1, 199, 200, 201, 1000])
def test_small_steps_bring_every_row(sides: Sides, rows: int) -> None:
    sides.both("CREATE TABLE t (uid BIGINT, n INT, v VARCHAR(20), PRIMARY KEY (uid, n))")
    with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s, %s)",
            [(100 + i // 3, i % 3, f"row {i}") for i in range(rows)] + [(99, 0, "")],
        )
        connection.commit()
    plan = sides.plan([("t", "uid")], MovingKeys(KeyType.INT, intervals=[(100, 5000)]))
    asyncio.run(copied(plan, Throttle(ThrottleLimits(rate=_RATE))))
    assert sides.assert_equal(plan) == rows
    assert sides.all_copied()


async def copied(plan: StreamPlan, pace: Throttle) -> None:
    await start_stream(plan)
    stream = await Stream.open(plan, pace)
    try:
        await stream.copy()
    finally:
        await stream.close()


def test_with_a_rate_wide_rows_go_in_by_fewer(sides: Sides) -> None:
    """200 rows of 20,000 bytes are four times what one transaction may insert."""
    sides.both("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20000) CHARACTER SET latin1)")
    sides.source.rows(
        "INSERT INTO t SELECT 100 + a.n * 20 + b.n, REPEAT('x', 20000) FROM "
        + ", ".join(f"({' UNION ALL '.join(f'SELECT {n} AS n' for n in range(20))}) AS {name}" for name in "ab"),
        database=sides.database,
    )
    plan = sides.plan([("t", "uid")], MovingKeys(KeyType.INT, intervals=[(100, 5000)]))
    pace = _Noted(ThrottleLimits(rate=_RATE))
    asyncio.run(copied(plan, pace))
    assert sides.assert_equal(plan) == sum(pace.rows) == 400
    assert max(pace.rows) * 20_000 < GENTLE_BYTES * 1.5


class _Noted(Throttle):
    """rows: of each transaction."""

    def __init__(self, limits: ThrottleLimits) -> None:
        super().__init__(limits)
        self.rows: list[int] = []

    async def wait(self, rows: int) -> None:
        self.rows.append(rows)


def test_statements_are_timed_by_a_process_and_count_as_the_movers(sides: Sides) -> None:
    there = sides.server(sides.source)
    gone = Server("gone", "127.0.0.1", 1, Role.PRIMARY, "gone")  # nobody listens there

    async def work() -> None:
        before = sent_to(there.name)
        timing = await Timing.start([there, gone], LOGIN)
        times: list[float] = []
        try:
            async with asyncio.timeout(30):
                while len(times) < 20:
                    found = await timing.read()
                    assert set(found) == {there.name}
                    times += found[there.name]
        finally:
            await timing.close()
        assert all(0 < seconds < 10 for seconds in times)
        assert sent_to(there.name) - before == len(times)
        with pytest.raises(BackendLost):
            await all_of(timing)

    asyncio.run(work())


def test_the_process_that_times_ends_with_its_parent() -> None:
    gone = Server("gone", "127.0.0.1", 1, Role.PRIMARY, "gone")

    async def work() -> None:
        timing = await Timing.start([gone], LOGIN)
        process = timing._process
        try:
            assert process.stdin is not None
            process.stdin.close()  # as the kernel does
            async with asyncio.timeout(30):
                assert await process.wait() == 0
        finally:
            await timing.close()

    asyncio.run(work())


async def all_of(timing: Timing) -> None:
    while True:
        await timing.read()


def test_with_a_rate_changes_go_in_by_few(sides: Sides) -> None:
    sides.both("CREATE TABLE t (uid BIGINT PRIMARY KEY, n INT)")
    plan = sides.plan([("t", "uid")], MovingKeys(KeyType.INT, intervals=[(100, 5000)]))

    async def copy() -> int:
        pace = Throttle(ThrottleLimits(rate=40.0))  # 20 rows in a transaction
        await start_stream(plan, pace)
        for uid in range(100):
            sides.source.rows(f"INSERT INTO t VALUES ({100 + uid}, 1)", database=sides.database)
        stream = await Stream.open(plan, pace)
        try:
            await stream.copy()
            return stream.applier.counts.commits
        finally:
            await stream.close()

    assert asyncio.run(copy()) >= 100 / 20
    assert sides.assert_equal(plan) == 100


@pytest.mark.parametrize("rows", [0, 19, 20, 21, 100])
def test_small_steps_delete_every_moving_row_and_no_other(sides: Sides, rows: int) -> None:
    sides.both("CREATE TABLE t (uid BIGINT, n VARCHAR(9) COLLATE utf8mb4_bin, PRIMARY KEY (n, uid))")
    with sides.target.connect(sides.database) as connection, connection.cursor() as cursor:
        pairs = [(100 + i, f"a'{i // 3}") for i in range(rows)] + [(99 - i, f"a'{i}") for i in range(50)]
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", pairs)
        connection.commit()
    plan = sides.plan([("t", "uid")], MovingKeys(KeyType.INT, intervals=[(100, 5000)]))
    server = sides.server(sides.target)

    async def delete() -> int:
        async with await open_writer(server, LOGIN) as link:
            [shape] = await plan.shapes(link)
            pace = _InsertsBefore(rows, sides) if rows == 100 else Throttle(ThrottleLimits(rate=40.0))
            return await delete_moving(link, plan.name, shape, plan.moving, pace)

    assert asyncio.run(delete()) == rows + (rows == 100)
    assert sides.target.rows("SELECT COUNT(*), MAX(uid) FROM t", database=sides.database) == [(50, 99)]


class _InsertsBefore(Throttle):
    """Once, when rows have been deleted: somebody inserts one before the place where that was."""

    def __init__(self, rows: int, sides: Sides) -> None:
        super().__init__(ThrottleLimits(rate=40.0))
        self._left, self._sides = rows // 2, sides

    async def wait(self, rows: int) -> None:
        await super().wait(rows)
        before, self._left = self._left, self._left - rows
        if before > 0 >= self._left:
            self._sides.target.rows("INSERT INTO t VALUES (4000, 'a')", database=self._sides.database)


def test_a_reader_that_is_left_alone_looks_now_and_then(sides: Sides) -> None:
    """Where it is eager, transactions wake it, nearly each of them when it has nothing else to do."""
    sides.both("CREATE TABLE t (uid BIGINT PRIMARY KEY, n INT)")
    plan = sides.plan([("t", "uid")], MovingKeys(KeyType.INT, intervals=[(100, 1 << 40)]))
    with sides.source.connect(sides.database) as writer:
        inserted = 0

        def insert() -> None:
            nonlocal inserted
            for _ in range(100):
                inserted += 1
                writer.cursor().execute(f"INSERT INTO t VALUES ({100 + inserted}, 1)")
                writer.commit()

        async def work() -> None:
            await start_stream(plan)
            stream = await Stream.open(plan)
            process = stream._process
            try:
                await stream.copy()
                before = _woken(process.pid)
                async with asyncio.timeout(60):
                    while (eager := _woken(process.pid) - before) < 200:
                        await asyncio.to_thread(insert)
                rounds = inserted // 100
                await stream.catch_up()
                with process.left_alone():
                    before, begun = _woken(process.pid), time.monotonic()
                    for _ in range(rounds):
                        await asyncio.to_thread(insert)
                    # On a slow machine ten looks a second, of some switches each, are much beside few transactions.
                    looks = 10 * (time.monotonic() - begun)
                    assert _woken(process.pid) - before < max(eager / 2, 5 * looks)
                await stream.catch_up()
            finally:
                await stream.close()

        asyncio.run(work())
    assert sides.assert_equal(plan) == inserted


def _woken(pid: int) -> int:
    """How often a process has begun to run."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
