"""Rung 2 for UNION: every branch gives each of its rows on exactly one shard, so each shard runs the whole union.

The shards' answers together are then the rows of UNION ALL. Those of UNION are told apart once more, by all columns; an
order and a limit for all are as those of a plain SELECT. A result column has its type from all branches: so has a sort
key, for it stands in each branch as a column of its own, with the expression of that branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardproxy.errors import SqlError
from shardproxy.planner.blocks import Block
from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft
from shardproxy.planner.gather import gather
from shardproxy.planner.groups import groups
from shardproxy.planner.merge_plan import Branch, KeyKind, MergePlan, OrderTerm, SortKey
from shardproxy.planner.parse import parse
from shardproxy.planner.select_parts import (
    Item,
    Parts,
    Span,
    Term,
    as_written,
    bare_column,
    cut,
    limit_of,
    optimizer_hint,
    split,
    term_of,
)
from shardproxy.planner.sort_keys import owner, sort_key
from shardproxy.planner.spread import obstacle
from shardproxy.planner.template import Template, of_tokens
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words

# A result column of several of these has a type by whose values rows are told apart and sorted, or the merge finds out.
_BY_VALUE = words("tinyint smallint mediumint int bigint decimal date datetime time binary varbinary")
_TEXT = words("char varchar")


@dataclass(frozen=True, slots=True)
class _Side:
    """One branch: its own draft, and its clauses."""

    draft: Draft
    parts: Parts
    root: Block


def union(draft: Draft) -> MergePlan | str:
    """The plan of a UNION over several shards; "" when the shards' answers may be put one after the other; or, for
    people, why they cannot be merged."""
    if any(t.kind is TokenKind.USER_VARIABLE for t in draft.tokens):
        return "a user variable, whose type is not known"
    if b"/*!" in draft.sql or b"/*M!" in draft.sql:
        return "an executable comment"
    if draft.has("FOR", "LOCK"):
        return "a lock in a UNION"
    spans, every, tail = _branches(draft)
    if not spans:
        return "a query of several parts"
    plain = every and tail == len(draft.tokens)
    sides: list[_Side] = []
    keyspaces: set[str] = set()
    for span in spans:
        side = _side(draft, span, keyspaces)
        if isinstance(side, str):
            return side
        sides.append(side)
    if len(keyspaces) > 1:
        return "a UNION of tables of several keyspaces"
    return "" if plain else _Union(draft, sides, not every, tail).plan()


def _branches(draft: Draft) -> tuple[list[Span], bool, int]:
    """The branches without their parentheses; whether it is UNION ALL throughout; where ORDER BY or LIMIT for all
    begins. No branches when it is no UNION of one kind."""
    spans: list[Span] = []
    kinds: set[str] = set()
    start = depth = 0
    tail = len(draft.tokens)
    for i in range(len(draft.tokens)):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if depth or i < start:
            continue
        if word == "UNION":
            spans.append(Span(start, i))
            named = draft.word(i + 1) in ("ALL", "DISTINCT")
            kinds.add(draft.word(i + 1) if named else "DISTINCT")
            start = i + 1 + named
        elif word in ("ORDER", "LIMIT"):
            tail = min(tail, i)
    spans.append(Span(start, tail))
    if len(kinds) != 1 or any(span.first >= span.end for span in spans):
        return [], False, tail
    return [_bare(draft, span) for span in spans], kinds == {"ALL"}, tail


def _bare(draft: Draft, span: Span) -> Span:
    if draft.word(span.first) == "(" and closing(draft, span.first) == span.end - 1:
        return Span(span.first + 1, span.end - 1)
    return span


def _side(draft: Draft, span: Span, keyspaces: set[str]) -> _Side | str:
    """One branch. Its keyspace is put into `keyspaces`."""
    own = replace(draft)
    own.use(draft.tokens[span.first : span.end])
    try:
        tree = parse(own, own.tokens)
        facts = gather(own, tree)
        found = groups(facts)
        if not found:
            return "a branch of a UNION without sharded tables"
        why = obstacle(own, facts, found)
    except SqlError as error:
        return str(error)
    if why:
        return why
    parts = cut(own, tree)
    if isinstance(parts, str):
        return parts
    assert facts.root is not None
    keyspaces.add(found[0].keyspace.name)
    return _Side(own, parts, facts.root)


class _Union:
    def __init__(self, draft: Draft, sides: list[_Side], distinct: bool, tail: int) -> None:
        self.draft = draft
        self.sides = sides
        self.distinct = distinct
        self.tail = tail

    def plan(self) -> MergePlan | str:
        tail = Parts(0, 0, 0, 0, False, 0)
        order = self._order()
        if isinstance(order, str):
            return order
        problem = limit_of(self.draft, tail, self._limit_at())
        if problem:
            return problem
        keys: list[tuple[Template, ...]] = [() for _ in self.sides]
        item_keys: list[SortKey | None] = []
        if order or self.distinct:
            found = self._keys()
            if isinstance(found, str):
                return found
            item_keys = [None if one is None else one[0] for one in found]
            keys = [
                tuple(Template() if one is None else one[number].columns[0] for one in found)
                for number in range(len(self.sides))
            ]
        terms: list[OrderTerm] = []
        for term in order:
            position = term.position
            if position is None:
                number = self._named(term)
                if not number:
                    return "ORDER BY of a UNION by something else than its columns"
                terms.append(OrderTerm(Template(), item_keys[number - 1], term.descending, item=number))
            else:
                terms.append(OrderTerm(Template(), None, term.descending, position))
        if self.distinct:
            ordered = {term.item for term in terms}
            for number, key in enumerate(item_keys, 1):
                if key is None:
                    return "UNION of values that cannot be told apart here"
                if number not in ordered:
                    terms.append(OrderTerm(Template(), key, False, item=number))
        if any(term.key is None and term.position is None for term in terms):
            return "ORDER BY of a UNION by values that cannot be sorted here"
        return MergePlan(
            Template(), Template(), Template(),
            order=tuple(terms), item_keys=tuple(item_keys), distinct=self.distinct, limit=tail.limit,
            offset=tail.offset,
            branches=tuple(self._branch(side, columns) for side, columns in zip(self.sides, keys, strict=True)),
        )  # fmt: skip

    def _branch(self, side: _Side, keys: tuple[Template, ...]) -> Branch:
        draft, parts = side.draft, side.parts
        return Branch(
            of_tokens(draft.sql, draft.tokens[: parts.head_end]) + optimizer_hint(draft, parts),
            as_written(draft, parts.head_end, parts.items_end),
            as_written(draft, parts.items_end, parts.where_end),
            keys,
        )

    # ── ORDER BY and LIMIT for all ──

    def _limit_at(self) -> int:
        draft = self.draft
        return next((i for i in range(self.tail, len(draft.tokens)) if draft.word(i) == "LIMIT"), len(draft.tokens))

    def _order(self) -> list[Term] | str:
        draft = self.draft
        if draft.word(self.tail) != "ORDER":
            return []
        if draft.word(self.tail + 1) != "BY":
            return "ORDER in an unusual place"
        return [term_of(draft, span) for span in split(draft, self.tail + 2, self._limit_at())]

    def _named(self, term: Term) -> int:
        """Number of the column that a term names; 0 when that is not certain."""
        tokens = self.draft.tokens[term.span.first : term.span.end]
        name = bare_column(tokens)
        found = [i for i, item in enumerate(self.sides[0].parts.items, 1) if name and item.name == name.lower()]
        return found[0] if len(found) == 1 and len(tokens) == 1 else 0

    # ── sort keys ──

    def _keys(self) -> list[tuple[SortKey, ...] | None] | str:
        """For each column the keys that the branches have for it; None when it can have none."""
        columns = [side.parts.items for side in self.sides]
        if any(item.star for items in columns for item in items):
            return "* in a UNION that is sorted or told apart"
        if len({len(items) for items in columns}) != 1:
            return "a UNION of different numbers of columns"
        found: list[tuple[SortKey, ...] | None] = []
        for number in range(len(columns[0])):
            keys = [self._key(side, side.parts.items[number]) for side in self.sides]
            known = tuple(key for key in keys if key is not None)
            alike = len({(key.kind, key.collation) for key in known}) == 1
            found.append(known if alike and len(known) == len(keys) else None)
        return found

    def _key(self, side: _Side, item: Item) -> SortKey | None:
        draft = side.draft
        column = owner(draft, item.span, side.root)
        if column is not None:
            kind = column[1].data_type
            if kind not in _BY_VALUE | _TEXT or "zerofill" in column[1].column_type.lower():
                return None
        key = sort_key(draft, item.span, side.root, whole=True)
        if isinstance(key, str):
            return None
        if key.kind is KeyKind.TEXT:
            return key
        # Of an expression the type of the result column decides, which the merge sees.
        return SortKey(KeyKind.VALUE, key.columns[:1])
