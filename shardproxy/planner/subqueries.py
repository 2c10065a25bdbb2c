"""Subqueries that can run first: `column IN (SELECT …)`, NOT IN, EXISTS, and `column = (SELECT MAX(…) …)`.

Such a term stands in the outermost WHERE, under nothing but AND. It refers to no table outside itself: run alone it is
the same query, for what its own tables do not have a server does not find (and then scratch tables are used after all).
Its result is put in its place as literals (subquery_values), and what comes out is planned like any statement: a list
of keys leads to their shards.

Not where the clock is read, or what differs from call to call: the statement has one time, and is two texts here.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from shardproxy.errors import SqlError
from shardproxy.planner.blocks import Block, Facts
from shardproxy.planner.calls import UNKNOWN, closing
from shardproxy.planner.conditions import opaque
from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.gather import gather
from shardproxy.planner.parse import parse
from shardproxy.planner.plan import Group, Plan, Spread, StatementKind
from shardproxy.planner.select_parts import as_written
from shardproxy.planner.subquery_plan import Compared, Form, SubqueriesFirst, Subquery
from shardproxy.planner.subquery_values import literal
from shardproxy.planner.template import Template
from shardproxy.planner.unseen import hides
from shardproxy.sql.functions import AGGREGATES, CLOCK, LOCKS, RANDOM, SERVER, SESSION
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words
from shardproxy.topology.schema import Column

Planner = Callable[[Draft], Plan | None]  # of a SELECT whose tokens are read
Lexer = Callable[[bytes], Draft]

_NUMBERS = words("tinyint smallint mediumint int bigint decimal")
_KINDS = {
    **dict.fromkeys(_NUMBERS, Compared.NUMBER),
    "date": Compared.DATE,
    "datetime": Compared.DATETIME,
    "varchar": Compared.TEXT,
}
_SIGNS = frozenset({"=", "<", ">", "<=", ">=", "<>", "!=", "<=>"})
# What ends WHERE in a statement of the kind at hand.
_ENDS = frozenset({"GROUP", "HAVING", "ORDER", "LIMIT"})
_NOT_OUTSIDE = frozenset(
    {"UNION", "EXCEPT", "INTERSECT", "MINUS", "WITH", "INTO", "LOCK", "FOR", "PROCEDURE", "WINDOW"}
)
# In the WHERE itself, outside parentheses: AND does not part it then.
_NOT_BESIDE = frozenset({"OR", "||", "CASE", "XOR"})
_NOT_INSIDE = frozenset({
    "SELECT", "UNION", "EXCEPT", "INTERSECT", "MINUS", "WITH", "INTO", "LOCK", "FOR", "PROCEDURE", "WINDOW", "OVER",
    "LIMIT", "OFFSET", "FETCH", "ORDER", "GROUP", "HAVING", "VALUES", "TABLE", "JSON_TABLE", "LATERAL",
})  # fmt: skip
_CHECKED = frozenset({"GROUP", "HAVING", "DISTINCT", "DISTINCTROW"})  # with these servers look at what depends on what
_NOT_TWICE = CLOCK | RANDOM | LOCKS | SERVER | SESSION | {UNKNOWN}
_OF_COLUMNS: tuple[type[exp.Expr], ...] = (exp.Min, exp.Max, exp.Sum, exp.Count)
_EXAMPLES = {
    Compared.NUMBER: b"1",
    Compared.DATE: b"2000-01-01",
    Compared.DATETIME: b"2000-01-01 00:00:00",
    Compared.TEXT: b"a",
}


def subqueries_first(
    draft: Draft, facts: Facts, groups: tuple[Group, ...], lexed: Lexer, planned: Planner
) -> SubqueriesFirst | None:
    """How a SELECT that is not exact over several shards by itself is so by two steps; None where it is not.

    lexed: the draft of another text, its tokens read; planned: the plan of such a draft.
    """
    if facts.root is None or not _may(draft, groups):
        return None
    finder = _Finder(draft, facts.root, lexed, planned)
    found = [one for first, end in _terms(draft) if (one := finder.term(first, end)) is not None]
    if not found:
        return None
    around: list[Template] = []
    outer: list[bytes] = []
    at = 0
    for place, end, subquery in found:
        around.append(as_written(draft, at, place))
        outer += [_bytes(draft, at, place), _example(subquery), b" "]
        at = end
    rest = at < len(draft.tokens)
    around.append(as_written(draft, at, len(draft.tokens)) if rest else Template())
    outer.append(_bytes(draft, at, len(draft.tokens)) if rest else b"")
    try:
        plan = planned(lexed(b"".join(outer)))
    except SqlError:
        return None
    fit = (Spread.CONCAT, Spread.MERGE, Spread.ANY)
    if plan is None or plan.spread not in fit or not plan.read or plan.fixed_time:
        return None
    checked = bool(draft.words & _CHECKED) or bool(draft.functions & AGGREGATES)
    return SubqueriesFirst(tuple(subquery for _, _, subquery in found), tuple(around), checked)


def _may(draft: Draft, groups: tuple[Group, ...]) -> bool:
    modes = draft.context.modes
    return (
        draft.kind is StatementKind.SELECT
        and draft.word(0) == "SELECT"
        and not (draft.expanded or draft.snapshot or draft.shard_hint or draft.pins or draft.found_rows)
        and not (modes.gathered or modes.auto_is_null or modes.foreign or modes.high_not)
        and not draft.functions & _NOT_TWICE
        and not draft.words & _NOT_OUTSIDE
        and not any(t.kind in (TokenKind.USER_VARIABLE, TokenKind.SYSTEM_VARIABLE) for t in draft.tokens)
        and not opaque(draft)
        and b"/*!" not in draft.sql
        and b"/*M!" not in draft.sql
        and not hides(group.keyspace for group in groups)
    )


def _terms(draft: Draft) -> list[tuple[int, int]]:
    """The terms of the outermost WHERE, between its ANDs: tokens first to end. [] where it is unclear."""
    spans: list[tuple[int, int]] = []
    depth = 0
    start = -1
    between = False
    for i in range(len(draft.tokens)):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if depth:
            continue
        if word == "WHERE":
            if start >= 0:
                return []
            start = i + 1
        elif start < 0:
            continue
        elif word in _NOT_BESIDE:
            return []
        elif word == "BETWEEN":
            between = True
        elif word in ("AND", "&&") and between:
            between = False
        elif word in ("AND", "&&"):
            spans.append((start, i))
            start = i + 1
        elif word in _ENDS:
            return [*spans, (start, i)]
    return [*spans, (start, len(draft.tokens))] if start >= 0 else []


def _bytes(draft: Draft, first: int, end: int) -> bytes:
    return draft.sql[draft.tokens[first].start : draft.tokens[end - 1].end]


def _example(one: Subquery) -> bytes:
    if one.form is Form.EXISTS:
        return b" (1 = 1) "
    example = literal(one, _EXAMPLES[one.compared]) or b"NULL"
    return example if one.form is Form.SCALAR else b"(" + example + b")"


class _Finder:
    """Looks at one term after the other."""

    def __init__(self, draft: Draft, root: Block, lexed: Lexer, planned: Planner) -> None:
        self.draft = draft
        self.root = root
        self.lexed = lexed
        self.planned = planned

    def term(self, first: int, end: int) -> tuple[int, int, Subquery] | None:
        """The place of a subquery that is all of this term, but for what it is compared with, and what it is."""
        draft = self.draft
        opening = next((i for i in range(first, end) if draft.word(i) == "("), end)
        if opening >= end or closing(draft, opening) != end - 1 or draft.word(opening + 1) != "SELECT":
            return None
        head = [draft.word(i) for i in range(first, opening)]
        if head in (["EXISTS"], ["NOT", "EXISTS"]):
            found = self._query(opening, end, Form.EXISTS, None)
            return None if found is None else (opening - 1, end, found)
        form, names = Form.SCALAR, opening - 1
        if head[-2:] == ["NOT", "IN"]:
            form, names = Form.NOT_IN, opening - 2
        elif head[-1:] == ["IN"]:
            form = Form.IN
        elif not head or head[-1] not in _SIGNS:
            return None
        column = self._column(first, names)
        found = None if column is None else self._query(opening, end, form, column)
        return None if found is None else (opening, end, found)

    def _column(self, first: int, end: int) -> Column | None:
        """The column that these tokens name, when it is certainly one of the outermost FROM."""
        tokens = self.draft.tokens[first:end]
        if len(tokens) not in (1, 3) or not all(is_name(t) for t in tokens[::2]):
            return None
        if len(tokens) == 3 and tokens[1].text != ".":
            return None
        return self._of(self.root, "" if len(tokens) == 1 else tokens[0].text, tokens[-1].text)

    def _of(self, block: Block, table: str, name: str) -> Column | None:
        """The one column of this name among a block's sources. None also where a source's columns are not known."""
        found: list[Column] = []
        for source in block.sources:
            if table and source.name != table:
                continue
            known = self.draft.context.catalog
            schema = None if source.table is None else known.get(source.database, source.table.name)
            if schema is None:
                return None
            column = schema.column(name)
            if column is not None:
                found.append(column)
        return found[0] if len(found) == 1 else None

    def _query(self, opening: int, end: int, form: Form, column: Column | None) -> Subquery | None:
        draft = self.draft
        inside = draft.tokens[opening + 2 : end - 1]
        if any(t.kind is TokenKind.WORD and t.upper in _NOT_INSIDE for t in inside):
            return None
        compared = Compared.NOTHING if column is None else _KINDS.get(column.data_type)
        if compared is None:
            return None
        text = _bytes(draft, opening + 1, end - 1)
        if b"shardproxy:" in text:
            return None
        try:
            inner = self.lexed(text)
            tree = parse(inner, inner.tokens)
            facts = gather(inner, tree)
            plan = self.planned(inner)
        except SqlError:
            return None
        if plan is None or not isinstance(tree, exp.Select) or facts.root is None or not plan.read:
            return None
        if not all(self._inside(column, facts.root) for column in tree.find_all(exp.Column)):
            return None
        whole = self._whole(inner, plan, form)
        if whole is None or plan.fixed_time or hides(group.keyspace for group in plan.groups):
            return None
        collation = ""
        if column is not None:
            shown = self._shown(tree, facts.root, column, compared)
            if shown is None:
                return None
            collation = shown
        return Subquery(form, as_written(draft, opening + 1, end - 1), whole, compared, collation)

    def _inside(self, column: exp.Column, root: Block) -> bool:
        """Whether a column is certainly one of the subquery's own tables: there it is looked for first."""
        if column.args.get("catalog") or column.db:
            return False
        for source in root.sources:
            if source.table is None or (column.table and source.name != column.table):
                continue
            schema = self.draft.context.catalog.get(source.database, source.table.name)
            if schema is not None and schema.column(column.name) is not None:
                return True
        return False

    def _whole(self, inner: Draft, plan: Plan, form: Form) -> bool | None:
        """See Subquery.whole; None where the query can be neither."""
        if plan.spread in (Spread.CONCAT, Spread.ANY):
            return False
        if plan.spread is not Spread.MERGE or plan.merge is None:
            return None
        if inner.functions & AGGREGATES:
            return True if form is Form.SCALAR else None
        return False  # DISTINCT: a value that two shards give is one value in a list

    def _shown(self, tree: exp.Select, root: Block, column: Column, compared: Compared) -> str | None:
        """The collation of the subquery's only column, "" for what is no text; None where it is not fit to compare."""
        if len(tree.expressions) != 1:
            return None
        item = tree.expressions[0].unalias()
        inner = item
        if isinstance(item, _OF_COLUMNS):
            if isinstance(item, (exp.Sum, exp.Count)):
                return "" if compared is Compared.NUMBER and self._counted(item, root) else None
            inner = item.this
        if not isinstance(inner, exp.Column) or inner.db or inner.args.get("catalog"):
            return None
        found = self._of(root, inner.table, inner.name)
        if found is None or _KINDS.get(found.data_type) is not compared:
            return None
        if compared is not Compared.TEXT:
            return ""
        same = found.charset == column.charset == "utf8mb4" and found.collation == column.collation
        return found.collation if same and (found.collation or "").startswith("utf8mb4_") else None

    def _counted(self, item: exp.Expr, root: Block) -> bool:
        """COUNT(…) of anything that a shard counts, SUM(column)."""
        if isinstance(item, exp.Count):
            return True
        inner = item.this
        if not isinstance(inner, exp.Column):
            return False
        found = self._of(root, inner.table, inner.name)
        return found is not None and found.data_type in _NUMBERS
