"""What a statement may change of cached tables: never less than it does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.planner.cache import PlanCache
from shardproxy.planner.context import PlanContext
from shardproxy.planner.key_values import key_value
from shardproxy.planner.plan import Plan
from shardproxy.planner.statement import plan_statement
from shardproxy.planner.voids import Voids
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.schema import Catalog
from tests.unit.planner.world import CATALOG, column, context, schema

USERS, ITEMS, JOBS, ACCOUNTS = (("shop", name) for name in ("users", "items", "jobs", "accounts"))
CACHED = frozenset((USERS, ITEMS, JOBS, ACCOUNTS))


def strict(mariadb: bool = True) -> PlanContext:
    """The world with primary keys, and a cache in front of some of it."""
    keyed = [
        schema("shop", "users", column("uid", "bigint"), column("name", "varchar(50)"), column("country", "int"),
               column("bio", "text"), unique=(("uid",),), primary=("uid",)),
        schema("shop", "items", column("uid", "bigint"), column("oid", "bigint"), column("amount", "int"),
               unique=(("oid", "uid"),), primary=("oid", "uid")),
        schema("shop", "jobs", column("id", "int"), column("what", "varchar(20)"), unique=(("id",),),
               primary=("id",)),
    ]  # fmt: skip
    catalog = Catalog({**CATALOG.tables, **dict(keyed)})
    return replace(context(mariadb=mariadb), catalog=catalog, cached=CACHED)


def planned(sql: str) -> tuple[Plan, Voids | None]:
    plan = plan_statement(sql.encode(), strict())
    return plan, plan.voids


def keys(sql: str) -> list[tuple[int, ...]] | None:
    """The rows that a statement makes void."""
    plan, voids = planned(sql)
    assert plan.error == ""
    assert voids is not None and voids.table is not None and not voids.whole
    literals = scan(sql.encode(), SqlModes())[1]
    return voids.keys(plan, lambda value, kind: key_value(literals[value.index], value.negative, kind, SqlModes()))


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("UPDATE users SET name = 'x' WHERE uid = 5", [(5,)]),
        ("UPDATE shop.users SET name = 'x' WHERE `uid` IN (5, '6') AND country = 7", [(5,), (6,)]),
        ("DELETE FROM users WHERE uid = -5 OR uid = 1700", [(-5,), (1700,)]),
        ("INSERT INTO users VALUES (1, 'a', 2, 'b'), (1001, 'a', 2, 'b')", [(1,), (1001,)]),
        ("INSERT IGNORE INTO users SET name = 'a', uid = 0", [(0,)]),
        ("INSERT INTO users (uid, name) VALUES (5, 'a') ON DUPLICATE KEY UPDATE name = 'b'", [(5,)]),
        ("REPLACE INTO users (uid) VALUES (7)", [(7,)]),
        ("INSERT INTO users (uid) VALUES " + ", ".join(f"({i})" for i in range(30)), [(i,) for i in range(30)]),
        ("UPDATE items SET amount = 1 WHERE uid = 5 AND oid IN (7, 8)", [(7, 5), (8, 5)]),
        ("DELETE FROM items WHERE oid = 7 AND uid = 5 LIMIT 1", [(7, 5)]),
        ("INSERT INTO items (amount, uid, oid) VALUES (1, 5, 7)", [(7, 5)]),
        ("UPDATE jobs SET what = 'x' WHERE id = 3", [(3,)]),
        ("INSERT INTO jobs VALUES (3, 'x')", [(3,)]),
        ("INSERT INTO accounts (uid, email) VALUES (3, 'x')", [(3,)]),
        # The values do not say which: the table.
        ("UPDATE users SET name = 'x' WHERE uid = '5x'", None),
        ("INSERT INTO items (uid, oid) VALUES (5, 0)", None),
        ("INSERT INTO items (uid, oid) VALUES (5, 3000000000)", None),
        ("INSERT INTO jobs VALUES (-3, 'x')", None),
    ],
)  # fmt: skip
def test_rows_that_are_named(sql: str, found: list[tuple[int, ...]] | None) -> None:
    assert keys(sql) == found


@pytest.mark.parametrize(
    ("sql", "whole"),
    [
        ("UPDATE users SET name = 'x' WHERE country = 5", [USERS]),
        ("UPDATE users SET name = 'x' WHERE uid = 5 OR name = 'y'", [USERS]),
        ("UPDATE users SET name = 'x' WHERE uid BETWEEN 5 AND 6", [USERS]),
        ("UPDATE users SET name = 'x' WHERE NOT uid = 5", [USERS]),
        ("UPDATE items SET amount = 1 WHERE uid = 5", [ITEMS]),
        ("UPDATE items SET oid = 9 WHERE uid = 5 AND oid = 7", [ITEMS]),
        ("INSERT INTO items (uid, oid) VALUES (5, 7) ON DUPLICATE KEY UPDATE oid = 8", [ITEMS]),
        ("INSERT INTO items (uid, oid) VALUES (5, 7 + 1)", [ITEMS]),
        ("INSERT INTO items (uid, oid) VALUES " + ", ".join(f"({i}, {i})" for i in range(30)), [ITEMS]),
        ("INSERT INTO jobs (what) VALUES ('x')", [JOBS]),
        ("REPLACE INTO accounts (uid, email) VALUES (3, 'x')", [ACCOUNTS]),
        ("UPDATE users JOIN items USING (uid) SET amount = 1, name = 'x' WHERE users.uid = 5", [ITEMS, USERS]),
        ("DELETE FROM users WHERE uid = 5 AND EXISTS (SELECT 1 FROM items WHERE items.uid = 5)", [ITEMS, USERS]),
        ("INSERT INTO users (uid, country) SELECT 5, amount FROM orders WHERE uid = 5", [USERS]),
        ("TRUNCATE TABLE users", [USERS]),
        ("ALTER TABLE shop.`users` ADD COLUMN x INT", [USERS]),
        ("DROP TABLE orders, users", [USERS]),
        ("/*shardproxy: shard=a*/ UPDATE t SET x = 1", sorted(CACHED)),
        ("/*shardproxy: shard=a*/ CALL p()", sorted(CACHED)),
        ("/*shardproxy: shard=a*/ LOAD DATA INFILE 'x' INTO TABLE t", sorted(CACHED)),
        ("/*shardproxy: shard=a*/ ANALYZE FORMAT=JSON UPDATE t SET x = 1", sorted(CACHED)),
        ("SELECT f(1) FROM orders WHERE uid = 5", sorted(CACHED)),
        ("UPDATE orders SET total = f(1) WHERE uid = 5", sorted(CACHED)),
        ("UPDATE users a JOIN users b ON a.uid = b.uid SET b.name = 'x' WHERE a.uid = 5", [USERS]),
    ],
)  # fmt: skip
def test_whole_tables(sql: str, whole: list[tuple[str, str]]) -> None:
    plan, voids = planned(sql)
    if plan.error:
        pytest.fail(plan.error)
    assert voids is not None and list(voids.whole) == whole and voids.table is None


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE orders SET total = 1 WHERE uid = 5",
        "INSERT INTO orders (id, uid) VALUES (1, 5)",
        "SELECT * FROM users WHERE uid = 5",
        "SELECT * FROM users WHERE uid = 5 FOR UPDATE",
        "/*shardproxy: shard=a*/ SELECT * FROM users",
        "EXPLAIN UPDATE users SET name = 'x' WHERE uid = 5",
        "COMMIT",
        "SET autocommit = 1",
        "TRUNCATE TABLE orders",
    ],
)
def test_nothing(sql: str) -> None:
    assert planned(sql) == (plan_statement(sql.encode(), strict()), None)


def test_only_what_writes_cached_tables_leaves_the_hot_path() -> None:
    for cached, index in ((CACHED, -1), (frozenset(), 0)):
        for sql, wanted in (
            (b"DELETE FROM users WHERE uid = 5", index),
            (b"DELETE FROM orders WHERE uid = 5", 0),
            (b"SELECT * FROM users WHERE uid = 5", 0),
        ):
            found = replace(strict(), cached=cached)
            plans = PlanCache(found, 100, 1)
            entry = plans.plan(plan_statement, ("shop", SqlModes(), None), scan(sql, SqlModes())[0], sql)
            assert entry.key_index == wanted
