"""Functions of the session and what its statements tell: as one server answers, and never of another client."""

from __future__ import annotations

import pytest

from shardproxy.local import LocalServer
from shardproxy.protocol.mysql.constants import Com
from tests.proxy import ProxyUnderTest
from tests.wire import RawClient, Refused, code_of

# Statements whose answers, errors and side effects must be those of one server.
CONVERSATION = (
    "SELECT LAST_INSERT_ID(), ROW_COUNT()",
    "INSERT INTO settings (name, value) VALUES ('a', '1')",
    "SELECT LAST_INSERT_ID()",
    "SELECT ROW_COUNT()",
    "INSERT INTO settings (name, value) VALUES ('b', '1'), ('c', '2')",
    "SELECT ROW_COUNT()",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) VALUES (50, 'given')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) VALUES (NULL, 'not given')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) VALUES (0, 'zero')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) VALUES (60, 'g1'), (NULL, 'n1'), (NULL, 'n2')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) VALUES (NULL, 'n3'), (90, 'g2')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) VALUES (52, 'explicit'), (53, 'explicit too')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (name) VALUES ('a')",
    "SELECT LAST_INSERT_ID(), ROW_COUNT()",
    "INSERT IGNORE INTO settings (name) VALUES ('a')",
    "SELECT ROW_COUNT()",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (name, value) VALUES ('a', 'x') ON DUPLICATE KEY UPDATE value = 'y'",
    "SELECT ROW_COUNT()",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (name) VALUES ('a') ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
    "SELECT LAST_INSERT_ID()",
    "UPDATE settings SET value = LAST_INSERT_ID(123) WHERE name = 'b'",
    "SELECT LAST_INSERT_ID()",
    "REPLACE INTO settings (id, name) VALUES (91, 'replaced')",
    "SELECT ROW_COUNT()",
    "SELECT LAST_INSERT_ID()",
    "REPLACE INTO settings (name) VALUES ('replaced')",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (id, name) SELECT 200, 'selected'",
    "SELECT LAST_INSERT_ID()",
    "INSERT INTO settings (name) SELECT CONCAT('s', id) FROM settings WHERE id = 1",
    "SELECT LAST_INSERT_ID()",
    "SELECT LAST_INSERT_ID() + 1",
    "SELECT name FROM settings WHERE id = LAST_INSERT_ID()",
    "INSERT INTO settings SET id = 300, name = 'set form'",
    "SELECT @@last_insert_id, @@identity",
    "UPDATE settings SET value = 'same' WHERE id IN (1, 2)",
    "SELECT ROW_COUNT()",
    "UPDATE settings SET value = 'same' WHERE id IN (1, 2)",
    "SELECT ROW_COUNT()",
    "DELETE FROM settings WHERE id = 2",
    "SELECT ROW_COUNT()",
    "SELECT ROW_COUNT()",
    "SELECT id FROM settings WHERE id = 1",
    "SELECT ROW_COUNT()",
    "SET time_zone = '+00:00'",
    "SELECT ROW_COUNT()",
    "INSERT INTO settings (name, value) VALUES (NULL, 1)",
    "SELECT ROW_COUNT()",
    "SHOW WARNINGS",
    "SHOW ERRORS",
    "SHOW COUNT(*) WARNINGS",
    "SHOW COUNT(*) ERRORS",
    "SELECT @@warning_count, @@error_count",
    "SELECT id FROM settings WHERE id = 1",
    "SHOW WARNINGS",
    "SHOW COUNT(*) WARNINGS",
    "SET sql_mode = ''",
    "INSERT INTO settings (name, value) VALUES (REPEAT('x', 41), REPEAT('y', 201))",
    "SHOW WARNINGS",
    "SHOW WARNINGS LIMIT 1",
    "SHOW WARNINGS LIMIT 1, 1",
    "SHOW COUNT(*) WARNINGS",
    "SHOW ERRORS",
    "SELECT 1/0, 'a' + 1",
    "SHOW WARNINGS",
    "SELECT nonsense FROM settings",
    "SHOW WARNINGS",
    "SELECT nonsense(",  # the proxy's own error, in its own words
    "SHOW COUNT(*) ERRORS",
    "SELECT nonsense FROM settings",
    "BEGIN",
    "SHOW WARNINGS",
    "INSERT INTO settings (name) VALUES (REPEAT('z', 41))",
    "SHOW WARNINGS",
    "SELECT LAST_INSERT_ID() > 0",
    "INSERT INTO settings (name) VALUES ('a')",
    "SHOW WARNINGS",
    "SELECT ROW_COUNT()",
    "SELECT COUNT(*) FROM settings",
    "ROLLBACK",
    "SELECT ROW_COUNT()",
    "SHOW WARNINGS",
    "SELECT COUNT(*) FROM settings",
    "COMMIT",
    "SELECT DATABASE(), SCHEMA()",
    "USE hashed",
    "SELECT DATABASE()",
    "INSERT INTO notes (text) VALUES ('t')",
    "SELECT LAST_INSERT_ID()",
    "USE nowhere",
    "SELECT DATABASE()",
    "",
    "   ",
    "-- nothing",
    "SELECT 'last'",
)


