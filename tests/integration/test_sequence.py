"""AUTO_INCREMENT over shards: numbers, LAST_INSERT_ID() and rows as one server gives them, beside the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mysql.connector
import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from tests.proxy import ProxyUnderTest, start_proxy

KEYSPACES = """
[keyspaces.counted]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1 }
tables = { posts = { key = "id" }, notes = { key = "uid" }, tiny = { key = "uid" }, kinds = { reference = true } }
"""
TABLES = (
    "CREATE TABLE posts (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, title VARCHAR(40), n INT DEFAULT 7)",
    "CREATE TABLE notes (uid BIGINT NOT NULL, id INT NOT NULL AUTO_INCREMENT, text VARCHAR(40), "
    "PRIMARY KEY (uid, id), KEY (id), UNIQUE KEY (uid, text))",
    "CREATE TABLE tiny (uid BIGINT NOT NULL, id TINYINT NOT NULL AUTO_INCREMENT, PRIMARY KEY (uid, id), KEY (id))",
    "CREATE TABLE kinds (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) UNIQUE)",
)
NAMES = ("posts", "notes", "tiny", "kinds")


def make_tables(server: LocalServer) -> None:
    server.rows("DROP DATABASE IF EXISTS counted")
    server.rows("CREATE DATABASE counted CHARACTER SET utf8mb4")
    for statement in TABLES:
        server.rows(statement.replace("TABLE ", "TABLE counted.", 1))


@pytest.fixture(scope="module")
def counted_process(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    """A proxy with one worker, so that numbers are as one server's."""
    for shard in cluster.shards:
        make_tables(shard.primary)
    cluster.wait_replicated()
    users = {"app": {"password": "app", "reads": "primary"}}
    running = start_proxy(cluster, "counted", keyspaces=KEYSPACES, users=users, proxy={"workers": 1})
    yield running
    running.process.stop()
    for shard in cluster.shards:
        shard.primary.rows("DROP DATABASE counted")


class Beside:
    """The same statements through the proxy and on the lone server; every answer must be the same."""

    def __init__(self, proxy: ProxyUnderTest, oracle: LocalServer) -> None:
        self.proxy = proxy.connect(database="counted")
        self.oracle = oracle.connect(database="counted", autocommit=True)

    def run(self, sql: str, args: Any = None) -> Any:
        """What both answer: affected rows, insert id, rows or error; and LAST_INSERT_ID() after it."""
        answers = []
        for connection in (self.proxy, self.oracle):
            with connection.cursor() as cursor:
                try:
                    affected = cursor.execute(sql, args)
                    told: Any = (affected, cursor.lastrowid, cursor.fetchall(), connection._result.warning_count)
                except pymysql.MySQLError as error:
                    told = error.args
                cursor.execute("SELECT LAST_INSERT_ID()")
                answers.append((told, cursor.fetchall()))
        assert answers[0] == answers[1], sql
        return answers[0]

    def tables(self) -> None:
        for name in NAMES:
            self.run(f"SELECT * FROM {name}") if name == "kinds" else self.same_rows(name)

    def same_rows(self, table: str) -> list[Any]:
        found = []
        for connection in (self.proxy, self.oracle):
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {table}")
                found.append(sorted(cursor.fetchall(), key=repr))
        assert found[0] == found[1]
        return found[0]


@pytest.fixture
def beside(counted_process: ProxyUnderTest, oracle: LocalServer, cluster: LocalCluster) -> Iterator[Beside]:
    """Both sides with empty tables that count from 1."""
    make_tables(oracle)
    for shard in cluster.shards:
        for name in NAMES:
            shard.primary.rows(f"DELETE FROM counted.{name}")
            shard.primary.rows(f"ALTER TABLE counted.{name} AUTO_INCREMENT = 1")
    both = Beside(counted_process, oracle)
    with both.proxy.cursor() as cursor:  # the proxy's sequences go on; so does the lone server's counter from there
        for name, columns, values in (
            ("posts", "title", "'a'"), ("notes", "uid, text", "1, 'a'"), ("kinds", "name", "'a'"),
        ):  # fmt: skip
            cursor.execute(f"INSERT INTO {name} ({columns}) VALUES ({values})")
            at = cursor.lastrowid
            cursor.execute(
                f"DELETE FROM {name} WHERE id = {at}" if name != "notes" else "DELETE FROM notes WHERE uid = 1"
            )
            oracle.rows(f"ALTER TABLE counted.{name} AUTO_INCREMENT = {at + 1}")
    both.proxy.close()
    both.oracle.close()
    both = Beside(counted_process, oracle)
    yield both
    both.proxy.close()
    both.oracle.close()


