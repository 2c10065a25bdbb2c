"""Rung 2: may the proxy merge the shards' rows into the answer, and how?

Each row of the joined FROM and WHERE is on exactly one shard (`spread.obstacle` holds for the rest of the statement).
Each shard is asked the statement itself, with sort keys put before the select list; see merge_plan.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from shardproxy.planner.blocks import Block, Facts
from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.merge_groups import Grouping
from shardproxy.planner.merge_plan import GroupMerge, GroupTerm, MergePlan, OrderTerm, SortKey
from shardproxy.planner.plan import Group
from shardproxy.planner.select_parts import Item, Parts, Span, Term, Texts, as_written, bare_column, cut, optimizer_hint
from shardproxy.planner.sort_keys import certain_key, natural_join, owner, sort_key, star_text
from shardproxy.planner.spread import obstacle
from shardproxy.planner.template import Template, of_tokens
from shardproxy.planner.unseen import Hidden, body, hides, unseen
from shardproxy.sql.functions import AGGREGATES, RESERVED
from shardproxy.sql.tokens import TokenKind

_MERGED = frozenset({"GROUP", "HAVING", "DISTINCT", "DISTINCTROW", "ORDER", "LIMIT", "OFFSET"})


def merge(draft: Draft, tree: exp.Expr, facts: Facts, groups: tuple[Group, ...]) -> MergePlan | str:
    """The plan of a SELECT over several shards; or, for people, why they cannot be merged."""
    rest = replace(draft)
    rest.words = draft.words - _MERGED - _rollup(draft)
    rest.functions = draft.functions - AGGREGATES
    why = obstacle(rest, facts, groups)
    if why:
        return why
    if any(t.kind is TokenKind.USER_VARIABLE for t in draft.tokens):
        return "a user variable, whose type is not known"
    if b"/*!" in draft.sql or b"/*M!" in draft.sql:
        return "an executable comment"
    parts = cut(draft, tree)
    if isinstance(parts, str):
        return parts
    assert facts.root is not None
    merging = _Merge(draft, tree, parts, facts.root)
    if hides(group.keyspace for group in groups):
        found = unseen(draft, facts, groups)
        if isinstance(found, str):
            return found
        merging.unseen = found
    return merging.plan()


def _rollup(draft: Draft) -> frozenset[str]:
    """The word WITH where it stands for WITH ROLLUP only."""
    found = [draft.word(i + 1) for i in range(len(draft.tokens)) if draft.word(i) == "WITH"]
    return frozenset({"WITH"}) if found == ["ROLLUP"] else frozenset()


class _Merge:
    def __init__(self, draft: Draft, tree: exp.Expr, parts: Parts, root: Block) -> None:
        self.draft = draft
        self.tree = tree
        self.parts = parts
        self.root = root
        self.texts = Texts(draft)
        self.unseen: tuple[Hidden, bytes] | None = None  # what is hidden, and the key by which

    def plan(self) -> MergePlan | str:
        parts = self.parts
        groups: GroupMerge | None = None
        if parts.rollup or (self._aggregated() and not self._disjoint(parts.group)):
            grouped = self._grouped()
            if isinstance(grouped, str):
                return grouped
            terms, groups = grouped
        else:
            found = self._order()
            if isinstance(found, str):
                return found
            terms = found
        items = self._items(bool(terms) or groups is not None)
        if isinstance(items, str):
            return items
        distinct = parts.distinct and groups is None and not self._distinct_by_key()
        if distinct:
            covered = self._cover(terms)
            if isinstance(covered, str):
                return covered
            terms = covered
        draft, having = self.draft, parts.having
        if having is not None and groups is None and terms and not self._shown(having):
            return "HAVING of a column that is not shown"
        return MergePlan(
            of_tokens(draft.sql, draft.tokens[: parts.head_end]) + optimizer_hint(draft, parts),
            items,
            self._body(),
            self._group_terms(terms, groups),
            None if having is None or groups is not None else as_written(draft, having.first, having.end),
            terms,
            tuple(self._item_key(item) for item in parts.items) if self._positions(terms) else (),
            distinct,
            groups,
            parts.limit,
            parts.offset,
            as_written(draft, parts.lock, len(draft.tokens)) if parts.lock < len(draft.tokens) else None,
            self.texts.same(),
        )

    def _body(self) -> Template:
        draft, parts = self.draft, self.parts
        if self.unseen is None:
            return as_written(draft, parts.items_end, parts.where_end)
        return body(draft, parts.items_end, parts.where_end, *self.unseen)

    def _shown(self, having: Span) -> bool:
        """Whether every name in HAVING is one of the select list or of GROUP BY: else a server refuses it, and would
        find it among the sort keys that are put in."""
        if any(item.star for item in self.parts.items):
            return True
        tokens = self.draft.tokens
        shown = {name for item in self.parts.items for name in (item.name, item.column.lower())}
        shown |= {bare_column(tokens[term.span.first : term.span.end]).lower() for term in self.parts.group}
        return all(
            tokens[i].text.lower() in shown
            for i in range(having.first, having.end)
            if is_name(tokens[i])
            and self.draft.word(i + 1) not in ("(", ".")
            and tokens[i].text.lower() not in (RESERVED if tokens[i].upper else ())
        )

    def _group_terms(self, terms: tuple[OrderTerm, ...], groups: GroupMerge | None) -> tuple[GroupTerm, ...]:
        """The shards' GROUP BY: the statement's, and the DISTINCT values of aggregates."""
        given = [GroupTerm(as_written(self.draft, t.span.first, t.span.end), t.position) for t in self.parts.group]
        values = terms[groups.outer :] if groups is not None and groups.outer >= 0 else ()
        return (*given, *(GroupTerm(term.text) for term in values))

    def _positions(self, terms: tuple[OrderTerm, ...]) -> bool:
        return any(t.position is not None for t in terms)

    def _grouped(self) -> tuple[tuple[OrderTerm, ...], GroupMerge] | str:
        ordered: list[tuple[Term, Span | None]] = []
        for term in self.parts.order if self.parts.group else ():  # one row needs no order
            meant = None if term.position is not None else self._meant(term)
            if isinstance(meant, str):
                return meant
            ordered.append((term, meant))
        return Grouping(self.draft, self.parts, self.root, self.texts).plan(ordered)

    # ── rows or groups ──

    def _aggregated(self) -> bool:
        return bool(self.parts.group) or bool(self.draft.functions & AGGREGATES)  # HAVING alone chooses rows

    def _disjoint(self, group: list[Term]) -> bool:
        """Whether no group has rows on two shards: its terms include the shard key."""
        return any(certain_key(self.draft, span, self.root) for span in map(self._grouped_by, group) if span)

    def _grouped_by(self, term: Term) -> Span | None:
        """What a term of GROUP BY means: a column of FROM before an alias. None when that is not certain."""
        if term.position is not None:
            return None
        name = bare_column(self.draft.tokens[term.span.first : term.span.end])
        aliased = [i for i in self.parts.items if i.alias is not None and i.alias.lower() == name.lower()]
        if not aliased or owner(self.draft, term.span, self.root) is not None:
            return term.span
        return None

    def _distinct_by_key(self) -> bool:
        return any(certain_key(self.draft, item.span, self.root) for item in self.parts.items)

    # ── the select list ──

    def _items(self, keyed: bool) -> Template | str:
        """The select list as it is; with hidden columns before it, a lone star must name its tables."""
        parts, draft = self.parts, self.draft
        whole = as_written(draft, parts.head_end, parts.items_end)
        first = parts.items[0]
        if not keyed or not first.star or first.span.end - first.span.first > 1:
            return whole
        names = star_text(self.root)
        if names is None or natural_join(self.tree):
            return "* of joined columns"
        rest = as_written(draft, first.span.end, parts.items_end) if first.span.end < parts.items_end else Template()
        return names + rest

    def _item_key(self, item: Item) -> SortKey | None:
        if item.star:
            return None
        key = sort_key(self.draft, item.span, self.root, bool(self.parts.group), bool(self.parts.group))
        return key if isinstance(key, SortKey) else None

    # ── ORDER BY ──

    def _order(self) -> tuple[OrderTerm, ...] | str:
        terms: list[OrderTerm] = []
        for term in self.parts.order:
            text = as_written(self.draft, term.span.first, term.span.end)
            if term.position is not None:
                if any(item.star for item in self.parts.items):
                    return "ORDER BY a position with *"
                terms.append(OrderTerm(text, None, term.descending, term.position))
                continue
            meant = self._meant(term)
            if isinstance(meant, str):
                return meant
            key = sort_key(self.draft, meant, self.root, grouped=bool(self.parts.group))
            if isinstance(key, str):
                return key
            terms.append(OrderTerm(text, key, term.descending))
        return tuple(terms)

    def _meant(self, term: Term) -> Span | str:
        """The expression that a term of ORDER BY orders by: that of a select item when it names one."""
        draft, items = self.draft, self.parts.items
        tokens = draft.tokens[term.span.first : term.span.end]
        name = bare_column(tokens)
        if name and len(tokens) == 1:
            named = [item for item in items if item.name == name.lower()]
            if not named:
                return term.span
            if any(item.star for item in items) and any(item.alias is not None for item in named):
                return "ORDER BY an alias beside *"
            texts = {self.texts.of(item.span) for item in named}
            return named[0].span if len(texts) == 1 else "ORDER BY a name of several select items"
        aliases = {item.alias.lower() for item in items if item.alias is not None and item.alias.lower() != item.column}
        if not name and any(t.text.lower() in aliases for t in tokens if t.upper or t.kind.value == "name"):
            return "ORDER BY an expression of an alias"
        return term.span

    # ── DISTINCT ──

    def _cover(self, terms: tuple[OrderTerm, ...]) -> tuple[OrderTerm, ...] | str:
        """The terms, all of select items, and after them the items that they do not order by."""
        items = self.parts.items
        if any(item.star for item in items):
            return "DISTINCT *"
        if any(term.position is not None for term in terms):
            return "DISTINCT and ORDER BY a position"
        ordered: set[tuple[str, ...]] = set()
        for term in self.parts.order:
            meant = self._meant(term)
            assert isinstance(meant, Span)
            ordered.add(self.texts.of(meant))
        if not ordered <= {self.texts.of(item.span) for item in items}:
            return "DISTINCT and ORDER BY something else"
        more = list(terms)
        for number, item in enumerate(items, 1):
            if self.texts.of(item.span) in ordered:
                continue
            key = sort_key(self.draft, item.span, self.root, whole=True)
            if isinstance(key, str):
                return key
            more.append(OrderTerm(Template(), key, False, item=number))
            ordered.add(self.texts.of(item.span))
        return tuple(more)
