"""Where the numbers of AUTO_INCREMENT columns go in an INSERT."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.plan import Plan, Rung
from shardproxy.planner.sequence_plan import SequencePlan
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.digest import scan
from tests.unit.planner.world import context


def planned(sql: str, schema: str = "shop") -> Plan:
    return plan_statement(sql.encode(), context(schema))


def sequence(sql: str) -> SequencePlan:
    found = planned(sql).sequence
    assert found is not None, planned(sql).error
    assert pickle.loads(pickle.dumps(found)) == found
    return found


def bare(text: str) -> str:
    return text.replace(" ", "")


def written(sql: str) -> str:
    """The text with 901, 902, … for each row that brings no number."""
    plan = sequence(sql)
    literals = scan(sql.encode(), context().modes)[1]
    given_values = list(plan.values())
    numbers = iter(range(901, 1000))
    return plan.render(literals, [next(numbers) if v is None else None for v in given_values]).text.decode()


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("INSERT INTO orders (uid, total) VALUES (5, 3)", "INSERT INTO orders (uid, total, `id`) VALUES (5, 3, 901)"),
        ("INSERT orders (uid) VALUES (5), (6)", "INSERT orders (uid, `id`) VALUES (5, 901), (6, 902)"),
        ("INSERT INTO orders (id, uid) VALUES (NULL, 5)", "INSERT INTO orders (id, uid) VALUES (901, 5)"),
        (
            "INSERT INTO orders (uid, ID) VALUES (5, DEFAULT), (5, 7), (5, null)",
            "INSERT INTO orders (uid, ID) VALUES (5, 901), (5, 7), (5, 902)",
        ),
        ("INSERT INTO orders VALUES (NULL, 5, 3, NOW())", "INSERT INTO orders VALUES (901, 5, 3, NOW())"),
        ("INSERT INTO orders VALUES ROW(NULL, 5, 3, 0)", "INSERT INTO orders VALUES ROW(901, 5, 3, 0)"),
        ("INSERT INTO orders () VALUES ()", "INSERT INTO orders (`id`) VALUES (901)"),
        ("INSERT INTO orders VALUES ()", "INSERT INTO orders (`id`) VALUES (901)"),
        ("INSERT INTO orders VALUES (), ()", "INSERT INTO orders (`id`) VALUES (901), (902)"),
        ("INSERT INTO orders SET uid = 5", "INSERT INTO orders SET uid = 5, `id` = 901"),
        ("INSERT orders SET orders.id = NULL, uid = 5", "INSERT orders SET orders.id = 901, uid = 5"),
        (
            "INSERT INTO shop.orders (uid, total) VALUES (5, f(1, 2)) ON DUPLICATE KEY UPDATE total = 9",
            "INSERT INTO shop.orders (uid, total, `id`) VALUES (5, f(1, 2), 901) ON DUPLICATE KEY UPDATE total = 9",
        ),
        ("REPLACE INTO rates (rate) VALUES (2.5)", "REPLACE INTO rates (rate, `id`) VALUES (2.5, 901)"),
    ],
)
def test_numbers_are_written_where_they_belong(sql: str, text: str) -> None:
    assert bare(written(sql)) == bare(text)


@pytest.mark.parametrize("count", [1, 15, 17, 40, 3000])
def test_long_inserts(count: int) -> None:
    rows = ", ".join(f"({i}, 'x(,{i}')" for i in range(count))
    sql = f"INSERT INTO orders (uid, total) VALUES {rows}, (7, NOW()) ON DUPLICATE KEY UPDATE total = 'end'"
    plan = sequence(sql)
    literals = scan(sql.encode(), context().modes)[1]
    text = plan.render(literals, range(1, count + 2)).text.decode()
    expected = ", ".join(f"({i}, 'x(,{i}', {i + 1})" for i in range(count))
    assert (
        text.split()
        == (
            f"INSERT INTO orders (uid, total, `id`) VALUES {expected}, (7, NOW(), {count + 1}) "
            "ON DUPLICATE KEY UPDATE total = 'end'"
        ).split()
    )


@given(st.lists(st.sampled_from(["NULL", "DEFAULT", "5", "0", "-3", "?"]), min_size=1, max_size=60))
def test_each_row_keeps_its_own_value_or_gets_a_number(values: list[str]) -> None:
    sql = "INSERT INTO orders (uid, id) VALUES " + ", ".join(f"(?, {value})" for value in values)
    plan = sequence(sql)
    literals = scan(sql.encode(), context().modes)[1]
    parameters, count = [], 0
    for literal in literals:
        parameters.append(count if literal == b"?" else -1)
        count += literal == b"?"
    brought = list(plan.values())
    assert [value is None for value in brought] == [value in ("NULL", "DEFAULT") for value in values]
    found = plan.render(literals, [7 if v is None else None for v in brought], parameters, count)
    shown = ["?" if v in ("NULL", "DEFAULT") else v for v in values]
    assert (
        found.text.decode().split()
        == ("INSERT INTO orders (uid, id) VALUES " + ", ".join(f"(?, {v})" for v in shown)).split()
    )
    own, further = iter(range(count)), iter(range(count, count + len(values)))
    expected = []
    for value in values:
        expected.append(next(own))
        if value == "?":
            expected.append(next(own))
        elif value in ("NULL", "DEFAULT"):
            expected.append(next(further))
    assert list(found.parameters) == expected


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("INSERT INTO orders (id, uid) VALUES (1 + 1, 5)", "must be plain"),
        ("INSERT INTO orders (id, uid) VALUES (NULL, id)", "uses the AUTO_INCREMENT column id"),
        ("INSERT INTO orders SET uid = id", "uses the AUTO_INCREMENT column id"),
        ("INSERT INTO orders (id, uid) VALUES (NULL, 5), (NULL)", "value count at row 2"),
        ("INSERT INTO orders VALUES (5)", "value count at row 1"),
    ],
)
def test_what_cannot_be_counted(sql: str, why: str) -> None:
    plan = planned(sql)
    assert plan.sequence is None
    assert why in (plan.error if plan.rung is Rung.ERROR else plan.not_above)


def test_tables_of_one_shard_count_by_themselves() -> None:
    assert planned("INSERT INTO things (what) VALUES ('x')", "lone").sequence is None
    assert planned("INSERT INTO settings VALUES ('x', 3)").sequence is None
    assert planned("INSERT /*shardproxy: shard=b*/ INTO orders (uid) VALUES (5)").sequence is None
    assert planned("EXPLAIN INSERT INTO orders (uid) VALUES (5)").sequence is None
