from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.plan import Plan, Rung, Spread, StatementKind
from shardproxy.planner.render import render_plan
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.modes import SqlModes
from shardproxy.sql.words import words
from shardproxy.topology.schema import Catalog
from tests.unit.planner.world import NAMES, context


def plan(sql: str, **world: str) -> Plan:
    return plan_statement(sql.encode(), context(**world))  # type: ignore[arg-type]


WORDS = st.sampled_from(
    sorted(
        words("""
    SELECT INSERT INTO UPDATE DELETE REPLACE FROM WHERE SET VALUES VALUE ON DUPLICATE KEY JOIN LEFT RIGHT
    NATURAL USING AND OR NOT XOR IN BETWEEN IS NULL EXISTS UNION ALL DISTINCT ORDER GROUP BY LIMIT OFFSET FOR
    SHARE WITH AS RECURSIVE CREATE ALTER DROP TABLE INDEX RENAME TO COLUMN IF SHOW TABLES COLUMNS EXPLAIN DESC
    KILL QUERY USE BEGIN COMMIT SAVEPOINT LOCK UNLOCK SESSION GLOBAL TRANSACTION NAMES DO CALL CASE WHEN THEN
    END INTERVAL DAY PARTITION users orders countries settings shop blog posts uid id name u o count max now
    uuid last_insert_id get_lock foo ( ) , . = < > <=> := - * ; ? @x @@y 5 7 1.5 'x' "y" `uid` `users` x'41' /*
    /*c*/ /*! */ -- # ' ` " \\ é
""")
        | {"/*shardproxy: primary*/"}
    )
)


@given(st.lists(WORDS, max_size=25).map(" ".join), st.sampled_from(["shop", "blog", None]), st.booleans())
def test_nothing_that_a_user_writes_raises(sql: str, schema: str | None, mariadb: bool) -> None:
    found = plan_statement(sql.encode(), context(schema, mariadb=mariadb))
    assert render_plan(found, NAMES)
    assert (found.rung is Rung.ERROR) == bool(found.error)


@given(st.binary(max_size=200))
def test_no_bytes_raise(sql: bytes) -> None:
    assert plan_statement(sql, context()).reason


@given(st.binary(max_size=80), st.builds(SqlModes, ansi_quotes=st.booleans(), no_backslash_escapes=st.booleans()))
def test_no_bytes_raise_inside_a_statement(junk: bytes, modes: SqlModes) -> None:
    assert plan_statement(b"SELECT * FROM users WHERE uid = 5 AND " + junk, replace(context(), modes=modes)).reason


SIZE = 3000


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * SIZE + "1" + ")" * SIZE,
        "SELECT * FROM " + "(" * SIZE + "users" + ")" * SIZE,
        "SELECT * FROM " + "(SELECT * FROM " * SIZE + "users" + ") d" * SIZE,
        "SELECT " + "NOT " * SIZE + "1",
        "SELECT " + "- " * SIZE + "1",
        "SELECT " + "CASE WHEN 1 THEN " * SIZE + "1" + " END" * SIZE,
        "SELECT " + "abs(" * SIZE + "1" + ")" * SIZE,
        "SELECT * FROM users" + " JOIN users" * 40,
        "SELECT * FROM users" + " LEFT JOIN users" * 40 + " ON 1" * 40,
        "SELECT * FROM users JOIN orders ON 1" + " STRAIGHT_JOIN users" * 40,
        "SELECT 1 FROM users WHERE " + " OR ".join(["name = 'x'"] * 20_000),
        "SELECT " + ", ".join(["uid"] * 60_000) + " FROM users",
    ],
)
def test_what_would_stop_the_parser_is_not_parsed(sql: str) -> None:
    """Too deep a text would end the process, joins without ON would take it for hours. What it reads is found in its
    words: it may run over scratch tables."""
    found = plan(sql)
    assert found.rung in (Rung.ERROR, Rung.SCRATCH)
    why = found.error or found.not_above
    assert "deep" in why or "too" in why or "split it" in why or "parse" in why


def test_long_lists_are_read() -> None:
    found = plan(f"SELECT * FROM users WHERE uid IN ({', '.join(map(str, range(40_000)))})")
    assert found.reason == "rows of the shards one after the other: users.uid IN (40000 values)"


def test_a_plan_holds_no_literal() -> None:
    shown = render_plan(plan("SELECT * FROM users WHERE uid = 31415 AND name = 'Gauss'"))
    assert "31415" not in shown and "Gauss" not in shown
    assert plan("SELECT * FROM users WHERE name = 'Gauss").digest_text.endswith("'Gauss")


