"""The TPC-H generator: the same rows each time, and what the queries rely on holds in them."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import pytest

from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.maps import KeyRange, RangeMap
from tests.tpch.load import batches, split
from tests.tpch.queries import queries
from tests.tpch.rows import GENERATORS, Row, Scale, money, order_key, orders_and_lines, retail_price, supplier_of
from tests.tpch.schema import DATABASE, TABLES, keyspace_toml

_SMALL = Scale(0.002)


def _all_rows(scale: Scale, seed: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {table.name: [] for table in TABLES}
    for table, rows in batches(scale, seed):
        found[table.name] += rows
    return found


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return _all_rows(_SMALL, 1)


def test_rows_are_the_same_each_time_and_on_each_machine(rows: dict[str, list[Row]]) -> None:
    assert _all_rows(_SMALL, 1) == rows
    shown = hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest()
    assert (
        shown == "2580c6b25f05c0ed40ccfc2d37915e13ae1ce449c7136b7498f38f90f0f81c06"
    )  # a new value means that figures of before and after are of different data


def test_another_seed_gives_other_rows(rows: dict[str, list[Row]]) -> None:
    other = _all_rows(_SMALL, 2)
    assert all(other[name] != rows[name] for name in rows)


def test_a_table_does_not_depend_on_whether_others_were_made(rows: dict[str, list[Row]]) -> None:
    for name, generate in GENERATORS.items():
        assert list(generate(_SMALL, 1)) == rows[name]


@pytest.mark.parametrize("factor", [0.0001, 0.01, 1])
def test_cardinalities(factor: float) -> None:
    scale = Scale(factor)
    assert (scale.suppliers, scale.parts, scale.customers, scale.orders) == (
        round(10_000 * factor), round(200_000 * factor), round(150_000 * factor), round(1_500_000 * factor)
    )  # fmt: skip


def test_rows_fit_their_templates(rows: dict[str, list[Row]]) -> None:
    for table in TABLES:
        for row in rows[table.name]:
            text = table.template % row
            assert text.count("'") == table.template.count("'")  # no value holds a quote
            assert "\\" not in text


def test_primary_keys_are_unique(rows: dict[str, list[Row]]) -> None:
    for name, width in {"partsupp": 2, "customer": 1, "supplier": 1, "part": 1, "orders": 1}.items():
        keys = [row[:width] for row in rows[name]]
        assert len(set(keys)) == len(keys)
    lines = [(row[0], row[3]) for row in rows["lineitem"]]
    assert len(set(lines)) == len(lines)


def test_references_lead_to_rows(rows: dict[str, list[Row]]) -> None:
    keys = {name: {row[0] for row in rows[name]} for name in ("supplier", "part", "customer", "orders", "nation")}
    offers = {row[:2] for row in rows["partsupp"]}
    assert all((row[1], row[2]) in offers for row in rows["lineitem"])
    assert all(row[0] in keys["part"] and row[1] in keys["supplier"] for row in rows["partsupp"])
    assert all(row[1] in keys["customer"] for row in rows["orders"])
    assert {row[0] for row in rows["lineitem"]} == keys["orders"]
    for name in ("supplier", "customer"):
        assert {row[3] for row in rows[name]} <= keys["nation"]


def test_what_depends_on_what() -> None:
    for order, lines in orders_and_lines(_SMALL, 3):
        total = Decimal(0)
        for line in lines:
            _, part, _, _, quantity, price, discount, tax, flag, state, shipped, _, received, *_ = line
            assert isinstance(part, int) and isinstance(quantity, int)
            assert price == money(quantity * retail_price(part))
            assert str(order[4]) < str(shipped) < str(received)
            assert (state == "F") == (str(shipped) <= "1995-06-17")
            assert (flag in ("A", "R")) == (str(received) <= "1995-06-17")
            total += Decimal(str(price)) * (1 - Decimal(str(discount))) * (1 + Decimal(str(tax)))
        assert abs(Decimal(str(order[3])) - total) <= Decimal("0.005")
        states = {line[9] for line in lines}
        assert order[2] == ("P" if len(states) == 2 else states.pop())


def test_a_third_of_the_customers_never_orders(rows: dict[str, list[Row]]) -> None:
    assert all(int(row[1]) % 3 for row in rows["orders"])


def test_large_orders_complaints_and_special_requests_exist_at_the_scale_of_the_test() -> None:
    scale = Scale(0.01)
    large = [lines for _, lines in orders_and_lines(scale, 1) if sum(int(line[4]) for line in lines) > 300]
    assert large
    assert any("Customer" in str(row[6]) and "Complaints" in str(row[6]) for row in GENERATORS["supplier"](scale, 1))
    orders = [str(order[8]) for order, _ in orders_and_lines(scale, 1)]
    assert sum("special" in text and "requests" in text for text in orders) > len(orders) // 100


def test_parts_have_four_different_suppliers() -> None:
    for count in (20, 100, 10_000):
        for part in (1, 7, count, count * 20):
            chosen = {supplier_of(part, n, count) for n in range(4)}
            assert len(chosen) == 4
            assert all(1 <= supplier <= count for supplier in chosen)


@pytest.mark.parametrize(("cents", "text"), [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (12345, "123.45")])
def test_money(cents: int, text: str) -> None:
    assert money(cents) == text


def test_order_keys_are_sparse() -> None:
    assert [order_key(n) for n in (0, 7, 8, 15, 16)] == [1, 8, 33, 40, 65]


def test_split_puts_each_row_where_its_key_lives(rows: dict[str, list[Row]]) -> None:
    places = RangeMap([KeyRange(0, 100, 0), KeyRange(100, 1000, 2)])
    parts = split(rows["part"], 0, places)
    assert sorted(parts) == [0, 2]
    assert parts[0] + parts[2] == rows["part"]
    assert max(int(row[0]) for row in parts[0]) == 99


def test_keyspace_names_every_table_and_its_key() -> None:
    text = keyspace_toml(["a", "b"])
    assert f"[keyspaces.{DATABASE}]" in text
    assert 'lineitem = { key = "l_orderkey" }' in text
    assert "nation = { reference = true }" in text
    assert "ring = { a = 1, b = 1 }" in text


def test_there_are_22_queries_of_different_digests() -> None:
    found = queries(0.01)
    assert [query.number for query in found] == list(range(1, 23))
    assert len({scan(query.sql.encode(), SqlModes())[0] for query in found}) == 22
    assert "* 0.0100000000" in found[10].sql
    assert all(query.total == (not query.ties) for query in found)
