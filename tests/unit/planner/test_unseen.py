"""Texts with a condition for shards that hide rows: as they were everywhere else, and exact where they are put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.context import PlanContext
from shardproxy.planner.merge_text import shard_text
from shardproxy.planner.plan import Plan, Rung, Spread, StatementKind
from shardproxy.planner.statement import plan_statement
from shardproxy.planner.template import Template, Unseen
from shardproxy.planner.write_plan import Limited
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyType
from shardproxy.topology.moves import Phase
from shardproxy.topology.moving import MovingKeys
from tests.unit.planner.moving_world import SOURCE, TARGET, moving_context
from tests.unit.planner.world import context

HIDDEN = "((`{}` BETWEEN 100 AND 199)) IS NOT TRUE"


def planned(sql: str, world: PlanContext | None = None) -> Plan:
    return plan_statement(sql.encode(), world or moving_context())


def text(sql: str, shard: int = TARGET, world: PlanContext | None = None) -> str:
    """What a shard gets, of a statement that several answer by themselves."""
    plan = planned(sql, world)
    assert plan.text is not None
    _, literals = scan(sql.encode(), SqlModes.parse(""))
    return plan.text.render(literals, (), 0, shard).text.decode()


def of(name: str) -> str:
    return HIDDEN.format(name.replace(".", "`.`"))


@pytest.mark.parametrize(("sql", "wanted"), [
    ("SELECT * FROM users", "SELECT * FROM users WHERE {users.uid}"),
    ("SELECT * FROM users;", "SELECT * FROM users WHERE {users.uid};"),
    ("SELECT * FROM users WHERE name = 'x' OR bio = 'y'",
     "SELECT * FROM users WHERE {users.uid} AND ( name = 'x' OR bio = 'y')"),
    ("SELECT * FROM users AS `a b` WHERE name = 1", "SELECT * FROM users AS `a b` WHERE {a b.uid} AND ( name = 1)"),
    ("/* app */ SELECT /*+ MAX_EXECUTION_TIME(9) */ 'a', name FROM users -- all\n WHERE\n name = 'x' /* end */"
     " FOR UPDATE",
     "/* app */ SELECT /*+ MAX_EXECUTION_TIME(9) */ 'a', name FROM users -- all\n WHERE {users.uid} AND (\n name = 'x')"
     " /* end */ FOR UPDATE"),
    ("SELECT u.name FROM users u LEFT JOIN orders o ON o.uid = u.uid AND o.total > 5",
     "SELECT u.name FROM users u LEFT JOIN orders o ON o.uid = u.uid AND o.total > 5 WHERE {u.uid}"),
    ("SELECT u.name FROM orders o RIGHT JOIN users u USING (uid) LOCK IN SHARE MODE",
     "SELECT u.name FROM orders o RIGHT JOIN users u USING (uid) WHERE {u.uid} LOCK IN SHARE MODE"),
    ("SELECT o.id FROM countries c JOIN orders o ON o.total = c.id WHERE c.name = 'x'",
     "SELECT o.id FROM countries c JOIN orders o ON o.total = c.id WHERE {o.uid} AND ( c.name = 'x')"),
    ("SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.uid = u.uid AND total = 3)",
     "SELECT name FROM users u WHERE {u.uid} AND ( EXISTS (SELECT 1 FROM orders o WHERE o.uid = u.uid AND total = 3))"),
    ("SELECT name FROM users u USE INDEX FOR JOIN (x) WHERE uid NOT IN (SELECT uid FROM orders)",
     "SELECT name FROM users u USE INDEX FOR JOIN (x) WHERE {u.uid} AND ( uid NOT IN (SELECT uid FROM orders))"),
    ("SELECT country, COUNT(*) FROM users GROUP BY country HAVING COUNT(*) > 1 ORDER BY 2 LIMIT 5",
     "SELECT country, COUNT(*) FROM users WHERE {users.uid} GROUP BY country HAVING COUNT(*) > 1 ORDER BY 2 LIMIT 5"),
    ("SELECT DISTINCT uid FROM orders WHERE total IN (1, 2) ORDER BY uid LIMIT 5 OFFSET 2",
     "SELECT DISTINCT uid FROM orders WHERE {orders.uid} AND ( total IN (1, 2)) ORDER BY uid LIMIT 5 OFFSET 2"),
    ("UPDATE users SET bio = 'x'", "UPDATE users SET bio = 'x' WHERE {users.uid}"),
    ("UPDATE users u JOIN orders o ON o.uid = u.uid SET o.total = 1, u.bio = 'y' WHERE u.name = 'x' OR o.id = 3",
     "UPDATE users u JOIN orders o ON o.uid = u.uid SET o.total = 1, u.bio = 'y' "
     "WHERE {u.uid} AND ( u.name = 'x' OR o.id = 3)"),
    ("UPDATE orders SET total = 5 WHERE id > 3 ORDER BY id",
     "UPDATE orders SET total = 5 WHERE {orders.uid} AND ( id > 3) ORDER BY id"),
    ("DELETE FROM shop.orders", "DELETE FROM shop.orders WHERE {orders.uid}"),
    ("DELETE o FROM orders o JOIN users u ON o.uid = u.uid WHERE u.name = 'x'",
     "DELETE o FROM orders o JOIN users u ON o.uid = u.uid WHERE {o.uid} AND ( u.name = 'x')"),
    ("DELETE FROM o USING orders o JOIN users u USING (uid)",
     "DELETE FROM o USING orders o JOIN users u USING (uid) WHERE {o.uid}"),
])  # fmt: skip
def test_the_condition_stands_before_the_clients_own(sql: str, wanted: str) -> None:
    for name in ("users.uid", "orders.uid", "u.uid", "o.uid", "a b.uid"):
        wanted = wanted.replace("{" + name + "}", of(name))
    assert text(sql) == wanted
    assert text(sql, SOURCE) == sql


def test_after_the_switch_the_source_hides() -> None:
    world = moving_context(phase=Phase.OPEN)
    assert text("SELECT * FROM users", SOURCE, world) == f"SELECT * FROM users WHERE {of('users.uid')}"
    assert text("SELECT * FROM users", TARGET, world) == "SELECT * FROM users"


def test_buckets_are_asked_for_as_rows_are_placed() -> None:
    found = text("SELECT title FROM posts", world=moving_context("blog"))
    assert "CRC32(CRC32(RTRIM(`posts`.`author`))) % 4096" in found


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.CANCELLED])
def test_when_the_move_is_over_nothing_is_hidden(phase: Phase) -> None:
    assert planned("SELECT * FROM users", moving_context(phase=phase)).text is None


@pytest.mark.parametrize("sql", [
    "(SELECT * FROM users)",
    "TABLE users",
    "SELECT * FROM users UNION SELECT * FROM users",
    "WITH u AS (SELECT * FROM users) SELECT * FROM u",
    "SELECT * FROM (SELECT uid FROM users) u",
    "SELECT * FROM users WHERE name = (SELECT MAX(total) FROM orders)",
    "SELECT * FROM users u, orders o WHERE u.name = o.total",
    "SELECT ü.uid FROM users ü",
])  # fmt: skip
def test_other_statements_go_over_scratch_tables(sql: str) -> None:
    plan = planned(sql)
    assert plan.text is None
    assert plan.spread is Spread.SCRATCH


def test_a_write_without_a_certain_place_goes_over_scratch_tables() -> None:
    plan = planned("UPDATE users ü SET ü.name = 'x'")
    assert plan.text is None
    assert plan.spread in (Spread.SCRATCH, Spread.REFUSE)
    assert plan.rung is not Rung.MERGE


def test_limited_writes_have_the_condition_before_their_limit() -> None:
    plan = planned("DELETE FROM orders WHERE total = 3 LIMIT 7")
    assert isinstance(plan.write, Limited)
    shown = plan.write.text.render([b"3", b"7"], (), 0, TARGET).text.decode()
    assert shown == f"DELETE FROM orders WHERE {of('orders.uid')} AND ( total = 3) LIMIT "


@pytest.mark.parametrize("sql", [
    "REPLACE INTO accounts (uid, email, tenant, nick, token) VALUES (1, 'a', 2, 'b', 'c')",
    "INSERT IGNORE INTO accounts (uid, email, tenant, nick, token) VALUES (1, 'a', 2, 'b', 'c')",
    "INSERT INTO accounts (uid, email, tenant, nick, token) VALUES (1, 'a', 2, 'b', 'c') "
    "ON DUPLICATE KEY UPDATE age = 3",
])  # fmt: skip
def test_no_server_may_take_a_hidden_row_for_a_duplicate(sql: str) -> None:
    assert planned(sql).spread is Spread.SCRATCH
    same = sql.replace("accounts (uid, email, tenant, nick, token)", "users (uid, name, bio, country)")
    same = same.replace(", 'c')", ")").replace("(1, 'a', 2, 'b')", "(1, 'a', 'b', 2)").replace("age", "country")
    assert planned(same).spread is not Spread.SCRATCH  # its only unique key is the shard key


def test_numbers_that_are_counted_are_no_duplicates() -> None:
    plan = planned("INSERT INTO orders (uid, total) VALUES (1, 2) ON DUPLICATE KEY UPDATE total = 3")
    assert plan.spread is not Spread.SCRATCH


# ── statements of the golden plans ──


def _statements() -> list[tuple[str, PlanContext, PlanContext]]:
    found = []
    for path in sorted((Path(__file__).parents[2] / "plans").glob("*.txt")):
        world, still = moving_context(), context()
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            changes: dict[str, object] = {}
            if name == "@schema":
                changes = {"schema": None if value == "none" else value}
            elif name == "@modes":
                changes = {"modes": SqlModes.parse("" if value == "none" else value)}
            elif name == "@server":
                changes = {"mariadb": value == "mariadb"}
            elif line and not line.startswith(("#", " ", "@")):
                found.append((line, world, still))
            world, still = replace(world, **changes), replace(still, **changes)  # type: ignore[arg-type]
    return found


STATEMENTS = _statements()


def test_where_nothing_is_hidden_every_text_is_as_ever() -> None:
    texts = merges = conditions = 0
    for sql, world, still in STATEMENTS:
        plan, before = plan_statement(sql.encode(), world), plan_statement(sql.encode(), still)
        assert before.text is None, sql
        if plan.text is not None and not sql.startswith("EXPLAIN"):
            texts += 1
            _, literals = scan(sql.encode(), world.modes)
            assert plan.text.render(literals, (), 0, SOURCE).text == sql.encode()
        if plan.merge is not None:
            merges += 1
            assert before.merge is not None
            keys = [term.key for term in plan.merge.order if term.key is not None]
            if len(keys) == len(plan.merge.order):
                at = [0] * len(keys), [0] * len(plan.merge.group)
                mine, theirs = (shard_text(merge, keys, *at, 5) for merge in (plan.merge, before.merge))
                literals = [b"%d" % i for i in range(99)]
                assert mine.render(literals, (), 0, SOURCE) == theirs.render(literals)
                conditions += mine.differs_on(TARGET)
                # The pieces' order is that of the text, so parameters keep theirs.
                assert (
                    mine.render(literals, range(99), 0, TARGET).parameters
                    == theirs.render(literals, range(99)).parameters
                )
    assert min(texts, merges, conditions) > 20


def test_what_several_shards_do_by_themselves_is_never_without_the_condition() -> None:
    checked = 0
    for sql, world, _ in STATEMENTS:
        plan = plan_statement(sql.encode(), world)
        if not any(group.keyspace.move is not None for group in plan.groups) or plan.kind is StatementKind.EXPLAIN:
            continue
        if plan.spread in (Spread.CONCAT, Spread.EACH) or isinstance(plan.write, Limited):
            checked += 1
            assert plan.text is not None, sql
            assert plan.text.differs_on(TARGET), sql
        if plan.spread is Spread.MERGE:
            assert plan.merge is not None
            assert plan.merge.body.differs_on(TARGET), sql
        if isinstance(plan.write, Limited):
            assert plan.write.text.differs_on(TARGET), sql
    assert checked > 20


GAPS = st.sampled_from([" ", "\n", "\t ", " /* x */ ", " -- y\n", "/**/ "])
WORDS = ("SELECT", "u.name", ",", "'lit'", "FROM", "users", "u", "WHERE", "u.name", "=", "17", "OR", "u.bio", "IN", "(",
         "'a'", ",", "0x41", ")", "FOR", "UPDATE")  # fmt: skip


@given(st.lists(GAPS, min_size=len(WORDS), max_size=len(WORDS)), st.booleans(), st.booleans())
def test_nothing_between_the_words_is_lost(gaps: list[str], condition: bool, lock: bool) -> None:
    words = list(WORDS)
    if not condition:
        del words[7:19]
    if not lock:
        words = words[:-2]
    sql = "".join(gap + word for gap, word in zip(gaps, words, strict=False)).lstrip(" \n\t")
    assert text(sql, SOURCE) == sql
    hidden = text(sql, TARGET)
    assert of("u.uid") in hidden
    again = planned(hidden, context())
    assert again.spread is Spread.CONCAT, hidden


@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(1, 50)), min_size=1, max_size=4), st.integers(0, 3))
def test_a_piece_is_for_its_shards_alone(raw: list[tuple[int, int]], shard: int) -> None:
    keys = [MovingKeys(KeyType.INT, [(start, start + length)]) for start, length in raw]
    piece = Unseen(((1, tuple(keys)), (2, ())), b"<", b"k", b">")
    made = Template((b"a", piece, 0)).render([b"?"], [4], 0, shard)
    assert made.parameters == (4,)
    if shard == 1:
        assert made.text == b"a<(" + b" OR ".join(one.condition_on(b"k") for one in keys) + b") IS NOT TRUE>?"
    else:
        assert made.text == b"a?"
