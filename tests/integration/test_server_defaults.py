"""What servers have for every new connection: global autocommit and completion_type, init_connect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalCluster
from tests.in_process import WorkerHere
from tests.proxy import SPLIT

KEY = 10  # on the first shard


@contextmanager
def served(cluster: LocalCluster, **settings: str) -> Iterator[WorkerHere]:
    """A worker in front of servers with these global settings; init_connect is for its account too."""
    primaries = [shard.primary for shard in cluster.shards]
    exempt = "SUPER, CONNECTION ADMIN"
    if cluster.flavor == "mysql":
        exempt = "SUPER, CONNECTION_ADMIN, SESSION_VARIABLES_ADMIN, SYSTEM_VARIABLES_ADMIN"
    try:
        for primary in primaries:
            primary.rows(f"REVOKE {exempt} ON *.* FROM shardproxy@'%'")
            for name, value in settings.items():
                primary.rows(f"SET GLOBAL {name} = {value}")
        with WorkerHere(cluster) as here:
            with primaries[0].connect() as direct, direct.cursor() as cursor:
                cursor.execute("SET autocommit = 1")
                cursor.execute(f"REPLACE INTO main.users (uid, name, balance) VALUES ({KEY}, 'x', 1)")
            yield here
    finally:
        for primary in primaries:
            for name in settings:
                primary.rows(f"SET GLOBAL {name} = DEFAULT")
            primary.rows(f"GRANT {exempt} ON *.* TO shardproxy@'%'")


def balance(cluster: LocalCluster) -> Any:
    return cluster.shards[0].primary.rows(f"SELECT balance FROM main.users WHERE uid = {KEY}")[0][0]


def test_sessions_begin_with_the_servers_autocommit(cluster: LocalCluster) -> None:
    with (
        served(cluster, autocommit="0") as here,
        closing(here.connect(autocommit=None)) as connection,
        connection.cursor() as cursor,
    ):

        def now(statement: str) -> tuple[Any, Any]:
            """@@autocommit, and the balance that is committed after the statement."""
            cursor.execute(statement)
            committed = balance(cluster)
            cursor.execute("SELECT @@autocommit")
            return cursor.fetchone()[0], committed

        assert not connection.get_autocommit()
        set_to = f"UPDATE users SET balance = %d WHERE uid = {KEY}"
        assert now(set_to % 2) == (0, 1)
        assert now("ROLLBACK") == (0, 1)
        assert now(set_to % 3) == (0, 1)
        assert now("COMMIT") == (0, 3)
        assert now("SET autocommit = 1") == (1, 3)
        assert now(set_to % 4) == (1, 4)
        assert now("SET autocommit = DEFAULT") == (0, 4)
        assert now(set_to % 5) == (0, 4)
        assert now("COMMIT") == (0, 5)


@pytest.mark.parametrize(
    "settings",
    [
        {"autocommit": "0"},
        {"init_connect": "'SET autocommit = 0'"},
        {"completion_type": "'CHAIN'"},
        {"completion_type": "'RELEASE'"},
        {"init_connect": "'SET completion_type = 1'"},
    ],
    ids=str,
)
def test_what_is_acknowledged_is_written(cluster: LocalCluster, settings: dict[str, str]) -> None:
    with (
        served(cluster, **settings) as here,
        closing(here.connect(autocommit=True)) as connection,
        connection.cursor() as cursor,
    ):
        steps = (
            ("SELECT 1", 1),
            (f"UPDATE users SET balance = 2 WHERE uid = {KEY}", 2),
            ("BEGIN", 2),
            (f"UPDATE users SET balance = 3 WHERE uid = {KEY}", 2),
            ("COMMIT", 3),
            (f"UPDATE users SET balance = 4 WHERE uid = {KEY}", 4),
            ("SET autocommit = 0", 4),
            (f"UPDATE users SET balance = 5 WHERE uid = {KEY}", 4),
            ("ROLLBACK", 4),
            ("SET autocommit = 1", 4),
            (f"UPDATE users SET balance = 6 WHERE uid = {KEY}", 6),
        )
        for statement, expected in steps:
            cursor.execute(statement)
            assert balance(cluster) == expected, statement
        # The connections that sessions with autocommit off have left, for sessions that say nothing of it.
        with closing(here.connect(autocommit=False)) as off, off.cursor() as other:
            other.execute(f"SELECT balance FROM users WHERE uid = {KEY}")
            other.execute("COMMIT")
        cursor.execute(f"UPDATE users SET balance = 7 WHERE uid = {KEY}")
        assert balance(cluster) == 7


def test_answers_are_as_long_as_the_servers_make_them(cluster: LocalCluster) -> None:
    with (
        served(cluster, sql_select_limit="2") as here,
        closing(here.connect(autocommit=True)) as connection,
        connection.cursor() as cursor,
    ):
        keys = (1, 2, 3, SPLIT + 1, SPLIT + 2, SPLIT + 3)
        cursor.execute("DELETE FROM users")
        cursor.execute(f"INSERT INTO users (uid, name, balance) VALUES {', '.join(f'({key}, 1, 1)' for key in keys)}")
        for statement, expected in (
            ("SELECT uid FROM users ORDER BY uid", keys[:2]),
            ("SELECT uid FROM users ORDER BY uid LIMIT 5", keys[:5]),
            ("SELECT SUM(balance) FROM users", (6,)),
            (f"SELECT uid FROM users WHERE uid > {SPLIT} ORDER BY uid DESC", keys[:-3:-1]),
            ("SET sql_select_limit = 4", ()),
            ("SELECT uid FROM users ORDER BY uid DESC", keys[:-5:-1]),
            ("SET sql_select_limit = DEFAULT", ()),
            ("SELECT uid FROM users ORDER BY uid DESC", keys[:-3:-1]),
            ("SET sql_select_limit = 18446744073709551615", ()),
            ("SELECT uid FROM users ORDER BY uid", keys),
        ):
            cursor.execute(statement)
            assert tuple(row[0] for row in cursor.fetchall()) == expected, statement


def test_texts_are_read_as_the_servers_read_them(cluster: LocalCluster) -> None:
    sets = "'SET sql_mode = \"ANSI_QUOTES,NO_BACKSLASH_ESCAPES\", time_zone = \"+05:00\"'"
    with (
        served(cluster, init_connect=sets) as here,
        closing(here.connect(autocommit=True)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT @@sql_mode = @@GLOBAL.sql_mode, @@time_zone = @@GLOBAL.time_zone")
        assert cursor.fetchall() == ((1, 1),)
        cursor.execute(f"""UPDATE users SET name = "a\\"b" WHERE uid = {KEY}""")
        cursor.execute(f"SELECT name FROM users WHERE uid = {KEY}")
        assert cursor.fetchall() == (('a"b',),)


def test_texts_are_in_the_clients_character_set(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its handshake: PyMySQL would say SET NAMES, too."""
    monkeypatch.setattr(pymysql.connections.Connection, "set_character_set", lambda *_: None)
    with served(cluster, init_connect="'SET NAMES latin1'") as here:
        for charset, name in (("utf8mb4", "é€😀"), ("latin1", "é")):
            with closing(here.connect(charset=charset)) as connection, connection.cursor() as cursor:
                cursor.execute(f"UPDATE users SET name = '{name}' WHERE uid = {KEY}")
                connection.commit()
                cursor.execute(f"SELECT name FROM users WHERE uid = {KEY}")
                assert cursor.fetchall() == ((name,),)
            stored = cluster.shards[0].primary.rows(f"SELECT name FROM main.users WHERE uid = {KEY}")
            assert stored == [(name,)], charset
