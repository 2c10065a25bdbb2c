"""Writes to keys on their way to another shard are fenced. Real servers, a worker in this
process, and maps, fence rows and their closing by hand: there is no orchestrator."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import mysql.connector
import pymysql
import pytest

from shardproxy.executor import fence
from shardproxy.topology.moves import Phase
from tests.in_process import WorkerHere
from tests.integration.fence.scene import (
    EPOCH,
    IDENT,
    MOVING,
    OTHER,
    STAYING,
    Behind,
    arm,
    balance,
    close_fence,
    code,
    fence_is_held,
    fence_locked,
    run,
)
from tests.proxy import eventually

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


_ANSWERS: dict[WorkerHere, list[object]] = {}  # of writes without a fence


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
        _ANSWERS[here] = seen
    else:
        assert seen == _ANSWERS[here]


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
