"""Reads that lock rows of several shards, beside one lone server: who gets what, who waits, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalServer
from tests.proxy import SPLIT, TABLES, ProxyUnderTest, eventually, transactions

ONE, OTHER = 1, SPLIT + 1  # a key of shard1, one of shard2
USERS = [(ONE, "one", 100), (2, "two", 50), (OTHER, "other", 100), (OTHER + 1, "last", 70)]
ORDERS = [(ONE, 1, 5), (OTHER, 2, 7), (OTHER, 3, 5)]
# Statements on each rung, all of which lock the rows of users.
LOCKING = (
    "SELECT uid, name, balance FROM users FOR UPDATE",
    "SELECT u.uid, o.total FROM users u LEFT JOIN orders o ON o.uid = u.uid FOR UPDATE",
    "SELECT uid, name FROM users ORDER BY balance DESC, uid FOR UPDATE",
    "SELECT uid, name FROM users ORDER BY name LIMIT 1, 3 FOR UPDATE",
    "SELECT SUM(balance), COUNT(*) FROM users FOR UPDATE",
    "SELECT name, ROW_NUMBER() OVER (ORDER BY balance, uid) FROM users ORDER BY uid FOR UPDATE",
    "SELECT u.name, o.total FROM users u JOIN orders o ON o.total < u.balance FOR UPDATE",
    "SELECT name FROM users WHERE balance > (SELECT AVG(total) FROM orders) FOR UPDATE",
    "SELECT u.name FROM users u LEFT JOIN countries c ON c.code = u.name FOR UPDATE",
)
SHARING = (
    "SELECT uid, balance FROM users LOCK IN SHARE MODE",
    "SELECT uid, balance FROM users ORDER BY name LOCK IN SHARE MODE",
    "SELECT balance, COUNT(*) OVER () FROM users LOCK IN SHARE MODE",
)
BUSY = (3572, 1205)  # NOWAIT on MySQL and MariaDB


def run(connection: Any, *statements: str) -> Any:
    """The rows of the last statement."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def busy(connection: Any, *keys: int, how: str = "FOR UPDATE NOWAIT") -> list[int]:
    """Which rows of users another session has locked."""
    found = []
    for key in keys:
        try:
            run(connection, f"SELECT * FROM users WHERE uid = {key} {how}")
        except pymysql.MySQLError as error:
            if error.args[0] not in BUSY:
                raise
            found.append(key)
    return found


@pytest.fixture
def sides(proxy: ProxyUnderTest, oracle: LocalServer) -> Iterator[tuple[ProxyUnderTest, LocalServer]]:
    """The same rows behind the proxy and on the lone server."""
    oracle.rows("DROP DATABASE IF EXISTS main")
    oracle.rows("CREATE DATABASE main CHARACTER SET utf8mb4")
    for definition in TABLES["main"]:
        oracle.rows(definition, database="main")
    for connection in (proxy.connect(), oracle.connect("main")):
        with connection:
            for table, rows in (("users", USERS), ("orders", ORDERS)):
                run(connection, f"INSERT INTO {table} VALUES {', '.join(map(str, rows))}")
    yield proxy, oracle
    oracle.rows("DROP DATABASE main")


@pytest.mark.parametrize("statement", LOCKING)
def test_rows_are_the_same_and_locked_until_commit(sides: tuple[ProxyUnderTest, LocalServer], statement: str) -> None:
    proxy, oracle = sides
    keys = [row[0] for row in USERS]
    with proxy.connect() as mine, oracle.connect("main") as lone, proxy.connect() as other:
        rows = run(mine, "BEGIN", statement)
        expected = run(lone, statement)
        assert rows == expected if "ORDER" in statement else sorted(rows) == sorted(expected)
        assert len(busy(other, *keys)) >= len(keys) - ("LIMIT" in statement)
        run(mine, "COMMIT")
        assert busy(other, *keys) == []


@pytest.mark.parametrize("statement", SHARING)
def test_shared_locks_let_others_read_and_not_write(sides: tuple[ProxyUnderTest, LocalServer], statement: str) -> None:
    proxy, oracle = sides
    shared = "LOCK IN SHARE MODE NOWAIT" if proxy.mariadb else "FOR SHARE NOWAIT"
    with proxy.connect() as mine, oracle.connect("main") as lone, proxy.connect() as other:
        assert sorted(run(mine, "BEGIN", statement)) == sorted(run(lone, statement))
        assert busy(other, ONE, OTHER, how=shared) == []
        assert busy(other, ONE, OTHER) == [ONE, OTHER]
        run(mine, "ROLLBACK")
        assert busy(other, ONE, OTHER) == []


