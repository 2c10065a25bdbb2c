"""Which answers of queries may be kept: none that does not follow from the rows of tables that are followed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.plan import Plan
from shardproxy.planner.query_cache import QueryCaching, QueryRule
from shardproxy.planner.statement import plan_statement
from shardproxy.topology.schema import Catalog, TableSchema
from tests.unit.planner.world import CATALOG, column, context, schema

TABLES = ("users", "orders", "items", "countries", "jobs", "accounts", "clocked", "seen")
FOLLOWED = frozenset(("shop", name) for name in TABLES)
HINT = "/*shardproxy: cache=30s*/ "


def planned(sql: str, *rules: QueryRule, database: str | None = "shop", mariadb: bool = False) -> Plan:
    clocked = schema("shop", "events", column("uid", "int"), column("at", "time"))
    view = TableSchema("shop", "seen", CATALOG.tables["shop", "users"].columns, (), (), True, "SELECT 1")
    catalog = Catalog({**CATALOG.tables, clocked[0]: clocked[1], ("shop", "seen"): view})
    caching = QueryCaching(FOLLOWED | {("shop", "events")}, rules)
    return plan_statement(sql.encode(), replace(context(database, mariadb=mariadb), catalog=catalog, caching=caching))


def read(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple(("shop", name) for name in names)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM users WHERE uid = 5", read("users")),
        ("SELECT count(*) FROM shop.orders", read("orders")),
        ("SELECT u.name, o.total FROM orders o JOIN users u ON u.uid = o.uid WHERE u.uid = ?", read("orders", "users")),
        ("SELECT name FROM users WHERE uid = 5 AND EXISTS (SELECT 1 FROM items WHERE uid = 5)", read("items", "users")),
        ("SELECT name FROM countries UNION SELECT what FROM jobs", read("countries", "jobs")),
        ("WITH c AS (SELECT uid FROM orders) SELECT * FROM users JOIN c USING (uid)", read("orders", "users")),
        ("SELECT x.n FROM (SELECT count(*) AS n FROM orders) AS x", read("orders")),
        ("SELECT upper(name), concat(name, 'x'), date_add('2020-01-01', INTERVAL 1 DAY) FROM users", read("users")),
        ("SELECT country, sum(uid) FROM users GROUP BY country ORDER BY 2 DESC LIMIT 3", read("users")),
        ("(SELECT name FROM users WHERE uid = 1)", read("users")),
    ],
)
def test_what_follows_from_rows_may_be_kept(sql: str, tables: tuple[tuple[str, str], ...]) -> None:
    plan = planned(HINT + sql)
    assert plan.error == ""
    assert plan.cached is not None, plan.reason
    assert plan.cached.tables == tables
    assert plan.cached.ttl == 30_000
    assert plan.primary  # a replica may not have the last write
    assert plan.reason.endswith("; kept in the cache for 30 s")
    assert CachedPlan(plan, [], []).key_index == -1  # not on the hot path


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        *(
            (f"SELECT {call} FROM users WHERE uid = 5", "may be another one each time")
            for call in (
                "now()", "current_timestamp", "curdate()", "unix_timestamp()", "sysdate()", "rand()", "uuid()",
                "database(), version()", "time(name)", "sec_to_time(uid)", "default(name)",
                "load_file('/x')", "benchmark(1, 1)",
            )
        ),
        ("SELECT last_insert_id() + uid FROM users WHERE uid = 5", "LAST_INSERT_ID()"),
        ("SELECT SQL_CALC_FOUND_ROWS * FROM users WHERE uid = 5", "SQL_CALC_FOUND_ROWS"),
        ("SELECT SQL_NO_CACHE * FROM users WHERE uid = 5", "SQL_NO_CACHE"),
        ("SELECT mine(uid) FROM users WHERE uid = 5", "only one connection has"),
        ("SELECT sleep(1) FROM users WHERE uid = 5", "another one each time"),
        ("SELECT get_lock('a', 1) FROM users WHERE uid = 5", "only one connection has"),
        ("SELECT name, @a FROM users WHERE uid = 5", "a variable"),
        ("SELECT @a := name FROM users WHERE uid = 5", "a variable"),
        ("SELECT @@sql_mode, name FROM users WHERE uid = 5", "a variable"),
        ("SELECT * FROM users WHERE uid = 5 FOR UPDATE", "locks rows"),
        ("SELECT * FROM users WHERE uid = 5 LOCK IN SHARE MODE", "locks rows"),
        ("SELECT name INTO @a FROM users WHERE uid = 5", "locks rows"),
        ("SELECT CAST(name AS TIME) FROM users WHERE uid = 5", "of type TIME"),
        ("SELECT TIME '10:00:00' > name FROM users WHERE uid = 5", "of type TIME"),
        ("SELECT name FROM users WHERE CONVERT(uid, TIME) < '2020-01-01'", "of type TIME"),
        ("SELECT JSON_VALUE(name, '$.a' RETURNING TIME) FROM users WHERE uid = 5", "of type TIME"),
        ("SELECT SYSDATE FROM users WHERE uid = 5", "SYSDATE"),
        ("SELECT * FROM events WHERE uid = 5", "a column of type TIME"),
        ("SELECT * FROM rates", "shop.rates is not in cache.queries.tables"),
        ("SELECT * FROM users, rates WHERE uid = 5", "shop.rates is not in cache.queries.tables"),
        ("SELECT * FROM users WHERE uid = 5 AND uid IN (SELECT id FROM rates)", "shop.rates is not in"),
        ("SELECT * FROM lone.things WHERE id = 5", "lone.things is not in"),
        ("SELECT table_name FROM information_schema.tables", "is no table of a keyspace"),
        ("SELECT 1", "it reads no table"),
        ("SELECT uid FROM accounts WHERE email = 'a'", "a lookup index"),
        ("UPDATE users SET name = 'x' WHERE uid = 5", "it is UPDATE"),
        ("INSERT INTO users (uid) VALUES (1)", "it is INSERT"),
        ("SHOW TABLES", "it is SHOW"),
        ("EXPLAIN SELECT * FROM users WHERE uid = 5", "it is EXPLAIN"),
    ],
)  # fmt: skip
def test_what_is_not_kept_says_why(sql: str, why: str) -> None:
    plan = planned(HINT + sql)
    assert plan.error == ""
    assert plan.cached is None
    assert "; not kept in the cache: " in plan.reason and why in plan.reason


@pytest.mark.parametrize("call", ["connection_id()", "user()", "current_user", "found_rows()", "row_count()"])
def test_what_only_the_session_knows_is_not_kept(call: str) -> None:
    for sql in (f"SELECT {call}", f"SELECT {call} FROM users WHERE uid = 5"):
        assert planned(HINT + sql).cached is None


def test_without_tables_in_the_file_nothing_is_kept() -> None:
    plan = plan_statement(f"{HINT}SELECT * FROM users WHERE uid = 5".encode(), context())
    assert plan.cached is None and plan.reason.endswith("not kept in the cache: there is no [cache.queries]")


def test_without_a_hint_or_a_rule_plans_are_as_they_were() -> None:
    sql = "SELECT * FROM users WHERE uid = 5"
    assert planned(sql) == plan_statement(sql.encode(), context())


@pytest.mark.parametrize("hint", ["cache=soon", "cache=30", "cache=-1s", "cache=", "cache"])
def test_a_hint_that_says_no_time_is_an_error(hint: str) -> None:
    assert "cache" in planned(f"/*shardproxy: {hint}*/ SELECT * FROM users WHERE uid = 5").error


@pytest.mark.parametrize(("text", "ttl"), [("250ms", 250), ("2m", 120_000), ("1.5s", 1500)])
def test_times_of_hints(text: str, ttl: int) -> None:
    plan = planned(f"SELECT /* shardproxy: cache = {text} */ * FROM users WHERE uid = 5")
    assert plan.cached is not None and plan.cached.ttl == ttl


COUNT = QueryRule("SELECT count(*) FROM orders WHERE uid = ?", frozenset(), 1000)
SMALL = QueryRule("", frozenset(read("countries", "jobs")), 2000)


@pytest.mark.parametrize(
    ("sql", "ttl"),
    [
        ("SELECT count(*) FROM orders WHERE uid = 5", 1000),
        (" SELECT count(*) FROM orders WHERE uid = 5 ", 1000),
        ("SELECT count(*) FROM orders WHERE uid = 5 AND total = 1", None),
        ("SELECT name FROM countries", 2000),
        ("SELECT what FROM jobs, countries", 2000),
        ("SELECT what FROM jobs, countries, users", None),
        ("SELECT name, now() FROM countries", None),
        ("UPDATE countries SET name = 'x'", None),
        ("/*shardproxy: cache=5s*/ SELECT name FROM countries", 5000),
        ("/*shardproxy: cache=0s*/ SELECT name FROM countries", None),
    ],
)
def test_rules(sql: str, ttl: int | None) -> None:
    plan = planned(sql, COUNT, SMALL)
    assert plan.error == ""
    assert (plan.cached and plan.cached.ttl) == ttl


def test_a_rule_that_fits_by_its_text_says_why_not() -> None:
    rule = QueryRule("SELECT now() FROM users WHERE uid = ?", frozenset(), 1000)
    plan = planned("SELECT now() FROM users WHERE uid = 5", rule)
    assert plan.cached is None and "the answer of NOW may be another one each time" in plan.reason


def test_a_view_is_not_kept() -> None:
    plan = planned(f"{HINT}SELECT * FROM seen")
    assert plan.cached is None
