"""Transactions on several shards through the real proxy: all or nothing, and as on one server otherwise."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pymysql
import pytest

from shardproxy.backend.decisions import decision_text
from shardproxy.session.xid import parse_branch
from tests.proxy import SPLIT, ProxyUnderTest, eventually, transactions

ONE, OTHER = 1, SPLIT + 1  # a key of shard1, one of shard2
FILL = f"INSERT INTO users VALUES ({ONE},'one',100)", f"INSERT INTO users VALUES ({OTHER},'other',100)"


def run(connection: Any, *statements: str) -> Any:
    """The rows of the last statement."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def error(connection: Any, statement: str) -> int:
    """The number of the error that the statement gives."""
    with pytest.raises(pymysql.MySQLError) as raised:
        run(connection, statement)
    number: int = raised.value.args[0]
    return number


def balances(proxy: ProxyUnderTest) -> tuple[int, ...]:
    """Balances as another session sees them, in order of the key."""
    with proxy.connect() as other:
        found = [run(other, f"SELECT balance FROM users WHERE uid = {uid}") for uid in (ONE, OTHER)]
    return tuple(rows[0][0] for rows in found if rows)


def branches(proxy: ProxyUnderTest) -> int:
    """Prepared branches on both primaries."""
    found = 0
    for shard in (0, 1):
        with proxy.primary(shard).connect() as direct:
            found += len(run(direct, "XA RECOVER"))
    return found


@pytest.fixture
def filled(proxy: ProxyUnderTest) -> ProxyUnderTest:
    """One row on each shard."""
    with proxy.connect() as connection:
        run(connection, *FILL)
    return proxy


def change(by: int = 10) -> tuple[str, str]:
    return (
        f"UPDATE users SET balance = balance - {by} WHERE uid = {ONE}",
        f"UPDATE users SET balance = balance + {by} WHERE uid = {OTHER}",
    )


