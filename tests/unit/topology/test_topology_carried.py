"""What the streams of a change carry beside rows of their keys, and what becomes of it in the stored map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.errors import GoalError, MoveError
from shardproxy.topology.bootstrap import first_document, with_stored
from shardproxy.topology.carried import carried, entries_left, next_home, written_down
from shardproxy.topology.goals import AddShard, Change, EmptyShard, Goal, MoveRange, reach
from shardproxy.topology.keys import KeyType
from shardproxy.topology.lookup import home, homes, placement, same_homes
from shardproxy.topology.map_document import MapDocument, Move, Stream, advance, begin
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, ShardMap
from shardproxy.topology.model import Keyspace, LookupIndex, Role, Server, Shard, Snapshot, Table, TableKind
from shardproxy.topology.stages import Stage, Step

NAMES = ("a", "b", "c")
TABLES = {
    "users": Table("users", TableKind.SHARDED, "id", lookups=(LookupIndex(("mail",), True),)),
    "countries": Table("countries", TableKind.REFERENCE),
}
VALUES = [b"value %d" % number for number in range(300)]


def world(shard_map: ShardMap) -> Snapshot:
    """A keyspace on two shards, and a third that does not have it."""
    shards = tuple(Shard(name, Server(f"{name}/primary", name, 1, Role.PRIMARY, name)) for name in NAMES)
    return Snapshot(1, shards, {"main": Keyspace("main", KeyType.INT, shard_map, TABLES, (0, 1))})


HASHED = world(BucketMap([bucket % 2 for bucket in range(4096)]))
RANGED = world(RangeMap([KeyRange(INT_MIN, 0, 0), KeyRange(0, INT_MAX + 1, 1)]))


def change(snapshot: Snapshot, *goals: Goal) -> Change:
    keyspace = snapshot.keyspaces["main"]
    return carried(keyspace, reach(snapshot, keyspace, {}, goals))


def document(snapshot: Snapshot, wanted: Change) -> MapDocument:
    """The stored map with the change's move."""
    keyspace = snapshot.keyspaces["main"]
    streams = tuple(Stream.of(stream, NAMES) for stream in wanted.streams)
    move = Move(id=1, stage=Stage.PREPARED, streams=streams)
    return begin(first_document(snapshot, keyspace), move, "a", written_down(snapshot, keyspace))


def run(stored: MapDocument, *steps: Step) -> MapDocument:
    for step in steps:
        wanted = {Stage.CLOSING: "target", Stage.COMPLETING: "source", Stage.REVERSE_CLOSING: "source"}
        assert stored.move is not None
        side = wanted.get(stored.move.stage)
        shards = {getattr(stream, side) for stream in stored.move.streams} if side else ()
        stored = advance(stored, step, dict.fromkeys(shards, "0-1-1"))
    return stored


def seen(snapshot: Snapshot, stored: MapDocument) -> Keyspace:
    return with_stored(snapshot, {"main": stored}).keyspaces["main"]


TO_SWITCHED = [Step.NEXT] * 4


def test_of_a_hash_map_entries_go_with_the_buckets_of_their_number() -> None:
    wanted = change(HASHED, AddShard("c"))
    for stream in wanted.streams:
        assert stream.entries is not None and stream.entries.buckets == stream.keys.buckets
    assert [stream.references for stream in wanted.streams] == [True, False], "one stream brings them"
    stored = document(HASHED, wanted)
    before = seen(HASHED, stored)
    assert before.shards == (0, 1), "nothing is read or written on a shard that has not all reference tables"
    assert [home(before, v) for v in VALUES] == [home(HASHED.keyspaces["main"], v) for v in VALUES]
    assert before.move is not None and before.move.of_references == {wanted.streams[0].source}
    assert before.move.carries_entries
    stored = run(stored, *TO_SWITCHED)
    after = seen(HASHED, stored)
    assert after.shards == (0, 1, 2)
    assert homes(after) == after.map == wanted.after
    assert not same_homes(before, after)
    changed = with_stored(HASHED, {"main": stored})
    assert placement(changed, after) == placement(HASHED, before), "the index is as ready as it was"
    assert after.tables["users"].lookups[0].ready


def test_reference_tables_are_not_carried_back() -> None:
    stored = run(document(HASHED, change(HASHED, AddShard("c"))), *TO_SWITCHED, Step.NEXT, Step.REVERSE)
    back = seen(HASHED, stored)
    assert back.shards == (0, 1, 2), "they are written there until the end"
    assert back.move is not None and not back.move.of_references and back.move.carries_entries
    stored = run(stored, *[Step.NEXT] * 2)
    assert homes(seen(HASHED, stored)) == HASHED.keyspaces["main"].map


