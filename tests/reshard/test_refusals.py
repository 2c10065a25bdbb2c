"""What ends a move, and what it survives: definitions that change, rows of 60 MiB, transactions of 100,000 rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from shardproxy.errors import NotOurs, ReshardError, RowsDiffer
from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.reshard.bookkeeping import open_writer, stream_inserts, transact
from shardproxy.reshard.link import connect
from shardproxy.reshard.orchestrator import present_position
from shardproxy.reshard.stream import Stream, StreamPlan, start_stream
from shardproxy.reshard.touched import FEW
from shardproxy.topology.keys import KeyType
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import Sides

ALL = MovingKeys(KeyType.INT, intervals=[(-(2**63), 2**64)])
Step = Callable[[Stream], Awaitable[None]]


def run(plan: StreamPlan, *steps: Step) -> None:
    """Start a stream, copy, take the steps."""

    async def move() -> None:
        await start_stream(plan)
        stream = await Stream.open(plan)
        try:
            await stream.copy()
            for step in steps:
                await step(stream)
        finally:
            await stream.close()

    asyncio.run(move())


def reach(sides: Sides, epoch: int = 1) -> Step:
    async def step(stream: Stream) -> None:
        sides.mark(epoch)
        await stream.reach_marker(epoch)

    return step


def on_source(sides: Sides, *texts: str) -> Step:
    def run_them() -> None:
        with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
            for text in texts:
                cursor.execute(text)

    async def step(stream: Stream) -> None:
        await asyncio.to_thread(run_them)  # a change of definition waits for what the loop has yet to close

    return step


@pytest.fixture
def plan(sides: Sides) -> StreamPlan:
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(50))")
    sides.source.rows("INSERT INTO t VALUES (1, 1, 'x'), (2, 2, NULL)", database=sides.database)
    return sides.plan([("t", "id")], ALL)


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE t ADD COLUMN c INT",
        "/* why */ ALTER TABLE t MODIFY b VARCHAR(60)",
        "CREATE UNIQUE INDEX i ON t (a)",
        "TRUNCATE TABLE t",
        "RENAME TABLE t TO elsewhere",
        "DROP TABLE t",
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
    ],
)
def test_changed_definitions_stop_the_move(sides: Sides, plan: StreamPlan, ddl: str) -> None:
    with pytest.raises(ReshardError, match=r"definition of .*t was changed during the move"):
        run(plan, on_source(sides, ddl), reach(sides))


def test_other_definitions_do_not(sides: Sides, plan: StreamPlan) -> None:
    others = (
        "CREATE TABLE u AS SELECT * FROM t", "ALTER TABLE u ADD COLUMN t INT", "DROP TABLE u", "ANALYZE TABLE t",
        "CREATE VIEW w AS SELECT * FROM t", "DROP VIEW w",
        "CREATE TEMPORARY TABLE tt LIKE t", "DROP TEMPORARY TABLE tt",
        "INSERT INTO t VALUES (3, 3, 'y')",
    )  # fmt: skip
    # The table u has a column of the name: to be on the safe side, that is taken for a change of t.
    run(plan, on_source(sides, *(text for text in others if "COLUMN t" not in text)), reach(sides))
    assert sides.assert_equal(plan) == 3


def test_compressed_transactions_are_refused(sides: Sides, plan: StreamPlan, flavor: FlavorName) -> None:
    if flavor == "mysql":
        change: tuple[str, ...] = ("SET SESSION binlog_transaction_compression = ON",)
    else:
        change = ("SET GLOBAL log_bin_compress_min_len = 10", "SET GLOBAL log_bin_compress = ON")
    write = f"INSERT INTO t VALUES (9, 9, '{'z' * 50}'), " + ", ".join(f"({i}, 0, '{'z' * 50}')" for i in range(20, 90))
    try:
        with pytest.raises(ReshardError, match="compress"):
            run(plan, on_source(sides, *change, write), reach(sides))
    finally:
        if flavor == "mariadb":
            sides.source.rows("SET GLOBAL log_bin_compress = OFF, GLOBAL log_bin_compress_min_len = 256")


def test_a_table_without_primary_key(sides: Sides) -> None:
    sides.both("CREATE TABLE h (id INT)")
    with pytest.raises(ReshardError, match="no primary key"):
        run(sides.plan([("h", "id")], ALL))


def test_a_clash_on_a_unique_key_shows_the_rows(sides: Sides) -> None:
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE)")
    sides.target.rows("INSERT INTO t VALUES (-5, 7)", database=sides.database)
    sides.source.rows("INSERT INTO t VALUES (5, 7)", database=sides.database)
    moving = MovingKeys(KeyType.INT, intervals=[(0, 100)])
    with pytest.raises(Exception, match="Duplicate entry '7'"):
        run(sides.plan([("t", "id")], moving))
    assert sides.target.rows("SELECT * FROM t", database=sides.database) == [(-5, 7)]


def test_a_foreign_row_on_the_target_is_found(sides: Sides, plan: StreamPlan) -> None:
    async def spoil(stream: Stream) -> None:
        sides.target.rows("DELETE FROM t WHERE id = 1", database=sides.database)

    with pytest.raises(ReshardError, match="1 rows were to be deleted on the target, and 0 were"):
        run(plan, spoil, on_source(sides, "UPDATE t SET a = 5 WHERE id = 1"), reach(sides))


def test_another_generation_ends_the_stream(sides: Sides, plan: StreamPlan) -> None:
    async def taken(stream: Stream) -> None:
        sides.target.rows("UPDATE _shardproxy.move SET generation = 2")

    with pytest.raises(NotOurs, match="another orchestrator"):
        run(plan, taken, on_source(sides, "UPDATE t SET a = 5 WHERE id = 1"), reach(sides))
    assert sides.target.rows("SELECT a FROM t WHERE id = 1", database=sides.database) == [(1,)]


def test_an_ended_stream_writes_no_more(sides: Sides, plan: StreamPlan) -> None:
    async def ended(stream: Stream) -> None:
        sides.target.rows("DELETE FROM _shardproxy.stream")

    with pytest.raises(NotOurs, match="has ended"):
        run(plan, ended, on_source(sides, "DELETE FROM t"), reach(sides))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "copied"])
def test_a_branch_from_before_the_stream(sides: Sides, plan: StreamPlan, whole: bool) -> None:
    """Its rows are not in the stream. A reverse stream, which copies nothing, begins while its source owns none of the
    keys: there the branch is of other rows, and harmless."""
    sides.both("CREATE TABLE other (id INT PRIMARY KEY)")

    async def move() -> None:
        connection = await asyncio.to_thread(sides.source.connect, sides.database)
        with connection, connection.cursor() as cursor:
            for text in ("XA START 'o'", "INSERT INTO other VALUES (1)", "XA END 'o'", "XA PREPARE 'o'"):
                cursor.execute(text)
            async with await connect(plan.source, plan.login) as source:
                position = await present_position(source)
            inserts = stream_inserts(plan.name, plan.source.shard, position, ["t"], whole)
            if not whole:
                inserts.append(b"UPDATE _shardproxy.stream_table SET finished = 1")
            async with await open_writer(plan.target, plan.login) as target:
                await transact(target, plan.name, None, inserts)
            cursor.execute("XA COMMIT 'o'")
            cursor.execute("INSERT INTO t VALUES (3, 3, 'new')")
        stream = await Stream.open(plan)
        try:
            await stream.copy()
            await stream.catch_up()
        finally:
            await stream.close()

    if whole:
        asyncio.run(move())
        assert sides.target.rows("SELECT id FROM t", database=sides.database) == [(3,)]
    else:
        with pytest.raises(ReshardError, match="came before the stream began"):
            asyncio.run(move())


def test_our_own_transactions_do_not_travel(sides: Sides, plan: StreamPlan) -> None:
    own = ("BEGIN", "UPDATE _shardproxy.move SET writes = writes + 1", "DELETE FROM t WHERE id = 1", "COMMIT")
    run(plan, on_source(sides, *own), reach(sides))
    assert sides.target.rows("SELECT id FROM t ORDER BY id", database=sides.database) == [(1,), (2,)]


def test_a_transaction_of_100_000_rows(sides: Sides, plan: StreamPlan) -> None:
    values = ", ".join(f"({i}, {i % 7}, REPEAT('p', 50))" for i in range(10, 100_010))
    xa = ("XA START 'big'", "UPDATE t SET a = a + 1", "XA END 'big'", "XA PREPARE 'big'", "XA COMMIT 'big'")
    run(plan, on_source(sides, f"INSERT INTO t VALUES {values}", "DELETE FROM t WHERE id % 5 = 0", *xa), reach(sides))
    assert sides.assert_equal(plan) == 80_002


@pytest.fixture(scope="module")
def narrow(flavor: FlavorName) -> Iterator[LocalCluster]:
    """Servers that take packets of 64 MiB, as many do."""
    with LocalCluster(flavor, shards=2, replicas=0, server_options=("--max-allowed-packet=64M",)) as cluster:
        yield cluster


def test_rows_of_60_mib(narrow: LocalCluster) -> None:
    """One that fits a packet as a literal, and one that does not: it is all quotes."""
    sides = Sides.of(narrow, "large")
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)")
    fill = "INSERT INTO t VALUES (%s, REPEAT('a''', 30 * 1024 * 1024)), (%s, REPEAT('''', 60 * 1024 * 1024))"
    sides.source.rows(fill, (1, 2), database="large")
    plan = sides.plan([("t", "id")], ALL)
    run(plan, on_source(sides, fill.replace("%s", "3", 1).replace("%s", "4", 1)), reach(sides))
    sums = [
        server.rows("SELECT id, LENGTH(b), CRC32(b) FROM t ORDER BY id", database="large")
        for server in (sides.source, sides.target)
    ]
    assert sums[0] == sums[1] and len(sums[0]) == 4


def test_verify_finds_every_difference(sides: Sides) -> None:
    sides.both(
        "CREATE TABLE t (name VARCHAR(20) COLLATE utf8mb4_general_ci, n INT, k INT, v VARCHAR(20), "
        "PRIMARY KEY (name, n))"
    )
    values = ", ".join(f"('n{i % 50}', {i}, {i}, 'value')" for i in range(500))
    sides.source.rows(f"INSERT INTO t VALUES {values}", database=sides.database)
    plan = sides.plan([("t", "k")], MovingKeys(KeyType.INT, intervals=[(100, 400)]))

    async def check(stream: Stream) -> None:
        done = await stream.verify()
        assert (done.rows, done.differences) == (300, [])
        sides.target.rows("UPDATE t SET v = 'Value' WHERE k = 200", database=sides.database)
        sides.target.rows("DELETE FROM t WHERE k = 201", database=sides.database)
        sides.target.rows("UPDATE t SET name = 'N2' WHERE k = 202", database=sides.database)
        sides.target.rows("INSERT INTO t VALUES ('more', 1, 300, 'x')", database=sides.database)
        done = await stream.verify()
        assert sorted(done.differences) == [
            "t (N2, 202): only on the target",
            "t (more, 1): only on the target",
            "t (n0, 200): different in v 'value' and 'Value'",
            "t (n1, 201): only on the source",
            "t (n2, 202): only on the source",
        ]
        with pytest.raises(RowsDiffer, match="n1, 201"):
            done.raise_if_different()

    run(plan, check)


def test_what_changes_after_verify_is_compared_again(sides: Sides, plan: StreamPlan) -> None:
    """Little of it is left for the moment in which writes are held; what differs there is found."""
    values = ", ".join(f"({i}, {i}, 'x')" for i in range(10, 1000))
    sides.source.rows(f"INSERT INTO t VALUES {values}", database=sides.database)

    async def check(stream: Stream) -> None:
        touched = stream.applier.touched
        await stream.settle()  # nothing was compared yet, and nothing is claimed
        assert not (await stream.verify()).differences and touched.whole
        changes = ("UPDATE t SET a = a + 1", "DELETE FROM t WHERE id = 20", "UPDATE t SET id = 5 WHERE id = 30")
        await on_source(sides, *changes)(stream)
        await stream.catch_up()
        assert len(touched) == 993
        sides.target.rows("UPDATE t SET b = 'other' WHERE id = 500", database=sides.database)
        await stream.sweep()
        assert 0 < len(touched) <= FEW
        with pytest.raises(RowsDiffer, match=r"t \(500\): different in b 'x' and 'other'"):
            await stream.settle()
        sides.target.rows("UPDATE t SET b = 'x' WHERE id = 500", database=sides.database)
        await on_source(sides, "UPDATE t SET a = 0 WHERE id = 500")(stream)
        await stream.catch_up()
        await stream.settle()
        assert not touched

    run(plan, check)
