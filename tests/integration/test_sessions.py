"""What a session has set: carried from server connection to server connection, or pinned, never mixed up."""

from __future__ import annotations

import pytest

from shardproxy.protocol.mysql.constants import Com
from tests.proxy import SPLIT, ProxyUnderTest, eventually
from tests.wire import RawClient, Refused, code_of

FAR = SPLIT + 1  # a key on the second shard


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


@pytest.mark.parametrize("name", ["utf16", "ucs2", "utf32"])
@pytest.mark.parametrize("transaction", [False, True])
def test_wide_character_sets_of_the_connection_are_refused(
    narrow: ProxyUnderTest, name: str, transaction: bool
) -> None:
    """Servers understand no SET under them."""
    with RawClient(narrow.port) as client:
        if transaction:
            client.query("BEGIN")
            client.query("SELECT COUNT(*) FROM users WHERE uid = 1")
        for variable in ("connection", "results"):
            assert code_of(client, f"SET character_set_{variable} = {name}") == 9103
            assert client.rows(f"SELECT @@character_set_{variable}") == [[b"utf8mb4"]]
        client.query("SET time_zone = '+04:00'")
        client.query("ROLLBACK")
        assert client.rows("SELECT @@time_zone") == [[b"+04:00"]]


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
        # Of a worker that does not answer at once, the proxy shows what it said up to a second ago.
        eventually(lambda: narrow.pinned() == {reason: 1}, "the pin is shown")
        eventually(lambda: narrow.metric("shardproxy_pins_total", reason=reason) == before + 1, "it is counted once")
        eventually(lambda: narrow.metric("shardproxy_pinned_sessions", reason=reason) == 1, "the gauge has it")
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