def test_of_a_range_map_entries_stay_until_their_shard_gives_all_keys_away() -> None:
    wanted = change(RANGED, AddShard("c"), MoveRange(100, 200, "c"))
    assert [stream.entries for stream in wanted.streams] == [None]
    stored = run(document(RANGED, wanted), *TO_SWITCHED, *[Step.NEXT] * 3)
    after = seen(RANGED, stored)
    assert after.shards == (0, 1, 2)
    assert homes(after) == homes(RANGED.keyspaces["main"])
    with_c = replace(with_stored(RANGED, {"main": stored}), keyspaces={"main": after})
    leaving = change(with_c, MoveRange(0, INT_MAX + 1, "c"), EmptyShard("b"))
    assert all(stream.entries is not None for stream in leaving.streams if stream.source == 1)
    assert entries_left(after, leaving) == ()
    stays = change(with_c, MoveRange(0, 50, "c"))
    assert [stream.entries for stream in stays.streams] == [None]


def test_a_shard_without_keys_that_leaves_is_told_of() -> None:
    wanted = replace(change(HASHED, AddShard("c")), members=(0, 2), streams=())
    assert entries_left(HASHED.keyspaces["main"], wanted) == (1,)


def test_the_home_stays_when_a_shard_of_a_lower_place_joins() -> None:
    keyspace = replace(HASHED.keyspaces["main"], map=BucketMap([1 + b % 2 for b in range(4096)]), shards=(1, 2))
    snapshot = replace(HASHED, keyspaces={"main": keyspace})
    wanted = carried(keyspace, reach(snapshot, keyspace, {}, [AddShard("a")]))
    stored = run(document(snapshot, wanted).model_copy(update={"home": "b"}), *TO_SWITCHED)
    after = seen(snapshot, stored)
    assert (after.shards, after.home) == ((0, 1, 2), 1)
    assert first_document(snapshot, keyspace).home == "b"


def test_a_home_that_leaves_hands_over_to_one_that_gets_its_keys() -> None:
    keyspace = HASHED.keyspaces["main"]
    leaving = change(HASHED, AddShard("c"), EmptyShard("a"))
    assert {stream.target for stream in leaving.streams if stream.source == keyspace.home} == {1, 2}
    assert next_home(keyspace, leaving) == 1, "rather one that is not new"
    assert next_home(keyspace, change(HASHED, EmptyShard("b"))) is None, "the home stays"
    assert next_home(keyspace, change(HASHED, EmptyShard("a", stays=True))) is None
    assert next_home(keyspace, replace(leaving, streams=())) is None, "nothing goes with which the records could"
    without = replace(keyspace, first=2)
    with pytest.raises(GoalError, match="home"):
        reach(HASHED, replace(without, shards=(0, 1, 2)), {"a": 1, "b": 1}, [EmptyShard("c")])
    stored = document(HASHED, leaving)
    assert stored.move is not None
    stored = stored.model_copy(update={"home": "a", "move": stored.move.model_copy(update={"home": "b"})})
    homes_seen = [seen(HASHED, stored).home]
    for step in [*TO_SWITCHED, Step.NEXT, Step.REVERSE, *[Step.NEXT] * 2]:
        stored = run(stored, step)
        homes_seen.append(seen(HASHED, stored).home)
    assert homes_seen == [0] * 4 + [1] * 4 + [0], "it changes at the switch, and back at the switch back"


def test_entries_cannot_move_from_where_they_are_not() -> None:
    wanted = change(HASHED, AddShard("c"))
    streams = tuple(Stream.of(stream, NAMES) for stream in wanted.streams)
    swapped = tuple(
        one.model_copy(update={"entries": other.entries})
        for one, other in zip(streams, streams[::-1], strict=True)
    )  # fmt: skip
    keyspace = HASHED.keyspaces["main"]
    first = first_document(HASHED, keyspace)
    with pytest.raises(MoveError, match="not all on shard"):
        begin(first, Move(id=1, stage=Stage.PREPARED, streams=swapped), "a", written_down(HASHED, keyspace))
    with pytest.raises(MoveError, match="only where the map says"):
        begin(first, Move(id=1, stage=Stage.PREPARED, streams=streams))
