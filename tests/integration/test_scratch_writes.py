"""Writes that run over scratch tables and are written back, beside one server: the same answers, the same rows."""

from __future__ import annotations

from collections.abc import Iterator

import pymysql
import pytest

from shardproxy.local import LocalServer
from shardproxy.local.flavors import FlavorName
from tests.beside import FAR, FILL, Sides, rows
from tests.proxy import SPLIT, ProxyUnderTest

COUNTRIES = "INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('at', 'Austria')"


@pytest.fixture
def sides(proxy: ProxyUnderTest, lone: LocalServer) -> Iterator[Sides]:
    made = Sides(proxy, lone)
    made.same(*FILL, COUNTRIES)
    yield made
    made.close()


def test_order_and_limit(sides: Sides) -> None:
    sides.same(
        "UPDATE users SET balance = balance + 1 ORDER BY balance DESC LIMIT 2",
        "UPDATE users SET name = CONCAT(name, 'x') WHERE balance > 15 ORDER BY name LIMIT 1",
        "DELETE FROM users WHERE balance > 0 ORDER BY balance DESC LIMIT 2",
        "DELETE FROM orders ORDER BY total LIMIT 3",
        "DELETE FROM orders ORDER BY total LIMIT 0",
    )


def test_rows_whose_shard_key_changes_move(sides: Sides) -> None:
    sides.same(
        f"UPDATE users SET uid = {FAR + 50} WHERE uid = 1",
        "UPDATE users SET uid = uid + 1 ORDER BY uid DESC",
        f"UPDATE orders SET uid = {SPLIT * 2} - uid, total = total + 1 WHERE oid > 1",
        f"UPDATE users SET uid = {FAR} WHERE uid = 3",  # a duplicate, or not
        "UPDATE users SET uid = NULL WHERE uid = 3",
        "UPDATE users SET uid = 7, name = 'seven' WHERE name = 'nobody'",
        f"INSERT INTO users VALUES (2, 'c', 1) ON DUPLICATE KEY UPDATE uid = {FAR + 90}",
    )


def test_joined_tables_whose_keys_do_not_meet(sides: Sides) -> None:
    sides.same(
        "UPDATE users u JOIN orders o ON u.balance = o.oid * 10 SET u.name = CONCAT(u.name, o.oid), o.total = 0",
        "UPDATE users u JOIN orders o ON o.oid = 1 SET u.balance = u.balance + o.total",
        "UPDATE users SET balance = (SELECT COUNT(*) FROM orders) WHERE uid > 1",
        "UPDATE users SET balance = 77 WHERE uid IN (SELECT oid FROM orders)",
        "DELETE o FROM users u JOIN orders o ON u.uid = o.oid",
        "DELETE FROM orders WHERE total < (SELECT AVG(balance) FROM users) / 10",
        "DELETE FROM u, o USING users u JOIN orders o ON u.balance > o.total WHERE o.uid <> u.uid",
    )


def test_rows_of_a_query_are_inserted(sides: Sides) -> None:
    sides.same(
        f"INSERT INTO users SELECT uid + {SPLIT} DIV 2, CONCAT('n', name), balance FROM users",
        "INSERT INTO orders (uid, oid, total) SELECT u.balance, o.oid + 100, 1 FROM users u JOIN orders o USING (uid)",
        "INSERT INTO users SELECT uid, name, 1 FROM users",  # duplicates
        "INSERT IGNORE INTO users SELECT oid, 'o', 9 FROM orders ORDER BY total",
        "REPLACE INTO users SELECT uid, CONCAT(name, '!'), balance + 1 FROM users WHERE balance > 20",
        f"INSERT INTO users SELECT uid, name, 1 FROM users WHERE uid < {FAR + 1} ON DUPLICATE KEY UPDATE balance = 5",
        "INSERT INTO countries SELECT LEFT(CONCAT(name, 'z'), 2), 'from users' FROM users GROUP BY 1",
        "INSERT INTO orders SELECT 3, COUNT(*), SUM(balance) FROM users",
        "INSERT INTO orders SELECT 1, uid, balance FROM users UNION SELECT 4, 4, 4",
    )


def test_values_that_are_no_plain_keys(sides: Sides) -> None:
    sides.same(
        f"INSERT INTO users (uid, name) VALUES (10 + 1, 'x'), ({FAR} + 10, 'y')",
        "INSERT INTO users (name, uid, balance) VALUES ('z', LENGTH('twelve chars'), 3)",
        "INSERT INTO users SET uid = (SELECT MAX(oid) + 1000 FROM orders), name = 'max'",
        "REPLACE INTO users (uid, name) VALUES (1 + 1, 'two'), (2 * 2, 'four')",
        "INSERT INTO users (name) VALUES ('keyless')",
        "INSERT INTO users (uid, name) VALUES (DEFAULT, 'keyless')",
    )


