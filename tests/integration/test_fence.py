"""Writes to keys on their way to another shard: fenced, held, or told to be run again. Real servers, a worker in this
process, and maps, fence rows and their closing by hand: there is no orchestrator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import mysql.connector
import pymysql
import pytest

from shardproxy.backend.decisions import probe_texts
from shardproxy.executor import commit, fence, transaction
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, KeyRange, RangeMap
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from tests.in_process import WorkerHere
from tests.proxy import SPLIT, eventually

IDENT, EPOCH = 7, 2
MOVING, STAYING, OTHER = 600, 10, 2000  # keys: on shard 0 and moving; there and staying; on shard 1
MOVED = RangeMap((KeyRange(INT_MIN, 500, 0), KeyRange(500, INT_MAX + 1, 1)))
KEYS = MovingKeys(KeyType.INT, intervals=[(500, SPLIT)])


def move(phase: Phase, epoch: int = EPOCH) -> Move:
    return Move(IDENT, phase, epoch, (Stream(0, 1, KEYS),))


@pytest.fixture(scope="module")
def running(cluster: LocalCluster) -> Iterator[WorkerHere]:
    with WorkerHere(cluster, extra='[transactions]\nhold_timeout = "3s"\n') as here:
        yield here


@pytest.fixture
def here(running: WorkerHere) -> Iterator[WorkerHere]:
    """The worker with the file's map, an armed fence and some rows."""
    running.hand(running.snapshot)
    for number, shard in enumerate(running.cluster.shards):
        _empty(shard.primary, number)
        shard.primary.rows(f"INSERT INTO _shardproxy.fence (move_id, epoch) VALUES ({IDENT}, {EPOCH})")
        keys = (MOVING, MOVING + 1, STAYING) if number == 0 else (OTHER,)
        for key in keys:
            shard.primary.rows(f"INSERT INTO main.users (uid, name, balance) VALUES ({key}, 'u{key}', 100)")
    yield running
    fence.mode = fence.Mode.ON
    commit.at_step = None
    eventually(lambda: running.waiting == 0, "nobody waits for a map")


def _empty(server: LocalServer, shard: int) -> None:
    tables = ["main.users", "main.countries", "hashed.items", "_shardproxy.fence", "_shardproxy.fence_slot"]
    with server.connect() as connection, connection.cursor() as cursor:
        for table in (*tables, "main.settings") if shard == 1 else tables:
            cursor.execute(f"DELETE FROM {table}")


def arm(here: WorkerHere, phase: Phase = Phase.ARMED, epoch: int = EPOCH) -> None:
    """A map with the move in this phase arrives."""
    owned = {"map": MOVED} if phase in (Phase.SWITCHED, Phase.OPEN, Phase.COMPLETING) else {}
    here.hand(here.moving(move(phase, epoch), "main", **owned))


def close_fence(server: LocalServer) -> None:
    server.rows(f"UPDATE _shardproxy.fence SET epoch = {EPOCH + 1} WHERE move_id = {IDENT}")


def balance(server: LocalServer, key: int) -> int | None:
    rows = server.rows(f"SELECT balance FROM main.users WHERE uid = {key}")
    return int(rows[0][0]) if rows else None


@contextmanager
def fence_locked(server: LocalServer) -> Iterator[None]:
    """Whoever takes the fence waits."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT epoch FROM _shardproxy.fence WHERE move_id = {IDENT} FOR UPDATE")
        yield
        cursor.execute("ROLLBACK")


def fence_is_held(server: LocalServer) -> bool:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        return waited(cursor, f"UPDATE _shardproxy.fence SET changed_at = NOW(3) WHERE move_id = {IDENT}")


def waited(cursor: Any, sql: str) -> bool:
    """Whether the statement waited for a lock, in vain."""
    try:
        cursor.execute(sql)
    except pymysql.MySQLError as error:
        if error.args[0] != 1205:
            raise
        return True
    return False


class Behind:
    """A statement in a thread of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: Exception | None = None
        self._work = work
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._work()
        except Exception as error:
            self.error = error

    def result(self) -> Any:
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.answer


def run(cursor: Any, sql: str) -> Any:
    return cursor.execute(sql)


