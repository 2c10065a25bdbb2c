"""What a write has to do with moving keys is never found to be less than it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.key_values import UNROUTABLE
from shardproxy.planner.lookup_plan import EnteredRows
from shardproxy.planner.plan import (
    AllOf,
    AnyOf,
    Anywhere,
    Condition,
    Group,
    KeyBetween,
    KeyIn,
    Nowhere,
    Opcode,
    Plan,
    Rung,
    Spread,
    StatementKind,
    Value,
)
from shardproxy.router.moving import givers, losers, may_have_moved, sources_of, touched
from shardproxy.router.route import evaluate
from shardproxy.topology.keys import KeyType
from shardproxy.topology.lookup import homes
from shardproxy.topology.maps import BucketMap, KeyRange, RangeMap, ShardMap
from shardproxy.topology.model import Keyspace, Snapshot, Table, TableKind
from shardproxy.topology.moves import LoneTable, Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from shardproxy.topology.streams import streams_from_one
from tests.unit.router.test_route import HASH, SHARDS, reading

LOW, HIGH = 0, 100
RANGES = RangeMap((KeyRange(LOW, 30, 0), KeyRange(30, 60, 1), KeyRange(60, HIGH, 2)))
MOVED_RANGES = RangeMap((KeyRange(LOW, 20, 0), KeyRange(20, 45, 3), KeyRange(45, 60, 1), KeyRange(60, HIGH, 2)))
_TAKEN = frozenset(bucket for bucket in range(0, 4096, 5) if HASH.buckets[bucket] != 3)
MOVED_HASH = BucketMap([3 if bucket in _TAKEN else shard for bucket, shard in enumerate(HASH.buckets)])


def range_move(phase: Phase = Phase.ARMED) -> Move:
    first = Stream(0, 3, MovingKeys(KeyType.INT, intervals=[(20, 30)]))
    return Move(1, phase, 2, (first, Stream(1, 3, MovingKeys(KeyType.INT, intervals=[(30, 45)]))))


def hash_move(phase: Phase = Phase.ARMED) -> Move:
    streams = [
        Stream(s, 3, MovingKeys(KeyType.INT, buckets=[b for b in _TAKEN if HASH.buckets[b] == s])) for s in range(3)
    ]
    return Move(1, phase, 2, tuple(streams))


def keyspace(old: ShardMap, move: Move | None) -> Keyspace:
    return Keyspace("main", KeyType.INT, old, {"t": Table("t", TableKind.SHARDED, "k")}, (0, 1, 2, 3), move)


BOTH = [(RANGES, MOVED_RANGES, range_move()), (HASH, MOVED_HASH, hash_move())]
ANY_KEY = HIGH  # Value(i) is the key i; this one may be any
READ = reading(*range(LOW, HIGH), UNROUTABLE)
VALUES = st.integers(LOW, ANY_KEY).map(Value)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    st.lists(VALUES, min_size=1, max_size=4).map(lambda values: KeyIn(tuple(values)))
    | st.builds(KeyBetween, st.none() | VALUES, st.none() | VALUES, st.booleans(), st.booleans())
    | st.just(Anywhere())
    | st.just(Nowhere()),
    lambda parts: st.lists(parts, min_size=1, max_size=3).flatmap(
        lambda some: st.sampled_from([AllOf(tuple(some)), AnyOf(tuple(some))])
    ),
    max_leaves=5,
)


def satisfies(key: int, condition: Condition) -> bool:
    """Whether a row with this key may be one of the statement's."""
    match condition:
        case KeyIn(values):
            return any(value.index == ANY_KEY or value.index == key for value in values)
        case KeyBetween(low, high, low_open, high_open):
            ok = True
            if low is not None and low.index < ANY_KEY:
                ok = ok and (key > low.index if low_open else key >= low.index)
            if high is not None and high.index < ANY_KEY:
                ok = ok and (key < high.index if high_open else key <= high.index)
            return ok
        case AllOf(parts):
            return all(satisfies(key, part) for part in parts)
        case AnyOf(parts):
            return any(satisfies(key, part) for part in parts)
        case Nowhere():
            return False
        case _:
            return True


@given(CONDITIONS, st.sampled_from(BOTH))
def test_no_moving_key_is_overlooked(condition: Condition, world: tuple[ShardMap, ShardMap, Move]) -> None:
    old, _, move = world
    found = sources_of(condition, keyspace(old, move), move, READ)
    exact = {move.source_of(key) for key in range(LOW, HIGH) if satisfies(key, condition)} - {None}
    assert exact <= found <= move.sources


