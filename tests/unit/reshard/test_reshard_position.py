"""Places in a source's history."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.reshard.position import MariaPosition, MySQLPosition, coordinates, parse_position

A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"


def test_mariadb() -> None:
    position = MariaPosition.parse("1-2-7, 0-1-100")
    assert str(position) == "0-1-100,1-2-7"
    kept = position.copy()
    position.add((0, 9, 101))
    assert str(position) == "0-9-101,1-2-7"
    assert position.covers(kept)
    assert not kept.covers(position)
    assert position.has((0, 1, 100))
    assert not position.has((0, 9, 102))
    assert not position.has((3, 1, 1))
    assert not kept.covers(MariaPosition.parse("3-1-1"))
    assert str(MariaPosition.parse("")) == ""


def test_mysql() -> None:
    position = MySQLPosition.parse(f"{A.upper()}:1-5:7,\n{B}:3")
    assert str(position) == f"{A}:1-5:7,{B}:3"
    kept = position.copy()
    position.add((A, 6))
    assert str(position) == f"{A}:1-7,{B}:3"
    position.add((A, 8))
    assert str(position) == f"{A}:1-8,{B}:3"
    assert position.covers(kept)
    assert not kept.covers(position)
    assert kept.has((A, 7))
    assert not kept.has((A, 6))
    assert position != kept
    assert parse_position(str(kept), False) == kept


def test_tagged_sets_are_kept_and_not_followed() -> None:
    position = MySQLPosition.parse(f"{A}:1-2:tag:1-3:9")
    assert str(position) == f"{A}:1-2,{A}:tag:1-3:9"
    with pytest.raises(ValueError, match="tagged"):
        position.encoded()


@given(st.lists(st.integers(1, 60), max_size=60), st.lists(st.integers(1, 60), max_size=60))
def test_sets_are_sets(one: list[int], two: list[int]) -> None:
    left, right = MySQLPosition({}), MySQLPosition({})
    for number in one:
        left.add((A, number))
    for number in two:
        right.add((A, number))
    assert left.covers(right) == (set(two) <= set(one))
    assert all(left.has((A, n)) == (n in one) for n in range(62))
    assert MySQLPosition.parse(str(left)) == left
    for intervals in left.sources.values():
        assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(intervals))


def test_places_in_files() -> None:
    assert coordinates("binlog.000009", 5) < coordinates("binlog.000010", 4) < coordinates("binlog.1000000", 4)


def test_encoding() -> None:
    data = MySQLPosition.parse(f"{A}:1-5:7").encoded()
    assert len(data) == 8 + 16 + 8 + 2 * 16
    assert data[32:48] == (1).to_bytes(8, "little") + (6).to_bytes(8, "little")
