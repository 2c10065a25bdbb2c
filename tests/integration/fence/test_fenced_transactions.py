"""Transactions that are older than the map or meet a closed fence. Real servers, a worker in this
process, and maps, fence rows and their closing by hand: there is no orchestrator."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pymysql
import pytest

from shardproxy.executor import commit
from shardproxy.topology.moves import Phase
from tests.in_process import WorkerHere
from tests.integration.fence.scene import (
    MOVED,
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
    waited,
)


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
    "phase", [Phase.CLOSING, Phase.SWITCHED, Phase.OPEN, Phase.COMPLETING]
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
