"""From two maps of one keyspace to the streams between them: which keys go from where to where."""

from __future__ import annotations

from itertools import pairwise

from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, ShardMap, UnmappedKey
from shardproxy.topology.moves import Stream
from shardproxy.topology.moving import MovingKeys


def streams_between(old: ShardMap, new: ShardMap, key_type: KeyType) -> tuple[Stream, ...]:
    """One stream for each pair of shards between which keys go, by source, then target. Keys that had no owner before
    are in none. Between maps of different kinds it has the keys of one's ranges that are in the other's buckets."""
    keys: dict[tuple[int, int], MovingKeys] = {}
    if isinstance(old, BucketMap) and isinstance(new, BucketMap):
        buckets: dict[tuple[int, int], list[int]] = {}
        for bucket, pair in enumerate(zip(old.buckets, new.buckets, strict=True)):
            if pair[0] != pair[1]:
                buckets.setdefault(pair, []).append(bucket)
        keys = {pair: MovingKeys(key_type, buckets=found) for pair, found in buckets.items()}
    elif isinstance(old, RangeMap) and isinstance(new, RangeMap):
        intervals: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for start, end, before, after in _cells(old, new):
            if before is not None and after is not None and before != after:
                _append(intervals.setdefault((before, after), []), start, end)
        keys = {pair: MovingKeys(key_type, intervals=found) for pair, found in intervals.items()}
    else:
        ranges, spread = (old, new) if isinstance(old, RangeMap) else (new, old)
        assert isinstance(ranges, RangeMap)
        assert isinstance(spread, BucketMap)
        for by_range in ranges.all_shards:
            inside: list[tuple[int, int]] = []
            for r in ranges.ranges:
                if r.shard == by_range:
                    _append(inside, r.start, r.end)
            for by_bucket in spread.all_shards:
                if by_bucket != by_range:
                    those = [bucket for bucket, shard in enumerate(spread.buckets) if shard == by_bucket]
                    pair = (by_range, by_bucket) if ranges is old else (by_bucket, by_range)
                    keys[pair] = MovingKeys(key_type, inside, those)
    return tuple(Stream(source, target, keys[source, target]) for source, target in sorted(keys))


def all_on(shard: int, like: ShardMap) -> ShardMap:
    """The map of the other's kind in which one shard has every key."""
    if isinstance(like, BucketMap):
        return BucketMap([shard] * BUCKETS)
    return RangeMap([KeyRange(INT_MIN, INT_MAX + 1, shard)])


def streams_from_one(shard: int, new: ShardMap, key_type: KeyType) -> tuple[Stream, ...]:
    """The streams of a table whose rows are all on one shard and shall be where a map says."""
    return streams_between(all_on(shard, new), new, key_type)


def owned(shard: int, m: ShardMap, key_type: KeyType) -> MovingKeys:
    """The keys that a shard has by this map, which must have some there."""
    if isinstance(m, BucketMap):
        return MovingKeys(key_type, buckets=[bucket for bucket, owner in enumerate(m.buckets) if owner == shard])
    intervals: list[tuple[int, int]] = []
    for r in m.ranges:
        if r.shard == shard:
            _append(intervals, r.start, r.end)
    return MovingKeys(key_type, intervals)


def streams_of_all(m: ShardMap, key_type: KeyType) -> tuple[Stream, ...]:
    """The streams of a table whose rows shall be where another column says: between any two shards, of the source's
    keys. Which of the rows go to which target the other column says."""
    return tuple(
        Stream(source, target, owned(source, m, key_type))
        for source in m.all_shards
        for target in m.all_shards
        if source != target
    )


def opened(old: ShardMap, new: ShardMap) -> tuple[KeyRange, ...]:
    """The ranges of keys that had no owner and get one: no row of theirs can be anywhere, so none moves. Not told of a
    new map of another kind."""
    if not (isinstance(old, RangeMap) and isinstance(new, RangeMap)):
        return ()
    return tuple(
        KeyRange(start, end, after)
        for start, end, before, after in _cells(old, new)
        if before is None and after is not None
    )


def closed(old: ShardMap, new: ShardMap) -> tuple[tuple[int, int], ...]:
    """The intervals of keys that would lose their owner: a map with such may not be used."""
    if isinstance(new, BucketMap):
        return ()
    if isinstance(old, BucketMap):
        old = RangeMap([KeyRange(INT_MIN, INT_MAX + 1, 0)])  # every key has an owner
    return tuple((start, end) for start, end, before, after in _cells(old, new) if before is not None and after is None)


def _cells(old: RangeMap, new: RangeMap) -> list[tuple[int, int, int | None, int | None]]:
    """All keys cut at the boundaries of both maps: start, end, owner before, owner after."""
    cuts = sorted({edge for m in (old, new) for r in m.ranges for edge in (r.start, r.end)})
    return [(start, end, _owner(old, start), _owner(new, start)) for start, end in pairwise(cuts)]


def _owner(m: RangeMap, key: int) -> int | None:
    try:
        return m.lookup(key)
    except UnmappedKey:
        return None


def _append(intervals: list[tuple[int, int]], start: int, end: int) -> None:
    if intervals and intervals[-1][1] == start:
        intervals[-1] = (intervals[-1][0], end)
    else:
        intervals.append((start, end))
