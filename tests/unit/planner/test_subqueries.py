"""Which subqueries run first, and what stands in their place."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.plan import Plan, Rung, Spread
from shardproxy.planner.statement import plan_statement
from shardproxy.planner.subquery_plan import Compared, Form, Subquery
from shardproxy.planner.subquery_values import MOST, in_place, limited, literal
from shardproxy.planner.template import Template
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from tests.unit.planner.world import context

INT, TEXT, DATE = FieldType.LONGLONG, FieldType.VAR_STRING, FieldType.DATE


def plan(sql: str) -> Plan:
    return plan_statement(sql.encode(), context())


def subquery(form: Form = Form.IN, compared: Compared = Compared.NUMBER) -> Subquery:
    return Subquery(form, Template((b"SELECT 1",)), False, compared, "utf8mb4_bin")


# ── which ──


@pytest.mark.parametrize(
    ("where", "forms"),
    [
        ("uid IN (SELECT country FROM users)", [Form.IN]),
        ("users.uid NOT IN (SELECT id FROM orders WHERE total > 3)", [Form.NOT_IN]),
        ("country = (SELECT MAX(id) FROM orders)", [Form.SCALAR]),
        ("country <=> (SELECT COUNT(*) FROM orders)", [Form.SCALAR]),
        ("EXISTS (SELECT 1 FROM orders WHERE total > 3)", [Form.EXISTS]),
        ("NOT EXISTS (SELECT 1 FROM orders WHERE total > 3) AND uid > 3", [Form.EXISTS]),
        ("country BETWEEN 1 AND 2 AND uid IN (SELECT id FROM orders) && country < 9", [Form.IN]),
        ("uid IN (SELECT DISTINCT id FROM orders) AND country > (SELECT SUM(total) FROM orders)",
         [Form.IN, Form.SCALAR]),
    ],
)  # fmt: skip
def test_terms_that_run_first(where: str, forms: list[Form]) -> None:
    found = plan(f"SELECT name FROM users WHERE {where}")
    assert found.subqueries is not None
    assert [one.form for one in found.subqueries.first] == forms
    assert (found.spread, found.rung) == (Spread.SCRATCH, Rung.MERGE)


@pytest.mark.parametrize(
    "where",
    [
        "uid IN (SELECT id FROM orders) OR country = 1",  # under OR an empty list is not NULL
        "NOT uid IN (SELECT id FROM orders)",
        "uid + 1 IN (SELECT id FROM orders)",
        "(uid IN (SELECT id FROM orders)) = 1",
        "country BETWEEN 1 AND uid IN (SELECT id FROM orders)",
        "uid IN (SELECT id FROM orders WHERE total = country)",  # of the outer row
        "uid IN (SELECT id FROM orders WHERE total = users.country)",
        "uid IN (SELECT id FROM orders LIMIT 3)",
        "uid IN (SELECT id FROM orders ORDER BY id)",
        "uid IN (SELECT id FROM orders UNION SELECT 1)",
        "uid IN (SELECT id FROM orders WHERE placed < NOW())",  # the clock
        "uid IN (SELECT id FROM orders WHERE total > RAND())",
        "uid IN (SELECT id FROM orders WHERE total > @a)",
        "uid IN (SELECT id, total FROM orders)",
        "uid IN (SELECT MAX(id) FROM orders GROUP BY total)",
        "uid IN (SELECT id + 1 FROM orders)",  # what it is shows only its values
        "country > (SELECT AVG(id) FROM orders)",  # servers compare more digits than they show
        "name IN (SELECT id FROM orders)",
        "uid IN (SELECT name FROM accounts)",
        "uid IN (SELECT id FROM orders) FOR UPDATE",
        "uid IN (SELECT id FROM orders WHERE total IN (SELECT amount FROM items))",
        "uid = ANY (SELECT id FROM orders)",
        "(uid, country) IN (SELECT id, total FROM orders)",
    ],
)
def test_terms_that_do_not(where: str) -> None:
    assert plan(f"SELECT name FROM users WHERE {where}").subqueries is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT /*shardproxy: snapshot*/ name FROM users WHERE uid IN (SELECT id FROM orders)",
        "SELECT name FROM users WHERE uid IN (SELECT id FROM orders) UNION SELECT 1",
        "SELECT name, ROW_NUMBER() OVER (ORDER BY uid) FROM users WHERE uid IN (SELECT id FROM orders)",
        "SELECT SQL_CALC_FOUND_ROWS name FROM users WHERE uid IN (SELECT id FROM orders)",
        "SELECT name, NOW() FROM users WHERE uid IN (SELECT id FROM orders)",
        "SELECT name, (SELECT COUNT(*) FROM orders) FROM users WHERE uid IN (SELECT id FROM orders)",
        "UPDATE users SET name = 'a' WHERE uid IN (SELECT id FROM orders)",
    ],
)
def test_statements_in_which_none_does(sql: str) -> None:
    assert plan(sql).subqueries is None


def test_what_the_key_ties_stays_where_it_is() -> None:
    assert plan("SELECT name FROM users WHERE uid IN (SELECT uid FROM orders)").subqueries is None
    found = plan("SELECT name FROM users WHERE uid = 5 AND EXISTS (SELECT 1 FROM orders o WHERE o.uid = users.uid)")
    assert found.subqueries is None


def test_the_texts_are_the_statements_own() -> None:
    sql = b"SELECT name , 'a' FROM users WHERE uid IN ( SELECT id FROM orders WHERE total > 7 ) AND country = 2 LIMIT 5"
    found = plan(sql.decode()).subqueries
    assert found is not None
    _, literals = scan(sql, SqlModes())
    assert found.first[0].text.render(literals).text == b"SELECT id FROM orders WHERE total > 7"
    around = [text.render(literals).text for text in found.around]
    assert around == [b"SELECT name , 'a' FROM users WHERE uid IN", b"AND country = 2 LIMIT 5"]
    assert not found.checked


# ── values ──


def test_what_stands_for_nothing() -> None:
    assert in_place(subquery(Form.IN), [INT], []) == b"(NULL)"
    assert in_place(subquery(Form.SCALAR), [INT], []) == b"NULL"
    assert in_place(subquery(Form.EXISTS), [], []) == b" (1 = 0) "
    assert in_place(subquery(Form.EXISTS), [], [None]) == b" (1 = 1) "
    nothing = in_place(subquery(Form.NOT_IN), [INT], [])
    assert nothing is not None
    assert nothing.startswith(b"(SELECT ")


def test_lists_have_each_value_and_as_many_entries_as_a_power_of_two() -> None:
    assert in_place(subquery(), [INT, INT], [b"1", None, b"-2", b"1"]) == b"(1,NULL,-2,-2)"
    assert in_place(subquery(), [INT], [b"5"]) == b"(5)"
    most = in_place(subquery(), [INT], [b"%d" % i for i in range(MOST)])
    assert most is not None
    assert most.count(b",") == MOST - 1
    assert in_place(subquery(), [INT], [b"%d" % i for i in range(MOST + 1)]) is None
    assert limited(subquery()) == b" LIMIT %d" % (MOST + 1)


@given(st.lists(st.one_of(st.none(), st.decimals(-(10**12), 10**12, places=3), st.integers(-(2**63) + 1, 2**64 - 1))))
def test_a_list_has_the_very_numbers(numbers: list[Decimal | int | None]) -> None:
    cells = [None if n is None else f"{n:f}".encode() if isinstance(n, Decimal) else b"%d" % n for n in numbers]
    text = in_place(subquery(), [FieldType.NEWDECIMAL], cells)
    assert text is not None
    listed = text[1:-1].split(b",")
    assert {None if one == b"NULL" else Decimal(one.decode()) for one in listed} == set(numbers or [None])


@pytest.mark.parametrize(
    ("compared", "value", "text"),
    [
        (Compared.NUMBER, b"-9223372036854775808", None),  # 9223372036854775808 is no BIGINT
        (Compared.NUMBER, b"1e5", None),
        (Compared.DATE, b"2024-02-29", b"DATE'2024-02-29'"),
        (Compared.DATE, b"2023-02-29", None),
        (Compared.DATE, b"0000-00-00", None),
        (Compared.DATE, b"2024-00-01", None),
        (Compared.DATETIME, b"2024-02-29 23:59:59.125", b"TIMESTAMP'2024-02-29 23:59:59.125'"),
        (Compared.DATETIME, b"0000-00-00 00:00:00", None),
        (Compared.TEXT, "é'\\".encode(), b"_utf8mb4 x'c3a9275c' COLLATE utf8mb4_bin"),
        (Compared.TEXT, b"", b"_utf8mb4 x'' COLLATE utf8mb4_bin"),
    ],
)
def test_literals(compared: Compared, value: bytes, text: bytes | None) -> None:
    assert literal(subquery(compared=compared), value) == text


def test_values_of_another_type_are_not_put_in() -> None:
    assert in_place(subquery(), [INT, FieldType.DOUBLE], [b"1"]) is None
    assert in_place(subquery(compared=Compared.DATE), [FieldType.DATETIME], [b"2024-01-01 00:00:00"]) is None
    assert in_place(subquery(compared=Compared.TEXT), [FieldType.STRING], [b"a"]) is None
    assert in_place(subquery(Form.SCALAR), [INT], [b"1", b"2"]) is None  # the server's error