@pytest.fixture
def cursor(here: WorkerHere) -> Iterator[Any]:
    with closing(here.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def code(error: pytest.ExceptionInfo[BaseException]) -> int:
    return int(error.value.args[0])


# ── ARMED ──


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}",
        f"INSERT INTO users VALUES ({MOVING + 50}, 'new', 1)",
        f"DELETE FROM users WHERE uid = {MOVING}",
        f"SELECT * FROM users WHERE uid = {MOVING} FOR UPDATE",
        "UPDATE users SET balance = balance + 1",
        "UPDATE users SET balance = balance + 1 WHERE uid BETWEEN 400 AND 500",
        f"INSERT INTO users VALUES ({STAYING + 1}, 'a', 1), ({MOVING + 50}, 'b', 1), ({OTHER + 1}, 'c', 1)",
        "DELETE FROM users ORDER BY name LIMIT 1",  # by scratch tables
        "SELECT COUNT(*) FROM users WHERE balance > 5 FOR UPDATE",
        f"/*shardproxy: shard=shard1*/ UPDATE users SET balance = 5 WHERE uid = {STAYING}",
    ],
)
@pytest.mark.parametrize("transaction", [False, True])
def test_writes_and_locks_that_may_reach_moving_keys_wait_for_the_fence(
    here: WorkerHere, cursor: Any, statement: str, transaction: bool
) -> None:
    arm(here)
    if transaction:
        cursor.execute("BEGIN")
    with fence_locked(here.primary(0)):
        behind = Behind(lambda: run(cursor, statement))
        behind.thread.join(0.3)
        assert behind.thread.is_alive(), "it took no fence"
    behind.result()
    if transaction:
        assert fence_is_held(here.primary(0))
        cursor.execute("COMMIT")
    assert not fence_is_held(here.primary(0))


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}",
        f"UPDATE users SET balance = balance + 1 WHERE uid IN ({STAYING}, {OTHER})",
        f"INSERT INTO users VALUES ({STAYING + 1}, 'new', 1), ({OTHER + 1}, 'new', 1)",
        "UPDATE users SET balance = balance + 1 WHERE uid < 500",
        f"SELECT * FROM users WHERE uid = {STAYING} FOR UPDATE",
        f"SELECT * FROM users WHERE uid = {MOVING}",
        "SELECT SUM(balance) FROM users",
        "INSERT INTO countries VALUES ('DE', 'Germany')",
        "INSERT INTO settings (name) VALUES ('x')",
        "INSERT INTO hashed.items VALUES ('x', 1)",
    ],
)
def test_other_writes_and_reads_do_not_even_look_at_the_fence(here: WorkerHere, cursor: Any, statement: str) -> None:
    arm(here)
    with fence_locked(here.primary(0)):
        cursor.execute(statement)
        cursor.execute("BEGIN")
        cursor.execute(statement.replace("'DE'", "'FR'").replace("'x'", "'y'").replace("'new'", "'newer'").replace(
            f"({STAYING + 1}", f"({STAYING + 2}").replace(f"({OTHER + 1}", f"({OTHER + 2}"))  # fmt: skip
        cursor.execute("COMMIT")


