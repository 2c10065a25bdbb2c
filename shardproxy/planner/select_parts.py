"""A SELECT cut into its clauses at the tokens: what a merge needs to know to put columns in and take clauses off."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sqlglot import exp

from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.locks import outer_locks
from shardproxy.planner.plan import Value
from shardproxy.planner.template import Template
from shardproxy.sql.functions import AGGREGATES
from shardproxy.sql.tokens import Token, TokenKind
from shardproxy.sql.words import words

_CLAUSES = ("FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT")
_MODIFIERS = words("""
    ALL DISTINCT DISTINCTROW HIGH_PRIORITY STRAIGHT_JOIN SQL_SMALL_RESULT SQL_BIG_RESULT SQL_BUFFER_RESULT SQL_CACHE
    SQL_NO_CACHE
""")
_WHOLE = words("GROUP HAVING DISTINCT DISTINCTROW ORDER LIMIT OFFSET FETCH")


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens first to end, the latter not included."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Item:
    """A select item: its expression, its alias or None; `column`: the name of the column that it is, else ""."""

    span: Span
    alias: str | None
    column: str
    star: bool

    @property
    def name(self) -> str:
        """The name by which ORDER BY finds it, lower case."""
        return (self.alias if self.alias is not None else self.column).lower()


@dataclass(frozen=True, slots=True)
class Term:
    """A term of ORDER BY or GROUP BY; position: the literal that it is, when it is a plain number."""

    span: Span
    descending: bool = False
    directed: bool = False
    position: Value | None = None


@dataclass(slots=True)
class Parts:
    """The clauses. head_end: first token of the select list; where_end: behind FROM … WHERE; lock: where FOR UPDATE
    or its kin begins, at the end when there is none. rollup: WITH ROLLUP stands behind the terms of GROUP BY."""

    head_end: int
    items_end: int
    where_end: int
    body_end: int
    distinct: bool
    lock: int
    items: list[Item] = field(default_factory=list)
    group: list[Term] = field(default_factory=list)
    rollup: bool = False
    having: Span | None = None
    order: list[Term] = field(default_factory=list)
    limit: Value | None = None
    offset: Value | None = None


class Texts:
    """Texts of spans, to find equal expressions by. A plan serves statements with other literals too: `same` are those
    that must be equal there as they are here."""

    def __init__(self, draft: Draft) -> None:
        self._tokens = draft.tokens
        self._asked: dict[tuple[str, ...], list[Span]] = {}

    def of(self, span: Span) -> tuple[str, ...]:
        """The span's text, token by token; parameters are never equal."""
        text = tuple(
            f"?{i}" if token.kind is TokenKind.PARAM else token.text
            for i, token in enumerate(self._tokens[span.first : span.end], span.first)
        )
        spans = self._asked.setdefault(text, [])
        if span not in spans:
            spans.append(span)
        return text

    def same(self) -> tuple[tuple[int, int], ...]:
        """Pairs of literals, by their indexes, of spans that have been asked for and are equal."""
        pairs: dict[tuple[int, int], None] = {}
        for first, *others in self._asked.values():
            for other in others:
                for a, b in zip(
                    self._tokens[first.first : first.end], self._tokens[other.first : other.end], strict=True
                ):
                    if a.literal >= 0 and a.literal != b.literal:
                        pairs[a.literal, b.literal] = None
        return tuple(pairs)


def cut(draft: Draft, tree: exp.Expr) -> Parts | str:
    """The clauses of a plain SELECT; or, for people, what makes it none."""
    if not isinstance(tree, exp.Select) or draft.word(0) != "SELECT":
        return "a query in parentheses or of several parts"
    inner = _inner_whole(draft)
    if inner:
        return inner
    end = outer_locks(draft)
    if end < len(draft.tokens):
        draft = replace(draft)
        draft.use(draft.tokens[:end])
    starts = _clauses(draft)
    if isinstance(starts, str):
        return starts
    head_end = 1
    while draft.word(head_end) in _MODIFIERS:
        head_end += 1
    begin = {name: starts.get(name, end) for name in _CLAUSES}
    order_at = min(begin["ORDER"], begin["LIMIT"])
    group_at = min(begin["GROUP"], begin["HAVING"], order_at)
    parts = Parts(
        head_end, begin["FROM"], group_at, order_at,
        any(draft.word(i).startswith("DISTINCT") for i in range(head_end)), end,
    )  # fmt: skip
    if "FROM" not in starts:
        return "a SELECT without FROM"
    for problem in (
        _items(draft, tree, parts),
        _group(draft, parts, begin, order_at),
        _order(draft, parts, begin),
        limit_of(draft, parts, begin["LIMIT"]),
    ):
        if problem:
            return problem
    return parts


def _inner_whole(draft: Draft) -> str:
    """Words within parentheses that make a subquery more than its rows; aggregates have their own use for some."""
    inside: list[str] = []  # for each open parenthesis the word before it, SELECT when a query stands in it
    for i, token in enumerate(draft.tokens):
        word = token.upper
        if word == "(":
            inside.append("SELECT" if draft.word(i + 1) in ("SELECT", "WITH", "(") else draft.word(i - 1).lower())
        elif word == ")" and inside:
            inside.pop()
        elif inside:
            query = "SELECT" in inside
            if word in _WHOLE and (query or inside[-1] not in AGGREGATES):
                return f"{word} in a subquery"
            if query and draft.word(i + 1) == "(" and word.lower() in AGGREGATES:
                return f"{word}() in a subquery"
    return ""


