"""Views: one under a table's name is refused, others are replaced by their definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.planner.plan import Plan, Rung
from shardproxy.planner.statement import plan_statement
from shardproxy.topology.schema import Catalog, TableSchema
from tests.unit.planner.world import column, context


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


def read(sql: str, *views: TableSchema, mariadb: bool = False) -> Plan:
    known = replace(context(), mariadb=mariadb)
    tables = dict(known.catalog.tables) | {("shop", view.name): view for view in views}
    return plan_statement(sql.encode(), replace(known, catalog=Catalog(tables)))


def view(name: str, text: str, *columns: str) -> TableSchema:
    return TableSchema("shop", name, tuple(column(c, "int") for c in columns), is_view=True, view_text=text)


RICH = view(
    "rich", "select `shop`.`users`.`uid` AS `uid` from `shop`.`users` where (`shop`.`users`.`name` = 'a')", "id"
)
PLACES = view("places", "select `shop`.`countries`.`id` AS `id` from `shop`.`countries`", "id")
OF_VIEW = view("above", "select `shop`.`rich`.`id` AS `id` from `shop`.`rich` where (`shop`.`rich`.`id` > 7)", "id")


def text(found: Plan) -> str:
    assert found.scratch is not None and found.scratch.text is not None
    return found.scratch.text.shown()


def test_a_definition_stands_for_a_view_and_has_no_literals_of_the_statement() -> None:
    found = read("SELECT 5 AS x, r.* FROM rich r WHERE id > 6", RICH)
    inner = RICH.view_text
    assert text(found) == f"SELECT ?0 AS x, r.* FROM ({inner}) AS `r` (`id`) WHERE id > ?1"
    assert found.scratch is not None
    assert [copy.table for copy in found.scratch.copies] == ["users"]
    found = read("SELECT * FROM shop.rich", RICH, mariadb=True)
    assert text(found) == f"SELECT * FROM ({inner}) AS `rich`"


def test_views_of_views_are_named_without_their_database() -> None:
    found = read("SELECT COUNT(*) FROM above a", RICH, OF_VIEW)
    inner = f"select `rich`.`id` AS `id` from ({RICH.view_text}) AS `rich` (`id`) where (`rich`.`id` > 7)"
    assert text(found) == f"SELECT COUNT(*) FROM ({inner}) AS `a` (`id`)"
    endless = replace(OF_VIEW, name="rich", view_text=OF_VIEW.view_text)
    assert "too deep" in read("SELECT * FROM rich", endless).error


def test_a_column_of_a_view_is_named_without_its_database() -> None:
    found = read("SELECT shop.rich.id, shop.rich.*, shop.rich.id + 1 AS x FROM rich WHERE shop.rich.id > 6", RICH)
    assert text(found) == (
        f"SELECT rich.id, rich.*, rich.id + ?0 AS x FROM ({RICH.view_text}) AS `rich` (`id`) WHERE rich.id > ?1"
    )


def test_a_view_that_any_shard_has_is_read_there() -> None:
    assert read("SELECT * FROM places", PLACES).rung is Rung.ONE_SHARD


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT * FROM rich FOR UPDATE", "lock"),
        ("SELECT (SELECT 1 FROM rich) FROM users", "alias"),
        ("SELECT shop.rich.id + 1 FROM rich", "database"),
        ("SELECT shop.rich.id FROM rich JOIN orders AS rich ON TRUE", "database"),
        ("SELECT (SELECT 1 FROM orders RICH WHERE shop.rich.id = 1) AS x FROM rich", "database"),
        ("SELECT * FROM unreadable", "SHOW VIEW"),
        ("SELECT * FROM foreign_words", "ASCII"),
    ],
)
def test_what_is_not_certain_is_refused(sql: str, why: str) -> None:
    others = (
        view("unreadable", ""),
        view("foreign_words", "select 'ä'"),
    )
    found = read(sql, RICH, *others)
    assert found.rung is Rung.ERROR and why in found.error


@pytest.mark.parametrize(
    ("end", "refused"), [(" order by 1", True), (" order by 1 limit 2", False), (" and (select 1 order by 1)", False)]
)
def test_an_order_of_its_own_is_a_views_alone_on_mariadb(end: str, refused: bool) -> None:
    ordered = view("ordered", RICH.view_text + end, "id")
    assert read("SELECT * FROM ordered", ordered).rung is Rung.SCRATCH
    found = read("SELECT * FROM ordered", ordered, mariadb=True)
    assert (found.rung is Rung.ERROR and "ORDER BY" in found.error) is refused


def test_views_are_described_by_any_shard() -> None:
    for sql in ("SHOW COLUMNS FROM rich", "DESC shop.rich", "SHOW CREATE VIEW rich", "SHOW FIELDS FROM rich FROM shop"):
        assert read(sql, RICH).rung is Rung.ONE_SHARD, sql


def test_a_view_may_read_tables_that_every_shard_of_its_keyspace_has() -> None:
    of_another = "CREATE VIEW v AS SELECT u.uid FROM users u JOIN blog.posts p ON p.uid = u.uid"
    assert read(of_another, mariadb=True).rung is Rung.ONE_SHARD
    assert "tables of another" in read(of_another).error
    found = read("CREATE VIEW v AS SELECT 1 FROM users JOIN lone.things ON TRUE", mariadb=True)
    assert found.rung is Rung.ERROR and "not every shard" in found.error
    assert read("DROP VIEW users").error_code == 1347
    assert read("DROP VIEW users", mariadb=True).error_code == 4092
    assert read("CREATE VIEW users AS SELECT 1").error_code == 1050
