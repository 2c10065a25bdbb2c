"""What a session has set and holds: carried from server connection to server connection, or pinned, never mixed up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.constants import Com
from tests.proxy import SPLIT, ProxyUnderTest, eventually, start_proxy
from tests.wire import Closed, RawClient, Refused

FAR = SPLIT + 1  # a key on the second shard


@pytest.fixture(scope="module")
def narrow_process(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    """A proxy with one worker and one connection a server, so that every client gets what the last one left."""
    running = start_proxy(
        cluster,
        "narrow-proxy",
        proxy={"workers": 1, "drain_timeout": "100ms"},
        backend={"pool_size": 1, "shared_connections": 0, "pool_wait": "2s"},
    )
    yield running
    running.process.stop()


@pytest.fixture
def narrow(narrow_process: ProxyUnderTest) -> ProxyUnderTest:
    narrow_process.empty()
    return narrow_process


def code_of(client: RawClient, sql: str) -> int:
    """The number of the error that a statement gets."""
    with pytest.raises(Refused) as refused:
        client.query(sql)
    return refused.value.code


def wait_gone(server: LocalServer, what: str) -> None:
    """Wait until no connection of the server runs a statement that holds `what`."""
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE %s AND info NOT LIKE '%%processlist%%'"
    eventually(lambda: server.rows(sql, (f"%{what}%",)) == [(0,)], f"{what} still runs on {server.name}")


def wait_running(server: LocalServer, what: str) -> None:
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE %s AND info NOT LIKE '%%processlist%%'"
    eventually(lambda: server.rows(sql, (f"%{what}%",)) != [(0,)], f"{what} does not run on {server.name}")


# ── carried state ──

STATE = (
    "SELECT @@sql_mode, @@time_zone, @@autocommit, @@character_set_client, @@character_set_results, "
    "@@collation_connection, @@lock_wait_timeout, DATABASE(), {isolation}, {read_only}"
)


def state(client: RawClient, mariadb: bool) -> list[object]:
    prefix = "@@tx_" if mariadb else "@@transaction_"
    [row] = client.rows(STATE.format(isolation=f"{prefix}isolation", read_only=f"{prefix}read_only"))
    return list(row)


def test_settings_follow_their_client_and_nobody_else(narrow: ProxyUnderTest) -> None:
    settings = (
        "SET NAMES latin1",
        "SET sql_mode = 'ANSI_QUOTES,NO_ZERO_DATE'",
        "SET time_zone = '+05:00'",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION lock_wait_timeout = 77",
        "USE hashed",
    )
    with RawClient(narrow.port) as plain, RawClient(narrow.port) as other, RawClient(narrow.port) as third:
        default = state(plain, narrow.mariadb)
        for setting in settings:
            assert other.query(setting).ok.affected == 0
        expected = [b"ANSI_QUOTES,NO_ZERO_DATE", b"+05:00", b"1", b"latin1", b"latin1", b"latin1_swedish_ci", b"77",
                    b"hashed", b"READ-COMMITTED", b"0"]  # fmt: skip
        for _ in range(3):
            assert state(other, narrow.mariadb) == expected
            assert state(plain, narrow.mariadb) == default
            third.query("SET time_zone = '-01:00'")
            assert state(third, narrow.mariadb) == [default[0], b"-01:00", *default[2:]]
            assert state(other, narrow.mariadb) == expected
        other.query("SET time_zone = DEFAULT, sql_mode = DEFAULT, lock_wait_timeout = DEFAULT")
        other.query("SET NAMES utf8mb4 COLLATE utf8mb4_general_ci")
        other.query("USE main")
        other.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert state(other, narrow.mariadb) == default
        assert narrow.pinned() == {}


def test_settings_mean_what_they_say(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as plain, RawClient(narrow.port) as other:
        plain.query("INSERT INTO users VALUES (1, 'a', 5)")
        other.query("SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT', time_zone = '+02:00'")
        other.query("SET NAMES latin1")
        for _ in range(3):
            assert other.rows('SELECT "name" FROM users WHERE "uid" = 1') == [[b"a"]]
            assert plain.rows('SELECT "name" FROM users WHERE uid = 1') == [[b"name"]]
            assert other.rows("SELECT 'a' || 'b'") == [[b"ab"]]
            assert plain.rows("SELECT 'a' || 'b'") == [[b"0"]]
            assert other.rows("SELECT FROM_UNIXTIME(0)") == [[b"1970-01-01 02:00:00"]]
            other.query(b"UPDATE users SET name = '\xe9' WHERE uid = 1")
            assert other.rows("SELECT name, HEX(name) FROM users WHERE uid = 1") == [[b"\xe9", b"C3A9"]]
            assert plain.rows("SELECT name FROM users WHERE uid = 1") == [["é".encode()]]
            plain.query("UPDATE users SET name = 'a' WHERE uid = 1")


def test_failing_settings_change_nothing(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        before = state(client, narrow.mariadb)
        for sql, code in (
            ("SET sql_mode = 'NONSENSE'", 1231), ("SET NAMES nonsense", 1115), ("SET time_zone = 'Nowhere/Here'", 1298),
            ("SET nonsense = 1", 1193), ("SET time_zone = '+01:00', sql_mode = 'NONSENSE'", 1231),
            ("SET SESSION TRANSACTION ISOLATION LEVEL NOTHING", 1064),
        ):  # fmt: skip
            assert code_of(client, sql) == code, sql
            assert state(client, narrow.mariadb) == before
            assert state(other, narrow.mariadb) == before
        assert narrow.pinned() == {}


@pytest.mark.parametrize("name", ["utf16", "ucs2", "gbk", "sjis", "big5"])
def test_character_sets_that_cannot_be_read_are_refused(narrow: ProxyUnderTest, name: str) -> None:
    """Their characters may hold bytes that look like quotes."""
    with RawClient(narrow.port) as client:
        for statement in (f"SET NAMES {name}", f"SET character_set_client = {name}"):
            assert code_of(client, statement) in (9103, 1231, 1115)
            assert client.rows("SELECT @@character_set_client") == [[b"utf8mb4"]]


def test_results_in_another_character_set(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        client.query("INSERT INTO users VALUES (1, 'é', 5)")
        client.query("SET character_set_results = latin1")
        assert client.rows("SELECT name FROM users WHERE uid = 1") == [[b"\xe9"]]
        assert other.rows("SELECT name FROM users WHERE uid = 1") == [["é".encode()]]
        client.query("SET character_set_results = NULL")
        assert client.rows("SELECT name FROM users WHERE uid = 1") == [["é".encode()]]


def test_settings_inside_a_transaction_stay_after_it(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        client.query("BEGIN")
        client.query("INSERT INTO users VALUES (1, 'a', 5)")
        client.query("SET time_zone = '+04:00', sql_mode = 'ANSI_QUOTES'")
        assert client.rows('SELECT "name" FROM users WHERE uid = 1') == [[b"a"]]
        client.query("COMMIT")
        assert other.rows('SELECT @@time_zone, "x"') != [[b"+04:00", b"x"]]
        assert client.rows("SELECT @@time_zone, @@sql_mode") == [[b"+04:00", b"ANSI_QUOTES"]]
        assert client.rows('SELECT "name" FROM users WHERE uid = 1') == [[b"a"]]


def test_found_rows_flag_of_the_client(narrow: ProxyUnderTest) -> None:
    """Clients that count matched rows and clients that count changed ones share a server, never a connection."""
    from shardproxy.protocol.mysql.constants import Cap

    with RawClient(narrow.port) as changed, RawClient(narrow.port, capabilities=int(Cap.FOUND_ROWS)) as matched:
        changed.query("INSERT INTO users VALUES (1, 'a', 5)")
        for _ in range(2):
            assert matched.query("UPDATE users SET balance = 5 WHERE uid = 1").ok.affected == 1
            assert changed.query("UPDATE users SET balance = 5 WHERE uid = 1").ok.affected == 0


# ── pins ──


def pinning(proxy: ProxyUnderTest) -> list[tuple[str, str]]:
    """(statement, reason) of everything that pins."""
    hint = "/*shardproxy: shard=shard1*/ "
    return [
        (hint + "UPDATE users SET balance = (@a := 5) WHERE uid = 1", "user variable"),
        ("SELECT GET_LOCK('a', 0)", "GET_LOCK"),
        ("SET SESSION long_query_time = 3", "SET of a variable that is not carried"),
        ("SET insert_id = 1000000000", "SET of a variable that is not carried"),
        ("SELECT LAST_INSERT_ID(77)", "LAST_INSERT_ID(expr)"),
        (hint + "CREATE TEMPORARY TABLE scribble (a INT)", "temporary table"),
        (hint + "LOCK TABLES users WRITE", "LOCK TABLES"),
        (hint + "PREPARE p FROM 'SELECT 1'", "PREPARE statement"),
        (hint + "HANDLER users OPEN", "HANDLER"),
        (hint + "CALL main.nothing()", "CALL"),
        ("SELECT main.answer()", "function that may change the session"),
    ]


PINNING = [reason for _, reason in pinning(None)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def routines(narrow_process: ProxyUnderTest) -> None:
    for shard in narrow_process.cluster.shards:
        shard.primary.rows("CREATE OR REPLACE FUNCTION main.answer() RETURNS INT DETERMINISTIC RETURN 42") if (
            narrow_process.mariadb
        ) else shard.primary.rows("CREATE FUNCTION main.answer() RETURNS INT DETERMINISTIC NO SQL RETURN 42")
        shard.primary.rows("CREATE PROCEDURE main.nothing() BEGIN END")
    narrow_process.cluster.wait_replicated()


@pytest.mark.parametrize("number", range(len(PINNING)), ids=PINNING)
def test_what_cannot_be_carried_pins(narrow: ProxyUnderTest, routines: None, number: int) -> None:
    statement, reason = pinning(narrow)[number]
    before = narrow.metric("shardproxy_pins_total", reason=reason)
    with RawClient(narrow.port) as client:
        client.query(statement)
        if "LOCK TABLES" not in statement:
            client.query("SELECT 1")
        assert narrow.pinned() == {reason: 1}
        assert narrow.metric("shardproxy_pins_total", reason=reason) == before + 1
        assert narrow.metric("shardproxy_pinned_sessions", reason=reason) == 1
        with pytest.raises(Refused) as refused:
            client.query(f"SELECT name FROM users WHERE uid = {FAR}")
        assert refused.value.code == 9102 and reason in refused.value.err.text
    eventually(lambda: narrow.pinned() == {}, "the pin ends with its session")
    eventually(lambda: narrow.metric("shardproxy_pinned_sessions", reason=reason) == 0, "the gauge goes back")
    with RawClient(narrow.port) as other:  # gets the same server connection, if that were kept
        assert other.rows("SELECT @a, @@long_query_time <> 3") == [[None, b"1"]]
        assert other.rows("SELECT IS_FREE_LOCK('a')") == [[b"1"]]


def test_pinned_sessions_keep_what_they_set(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client, RawClient(proxy.port) as other:
        client.query("SET @a = 5, @b = 'x'")
        for _ in range(3):
            assert client.rows("SELECT @a, @b") == [[b"5", b"x"]]
            assert other.rows("SELECT @a, @b") == [[None, None]]
        assert client.rows("SELECT name FROM users WHERE uid = 1 AND balance = @a") == []
        client.command(Com.RESET_CONNECTION)
        assert client.rows("SELECT @a") == [[None]]


def test_named_locks(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as holder, RawClient(proxy.port) as other:
        assert holder.rows("SELECT GET_LOCK('door', 0)") == [[b"1"]]
        assert other.rows("SELECT GET_LOCK('door', 0)") == [[b"0"]]
        assert holder.rows("SELECT RELEASE_LOCK('door')") == [[b"1"]]
        assert other.rows("SELECT GET_LOCK('door', 0)") == [[b"1"]]
        other.close()
        eventually(lambda: holder.rows("SELECT GET_LOCK('door', 0)") == [[b"1"]], "the lock of a client that left")


def test_temporary_tables_are_gone_with_their_session(narrow: ProxyUnderTest) -> None:
    hint = "/*shardproxy: shard=shard1*/ "
    with RawClient(narrow.port) as client:
        client.query(hint + "CREATE TEMPORARY TABLE scribble (a INT)")
        client.query(hint + "INSERT INTO scribble VALUES (7)")
        assert client.rows(hint + "SELECT a FROM scribble") == [[b"7"]]
    with RawClient(narrow.port) as other:
        assert code_of(other, hint + "SELECT a FROM scribble") == 1146


# ── functions of the session ──

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


# ── KILL ──


def ident_of(client: RawClient) -> int:
    assert client.auth.greeting is not None
    return client.auth.greeting.connection_id


@pytest.fixture
def on_two_workers(proxy: ProxyUnderTest) -> Iterator[tuple[RawClient, RawClient]]:
    """Two clients that different workers serve."""
    clients = [RawClient(proxy.port)]
    while len({ident_of(client) >> 24 for client in clients}) < 2:
        clients.append(RawClient(proxy.port))
        assert len(clients) < 200
    yield clients[0], clients[-1]
    for client in clients:
        client.close()


SLOW = "SELECT SLEEP(61)"


def test_kill_query_on_the_same_worker(proxy: ProxyUnderTest) -> None:
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(RawClient(proxy.port))
        killer = stack.enter_context(RawClient(proxy.port))
        while ident_of(killer) >> 24 != ident_of(victim) >> 24:
            killer = stack.enter_context(RawClient(proxy.port))
        victim.send(bytes((Com.QUERY,)) + SLOW.encode())
        wait_running(proxy.primary(0), SLOW)
        killer.query(f"KILL QUERY {ident_of(victim)}")
        wait_gone(proxy.primary(0), SLOW)
        with contextlib.suppress(Refused):  # MySQL's SLEEP gives 1, MariaDB's an error
            assert victim.result().rows == [[b"1"]]
        assert victim.rows("SELECT 1") == [[b"1"]]


@contextlib.contextmanager
def locked_users(proxy: ProxyUnderTest) -> Iterator[None]:
    """While it lasts, every statement on `users` waits, on both shards."""
    with contextlib.ExitStack() as stack:
        for shard in (0, 1):
            connection = stack.enter_context(proxy.primary(shard).connect("main"))
            connection.cursor().execute("LOCK TABLES users WRITE")
        yield


@pytest.mark.parametrize("sql", [SLOW, "SELECT /* waits */ name FROM users"], ids=["one shard", "scattered"])
@pytest.mark.parametrize("query_only", [False, True], ids=["connection", "query"])
def test_kill_ends_statements_everywhere(
    proxy: ProxyUnderTest, on_two_workers: tuple[RawClient, RawClient], sql: str, query_only: bool
) -> None:
    victim, killer = on_two_workers
    shards = (0, 1) if "users" in sql else (0,)
    with locked_users(proxy):
        victim.send(bytes((Com.QUERY,)) + sql.encode())
        for shard in shards:
            wait_running(proxy.primary(shard), sql)
        killer.query(f"KILL {'QUERY' if query_only else ''} {ident_of(victim)}")
        for shard in shards:
            wait_gone(proxy.primary(shard), sql)
        if query_only:
            with contextlib.suppress(Refused):
                victim.result()
            assert victim.rows("SELECT 1") == [[b"1"]]
        else:
            with contextlib.suppress(Refused, Closed):
                victim.result()
            victim.expect_closed()
            assert code_of(killer, f"KILL {ident_of(victim)}") == 1094


def test_kill_of_nobody_and_of_others(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client, RawClient(proxy.port, "native", "native's secret") as other:
        for ident in (0, 1, 999, 0xFF000001, ident_of(other)):
            assert code_of(client, f"KILL {ident}") in (1094, 1095)
        assert other.rows("SELECT 1") == [[b"1"]]
        server_thread = proxy.primary(0).rows("SELECT MAX(id) FROM information_schema.processlist")[0][0]
        assert code_of(client, f"KILL {server_thread}") == 1094  # ids of servers mean other clients


def test_kill_of_oneself(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        with contextlib.suppress(Refused, Closed):
            client.query(f"KILL {ident_of(client)}")
        client.expect_closed()


def test_kill_query_never_hits_the_next_client(narrow: ProxyUnderTest) -> None:
    """The statement may be over when the KILL arrives, and its connection with somebody else."""
    stop = threading.Event()
    broken: list[Exception] = []

    def quick() -> None:
        with RawClient(narrow.port) as client:
            while not stop.is_set():
                try:
                    client.query("SELECT name FROM users WHERE uid = 1")
                except Exception as error:
                    broken.append(error)
                    return

    bystander = threading.Thread(target=quick)
    with RawClient(narrow.port) as victim, RawClient(narrow.port) as killer:
        bystander.start()
        try:
            for _ in range(150):
                victim.send(bytes((Com.QUERY,)) + b"SELECT balance FROM users WHERE uid = 1")
                killer.query(f"KILL QUERY {ident_of(victim)}")
                with contextlib.suppress(Refused):
                    victim.result()
        finally:
            stop.set()
            bystander.join()
    assert not broken


# ── transactions ──


@pytest.fixture
def client(proxy: ProxyUnderTest) -> Iterator[RawClient]:
    with RawClient(proxy.port) as made:
        yield made


@pytest.fixture
def other(proxy: ProxyUnderTest) -> Iterator[RawClient]:
    with RawClient(proxy.port) as made:
        yield made


def test_begin_before_any_shard_is_known(client: RawClient, other: RawClient) -> None:
    assert client.query("BEGIN").status & 1
    assert client.command(Com.PING).status & 1
    assert client.rows("SELECT 1") == [[b"1"]]
    client.query("COMMIT")
    assert not client.command(Com.PING).status & 1
    client.query("START TRANSACTION")
    client.query(f"INSERT INTO users VALUES ({FAR}, 'a', 1)")
    assert other.rows(f"SELECT * FROM users WHERE uid = {FAR}") == []
    assert client.rows("SELECT name FROM users WHERE uid = 1001") == [[b"a"]]
    result = client.query("COMMIT")
    assert not result.status & 1
    assert other.rows(f"SELECT name FROM users WHERE uid = {FAR}") == [[b"a"]]


def test_a_second_shard_joins(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    for sql in (f"INSERT INTO users VALUES ({FAR}, 'b', 1)", "INSERT INTO countries VALUES ('de', 'x')",
                "INSERT INTO settings (name) VALUES ('x')"):  # fmt: skip
        assert client.query(sql).status & 1, sql
    assert len(client.query("SELECT * FROM users").rows) == 2
    assert other.rows("SELECT uid FROM users") == other.rows("SELECT code FROM countries") == []
    assert not client.query("COMMIT").status & 1
    assert len(other.rows("SELECT uid FROM users")) == 2
    assert other.rows("SELECT code FROM countries") == [[b"de"]]


def test_savepoints(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("SAVEPOINT a")
    client.query("ROLLBACK TO a")
    client.query("RELEASE SAVEPOINT A")
    assert code_of(client, "ROLLBACK TO SAVEPOINT a") == 1305
    client.query("SAVEPOINT one")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("SAVEPOINT two")
    client.query("INSERT INTO users VALUES (2, 'b', 1)")
    client.query("ROLLBACK TO two")
    assert client.rows("SELECT uid FROM users WHERE uid IN (1, 2)") == [[b"1"]]
    client.query("ROLLBACK TO one")
    assert client.rows("SELECT uid FROM users WHERE uid IN (1, 2)") == []
    assert code_of(client, "RELEASE SAVEPOINT two") == 1305
    client.query("INSERT INTO users VALUES (3, 'c', 1)")
    client.query("COMMIT")
    assert other.rows("SELECT uid FROM users") == [[b"3"]]
    client.query("SAVEPOINT outside")
    assert code_of(client, "ROLLBACK TO outside") == 1305


def test_without_autocommit(client: RawClient, other: RawClient) -> None:
    assert not client.query("SET autocommit = 0").status & 2
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    assert other.rows("SELECT uid FROM users") == []
    client.query("ROLLBACK")
    assert client.rows("SELECT uid FROM users WHERE uid = 1") == []
    client.query("COMMIT")
    client.query(f"INSERT INTO users VALUES ({FAR}, 'a', 1)")
    client.query("SET autocommit = 1")  # commits
    assert other.rows("SELECT uid FROM users") == [[b"1001"]]
    client.query("INSERT INTO users VALUES (2, 'b', 1)")
    assert len(other.rows("SELECT uid FROM users")) == 2


def test_autocommit_on_ends_a_transaction_that_no_shard_knows_of_yet(client: RawClient, other: RawClient) -> None:
    client.query("SET autocommit = 0")
    client.query("BEGIN")
    client.query("SET autocommit = 1")
    assert not client.command(Com.PING).status & 1
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]


def test_a_failed_first_statement(narrow: ProxyUnderTest) -> None:
    """An ERR says nothing about the transaction that it may have opened; nobody else may get that."""
    narrow.primary(0).rows("INSERT INTO main.users VALUES (1, 'a', 1)")
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        for session in client, other:
            session.query("SET autocommit = 0")
        assert code_of(client, "SELECT nonsense FROM users WHERE uid = 1") == 1054
        client.query("ROLLBACK")  # MariaDB has begun a transaction, MySQL has not
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"1"]]
        other.query("COMMIT")
        assert code_of(client, "INSERT INTO users VALUES (1, 'b', 1)") == 1062
        assert client.command(Com.PING).status & 1  # as with one server, its row lock stays
        client.query("ROLLBACK")
        narrow.primary(0).rows("UPDATE main.users SET balance = 2 WHERE uid = 1")
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"2"]]
        other.query("COMMIT")
        assert code_of(client, "INSERT INTO users VALUES (1, 'b', 1)") == 1062
        client.close()
        narrow.primary(0).rows("UPDATE main.users SET balance = 3 WHERE uid = 1")
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"3"]]


def test_next_transaction_only(narrow: ProxyUnderTest) -> None:
    with RawClient(narrow.port) as client, RawClient(narrow.port) as other:
        client.query("INSERT INTO users VALUES (1, 'a', 1)")
        client.query("SET TRANSACTION READ ONLY")
        client.query("BEGIN")
        assert client.rows("SELECT name FROM users WHERE uid = 1") == [[b"a"]]
        assert code_of(client, "UPDATE users SET name = 'b' WHERE uid = 1") == 1792
        client.query("COMMIT")
        client.query("UPDATE users SET name = 'c' WHERE uid = 1")
        client.query("SET TRANSACTION READ ONLY")
        other.query("UPDATE users SET name = 'd' WHERE uid = 1")
        assert code_of(client, "UPDATE users SET name = 'e' WHERE uid = 1") == 1792
        client.query("UPDATE users SET name = 'f' WHERE uid = 1")
        client.query("SET TRANSACTION READ ONLY")
        client.close()
        other.query("UPDATE users SET name = 'g' WHERE uid = 1")
        client = RawClient(narrow.port)
        assert code_of(client, "SET TRANSACTION NONSENSE") == 1064
        client.query("UPDATE users SET name = 'h' WHERE uid = 1")
        client.query("BEGIN")
        assert code_of(client, "SET TRANSACTION READ ONLY") == 1568
        client.close()


def test_ddl_commits(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("ALTER TABLE users COMMENT = 'x'")
    assert not client.command(Com.PING).status & 1
    assert other.rows("SELECT uid FROM users") == [[b"1"]]
    client.query("ROLLBACK")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]
    client.query(f"INSERT INTO users VALUES ({FAR}, 'b', 1)")
    assert len(other.rows("SELECT uid FROM users")) == 2


def test_begin_commits_what_is_open(client: RawClient, other: RawClient) -> None:
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("BEGIN")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]
    client.query(f"INSERT INTO users VALUES ({FAR}, 'b', 1)")
    client.query("ROLLBACK")
    assert other.rows("SELECT uid FROM users") == [[b"1"]]


def test_a_deadlock_leaves_a_usable_session(proxy: ProxyUnderTest, client: RawClient, other: RawClient) -> None:
    for uid in (1, 2):
        client.query(f"INSERT INTO users VALUES ({uid}, 'a', 1)")
    for session, uid in ((client, 1), (other, 2)):
        session.query("BEGIN")
        session.query(f"UPDATE users SET balance = 10 WHERE uid = {uid}")
    client.send(bytes((Com.QUERY,)) + b"UPDATE users SET balance = 20 WHERE uid = 2")
    other.send(bytes((Com.QUERY,)) + b"UPDATE users SET balance = 20 WHERE uid = 1")
    outcomes = {}
    for session in (client, other):
        try:
            session.result()
        except Refused as refused:
            outcomes[refused.code] = session
        else:
            outcomes[0] = session
    winner, loser = outcomes[0], outcomes[1213]
    winner.query("COMMIT")
    # The server has rolled back: nothing of the transaction is left, so any shard may come next.
    assert not loser.command(Com.PING).status & 1
    loser.query(f"INSERT INTO users VALUES ({FAR}, 'b', 1)")
    loser.query("BEGIN")
    loser.query("UPDATE users SET balance = 30 WHERE uid = 1")
    loser.query("COMMIT")
    assert proxy.primary(0).rows("SELECT balance FROM main.users ORDER BY uid") in ([(30,), (20,)], [(30,), (10,)])
    eventually(lambda: proxy.busy() == 0, "no connection is held any more")


def test_describing_a_table_does_not_lock_it(client: RawClient, other: RawClient) -> None:
    """Without autocommit MySQL 9 keeps a lock on the name of a table that is not there, and reports no transaction."""
    client.query("SET autocommit = 0")
    for sql in ("DESCRIBE users", "SHOW COLUMNS FROM users", "SHOW CREATE TABLE users", "SHOW INDEX FROM users"):
        client.query(sql)
    client.prepare("SELECT * FROM users WHERE uid = ?")
    client.query("COMMIT")
    assert code_of(client, "DESCRIBE people") == 1146
    other.query("SET lock_wait_timeout = 3")
    other.query("ALTER TABLE users COMMENT = 'y'")
    other.query("CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(50))")
    other.query("DROP TABLE people")


# ── clients that vanish ──


@pytest.mark.parametrize("abruptly", [False, True], ids=["fin", "reset"])
def test_a_vanished_client_unlocks_its_rows(proxy: ProxyUnderTest, other: RawClient, abruptly: bool) -> None:
    import socket
    import struct

    other.query("INSERT INTO users VALUES (1, 'a', 1)")
    client = RawClient(proxy.port)
    client.query("BEGIN")
    client.query("UPDATE users SET balance = 100 WHERE uid = 1")
    if abruptly:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    started = time.monotonic()
    other.query("UPDATE users SET balance = balance + 1 WHERE uid = 1")
    assert time.monotonic() - started < 5
    assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"2"]]
    eventually(lambda: proxy.busy() == 0, "no connection is held any more")


@pytest.mark.parametrize("begin", [False, True], ids=["", "in a transaction"])
@pytest.mark.parametrize(
    "sql",
    [
        SLOW,
        "SELECT /* waits */ name FROM users",
        "UPDATE /* waits */ users SET balance = 7 WHERE uid = 1",
        "SELECT /* waits */ name FROM users WHERE uid = 1",
    ],
    ids=["sleep", "scatter", "update", "point"],
)
def test_a_vanished_client_ends_its_statement(proxy: ProxyUnderTest, sql: str, begin: bool) -> None:
    for shard in (0, 1):
        proxy.primary(shard).rows(f"INSERT INTO main.users VALUES ({shard * SPLIT + 1}, 'a', 1)")
    scattered = "uid" not in sql and "users" in sql
    client = RawClient(proxy.port)
    if begin and not scattered:
        client.query("BEGIN")
    with locked_users(proxy):
        client.send(bytes((Com.QUERY,)) + sql.encode())
        for shard in (0, 1) if scattered else (0,):
            wait_running(proxy.primary(shard), sql)
        client.close()
        for shard in (0, 1):
            wait_gone(proxy.primary(shard), sql)
    eventually(lambda: proxy.busy() == 0, "no connection is held any more")
    assert proxy.primary(0).rows("SELECT balance FROM main.users WHERE uid = 1") == [(1,)]


def test_a_lost_server_connection_ends_a_transaction_loudly(proxy: ProxyUnderTest, client: RawClient) -> None:
    """The client must not go on as if its transaction still were."""
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    kill_servers_clients(proxy.primary(0))
    with pytest.raises((Refused, Exception)) as lost:
        client.query("INSERT INTO users VALUES (2, 'b', 1)")
    assert lost.type.__name__ in ("Closed", "Refused", "BrokenPipeError")
    assert proxy.primary(0).rows("SELECT * FROM main.users") == []
    with RawClient(proxy.port) as fresh:
        fresh.query("INSERT INTO users VALUES (3, 'c', 1)")


def test_idle_sessions_do_not_notice_lost_connections(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("SET time_zone = '+06:00'")
    statement = client.prepare("SELECT name FROM users WHERE uid = 1")
    client.execute(statement)
    for _ in range(3):
        kill_servers_clients(proxy.primary(0))
        assert client.execute(statement).rows == [[b"a"]]
        assert client.rows("SELECT @@time_zone, name FROM users WHERE uid = 1") == [[b"+06:00", b"a"]]
        client.query("UPDATE users SET balance = balance + 1 WHERE uid = 1")


def kill_servers_clients(server: LocalServer) -> None:
    """KILL every connection of the proxy's clients to a server, and wait until both ends have seen that."""
    sql = "SELECT id FROM information_schema.processlist WHERE user = 'shardproxy' AND db = 'main'"
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        idents = [ident for (ident,) in cursor.fetchall()]
        for ident in idents:
            with contextlib.suppress(pymysql.err.MySQLError):
                cursor.execute(f"KILL {ident}")

        def gone() -> bool:
            cursor.execute(sql)
            return not {ident for (ident,) in cursor.fetchall()} & set(idents) and not _half_closed(server.port)

        eventually(gone, f"connections of {server.name} end")


def _half_closed(port: int) -> bool:
    """Whether connections to this port have been closed by the server and not yet by the other side."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(there.endswith(f":{port:04X}") and state == "08" for _, _, there, state, *_ in sockets)


def test_nothing_is_left_open(proxy: ProxyUnderTest) -> None:
    """Last of this file: whatever the tests before did, no transaction and no connection is held any more."""
    eventually(lambda: proxy.busy() == 0 and proxy.pinned() == {}, "nothing is held")
    for shard in (0, 1):
        any_open: Any = proxy.primary(shard).rows("SELECT COUNT(*) FROM information_schema.innodb_trx")
        assert any_open == [(0,)]