@given(CONDITIONS, st.sampled_from(BOTH))
def test_a_write_needs_the_fences_of_the_moving_keys_on_the_shards_that_it_reaches(
    condition: Condition, world: tuple[ShardMap, ShardMap, Move]
) -> None:
    old, _, move = world
    space = keyspace(old, move)
    shards = sorted(evaluate(condition, space, READ))
    plan = write(space, condition)
    found = touched(plan, READ, snapshot(space), shards)
    sources = found[0].sources if found else frozenset()
    exact = {move.source_of(key) for key in range(LOW, HIGH) if satisfies(key, condition)} - {None}
    assert exact <= sources <= set(shards)
    assert touched(replace(plan, read=True), READ, snapshot(space), shards) == ()


@given(CONDITIONS, st.sampled_from(BOTH))
def test_older_transactions_are_told_of_every_key_that_has_moved(
    condition: Condition, world: tuple[ShardMap, ShardMap, Move]
) -> None:
    old, new, _ = world
    plan = replace(write(keyspace(new, None), condition), read=True)
    before = snapshot(keyspace(old, None))
    told = may_have_moved(plan, READ, before)
    changed = any(old.lookup(key) != new.lookup(key) for key in range(LOW, HIGH) if satisfies(key, condition))
    assert told == "main" or not changed
    assert may_have_moved(replace(plan, groups=(Group(("t",), keyspace(old, None), condition),)), READ, before) == ""


@pytest.mark.parametrize("world", BOTH)
def test_losers_are_the_shards_that_give_keys_away(world: tuple[ShardMap, ShardMap, Move]) -> None:
    old, new, move = world
    assert losers(old, new) == move.sources
    assert losers(old, old) == frozenset()
    assert losers(new, old) == {3}


@pytest.mark.parametrize("phase", list(Phase))
def test_only_armed_to_switched_guards_writes(phase: Phase) -> None:
    space = keyspace(RANGES, range_move(phase))
    guards = phase in (Phase.ARMED, Phase.CLOSING, Phase.SWITCHED)
    plan = write(space, Anywhere())
    assert bool(touched(plan, READ, snapshot(space), (0, 1, 2, 3))) is guards


def test_held_writes_are_held_wherever_the_map_sends_them() -> None:
    space = keyspace(MOVED_RANGES, range_move(Phase.SWITCHED))
    plan = write(space, KeyIn((Value(25),)))
    assert touched(plan, READ, snapshot(space), (3,))[0].sources == {0}
    assert touched(write(space, KeyIn((Value(70),))), READ, snapshot(space), (2,)) == ()
    armed = keyspace(RANGES, range_move())
    assert touched(write(armed, KeyIn((Value(25),))), READ, snapshot(armed), (0,))[0].sources == {0}
    assert touched(write(armed, Anywhere()), READ, snapshot(armed), None)[0].sources == {0, 1}


def test_what_a_shard_hint_sends_counts_as_touching_all_that_moves_there() -> None:
    space = keyspace(RANGES, range_move())
    plan = replace(write(space, Anywhere()), groups=(), shard_hint="a", spread=Spread.ANY)
    assert touched(plan, READ, snapshot(space), (0,))[0].sources == {0}
    assert touched(plan, READ, snapshot(space), (2,)) == ()


def lone_move(phase: Phase, back: bool = False) -> Move:
    """Table s, from shard 1 to where the ranges say, or back."""
    streams = streams_from_one(1, RANGES, KeyType.INT)
    if back:
        streams = tuple(Stream(s.target, s.source, s.keys) for s in streams)
    return Move(1, phase, 2, streams, LoneTable("s", 1))


def test_of_a_single_table_that_becomes_a_sharded_one_its_own_writes_are_guarded() -> None:
    space = keyspace(RANGES, lone_move(Phase.ARMED))

    def single(*tables: str) -> Plan:
        return replace(write(space, Anywhere()), groups=(Group(tables, space, shard=1),))

    assert touched(single("s"), READ, snapshot(space), (1,))[0].sources == {1}
    assert touched(single("x", "s"), READ, snapshot(space), (1,))[0].sources == {1}
    assert touched(single("x"), READ, snapshot(space), (1,)) == ()
    assert touched(write(space, Anywhere()), READ, snapshot(space), (0, 1, 2)) == ()
    space = keyspace(RANGES, lone_move(Phase.CLOSING))
    assert touched(single("s"), READ, snapshot(space), (1,))[0].sources == {1}
    space = keyspace(RANGES, lone_move(Phase.ARMED, back=True))
    plan = replace(write(space, Anywhere()), groups=(Group(("s",), space, KeyIn((Value(25), Value(35)))),))
    assert touched(plan, READ, snapshot(space), (0, 1))[0].sources == {0}