def test_the_key_is_counted(beside: Beside) -> None:
    first = beside.run("INSERT INTO posts (title) VALUES ('x')")[0][1]
    assert beside.run("INSERT INTO posts (title) VALUES ('y')")[0][1] == first + 1
    beside.run("INSERT INTO posts VALUES (NULL, 'z', 1)")
    beside.run("INSERT INTO posts VALUES (DEFAULT, 'z', DEFAULT)")
    beside.run("INSERT INTO posts (id, title) VALUES (0, 'zero')")
    beside.run("INSERT posts SET title = 'set'")
    beside.run("INSERT INTO posts SET id = NULL, title = 'set'")
    beside.run("INSERT INTO posts () VALUES ()")
    beside.run("INSERT INTO posts VALUES ()")
    beside.run("REPLACE INTO posts (title) VALUES ('replaced')")
    beside.run(f"INSERT INTO posts (id, title) VALUES ({first}, 'again')")
    beside.run("INSERT INTO posts (title, nothing) VALUES (1, 2)")
    beside.same_rows("posts")


def test_rows_of_one_shard(beside: Beside) -> None:
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'a')")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'b'), (5, 'c'), (5, 'd')")
    beside.run("INSERT INTO notes VALUES (5, NULL, 'e'), (5, 0, 'f')")
    beside.run("INSERT INTO notes (id, uid, text) VALUES (NULL, 5, 'g'), (900, 5, 'h'), (NULL, 5, 'i')")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'j')")
    beside.run("INSERT INTO notes (id, uid, text) VALUES (2000, 5, 'k'), (3, 5, 'l')")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'm')")
    beside.run("INSERT INTO notes (id, uid, text) VALUES (-4, 5, 'n')")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'm')")
    beside.run("INSERT INTO notes (uid, text) VALUES (%s, %s)", (6, "it's"))
    beside.same_rows("notes")


def test_ignored_and_updated_rows(beside: Beside) -> None:
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'a')")
    beside.run("INSERT IGNORE INTO notes (uid, text) VALUES (5, 'a')")
    beside.run("INSERT IGNORE INTO notes (uid, text) VALUES (5, 'b')")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'a') ON DUPLICATE KEY UPDATE text = 'a2'")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'b') ON DUPLICATE KEY UPDATE text = 'b'")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'b') ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'c') ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)")
    beside.run("INSERT INTO notes (uid, text) VALUES (5, 'd') ON DUPLICATE KEY UPDATE text = 'd'")
    beside.run("REPLACE INTO notes (uid, text) VALUES (5, 'd')")


def test_reference_tables(beside: Beside, cluster: LocalCluster) -> None:
    beside.run("INSERT INTO kinds (name) VALUES ('a')")
    beside.run("INSERT INTO kinds (name) VALUES ('b'), ('c')")
    beside.run("INSERT INTO kinds VALUES (NULL, 'd')")
    beside.run("INSERT INTO kinds (name) VALUES ('a')")
    beside.run("INSERT INTO kinds (name) VALUES ('e')")
    beside.same_rows("kinds")
    rows = [shard.primary.rows("SELECT * FROM counted.kinds ORDER BY id") for shard in cluster.shards]
    assert rows[0] == rows[1] and len(rows[0]) == 5


def test_modes(beside: Beside) -> None:
    beside.run("SET sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')")
    beside.run("INSERT INTO notes (uid, id, text) VALUES (5, 0, 'a')")
    beside.run("INSERT INTO notes (uid, id, text) VALUES (5, NULL, 'b')")
    beside.same_rows("notes")


