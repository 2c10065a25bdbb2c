"""From facts to groups: which sources must be on one shard together, and by what condition on the key."""

from __future__ import annotations

from collections import defaultdict

from shardproxy.planner.blocks import Facts, Source, SourceKind
from shardproxy.planner.conditions import all_of
from shardproxy.planner.plan import Group


def groups(facts: Facts) -> tuple[Group, ...]:
    """Groups in the order of the statement.

    A source belongs to a *home*: a set of sources tied to each other both ways, out of which no tie leads. Its
    relevant rows live where the home's rows live. A home's condition is what restricts its own members, and what is
    hard for a source of the same block that is tied to it.
    """
    sharded = [s for s in facts.sources if s.kind is SourceKind.SHARDED]
    reach = _reachable(sharded, facts.ties)
    homes = _homes(sharded, reach)
    members: dict[Source, list[Source]] = defaultdict(list)
    for source in sharded:
        home = next(s for s in sharded if s in homes and s in reach[source])
        members[homes[home][0]].append(source)
    found: list[tuple[int, Group]] = []
    for first, joined in members.items():
        conditions = [
            r.condition
            for r in facts.restrictions
            if r.source in homes[first] or (r.hard and first in reach[r.source] and r.source.block is first.block)
        ]
        assert first.keyspace is not None
        tables = tuple(dict.fromkeys(s.table.name for s in joined if s.table is not None))
        order = min(facts.sources.index(s) for s in joined)
        found.append((order, Group(tables, first.keyspace, all_of(conditions))))
    fixed: dict[tuple[str, int], list[str]] = defaultdict(list)
    for source in facts.sources:
        if source.kind is SourceKind.SINGLE and source.table is not None and source.table.shard is not None:
            fixed[source.database, source.table.shard].append(source.table.name)
    for (database, shard), names in fixed.items():
        singles = [s for s in facts.sources if s.kind is SourceKind.SINGLE and s.database == database]
        keyspace = singles[0].keyspace
        assert keyspace is not None
        group = Group(tuple(dict.fromkeys(names)), keyspace, shard=shard)
        found.append((min(facts.sources.index(s) for s in singles), group))
    return tuple(group for _, group in sorted(found, key=lambda entry: entry[0]))


def homes(facts: Facts) -> list[tuple[Source, ...]]:
    """The homes of the statement's sharded sources, each once."""
    sharded = [s for s in facts.sources if s.kind is SourceKind.SHARDED]
    return list(dict.fromkeys(_homes(sharded, _reachable(sharded, facts.ties)).values()))


def _homes(sharded: list[Source], reach: dict[Source, set[Source]]) -> dict[Source, tuple[Source, ...]]:
    """For each source that belongs to one, its home."""
    found: dict[Source, tuple[Source, ...]] = {}
    for source in sharded:
        if all(source in reach[other] for other in reach[source]):
            found[source] = tuple(s for s in sharded if s in reach[source])
    return found


def _reachable(sources: list[Source], ties: list[tuple[Source, Source]]) -> dict[Source, set[Source]]:
    """For each source, itself and all sources that ties lead to."""
    following: dict[Source, list[Source]] = defaultdict(list)
    for source, other in ties:
        following[source].append(other)
    reach: dict[Source, set[Source]] = {}
    for source in sources:
        seen = {source}
        stack = [source]
        while stack:
            for other in following[stack.pop()]:
                if other not in seen:
                    seen.add(other)
                    stack.append(other)
        reach[source] = seen
    return reach
