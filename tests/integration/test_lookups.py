"""Lookup indexes beside one server with the same unique keys: the same answers, and entries as the rows are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.constants import FieldType
from tests.integration.lookup_sides import (
    FAR,
    ROWS,
    TABLES,
    Sides,
    answer,
    create,
    drop,
    emptied,
    lookup_proxy,
    shardctl,
    shards_of,
    verified,
)
from tests.proxy import ProxyUnderTest
from tests.wire import Prepared, RawClient, Refused, Result


@pytest.fixture(scope="module")
def running(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    with lookup_proxy(cluster) as made:
        yield made


@pytest.fixture
def proxy(running: ProxyUnderTest) -> ProxyUnderTest:
    return emptied(running)


@pytest.fixture
def lone(oracle: LocalServer) -> Iterator[LocalServer]:
    drop(oracle)
    create(oracle)
    yield oracle
    drop(oracle)


@pytest.fixture
def sides(proxy: ProxyUnderTest, lone: LocalServer) -> Iterator[Sides]:
    made = Sides(proxy, lone)
    yield made
    made.here.close()
    made.there.close()


def test_rows_are_unique_over_all_shards(sides: Sides) -> None:
    sides.both(ROWS)
    for sql in (
        f"INSERT INTO users (uid, email) VALUES ({FAR + 5}, 'a@x')",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 5}, 'A@X')",
        "INSERT INTO users (uid, email) VALUES (5, 'b@x')",
        f"INSERT INTO users (uid, tenant, nick) VALUES ({FAR + 5}, 2, 'N')",
        f"INSERT INTO users SET uid = {FAR + 5}, tenant = 1, nick = 'n'",
        f"INSERT INTO users (uid, email) VALUES (5, 'new'), ({FAR + 5}, 'New')",
        f"INSERT INTO users (uid, email) VALUES (5, 'new'), ({FAR + 5}, 'a@x')",
        "UPDATE users SET email = 'b@x' WHERE uid = 1",
        "UPDATE users SET email = 'B@x' WHERE email = 'a@x'",
        "UPDATE users SET tenant = 3 WHERE uid = 3",
    ):
        assert sides.both(sql)[0] == 1062, sql
        sides.compare()
    verified(sides.proxy)


def test_rows_and_entries_change_together(sides: Sides) -> None:
    sides.both(ROWS)
    for sql in (
        "INSERT INTO users (uid, email) VALUES (5, 'e@x')",
        f"INSERT INTO users (uid, email, tenant, nick) VALUES (6, 'f@x', -4, 'x'), ({FAR + 6}, 'g@x', -4, 'y')",
        "UPDATE users SET email = 'aa@x' WHERE uid = 1",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 7}, 'a@x')",
        "UPDATE users SET email = CONCAT(email, '!') WHERE age > 5",
        "UPDATE users SET email = NULL, nick = NULL WHERE uid = 3",
        f"UPDATE users SET email = 'c@x' WHERE uid = {FAR + 1}",
        "UPDATE users SET age = age + 1",
        "UPDATE users SET email = email, tenant = tenant",
        "UPDATE users AS u SET u.email = 'alias' WHERE u.uid = 6",
        "DELETE FROM users WHERE email = 'alias'",
        "DELETE FROM users WHERE uid = 1000000",
        "DELETE FROM users WHERE age IS NULL",
        "INSERT INTO users (uid, email) VALUES (6, 'alias')",
        "DELETE u FROM users AS u WHERE u.uid = 6",
        "DELETE FROM users",
        ROWS,
    ):
        assert sides.both(sql)[0] < 1000, sql
        sides.compare()
    verified(sides.proxy)


def test_statements_are_led_to_one_shard(sides: Sides) -> None:
    sides.both(ROWS)
    sides.both(f"INSERT INTO orders VALUES (1, 1), ({FAR}, 1), ({FAR}, 2)")
    for sql in (
        "SELECT * FROM users WHERE email = 'b@x'",
        "SELECT * FROM users WHERE 'B@X' = email AND age < 100",
        "SELECT * FROM users WHERE email = 'b@x' AND age > 100",
        "SELECT * FROM users WHERE email = 'nobody'",
        "SELECT * FROM users WHERE email = 'b@x' LIMIT 1",
        "SELECT * FROM users WHERE email = 'b@x' ORDER BY age, uid LIMIT 1, 1",
        "SELECT DISTINCT age FROM users WHERE email = 'b@x' LIMIT 0",
        "SELECT REPEAT('x', 400000), age FROM users WHERE email = 'b@x'",
        "SELECT age / 0, nothere FROM users WHERE email = 'b@x'",
        "SELECT CAST('x' AS SIGNED) FROM users WHERE email = 'b@x'",
        "SHOW WARNINGS",
        "SELECT COUNT(*), MAX(age) FROM users WHERE email = 'b@x'",
        "SELECT COUNT(*), MAX(age) FROM users WHERE email = 'nobody'",
        "SELECT * FROM users WHERE tenant = 1 AND nick = 'M'",
        "SELECT u.age, o.oid FROM users u JOIN orders o ON o.uid = u.uid WHERE u.email = 'b@x' ORDER BY o.oid",
        "SELECT u.age, ROW_NUMBER() OVER (ORDER BY o.oid) FROM users u JOIN orders o USING (uid) WHERE u.email = 'b@x'",
        "SELECT * FROM users WHERE email IN ('a@x', 'c@x')",
        "SELECT * FROM users WHERE email = 'b@x' FOR UPDATE",
        "UPDATE users SET age = 77 WHERE email = 'b@x'",
        "UPDATE users SET age = 77 WHERE email = 'nobody'",
        "DELETE FROM users WHERE tenant = 3 AND nick = 'n'",
    ):
        if not sql.startswith("SHOW"):
            with sides.proxy.connect(database="lk") as client, client.cursor() as cursor:
                assert shards_of(cursor, sql) == 1, sql
        for _ in range(3):  # with connections that are shared, and that know it
            sides.both(sql)
    sides.compare()
    verified(sides.proxy)


def test_other_conditions_ask_all_shards(sides: Sides) -> None:
    sides.both(ROWS)
    for sql in (
        "SELECT * FROM users WHERE email <> 'b@x'",
        "SELECT * FROM users WHERE email = 'b@x' OR age = 5",
        "SELECT * FROM users WHERE email <=> NULL",
        "SELECT * FROM users WHERE email IS NULL",
        "SELECT * FROM users WHERE email LIKE 'b@x'",
        "SELECT * FROM users WHERE email = 0",
        "SELECT * FROM users WHERE tenant = 1",
        "SELECT * FROM users WHERE email IN ('a@x', 'b@x') ORDER BY uid",
        "SELECT COUNT(*) FROM users WHERE email IN ('a@x', 'b@x')",
        "SELECT a.uid FROM users a LEFT JOIN users b ON b.uid = a.uid AND b.email = 'b@x'",
    ):
        with sides.here.cursor() as cursor:
            assert shards_of(cursor, sql) > 1, sql
        sides.both(sql)


@pytest.mark.parametrize("sql", [
    "RENAME TABLE users TO orders",
    "ALTER TABLE users DROP INDEX uq_email",
    "ALTER TABLE users MODIFY email VARCHAR(10)",
    "ALTER TABLE users CONVERT TO CHARACTER SET latin1",
])  # fmt: skip
def test_what_cannot_be_kept_is_refused(proxy: ProxyUnderTest, sql: str) -> None:
    with proxy.connect(database="lk") as client:
        answer(client, ROWS)
        assert 9100 <= answer(client, sql)[0] <= 9102, sql
        assert len(answer(client, "SELECT * FROM users")[3]) == 6
    verified(proxy)


def entries(proxy: ProxyUnderTest, index: str = "users(email)") -> int:
    """How many entries an index has on all shards."""
    sql = f"SELECT COUNT(*) FROM _shardproxy.lookup WHERE keyspace = 'lk' AND index_name = '{index}'"
    return sum(int(shard.primary.rows(sql)[0][0]) for shard in proxy.cluster.shards)


def test_entries_go_with_the_table(sides: Sides) -> None:
    create_users = TABLES["lk"][0]
    for empty, anew in (("TRUNCATE TABLE users", "DO 1"), ("DROP TABLE users", create_users)):
        sides.both(ROWS)
        assert entries(sides.proxy) == 4
        sides.both(empty)
        assert entries(sides.proxy) == 0
        sides.both(anew)
        sides.compare()
        sides.both(ROWS.replace("(1,", f"({FAR + 8},").replace(f"({FAR},", "(8,"))
        sides.both("SELECT * FROM users WHERE email = 'a@x'")
        assert sides.both("INSERT INTO users (uid, email) VALUES (30, 'A@x')")[0] == 1062
        sides.compare()
        verified(sides.proxy)
        sides.both("DELETE FROM users")


def test_a_truncate_that_is_cut_off_hides_and_blocks_no_row(proxy: ProxyUnderTest) -> None:
    """A foreign key makes the second shard refuse it."""
    far = proxy.primary(1)
    with proxy.connect(database="lk") as client:
        answer(client, ROWS)
        far.rows("CREATE TABLE lk.child (uid BIGINT, FOREIGN KEY (uid) REFERENCES lk.users (uid))")
        try:
            error = answer(client, "TRUNCATE users")
            assert error[0] == 1701
            known = re.search(r"schema change (lk-\d+) is not finished", error[1])
            assert known is not None, error
            for value, uids in (("a@x", []), ("b@x", [FAR]), ("c@x", [])):
                assert answer(client, f"SELECT uid FROM users WHERE email = '{value}'")[3] == [f"({u},)" for u in uids]
            assert answer(client, f"INSERT INTO users (uid, email) VALUES ({FAR + 20}, 'A@x')")[0] == 1
            assert answer(client, "INSERT INTO users (uid, email) VALUES (3, 'c@x')")[0] == 1
            assert answer(client, "INSERT INTO users (uid, email) VALUES (4, 'b@X')")[0] == 1062
            assert answer(client, "SELECT uid FROM users WHERE email = 'a@x'")[3] == [f"({FAR + 20},)"]
            assert shardctl(proxy, "ddl", "resume", known.group(1), "--lacks", "shard2").returncode == 1
        finally:
            far.rows("DROP TABLE lk.child")
        assert shardctl(proxy, "ddl", "resume", known.group(1), "--lacks", "shard2").returncode == 0
        assert answer(client, "SELECT uid FROM users")[3] == ["(3,)"]
        assert entries(proxy) == 1
        verified(proxy)
        assert answer(client, f"INSERT INTO users (uid, email) VALUES ({FAR}, 'b@X')")[0] == 1
        assert answer(client, f"INSERT INTO users (uid, email) VALUES ({FAR + 1}, 'c@X')")[0] == 1062
    verified(proxy)


def test_an_entry_without_row_blocks_nobody(proxy: ProxyUnderTest) -> None:
    """Whoever left it there; but a row that another transaction is about to write keeps its value."""
    with proxy.connect(database="lk") as client, proxy.connect(database="lk") as other:
        for uid, left in ((1, f"uid = {FAR}"), (FAR, "uid = 1"), (2, "uid = 2")):
            answer(client, f"INSERT INTO users (uid, email, tenant, nick) VALUES ({left[6:]}, 'a@x', 1, 'n')")
            for shard in proxy.cluster.shards:
                shard.primary.rows(f"DELETE FROM lk.users WHERE {left}")
            assert answer(client, f"INSERT INTO users (uid, email, tenant, nick) VALUES ({uid}, 'A@x', 1, 'N')")[0] == 1
            verified(proxy)
            answer(client, "DELETE FROM users")
        answer(other, "BEGIN")
        answer(other, "INSERT INTO users (uid, email) VALUES (1, 'a@x')")
        answer(client, "SET innodb_lock_wait_timeout = 1")
        assert answer(client, f"INSERT INTO users (uid, email) VALUES ({FAR}, 'a@x')")[0] == 1205
        answer(other, "COMMIT")
        assert answer(client, f"INSERT INTO users (uid, email) VALUES ({FAR}, 'a@x')")[0] == 1062
    verified(proxy)


def test_what_the_text_does_not_say_is_done_over_scratch_tables(sides: Sides) -> None:
    sides.both(ROWS)
    sides.both(f"INSERT INTO orders VALUES (1, 1), ({FAR}, 1), ({FAR}, 2)")
    for sql in (
        "REPLACE INTO users (uid, email) VALUES (1, 'z')",
        f"REPLACE INTO users (uid, email) VALUES (9, 'b@x'), ({FAR + 9}, 'c@x')",
        f"INSERT IGNORE INTO users (uid, email) VALUES ({FAR + 10}, 'd@x'), (10, 'new')",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 11}, 'z') ON DUPLICATE KEY UPDATE email = 'zz', age = 1",
        "INSERT INTO users (uid, email) VALUES (12, CONCAT('a', 'b'))",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 12}, CONCAT('A', 'B'))",
        "INSERT INTO users (uid, email) SELECT uid + 50, CONCAT('s', uid, oid) FROM orders",
        "INSERT INTO users (uid, email) SELECT uid + 70, CONCAT('t', uid) FROM orders",
        "UPDATE users SET email = 'q' WHERE email IS NOT NULL ORDER BY uid DESC LIMIT 1",
        "UPDATE IGNORE users SET email = 'q' WHERE uid < 3",
        f"UPDATE users SET uid = {FAR + 20} WHERE uid = 1",
        f"UPDATE users SET uid = uid + 5 WHERE uid >= {FAR + 20}",
        "UPDATE users u JOIN orders o USING (uid) SET u.email = CONCAT('o', o.oid), u.age = 5",
        "DELETE FROM users ORDER BY uid LIMIT 2",
        f"DELETE u FROM users u JOIN orders o USING (uid) WHERE u.uid = {FAR} OR u.age = 5",
        "INSERT IGNORE INTO orders (uid, oid) SELECT uid, 70 FROM users WHERE email = 'b@x'",
        "REPLACE INTO orders (uid, oid) SELECT uid, 71 FROM users WHERE email = 'nobody'",
        "INSERT INTO orders (uid, oid) SELECT uid, 72 FROM users WHERE email IN ('b@x')",
        "INSERT INTO orders (uid, oid) SELECT 5, COUNT(*) FROM users WHERE email = 'nobody'",
        "INSERT INTO plain (uid, n) VALUES (1, 1)",
        "INSERT INTO plain VALUES (1, 2, 5)",
        "SET @x = 'by variable'",
        "INSERT INTO users (uid, email) VALUES (99, @x)",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 99}, UPPER(@x))",
        "UPDATE users SET email = CONCAT(@x, '!') WHERE email = @x",
        "UPDATE plain SET n = 7, code = 8 WHERE uid = 1",
        f"UPDATE plain SET n = 9, code = 8 WHERE uid = {FAR}",
        "SELECT * FROM users WHERE email = 'q'",
        "SELECT * FROM users WHERE email = 'zz'",
    ):
        sides.both(sql)
        sides.compare()
    verified(sides.proxy)


def test_values_stored_otherwise_than_given(sides: Sides) -> None:
    for mode in ("''", "'STRICT_ALL_TABLES'"):
        sides.both(f"SET sql_mode = {mode}")
        for number, value in enumerate(("1.5", "'7 dwarfs'", "2.5", "1e1", "''")):
            sides.both(f"INSERT INTO plain VALUES ({10 * number}, 1, {value}), ({FAR + 10 * number}, 1, {30 + number})")
            sides.compare()
        sides.both(f"INSERT INTO users (uid, nick, tenant) VALUES (1, '{'x' * 50}', 1), ({FAR}, '{'x' * 40}', 2)")
        sides.both(f"INSERT INTO users (uid, nick, tenant) VALUES ({FAR + 1}, '{'X' * 50}', 1)")
        sides.compare()
        sides.both("DELETE FROM plain")
    verified(sides.proxy)


def test_a_value_is_not_handed_from_shard_to_shard_within_one_statement(proxy: ProxyUnderTest) -> None:
    with proxy.connect(database="lk") as client:
        answer(client, f"INSERT INTO plain VALUES (1, 1, 1), ({FAR}, 1, 2)")
        assert answer(client, "UPDATE plain SET code = 3 - code")[0] == 9101
        assert answer(client, "UPDATE plain SET code = code + 10")[0] == 2
        assert answer(client, "SELECT code FROM plain")[3] == ["(11,)", "(12,)"]
    verified(proxy)


def test_in_a_transaction(sides: Sides) -> None:
    sides.both(ROWS)
    for sql in (
        "BEGIN",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 9}, 'own')",
        "SELECT uid FROM users WHERE email = 'own'",
        "INSERT INTO users (uid, email) VALUES (9, 'OWN')",
        "SELECT uid FROM users WHERE email = 'own'",
        "UPDATE users SET email = 'owned' WHERE email = 'own'",
        "INSERT INTO users (uid, email) VALUES (9, 'OWN')",
        "SAVEPOINT s",
        "DELETE FROM users WHERE email = 'own'",
        "SELECT uid FROM users WHERE email = 'own'",
        "ROLLBACK TO s",
        "SELECT uid FROM users WHERE email = 'own' FOR UPDATE",
        "COMMIT",
        "SET autocommit = 0",
        "DELETE FROM users WHERE email = 'owned'",
        "SELECT uid FROM users WHERE email = 'owned'",
        "ROLLBACK",
        "SELECT uid FROM users WHERE email = 'owned'",
    ):
        sides.both(sql)
    sides.both("COMMIT")
    sides.compare()
    verified(sides.proxy)


def test_texts_that_collations_call_equal(sides: Sides) -> None:
    """Case, accents, blanks at the end, long values: as the column's own key says."""
    values = (
        "Zoé", "ZOE", "zoe ", "straße", "STRASSE", "ж", "Ж", "", "  ", "x" * 255, "X" * 255, "x" * 254, "日本",
        "日" * 80, "日" * 81, "a'b\\\\",
    )  # fmt: skip
    for number, value in enumerate(values):
        text = value.replace("'", "''")
        sides.both(f"INSERT INTO lh.items VALUES ('k{number}', '{text}')")
    sides.compare()
    for value in values:
        text = value.replace("'", "''")
        sides.both(f"SELECT * FROM lh.items WHERE serial = '{text}'")
        sides.both(f"UPDATE lh.items SET serial = CONCAT(serial, '') WHERE serial = '{text}'")
    sides.both("DELETE FROM lh.items WHERE serial = 'zoe'")
    sides.compare()
    verified(sides.proxy)


