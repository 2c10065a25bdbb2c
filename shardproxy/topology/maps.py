"""The two kinds of map from a key to a shard: sorted ranges, and an array of buckets. Immutable."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from shardproxy.topology.keys import BUCKETS, KeyValue, bucket_of

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1  # BIGINT UNSIGNED


class UnmappedKey(LookupError):
    """No range holds the key."""


class KeyRange(NamedTuple):
    """Half-open `[start, end)` of integer keys on one shard (an index into `Snapshot.shards`)."""

    start: int
    end: int
    shard: int


class RangeMap:
    """Sorted, disjoint, half-open integer intervals. Gaps are allowed: a key in a gap raises UnmappedKey."""

    __slots__ = ("_ends", "_shards", "_starts", "all_shards", "ranges")

    def __init__(self, ranges: Sequence[KeyRange]) -> None:
        ordered = tuple(sorted(ranges, key=lambda r: r.start))
        for r in ordered:
            if r.start >= r.end:
                raise ValueError(f"range [{r.start}, {r.end}) is empty")
        for a, b in pairwise(ordered):
            if b.start < a.end:
                raise ValueError(f"ranges [{a.start}, {a.end}) and [{b.start}, {b.end}) overlap")
        if not ordered:
            raise ValueError("a range map needs at least one range")
        self.ranges = ordered
        self._starts = [r.start for r in ordered]
        self._ends = [r.end for r in ordered]
        self._shards = [r.shard for r in ordered]
        self.all_shards = tuple(sorted(set(self._shards)))

    def lookup(self, value: KeyValue) -> int:
        """Shard index of one integer key. Raises UnmappedKey in a gap, TypeError for bytes."""
        i = bisect_right(self._starts, value) - 1
        if i < 0 or value >= self._ends[i]:  # type: ignore[operator]
            raise UnmappedKey(f"key {value!r} is in no range")
        return self._shards[i]

    def shards_between(self, low: int | None, high: int | None) -> frozenset[int]:
        """Shards that can hold keys in the closed interval [low, high]; None is unbounded."""
        lo = 0 if low is None else bisect_right(self._ends, low)
        hi = len(self._starts) if high is None else bisect_right(self._starts, high)
        return frozenset(self._shards[lo:hi])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeMap) and other.ranges == self.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __reduce__(self) -> tuple[type[RangeMap], tuple[tuple[KeyRange, ...]]]:
        return RangeMap, (self.ranges,)  # compiled classes are not pickled by their slots


class BucketMap:
    """`buckets[bucket_of(key)]` is the shard index. Produced by a ring, stored as an array."""

    __slots__ = ("all_shards", "buckets")

    def __init__(self, buckets: Sequence[int]) -> None:
        if len(buckets) != BUCKETS:
            raise ValueError(f"a bucket map has {BUCKETS} entries, not {len(buckets)}")
        self.buckets = tuple(buckets)
        self.all_shards = tuple(sorted(set(buckets)))

    def lookup(self, value: KeyValue) -> int:
        """Shard index of one key."""
        return self.buckets[bucket_of(value)]

    def shards_between(self, low: int | None, high: int | None) -> frozenset[int]:
        """Shards that can hold integer keys in [low, high]: few keys are enumerated, many are all shards."""
        if low is not None and high is not None:
            if high < low:
                return frozenset()
            if high - low < 64:
                return frozenset(self.lookup(k) for k in range(low, high + 1))
        return frozenset(self.all_shards)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketMap) and other.buckets == self.buckets

    def __hash__(self) -> int:
        return hash(self.buckets)

    def __reduce__(self) -> tuple[type[BucketMap], tuple[tuple[int, ...]]]:
        return BucketMap, (self.buckets,)


ShardMap = RangeMap | BucketMap


def moved(old: ShardMap, new: ShardMap) -> list[tuple[int, int, int]]:
    """What changes hands between two maps of one kind.

    Range maps give (start, end, new shard) intervals, bucket maps (bucket, bucket + 1, new shard).
    """
    if isinstance(old, BucketMap) and isinstance(new, BucketMap):
        return [(i, i + 1, b) for i, (a, b) in enumerate(zip(old.buckets, new.buckets, strict=True)) if a != b]
    if isinstance(old, RangeMap) and isinstance(new, RangeMap):
        cuts = sorted({p for m in (old, new) for r in m.ranges for p in (r.start, r.end)})
        out = []
        for start, end in pairwise(cuts):
            before, after = _owner(old, start), _owner(new, start)
            if after is not None and before != after:
                out.append((start, end, after))
        return out
    raise TypeError("maps of different kinds have no difference; move the whole keyspace")


def _owner(m: RangeMap, key: int) -> int | None:
    try:
        return m.lookup(key)
    except UnmappedKey:
        return None


__all__ = ["INT_MAX", "INT_MIN", "BucketMap", "KeyRange", "RangeMap", "ShardMap", "UnmappedKey", "moved"]
