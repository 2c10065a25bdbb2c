"""From goals to maps and streams: one owner for each key, streams are the difference, and no more moves than must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import GoalError
from shardproxy.topology.goals import (
    MOST_GROWTH,
    AddShard,
    Change,
    EmptyShard,
    Goal,
    Level,
    MergeRanges,
    MoveBuckets,
    MoveRange,
    SetWeights,
    ShiftBoundary,
    SplitRange,
    ToHash,
    ToRanges,
    applied,
    needs_sizes,
    reach,
)
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.levelling import Piece
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, ShardMap, UnmappedKey, moved
from shardproxy.topology.model import Keyspace, Role, Server, Shard, Snapshot, Table, TableKind
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from shardproxy.topology.ring import place_buckets
from shardproxy.topology.streams import closed, opened, streams_between
from shardproxy.topology.table_goals import ChangeKey, ShardTable

NAMES = "abcdefghijklmnopqrstuvwxyz"
END = INT_MAX + 1


def shard(name: str, port: int = 0) -> Shard:
    return Shard(name, Server(f"{name}/primary", "10.0.0.1", port or 3000 + NAMES.index(name), Role.PRIMARY, name))


def world(m: ShardMap, shards: int = 3, members: Sequence[int] | None = None) -> Snapshot:
    key_type = KeyType.INT
    keyspace = Keyspace("main", key_type, m, {}, tuple(members if members is not None else range(shards)))
    return Snapshot(1, tuple(shard(name) for name in NAMES[:shards]), {"main": keyspace})


def ring(weights: dict[str, int]) -> BucketMap:
    return BucketMap(place_buckets(weights, {name: i for i, name in enumerate(NAMES)}))


def change(
    m: ShardMap,
    *goals: Goal,
    weights: dict[str, int] | None = None,
    pieces: Sequence[Piece] = (),
    shards: int = 3,
    members: Sequence[int] | None = None,
) -> Change:
    snapshot = world(m, shards, members)
    found = reach(snapshot, snapshot.keyspaces["main"], weights or {}, goals, pieces)
    check(found)
    return found


def owner(m: ShardMap, key: int) -> int | None:
    if isinstance(m, BucketMap):
        return m.buckets[key]
    try:
        return m.lookup(key)
    except UnmappedKey:
        return None


def places(*maps: ShardMap) -> list[int]:
    """Every bucket; or a key in each stretch of keys between two boundaries of the maps, and those next to them."""
    if isinstance(maps[0], BucketMap):
        return list(range(BUCKETS))
    edges = {edge for m in maps if isinstance(m, RangeMap) for r in m.ranges for edge in (r.start, r.end)}
    return sorted({edge + step for edge in edges for step in (-1, 0, 1)})


def check(found: Change) -> None:
    """Every key that had an owner has one, and is in exactly the one stream that leads from the old to the new."""
    for key in places(found.before, found.after) if not found.other_kind else ():
        old, new = owner(found.before, key), owner(found.after, key)
        if old is not None:
            assert new is not None
        holding = [(s.source, s.target) for s in found.streams if holds(s.keys, key)]
        assert holding == ([(old, new)] if old is not None and old != new else [])
        if old is None:
            assert new == next((r.shard for r in found.opened if r.start <= key < r.end), None)
    for stream in found.streams:
        assert not stream.keys.intervals or all(a[1] < b[0] for a, b in pairwise(stream.keys.intervals))
    assert len({(s.source, s.target) for s in found.streams}) == len(found.streams)
    assert set(found.after.all_shards) <= set(found.members)


def holds(keys: MovingKeys, key: int) -> bool:
    return key in keys.buckets if keys.buckets is not None else key in keys


def went(found: Change) -> int:
    assert isinstance(found.before, BucketMap)
    return len(moved(found.before, found.after))


TWO = RangeMap([KeyRange(INT_MIN, 1000, 0), KeyRange(1000, END, 1)])
GAPS = RangeMap([KeyRange(0, 100, 0), KeyRange(100, 200, 0), KeyRange(200, 300, 1), KeyRange(400, 500, 2)])


# ── rings ──


@pytest.mark.parametrize("n", range(1, 25))
def test_one_more_shard_moves_at_most_its_share_and_only_to_itself(n: int) -> None:
    weights = dict.fromkeys(NAMES[:n], 1)
    found = change(ring(weights), AddShard(NAMES[n], shard(NAMES[n])), weights=weights, shards=n)
    assert {s.target for s in found.streams} == {n}
    assert 0.75 / (n + 1) * BUCKETS <= went(found) <= MOST_GROWTH / (n + 1) * BUCKETS
    assert found.added == (n,)
    assert found.members == tuple(range(n + 1))
    assert found.weights == {**weights, NAMES[n]: 1}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_the_new_map_is_that_of_the_ring_with_the_new_weights(n: int) -> None:
    """So the file's `ring` can say it afterwards."""
    weights = dict.fromkeys(NAMES[:n], 2)
    found = change(ring(weights), AddShard(NAMES[n], shard(NAMES[n]), 2), weights=weights, shards=n)
    assert found.after == ring({**weights, NAMES[n]: 2})


