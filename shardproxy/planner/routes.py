"""What groups mean for the plan: opcode, reason, the messages when several shards come out, the hot path's index."""

from __future__ import annotations

from itertools import pairwise

from shardproxy.planner.blocks import Facts, SourceKind
from shardproxy.planner.draft import Draft, refuse
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
    Opcode,
    Spread,
    Value,
)
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, RangeMap
from shardproxy.topology.model import Keyspace

_RANK = (Opcode.UNSHARDED, Opcode.EQUAL_UNIQUE, Opcode.IN, Opcode.RANGE, Opcode.SCATTER)


def tables(facts: Facts) -> tuple[str, ...]:
    """Names of all configured tables that the statement uses, in order, each once."""
    return tuple(dict.fromkeys(s.table.name for s in facts.sources if s.table is not None))


def opcode(groups: tuple[Group, ...]) -> Opcode:
    """The widest of the groups' opcodes."""
    return max((_opcode(group) for group in groups), key=_RANK.index)


def _opcode(group: Group) -> Opcode:
    return Opcode.UNSHARDED if group.shard is not None else _condition_opcode(group.condition)


def _condition_opcode(condition: Condition) -> Opcode:
    match condition:
        case KeyIn(values):
            return Opcode.EQUAL_UNIQUE if len(values) == 1 else Opcode.IN
        case Nowhere():
            return Opcode.EQUAL_UNIQUE
        case KeyBetween():
            return Opcode.RANGE
        case AllOf(parts):
            return min(map(_condition_opcode, parts), key=_RANK.index)
        case AnyOf(parts):
            return max((Opcode.IN, *map(_condition_opcode, parts)), key=_RANK.index)
        case Anywhere() | LookedUp():
            return Opcode.SCATTER


def reference_home(facts: Facts) -> Keyspace | None:
    """The keyspace whose shards have all reference tables of the statement; None when it names no table."""
    keyspaces = list({s.keyspace.name: s.keyspace for s in facts.sources if s.keyspace is not None}.values())
    if not keyspaces:
        return None
    for keyspace in keyspaces:
        if all(set(keyspace.shards) <= set(other.shards) for other in keyspaces):
            return keyspace
    names = ", ".join(sorted(keyspace.name for keyspace in keyspaces))
    raise refuse(f"no shard is known to have the reference tables of all of these keyspaces: {names}")


def only_shard(keyspace: Keyspace) -> int | None:
    """The shard that every possible key is on; None when there are several, or keys without a shard."""
    shards = set(keyspace.map.all_shards)
    if len(shards) != 1 or len(keyspace.shards) != 1:
        return None
    if isinstance(keyspace.map, RangeMap):
        ranges = keyspace.map.ranges
        whole = ranges[0].start <= INT_MIN and ranges[-1].end > INT_MAX
        if not whole or any(a.end != b.start for a, b in pairwise(ranges)):
            return None
    return shards.pop()


def check_references(facts: Facts, groups: tuple[Group, ...]) -> None:
    """Single tables must be on one shard, reference tables on every shard that the sharded tables may be on."""
    fixed = {group.shard: group for group in groups if group.shard is not None}
    if len(fixed) > 1:
        names = " and ".join(", ".join(group.tables) for group in fixed.values())
        raise refuse(f"tables of different shards ({names}) cannot be used in one statement")
    for source in facts.sources:
        if source.kind is not SourceKind.REFERENCE or source.keyspace is None or source.table is None:
            continue
        homes = set(source.keyspace.shards)
        for group in groups:
            shards = {group.shard} if group.shard is not None else set(group.keyspace.shards)
            if not shards <= homes:
                raise refuse(
                    f"reference table '{source.keyspace.name}.{source.table.name}' is not on every shard of keyspace "
                    f"'{group.keyspace.name}'"
                )


def only_keyspace(groups: tuple[Group, ...]) -> Keyspace | None:
    """The groups' keyspace when it is one."""
    found = {group.keyspace.name: group.keyspace for group in groups}
    return next(iter(found.values())) if len(found) == 1 else None


def key_index(groups: tuple[Group, ...]) -> int:
    """See Plan.key_index."""
    if len(groups) != 1 or groups[0].shard is not None or groups[0].keyspace.key_type is not KeyType.INT:
        return -1
    match groups[0].condition:
        case KeyIn((Value(index, False),)):
            return index
    return -1


def key_name(group: Group) -> str:
    """The group's key as people write it: table.column."""
    table = group.keyspace.tables[group.tables[0]]
    return f"{table.name}.{table.key}"


def describe(group: Group) -> str:
    """A group's place in words: "users.uid = ?"."""
    if group.shard is not None:
        return f"{', '.join(group.tables)} on one fixed shard"
    return _describe(group.condition, key_name(group))


def _describe(condition: Condition, key: str) -> str:
    match condition:
        case KeyIn((value,)):
            return f"{key} = {_shown(value)}"
        case KeyIn(values):
            return f"{key} IN ({len(values)} values)"
        case KeyBetween(low, None, low_open, _) if low is not None:
            return f"{key} {'>' if low_open else '>='} {_shown(low)}"
        case KeyBetween(None, high, _, high_open) if high is not None:
            return f"{key} {'<' if high_open else '<='} {_shown(high)}"
        case KeyBetween():
            return f"{key} in an interval"
        case AllOf(parts):
            return " and ".join(_describe(part, key) for part in parts)
        case AnyOf(parts):
            return " or ".join(_describe(part, key) for part in parts)
        case LookedUp(index, values):
            return f"{index.name} = {'?' if len(values) == 1 else f'one of {len(values)} values'} by lookup index"
        case Nowhere():
            return f"{key} = NULL (no row)"
        case Anywhere():
            return f"no condition on {key}"


def _shown(value: Value) -> str:
    return "-?" if value.negative else "?"


def described(groups: tuple[Group, ...]) -> str:
    """The groups' places in words."""
    return "; ".join(dict.fromkeys(describe(group) for group in groups))


def reason(groups: tuple[Group, ...], draft: Draft, spread: Spread) -> str:
    """Plan.reason: one readable sentence."""
    where = described(groups)
    if opcode(groups) in (Opcode.EQUAL_UNIQUE, Opcode.UNSHARDED):
        return f"one shard: {where}"
    if spread is Spread.CONCAT:
        return f"rows of the shards one after the other: {where}"
    if spread is Spread.MERGE:
        return f"rows of the shards merged: {where}"
    if spread is Spread.EACH:
        return f"each shard changes its own rows: {where}"
    if spread is Spread.WRITE:
        return f"split by shard: {where}"
    return f"one shard or an error: {where}"


def several_shards(groups: tuple[Group, ...], why: str) -> str:
    """Plan.spread_error of a SELECT that several shards cannot answer together."""
    return f"{why} over several shards is not supported: restrict the statement to one shard by {advice(groups)}"


def advice(groups: tuple[Group, ...]) -> str:
    """Which conditions would make it one shard."""
    wanted = [f"{key_name(group)} = value" for group in groups if group.shard is None]
    return " and ".join(dict.fromkeys(wanted)) or "naming tables of one shard only"
