"""Keys that are noted for another comparison, and in which portions they are compared."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.reshard.touched import FEW, Touched


def noted(numbers: range, table: int = 0) -> Touched:
    touched = Touched()
    touched.begin()
    touched.add((table, None, b"(%d)" % number, b"") for number in numbers)
    return touched


@given(st.integers(0, 9000), st.booleans())
def test_all_keys_are_compared_once(count: int, held: bool) -> None:
    touched = noted(range(count))
    assert len(touched) == count
    found = Counter(key for _, keys in touched.chunks(held) for key in keys)
    assert len(found) == count and set(found.values()) <= {1}
    assert len(touched) == 0


@given(st.integers(1, 4000))
def test_one_row_that_was_just_written_leaves_few_for_the_switch(count: int) -> None:
    """Its whole portion is compared again: with two such portions a sweep has reached its aim."""
    portions = noted(range(count)).chunks()
    assert 2 * max(len(keys) for _, keys in portions) <= FEW


def test_while_writes_are_held_what_is_left_is_compared_at_once() -> None:
    assert len(noted(range(FEW)).chunks(held=True)) == 1


def test_many_are_compared_by_large_portions() -> None:
    assert len(noted(range(8000)).chunks()) == 40


def test_what_differs_is_noted_again() -> None:
    touched = noted(range(10))
    [(table, keys)] = touched.chunks()
    touched.put_back(table, keys[:3])
    touched.put_back(table, keys[2:5])
    assert len(touched) == 5