@settings(max_examples=50, deadline=None)  # rings of their own take 20 ms each
@given(
    st.dictionaries(st.sampled_from(NAMES[:5]), st.integers(1, 5), min_size=2, max_size=5),
    st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(0, 4), max_size=20),
    st.data(),
)
def test_a_ring_changes_by_no_bucket_that_need_not(
    weights: dict[str, int], by_hand: dict[int, int], data: st.DataObject
) -> None:
    """From any weights to any others, with buckets that were moved by hand."""
    buckets = list(ring(weights).buckets)
    for bucket, to in by_hand.items():
        buckets[bucket] = to
    old = BucketMap(buckets)
    goals: list[Goal] = []
    leaving = data.draw(st.none() | st.sampled_from(sorted(weights)))
    if leaving is not None and len(weights) > 1:
        goals.append(EmptyShard(leaving, data.draw(st.booleans())))
    else:
        leaving = None
    others = sorted(weights.keys() - {leaving})
    if data.draw(st.booleans()) or not goals:
        goals.append(SetWeights({data.draw(st.sampled_from(others)): data.draw(st.integers(1, 5))}))
    if data.draw(st.booleans()):
        goals.append(AddShard("f", shard("f")))
    found = change(old, *goals, weights=weights, shards=5)
    assert isinstance(found.after, BucketMap)
    was, will = ring(weights).buckets, ring(dict(found.weights)).buckets
    for bucket in range(BUCKETS):
        if was[bucket] == will[bucket] and (leaving is None or old.buckets[bucket] != NAMES.index(leaving)):
            assert found.after.buckets[bucket] == old.buckets[bucket]
        elif will[bucket] != NAMES.index("f"):  # a shard that joins gets no more than its bound
            assert found.after.buckets[bucket] == will[bucket]
    if leaving is not None:
        assert NAMES.index(leaving) not in found.after.all_shards


def test_a_shard_that_leaves_gives_only_its_own_and_is_forgotten_or_stays() -> None:
    weights = {"a": 1, "b": 1, "c": 1}
    gone = change(ring(weights), EmptyShard("b"), weights=weights)
    assert {s.source for s in gone.streams} == {1} and gone.members == (0, 2)
    assert went(gone) == ring(weights).buckets.count(1)
    stays = change(ring(weights), EmptyShard("b", stays=True), weights=weights)
    assert stays.after == gone.after and stays.members == (0, 1, 2)
    back = change(stays.after, AddShard("b"), weights={"a": 1, "c": 1})
    assert back.after == ring(weights), "and comes back to what it had"


def test_weights_shift_shares() -> None:
    weights = {"a": 1, "b": 1}
    found = change(ring(weights), SetWeights({"b": 3}), weights=weights, shards=2)
    assert {(s.source, s.target) for s in found.streams} == {(0, 1)}
    assert isinstance(found.after, BucketMap)
    assert found.after.buckets.count(1) / BUCKETS == pytest.approx(0.75, rel=0.1)


def test_buckets_move_by_number() -> None:
    found = change(ring({"a": 1, "b": 1}), MoveBuckets(5, 7, "b"), MoveBuckets(0, 0, "a"), shards=2)
    assert isinstance(found.after, BucketMap)
    assert found.after.buckets[5:8] == (1, 1, 1) and found.after.buckets[0] == 0
    assert went(found) <= 4


