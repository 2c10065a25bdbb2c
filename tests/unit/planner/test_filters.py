"""What is gathered of a table: the conditions that hold for each of its rows that counts, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from shardproxy.planner.plan import Plan
from shardproxy.planner.scratch_plan import Copy, Kind
from shardproxy.planner.statement import plan_statement
from shardproxy.topology.schema import Catalog, TableSchema
from tests.unit.planner.world import column, context

CI = {"charset": "utf8mb4", "collation": "utf8mb4_general_ci"}
USERS = TableSchema(
    "shop",
    "users",
    (
        column("uid", "bigint"),
        column("n", "int"),
        column("f", "double"),
        column("t", "varchar(9)", **CI),
        column("u", "text", **CI),
        column("b", "varchar(9)", charset="utf8mb4", collation="utf8mb4_bin"),
        column("d", "date"),
        column("m", "datetime(3)"),
        column("e", "enum('a')", **CI),
        column("j", "json"),
        column("z", "int", extra="auto_increment"),
    ),
)
ORDERS = TableSchema("shop", "orders", (column("uid", "bigint"), column("x", "int"), column("total", "decimal(9,2)")))


def plan(sql: str, mariadb: bool = False) -> Plan:
    known = replace(context(), mariadb=mariadb)
    tables = dict(known.catalog.tables) | {("shop", table.name): table for table in (USERS, ORDERS)}
    return plan_statement(sql.encode(), replace(known, catalog=Catalog(tables)))


def copies(sql: str, mariadb: bool = False) -> tuple[Copy, ...]:
    found = plan(sql, mariadb)
    assert found.scratch is not None, found.error or found.spread_error
    return found.scratch.copies


def where(sql: str, mariadb: bool = False) -> list[str]:
    """The filter of each scratch table, "" for none."""
    return ["" if copy.where is None else copy.where.shown() for copy in copies(sql, mariadb)]


def condition(text: str) -> str:
    [found] = where(f"SELECT COUNT(*) OVER () FROM users WHERE {text}")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "n = 5", "5 <= n", "n <=> -5", "f <> 1 + 2 - 3", "n IN (1, 2)", "n NOT IN (1)", "n BETWEEN 1 AND 2",
        "n NOT BETWEEN 1 AND 2", "n = uid", "n < f", "t = 'a'", "t LIKE 'a%'", "t NOT LIKE 'a'", "n IS NULL",
        "t = u", "LEFT(t, 2) = 'a'", "SUBSTRING(t FROM 1 FOR 2) IN ('a', 'b')", "SUBSTR(t, 2) = 'a'", "LOWER(t) > 'a'",
        "CHAR_LENGTH(t) = 5", "d = '2020-01-01'", "d < DATE '2020-01-01' + INTERVAL 3 MONTH", "m > d", "YEAR(m) = 2020",
        "NOT n = 5", "NOT (n = 5 OR t = 'a')", "n = 5 OR t = 'a' AND d = '2020-01-01'", "users.n = 5",
    ],
)  # fmt: skip
def test_conditions_of_a_table(text: str) -> None:
    literals = iter(range(9))
    shown = "".join(f"?{next(literals)}" if part is None else part for part in _cut(text))
    assert condition(text) == f"({shown})"


def _cut(text: str) -> list[str | None]:
    """The text with None for each literal."""
    parts = re.split(r"('[^']*'|(?<![\w])[0-9]+)", text)
    return [None if i % 2 else part for i, part in enumerate(parts)]


@pytest.mark.parametrize(
    "text",
    [
        "n", "n + 1 = 5", "n / 2 = 1", "t = b", "t = n", "d = n", "e = 'a'", "z = 5", "z IS NULL",
        "5 = 5", "n = 5 XOR t = 'a'", "n = 5 || t = 'a'", "(n, uid) = (1, 2)", "n = (SELECT 5)", "n = 5 IS TRUE",
        "t COLLATE utf8mb4_bin = 'a'", "t = BINARY 'a'", "t = _latin1'a'", "t REGEXP 'a'", "t LIKE 'a' ESCAPE '|'",
        "UPPER(n) = 'a'", "LEFT(t, n) = 'a'", "CONCAT(t, 'a') = 'b'", "n = 5 = 1", "missing = 5", "other.n = 5",
        "USERS.n = 5", "shop.users.n = 5", "n IN (SELECT uid FROM users)", "EXISTS (SELECT 1 FROM orders WHERE x = n)",
        "CASE WHEN n = 1 AND n = 2 THEN 1 END", "n = uid + 1", "d + INTERVAL 1 DAY = '2020-01-01'",
    ],
)  # fmt: skip
def test_other_conditions_are_left_to_the_statement(text: str) -> None:
    assert where(f"SELECT COUNT(*) OVER () FROM users WHERE {text}")[0] == ""


@pytest.mark.parametrize(
    ("joined", "users", "orders"),
    [
        ("users JOIN orders ON n = 1 AND x = 2 WHERE t = 'a' AND x > 5", "((n = ?0) AND (t = ?2))",
         "((x = ?1) AND (x > ?3))"),
        ("users, orders WHERE n = 1 AND x = 2", "(n = ?0)", "(x = ?1)"),
        ("users LEFT JOIN orders ON n = 1 AND x = 2 WHERE t = 'a' AND total > 5", "(t = ?2)", "(x = ?1)"),
        ("users RIGHT JOIN orders ON n = 1 AND x = 2 WHERE t = 'a' AND total > 5", "(n = ?0)", "(total > ?3)"),
        ("users LEFT JOIN orders ON TRUE JOIN items ON n = 1 AND x = 2", "(n = ?0)", ""),
        ("(users JOIN orders ON n = 1) WHERE x = 2", "(n = ?0)", "(x = ?1)"),
        ("users JOIN orders USING (uid) WHERE n = 1 AND users.n = 2", "(users.n = ?1)", ""),
        ("users JOIN orders WHERE uid = 1 AND n = 2", "(n = ?1)", ""),
        ("users JOIN orders WHERE n = 1 AND x = 2 OR n = 3 AND x = 4", "((n = ?0) OR (n = ?2))",
         "((x = ?1) OR (x = ?3))"),
        ("users JOIN orders WHERE n = 1 AND x = 2 OR n = 3", "((n = ?0) OR (n = ?2))", ""),
        ("users JOIN orders WHERE n = 1 AND (t = 'a' OR x = 2)", "(n = ?0)", ""),
        ("users JOIN orders WHERE NOT (n = 1 AND x = 2)", "", ""),
        ("users CROSS JOIN orders JOIN items ON n = 1", "", ""),
    ],
)  # fmt: skip
def test_joins(joined: str, users: str, orders: str) -> None:
    assert where(f"SELECT COUNT(*) OVER () FROM {joined}")[:2] == [users, orders]


@pytest.mark.parametrize("word", ["RAND() < 0.5", "SLEEP(0)", "UUID() = 'a'"])
def test_nothing_is_left_out_where_it_counts_how_many_rows_are_looked_at(word: str) -> None:
    assert condition(f"n = 5 AND {word}") == ""


def test_a_table_that_is_named_in_a_place_that_is_not_understood_is_whole() -> None:
    # The parser does not know this statement; the name that stands behind USE is no reference.
    assert where("SELECT n FROM users WHERE n = 5 garbage users") == [""]
    assert where("SELECT n FROM users WHERE n = 5 garbage users.n") == [""]


def test_kinds_of_literals_are_said() -> None:
    [copy] = copies(
        "SELECT COUNT(*) OVER () FROM users WHERE n = 1 AND t LIKE 'a' AND d > '2020-01-01' AND LEFT(t, 2) = 'b'"
    )
    assert copy.literals == ((0, Kind.NUMBER), (1, Kind.TEXT), (2, Kind.MOMENT), (3, Kind.NUMBER), (4, Kind.TEXT))


def test_columns_that_are_named() -> None:
    def columns(sql: str) -> list[bool]:
        return [copy.columns is None for copy in copies(sql)]

    assert columns("SELECT n, COUNT(*) OVER () FROM users JOIN orders ON x = n") == [False, False]
    assert columns("SELECT *, COUNT(*) OVER () FROM users, orders") == [True, True]
    assert columns("SELECT d.* FROM users, (SELECT *, ROW_NUMBER() OVER () FROM orders) d") == [False, True]
    assert columns("SELECT n * 2, COUNT(*) OVER () FROM users WHERE EXISTS (SELECT * FROM orders)") == [False, False]
    assert columns("SELECT n FROM users WHERE EXISTS (SELECT * FROM orders UNION SELECT * FROM orders)")[1:] == [
        True,
        True,
    ]
    assert columns("SELECT COUNT(*) OVER () FROM users NATURAL JOIN orders") == [True, True]
    [copy] = copies("SELECT `N`, COUNT(*) OVER () FROM users")
    assert copy.columns is not None and "n" in copy.columns and "t" not in copy.columns


def test_keys() -> None:
    def keys(sql: str) -> list[tuple[tuple[str, int, str], ...]]:
        return [copy.keys for copy in copies(sql)]

    both = [(("n", 1, "x"),), (("x", 0, "n"),)]
    assert keys("SELECT COUNT(*) OVER () FROM users JOIN orders ON x = n") == both
    assert keys("SELECT COUNT(*) OVER () FROM users LEFT JOIN orders ON x = n") == [(), (("x", 0, "n"),)]
    assert keys("SELECT COUNT(*) OVER () FROM users JOIN orders ON x = n OR n = 1") == [(), ()]
    assert keys("SELECT COUNT(*) OVER () FROM users JOIN orders ON total = n") == [(), ()]
    # A subquery's rows by those of the SELECT around it, never the other way; not past a derived table.
    assert keys("SELECT (SELECT SUM(x) FROM orders WHERE x = n) AS s, COUNT(*) OVER () FROM users") == [
        (("x", 1, "n"),), ()
    ]  # fmt: skip
    assert keys(
        "SELECT 1 FROM users WHERE EXISTS (SELECT 1 FROM items, (SELECT total FROM orders WHERE x = users.n) d)"
    ) == [(), (), ()]
