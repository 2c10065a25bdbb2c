"""Which keys move. That the SQL condition says the same is tested on the servers, in tests/reshard."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.keys import KeyType, bucket_of
from shardproxy.topology.moving import MovingKeys

integers = st.integers(-(2**63), 2**64 - 1)


@given(st.lists(st.integers(-100, 100), unique=True, max_size=12), st.integers(-110, 110))
def test_intervals(cuts: list[int], key: int) -> None:
    cuts = sorted(cuts)
    intervals = list(zip(cuts[::2], cuts[1::2], strict=False))
    moving = MovingKeys(KeyType.INT, intervals=intervals[::-1])
    assert (key in moving) == any(start <= key < end for start, end in intervals)
    assert moving.holds_text(b"%d" % key) == (key in moving)


@given(st.sets(st.integers(0, 4095)), integers)
def test_buckets(buckets: set[int], key: int) -> None:
    moving = MovingKeys(KeyType.INT, buckets=buckets)
    assert (key in moving) == (bucket_of(key) in buckets)


def test_texts_are_stripped_and_binary_is_not() -> None:
    text = MovingKeys(KeyType.TEXT, buckets=[bucket_of(b"ab")])
    assert text.holds_text(b"ab  ")
    binary = MovingKeys(KeyType.BINARY, buckets=[bucket_of(b"ab")])
    assert binary.holds_text(b"ab")
    assert not binary.holds_text(b"ab  ")
    assert not binary.holds_text(None)


def test_conditions() -> None:
    assert MovingKeys(KeyType.INT, intervals=[(5, 7), (-3, 0)]).condition("a`b") == (
        b"(`a``b` BETWEEN -3 AND -1 OR `a``b` BETWEEN 5 AND 6)"
    )
    assert MovingKeys(KeyType.TEXT, buckets=[3, 4, 9]).condition("k") == (
        b"(CRC32(CRC32(RTRIM(`k`))) % 4096 BETWEEN 3 AND 4 OR CRC32(CRC32(RTRIM(`k`))) % 4096 BETWEEN 9 AND 9)"
    )
    assert MovingKeys(KeyType.INT, buckets=range(0, 10, 2)).condition("k") == (
        b"(CRC32(CRC32(`k`)) % 4096 IN (0,2,4,6,8))"
    )
    assert MovingKeys(KeyType.INT, buckets=[]).condition("k") == b"(FALSE)"
    assert MovingKeys(KeyType.INT, intervals=[]).condition("k") == b"(FALSE)"
    assert MovingKeys(KeyType.INT, buckets=range(4096)).condition("k") == b"(`k` IS NOT NULL)"


def test_bad_sets() -> None:
    for key_type, intervals, buckets in (
        (KeyType.INT, None, None),
        (KeyType.TEXT, [(1, 2)], None),
        (KeyType.TEXT, [(1, 2)], [1]),
        (KeyType.INT, [(2, 2)], None),
        (KeyType.INT, [(1, 5), (4, 6)], None),
        (KeyType.INT, None, [4096]),
    ):
        with pytest.raises(ValueError):
            MovingKeys(key_type, intervals, buckets)


@given(st.sets(st.integers(-30, 30), min_size=2, max_size=6), st.sets(st.integers(0, 4095)), st.integers(-40, 40))
def test_keys_of_intervals_and_buckets(cuts: set[int], buckets: set[int], key: int) -> None:
    edges = sorted(cuts)
    intervals = list(zip(edges[::2], edges[1::2], strict=False))
    chosen = buckets | {bucket_of(n) for n in range(-40, 41, 3)}
    found = MovingKeys(KeyType.INT, intervals, chosen)
    assert (key in found) == (any(a <= key < b for a, b in intervals) and bucket_of(key) in chosen)
    assert pickle.loads(pickle.dumps(found)) == found
    assert found != MovingKeys(KeyType.INT, intervals) and found != MovingKeys(KeyType.INT, buckets=chosen)
    assert found.meets(key, key) == (key in found)
    assert found.meets(None, None) and found.meets(None, key) == (min(edges) <= key)


def test_the_condition_of_intervals_and_buckets() -> None:
    found = MovingKeys(KeyType.INT, [(1, 5), (8, 9)], [3])
    assert found.condition("k") == (
        b"((`k` BETWEEN 1 AND 4 OR `k` BETWEEN 8 AND 8) AND (CRC32(CRC32(`k`)) % 4096 BETWEEN 3 AND 3))"
    )


def test_equal_and_sent() -> None:
    one = MovingKeys(KeyType.INT, buckets=[2, 1])
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(one) == hash(MovingKeys(KeyType.INT, buckets=[1, 2]))
    assert one != MovingKeys(KeyType.INT, buckets=[1])
    with pytest.raises(TypeError):
        assert b"x" in MovingKeys(KeyType.INT, intervals=[(0, 1)])
