"""HAVING over combined groups: exact comparisons, three-valued logic."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.merge.aggregates import parse_decimal
from shardproxy.merge.having import (
    FALSE,
    TRUE,
    UNKNOWN,
    Compares,
    Condition,
    Held,
    Joined,
    Mean,
    Missing,
    Not,
    Operand,
    compare,
)

DECIMALS = st.decimals(-(10**20), 10**20, allow_nan=False, places=4)


def _plain(number: Decimal) -> bytes:
    return f"{number:f}".encode()


@given(DECIMALS, st.one_of(DECIMALS, st.integers(-(2**64), 2**64).map(Decimal)))
def test_decimals_and_integers_compare_by_value(a: Decimal, b: Decimal) -> None:
    assert compare(parse_decimal(_plain(a)), parse_decimal(_plain(b))) == (a > b) - (a < b)


def test_fractions_of_other_lengths_are_equal() -> None:
    assert compare((1500, 3), (15, 1)) == 0
    assert compare((-1500, 3), (-2, 0)) == 1


@pytest.mark.parametrize(("sign", "wanted"), [("=", (0,)), ("<>", (-1, 1)), ("<", (-1,)), (">=", (0, 1))])
@given(st.integers(-3, 3), st.integers(-3, 3))
def test_signs(sign: str, wanted: tuple[int, ...], a: int, b: int) -> None:
    condition = Compares(Held(0, 0, True), Operand((b, 0)), wanted)
    truth = {"=": a == b, "<>": a != b, "<": a < b, ">=": a >= b}[sign]
    assert condition.holds([b"%d" % a]) == (TRUE if truth else FALSE)
    assert condition.holds([None]) == UNKNOWN
    assert Compares(Operand((b, 0)), Held(0, 0, True), wanted).holds([None]) == UNKNOWN


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_integers_of_binary_rows(width: int) -> None:
    value = (-5).to_bytes(width, "little", signed=True)
    assert Held(1, width, True).number([None, value]) == (-5, 0)
    assert Held(1, width, False).number([None, value]) == (256**width - 5, 0)


@pytest.mark.parametrize("binary", [False, True])
def test_means_are_compared_before_they_are_rounded(binary: bool) -> None:
    count = (3).to_bytes(8, "little") if binary else b"3"
    mean = Mean(0, binary, 4)
    assert mean.number([b"5", count]) == (1_666_666_666, 9)
    assert mean.number([None, count]) is None
    # It is shown as 1.6667 and is less.
    assert Compares(mean, Operand((16667, 4)), (-1,)).holds([b"5", count]) == TRUE
    with pytest.raises(RemoteProtocolError):
        mean.number([b"5", None])


def test_null_is_missing() -> None:
    assert Missing(Held(0, 0, True)).holds([None]) == TRUE
    assert Missing(Held(0, 0, True)).holds([b"0"]) == FALSE


# Real conditions, for a class of the compiled package takes no subclass from here.
_SAYS: dict[int, Condition] = {
    FALSE: Compares(Operand((1, 0)), Operand((2, 0)), (0,)),
    TRUE: Compares(Operand((2, 0)), Operand((2, 0)), (0,)),
    UNKNOWN: Compares(Held(0, 0, True), Operand((2, 0)), (0,)),
}


def test_three_valued_logic() -> None:
    order = {FALSE: 0, UNKNOWN: 1, TRUE: 2}
    back = {rank: value for value, rank in order.items()}
    for count in (1, 2, 3):
        for found in itertools.product((FALSE, TRUE, UNKNOWN), repeat=count):
            parts = [_SAYS[value] for value in found]
            ranks = [order[value] for value in found]
            assert Joined(parts, FALSE).holds([None]) == back[min(ranks)]
            assert Joined(parts, TRUE).holds([None]) == back[max(ranks)]
    assert [Not(_SAYS[value]).holds([None]) for value in (FALSE, TRUE, UNKNOWN)] == [TRUE, FALSE, UNKNOWN]