def test_binary_values(sides: Sides) -> None:
    for number, value in enumerate(("x'00'", "x'0000'", "'a'", "'A'", "'a '", "x'ff80'", "'a'")):
        sides.both(f"INSERT INTO binaries VALUES ({FAR * (number % 2) + number}, {value})")
    sides.both(f"INSERT INTO binaries VALUES (50, '{'z' * 300}')")
    sides.both(f"INSERT INTO binaries VALUES ({FAR + 50}, '{'z' * 300}')")
    for value in ("x'00'", "'a'", "'A'", "'a '", "'q'", "x'ff80'", f"'{'z' * 300}'"):
        sides.both(f"SELECT * FROM binaries WHERE token = {value}")
    sides.compare()
    verified(sides.proxy)


def run(client: RawClient, statement: Prepared, *values: int | bytes | None) -> Result:
    types = {int: FieldType.LONGLONG, bytes: FieldType.VAR_STRING, type(None): FieldType.NULL}
    return client.execute(statement, [(types[type(value)].value, False, value) for value in values])


def test_prepared(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port, database="lk") as client:
        insert = client.prepare("INSERT INTO users (uid, email, age) VALUES (?, ?, ?), (?, ?, 7)")
        run(client, insert, 1, b"a@x", 5, FAR, b"b@x")
        run(client, insert, 2, None, 5, FAR + 1, b"c@x")
        with pytest.raises(Refused, match=r"1062 .*Duplicate entry 'A@X' for key"):
            run(client, insert, 3, b"e@x", 5, FAR + 2, b"A@X")
        read = client.prepare("SELECT uid, age FROM users WHERE email = ?")
        assert [run(client, read, v).rows for v in (b"B@x", b"a@x", b"no", None)] == [[[FAR, 7]], [[1, 5]], [], []]
        count = client.prepare("SELECT COUNT(*) FROM users WHERE email = ? AND age > ?")
        assert [run(client, count, b"a@x", n).rows for n in (1, 9)] == [[[1]], [[0]]]
        change = client.prepare("UPDATE users SET email = ?, age = age + ? WHERE email = ?")
        assert run(client, change, b"n@x", 1, b"c@x").ok.affected == 1
        assert run(client, change, b"n@x", 1, b"c@x").ok.affected == 0
        with pytest.raises(Refused, match=r"1062 .*Duplicate entry 'n@x' for key"):
            run(client, change, b"n@x", 1, b"a@x")
        delete = client.prepare("DELETE FROM users WHERE age = ?")
        assert run(client, delete, 8).ok.affected == 1
        assert run(client, read, b"n@x").rows == []
    verified(proxy)