@pytest.mark.parametrize("phase", [None, Phase.ARMED])
def test_a_fenced_write_answers_as_any_other(here: WorkerHere, cursor: Any, phase: Phase | None) -> None:
    """What the client sees is written down once, and is the same with and without a move."""
    if phase is not None:
        arm(here, phase)
    seen: list[Any] = []

    def say(sql: str) -> None:
        try:
            affected = cursor.execute(sql)
            seen.append((affected, cursor.lastrowid, cursor.fetchall(), cursor.warning_count))
        except pymysql.MySQLError as error:
            seen.append(error.args)
        cursor.execute("SELECT ROW_COUNT(), LAST_INSERT_ID(), @@warning_count")
        seen.append(cursor.fetchall())
        cursor.execute("SHOW WARNINGS")
        seen.append(cursor.fetchall())

    def warned(sql: str) -> None:
        try:
            cursor.execute(sql)
        except pymysql.MySQLError as error:
            seen.append(error.args)
        cursor.execute("SHOW WARNINGS")
        seen.append(cursor.fetchall())

    say(f"UPDATE users SET balance = 101 WHERE uid = {MOVING}")
    say(f"UPDATE users SET balance = 101 WHERE uid = {MOVING}")
    say(f"INSERT INTO users VALUES ({MOVING}, 'x', 1)")
    warned(f"INSERT IGNORE INTO users VALUES ({MOVING}, 'x', 1)")
    warned(f"UPDATE users SET balance = balance + '1x' WHERE uid = {MOVING}")
    say(f"UPDATE users SET balance = LAST_INSERT_ID(balance + 7) WHERE uid = {MOVING}")
    say(f"SELECT * FROM users WHERE uid = {MOVING} FOR UPDATE")
    say(f"SELECT COUNT(*), MAX(name) FROM users WHERE uid = {MOVING} LOCK IN SHARE MODE")
    say(f"UPDATE users SET nothing = 1 WHERE uid = {MOVING}")
    say(f"REPLACE INTO users VALUES ({MOVING}, 'y', 5)")
    say(f"INSERT INTO users VALUES ({MOVING}, 'y', 5) ON DUPLICATE KEY UPDATE balance = balance + 1")
    say(f"SELECT @a := balance FROM users WHERE uid = {MOVING} FOR UPDATE")
    say("SELECT @a")
    say(f"DELETE FROM users WHERE uid = {MOVING}")
    if here.cluster.flavor == "mariadb":
        say(f"INSERT INTO users VALUES ({MOVING + 9}, 'r', 1) RETURNING uid, name")
    if phase is None:
        here.expected = seen  # type: ignore[attr-defined]
    else:
        assert seen == here.expected  # type: ignore[attr-defined]


def test_prepared_writes_are_fenced(here: WorkerHere) -> None:
    connection = mysql.connector.connect(
        host="127.0.0.1", port=here.port, user="app", password="app", database="main", use_pure=True, autocommit=True
    )
    with closing(connection):
        cursor: Any = connection.cursor(prepared=True)
        text = "UPDATE users SET balance = balance + %s WHERE uid = %s"
        for _ in range(3):
            cursor.execute(text, (1, MOVING))
        arm(here)
        cursor.execute(text, (1, MOVING))
        assert cursor.rowcount == 1
        with fence_locked(here.primary(0)):
            behind = Behind(lambda: cursor.execute(text, (1, MOVING)))
            behind.thread.join(0.3)
            assert behind.thread.is_alive()
        behind.result()
        cursor.execute(text, (1, STAYING))
        arm(here, Phase.CLOSING)
        close_fence(here.primary(0))
        behind = Behind(lambda: cursor.execute(text, (1, MOVING)))
        eventually(lambda: here.waiting == 1, "the write waits")
        here.primary(1).rows(f"INSERT INTO main.users VALUES ({MOVING}, 'copied', 200)")
        arm(here, Phase.OPEN)
        behind.result()
    assert balance(here.primary(0), MOVING) == 105
    assert balance(here.primary(1), MOVING) == 201


def test_sql_execute_is_fenced_and_held(here: WorkerHere, cursor: Any) -> None:
    cursor.execute("PREPARE p FROM 'UPDATE users SET balance = balance + 1 WHERE uid = ?'")
    cursor.execute(f"SET @k = {MOVING}")
    arm(here)
    cursor.execute("EXECUTE p USING @k")
    arm(here, Phase.CLOSING)
    behind = Behind(lambda: run(cursor, "EXECUTE p USING @k"))
    eventually(lambda: here.waiting == 1, "the write waits")
    arm(here, Phase.COPYING)  # a time-out
    behind.result()
    assert balance(here.primary(0), MOVING) == 102


