"""Which shards a planned statement goes to, given its values.

Conditions are upper bounds, evaluated to sets of shard indexes. One shard: the client's bytes go there as they are.
None at all (a provably empty answer): any shard of the keyspace gives the exact empty answer.

That is exact also while rows are on their way between shards (a move), when a shard has rows whose keys it does not own
(R7 of the protocol). Every row that a group's conditions take has a key that satisfies them, and the shards that they
evaluate to have the owner of every such key among them. So where that is one shard, no row of a key that another one
owns satisfies them, there or anywhere; where there is none, no key that has an owner does. Not so a shard that a
lookup index names: its condition is not on the key (executor.lookups). Nor one that a hint names: it answers with all
that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shardproxy.errors import RouteError, UnsupportedError
from shardproxy.planner.key_values import NULLVALUE, UNROUTABLE, NoValue
from shardproxy.planner.lookup_plan import LookedUp
from shardproxy.planner.plan import (
    AllOf,
    AnyOf,
    Anywhere,
    Condition,
    Group,
    KeyBetween,
    KeyIn,
    Nowhere,
    Plan,
    Rung,
    Spread,
    StatementKind,
    Value,
)
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.maps import UnmappedKey
from shardproxy.topology.model import Keyspace, Snapshot

_TOGETHER = (Spread.CONCAT, Spread.MERGE, Spread.SCRATCH, Spread.EACH, Spread.WRITE, Spread.LISTS)

# How the caller reads a value of the statement at hand: literal text or bound parameter → key of the given type.
ValueReader = Callable[[Value, KeyType], KeyValue | NoValue]

Resolved = Mapping[LookedUp, frozenset[int]]  # shards of the rows that lookup indexes lead to


@dataclass(frozen=True, slots=True)
class Route:
    """Shard indexes in order, and whether a replica may answer (outside a transaction)."""

    shards: tuple[int, ...]
    replica: bool


def route(plan: Plan, read: ValueReader, snapshot: Snapshot, held: int = -1, resolved: Resolved | None = None) -> Route:
    """Shards for one execution.

    held: index of the shard that the session's transaction or pin holds, −1 for none; statements that any shard can
    answer go there. resolved: what lookup indexes said. Raises RouteError and UnsupportedError with the user's message.
    """
    if plan.rung is Rung.ERROR:
        raise UnsupportedError(plan.error, plan.error_code)
    replica = plan.read and not plan.primary
    if plan.shard_hint is not None:
        return Route((_hinted(plan.shard_hint, snapshot),), replica)
    if plan.spread is Spread.SCRATCH and not plan.groups:
        return Route(_any_of(plan, snapshot), replica)
    if plan.spread is Spread.ANY:
        choices = _any_of(plan, snapshot)
        return Route((held if held in choices else choices[0],), replica)
    for value in plan.nonzero:
        number = read(value, KeyType.INT)
        if not isinstance(number, int) or number == 0:
            raise UnsupportedError(
                "an AUTO_INCREMENT column needs a value other than 0 and NULL: each shard would put "
                "its own next number there"
            )
    if plan.spread is Spread.ALL:
        return Route(_all_of(plan, snapshot), False)
    try:
        shards = _meet(plan, read, resolved)
    except RouteError:
        everywhere = _all_of(plan, snapshot)
        if plan.scratch is None or plan.scratch.write is None or len(everywhere) == 1:
            raise
        return Route(everywhere, False)  # scratch tables will tell what a server stores for such a key
    if not shards:
        choices = _any_of(plan, snapshot)
        return Route((held if held in choices else choices[0],), replica)
    if len(shards) == 1:
        return Route(tuple(shards), replica)
    if plan.spread in _TOGETHER:
        return Route(tuple(sorted(shards)), replica)
    names = ", ".join(snapshot.shards[i].name for i in sorted(shards))
    raise RouteError(f"{plan.spread_error} (it would touch shards {names})")


def _hinted(name: str, snapshot: Snapshot) -> int:
    try:
        return snapshot.shard_index(name)
    except KeyError:
        known = ", ".join(s.name for s in snapshot.shards)
        raise RouteError(f"the hint names shard '{name}', which does not exist; shards are: {known}") from None


def _any_of(plan: Plan, snapshot: Snapshot) -> tuple[int, ...]:
    if plan.keyspace is not None:
        return plan.keyspace.shards
    for group in plan.groups:
        return group.keyspace.shards
    return tuple(range(len(snapshot.shards)))


def _all_of(plan: Plan, snapshot: Snapshot) -> tuple[int, ...]:
    fixed = {g.shard for g in plan.groups if g.shard is not None}
    if fixed:
        return tuple(sorted(fixed))
    return _any_of(plan, snapshot)


def _meet(plan: Plan, read: ValueReader, resolved: Resolved | None) -> frozenset[int]:
    """Shards of all groups. With several groups each must be on one and the same shard; a group that provably has
    no rows is at home anywhere."""
    if len(plan.groups) == 1:
        return _group_shards(plan.groups[0], plan, read, resolved)
    union: frozenset[int] = frozenset()
    for group in plan.groups:
        union |= _group_shards(group, plan, read, resolved)
    return union


def _group_shards(group: Group, plan: Plan, read: ValueReader, resolved: Resolved | None) -> frozenset[int]:
    if group.shard is not None:
        return frozenset((group.shard,))
    strict = plan.kind in (StatementKind.INSERT, StatementKind.REPLACE)
    if strict:
        read = stored_as_given(plan, read)
    return evaluate(group.condition, group.keyspace, read, strict, resolved)


def sole_key(plan: Plan, read: ValueReader) -> KeyValue | None:
    """The key of a statement that goes to one shard: the first that its first group's condition names; None where none
    does. For measuring load: the other keys of such a statement are on the same shard."""
    for group in plan.groups:
        condition = group.condition
        parts = condition.parts if isinstance(condition, AllOf) else (condition,)
        for part in parts:
            if isinstance(part, KeyIn) and part.values and group.shard is None:
                key = read(part.values[0], group.keyspace.key_type)
                return None if isinstance(key, NoValue) else key
        return None
    return None


def stored_as_given(plan: Plan, read: ValueReader) -> ValueReader:
    """A reader that refuses keys which a server in a lax sql_mode would store as another value."""
    bounds = plan.key_bounds
    if bounds is None:
        return read

    def bounded(value: Value, key_type: KeyType) -> KeyValue | NoValue:
        key = read(value, key_type)
        problem = "" if isinstance(key, NoValue) else bounds.problem(key)
        if problem:
            raise RouteError(problem, 1264, "22003")
        return key

    return bounded


def evaluate(
    condition: Condition,
    keyspace: Keyspace,
    read: ValueReader,
    strict: bool = False,
    resolved: Resolved | None = None,
) -> frozenset[int]:
    """Shards on which rows that satisfy the condition can be.

    strict: for INSERT, where a value that cannot be placed is an error and not "anywhere". resolved: for conditions on
    lookup indexes the shards that these named; others may be true anywhere.
    """
    everywhere = frozenset(keyspace.map.all_shards)
    match condition:
        case KeyIn(values):
            found: set[int] = set()
            for value in values:
                key = read(value, keyspace.key_type)
                if key is NULLVALUE:
                    if strict:
                        raise RouteError("the shard key may not be NULL")
                    continue
                if key is UNROUTABLE:
                    if strict:
                        raise RouteError(
                            f"a value of the shard key cannot be placed exactly in keyspace '{keyspace.name}': give a "
                            f"plain {keyspace.key_type.value} value"
                        )
                    return everywhere
                assert isinstance(key, (int, bytes))
                try:
                    found.add(keyspace.map.lookup(key))
                except UnmappedKey:
                    if strict:
                        raise RouteError(
                            f"no range of keyspace '{keyspace.name}' holds the key {key!r}: add a range to "
                            f"keyspaces.{keyspace.name}.ranges"
                        ) from None
            return frozenset(found)
        case KeyBetween():
            return _between(condition, keyspace, read, everywhere)
        case AllOf(parts):
            shards = everywhere
            for part in parts:
                shards &= evaluate(part, keyspace, read, strict, resolved)
            return shards
        case AnyOf(parts):
            return frozenset().union(*(evaluate(part, keyspace, read, strict, resolved) for part in parts))
        case LookedUp():
            return everywhere if resolved is None else resolved.get(condition, everywhere)
        case Nowhere():
            return frozenset()
        case Anywhere():
            return everywhere
    raise AssertionError(condition)


def _between(bounds: KeyBetween, keyspace: Keyspace, read: ValueReader, everywhere: frozenset[int]) -> frozenset[int]:
    if keyspace.key_type is not KeyType.INT:
        return everywhere
    low: int | None = None
    high: int | None = None
    if bounds.low is not None:
        key = read(bounds.low, keyspace.key_type)
        if key is NULLVALUE:
            return frozenset()
        if isinstance(key, int):
            low = key + bounds.low_open
    if bounds.high is not None:
        key = read(bounds.high, keyspace.key_type)
        if key is NULLVALUE:
            return frozenset()
        if isinstance(key, int):
            high = key - bounds.high_open
    if low is not None and high is not None and low > high:
        return frozenset()
    return keyspace.map.shards_between(low, high)