def test_older_transactions_are_told_of_a_table_whose_rows_are_elsewhere() -> None:
    as_single = {"s": Table("s", TableKind.SINGLE, shard=1), "t": Table("t", TableKind.SHARDED, "k")}
    before = replace(keyspace(RANGES, None), tables=as_single)
    after = replace(before, tables={**as_single, "s": Table("s", TableKind.SHARDED, "k")})
    plan = replace(write(after, Anywhere()), read=True)
    assert may_have_moved(plan, READ, snapshot(before)) == "main"
    assert may_have_moved(plan, READ, snapshot(replace(after, tables=dict(after.tables)))) == ""
    assert givers(before, after) == {1} and givers(after, before) == {0, 1, 2} and givers(after, after) == frozenset()


def test_reference_and_single_tables_do_not_move() -> None:
    space = keyspace(RANGES, range_move())
    everywhere = replace(write(space, Anywhere()), groups=(), keyspace=space, spread=Spread.ALL)
    assert touched(everywhere, READ, snapshot(space), (0, 1, 2, 3)) == ()
    single = replace(write(space, Anywhere()), groups=(Group(("s",), space, shard=0),))
    assert touched(single, READ, snapshot(space), (0,)) == ()


def carrying(move: Move) -> Move:
    """The same move, whose first stream carries lookup entries and reference tables too."""
    entries = MovingKeys(KeyType.BINARY, buckets=[7])
    return replace(move, streams=(replace(move.streams[0], entries=entries, references=True), *move.streams[1:]))


def test_reference_tables_on_their_way_are_fenced_where_they_come_from() -> None:
    for phase in Phase:
        space = keyspace(RANGES, carrying(range_move(phase)))
        everywhere = replace(write(space, Anywhere()), groups=(), keyspace=space, spread=Spread.ALL)
        found = touched(everywhere, READ, snapshot(space), (0, 1, 2))
        assert [touch.sources for touch in found] == ([{0}] if space.move and space.move.guarded else [])
        assert touched(replace(everywhere, kind=StatementKind.DDL), READ, snapshot(space), (0, 1, 2)) == ()


def test_writes_of_entries_take_every_fence_while_entries_move() -> None:
    stays = KeyIn((Value(70),))
    for phase in (Phase.ARMED, Phase.CLOSING, Phase.SWITCHED):
        plain, space = keyspace(RANGES, range_move(phase)), keyspace(RANGES, carrying(range_move(phase)))
        entered = replace(write(space, stays), entries=EnteredRows((), ()))
        assert touched(entered, READ, snapshot(space), (2,))[0].sources == {0, 1}
        assert touched(write(space, stays), READ, snapshot(space), (2,)) == (), "it changes no entry"
        assert touched(replace(write(plain, stays), entries=EnteredRows((), ())), READ, snapshot(plain), (2,)) == ()


def test_older_transactions_are_told_of_entries_that_have_moved() -> None:
    old = keyspace(RANGES, None)
    entries = homes(old)
    new = replace(keyspace(MOVED_RANGES, None), entries=entries)
    plan = write(new, KeyIn((Value(70),)))
    entered = replace(plan, entries=EnteredRows((), ()))
    assert may_have_moved(plan, READ, snapshot(old)) == may_have_moved(entered, READ, snapshot(old)) == ""
    elsewhere = BucketMap([3, *entries.buckets[1:]])
    entered = replace(entered, groups=(replace(plan.groups[0], keyspace=replace(new, entries=elsewhere)),))
    assert may_have_moved(entered, READ, snapshot(old)) == "main"


def test_older_transactions_do_not_read_reference_tables_of_a_shard_that_has_joined() -> None:
    old, new = replace(keyspace(RANGES, None), shards=(0, 1, 2)), keyspace(MOVED_RANGES, None)
    plan = replace(write(new, Anywhere()), read=True, groups=(), keyspace=new, spread=Spread.ANY)
    assert may_have_moved(plan, READ, snapshot(old)) == "main"
    assert may_have_moved(replace(plan, keyspace=old), READ, snapshot(new)) == ""


def write(space: Keyspace, condition: Condition) -> Plan:
    return Plan(
        StatementKind.UPDATE, Opcode.SCATTER, Rung.ONE_SHARD, "a test", groups=(Group(("t",), space, condition),),
        spread=Spread.EACH,
    )  # fmt: skip


def snapshot(space: Keyspace) -> Snapshot:
    return Snapshot(1, SHARDS, {"main": space})