@pytest.mark.parametrize("statement", [*LOCKING, *SHARING])
def test_newest_rows_are_read_whatever_the_snapshot(sides: tuple[ProxyUnderTest, LocalServer], statement: str) -> None:
    answers = []
    for side in sides:
        with (
            side.connect() if isinstance(side, ProxyUnderTest) else side.connect("main") as mine,
            side.connect() if isinstance(side, ProxyUnderTest) else side.connect("main") as other,
        ):
            run(mine, "BEGIN", "SELECT * FROM users", "SELECT * FROM orders")
            run(other, f"UPDATE users SET balance = balance + 1, name = 'new' WHERE uid = {ONE}")
            run(other, f"UPDATE users SET balance = 3 WHERE uid = {OTHER + 1}")
            run(other, f"UPDATE orders SET total = 200 WHERE uid = {OTHER}")
            answers.append(sorted(run(mine, statement), key=repr))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("statement", [*LOCKING, *SHARING])
def test_outside_a_transaction_locks_end_with_the_statement(
    sides: tuple[ProxyUnderTest, LocalServer], statement: str
) -> None:
    proxy, _ = sides
    with proxy.connect() as mine, proxy.connect() as other:
        run(mine, statement)
        assert mine.server_status & 1 == 0
        assert busy(other, *(row[0] for row in USERS)) == []


@pytest.mark.parametrize("end", ["ORDER BY uid", ""])
def test_locks_outside_a_transaction_are_held_until_all_shards_have_answered(
    sides: tuple[ProxyUnderTest, LocalServer], end: str
) -> None:
    proxy, _ = sides
    found: list[Any] = []
    with proxy.connect() as holder, proxy.connect() as waiter, proxy.connect() as third:
        run(holder, "BEGIN", f"UPDATE users SET balance = 1 WHERE uid = {OTHER}")

        def wait() -> None:
            found.append(run(waiter, f"SELECT uid, balance FROM users {end} FOR UPDATE"))

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(
            lambda: busy(third, ONE) == [ONE], "the first shard's rows are locked while the second is waited for"
        )
        assert not found
        run(holder, "COMMIT")
        thread.join(30)
        assert sorted(found[0]) == [(ONE, 100), (2, 50), (OTHER, 1), (OTHER + 1, 70)]
        assert busy(third, ONE, OTHER) == []


def test_nowait_and_skip_locked(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    statements = (
        "SELECT uid, balance FROM users WHERE balance < 1000 {}",
        "SELECT uid FROM users ORDER BY uid DESC {}",
        "SELECT uid, COUNT(*) OVER () FROM users ORDER BY uid {}",
    )
    for statement in statements:
        answers = []
        for side in sides:
            with (
                side.connect() if isinstance(side, ProxyUnderTest) else side.connect("main") as holder,
                side.connect() if isinstance(side, ProxyUnderTest) else side.connect("main") as other,
            ):
                run(holder, "BEGIN", f"UPDATE users SET balance = 9 WHERE uid = {OTHER}")
                with pytest.raises(pymysql.MySQLError) as raised:
                    run(other, statement.format("FOR UPDATE NOWAIT"))
                rows = run(other, statement.format("FOR UPDATE SKIP LOCKED"))
                answers.append((raised.value.args[0], rows if "ORDER" in statement else sorted(rows)))
                run(holder, "ROLLBACK")
        assert answers[0] == answers[1]
        assert len(answers[0][1]) == len(USERS) - 1


def test_prepared(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    proxy, _ = sides
    with proxy.connect() as mine, proxy.connect() as other:
        run(mine, "BEGIN", f"SELECT * FROM users WHERE uid IN ({ONE}, {OTHER}) FOR UPDATE")
        assert busy(other, ONE, 2, OTHER, OTHER + 1) == [ONE, OTHER]
        run(mine, f"UPDATE users SET balance = 0 WHERE uid = {ONE}", "COMMIT")
        assert run(other, f"SELECT balance FROM users WHERE uid = {ONE}") == ((0,),)


def test_a_transaction_whose_locks_are_gone_does_not_commit(sides: tuple[ProxyUnderTest, LocalServer]) -> None:
    proxy, _ = sides
    second = proxy.primary(1)
    with proxy.connect() as mine, proxy.connect() as other:
        run(mine, "BEGIN", f"UPDATE users SET balance = 0 WHERE uid = {ONE}")
        run(mine, f"SELECT balance FROM users WHERE uid = {OTHER} FOR UPDATE")
        [(ident,)] = transactions(second, "trx_mysql_thread_id", "trx_rows_locked > 0")
        second.rows(f"KILL {ident}")
        with pytest.raises(pymysql.MySQLError):
            run(mine, "COMMIT")
        assert run(other, f"SELECT balance FROM users WHERE uid = {ONE}") == ((100,),)