def test_commit_is_on_both_shards_and_not_before(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", *change())
        assert run(connection, f"SELECT balance FROM users WHERE uid = {OTHER}") == ((110,),)
        assert balances(filled) == (100, 100)
        run(connection, "COMMIT")
        assert balances(filled) == (90, 110)
        assert connection.server_status & 1 == 0
        run(connection, "START TRANSACTION", *reversed(change()), "COMMIT")
    assert balances(filled) == (80, 120)
    assert branches(filled) == 0


def test_rollback_is_on_both_shards(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", *change(), "ROLLBACK")
        assert balances(filled) == (100, 100)
        run(connection, *change())
    assert balances(filled) == (90, 110)


def test_savepoints_reach_shards_that_join_later(filled: ProxyUnderTest) -> None:
    first, second = change()
    with filled.connect() as connection:
        run(connection, "BEGIN", "SAVEPOINT a", first, "SAVEPOINT `B`", second, "ROLLBACK TO b")
        assert error(connection, "RELEASE SAVEPOINT c") == 1305
        run(connection, "COMMIT")
        assert balances(filled) == (90, 100)
        run(connection, "BEGIN", "SAVEPOINT a", first, second, "ROLLBACK TO a", "COMMIT")
    assert balances(filled) == (90, 100)


def test_savepoints_without_begin_reach_shards_that_join_later(filled: ProxyUnderTest) -> None:
    first, second = change()
    with filled.connect() as connection:
        run(connection, "SET autocommit=0", "SAVEPOINT a", first, second, "RELEASE SAVEPOINT a", "ROLLBACK")
        run(connection, "SAVEPOINT a", first, second, "ROLLBACK TO a", "COMMIT")
    assert balances(filled) == (100, 100)


def test_autocommit_off(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "SET autocommit=0", *change())
        assert balances(filled) == (100, 100)
        run(connection, "COMMIT", *change(5))
        assert balances(filled) == (90, 110)
        run(connection, "SET autocommit=1")
        assert balances(filled) == (85, 115)
        run(connection, "SET autocommit=0", *change(), "SET autocommit=0")
        assert balances(filled) == (85, 115)
        run(connection, "BEGIN")  # commits
        assert balances(filled) == (75, 125)
        run(connection, *change(), "ROLLBACK", "SET autocommit=1")
    assert balances(filled) == (75, 125)


def test_read_only(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "START TRANSACTION READ ONLY", f"SELECT * FROM users WHERE uid = {ONE}")
        assert error(connection, change()[1]) == 1792
        assert error(connection, change()[0]) == 1792
        run(connection, "COMMIT", *change())
        run(connection, "SET TRANSACTION READ ONLY", "BEGIN", f"SELECT * FROM users WHERE uid = {ONE}")
        assert error(connection, change()[1]) == 1792
        run(connection, "ROLLBACK", *change())
    assert balances(filled) == (80, 120)


def test_state_of_the_session_reaches_all_shards(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", *change(), "SET time_zone = '+03:00'")
        for uid in (ONE, OTHER):
            assert run(connection, f"SELECT @@time_zone FROM users WHERE uid = {uid}") == (("+03:00",),)
        run(connection, "USE hashed")
        for uid in (ONE, OTHER):
            assert run(connection, f"SELECT DATABASE() FROM main.users WHERE uid = {uid}") == (("hashed",),)
        run(connection, "COMMIT")
    assert balances(filled) == (90, 110)


def test_warnings_are_of_the_last_statement(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", *change())
        for uid in (OTHER, ONE):
            run(connection, f"SELECT CAST('1x' AS SIGNED) FROM users WHERE uid = {uid}")
            [warning] = run(connection, "SHOW WARNINGS")
            assert warning[1] == 1292
        error(connection, f"INSERT INTO users VALUES ({OTHER}, 'again', 1)")
        assert [row[1] for row in run(connection, "SHOW WARNINGS")] == [1062]
        run(connection, "COMMIT")
    assert balances(filled) == (90, 110)


def test_reads_over_shards_inside(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", change()[0])
        assert sorted(run(connection, "SELECT uid, balance FROM users")) == [(ONE, 90), (OTHER, 100)]
        run(connection, change()[1])
        assert sorted(run(connection, "SELECT uid, balance FROM users")) == [(ONE, 90), (OTHER, 110)]
        run(connection, "ROLLBACK")
    assert balances(filled) == (100, 100)


def test_reference_tables_are_written_inside(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", change()[0], "INSERT INTO countries VALUES ('de','Germany')")
        assert error(connection, "INSERT INTO countries VALUES ('fr','France'), ('de','again')") == 1062
        assert run(connection, "SELECT code FROM countries") == (("de",),)
        run(connection, "ROLLBACK")
        assert run(connection, "SELECT code FROM countries") == ()
        run(connection, "BEGIN", change()[1], "INSERT INTO countries VALUES ('de','Germany')", "COMMIT")
    for shard in (0, 1):
        with filled.primary(shard).connect() as direct:
            assert run(direct, "SELECT name FROM main.countries") == (("Germany",),)
    assert balances(filled) == (100, 110)


def test_ddl_commits_first(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "BEGIN", *change(), "CREATE TABLE pets (person_id BIGINT PRIMARY KEY)")
        try:
            run(connection, "ROLLBACK")
            assert balances(filled) == (90, 110)
        finally:
            run(connection, "DROP TABLE pets")


def test_a_deadlock_rolls_back_on_all_shards(filled: ProxyUnderTest) -> None:
    """On the second shard: the first's change must go, too."""
    with filled.connect() as connection, filled.connect() as rival:
        run(rival, f"INSERT INTO users VALUES ({OTHER + 1}, 'x', 0)")
        run(connection, "BEGIN", *change())
        with filled.primary(1).connect() as direct:
            run(direct, "USE main", "BEGIN", f"UPDATE users SET name = 'y' WHERE uid = {OTHER + 1}")
            run(direct, "INSERT INTO orders VALUES " + ",".join(f"({SPLIT + i},1,1)" for i in range(50)))
            waiting = threading.Thread(target=run, args=(direct, f"UPDATE users SET name = 'y' WHERE uid = {OTHER}"))
            waiting.start()
            eventually(lambda: lock_waits(filled) > 0, "the rival waits")
            number = error(connection, f"UPDATE users SET name = 'z' WHERE uid = {OTHER + 1}")
            waiting.join()
            assert number == 1213
            run(direct, "ROLLBACK")
        assert connection.server_status is not None
        run(connection, change()[0])  # outside the transaction: at once
        assert balances(filled) == (90, 100)


def test_who_is_taken_for_dead_at_its_commit_is_told_to_run_it_again(filled: ProxyUnderTest) -> None:
    """Somebody has decided first that the transaction is aborted. The row of that decision is no duplicate of the
    client's: it must not take it for one."""
    with filled.connect() as connection, filled.primary(0).connect("_shardproxy") as direct:
        run(connection, "BEGIN", *change())
        run(direct, "LOCK TABLES xa_decision WRITE")
        told: list[int] = []
        committing = threading.Thread(target=lambda: told.append(error(connection, "COMMIT")))
        committing.start()
        eventually(lambda: branches(filled) == 1, "the branch is prepared")
        [(form, length, _, data)] = filled.primary(1).rows("XA RECOVER")
        branch = parse_branch(form, length, data if isinstance(data, str) else data.decode())
        assert branch is not None
        ident = branch.transaction
        run(direct, decision_text(f"'{ident.text}'", "abort", ident.coordinator, "somebody"), "UNLOCK TABLES")
        committing.join()
        assert told == [1213]
        assert branches(filled) == 0
        run(direct, f"DELETE FROM xa_decision WHERE xid = '{ident.text}'")
        run(connection, change()[0])  # outside the transaction: at once
    assert balances(filled) == (90, 100)


def lock_waits(proxy: ProxyUnderTest) -> int:
    return int(transactions(proxy.primary(1), "COUNT(*)", "trx_state = 'LOCK WAIT'")[0][0])


def test_a_lock_wait_timeout_undoes_the_statement_only(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection, filled.connect() as rival:
        run(rival, "BEGIN", f"UPDATE users SET name = 'r' WHERE uid = {OTHER}")
        run(connection, "SET innodb_lock_wait_timeout = 1", "BEGIN", change()[0])
        assert error(connection, change()[1]) == 1205
        run(rival, "ROLLBACK")
        run(connection, change()[1], "COMMIT")
    assert balances(filled) == (90, 110)


def test_a_client_that_vanishes_leaves_nothing(filled: ProxyUnderTest) -> None:
    connection = filled.connect()
    run(connection, "BEGIN", *change())
    connection._sock.shutdown(socket.SHUT_RDWR)
    with filled.connect() as other:
        run(other, *change(1))  # waits for the locks
    assert balances(filled) == (99, 101)


def test_killed_connection_rolls_back(filled: ProxyUnderTest) -> None:
    connection = filled.connect()
    run(connection, "BEGIN", *change())
    with filled.connect() as other:
        run(other, f"KILL {connection.thread_id()}")
        run(other, *change(1))
    assert balances(filled) == (99, 101)


def test_a_pinned_session_stays_on_its_shard(filled: ProxyUnderTest) -> None:
    with filled.connect() as connection:
        run(connection, "SELECT GET_LOCK('a', 0)", "BEGIN", change()[0])
        assert error(connection, change()[1]) == 9102
        run(connection, "COMMIT")
    with filled.connect() as connection:
        run(connection, "BEGIN", *change())
        assert error(connection, "SELECT GET_LOCK('a', 0)") == 9102
        run(connection, "COMMIT")
    assert balances(filled) == (80, 110)
