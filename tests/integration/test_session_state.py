"""What a session has set follows it to every shard, also to statements over several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardproxy.local import LocalServer
from shardproxy.protocol.mysql.constants import Com, FieldType
from tests.proxy import SPLIT, ProxyUnderTest, eventually
from tests.wire import RawClient, Refused

FAR = SPLIT + 1  # a key on the second shard


@pytest.fixture
def client(proxy: ProxyUnderTest) -> Iterator[RawClient]:
    """A session; `users` has two rows on each shard."""
    with RawClient(proxy.port) as made:
        for uid in (1, 2, FAR, FAR + 1):
            made.query(f"INSERT INTO users VALUES ({uid}, 'n{uid}', {uid})")
        yield made


def integer(value: int) -> tuple[int, bool, int]:
    return (FieldType.LONGLONG, False, value)


def code_of(client: RawClient, sql: str) -> int:
    with pytest.raises(Refused) as refused:
        client.query(sql)
    return refused.value.code


# ── variables under which shards cannot be put together ──


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM users", "SELECT uid FROM users ORDER BY uid", "SELECT DISTINCT uid FROM users"]
)
def test_sql_select_limit_over_several_shards(proxy: ProxyUnderTest, client: RawClient, sql: str) -> None:
    assert len(client.rows(sql)) == 4
    prepared = client.prepare(sql)
    client.query("SET sql_select_limit = 3")
    assert len(client.rows(sql)) == 3
    assert len(client.execute(prepared).rows) == 3
    assert len(client.rows(sql + " LIMIT 10")) == 4
    assert client.rows("SELECT COUNT(*) FROM (SELECT uid FROM users) AS d") == [[b"4"]]
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (3, 'n', 1)")
    assert len(client.rows(sql)) == 3
    client.query("ROLLBACK")
    assert proxy.pinned() == {}
    client.query("SET sql_select_limit = DEFAULT")
    assert len(client.rows(sql)) == 4
    assert len(client.execute(prepared).rows) == 4


def test_no_rows_at_all(proxy: ProxyUnderTest, client: RawClient) -> None:
    """sql_select_limit = 0: what the proxy itself asks of servers is told all the same."""
    client.query("INSERT INTO settings (name) VALUES ('a')")
    client.query("SET sql_select_limit = 0")
    for sql in (
        "SELECT * FROM users", f"SELECT * FROM users WHERE uid IN (1, {FAR}) ORDER BY uid", "SELECT ROW_COUNT()",
        "SELECT COUNT(*) FROM users", "SELECT * FROM users WHERE uid = 1", "SHOW COUNT(*) WARNINGS", "SHOW TABLES",
    ):  # fmt: skip
        assert client.rows(sql) == [], sql
    client.query(f"UPDATE users SET balance = 7 WHERE uid IN (1, {FAR}) ORDER BY name LIMIT 1")  # over scratch tables
    client.query("SET @a = 5, time_zone = '+02:00'")
    assert client.rows("SELECT @a, @@time_zone LIMIT 1") == [[b"5", b"+02:00"]]
    with pytest.raises(Refused):
        client.query("INSERT INTO users (uid, name) VALUES (7, NULL)")
    assert client.rows("SHOW WARNINGS")[0][1] == b"1048"
    client.query("BEGIN")
    client.query(f"INSERT INTO users VALUES (8, 'n', 1), ({FAR + 8}, 'n', 1)")
    client.query("COMMIT")
    assert client.rows("SELECT uid FROM users WHERE balance = 1 AND uid > 2 ORDER BY uid LIMIT 9") == [
        [b"8"], [b"%d" % (FAR + 8)],
    ]  # fmt: skip
    assert client.rows("SELECT SUM(balance = 7) FROM users LIMIT 1") == [[b"1"]]
    client.query("/*shardproxy: snapshot*/ START TRANSACTION")
    assert client.rows("SELECT COUNT(*) FROM users LIMIT 1") == [[b"6"]]
    client.query("COMMIT")
    assert proxy.pinned() == {}


def test_sql_auto_is_null_is_carried(proxy: ProxyUnderTest, client: RawClient) -> None:
    """The row inserted last is that of a connection: only what might ask for it is refused."""
    client.query("INSERT INTO settings (name) VALUES ('a')")
    [[ident]] = client.rows("SELECT LAST_INSERT_ID()")
    by_null = client.prepare("SELECT name FROM settings WHERE id IS NULL")
    of_other = client.prepare("SELECT uid FROM users WHERE name IS NULL OR uid = 1")
    assert client.execute(by_null).rows == []
    client.query("SET sql_auto_is_null = 1")
    assert client.rows("SELECT LAST_INSERT_ID()") == [[ident]]
    assert client.rows("SELECT COUNT(*) FROM users WHERE balance IS NOT NULL") == [[b"4"]]
    assert client.rows("SELECT name FROM settings WHERE id = LAST_INSERT_ID()") == [[b"a"]]
    assert client.execute(of_other).rows == [[1]]
    for sql in (
        "SELECT name FROM settings WHERE id IS NULL", "DELETE FROM settings WHERE ISNULL(id)",
        "SELECT name FROM settings WHERE NOT (id IS NOT NULL)", "UPDATE settings SET value = 'x' WHERE id <=> NULL",
        "SELECT * FROM users JOIN settings ON users.uid = settings.id WHERE settings.id IS UNKNOWN",
        "/*shardproxy: shard=shard2*/ SELECT name FROM settings WHERE id IS NULL",
    ):  # fmt: skip
        assert code_of(client, sql) == 9100, sql
    with pytest.raises(Refused) as refused:
        client.execute(by_null)
    assert refused.value.code == 9100
    client.query("SET sql_auto_is_null = DEFAULT")
    assert client.execute(by_null).rows == client.rows("SELECT name FROM settings WHERE id IS NULL") == []
    assert proxy.pinned() == {}


# ── clocks and numbers ──


def test_the_clock_stands_on_every_shard(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET time_zone = '+00:00', timestamp = 1000000000.25")
    expected = b"2001-09-09 01:46:40.250000"
    for sql in (
        "SELECT NOW(6) FROM users",
        "SELECT NOW(6) FROM users ORDER BY uid",
        "SELECT MAX(NOW(6)) FROM users GROUP BY uid",
    ):
        assert client.rows(sql) == [[expected]] * 4
    client.query(f"UPDATE users SET name = NOW(6) WHERE uid IN (1, {FAR})")
    assert client.rows("SELECT DISTINCT name FROM users WHERE name LIKE '2001%'") == [[expected]]
    assert client.rows(f"SELECT NOW(6) FROM users WHERE uid = {FAR}") == [[expected]]
    assert proxy.pinned() == {}
    client.query("SET timestamp = DEFAULT")
    rows = client.rows("SELECT NOW(6) > '2020-01-01', @@timestamp > 1600000000 FROM users")
    assert rows == [[b"1", b"1"]] * 4


def test_last_insert_id_is_set(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET last_insert_id = 9")
    assert client.rows("SELECT LAST_INSERT_ID()") == [[b"9"]]
    assert client.rows(f"SELECT LAST_INSERT_ID() + 1 FROM users WHERE uid = {FAR}") == [[b"10"]]
    client.query("SET @@identity = LAST_INSERT_ID() + 5")
    assert client.rows("SELECT @@last_insert_id") == [[b"14"]]
    assert proxy.pinned() == {}


# ── FOUND_ROWS() ──


@pytest.mark.parametrize("where", ["uid = 1", "uid < 5", "TRUE"])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_found_rows(proxy: ProxyUnderTest, client: RawClient, where: str, prepared: bool, begun: bool) -> None:
    sql = f"SELECT SQL_CALC_FOUND_ROWS uid FROM users WHERE {where} ORDER BY uid LIMIT 1"
    expected = b"%d" % {"uid = 1": 1, "uid < 5": 2, "TRUE": 4}[where]
    if begun:
        client.query("BEGIN")
        client.query("UPDATE users SET balance = 7")
    for _ in range(2):
        if prepared:
            assert client.execute(client.prepare(sql)).rows == [[1]]
        else:
            assert client.rows(sql) == [[b"1"]]
        assert client.rows("SELECT FOUND_ROWS()") == [[expected]]
        assert client.rows("SELECT FOUND_ROWS() AS n") == [[b"1"]]
    assert proxy.pinned() == {}
    assert client.rows(f"SELECT name FROM users WHERE uid = {FAR}") == [[b"n%d" % FAR]]
    client.query("ROLLBACK")


def test_found_rows_is_known_until_the_next_statement(proxy: ProxyUnderTest, client: RawClient) -> None:
    assert code_of(client, "SELECT FOUND_ROWS()") == 9100
    client.query("SELECT SQL_CALC_FOUND_ROWS 1 + 'a' FROM users LIMIT 1")
    deprecated = 0 if proxy.mariadb else 1
    assert len(client.rows("SHOW WARNINGS")) > deprecated
    assert client.rows("SELECT FOUND_ROWS()") == [[b"4"]]
    if not proxy.mariadb:
        assert client.rows("SHOW WARNINGS")[0][1] == b"1287"
    client.query(f"SELECT name FROM users WHERE uid = {FAR}")
    assert code_of(client, "SELECT FOUND_ROWS()") == 9100
    assert code_of(client, "SELECT FOUND_ROWS() + 1") == 9100
    assert code_of(client, "SELECT SQL_CALC_FOUND_ROWS nothere FROM users") == 1054
    assert code_of(client, "SELECT FOUND_ROWS()") == 9100


# ── executable comments ──


@pytest.mark.parametrize(
    ("sql", "label"),
    [
        ("SELECT uid/*!50000 + 1 */ FROM users WHERE uid > ? /*! AND uid < 9999 */ ORDER BY 1", b"uid + 1"),
        ("SELECT uid+ 1/*M!00000 + 1 */ FROM users /*!50000 WHERE uid > ? */ ORDER BY uid", None),
    ],
)
def test_executable_comments_over_several_shards(
    proxy: ProxyUnderTest, client: RawClient, sql: str, label: bytes | None
) -> None:
    more = 2 if "M!" in sql and proxy.mariadb else 1
    result = client.execute(client.prepare(sql), [integer(1)])
    assert result.rows == [[2 + more], [FAR + more], [FAR + 1 + more]]
    as_text = client.query(sql.replace("?", "1"))
    assert as_text.rows == [[b"%d" % row[0]] for row in result.rows if isinstance(row[0], int)]
    near = client.query(sql.replace("uid > ?", "uid = 2"))
    assert [c.name for c in near.columns] == [c.name for c in as_text.columns] == [c.name for c in result.columns]
    if label:
        assert result.columns[0].name.strip() == label


# ── user variables ──

# Expressions of every type that a variable can have; None: for MySQL only.
VALUES = [
    "1", "-1", "0", "TRUE", "18446744073709551615", "CAST(5 AS UNSIGNED)", "-9223372036854775808", "NULL", "1.50",
    "-0.0", "1.0 / 3", "CAST(5 AS DECIMAL)", "CAST('1e65' AS DECIMAL(65))", "0.1e0 + 0.2e0", "1e100", "-5e-324", "1e0",
    "'x'", "''", "_latin1 x'e9'", "_binary x'00ff'", "x'41'", "b'1'", "'a' COLLATE utf8mb4_bin", "_utf8mb3 'é'",
    "CAST('2020-01-01' AS DATE)", "TIME('10:00:00.5')", "NOW(6)", "CAST(NULL AS CHAR)", "CAST(NULL AS UNSIGNED)",
    "CAST(NULL AS SIGNED)", "NULL + 1.5", "NULL + 1e0", "CAST(NULL AS DATE)", "CONVERT(NULL USING latin1)", "PI()",
    "JSON_ARRAY(1)", "ST_GeomFromText('POINT(1 1)')", "REPEAT('ab', 1000)", "_utf16 x'0041'",
    "CONCAT('it''s ', CHAR(92), CHAR(0))",
]  # fmt: skip
SHOWN = (
    "SELECT @v, @v + 1, CONCAT(@v, 'é'), COLLATION(@v), COERCIBILITY(@v), HEX(@v), @v IS NULL, -@v, IFNULL(@v, 1), "
    "@never"
)


def described(client: RawClient, sql: str) -> object:
    """Rows and columns of an answer, or its error."""
    try:
        result = client.query(sql)
    except Refused as refused:
        return refused.code
    return result.rows, [(c.name, c.type, c.charset, c.length, c.flags, c.decimals) for c in result.columns]


@pytest.mark.parametrize("value", VALUES)
def test_a_variable_is_the_same_everywhere(
    proxy: ProxyUnderTest, client: RawClient, lone: LocalServer, value: str
) -> None:
    with RawClient(lone.port, lone.admin_user, lone.admin_password, None) as server:
        if "NOW" in value:
            for one in (client, server):
                one.query("SET timestamp = 1700000000.5")
        setting = f"SET @v = {value}"
        assert described(client, setting) == described(server, setting)
        expected = described(server, SHOWN)
        assert described(client, SHOWN) == expected
        for near in (1, FAR):  # the variable travels
            client.query("BEGIN")
            client.query(f"UPDATE users SET balance = balance + 1 WHERE uid = {near}")
            assert described(client, SHOWN) == expected
            client.query("ROLLBACK")
        assert client.rows(f"SELECT uid FROM users WHERE uid = {FAR} AND @v <=> {value}") == (
            [[b"%d" % FAR]] if server.rows(f"SELECT @v <=> {value}") == [[b"1"]] else []
        )
    assert proxy.pinned() == {}


def test_variables_follow_to_statements_over_several_shards(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET @low = 2, @name = 'N' , @`Odd.Name$` := 5")
    assert client.rows("SELECT uid FROM users WHERE uid >= @low") == [[b"2"], [b"%d" % FAR], [b"%d" % (FAR + 1)]]
    assert client.rows("SELECT uid FROM users WHERE uid >= @LOW ORDER BY uid DESC LIMIT 1") == [[b"%d" % (FAR + 1)]]
    assert client.rows("SELECT SUM(uid * @low) FROM users WHERE uid < 9") == [[b"6"]]
    assert client.execute(client.prepare("SELECT COUNT(*) FROM users WHERE uid >= @low")).rows == [[3]]
    client.query("UPDATE users SET name = @name, balance = @'odd.name$' WHERE uid >= @low")
    assert client.rows("SELECT DISTINCT name, balance FROM users WHERE uid > 1") == [[b"N", b"5"]]
    client.query("INSERT INTO countries VALUES ('aa', @name)")
    assert client.rows("SELECT name FROM countries") == [[b"N"]]
    assert proxy.pinned() == {}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("prepared", [False, True])
def test_select_assigns(proxy: ProxyUnderTest, client: RawClient, begun: bool, prepared: bool) -> None:
    def run(sql: str) -> list[list[object]]:
        rows = client.execute(client.prepare(sql)).rows if prepared else client.query(sql).rows
        return [[int(v) if isinstance(v, bytes) and v.isdigit() else v for v in row] for row in rows]

    if begun:
        client.query("BEGIN")
        client.query("UPDATE users SET balance = balance")
    run(f"SELECT name, uid FROM users WHERE uid = {FAR} INTO @name, @uid")
    assert run("SELECT @name, @uid FROM users WHERE uid = 1") == [[b"n%d" % FAR, FAR]]
    run("SELECT MAX(uid), COUNT(*) INTO @most, @count FROM users")
    assert run("SELECT @most, @count FROM users WHERE uid = 1") == [[FAR + 1, 4]]
    assert run(f"SELECT @uid := 7 FROM users WHERE uid = {FAR}") == [[7]]
    assert run("SELECT @uid") == [[7]]
    client.query("SET @n = 0")
    assert run("SELECT @n := @n + 1 FROM users") == [[1], [2], [3], [4]]
    assert run(f"SELECT @n FROM users WHERE uid = {FAR}") == [[4]]
    client.query("DO @n := @n * 2")
    assert run("SELECT @n FROM users WHERE uid = 1") == [[8]]
    with pytest.raises(Refused) as refused:
        client.query("SELECT name INTO @name FROM users")
    assert refused.value.code == 1172
    assert proxy.pinned() == {}
    client.query("ROLLBACK")


def test_nobody_else_sees_a_variable(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET @a = 5")
    client.query(f"SELECT uid INTO @b FROM users WHERE uid = {FAR}")
    client.query("BEGIN")
    client.query(f"UPDATE users SET balance = @a WHERE uid IN (1, {FAR})")
    client.query("COMMIT")
    for _ in range(20):
        with RawClient(proxy.port) as other:
            assert other.rows(f"SELECT @a, @b FROM users WHERE uid IN (1, {FAR})") == [[None, None]] * 2
    client.command(Com.RESET_CONNECTION)
    assert client.rows("SELECT @a, @b") == [[None, None]]


def test_triggers_see_the_variables(proxy: ProxyUnderTest, client: RawClient) -> None:
    for shard in proxy.cluster.shards:
        shard.primary.rows("CREATE TRIGGER main.stamp BEFORE INSERT ON main.users FOR EACH ROW SET NEW.name = @who")
    try:
        client.query("SET @who = 'me'")
        client.query(f"INSERT INTO users (uid, name) VALUES (7, 'x'), ({FAR + 7}, 'y')")
        assert client.rows(f"SELECT name FROM users WHERE uid IN (7, {FAR + 7})") == [[b"me"], [b"me"]]
    finally:
        for shard in proxy.cluster.shards:
            shard.primary.rows("DROP TRIGGER main.stamp")


def test_what_is_too_much_to_be_carried(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET @a = 1")
    assert code_of(client, "SET @a = REPEAT('x', 300000)") == 9102
    assert client.rows(f"SELECT @a FROM users WHERE uid IN (1, {FAR})") == [[b"1"]] * 2
    assert code_of(client, "SET @a = ROW_COUNT()") == 9100


def test_an_assignment_in_a_write_pins(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET @n = 5")
    client.query("INSERT INTO settings (id, name) VALUES (@n, 'x')")
    client.query("UPDATE settings SET id = (@n := @n + 1)")
    eventually(lambda: proxy.pinned() == {"user variable": 1}, "the pin is shown")
    assert client.rows("SELECT id, @n FROM settings") == [[b"6", b"6"]]


# ── PREPARE as SQL ──


def test_prepare_and_execute(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("PREPARE near FROM 'SELECT name, uid + ? FROM users WHERE uid = ?'")
    client.query(f"SET @one = 1, @near = 2, @far = {FAR}, @text = 'SELECT COUNT(*) FROM users WHERE uid > ?'")
    result = client.query("EXECUTE near USING @one, @near")
    assert result.rows == [[b"n2", b"3"]] and [c.name for c in result.columns] == [b"name", b"uid + ?"]
    assert client.rows("EXECUTE NEAR USING @one, @far") == [[b"n%d" % FAR, b"%d" % (FAR + 1)]]
    client.query("PREPARE counted FROM @text")
    assert client.rows("EXECUTE counted USING @near") == [[b"2"]]
    client.query("PREPARE ordered FROM 'SELECT uid FROM users WHERE uid >= ? ORDER BY uid DESC LIMIT ?'")
    assert client.rows("EXECUTE ordered USING @near, @one") == [[b"%d" % (FAR + 1)]]
    client.query("PREPARE plain FROM 'SELECT uid FROM users WHERE name <> ''it\\\\''s'' AND uid >= ?'")
    assert len(client.rows("EXECUTE plain USING @near")) == 3
    client.query("PREPARE windowed FROM 'SELECT uid, ROW_NUMBER() OVER (ORDER BY uid), ? FROM users WHERE uid > ?'")
    assert client.rows("EXECUTE windowed USING @one, @near") == [
        [b"%d" % FAR, b"1", b"1"],
        [b"%d" % (FAR + 1), b"2", b"1"],
    ]
    assert proxy.pinned() == {}
    client.query("DEALLOCATE PREPARE near")
    client.query("DROP PREPARE counted")
    assert code_of(client, "EXECUTE near USING @one, @near") == 1243
    assert code_of(client, "DEALLOCATE PREPARE near") == 1243


def test_writes_by_execute(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query(f"SET @a = 20, @b = {FAR + 20}, @n = 'new', @none = NULL")
    client.query("PREPARE put FROM 'INSERT INTO users (uid, name) VALUES (?, ?), (?, ?)'")
    assert client.query("EXECUTE put USING @a, @n, @b, @n").ok.affected == 2
    assert client.rows("SELECT uid FROM users WHERE name = 'new' ORDER BY uid") == [[b"20"], [b"%d" % (FAR + 20)]]
    client.query("PREPARE raise FROM 'UPDATE users SET balance = balance + ? WHERE name = ?'")
    client.query("BEGIN")
    assert client.query("EXECUTE raise USING @a, @n").ok.affected == 2
    client.query("ROLLBACK")
    client.query("PREPARE gone FROM 'DELETE FROM users WHERE name = ? OR uid = ?'")
    assert client.query("EXECUTE gone USING @n, @none").ok.affected == 2
    client.query("PREPARE country FROM 'INSERT INTO countries VALUES (?, ?)'")
    client.query("SET @code = 'xx'")
    client.query("EXECUTE country USING @code, @n")
    assert client.rows("SELECT * FROM countries") == [[b"xx", b"new"]]
    client.query("PREPARE setting FROM 'SET @z = 5'")
    client.query("EXECUTE setting")
    assert client.rows(f"SELECT @z FROM users WHERE uid = {FAR}") == [[b"5"]]
    assert proxy.pinned() == {}


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("EXECUTE nothing", 1243),
        ("PREPARE p FROM 'SELECT nonsense FROM users'", 1054),
        ("PREPARE p FROM 'SELEC 1'", 9100),
        ("PREPARE p FROM 'PREPARE q FROM ''SELECT 1'''", 1295),
        ("PREPARE p FROM @nothing", 9100),
        ("PREPARE p FROM", 1064),
        ("EXECUTE one", 1210),
        ("EXECUTE one USING @a, @b", 1210),
        ("EXECUTE one USING 5", 1064),
        ("PREPARE one FROM 'SELECT nonsense FROM users'", 1054),
    ],
)
def test_mistakes_of_prepare(client: RawClient, sql: str, code: int) -> None:
    client.query("PREPARE one FROM 'SELECT ?'")
    assert code_of(client, sql) == code
    client.query("SET @a = 1")
    if sql.startswith("PREPARE one"):
        assert code_of(client, "EXECUTE one USING @a") == 1243
    else:
        assert client.rows("EXECUTE one USING @a") == [[b"1"]]
    client.query("SET sql_mode = 'ANSI_QUOTES'")
    client.command(Com.RESET_CONNECTION)
    assert code_of(client, "EXECUTE one USING @a") == 1243


def test_autocommit_right_after_an_access_mode(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("SET autocommit = 0")
    client.query("START TRANSACTION READ ONLY")
    assert code_of(client, "SET autocommit = 1") == 9102
    client.query("COMMIT")
    client.query("SET autocommit = 1")
    assert client.query(f"UPDATE users SET balance = 3 WHERE uid = {FAR}").ok.affected == 1