def test_reference_tables(sides: Sides) -> None:
    sides.same(
        "UPDATE countries SET name = CONCAT(name, (SELECT COUNT(*) FROM users)) WHERE code > 'b'",
        "DELETE FROM countries ORDER BY name LIMIT 1",
        "UPDATE countries c JOIN users u ON c.name LIKE CONCAT('%', u.name, '%') SET u.balance = 0, c.name = 'x'",
    )
    for shard in (0, 1):
        assert sides.proxy.primary(shard).rows("SELECT * FROM main.countries ORDER BY code") == [
            tuple(map(str, row)) for row in rows(sides.there, "SELECT * FROM countries ORDER BY code")
        ]


def test_single_tables(sides: Sides) -> None:
    sides.same(
        "INSERT INTO settings (id, name, value) VALUES (1, 'a', 1), (2, 'b', 2)",
        "UPDATE settings SET value = (SELECT COUNT(*) FROM users)",
        "DELETE FROM settings WHERE id = (SELECT MIN(uid) FROM users)",
        "INSERT INTO settings (name, value) SELECT name, balance FROM users WHERE balance < 45 ORDER BY balance",
    )


def test_in_a_transaction(sides: Sides) -> None:
    for side in (sides.here, sides.there):
        side.begin()
    sides.same(
        "UPDATE users SET balance = 1 WHERE uid = 1",
        "UPDATE users SET balance = balance + 1 ORDER BY balance DESC LIMIT 2",
        f"UPDATE users SET uid = {FAR + 50} WHERE uid = 1",
        "INSERT INTO users SELECT uid, name, 1 FROM users WHERE uid = 2",  # a duplicate
        "INSERT INTO orders SELECT uid, 55, balance FROM users",
    )
    for side in (sides.here, sides.there):
        side.rollback()
    sides.compare("ROLLBACK")
    for side in (sides.here, sides.there):
        side.begin()
    sides.same(f"UPDATE users SET uid = {FAR + 50} WHERE uid = 1")
    for side in (sides.here, sides.there):
        side.commit()
    sides.compare("COMMIT")


def test_prepared(sides: Sides) -> None:
    sides.both("UPDATE users SET uid = %s WHERE uid = %s", (FAR + 60, 2))
    sides.compare("UPDATE")
    sides.both("DELETE FROM users WHERE balance > %s ORDER BY balance LIMIT 1", (15,))
    sides.compare("DELETE")


def test_last_insert_id_and_numbers(sides: Sides) -> None:
    sides.same(
        "INSERT INTO orders SELECT uid, LAST_INSERT_ID(77), 1 FROM users WHERE name = 'a' OR name = 'b'",
    )
    assert sides.rows_of("SELECT LAST_INSERT_ID()") == [(77,)]


def test_returning(sides: Sides, flavor: FlavorName) -> None:
    if flavor == "mysql":
        error = sides.both("DELETE FROM users WHERE balance > 15 RETURNING uid")
        assert error[0] == 1064
        return
    assert sides.rows_of("DELETE FROM users WHERE balance > 15 ORDER BY balance RETURNING uid, name")
    sides.compare("DELETE")
    assert sides.rows_of(f"INSERT INTO users VALUES (70, 'x', 1), ({FAR + 70}, 'y', 2) RETURNING uid, name")
    sides.compare("INSERT")


def test_conditions_that_warn_see_all_rows(sides: Sides) -> None:
    sides.same("UPDATE users SET balance = 3 WHERE name = 5 ORDER BY balance LIMIT 2")


def test_keys_of_which_only_a_server_knows_what_it_stores(sides: Sides) -> None:
    sides.same(
        f"INSERT INTO users VALUES ('11.4', 'x', 1), ({FAR + 11}.6, 'y', 2)",
        "INSERT INTO users VALUES (NULL, 'x', 1), (5, 'y', 2)",
        "INSERT INTO users VALUES ('twelve', 'x', 1)",
        "INSERT INTO users VALUES (1e2, 'x', 1)",
        "INSERT IGNORE INTO users VALUES (99999999999999999999, 'x', 1), ('12x', 'y', 2), (1, 'z', 3)",
    )


def test_a_key_of_a_type_that_cannot_be_placed_is_refused(sides: Sides) -> None:
    with sides.here.cursor() as cursor:
        cursor.execute("CREATE TABLE people (id DATE NOT NULL PRIMARY KEY)")
        try:
            with pytest.raises(pymysql.MySQLError) as refused:
                cursor.execute("INSERT INTO people VALUES ('2014/11/11')")
            assert refused.value.args[0] in (9100, 9101)
        finally:
            cursor.execute("DROP TABLE people")
