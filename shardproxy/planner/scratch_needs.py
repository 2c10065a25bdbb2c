"""What of each table a SELECT over scratch tables can need: columns that it names, rows that its conditions let pass.

Left out is only what cannot change the answer. Every use of a table is judged by itself; where one scratch table
serves several uses, or the statement names the table in a place that is not understood, it gets all rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.filters import Filter, all_of, filters
from shardproxy.planner.from_tree import Leaf, Unclear, leaves
from shardproxy.planner.scratch_tables import Reference, Tables
from shardproxy.planner.select_parts import Span, bare_column
from shardproxy.sql.functions import RANDOM
from shardproxy.sql.words import words
from shardproxy.topology.schema import Column, TableSchema

# What they give depends on how many rows were looked at.
_COUNTING = RANDOM | words("rownum sleep benchmark")


@dataclass(frozen=True, slots=True)
class Need:
    """columns: lower-case names, None for all; filter: what its rows must satisfy, over the table's alias, or None."""

    columns: frozenset[str] | None = None
    filter: Filter | None = None


EVERYTHING = Need()


def needs(draft: Draft, tables: Tables, certain: bool) -> dict[Reference, Need]:
    """For each reference to a table what it needs. certain: the tree has the same references."""
    names = _names(draft)
    found: dict[Reference, Need] = {}
    by_filter = _filters(draft, tables)
    for reference in tables.references:
        if reference.cte is not None:
            continue
        if not certain and _named_elsewhere(draft, tables, reference.name):
            found[reference] = EVERYTHING
            continue
        select = tables.selects.get(reference.block)
        all_columns = names is None or select is None or not reference.block or select.star
        some = by_filter.get(reference)
        found[reference] = Need(None if all_columns else names, all_of(some) if some else None)
    return found


def in_common(some: Iterable[Need]) -> Need:
    """What one scratch table must hold that serves all of these uses."""
    found = list(some)
    if len(found) == 1:
        return found[0]
    if any(need.columns is None for need in found) or not found:
        return EVERYTHING
    return Need(frozenset().union(*(need.columns or () for need in found)))


def _names(draft: Draft) -> frozenset[str] | None:
    """All names and words of the statement, lower case; None where columns may be meant that are not named."""
    if draft.has("NATURAL") or _hidden(draft):
        return None
    return frozenset(token.text.lower() for token in draft.tokens if is_name(token))


def _hidden(draft: Draft) -> bool:
    """Whether an executable comment may say more than the tokens do."""
    return b"/*!" in draft.sql or b"/*M!" in draft.sql


def _named_elsewhere(draft: Draft, tables: Tables, name: str) -> bool:
    """Whether the name stands where it is neither a reference nor before a column's name."""
    inside = {i for reference in tables.references for i in range(reference.first, reference.end)}
    return any(
        is_name(token) and token.text == name and i not in inside and draft.word(i + 1) != "."
        for i, token in enumerate(draft.tokens)
    )


# ── rows ──


def _filters(draft: Draft, tables: Tables) -> dict[Reference, list[Filter]]:
    if draft.functions & _COUNTING or draft.has("ROWNUM") or _hidden(draft) or draft.assigns:
        return {}
    by_first = {reference.first: reference for reference in tables.references}
    found: dict[Reference, list[Filter]] = {}
    for select in tables.selects.values():
        if not select.first:
            continue
        try:
            inside, merged = leaves(draft, select, by_first)
        except Unclear:
            continue
        for leaf in inside:
            if leaf.reference is None or leaf.reference.cte is not None:
                continue
            some: list[Filter] = []
            for condition, scope in zip(leaf.conditions, leaf.scopes, strict=True):
                some += _Columns(draft, leaf, scope, merged).filters(condition)
            if some:
                found[leaf.reference] = some
    return found


class _Columns:
    """Which names are columns of a leaf. scope: the leaves whose columns the condition may name."""

    def __init__(self, draft: Draft, leaf: Leaf, scope: list[Leaf], merged: bool) -> None:
        self.draft = draft
        self.leaf = leaf
        self.scope = scope
        self.merged = merged
        self.schema = _schema(draft, leaf)

    def filters(self, condition: Span) -> list[Filter]:
        return filters(self.draft, condition, self.column) if self.schema is not None else []

    def column(self, span: Span) -> Column | None:
        """The leaf's column that these tokens name; None when that is not certain.

        A bare name that two tables of a FROM have is an error, so one that this table has is its own.
        """
        tokens = self.draft.tokens[span.first : span.end]
        name = bare_column(tokens)
        if not name or self.schema is None or len(tokens) > 3:
            return None
        if len(tokens) == 1:
            if self.merged or not any(leaf is self.leaf for leaf in self.scope):
                return None
            known = [_schema(self.draft, leaf) for leaf in self.scope if leaf is not self.leaf]
            if any(schema is not None and schema.column(name) is not None for schema in known):
                return None
        else:
            alias = self.leaf.alias
            same = [leaf for leaf in self.scope if leaf.alias.lower() == alias.lower()]
            if tokens[0].text != alias or len(same) != 1:
                return None
        return self.schema.column(name)


def _schema(draft: Draft, leaf: Leaf) -> TableSchema | None:
    reference = leaf.reference
    if reference is None or reference.cte is not None:
        return None
    return draft.context.catalog.get(reference.database or draft.context.schema or "", reference.name)
