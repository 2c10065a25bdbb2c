"""TPC-C's pieces: inputs are the same each time, and the conditions see what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from typing import Any

import pytest

from tests.tpcc.consistency import violations
from tests.tpcc.inputs import (
    NO_ITEM,
    Delivery,
    NewOrder,
    OrderStatus,
    Payment,
    StockLevel,
    World,
    first_rows,
    last_name,
    transactions,
)
from tests.tpcc.schema import DEFINITIONS, KEYS, keyspace_toml

_WORLD = World(4)


def test_inputs_are_the_same_each_time() -> None:
    assert list(islice(transactions(_WORLD, 3, True), 200)) == list(islice(transactions(_WORLD, 3, True), 200))
    assert list(islice(transactions(_WORLD, 3, True), 20)) != list(islice(transactions(_WORLD, 4, True), 20))
    assert list(first_rows(_WORLD, 1)) == list(first_rows(_WORLD, 1))


def test_a_mix_has_all_five_and_what_is_rare() -> None:
    made = list(islice(transactions(_WORLD, 1, True), 600))
    assert {type(t) for t in made} == {NewOrder, Payment, OrderStatus, Delivery, StockLevel}
    orders = [t for t in made if isinstance(t, NewOrder)]
    assert any(item == NO_ITEM for t in orders for item, _, _ in t.lines)
    assert any(supplier != t.warehouse for t in orders for _, supplier, _ in t.lines)
    payments = [t for t in made if isinstance(t, Payment)]
    assert any(t.customer_warehouse != t.warehouse for t in payments)
    assert {type(t.customer) for t in payments} == {int, str}


def test_without_remote_all_stays_in_one_warehouse() -> None:
    for t in islice(transactions(_WORLD, 1, False), 600):
        if isinstance(t, NewOrder):
            assert all(supplier == t.warehouse for _, supplier, _ in t.lines)
        if isinstance(t, Payment):
            assert t.customer_warehouse == t.warehouse


def test_each_last_name_that_is_asked_for_exists() -> None:
    [customers] = [rows for table, rows in first_rows(World(1, districts=1), 1) if table == "customer"]
    names = {row[4] for row in customers}
    assert names == {last_name(n) for n in range(5)}
    assert last_name(371) == "PRICALLYOUGHT"


def test_definitions_and_keys_name_the_same_tables() -> None:
    assert {d.split()[2] for d in DEFINITIONS} == set(KEYS)
    text = keyspace_toml(["a", "b"], 2)
    assert 'from = "min"\nto = 3\nshard = "a"' in text
    assert 'from = 3\nto = "max"\nshard = "b"' in text


def _tables() -> dict[str, list[dict[str, Any]]]:
    """One warehouse with a delivered and an open order, a payment taken in warehouse 2 among them."""
    line = {"ol_w_id": 1, "ol_d_id": 1, "ol_number": 1, "ol_i_id": 5, "ol_quantity": 3, "ol_amount": Decimal(30)}
    order = {"o_w_id": 1, "o_d_id": 1, "o_c_id": 9, "o_ol_cnt": 1}
    return {
        "warehouse": [{"w_id": 1, "w_ytd": Decimal(0)}, {"w_id": 2, "w_ytd": Decimal(7)}],
        "district": [
            {"d_w_id": 1, "d_id": 1, "d_ytd": Decimal(0), "d_next_o_id": 3},
            {"d_w_id": 2, "d_id": 1, "d_ytd": Decimal(7), "d_next_o_id": 1},
        ],
        "customer": [
            {"c_w_id": 1, "c_d_id": 1, "c_id": 9, "c_balance": Decimal(23), "c_ytd_payment": Decimal(7),
             "c_payment_cnt": 1}
        ],
        "history": [
            {"h_c_w_id": 1, "h_c_d_id": 1, "h_c_id": 9, "h_w_id": 2, "h_d_id": 1, "h_amount": Decimal(7)}
        ],
        "orders": [{**order, "o_id": 1, "o_carrier_id": 4}, {**order, "o_id": 2, "o_carrier_id": None}],
        "new_order": [{"no_w_id": 1, "no_d_id": 1, "no_o_id": 2}],
        "order_line": [
            {**line, "ol_o_id": 1, "ol_supply_w_id": 1, "ol_delivery_d": "2024-01-01"},
            {**line, "ol_o_id": 2, "ol_supply_w_id": 2, "ol_delivery_d": None},
        ],
        "stock": [
            {"s_w_id": 1, "s_i_id": 5, "s_ytd": 3, "s_order_cnt": 1, "s_remote_cnt": 0},
            {"s_w_id": 2, "s_i_id": 5, "s_ytd": 3, "s_order_cnt": 1, "s_remote_cnt": 1},
        ],
    }  # fmt: skip


def test_consistent_rows_violate_nothing() -> None:
    assert violations(_tables()) == []


_Spoil = Callable[[dict[str, list[dict[str, Any]]]], object]


def _lose(table: str, index: int) -> _Spoil:
    return lambda tables: tables[table].pop(index)


def _set(table: str, index: int, column: str, value: object) -> _Spoil:
    return lambda tables: tables[table][index].update({column: value})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_lose("history", 0), "sum of h_amount 0"),
        (_set("warehouse", 1, "w_ytd", Decimal(0)), "warehouse (2,)"),
        (_set("district", 1, "d_ytd", Decimal(0)), "district (2, 1)"),
        (_set("customer", 0, "c_balance", Decimal(30)), "c_balance 30"),
        (_set("customer", 0, "c_payment_cnt", 2), "c_ytd_payment 7 in 2"),
        (_lose("order_line", 0), "0 lines"),
        (_lose("orders", 0), "no order"),
        (_lose("new_order", 0), "do not agree"),
        (_set("orders", 1, "o_carrier_id", 1), "do not agree"),
        (_set("order_line", 1, "ol_delivery_d", "2024"), "do not agree"),
        (_set("district", 0, "d_next_o_id", 4), "d_next_o_id 4"),
        (_set("stock", 1, "s_ytd", 0), "stock (2, 5)"),
        (_set("stock", 1, "s_remote_cnt", 0), "stock (2, 5)"),
    ],
)
def test_each_condition_sees_what_is_wrong(spoil: _Spoil, said: str) -> None:
    tables = copy.deepcopy(_tables())
    spoil(tables)
    assert said in "\n".join(violations(tables))