def test_a_write_that_finds_the_fence_closed_waits_for_a_newer_map(here: WorkerHere, cursor: Any) -> None:
    """The proxy's map is old: the orchestrator has closed the fence already."""
    arm(here)
    close_fence(here.primary(0))
    behind = Behind(lambda: run(cursor, f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}"))
    eventually(lambda: here.waiting == 1, "the write waits")
    assert balance(here.primary(0), MOVING) == 100
    arm(here, Phase.CLOSING)
    here.primary(1).rows(f"INSERT INTO main.users VALUES ({MOVING}, 'copied', 200)")
    arm(here, Phase.SWITCHED)
    behind.thread.join(0.2)
    assert behind.thread.is_alive()
    arm(here, Phase.OPEN)
    assert behind.result() == 1
    assert (balance(here.primary(0), MOVING), balance(here.primary(1), MOVING)) == (100, 201)


@pytest.mark.parametrize("spread", [False, True])
def test_a_write_waits_for_a_fence_that_is_not_armed_yet(here: WorkerHere, cursor: Any, spread: bool) -> None:
    """The map is there before the fence's row has its epoch."""
    arm(here, epoch=EPOCH + 2)
    cursor.execute("BEGIN")
    text = "UPDATE users SET balance = balance + 1" + ("" if spread else f" WHERE uid = {MOVING}")
    behind = Behind(lambda: run(cursor, text))
    eventually(lambda: here.waiting == 1, "the write waits")
    here.primary(0).rows(f"UPDATE _shardproxy.fence SET epoch = {EPOCH + 2} WHERE move_id = {IDENT}")
    behind.result()
    assert fence_is_held(here.primary(0))
    cursor.execute("COMMIT")
    assert balance(here.primary(0), MOVING) == 101


def test_no_fence_row_is_a_closed_fence(here: WorkerHere, cursor: Any) -> None:
    here.primary(0).rows("DELETE FROM _shardproxy.fence")
    arm(here)
    with pytest.raises(pymysql.MySQLError, match=r"hold_timeout.*nothing was done") as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 9122
    assert balance(here.primary(0), MOVING) == 100


# ── transactions ──


def test_a_transaction_with_the_fence_goes_on_while_it_is_being_closed(here: WorkerHere, cursor: Any) -> None:
    arm(here)
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("SAVEPOINT a")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("ROLLBACK TO a")
    arm(here, Phase.CLOSING)
    assert fence_is_held(here.primary(0))
    cursor.execute(f"UPDATE users SET balance = balance + 10 WHERE uid = {MOVING + 1}")
    cursor.execute(f"UPDATE users SET balance = balance + 10 WHERE uid = {OTHER}")
    cursor.execute("COMMIT")
    assert not fence_is_held(here.primary(0))
    assert (balance(here.primary(0), MOVING), balance(here.primary(0), MOVING + 1)) == (101, 110)
    assert balance(here.primary(1), OTHER) == 110


@pytest.mark.parametrize(
    "second", ["COMMIT", "BEGIN", "SET autocommit = 1", f"UPDATE users SET balance = 3 WHERE uid = {STAYING}"]
)
@pytest.mark.parametrize("shards", [1, 2])
def test_an_older_transaction_catches_up_while_armed(here: WorkerHere, cursor: Any, second: str, shards: int) -> None:
    cursor.execute("SET autocommit = 0")
    if shards == 2:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {OTHER}")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    arm(here)
    with fence_locked(here.primary(0)):
        behind = Behind(lambda: run(cursor, second))
        behind.thread.join(0.3)
        assert behind.thread.is_alive(), "it took no fence"
    behind.result()
    cursor.execute("COMMIT")
    assert balance(here.primary(0), MOVING) == 101


@pytest.mark.parametrize(
    "phase", [Phase.CLOSING, Phase.DRAINED, Phase.READY, Phase.SWITCHED, Phase.OPEN, Phase.COMPLETING]
)
@pytest.mark.parametrize("shards", [1, 2])
def test_an_older_transaction_that_missed_armed_is_rolled_back(
    here: WorkerHere, cursor: Any, phase: Phase, shards: int
) -> None:
    cursor.execute("BEGIN")
    if shards == 2:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {OTHER}")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    arm(here, phase)
    with pytest.raises(pymysql.MySQLError, match=r"move.*rolled back; run it again") as error:
        cursor.execute("COMMIT")
    assert code(error) == 1213
    assert (balance(here.primary(0), MOVING), balance(here.primary(1), OTHER)) == (100, 100)
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")  # the session lives on
    assert balance(here.primary(0), STAYING) == 101


def test_a_transaction_that_missed_the_whole_move_is_rolled_back(here: WorkerHere, cursor: Any) -> None:
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")
    here.hand(here.moving(None, map=MOVED))
    with pytest.raises(pymysql.MySQLError) as error:
        cursor.execute("COMMIT")
    assert code(error) == 1213


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.CANCELLING, Phase.CANCELLED])
def test_older_transactions_commit_when_nothing_guards_the_keys(here: WorkerHere, cursor: Any, phase: Phase) -> None:
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    arm(here, phase)
    cursor.execute("COMMIT")
    assert balance(here.primary(0), MOVING) == 101