PAIRS = [
    ("SELECT * FROM users WHERE uid = 5", "SELECT * FROM users WHERE uid = 'x'"),
    ("SELECT 5 'a' FROM users WHERE uid = 5", "SELECT 'b' 'a' FROM users WHERE uid = '5'"),
    ("SELECT * FROM users WHERE uid IN (1, 2) LIMIT 3", "SELECT * FROM users WHERE uid IN ('a', x'41') LIMIT ?"),
    ("INSERT INTO users (uid, name) VALUES (5, 'x')", "INSERT INTO users (uid, name) VALUES (?, 0x41)"),
    ("UPDATE users SET name = 'x' WHERE uid = 5", 'UPDATE users SET name = 5 WHERE uid = "x"'),
    ("INSERT INTO orders (id, uid) VALUES (1, 2)", "INSERT INTO orders (id, uid) VALUES (0, '2')"),
    ("SELECT name FROM users WHERE uid = ?", "SELECT name FROM users WHERE uid = 1e5"),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_plan_depends_on_no_literals_kind(one: str, other: str) -> None:
    """Plans are kept by digest: the first text seen must give the plan of all with its digest."""
    assert plan(one) == plan(other)


def test_plans_are_hashable_values() -> None:
    assert plan("SELECT * FROM users WHERE uid = 5").groups[0].tables == ("users",)
    assert {group.condition for group in plan("SELECT * FROM users WHERE uid = 5").groups}


def test_an_empty_catalog_refuses_what_needs_it() -> None:
    world = replace(context(), catalog=Catalog({}))
    for sql in (
        "INSERT INTO users VALUES (5, 'x')",
        "INSERT INTO users (uid) VALUES (5)",
        "UPDATE countries SET name = 'x'",
        "INSERT INTO items SELECT * FROM items WHERE uid = 5",
    ):
        found = plan_statement(sql.encode(), world)
        assert "could not be read from the servers" in found.error
    point = plan_statement(b"SELECT name FROM users WHERE uid = 5", world)
    assert point.rung is Rung.ONE_SHARD and not point.point and point.key_index == 0


def test_point_reads() -> None:
    def is_point(sql: str) -> bool:
        return plan(sql).point

    assert is_point("SELECT name FROM users WHERE uid = 5")
    assert is_point("SELECT u.name, 1 FROM users u WHERE 5 = u.uid AND name = 'x'")
    assert is_point("SELECT amount FROM items WHERE uid = 5 AND oid = 7")
    for sql in (
        "SELECT bio FROM users WHERE uid = 5",
        "SELECT * FROM users WHERE uid = 5",
        "SELECT upper(name) FROM users WHERE uid = 5",
        "SELECT amount FROM items WHERE uid = 5",
        "SELECT amount FROM items WHERE uid = 5 OR oid = 7",
        "SELECT amount FROM items WHERE uid = 5 AND oid > 7",
        "SELECT total FROM orders WHERE uid = 5 AND placed = '2026-01-01'",
        "SELECT name FROM users WHERE uid = 5 FOR UPDATE",
        "SELECT name FROM users WHERE uid IN (5, 6)",
        "SELECT u.name FROM users u JOIN countries c ON c.id = u.country WHERE u.uid = 5",
        "SELECT name FROM users WHERE uid = 5 AND EXISTS (SELECT 1)",
    ):
        assert not is_point(sql), sql


def test_error_plans_carry_mysqls_numbers() -> None:
    assert plan("SELECT * FROM users", schema=None).error_code == 1046  # type: ignore[arg-type]
    assert plan("SELECT * FROM nothere.users").error_code == 1049
    assert plan("UPDATE users SETT name = 'x'").error_code == 1064
    assert plan("INSERT INTO users (uid) VALUES (5, 6)").error_code == 1136
    assert plan("SELECT * FROM nothere").error_code == 9100


def test_reads_stay_off_replicas_when_they_pin_or_lock() -> None:
    assert plan("SELECT name FROM users WHERE uid = 5").read
    for sql in ("SELECT get_lock(@x, 1)", "SELECT name FROM users WHERE uid = 5 FOR SHARE",
                "SELECT foo(name) FROM users WHERE uid = 5", "SELECT get_lock('x', 1)",
                "/*shardproxy: shard=a*/ DELETE FROM users", "INSERT INTO users (uid) VALUES (5)"):  # fmt: skip
        assert not plan(sql).read, sql


def test_pinning_plans_take_no_short_cut() -> None:
    assert plan("SELECT foo(name) FROM users WHERE uid = 5").key_index == -1
    assert plan("UPDATE users SET name = 'x' WHERE uid = 5").key_index == 1
    assert plan("INSERT INTO users (uid) VALUES (5)").key_index == -1


def test_explain_has_the_route_of_its_statement() -> None:
    inner = plan("SELECT name FROM users WHERE uid = 5")
    found = plan("EXPLAIN SELECT name FROM users WHERE uid = 5")
    assert found.kind is StatementKind.EXPLAIN and found.groups == inner.groups and found.spread is Spread.REFUSE


def test_under_some_variables_shards_are_never_put_together() -> None:
    modes = SqlModes(gathered=True)
    for sql in ("SELECT name FROM users", "SELECT name FROM users ORDER BY uid", "SELECT COUNT(*) FROM users"):
        assert plan(sql).spread in (Spread.CONCAT, Spread.MERGE)
        made = plan_statement(sql.encode(), replace(context(), modes=modes))
        assert made.spread is Spread.SCRATCH and "sql_select_limit" in made.not_above
    assert plan_statement(b"SELECT name FROM users WHERE uid = 5", replace(context(), modes=modes)).key_index == 0


def test_found_rows_are_asked_for_and_take_no_short_cut() -> None:
    made = plan("SELECT SQL_CALC_FOUND_ROWS name FROM users WHERE uid = 5 LIMIT 1")
    assert made.found_rows and not made.pins
    assert CachedPlan(made, [], []).key_index == -1
