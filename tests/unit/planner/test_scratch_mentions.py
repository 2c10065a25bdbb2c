"""A column named like a table is not that table: what is gathered, and locked, for a statement over scratch tables."""

from __future__ import annotations

import pytest

from shardproxy.planner.draft import Draft
from shardproxy.planner.lex import lex
from shardproxy.planner.plan import Plan
from shardproxy.planner.scratch_mentions import table_places
from shardproxy.planner.statement import plan_statement
from tests.unit.planner.world import context


def gathered(sql: str, mariadb: bool) -> set[str]:
    plan: Plan = plan_statement(sql.encode(), context(mariadb=mariadb))
    assert plan.scratch is not None
    return {copy.table for copy in plan.scratch.copies}


@pytest.mark.parametrize("mariadb", [True, False])
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE accounts SET items = 1 WHERE age > (SELECT MAX(country) FROM users)",
        "UPDATE accounts SET age = 1, items = items + 1 WHERE age > (SELECT MAX(country) FROM users)",
        "UPDATE accounts o JOIN users u ON o.items = u.country SET o.age = u.items WHERE u.items IN (1, items)",
        "UPDATE accounts o JOIN users u ON (items = 1 AND ABS(items)) SET o.age = u.country ORDER BY items",
        "INSERT INTO accounts (uid, items) SELECT age, items FROM users ON DUPLICATE KEY UPDATE items = VALUES(items)",
        "DELETE o FROM accounts o JOIN users items ON o.items = items.country AND items.items = (SELECT COUNT(items))",
        "SELECT age, items FROM accounts, (SELECT country AS items, items FROM users) AS items ORDER BY age, items",
        "SELECT o.items, COUNT(items) FROM accounts o JOIN users u ON u.country = o.age GROUP BY o.age, items",
    ],
)
def test_a_column_named_like_a_table(sql: str, mariadb: bool) -> None:
    assert gathered(sql, mariadb) == {"accounts", "users"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM items, orders WHERE total = 1",
        "SELECT 1 FROM (orders JOIN (items)) WHERE total = 1",
        "SELECT items FROM orders WHERE total IN (SELECT 1 FROM users, items)",
        "SELECT 1 FROM orders STRAIGHT_JOIN shop.items ON total = 1",
        "SELECT 1 FROM orders WHERE total = 1 UNION SELECT uid FROM items",
        "(SELECT 1 FROM orders WHERE total = 1) UNION ALL (SELECT uid FROM items LIMIT 1)",
    ],
)
def test_every_place_of_a_table_is_seen(sql: str) -> None:
    """A second reader beside that of FROM clauses: what either finds is gathered."""
    draft = Draft(sql.encode(), context(), "")
    lex(draft)
    found = {draft.tokens[i].text for i in table_places(draft)}
    assert {"items", "orders"} <= found
