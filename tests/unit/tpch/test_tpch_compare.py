"""What counts as equal between two answers to a TPC-H query."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.values import Value
from tests.tpch.queries import Query
from tests.tpch.sides import Differ, compare
from tests.wire import Result

_COLUMNS = [ColumnDefinition(name=b"name"), ColumnDefinition(name=b"sum", type=246, decimals=4)]
_TOTAL = Query(1, "", total=True)
_TIED = Query(3, "", total=False, ties=(1,))


def _result(*rows: list[Value]) -> Result:
    return Result(list(_COLUMNS), list(rows))


def test_the_same_is_equal() -> None:
    for query in (_TOTAL, _TIED):
        compare(query, _result([b"a", b"1.0000"], [b"b", b"2"]), _result([b"a", b"1.0000"], [b"b", b"2"]))


def test_numbers_compare_to_the_last_digit() -> None:
    with pytest.raises(Differ, match=r"row 0 is \[b'a', b'1.00'\] instead of \[b'a', b'1.0000'\]"):
        compare(_TOTAL, _result([b"a", b"1.0000"]), _result([b"a", b"1.00"]))


def test_order_counts_where_it_is_total() -> None:
    one, other = _result([b"a", b"1"], [b"b", b"1"]), _result([b"b", b"1"], [b"a", b"1"])
    with pytest.raises(Differ):
        compare(_TOTAL, one, other)
    compare(_TIED, one, other)


def test_order_of_what_is_named_counts_always() -> None:
    with pytest.raises(Differ, match="another order"):
        compare(_TIED, _result([b"a", b"2"], [b"b", b"1"]), _result([b"b", b"1"], [b"a", b"2"]))


def test_tied_rows_are_a_multiset() -> None:
    with pytest.raises(Differ):
        compare(_TIED, _result([b"a", b"1"], [b"b", b"1"]), _result([b"a", b"1"], [b"a", b"1"]))


@pytest.mark.parametrize("query", [_TOTAL, _TIED])
def test_a_missing_row_is_seen(query: Query) -> None:
    with pytest.raises(Differ):
        compare(query, _result([b"a", b"1"], [b"b", b"1"]), _result([b"a", b"1"]))


def test_types_and_decimals_of_columns_count() -> None:
    other = _result([b"a", b"1"])
    other.columns[1] = replace(other.columns[1], decimals=2)
    with pytest.raises(Differ, match="columns"):
        compare(_TOTAL, _result([b"a", b"1"]), other)