def test_replicas_are_read(proxy: ProxyUnderTest) -> None:
    """Reads of a user who may read replicas; what they lack yet is read from the primary when there is an entry."""
    with proxy.connect(database="lk", user="replicas", password="replicas") as client:
        for n in range(20):
            answer(client, f"INSERT INTO users (uid, email) VALUES ({FAR * (n % 2) + n}, 'r{n}')")
            assert answer(client, f"SELECT uid FROM users WHERE email = 'r{n}'")[3] == [f"({FAR * (n % 2) + n},)"]
            assert answer(client, f"SELECT COUNT(*) FROM users WHERE email = 'r{n}'")[3] == ["(1,)"]


def test_session_variables_do_not_disturb(sides: Sides) -> None:
    """What limits or changes the rows of a SELECT does not change what is read about entries."""
    sides.both(ROWS)
    for setting in (
        "sql_select_limit = 1",
        "sql_select_limit = 0",
        "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
        "NAMES latin1",
        "character_set_results = NULL",
        "sql_safe_updates = 0",
        "autocommit = 0",
    ):
        sides.both(f"SET {setting}")
        sides.both(f"INSERT INTO users (uid, email) VALUES (30, 's1'), (31, 's2'), ({FAR + 30}, 's3')")
        sides.both("UPDATE users SET email = CONCAT(email, 'x') WHERE uid IN (30, 31, 1030)")
        sides.both("SELECT uid FROM users WHERE email = 's3x'")
        sides.both("SELECT COUNT(*) FROM users WHERE email = 's3x'")
        assert sides.both("INSERT INTO users (uid, email) VALUES (32, 's3X')")[0] == 1062
        assert sides.both("DELETE FROM users WHERE uid IN (30, 31, 1030)")[0] == 3
    sides.both("COMMIT")
    verified(sides.proxy)


