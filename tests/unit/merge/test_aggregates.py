"""Sums and averages of decimals as servers compute and print them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import BackendError
from shardproxy.merge.aggregates import add_decimals, average, format_decimal, parse_decimal

EXACT = Context(prec=200)


@given(st.integers(-(10**40), 10**40), st.integers(0, 30))
def test_a_decimal_is_printed_as_it_was_read(number: int, scale: int) -> None:
    text = format_decimal(number, scale)
    assert parse_decimal(text) == (number, scale)
    assert Decimal(text.decode()) == EXACT.scaleb(Decimal(number), -scale)


@given(st.integers(-(10**30), 10**30), st.integers(0, 12), st.integers(-(10**30), 10**30), st.integers(0, 12))
def test_sums(a: int, a_scale: int, b: int, b_scale: int) -> None:
    left, right = format_decimal(a, a_scale), format_decimal(b, b_scale)
    total = add_decimals(left, right)
    assert Decimal(total.decode()) == EXACT.add(Decimal(left.decode()), Decimal(right.decode()))
    assert parse_decimal(total)[1] == max(a_scale, b_scale)


def test_zero_has_no_sign() -> None:
    assert add_decimals(b"-1.50", b"1.5") == b"0.00"
    assert average(b"-0.00001", 7, 9, 4) == b"-0.000001428"
    assert average(b"-0.1", 1_000_000, 5, 4) == b"0.00000"


@given(st.integers(-(10**20), 10**20), st.integers(0, 4), st.integers(1, 10**6))
def test_averages_round_half_away_from_zero(number: int, scale: int, count: int) -> None:
    exact = EXACT.divide(EXACT.scaleb(Decimal(number), -scale), Decimal(count))
    # Nine digits are kept before rounding; a tie can only come from those.
    cut = exact.quantize(Decimal(1).scaleb(-9), rounding="ROUND_DOWN", context=EXACT)
    wanted = cut.quantize(Decimal(1).scaleb(-(scale + 4)), rounding=ROUND_HALF_UP, context=EXACT)
    assert Decimal(average(format_decimal(number, scale), count, scale + 4, 4).decode()) == wanted


def test_an_average_of_nine_digits_is_cut_off() -> None:
    assert average(b"2.00000", 3, 9, 4) == b"0.666666666"
    assert average(b"2.0000", 3, 8, 4) == b"0.66666667"


def test_a_sum_of_more_digits_than_a_decimal_has() -> None:
    with pytest.raises(BackendError, match="more digits"):
        add_decimals(b"9" * 65, b"1")
