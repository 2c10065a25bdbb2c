"""What a statement has to do with keys on their way: an upper bound, from its conditions and the values at hand.

What is not provably limited to keys that stay counts as touching keys that move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardproxy.errors import RouteError
from shardproxy.planner.key_values import NULLVALUE, NoValue
from shardproxy.planner.plan import (
    AllOf,
    AnyOf,
    Condition,
    Group,
    KeyBetween,
    KeyIn,
    Nowhere,
    Plan,
    Spread,
    StatementKind,
    Value,
)
from shardproxy.router.route import ValueReader, stored_as_given
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.lookup import same_homes
from shardproxy.topology.maps import RangeMap, ShardMap, UnmappedKey, moved
from shardproxy.topology.model import Keyspace, Snapshot, Table
from shardproxy.topology.moves import Move

_FEW = 64  # keys between two bounds that are looked at one by one
# What takes no lock on rows and writes none, whatever its plan says of replicas.
_HARMLESS = frozenset((
    StatementKind.SHOW, StatementKind.DESCRIBE, StatementKind.EXPLAIN, StatementKind.EXPLAIN_ROUTE,
    StatementKind.SET, StatementKind.KILL, StatementKind.EMPTY,
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Touch:
    """A move that a statement has to do with. sources: shards whose fence it needs."""

    keyspace: str
    move: Move
    sources: frozenset[int]


def writes(plan: Plan) -> bool:
    """Whether it changes or locks rows, as far as is known."""
    return not plan.read and not plan.local and plan.kind not in _HARMLESS


def touched(plan: Plan, read: ValueReader, snapshot: Snapshot, shards: Sequence[int] | None) -> tuple[Touch, ...]:
    """The moves whose fence a write needs, or has to wait for. shards: where it goes; None: that is not known yet."""
    if not writes(plan):
        return ()
    found: dict[str, tuple[Move, frozenset[int]]] = {}
    for keyspace, sources in _sources(plan, read, snapshot, shards):
        move = keyspace.move
        assert move is not None
        if shards is not None and not sources.isdisjoint(move.sources) and not _enters(plan, move):
            reached = frozenset(shards)
            if move.held:
                targets = {stream.target for stream in move.streams if stream.source in sources}
                if reached.isdisjoint(sources | targets):
                    sources = frozenset()
            else:
                sources &= reached
        if sources:
            before = found.get(keyspace.name, (move, frozenset()))[1]
            found[keyspace.name] = (move, before | sources)
    return tuple(Touch(name, move, sources) for name, (move, sources) in found.items())


def _enters(plan: Plan, move: Move) -> bool:
    """Whether it may change entries of lookup indexes that move. Where those are is known when the rows have been
    read, so such a statement takes every fence that it meets, and waits for each."""
    return move.carries_entries and (
        plan.entries is not None or (plan.scratch is not None and plan.scratch.write is not None)
    )


def _sources(
    plan: Plan, read: ValueReader, snapshot: Snapshot, shards: Sequence[int] | None
) -> Iterator[tuple[Keyspace, frozenset[int]]]:
    """Keyspaces with a move that guards writes, and the shards from which keys move that the statement may touch."""
    if plan.shard_hint is not None:  # nobody has looked at what it names
        for keyspace in snapshot.keyspaces.values():
            move = keyspace.move
            if move is not None and move.guarded:
                yield keyspace, move.sources
        return
    if plan.spread is Spread.ALL:  # reference tables, and definitions
        if plan.keyspace is not None and plan.kind is not StatementKind.DDL:
            yield from _of_references(plan.keyspace)
        return
    if plan.entries is not None:
        for group in plan.groups:
            move = group.keyspace.move
            if move is not None and move.guarded and move.carries_entries:
                yield group.keyspace, move.sources
    scratch, groups = plan.scratch, plan.groups
    if scratch is not None and (shards is None or len(shards) != 1 or not groups):
        locked = tuple(group for copy in scratch.copies if copy.lock is not None for group in copy.groups)
        if scratch.write is None:
            groups += locked
        elif _takes_scratch(plan, read):
            groups = locked
            for target in scratch.write.targets:  # rows are written where their keys say, which nobody knows yet
                yield from _of_target(target.keyspace, target.table)
    for group in groups:
        yield from _of_group(group, read)


def _takes_scratch(plan: Plan, read: ValueReader) -> bool:
    """Whether a write that can be done over scratch tables may be."""
    if plan.spread is Spread.SCRATCH or (plan.entries is not None and plan.spread is not Spread.EACH):
        return True
    if plan.kind not in (StatementKind.INSERT, StatementKind.REPLACE):
        return False
    strict = stored_as_given(plan, read)
    try:
        for group in plan.groups:
            if isinstance(group.condition, KeyIn):
                for value in group.condition.values:
                    if isinstance(strict(value, group.keyspace.key_type), NoValue):
                        return True
    except RouteError:
        return True
    return False


def _of_target(keyspace: Keyspace, table: Table) -> Iterator[tuple[Keyspace, frozenset[int]]]:
    move = keyspace.move
    if move is None or not move.guarded:
        return
    if move.table is not None:
        if table.name == move.table.name:
            yield keyspace, move.sources
    elif table.key is not None:
        yield keyspace, move.sources
    else:
        yield from _of_references(keyspace)


def _of_references(keyspace: Keyspace) -> Iterator[tuple[Keyspace, frozenset[int]]]:
    """A write to reference tables, which are on their way to a shard that joins."""
    move = keyspace.move
    if move is not None and move.guarded and move.of_references:
        yield keyspace, move.of_references


def _of_group(group: Group, read: ValueReader) -> Iterator[tuple[Keyspace, frozenset[int]]]:
    move = group.keyspace.move
    if move is None or not move.guarded or (move.table is not None and move.table.name not in group.tables):
        return
    if group.shard is None:
        yield group.keyspace, sources_of(group.condition, group.keyspace, move, read)
    elif move.table is not None:  # while it is a single table
        yield group.keyspace, move.sources


def sources_of(condition: Condition, keyspace: Keyspace, move: Move, read: ValueReader) -> frozenset[int]:
    """The shards from which keys move that satisfy the condition; more, where that is not known."""
    match condition:
        case KeyIn(values):
            found: set[int] = set()
            for value in values:
                key = read(value, keyspace.key_type)
                if key is NULLVALUE:
                    continue
                if isinstance(key, NoValue):
                    return move.sources
                source = move.source_of(key)
                if source is not None:
                    found.add(source)
            return frozenset(found)
        case KeyBetween():
            bounds = _bounds(condition, keyspace, read)
            if bounds is None:
                return frozenset()
            return frozenset(stream.source for stream in move.streams if stream.keys.meets(*bounds))
        case AllOf(parts):
            sources = move.sources
            for part in parts:
                sources &= sources_of(part, keyspace, move, read)
            return sources
        case AnyOf(parts):
            return frozenset().union(*(sources_of(part, keyspace, move, read) for part in parts))
        case Nowhere():
            return frozenset()
        case _:  # Anywhere, LookedUp
            return move.sources


Bound = int | None


def _bounds(condition: KeyBetween, keyspace: Keyspace, read: ValueReader) -> tuple[Bound, Bound] | None:
    """The closed interval of integer keys; None: there are none."""
    if keyspace.key_type is not KeyType.INT:
        return None, None
    low, low_empty = _bound(condition.low, read)
    high, high_empty = _bound(condition.high, read)
    if low_empty or high_empty:
        return None
    low = None if low is None else low + condition.low_open
    high = None if high is None else high - condition.high_open
    return None if low is not None and high is not None and low > high else (low, high)


def _bound(value: Value | None, read: ValueReader) -> tuple[Bound, bool]:
    """A bound, and whether it lets nothing through."""
    if value is None:
        return None, False
    key = read(value, KeyType.INT)
    return (key if isinstance(key, int) else None), key is NULLVALUE


# ── transactions that are older than the map ──


def may_have_moved(plan: Plan, read: ValueReader, before: Snapshot) -> str:
    """The name of a keyspace in which keys that the statement may touch have another owner than in an older map; "":
    there is none. The snapshots of a transaction that began under the older one are older than the move."""
    if plan.keyspace is not None and not plan.groups:  # reference tables, which a shard that joined did not have
        old = before.keyspaces.get(plan.keyspace.name)
        if old is not None and not set(plan.keyspace.shards) <= set(old.shards):
            return plan.keyspace.name
    groups = list(plan.groups)
    if plan.scratch is not None:
        groups += [group for copy in plan.scratch.copies for group in copy.groups]
    for group in groups:
        keyspace = group.keyspace
        old = before.keyspaces.get(keyspace.name)
        if old is not None and _changed_tables(old, keyspace):
            return keyspace.name
        if group.shard is not None or old is None or old.map == keyspace.map:
            continue
        if (plan.lookups or plan.entries is not None) and not same_homes(old, keyspace):
            return keyspace.name
        if not _stays(group.condition, keyspace, old.map, read):
            return keyspace.name
    return ""


def _stays(condition: Condition, keyspace: Keyspace, old: ShardMap, read: ValueReader) -> bool:
    """Whether all keys that satisfy the condition have the same owner in both maps, for certain."""
    new = keyspace.map
    match condition:
        case KeyIn(values):
            for value in values:
                key = read(value, keyspace.key_type)
                if key is NULLVALUE:
                    continue
                if isinstance(key, NoValue) or _owner(old, key) != _owner(new, key):
                    return False
            return True
        case KeyBetween():
            bounds = _bounds(condition, keyspace, read)
            if bounds is None:
                return True
            low, high = bounds
            if isinstance(old, RangeMap) and isinstance(new, RangeMap):
                return not any(
                    (high is None or start <= high) and (low is None or end > low)
                    for start, end, _ in [*moved(old, new), *moved(new, old)]
                )
            if low is None or high is None or high - low >= _FEW:
                return False
            return all(_owner(old, key) == _owner(new, key) for key in range(low, high + 1))
        case AllOf(parts):
            return any(_stays(part, keyspace, old, read) for part in parts)
        case AnyOf(parts):
            return all(_stays(part, keyspace, old, read) for part in parts)
        case Nowhere():
            return True
        case _:
            return False


def _owner(shard_map: ShardMap, key: KeyValue) -> int | None:
    try:
        return shard_map.lookup(key)
    except UnmappedKey:
        return None


def _changed_tables(old: Keyspace, new: Keyspace) -> list[tuple[Table, Table]]:
    """Tables that had their rows elsewhere, as they were and as they are."""
    if old.tables is new.tables:
        return []
    pairs = [(old.tables[name], table) for name, table in new.tables.items() if name in old.tables]
    return [(a, b) for a, b in pairs if (a.kind, a.key, a.shard) != (b.kind, b.key, b.shard)]


def givers(old: Keyspace, new: Keyspace) -> frozenset[int]:
    """Shards that had rows, by an older map, which another has by the newer one."""
    found = losers(old.map, new.map)
    for before, _ in _changed_tables(old, new):
        found |= frozenset(old.map.all_shards) if before.shard is None else {before.shard}
    return found


def losers(old: ShardMap, new: ShardMap) -> frozenset[int]:
    """Shards that own keys in the old map which another owns in the new one."""
    if old == new:
        return frozenset()
    if type(old) is not type(new):
        return frozenset(old.all_shards)
    changes = moved(old, new)
    if isinstance(old, RangeMap):
        return frozenset(
            r.shard for r in old.ranges for start, end, _ in changes if r.start < end and start < r.end
        )  # fmt: skip
    return frozenset(old.buckets[start] for start, _, _ in changes)