def test_prepared_statements(counted_process: ProxyUnderTest, beside: Beside) -> None:
    """NULL, 0 and numbers bound as parameters, columns left out, and values that follow the number."""
    connections, cursors = [], []
    for port, user, password in (
        (counted_process.port, "app", "app"),
        (beside.oracle.port, beside.oracle.user.decode(), beside.oracle.password.decode()),
    ):
        connection = mysql.connector.connect(
            host="127.0.0.1", port=port, user=user, password=password, database="counted", use_pure=True,
            ssl_disabled=True, autocommit=True,
        )  # fmt: skip
        connections.append(connection)
        cursors.append(connection.cursor(prepared=True))
    for sql, rows in (
        ("INSERT INTO posts (title, n) VALUES (?, ?)", [("a", 1), ("b", None), (None, 3)]),
        ("INSERT INTO posts (id, title) VALUES (?, ?)", [(None, "c"), (0, "d"), (None, None)]),
        ("INSERT INTO posts VALUES (NULL, ?, 5)", [("e",), ("f",)]),
        ("INSERT INTO notes (uid, text) VALUES (?, ?), (5, ?)", [(5, "g", "h"), (5, "i", "j")]),
    ):
        for row in rows:
            told = []
            for cursor in cursors:
                cursor.execute(sql, row)
                told.append((cursor.rowcount, cursor.lastrowid))
            assert told[0] == told[1], (sql, row)
    beside.same_rows("posts")
    beside.same_rows("notes")
    for connection in connections:
        connection.close()


def test_transactions(beside: Beside) -> None:
    """Rows on several shards in one transaction; a roll-back loses the numbers and nothing else."""
    beside.run("BEGIN")
    for title in "abcdef":
        beside.run(f"INSERT INTO posts (title) VALUES ('{title}')")
    beside.run("INSERT INTO notes (uid, text) VALUES (1, 'a'), (1, 'b')")
    beside.run("INSERT INTO kinds (name) VALUES ('in a transaction')")
    beside.run("COMMIT")
    beside.run("BEGIN")
    beside.run("INSERT INTO posts (title) VALUES ('a')")
    beside.run("INSERT INTO posts (title) VALUES ('b')")
    beside.run("ROLLBACK")
    beside.run("INSERT INTO posts (title) VALUES ('after')")
    for table in ("posts", "notes", "kinds"):
        beside.same_rows(table)


@pytest.mark.parametrize("begin", ["BEGIN", "DO 1"])
def test_the_first_number_that_was_stored_is_told(beside: Beside, begin: str) -> None:
    """A number that was made for a row that is left out is a gap here, and is used again by one server."""
    with beside.proxy.cursor() as cursor:
        cursor.execute(begin)
        cursor.execute("INSERT INTO notes (uid, text) VALUES (1, 'a'), (1, 'b')")
        for sql, text in (
            ("INSERT IGNORE INTO notes (uid, text) VALUES (1, 'b'), (1, 'c'), (1, 'd')", "c"),
            (
                "INSERT INTO notes (uid, text) VALUES (1, 'a'), (1, 'e'), (1, 'f') ON DUPLICATE KEY UPDATE text = 'a'",
                "e",
            ),
        ):
            cursor.execute(sql)
            told = cursor.lastrowid
            cursor.execute("SHOW COUNT(*) WARNINGS")
            assert cursor.fetchall() == (((1,),) if "IGNORE" in sql else ((0,),))
            cursor.execute("SELECT LAST_INSERT_ID()")
            assert cursor.fetchall() == ((told,),)
            cursor.execute(f"SELECT id FROM notes WHERE uid = 1 AND text = '{text}'")
            assert cursor.fetchall() == ((told,),)
        cursor.execute("COMMIT")


def test_a_session_that_counts_otherwise_is_refused(counted_process: ProxyUnderTest) -> None:
    with counted_process.connect(database="counted") as connection, connection.cursor() as cursor:
        cursor.execute("SET auto_increment_increment = 5")
        with pytest.raises(pymysql.err.Error, match="auto_increment_increment") as caught:
            cursor.execute("INSERT INTO posts (title) VALUES ('x')")
        assert caught.value.args[0] == 9102


def test_a_column_that_is_full(beside: Beside) -> None:
    """As on one server: an error, and no row with a number that was cut off."""
    with beside.proxy.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute("INSERT INTO tiny (uid, id) VALUES (5, 126)")
        cursor.execute("INSERT INTO tiny (uid) VALUES (5)")
        assert cursor.lastrowid == 127
        with pytest.raises(pymysql.err.Error, match="Failed to read auto-increment value") as caught:
            cursor.execute("INSERT INTO tiny (uid) VALUES (5)")
        assert caught.value.args[0] == 1467
        cursor.execute("SELECT id FROM tiny WHERE uid = 5")
        assert sorted(cursor.fetchall()) == [(126,), (127,)]