@pytest.mark.parametrize("autocommit", [True, False], ids=["autocommit", "transactions"])
def test_a_conversation_goes_as_with_one_server(proxy: ProxyUnderTest, lone: LocalServer, autocommit: bool) -> None:
    """Rows, labels, counts, insert ids, warnings, status flags and error numbers of each statement."""
    with (
        RawClient(proxy.port) as client,
        RawClient(lone.port, lone.admin_user, lone.admin_password) as server,
    ):
        if not autocommit:
            client.query("SET autocommit = 0")
            server.query("SET autocommit = 0")
        different = []
        for number, sql in enumerate(CONVERSATION):
            got, expected = told(client, sql), told(server, sql)
            if got != expected:
                different.append((number, sql, got, expected))
        assert not different, "\n".join(f"{n}: {sql}\n   got      {a}\n   expected {b}" for n, sql, a, b in different)


def told(client: RawClient, sql: str) -> tuple[object, ...]:
    """Everything that a client can see of an answer."""
    try:
        result = client.query(sql)
    except Refused as refused:
        return ("error", refused.code, refused.err.sqlstate)
    assert result.end is not None
    flags = result.end.status & 3  # in a transaction, autocommit
    warnings = result.end.warnings
    if result.columns:
        return ([c.name for c in result.columns], result.rows, flags, warnings)
    return ("ok", result.ok.affected, result.ok.insert_id, flags, warnings, result.ok.info)


def test_last_insert_id_of_another_client_never_shows(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        client.query("INSERT INTO settings (name) VALUES ('a')")
        other.query("INSERT INTO settings (name) VALUES ('b')")
        client.query("INSERT INTO settings (id, name) VALUES (1000, 'c')")
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"1"]]
        assert other.rows("SELECT name FROM settings WHERE id = LAST_INSERT_ID()") == [[b"b"]]
        assert client.rows("SELECT name FROM settings WHERE id = LAST_INSERT_ID()") == [[b"a"]]
        # The other client has just left this very number on the connection that they share.
        other.query("INSERT INTO settings (name) VALUES ('d')")
        client.query("DELETE FROM settings WHERE id = 1001")
        client.query("INSERT INTO settings (id, name) VALUES (1001, 'e')")
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"1"]]
        client.command(Com.RESET_CONNECTION)
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"0"]]


def test_last_insert_id_of_prepared_statements(narrow: ProxyUnderTest) -> None:
    from shardproxy.protocol.mysql.constants import FieldType

    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        other.query("INSERT INTO settings (name) VALUES ('first')")
        insert = client.prepare("INSERT INTO settings (id, name) VALUES (?, ?)")
        name = (FieldType.VAR_STRING, False, b"a")
        assert client.execute(insert, [(FieldType.LONG, False, 40), name]).ok.insert_id == 40
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"0"]]
        name = (FieldType.VAR_STRING, False, b"b")
        client.execute(insert, [(FieldType.LONG, False, None), name])
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"41"]]
        counted = client.prepare("INSERT INTO settings (name) VALUES (?)")
        client.execute(counted, [(FieldType.VAR_STRING, False, b"c")])
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"42"]]


def test_connection_id_and_users(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client, RawClient(proxy.port, "native", "native's secret") as other:
        assert client.auth.greeting is not None
        ident = b"%d" % client.auth.greeting.connection_id
        assert client.rows("SELECT CONNECTION_ID(), @@pseudo_thread_id") == [[ident, ident]]
        assert other.rows("SELECT CONNECTION_ID()") != [[ident]]
        assert client.rows("SELECT CURRENT_USER(), CURRENT_USER, USER()") == [[b"app@%", b"app@%", b"app@127.0.0.1"]]
        client.query("SET @a = 1")
        assert client.rows("SELECT CONNECTION_ID(), CURRENT_USER()") == [[ident, b"app@%"]]
        assert code_of(client, "SELECT CONNECTION_ID() + 1") == 9100