@given(st.lists(st.integers(0, 3), min_size=64, max_size=64), st.lists(st.integers(0, 99), min_size=64, max_size=64))
def test_levelling_buckets(owners: list[int], sizes: list[int]) -> None:
    old = BucketMap(owners * (BUCKETS // 64))
    pieces = [Piece(i * 64 + j, i * 64 + j + 1, float(size)) for i in range(64) for j, size in enumerate(sizes)]
    if not any(sizes):
        with pytest.raises(GoalError, match="nothing to level"):
            change(old, Level(), pieces=pieces, shards=4)
        return
    found = change(old, Level(), AddShard("e", shard("e")), pieces=pieces, shards=4)
    assert isinstance(found.after, BucketMap)
    total = sum(sizes) * 64
    count = len(set(owners)) + 1
    for index in {*owners, 4}:
        has = sum(sizes[b % 64] for b, to in enumerate(found.after.buckets) if to == index)
        assert has <= total / count * 1.02 + 99
    assert {s.target for s in found.streams} & {s.source for s in found.streams} == set()


# ── ranges ──


def ranges(found: Change) -> list[tuple[int, int, int]]:
    assert isinstance(found.after, RangeMap)
    return [(r.start, r.end, r.shard) for r in found.after.ranges]


@pytest.mark.parametrize(
    ("old", "goals", "want", "streams"),
    [
        (TWO, [SplitRange(500)], [(INT_MIN, 500, 0), (500, 1000, 0), (1000, END, 1)], []),
        (TWO, [SplitRange(500, "c")], [(INT_MIN, 500, 0), (500, 1000, 2), (1000, END, 1)], [(0, 2)]),
        (TWO, [SplitRange(500, "b")], [(INT_MIN, 500, 0), (500, 1000, 1), (1000, END, 1)], [(0, 1)]),
        (TWO, [MoveRange(0, 10, "c")], [(INT_MIN, 0, 0), (0, 10, 2), (10, 1000, 0), (1000, END, 1)], [(0, 2)]),
        (TWO, [MoveRange(900, 1000, "b")], [(INT_MIN, 900, 0), (900, END, 1)], [(0, 1)]),
        (TWO, [MoveRange(INT_MIN, END, "a")], [(INT_MIN, END, 0)], [(1, 0)]),
        (TWO, [MoveRange(2000, 3000, "b")], [(INT_MIN, 1000, 0), (1000, END, 1)], []),
        (TWO, [MergeRanges(1000, "b")], [(INT_MIN, END, 1)], [(0, 1)]),
        (TWO, [MergeRanges(1000, "c")], [(INT_MIN, END, 2)], [(0, 2), (1, 2)]),
        (TWO, [ShiftBoundary(1000, 800)], [(INT_MIN, 800, 0), (800, END, 1)], [(0, 1)]),
        (TWO, [ShiftBoundary(1000, 1200)], [(INT_MIN, 1200, 0), (1200, END, 1)], [(1, 0)]),
        (GAPS, [MergeRanges()], [(0, 200, 0), (200, 300, 1), (400, 500, 2)], []),
        (GAPS, [MergeRanges(100)], [(0, 200, 0), (200, 300, 1), (400, 500, 2)], []),
        (GAPS, [MoveRange(250, 450, "a")],
         [(0, 100, 0), (100, 200, 0), (200, 250, 1), (250, 450, 0), (450, 500, 2)], [(1, 0), (2, 0)]),
        (GAPS, [MoveRange(500, END, "c")],
         [(0, 100, 0), (100, 200, 0), (200, 300, 1), (400, END, 2)], []),
        (GAPS, [MoveRange(50, 60, "a")], [(0, 100, 0), (100, 200, 0), (200, 300, 1), (400, 500, 2)], []),
    ],
)  # fmt: skip
def test_ranges_are_split_moved_merged_and_shifted(
    old: RangeMap, goals: list[Goal], want: list[tuple[int, int, int]], streams: list[tuple[int, int]]
) -> None:
    found = change(old, *goals)
    assert ranges(found) == want
    assert [(s.source, s.target) for s in found.streams] == streams


def test_streams_hold_joined_intervals() -> None:
    found = change(GAPS, MoveRange(50, 150, "c"))
    assert found.streams == (Stream(0, 2, MovingKeys(KeyType.INT, intervals=[(50, 150)])),)


def test_a_new_shard_gets_its_range() -> None:
    found = change(TWO, AddShard("d", shard("d")), SplitRange(5000, "d"))
    assert ranges(found)[-1] == (5000, END, 3) and found.added == (3,)
    assert found.shards[3].name == "d" and found.members == (0, 1, 2, 3)


def test_the_ranges_of_a_shard_that_leaves_go_to_who_has_least() -> None:
    old = RangeMap([KeyRange(0, 100, 0), KeyRange(100, 200, 1), KeyRange(200, 300, 2), KeyRange(300, 400, 1)])
    pieces = [Piece(0, 100, 50.0), Piece(100, 200, 30.0), Piece(200, 300, 10.0), Piece(300, 400, 25.0)]
    found = change(old, EmptyShard("b"), pieces=pieces)
    assert ranges(found) == [(0, 100, 0), (100, 400, 2)], "30 and then 25 to the shard with 10, then 40"
    assert found.members == (0, 2)
    unknown = change(old, EmptyShard("c", stays=True))
    assert ranges(unknown) == [(0, 100, 0), (100, 400, 1)], "nothing is measured: to a neighbour"


def test_a_shard_that_leaves_while_the_rest_is_levelled() -> None:
    old = RangeMap([KeyRange(0, 100, 0), KeyRange(100, 200, 1), KeyRange(200, 300, 2)])
    pieces = [Piece(0, 100, 60.0), Piece(100, 200, 60.0), Piece(200, 300, 60.0)]
    found = change(old, EmptyShard("b"), Level(), pieces=pieces)
    assert ranges(found) == [(0, 150, 0), (150, 300, 2)]


@st.composite
def range_maps(draw: st.DrawFn) -> RangeMap:
    cuts = sorted(draw(st.sets(st.integers(-50, 50), min_size=2, max_size=9)))
    found = [KeyRange(a, b, draw(st.integers(0, 2))) for a, b in pairwise(cuts)]
    return RangeMap([r for r in found if draw(st.integers(0, 5))] or found[:1])


@given(range_maps(), st.integers(-60, 60), st.integers(1, 50), st.sampled_from("abc"))
def test_moving_any_range_moves_it_and_nothing_else(old: RangeMap, start: int, width: int, name: str) -> None:
    found = change(old, MoveRange(start, start + width, name))
    for key in range(-70, 120):
        want = NAMES.index(name) if start <= key < start + width else owner(old, key)
        assert owner(found.after, key) == want


@given(range_maps(), st.integers(-60, 60), st.sampled_from([None, "a", "b", "c"]))
def test_splitting_anywhere(old: RangeMap, at: int, name: str | None) -> None:
    holding = next((r for r in old.ranges if r.start < at < r.end), None)
    if holding is None:
        with pytest.raises(GoalError):
            change(old, SplitRange(at, name))
        return
    found = change(old, SplitRange(at, name))
    for key in range(-60, 61):
        upper = name is not None and at <= key < holding.end
        assert owner(found.after, key) == (NAMES.index(name) if upper and name else owner(old, key))
    assert isinstance(found.after, RangeMap) and at in {r.start for r in found.after.ranges}


@given(range_maps(), st.sampled_from("abc"), st.booleans(), st.booleans())
def test_emptying_any_shard_of_ranges(old: RangeMap, name: str, stays: bool, level: bool) -> None:
    index = NAMES.index(name)
    goals: list[Goal] = [EmptyShard(name, stays)]
    pieces = [Piece(r.start, r.end, float(r.end - r.start)) for r in old.ranges]
    if level:
        goals.append(Level())
    if index not in old.all_shards or len(old.all_shards) == 1:
        return
    found = change(old, *goals, pieces=pieces)
    assert index not in found.after.all_shards
    assert (index in found.members) == stays
    if not level:
        assert {s.source for s in found.streams} == {index}


# ── what makes no sense ──


HASH = ring({"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("old", "goals", "why"),
    [
        (TWO, [], "no goal"),
        (TWO, [SplitRange(1000)], "begins at 1000 already"),
        (GAPS, [SplitRange(350)], "no range holds"),
        (TWO, [MergeRanges(999)], "meet at 1000"),
        (TWO, [MergeRanges(1000)], "say on which shard"),
        (TWO, [ShiftBoundary(1000, END)], "can be shifted to keys between"),
        (GAPS, [ShiftBoundary(300, 350)], "no two ranges meet at 300"),
        (TWO, [MoveRange(5, 5, "a")], "holds no key"),
        (TWO, [MoveRange(0, 5, "z")], "there is no shard z; known are a, b, c"),
        (TWO, [MoveBuckets(0, 1, "a")], "no buckets"),
        (TWO, [SetWeights({"a": 2})], "--even"),
        (TWO, [AddShard("d", shard("d"))], "--split-range"),
        (TWO, [AddShard("d", shard("d")), SplitRange(7)], "gets no keys"),
        (TWO, [EmptyShard("a"), EmptyShard("b")], "no shard would be left"),
        (TWO, [EmptyShard("a"), MoveRange(0, 5, "a")], "not in this keyspace|cannot give"),
        (TWO, [EmptyShard("a", True), MoveRange(0, 5, "a")], "cannot give all its keys away"),
        (TWO, [EmptyShard("c", True)], "owns no keys"),
        (TWO, [Level(), MoveRange(0, 5, "a")], "finds itself"),
        (TWO, [Level(), Level("queries")], "two goals"),
        (HASH, [SplitRange(5)], "no ranges"),
        (HASH, [MoveBuckets(4000, 4096, "a")], "from 0 to 4095"),
        (HASH, [MoveBuckets(9, 8, "a")], "from 0 to 4095"),
        (HASH, [AddShard("a")], "owns keys of this keyspace already"),
        (HASH, [AddShard("a", shard("a"))], "known already"),
        (HASH, [AddShard("z")], "say where it is"),
        (HASH, [AddShard("z", shard("z", 3000))], "10.0.0.1:3000 is a/primary already"),
        (HASH, [AddShard("c", weight=0)], "expected 1 to 100"),
        (HASH, [SetWeights({"a": 101})], "expected 1 to 100"),
        (HASH, [SetWeights({"c": 2})], "add it with --add-shard c"),
        (HASH, [ToHash()], "has a hash map already"),
        (GAPS, [ToHash()], "keys min to 0 have no shard now"),
        (TWO, [ToRanges((MoveRange(INT_MIN, END, "a"),))], "has a range map already"),
        (HASH, [ToRanges((MoveRange(INT_MIN, 5, "a"), MoveRange(6, END, "b")))], "keys 5 to 6 would have no shard"),
        (HASH, [ToRanges((MoveRange(0, END, "a"),))], "keys min to 0 would have no shard"),
        (HASH, [ToRanges((MoveRange(INT_MIN, 9, "a"), MoveRange(5, END, "b")))], "overlap"),
        (TWO, [ToHash(), Level()], "makes a new map of the whole keyspace"),
        (HASH, [ToRanges((MoveRange(INT_MIN, END, "a"),)), SetWeights({"a": 2})], "makes a new map"),
    ],
)  # fmt: skip
def test_goals_that_make_no_sense_are_refused(old: ShardMap, goals: list[Goal], why: str) -> None:
    with pytest.raises(GoalError, match=why):
        change(old, *goals)


def test_shards_outside_the_keyspace_get_no_keys() -> None:
    with pytest.raises(GoalError, match="add it with --add-shard c"):
        change(TWO, MoveRange(0, 5, "c"), members=(0, 1))


def test_a_keyspace_with_a_move_is_left_alone() -> None:
    snapshot = world(TWO)
    busy = replace(snapshot.keyspaces["main"], move=Move(1, Phase.COPYING, 0, ()))
    with pytest.raises(GoalError, match="unfinished move"):
        reach(snapshot, busy, {}, [SplitRange(5)])


# ── the rest ──


def test_which_goals_need_sizes() -> None:
    ranged, hashed = (world(m).keyspaces["main"] for m in (TWO, HASH))
    assert needs_sizes([Level()], hashed) and needs_sizes([EmptyShard("a")], ranged)
    assert not needs_sizes([EmptyShard("a")], hashed) and not needs_sizes([SplitRange(5)], ranged)


def test_the_snapshot_after_the_move() -> None:
    snapshot = world(TWO)
    found = change(TWO, AddShard("d", shard("d")), SplitRange(5000, "d"))
    after = applied(snapshot, found)
    assert after.keyspaces["main"].map == found.after and after.keyspaces["main"].shards == (0, 1, 2, 3)
    assert after.shard_index("d") == 3


@pytest.mark.parametrize(("old", "new"), [(TWO, HASH), (HASH, TWO), (GAPS, HASH)])
def test_streams_between_maps_of_different_kinds(old: ShardMap, new: ShardMap) -> None:
    streams = streams_between(old, new, KeyType.INT)
    for key in range(-500, 1500):
        try:
            before, after = old.lookup(key), new.lookup(key)
        except UnmappedKey:
            assert not any(key in stream.keys for stream in streams)
            continue
        carried = [(stream.source, stream.target) for stream in streams if key in stream.keys]
        assert carried == ([(before, after)] if before != after else [])
    back = {(stream.target, stream.source): stream.keys for stream in streams_between(new, old, KeyType.INT)}
    assert back == {(stream.source, stream.target): stream.keys for stream in streams}


def test_a_map_of_the_other_kind() -> None:
    found = change(TWO, ToHash(), SetWeights({"a": 2}))
    assert found.other_kind and found.after == BucketMap(place_buckets({"a": 2, "b": 1}, {"a": 0, "b": 1}))
    assert found.weights == {"a": 2, "b": 1}
    with_more = change(TWO, AddShard("d", shard("d")), ToHash())
    assert with_more.after.all_shards == (0, 1, 3)
    ranges = ToRanges((MoveRange(INT_MIN, 5, "b"), MoveRange(5, END, "a")))
    back = change(HASH, ranges)
    assert back.other_kind and back.after == RangeMap([KeyRange(INT_MIN, 5, 1), KeyRange(5, END, 0)])
    assert not needs_sizes([ToHash(), EmptyShard("a")], replace(world(TWO).keyspaces["main"]))


def with_tables(m: ShardMap) -> Snapshot:
    tables = [Table("s", TableKind.SINGLE, shard=1), Table("t", TableKind.SHARDED, "k")]
    tables += [Table("r", TableKind.REFERENCE), Table("far", TableKind.SINGLE, shard=2)]
    snapshot = world(m)
    keyspace = replace(snapshot.keyspaces["main"], tables={table.name: table for table in tables})
    return replace(snapshot, keyspaces={"main": keyspace})


@pytest.mark.parametrize("m", [TWO, HASH])
def test_a_single_table_goes_to_where_the_map_says(m: ShardMap) -> None:
    snapshot = with_tables(m)
    found = reach(snapshot, snapshot.keyspaces["main"], {}, [ShardTable("s", "k")])
    assert found.before == found.after == m and found.table == ShardTable("s", "k")
    [stream] = found.streams
    assert (stream.source, stream.target) == (1, 0)
    assert all((key in stream.keys) == (m.lookup(key) == 0) for key in range(-3000, 3000))


@pytest.mark.parametrize(
    ("m", "goals", "why"),
    [
        (TWO, [ShardTable("x", "k")], "has no table x; it has s, t, r, far"),
        (TWO, [ShardTable("t", "k")], "sharded by k already"),
        (TWO, [ShardTable("r", "k")], "a reference table"),
        (TWO, [ShardTable("far", "k")], "owns no keys"),
        (GAPS, [ShardTable("s", "k")], "keys min to 0 have no shard"),
        (RangeMap([KeyRange(INT_MIN, END, 1)]), [ShardTable("s", "k")], "nothing moves"),
        (TWO, [ShardTable("s", "k"), SplitRange(5)], "go with no other goal"),
    ],
)
def test_tables_that_cannot_be_sharded(m: ShardMap, goals: list[Goal], why: str) -> None:
    snapshot = with_tables(m)
    with pytest.raises(GoalError, match=why):
        reach(snapshot, snapshot.keyspaces["main"], {}, goals)


@pytest.mark.parametrize("m", [TWO, HASH])
def test_a_table_gets_another_key(m: ShardMap) -> None:
    snapshot = with_tables(m)
    found = reach(snapshot, snapshot.keyspaces["main"], {}, [ChangeKey("t", "other")])
    assert found.before == found.after == m and found.table == ChangeKey("t", "other")
    assert [(stream.source, stream.target) for stream in found.streams] == [(0, 1), (1, 0)]
    for stream in found.streams:
        assert all((key in stream.keys) == (m.lookup(key) == stream.source) for key in range(-2000, 2000))
    for goal, why in (("t", "sharded by k already"), ("s", "by --shard-table"), ("r", "no key that could change")):
        with pytest.raises(GoalError, match=why):
            reach(snapshot, snapshot.keyspaces["main"], {}, [ChangeKey(goal, "K")])


def test_maps_of_different_kinds() -> None:
    assert opened(TWO, HASH) == () and closed(HASH, TWO) == closed(TWO, HASH) == ()
    assert closed(HASH, GAPS) == ((INT_MIN, 0), (300, 400), (500, END))
    assert closed(TWO, GAPS) == ((INT_MIN, 0), (300, 400), (500, 1000), (1000, END))