def test_a_transaction_elsewhere_or_that_only_reads_is_left_alone(here: WorkerHere) -> None:
    with closing(here.connect()) as a, closing(here.connect()) as b, a.cursor() as writes, b.cursor() as reads:
        writes.execute("BEGIN")
        writes.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {OTHER}")
        reads.execute("START TRANSACTION READ ONLY")
        reads.execute(f"SELECT balance FROM users WHERE uid = {MOVING}")
        arm(here, Phase.CLOSING)
        writes.execute("COMMIT")
        reads.execute(f"SELECT balance FROM users WHERE uid = {MOVING}")
        reads.execute("COMMIT")
    assert balance(here.primary(1), OTHER) == 101


def test_one_begun_under_armed_without_moving_keys_commits_whatever_comes(here: WorkerHere, cursor: Any) -> None:
    arm(here)
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")
    arm(here, Phase.CLOSING)
    close_fence(here.primary(0))
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")
    with pytest.raises(pymysql.MySQLError) as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 1213
    assert balance(here.primary(0), STAYING) == 100
    arm(here)
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")
    arm(here, Phase.OPEN)
    cursor.execute("COMMIT")
    assert balance(here.primary(0), STAYING) == 101


def test_a_transaction_that_meets_a_closed_fence_is_rolled_back(here: WorkerHere, cursor: Any) -> None:
    arm(here)
    close_fence(here.primary(0))
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {OTHER}")
    with pytest.raises(pymysql.MySQLError, match="run it again") as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 1213
    assert balance(here.primary(1), OTHER) == 100
    cursor.execute("COMMIT")
    assert balance(here.primary(1), OTHER) == 100


