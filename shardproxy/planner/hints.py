"""Hints in comments: /*shardproxy: primary*/, /*shardproxy: snapshot*/, /*shardproxy: shard=NAME*/, /*shardproxy:
cache=30s*/, and how a new table is spread: /*shardproxy: key=uid keyspace=main*/. Several are separated by commas or
blanks."""

from __future__ import annotations

import re

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Plan, StatementKind

_MARK = "shardproxy:"
_EQUALS = re.compile(r"\s*=\s*")
_BETWEEN = re.compile(r"[\s,]+")
# As in the configuration file, whose parser brings libraries that a worker does without.
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_OF_TABLES = ("key", "keyspace", "single")


def hints(draft: Draft) -> Plan | None:
    """Sets `primary`, `snapshot`, `shard_hint`, `cache_ttl`, `table_hints`. An unknown hint is an error: a misspelt
    one must not be ignored."""
    if draft.starts("EXPLAIN", "ROUTE") or draft.starts("DESC", "ROUTE") or draft.starts("DESCRIBE", "ROUTE"):
        return None  # they belong to the statement that is explained
    for comment in draft.comments:
        text = comment.strip()
        if not text.lower().startswith(_MARK):
            continue
        for hint in _BETWEEN.split(_EQUALS.sub("=", text[len(_MARK) :].strip())):
            _take(draft, hint)
    if draft.table_hints:
        _check_place(draft)
    return None


def _take(draft: Draft, hint: str) -> None:
    name, _, value = hint.partition("=")
    name = name.lower()
    if name == "primary" and not value:
        draft.primary = True
    elif name == "snapshot" and not value:
        draft.snapshot = draft.primary = True
    elif name == "shard" and value:
        draft.shard_hint = _known_shard(draft, value)
    elif name == "cache" and value:
        draft.cache_ttl = _milliseconds(value)
    elif (name == "reference" and not value) or (name in _OF_TABLES and value):
        if draft.table_hints.setdefault(name, value) != value:
            raise refuse(f"the hint {name} stands twice, with different values")
    else:
        raise refuse(
            f"unknown hint '{hint}': known are primary, snapshot, shard=NAME and cache=DURATION, and for CREATE "
            "TABLE key=COLUMN, reference, single=SHARD and keyspace=NAME"
        )


def _milliseconds(value: str) -> int:
    found = _DURATION.fullmatch(value)
    if found is None:
        raise refuse(f"the hint cache={value} says no time: it takes one with its unit, such as 250ms, 30s, 5m or 1h")
    return round(float(found[1]) * _MILLISECONDS[found[2]])


def check_snapshot(plan: Plan) -> None:
    """The hint snapshot is for what reads without locks. Raises UnsupportedError."""
    if plan.snapshot and not plan.read and plan.kind not in (StatementKind.BEGIN, StatementKind.EXPLAIN):
        raise refuse("the hint snapshot is for SELECT without locks and for START TRANSACTION")


def _check_place(draft: Draft) -> None:
    """Hints about a new table stand in CREATE TABLE, one of the three kinds at a time."""
    if draft.word(0) != "CREATE" or "TABLE" not in (draft.word(1), draft.word(3)):
        raise refuse("the hints key, reference, single and keyspace say how a new table is spread: CREATE TABLE only")
    if draft.shard_hint is not None:
        raise refuse("a table that is registered is created on all its shards: leave out the hint shard=NAME")
    if len(draft.table_hints.keys() & {"key", "reference", "single"}) != 1:
        raise refuse("a new table is registered with exactly one of key=COLUMN, reference and single=SHARD")


def _known_shard(draft: Draft, name: str) -> str:
    shards = draft.context.snapshot.shards
    if all(shard.name != name for shard in shards):
        known = ", ".join(shard.name for shard in shards)
        raise refuse(f"the hint names shard '{name}', which does not exist; shards are: {known}")
    return name
