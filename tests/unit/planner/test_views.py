"""A view under a table's name: nobody knows which rows of which shards it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.planner.plan import Plan, Rung
from shardproxy.planner.statement import plan_statement
from shardproxy.topology.schema import Catalog
from tests.unit.planner.world import context


def plan(sql: str, **world: str) -> Plan:
    known = context(**world)  # type: ignore[arg-type]
    views = {("shop", "users"), ("shop", "countries"), ("shop", "settings")}
    tables = {
        name: replace(schema, is_view=True) if name in views else schema
        for name, schema in known.catalog.tables.items()
    }
    return plan_statement(sql.encode(), replace(known, catalog=Catalog(tables)))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM users WHERE uid = 5",
        "SELECT * FROM users",
        "SELECT * FROM orders WHERE uid = 5 AND EXISTS (SELECT 1 FROM shop.users u WHERE u.uid = orders.uid)",
        "SELECT * FROM countries",
        "SELECT * FROM settings",
        "UPDATE users SET name = 'x' WHERE uid = 5",
        "DELETE FROM users WHERE uid = 5",
        "INSERT INTO users (uid, name) VALUES (5, 'x')",
        "INSERT INTO orders (id, uid, total) SELECT 1, uid, 2 FROM users WHERE uid = 5",
        "REPLACE INTO countries VALUES (1, 'x')",
    ],
)
def test_views_are_refused(sql: str) -> None:
    found = plan(sql)
    assert found.rung is Rung.ERROR
    assert "is a view" in found.error


@pytest.mark.parametrize("sql", ["SELECT * FROM orders WHERE uid = 5", "SHOW CREATE TABLE users", "DESCRIBE users"])
def test_other_tables_and_descriptions_are_not(sql: str) -> None:
    assert plan(sql).rung is Rung.ONE_SHARD


def test_a_hint_sends_them_on() -> None:
    assert plan("SELECT * FROM users /*shardproxy: shard=a*/").rung is Rung.ONE_SHARD