def test_moved_keys_are_too_new_for_an_older_transaction(here: WorkerHere) -> None:
    """Its snapshot of the target is older than the copy: it would find no row there."""
    for text in (f"SELECT * FROM users WHERE uid = {MOVING}", "SELECT COUNT(*) FROM users",
                 f"UPDATE users SET balance = 1 WHERE uid = {MOVING}"):  # fmt: skip
        here.hand(here.snapshot)
        with closing(here.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT * FROM users WHERE uid = {OTHER}")
            cursor.execute(f"SELECT * FROM users WHERE uid = {OTHER}")
            arm(here, Phase.OPEN)
            cursor.execute(f"SELECT * FROM users WHERE uid = {OTHER}")
            with pytest.raises(pymysql.MySQLError, match="have moved to another shard") as error:
                cursor.execute(text)
            assert code(error) == 1213
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT * FROM users WHERE uid = {MOVING}")
            cursor.execute("COMMIT")


def test_a_branch_changes_its_slot_before_it_prepares(here: WorkerHere, cursor: Any) -> None:
    arm(here)
    locked: list[tuple[int, bool]] = []

    async def look(transaction: Any, step: int) -> None:
        with here.primary(0).connect() as connection, connection.cursor() as other:
            other.execute("SET innodb_lock_wait_timeout = 1")
            locked.append((step, waited(other, "SELECT * FROM _shardproxy.fence_slot LOCK IN SHARE MODE")))

    commit.at_step = look
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {OTHER}")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("COMMIT")
    assert locked == [(2, False), (3, True), (4, True), (5, True)]
    assert len(here.primary(0).rows("SELECT * FROM _shardproxy.fence_slot")) == 1
    locked.clear()
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid IN ({STAYING}, {OTHER})")
    assert not any(is_locked for _, is_locked in locked)
    commit.at_step = None
    cursor.execute("UPDATE users SET balance = balance + 1 ORDER BY uid DESC")
    assert balance(here.primary(0), MOVING) == 102


# ── held ──


def test_held_writes_go_to_the_new_owner(here: WorkerHere) -> None:
    arm(here, Phase.CLOSING)
    before = here.worker.front.gateway.held_writes.count
    texts = [
        f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}",
        f"INSERT INTO users VALUES ({MOVING + 70}, 'n', 1)",
        f"SELECT balance FROM users WHERE uid = {MOVING} FOR UPDATE",
        f"INSERT INTO users VALUES ({STAYING + 5}, 'p', 1), ({MOVING + 71}, 'q', 1)",
        "BEGIN",
    ]
    with closing(here.connect()) as reader, reader.cursor() as reads:
        connections = [here.connect() for _ in texts]
        behind = [Behind(lambda c=c, t=t: run(c.cursor(), t)) for c, t in zip(connections, texts, strict=True)]  # type: ignore[misc]
        behind.pop().result()
        behind.append(Behind(lambda: run(connections[-1].cursor(), f"DELETE FROM users WHERE uid = {MOVING + 1}")))
        eventually(lambda: here.waiting == len(texts), "all wait")
        reads.execute(f"SELECT balance FROM users WHERE uid = {MOVING}")
        assert reads.fetchall() == ((100,),)  # reads never wait
        reads.execute(f"UPDATE users SET balance = 7 WHERE uid = {STAYING}")
        here.primary(1).rows(f"INSERT INTO main.users VALUES ({MOVING}, 'c', 200), ({MOVING + 1}, 'd', 200)")
        for phase in (Phase.DRAINED, Phase.READY, Phase.SWITCHED):
            arm(here, phase)
            eventually(lambda: here.waiting == len(texts), "all wait")
        arm(here, Phase.OPEN)
        for one in behind:
            one.result()
        connections[-1].commit()
        for connection in connections:
            connection.close()
    assert (balance(here.primary(0), MOVING), balance(here.primary(1), MOVING)) == (100, 201)
    assert balance(here.primary(1), MOVING + 70) == balance(here.primary(1), MOVING + 71) == 1
    assert balance(here.primary(1), MOVING + 1) is None
    assert balance(here.primary(0), STAYING + 5) == 1
    held = here.worker.front.gateway.held_writes
    assert held.count - before == len(texts)
    assert held.longest > 0


