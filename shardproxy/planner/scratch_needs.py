"""What of each table a SELECT over scratch tables can need: columns that it names, rows that its conditions let pass.

Left out is only what cannot change the answer. Every use of a table is judged by itself; where one scratch table
serves several uses, or the statement names the table in a place that is not understood, it gets all rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.filters import Filter, all_of, equalities, filters, is_integer
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
    """columns: lower-case names, None for all; filter: what its rows must satisfy, over the table's alias, or None;
    keys: columns whose values must be among those of another reference's column."""

    columns: frozenset[str] | None = None
    filter: Filter | None = None
    keys: tuple[tuple[str, Reference, str], ...] = ()


EVERYTHING = Need()


def needs(draft: Draft, tables: Tables, certain: bool) -> dict[Reference, Need]:
    """For each reference to a table what it needs. certain: the tree has the same references."""
    names = _names(draft)
    found: dict[Reference, Need] = {}
    rows = _rows(draft, tables)
    for reference in tables.references:
        if reference.cte is not None:
            continue
        if not certain and _named_elsewhere(draft, tables, reference.name):
            found[reference] = EVERYTHING
            continue
        select = tables.selects.get(reference.block)
        starred = select is None or select.star or reference.alias.lower() in select.starred
        all_columns = names is None or starred or not reference.block
        known = rows.get(reference, _Rows())
        filtered = all_of(known.filters) if known.filters else None
        found[reference] = Need(None if all_columns else names, filtered, tuple(known.keys))
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


@dataclass(slots=True)
class _Rows:
    """What is known of a reference's rows."""

    filters: list[Filter] = field(default_factory=list)
    keys: list[tuple[str, Reference, str]] = field(default_factory=list)


def _rows(draft: Draft, tables: Tables) -> dict[Reference, _Rows]:
    if draft.functions & _COUNTING or draft.has("ROWNUM") or _hidden(draft) or draft.assigns:
        return {}
    by_first = {reference.first: reference for reference in tables.references}
    understood: dict[int, tuple[list[Leaf], bool]] = {}
    for number, select in tables.selects.items():
        try:
            if select.first and number:
                understood[number] = leaves(draft, select, by_first)
        except Unclear:
            continue
    found: dict[Reference, _Rows] = {}
    for number, (inside, merged) in understood.items():
        around = understood.get(tables.selects[number].outer)
        for leaf in inside:
            if leaf.reference is None or leaf.reference.cte is not None:
                continue
            rows = found[leaf.reference] = _Rows()
            for condition, scope in zip(leaf.conditions, leaf.scopes, strict=True):
                mine = _Columns(draft, leaf, scope, merged)
                rows.filters += mine.filters(condition)
                for sides in equalities(draft, condition):
                    for ours, theirs in (sides, sides[::-1]):
                        key = _key(draft, mine.column(ours), theirs, scope, merged, around)
                        if key is not None and key not in rows.keys:
                            rows.keys.append(key)
    return found


def _key(
    draft: Draft,
    ours: Column | None,
    theirs: Span,
    scope: list[Leaf],
    merged: bool,
    around: tuple[list[Leaf], bool] | None,
) -> tuple[str, Reference, str] | None:
    """Our column, and another table's that it must be equal to: of the same FROM, or of the SELECT around."""
    if ours is None or not is_integer(ours):
        return None
    places = [(scope, merged)]
    if around is not None and _named_nowhere(draft, theirs, scope):
        places.append(around)
    for place, joined in places:
        for leaf in place:
            column = _Columns(draft, leaf, place, joined).column(theirs)
            if column is not None and leaf.reference is not None and is_integer(column):
                return ours.name, leaf.reference, column.name
    return None


def _named_nowhere(draft: Draft, column: Span, scope: list[Leaf]) -> bool:
    """Whether no table of a FROM can have this column: it is one of the SELECT around."""
    tokens = draft.tokens[column.first : column.end]
    if len(tokens) > 1:
        return all(leaf.alias and leaf.alias.lower() != tokens[0].text.lower() for leaf in scope)
    schemas = [_schema(draft, leaf) for leaf in scope]
    return all(schema is not None and schema.column(tokens[-1].text) is None for schema in schemas)


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
