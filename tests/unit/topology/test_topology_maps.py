"""Range maps, bucket maps, and the difference of two maps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.keys import BUCKETS, bucket_of
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, UnmappedKey, moved
from shardproxy.topology.ring import place_buckets

KEYS = st.integers(-50, 50)


@st.composite
def range_maps(draw: st.DrawFn) -> RangeMap:
    cuts = sorted(draw(st.sets(KEYS, min_size=2, max_size=10)))
    ranges = [KeyRange(a, b, draw(st.integers(0, 3))) for a, b in pairwise(cuts)]
    kept = [r for r in ranges if draw(st.booleans())] or ranges[:1]
    return RangeMap(draw(st.permutations(kept)))


def owner_by_scan(m: RangeMap, key: int) -> int | None:
    owners = [r.shard for r in m.ranges if r.start <= key < r.end]
    assert len(owners) <= 1
    return owners[0] if owners else None


@given(range_maps(), KEYS)
def test_lookup_is_what_a_scan_of_the_ranges_says(m: RangeMap, key: int) -> None:
    want = owner_by_scan(m, key)
    if want is None:
        with pytest.raises(UnmappedKey):
            m.lookup(key)
    else:
        assert m.lookup(key) == want


@given(range_maps(), st.none() | KEYS, st.none() | KEYS)
def test_shards_between_holds_every_owner_in_the_interval_and_no_more_than_the_map(
    m: RangeMap, low: int | None, high: int | None
) -> None:
    first, last = -60 if low is None else low, 60 if high is None else high
    owners = {owner_by_scan(m, key) for key in range(first, last + 1)} - {None}
    found = m.shards_between(low, high)
    assert owners <= found <= set(m.all_shards)
    if low is None or high is None or low <= high:
        assert found == owners, "for ranges it is exact"


def test_the_whole_range_of_both_bigints_can_be_mapped() -> None:
    m = RangeMap([KeyRange(INT_MIN, INT_MAX + 1, 0)])
    assert m.lookup(-(2**63)) == m.lookup(2**64 - 1) == 0
    with pytest.raises(UnmappedKey):
        m.lookup(2**64)


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ([], "at least one range"),
        ([KeyRange(3, 3, 0)], "is empty"),
        ([KeyRange(4, 3, 0)], "is empty"),
        ([KeyRange(0, 5, 0), KeyRange(4, 9, 1)], "overlap"),
        ([KeyRange(4, 9, 1), KeyRange(0, 5, 0)], "overlap"),
    ],
)
def test_wrong_ranges_are_refused(ranges: list[KeyRange], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RangeMap(ranges)


def test_bytes_in_a_range_map_are_a_type_error() -> None:
    with pytest.raises(TypeError):
        RangeMap([KeyRange(0, 5, 0)]).lookup(b"3")


RING_OF_4 = BucketMap(place_buckets({"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 0, "b": 1, "c": 2, "d": 3}))


@given(st.integers(-(2**63), 2**64 - 1), st.integers(-3, 200))
def test_a_bucket_map_names_every_shard_of_an_interval(low: int, width: int) -> None:
    found = RING_OF_4.shards_between(low, low + width)
    assert {RING_OF_4.lookup(k) for k in range(low, low + width + 1)} <= found
    assert RING_OF_4.shards_between(None, low) == RING_OF_4.shards_between(low, None) == frozenset({0, 1, 2, 3})


def test_a_bucket_map_has_4096_entries() -> None:
    with pytest.raises(ValueError, match="4096 entries, not 4095"):
        BucketMap([0] * 4095)


@given(range_maps(), range_maps(), KEYS)
def test_moved_ranges_are_the_keys_whose_owner_changes(old: RangeMap, new: RangeMap, key: int) -> None:
    before, after = owner_by_scan(old, key), owner_by_scan(new, key)
    to = [shard for start, end, shard in moved(old, new) if start <= key < end]
    assert to == ([after] if after is not None and before != after else [])


@given(st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(0, 5)), max_size=20))
def test_moved_buckets_turn_the_old_map_into_the_new(changes: list[tuple[int, int]]) -> None:
    buckets = list(RING_OF_4.buckets)
    for bucket, shard in changes:
        buckets[bucket] = shard
    new = BucketMap(buckets)
    rebuilt = list(RING_OF_4.buckets)
    for start, end, shard in moved(RING_OF_4, new):
        assert end == start + 1
        assert rebuilt[start] != shard
        rebuilt[start] = shard
    assert BucketMap(rebuilt) == new
    assert moved(new, new) == []


def test_maps_of_two_kinds_have_no_difference() -> None:
    with pytest.raises(TypeError, match="move the whole keyspace"):
        moved(RING_OF_4, RangeMap([KeyRange(0, 5, 0)]))


@given(st.integers(-(2**63), 2**64 - 1))
def test_a_bucket_map_looks_up_by_bucket(key: int) -> None:
    assert RING_OF_4.lookup(key) == RING_OF_4.buckets[bucket_of(key)]
