"""Writes over several shards beside one server: the same answers, and the same rows afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pymysql.constants import CLIENT

from shardproxy.local import LocalServer
from tests.beside import FAR, FILL, Sides, answer, rows
from tests.proxy import SPLIT, ProxyUnderTest


@pytest.fixture
def sides(proxy: ProxyUnderTest, lone: LocalServer) -> Iterator[Sides]:
    made = Sides(proxy, lone)
    yield made
    made.close()


def test_rows_of_several_shards_are_inserted(sides: Sides) -> None:
    sides.same(
        *FILL,
        f"INSERT IGNORE INTO users VALUES ({FAR}, 'x', 1), (4, 'f', 60), (1, 'y', 2)",
        f"REPLACE INTO users (name, uid) VALUES ('g', {FAR}), ('h', 5), ('i', 1)",
        f"INSERT INTO users VALUES (5, 'j', 1), ({FAR + 2}, 'k', 2), (1, 'i', 0) ON DUPLICATE KEY UPDATE "
        "name = CONCAT(name, VALUES(name)), balance = balance + 1",
        f"INSERT INTO users (uid, name) VALUES ({FAR + 3}, 'l'), (6, DEFAULT(name)), (7, 'm')",
        f"INSERT INTO users (uid, name) VALUES ({FAR + 3}, CONCAT('l', 1 + 1)), (6, 'n'), (-7, LOWER('M'))",
    )


def test_what_goes_wrong_in_one_row_undoes_all(sides: Sides) -> None:
    sides.same(
        *FILL,
        f"INSERT INTO users VALUES (8, 'x', 1), ({FAR + 8}, 'y', 2), ({FAR}, 'z', 3)",
        f"INSERT INTO users VALUES (8, 'x', 1), ({FAR + 8}, 'y', 2), (9, 'z', 'none'), ({FAR + 9}, 'z', 3)",
        f"INSERT INTO users VALUES (8, 'x', 1), ({FAR + 8}, 'y', 2), ({FAR + 9}, NULL, 3)",
        f"INSERT INTO users VALUES (8, 'x', 1), ({FAR + 8}, 'y', 2, 3)",
        f"INSERT INTO users (uid, nothing) VALUES (8, 'x'), ({FAR + 8}, 'y')",
    )


def test_warnings_name_the_rows_of_the_whole_statement(sides: Sides) -> None:
    for side in (sides.here, sides.there):
        with side.cursor() as cursor:
            cursor.execute("SET sql_mode = ''")
    long = "n" * 120
    sides.same(
        f"INSERT INTO users VALUES (1, 'x', 1), ({FAR}, '{long}', 2), (2, '{long}', 'none'), ({FAR + 1}, 'z', 1e20)",
        f"INSERT IGNORE INTO users VALUES (1, 'x', 1), ({FAR}, 'y', 2), (3, 'z', 'none'), ({FAR + 3}, NULL, 2)",
    )


def test_long_inserts_are_split(sides: Sides) -> None:
    rows = ", ".join(f"({uid}, 'n{uid}', {uid * 2})" for uid in range(SPLIT - 200, SPLIT + 200))
    sides.same(f"INSERT INTO users VALUES {rows}", f"INSERT INTO users VALUES {rows}")
    sides.same(f"INSERT INTO users VALUES {rows}, (5, 'x', 1 + 1) ON DUPLICATE KEY UPDATE balance = balance + 7")


def test_each_shard_changes_its_own_rows(sides: Sides) -> None:
    sides.same(
        *FILL,
        "UPDATE users SET balance = balance + 1",
        "UPDATE users SET balance = 21 WHERE balance IN (21, 51)",
        f"UPDATE users SET balance = balance * 2, name = CONCAT(name, '!') WHERE uid IN (1, 2, {FAR})",
        "UPDATE users u JOIN orders o ON u.uid = o.uid SET u.balance = u.balance + o.oid, o.total = o.total + 1",
        "UPDATE users u LEFT JOIN orders o ON u.uid = o.uid SET u.balance = -1 WHERE o.oid IS NULL",
        "UPDATE users SET name = 'none' WHERE balance > 1000000",
        "DELETE FROM orders WHERE total < 3 AND EXISTS (SELECT 1 FROM users WHERE users.uid = orders.uid)",
        "DELETE u, o FROM users u JOIN orders o ON u.uid = o.uid WHERE o.oid > 0 AND u.uid <> 2",
        "DELETE FROM users",
    )


def test_the_order_of_changes_is_that_of_each_shards_rows(sides: Sides) -> None:
    sides.same(
        *FILL,
        "UPDATE orders SET oid = oid + 1 ORDER BY oid DESC",
        "DELETE FROM users WHERE balance > 15 ORDER BY name",
    )


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 9])
def test_a_number_of_rows_is_changed_whichever_they_are(sides: Sides, limit: int) -> None:
    sides.same(*FILL)
    sides.both(f"UPDATE users SET balance = 1000 WHERE uid > 0 LIMIT {limit}")
    changed = [rows(side, "SELECT COUNT(*) FROM users WHERE balance = 1000") for side in (sides.here, sides.there)]
    assert changed[0] == changed[1] == [(min(limit, 5),)]
    sides.both(f"DELETE FROM users LIMIT {limit}")
    left = [len(rows(side, "SELECT uid FROM users")) for side in (sides.here, sides.there)]
    assert left[0] == left[1] == 5 - min(limit, 5)


def test_in_a_transaction_writes_over_shards_are_undone_together(sides: Sides) -> None:
    sides.same(*FILL)
    for side in (sides.here, sides.there):
        side.begin()
    sides.same(
        f"INSERT INTO users VALUES (8, 'x', 1), ({FAR + 8}, 'y', 2)",
        "UPDATE users SET balance = balance + 1",
        f"INSERT INTO users VALUES (9, 'x', 1), ({FAR + 9}, 'y', 2), ({FAR}, 'z', 3)",
        "DELETE FROM users WHERE balance > 30",
    )
    for side in (sides.here, sides.there):
        side.rollback()
    sides.compare("ROLLBACK")


def test_an_error_on_one_shard_undoes_the_others(sides: Sides) -> None:
    sides.same(*FILL)
    for sql in (
        f"UPDATE users SET balance = IF(uid = {FAR}, 99999999999, 7)",
        f"UPDATE orders SET oid = 1 WHERE uid IN (1, {FAR}, 2)",
    ):
        here, there = (answer(side, sql, None) for side in (sides.here, sides.there))
        # Which of its rows a share has reached says nothing about the whole statement's rows.
        assert here == (there[0], re.sub(r" at row [0-9]+$", "", there[1]))
        assert here[0] in (1264, 1062)
        sides.compare(sql)


def test_affected_rows_are_those_found_for_clients_that_ask_for_them(proxy: ProxyUnderTest, lone: LocalServer) -> None:
    sides = Sides(proxy, lone, client_flag=CLIENT.FOUND_ROWS)
    sides.same(*FILL, "UPDATE users SET balance = 20 WHERE balance > 10")
    sides.same(
        f"INSERT INTO users VALUES ({FAR}, 'b', 20), (1, 'x', 1), ({FAR + 9}, 'x', 1), (9, 'y', 2) "
        "ON DUPLICATE KEY UPDATE balance = 20"
    )
    sides.close()