def test_held_writes_go_back_to_the_old_owner_after_a_time_out(here: WorkerHere, cursor: Any) -> None:
    arm(here, Phase.CLOSING)
    behind = Behind(lambda: run(cursor, f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}"))
    eventually(lambda: here.waiting == 1, "it waits")
    arm(here, Phase.COPYING)
    assert behind.result() == 1
    assert balance(here.primary(0), MOVING) == 101


def test_a_held_write_gives_up_in_the_end(here: WorkerHere, cursor: Any) -> None:
    arm(here, Phase.CLOSING)
    with pytest.raises(pymysql.MySQLError, match=r"waited 3 s .*keyspace 'main'.*move 7, closing.*try again") as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 9122
    cursor.execute(f"SELECT balance FROM users WHERE uid = {MOVING}")


@pytest.mark.parametrize("way", ["KILL QUERY", "KILL", "close"])
def test_a_killed_client_waits_no_more(here: WorkerHere, way: str) -> None:
    arm(here, Phase.CLOSING)
    with closing(here.connect()) as other, other.cursor() as kills:
        connection = here.connect()
        cursor = connection.cursor()
        cursor.execute("SELECT CONNECTION_ID()")
        ident = cursor.fetchone()[0]
        behind = Behind(lambda: run(cursor, f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}"))
        eventually(lambda: here.waiting == 1, "it waits")
        if way == "close":
            connection._sock.shutdown(2)
        else:
            kills.execute(f"{way} {ident}")
        eventually(lambda: here.waiting == 0, "it waits no more", 1)
        with pytest.raises(pymysql.MySQLError) as error:
            behind.result()
        assert code(error) == (1317 if way == "KILL QUERY" else 2013)
        if way == "KILL QUERY":
            cursor.execute("SELECT 1")
    arm(here, Phase.COPYING)
    assert balance(here.primary(0), MOVING) == 100


def test_a_pinned_session_is_fenced_in_each_of_its_transactions(here: WorkerHere, cursor: Any) -> None:
    cursor.execute("/*shardproxy: shard=shard1*/ SELECT GET_LOCK('fence', 1)")
    arm(here)
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert fence_is_held(here.primary(0))
    cursor.execute("COMMIT")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert fence_is_held(here.primary(0))
    arm(here, Phase.CLOSING)
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("COMMIT")
    close_fence(here.primary(0))
    arm(here)  # as a proxy with an old map has it
    cursor.execute("BEGIN")
    with pytest.raises(pymysql.MySQLError) as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 1213
    assert balance(here.primary(0), MOVING) == 104
    cursor.execute("SELECT IS_USED_LOCK('fence') IS NOT NULL")
    assert cursor.fetchall() == ((1,),)


def test_schema_changes_wait_until_the_move_is_over(here: WorkerHere, cursor: Any) -> None:
    arm(here, Phase.COPYING)
    with pytest.raises(pymysql.MySQLError, match="no schema changes while keys of keyspace 'main'") as error:
        cursor.execute("ALTER TABLE users ADD COLUMN more INT")
    assert code(error) == 9122


# ── one map a statement ──


def test_a_map_that_arrives_amid_a_statement_changes_nothing_for_it(here: WorkerHere) -> None:
    """An UPDATE over both shards waits for a row; meanwhile the keys' owner changes twice. Its transaction goes on
    where it was; its shards have kept their places."""
    with closing(here.connect()) as connection, connection.cursor() as cursor, here.primary(0).connect() as blocker:
        held = blocker.cursor()
        held.execute("BEGIN")
        held.execute(f"SELECT * FROM main.users WHERE uid = {STAYING} FOR UPDATE")
        behind = Behind(lambda: run(cursor, "UPDATE users SET balance = balance + 1"))
        behind.thread.join(0.3)
        assert behind.thread.is_alive()
        here.hand(here.moving(move(Phase.OPEN), map=MOVED))
        here.hand(here.snapshot)
        held.execute("ROLLBACK")
        assert behind.result() == 4
    assert (balance(here.primary(0), MOVING), balance(here.primary(1), OTHER)) == (101, 101)


def test_a_worker_takes_no_map_that_gives_a_shard_another_place(here: WorkerHere) -> None:
    swapped = replace(here.snapshot, shards=here.snapshot.shards[::-1])
    with pytest.raises(ValueError, match="no shard shard1 in the place"):
        here.on_loop(here.worker.front.gateway.adopt, swapped)


@pytest.mark.parametrize("times", [2, 50])
def test_a_deadlock_of_the_probe_says_nothing_about_the_server(
    here: WorkerHere, cursor: Any, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What is tried once a server, before it takes part in a transaction over several, may meet others' locks."""
    refused = ("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'",)
    left = iter(range(times))

    def texts(name: str) -> tuple[str, ...]:
        return probe_texts(name) if next(left, None) is None else refused

    monkeypatch.setattr(transaction, "probe_texts", texts)
    here.worker.front.gateway.verified.clear()
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = 1 WHERE uid = {STAYING}")
    if times == 2:
        cursor.execute(f"UPDATE users SET balance = 1 WHERE uid = {OTHER}")
        cursor.execute("COMMIT")
        assert balance(here.primary(1), OTHER) == 1
    else:
        with pytest.raises(pymysql.MySQLError, match="try again; the server says: Deadlock found"):
            cursor.execute(f"UPDATE users SET balance = 1 WHERE uid = {OTHER}")


# ── what the fence is for ──


@pytest.mark.parametrize("wrong", [fence.Mode.OFF, fence.Mode.BLIND])
def test_without_the_fence_an_old_map_loses_writes(here: WorkerHere, cursor: Any, wrong: fence.Mode) -> None:
    """The mutations: a proxy whose map is older than the closed fence commits on the source."""
    arm(here)
    close_fence(here.primary(0))
    fence.mode = wrong
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {OTHER}")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("COMMIT")
    assert balance(here.primary(0), MOVING) == 102