def _clauses(draft: Draft) -> dict[str, int] | str:
    """Index of the word with which each clause begins; they stand in order, each once."""
    starts: dict[str, int] = {}
    depth = 0
    for i, token in enumerate(draft.tokens):
        word = token.upper
        depth += (word == "(") - (word == ")")
        if depth or word not in _CLAUSES or draft.word(i - 1) == "FOR":
            continue
        if word in starts or any(_CLAUSES.index(word) < _CLAUSES.index(other) for other in starts):
            return f"{word} in an unusual place"
        starts[word] = i
    return starts


def split(draft: Draft, first: int, end: int) -> list[Span]:
    """The spans between commas outside parentheses."""
    spans: list[Span] = []
    depth = 0
    start = first
    for i in range(first, end):
        word = draft.word(i)
        depth += (word == "(") - (word == ")")
        if word == "," and not depth:
            spans.append(Span(start, i))
            start = i + 1
    spans.append(Span(start, end))
    return spans


def _items(draft: Draft, tree: exp.Select, parts: Parts) -> str:
    spans = split(draft, parts.head_end, parts.items_end)
    if len(spans) != len(tree.expressions):
        return "a select list that is read in two ways"
    for span, node in zip(spans, tree.expressions, strict=True):
        if span.first >= span.end:
            return "an empty select item"
        last = span.end
        alias: str | None = None
        if isinstance(node, exp.Alias):
            token = draft.tokens[last - 1]
            if not is_name(token):
                return "an alias that is written as a string"
            alias = token.text
            last -= 2 if draft.word(last - 2) == "AS" else 1
        inner = Span(span.first, last)
        tokens = draft.tokens[inner.first : inner.end]
        parts.items.append(Item(inner, alias, bare_column(tokens), tokens[-1].text == "*" and _starred(tokens)))
    return ""


def _starred(tokens: tuple[Token, ...]) -> bool:
    return len(tokens) == 1 or tokens[-2].text == "."


def bare_column(tokens: tuple[Token, ...]) -> str:
    """The column that these tokens name and nothing else; "" for anything else."""
    if len(tokens) not in (1, 3, 5) or not all(is_name(t) for t in tokens[::2]):
        return ""
    if any(t.text != "." for t in tokens[1::2]) or tokens[0].upper in ("NULL", "TRUE", "FALSE", "DEFAULT"):
        return ""
    return tokens[-1].text


def _group(draft: Draft, parts: Parts, begin: dict[str, int], order_at: int) -> str:
    if begin["GROUP"] < order_at:
        if draft.word(begin["GROUP"] + 1) != "BY":
            return "GROUP in an unusual place"
        end = min(begin["HAVING"], order_at)
        parts.rollup = draft.word(end - 2) == "WITH" and draft.word(end - 1) == "ROLLUP"
        end -= 2 * parts.rollup
        parts.group = [term_of(draft, span) for span in split(draft, begin["GROUP"] + 2, end)]
        if any(term.span.first >= term.span.end for term in parts.group):
            return "an empty term of GROUP BY"
        if any(term.directed for term in parts.group):
            return "GROUP BY with a direction"
        if any(draft.word(term.span.first) in ("ROLLUP", "CUBE") for term in parts.group):
            return "ROLLUP"
    if begin["HAVING"] < order_at:
        parts.having = Span(begin["HAVING"] + 1, order_at)
    return ""


def _order(draft: Draft, parts: Parts, begin: dict[str, int]) -> str:
    if begin["ORDER"] < len(draft.tokens):
        if draft.word(begin["ORDER"] + 1) != "BY":
            return "ORDER in an unusual place"
        parts.order = [term_of(draft, span) for span in split(draft, begin["ORDER"] + 2, begin["LIMIT"])]
    return ""


def term_of(draft: Draft, span: Span) -> Term:
    """A term of ORDER BY or GROUP BY."""
    end = span.end
    direction = draft.word(end - 1)
    directed = direction in ("ASC", "DESC")
    end -= directed
    position = None
    if end - span.first == 1:
        token = draft.tokens[span.first]
        if token.kind is TokenKind.NUMBER and token.literal >= 0:
            position = Value(token.literal)
    return Term(Span(span.first, end), direction == "DESC", directed, position)


def limit_of(draft: Draft, parts: Parts, at: int) -> str:
    """Reads the LIMIT that stands at the end, at token `at`, into `parts`; why it cannot, or ""."""
    tokens = draft.tokens[at:]
    if not tokens:
        return ""
    values = [Value(t.literal) for t in tokens[1::2] if t.literal >= 0]
    if len(tokens) == 2 and len(values) == 1:
        parts.limit = values[0]
    elif len(tokens) == 4 and len(values) == 2 and tokens[2].upper == ",":
        parts.offset, parts.limit = values
    elif len(tokens) == 4 and len(values) == 2 and tokens[2].upper == "OFFSET":
        parts.limit, parts.offset = values
    else:
        return "a LIMIT of an unusual form"
    return ""


def optimizer_hint(draft: Draft, parts: Parts) -> bytes:
    """What stands between SELECT and the first item: an optimizer hint, or a blank."""
    tokens, sql = draft.tokens, draft.sql
    between = sql[tokens[parts.head_end - 1].end : tokens[parts.head_end].start]
    start = between.find(b"/*+")
    end = between.find(b"*/", start)
    return b" " + between[start : end + 2] + b" " if start >= 0 and end >= 0 else b" "


def as_written(draft: Draft, first: int, end: int) -> Template:
    """Tokens first to end with what stands between them as it was written: labels of columns come from it."""
    pieces: list[bytes | int] = []
    at = draft.tokens[first].start
    for token in draft.tokens[first:end]:
        if token.literal >= 0:
            pieces.append(draft.sql[at : token.start])
            pieces.append(token.literal)
            at = token.end
    pieces.append(draft.sql[at : draft.tokens[end - 1].end])
    return Template(tuple(p for p in pieces if p != b""))
