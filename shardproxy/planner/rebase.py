"""Plans that hold under another map too: put onto it, in place of being made again.

To plan a statement takes milliseconds, and a move gives every worker a new map at each of its steps, just when writes
are let go that have waited. What a plan says follows from the statement, the catalog, and of the map only from what
`alike` compares: who owns which keys is looked up when the plan is used. So under a map that is alike a plan differs in
two things alone: the keyspaces that it holds, and which keys its texts hide on which shards (`unseen`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from shardproxy.planner.bounds import KeyBounds
from shardproxy.planner.lookup_plan import Index
from shardproxy.planner.plan import Plan, Rung, Value
from shardproxy.planner.routes import only_shard
from shardproxy.planner.template import Unseen
from shardproxy.planner.unseen import hidden_of
from shardproxy.topology.model import Keyspace, Snapshot, Table, TableKind
from shardproxy.topology.schema import Column

# Nothing of a map is in them.
_LEAVES = (str, bytes, int, float, Enum, frozenset, Value, Table, Column, Index, KeyBounds)
_NAMES: dict[type, tuple[str, ...]] = {}  # fields of the classes that plans are made of


class _UnknownError(Exception):
    """The plan holds something of which it is not certain what it is under another map."""


def alike(before: Snapshot, after: Snapshot) -> bool:
    """Whether plans made under the one map hold under the other."""
    return _comparable(before, after) and all(
        _alike(keyspace, after.keyspaces[name]) and keyspace.shards == after.keyspaces[name].shards
        for name, keyspace in before.keyspaces.items()
    )


def grown(before: Snapshot, after: Snapshot) -> bool:
    """Whether the maps would be alike but for keyspaces that have more shards: then plans for which `by_key` is true
    hold."""
    return _comparable(before, after) and all(
        _alike(keyspace, after.keyspaces[name])
        and (len(keyspace.shards) == 1) == (len(after.keyspaces[name].shards) == 1)
        and set(keyspace.shards) <= set(after.keyspaces[name].shards)
        for name, keyspace in before.keyspaces.items()
    )


def _comparable(before: Snapshot, after: Snapshot) -> bool:
    names = [shard.name for shard in before.shards]
    return before.keyspaces.keys() == after.keyspaces.keys() and names == [shard.name for shard in after.shards]


def _alike(before: Keyspace, after: Keyspace) -> bool:
    if before is after:
        return True
    return (
        (before.key_type, before.home, type(before.map)) == (after.key_type, after.home, type(after.map))
        and bool(hidden_of(before)) == bool(hidden_of(after))
        and only_shard(before) == only_shard(after)
        and before.tables == after.tables
    )


def by_key(plan: Plan, snapshot: Snapshot) -> bool:
    """Whether it is a statement of sharded tables alone, with one integer as the key: how many shards there are is
    nothing to it. snapshot: under which it was made."""
    if plan.rung is Rung.ERROR or plan.key_index < 0 or len(plan.groups) != 1:
        return False
    references = (
        keyspace.tables[name].kind is TableKind.REFERENCE
        for keyspace in snapshot.keyspaces.values()
        for name in plan.tables
        if name in keyspace.tables
    )
    return not any(references)


def rebased(plan: Plan, keyspaces: Mapping[str, Keyspace]) -> Plan | None:
    """The plan under a map that is alike. None where that is not certain: it is to be planned again.

    keyspaces: the map's.
    """
    found: dict[str, Keyspace] = {}
    try:
        _collect(plan, found)
        hidden: dict[object, object] = {}
        for name, keyspace in found.items():
            was, now = hidden_of(keyspace), hidden_of(keyspaces[name])
            if hidden.setdefault(was, now) != now:
                return None
        renewed: Plan = _renewed(plan, keyspaces, hidden)
    except (_UnknownError, KeyError):
        return None
    return renewed


def _collect(value: Any, found: dict[str, Keyspace]) -> None:
    """All keyspaces in a plan."""
    if value is None or isinstance(value, _LEAVES):
        return
    if isinstance(value, Keyspace):
        if found.setdefault(value.name, value) is not value:
            raise _UnknownError
    elif type(value) is tuple:
        for part in value:
            _collect(part, found)
    elif not isinstance(value, Unseen):
        for name in _fields(value):
            _collect(getattr(value, name), found)


def _renewed(value: Any, keyspaces: Mapping[str, Keyspace], hidden: Mapping[object, object]) -> Any:
    if value is None or isinstance(value, _LEAVES):
        return value
    if isinstance(value, Keyspace):
        return keyspaces[value.name]
    if type(value) is tuple:
        parts = tuple([_renewed(part, keyspaces, hidden) for part in value])
        return value if all(map(_same, value, parts)) else parts
    changes: dict[str, Any] = {}
    if isinstance(value, Unseen):
        changes["hidden"] = hidden[value.hidden]
    else:
        for name in _fields(value):
            before = getattr(value, name)
            after = _renewed(before, keyspaces, hidden)
            if after is not before:
                changes[name] = after
    if not changes:
        return value
    # Not dataclasses.replace: it would be half of the work.
    return type(value)(**{name: changes[name] if name in changes else getattr(value, name) for name in _fields(value)})


def _same(one: object, other: object) -> bool:
    return one is other


def _fields(value: Any) -> tuple[str, ...]:
    """The names of a part's fields. Raises _UnknownError for what is no part of plans."""
    kind = type(value)
    names = _NAMES.get(kind)
    if names is None:
        if not is_dataclass(kind) or not kind.__module__.startswith("shardproxy.planner."):
            raise _UnknownError
        names = _NAMES[kind] = tuple(field.name for field in fields(kind))
    return names
