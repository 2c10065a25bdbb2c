"""Conditions on the columns of a lookup index, which lead to the one shard of a row."""

from __future__ import annotations

from sqlglot import exp

from shardproxy.planner import conditions
from shardproxy.planner.blocks import Block, Source, lacks_column
from shardproxy.planner.draft import Draft
from shardproxy.planner.lookup_index import index_of
from shardproxy.planner.lookup_plan import Index, LookedUp, Part, PartKind
from shardproxy.planner.plan import AllOf, AnyOf, Anywhere, Condition, Group, KeyBetween, KeyIn, Nowhere
from shardproxy.topology.keys import KeyType

_MOST_VALUES = 16  # of an IN list: beyond that every shard is asked
READ_AS = {PartKind.INTEGER: KeyType.INT, PartKind.TEXT: KeyType.TEXT, PartKind.BINARY: KeyType.BINARY}


def looked_up(draft: Draft, clause: exp.Expr, source: Source, block: Block) -> Condition:
    """The first lookup index of the source's table, ready to be asked, that the clause gives the values of."""
    keyspace, table = source.keyspace, source.table
    if keyspace is None or table is None or len(keyspace.shards) == 1:
        return Anywhere()
    schema = draft.context.catalog.get(keyspace.name, table.name)
    for lookup in table.lookups if schema is not None else ():
        index = index_of(keyspace, table, lookup, schema) if lookup.ready and schema is not None else ""
        if isinstance(index, Index):
            found = _by_index(draft, clause, source, block, index)
            if not isinstance(found, Anywhere):
                return found
    return Anywhere()


def _by_index(draft: Draft, clause: exp.Expr, source: Source, block: Block, index: Index) -> Condition:
    chosen: list[KeyIn] = []
    for part in index.parts:
        found = _values(draft, clause, source, block, part)
        if found is None:
            return Anywhere()
        if isinstance(found, Nowhere):
            return found
        chosen.append(found)
    if len(chosen) == 1 and len(chosen[0].values) <= _MOST_VALUES:
        return LookedUp(index, tuple((value,) for value in chosen[0].values))
    if all(len(one.values) == 1 for one in chosen):
        return LookedUp(index, (tuple(one.values[0] for one in chosen),))
    return Anywhere()


def _values(draft: Draft, clause: exp.Expr, source: Source, block: Block, part: Part) -> KeyIn | Nowhere | None:
    """The values that the clause allows for the column, by one of its terms."""
    name = part.column.lower()

    def is_it(node: exp.Expr) -> bool:
        return isinstance(node, exp.Column) and node.name.lower() == name and _is_of(draft, node, source, block)

    found = conditions.condition(draft, clause, is_it, READ_AS[part.kind])
    terms = found.parts if isinstance(found, AllOf) else (found,)
    usable = [term for term in terms if isinstance(term, (KeyIn, Nowhere))]
    return min(usable, key=lambda term: len(term.values) if isinstance(term, KeyIn) else 0, default=None)


def _is_of(draft: Draft, column: exp.Column, source: Source, block: Block) -> bool:
    """Whether the column is certainly the source's."""
    if column.args.get("catalog"):
        return False
    if not column.table:
        return column.name.lower() not in block.merged and all(
            lacks_column(draft, other, column.name) for other in block.sources if other is not source
        )
    named = [s for s in block.sources if s.name.lower() == column.table.lower()]
    return named == [source] and source.name == column.table and (not column.db or source.database == column.db)


def asked(groups: tuple[Group, ...]) -> tuple[LookedUp, ...]:
    """The conditions of these groups for which an index is to be asked, each once; none when a group is on several
    shards whatever the indexes say."""
    found: list[LookedUp] = []
    of_groups = [group.condition for group in groups if group.shard is None]
    if any(isinstance(condition, (Anywhere, KeyBetween)) for condition in of_groups):
        return ()
    stack: list[Condition] = list(of_groups)
    while stack:
        one = stack.pop()
        if isinstance(one, LookedUp):
            found.append(one)
        elif isinstance(one, (AllOf, AnyOf)):
            stack.extend(one.parts)
    return tuple(dict.fromkeys(found))