def test_characters_that_the_clients_character_set_lacks(sides: Sides) -> None:
    """The server stores ???? or ?, or refuses them: entries are made of what it stored."""
    sides.both("SET sql_mode = ''")
    for setting in ("NAMES utf8mb3", "character_set_client = utf8mb3", "character_set_connection = utf8mb3"):
        sides.both("SET NAMES utf8mb4")
        sides.both(f"SET {setting}")
        for uid, email in ((30, "\N{GRINNING FACE}"), (FAR + 30, "é")):
            sides.both(f"INSERT INTO users (uid, email) VALUES ({uid}, '{email}')")
            for name in (email, "????", "?"):
                sides.both(f"SELECT uid, email FROM users WHERE email = '{name}'")
        sides.both(f"UPDATE users SET email = 'x' WHERE email = '{email}'")
        sides.both(f"DELETE FROM users WHERE uid IN (30, {FAR + 30})")
    verified(sides.proxy)


def test_long_inserts(sides: Sides) -> None:
    rows = ", ".join(f"({i if i % 2 else FAR + i}, 'u{i}', {i % 7}, 'n{i}', {i})" for i in range(1, 400))
    sides.both(f"INSERT INTO users VALUES {rows}")
    assert sides.both(f"INSERT INTO users VALUES {rows.replace('n7', 'm7')}")[0] == 1062
    more = ", ".join(f"({FAR * 2 + i}, 'w{i}')" for i in range(40)) + ", (1999, 'u399')"
    assert sides.both(f"INSERT INTO users (uid, email) VALUES {more}")[0] == 1062
    sides.both("SELECT * FROM users WHERE email = 'u200'")
    sides.both("UPDATE users SET email = CONCAT('x', email) WHERE age > 100")
    sides.both("DELETE FROM users WHERE age BETWEEN 50 AND 350")
    sides.compare()
    verified(sides.proxy)
