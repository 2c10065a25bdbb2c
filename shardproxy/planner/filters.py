"""Conditions on the columns of one table that its shards can judge beforehand, exactly and in silence.

Only what is listed here: comparisons of columns with literals or columns of a like type, LIKE, BETWEEN, IN, IS NULL, a
few functions. Such a condition is the same on every server with the session's state, raises nothing, and depends on
nothing but the row. A plan does not know its literals, so what they must be is said (`Filter.literals`) and looked at
when they are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.scratch_plan import Kind
from shardproxy.planner.select_parts import Span, bare_column
from shardproxy.planner.template import Template, joined, template
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words
from shardproxy.topology.schema import Column

_INTEGERS = words("tinyint smallint mediumint int bigint")
_NUMBERS = _INTEGERS | words("decimal float double")
_TEXTS = words("char varchar tinytext text mediumtext longtext")
_MOMENTS = words("date datetime timestamp")
_COMPARISONS = frozenset({"=", "<=>", "<>", "!=", "<", "<=", ">", ">="})
_UNITS = words("SECOND MINUTE HOUR DAY WEEK MONTH QUARTER YEAR")
# Functions of one text column → what they give.
_OF_TEXT = {
    "LOWER": Kind.TEXT, "UPPER": Kind.TEXT,
    "LENGTH": Kind.NUMBER, "CHAR_LENGTH": Kind.NUMBER, "CHARACTER_LENGTH": Kind.NUMBER,
}  # fmt: skip
_OF_MOMENT = words("YEAR MONTH DAYOFMONTH QUARTER")
_LOOSER = words("OR XOR")  # they bind looser than AND
_LOOSER_SIGNS = frozenset({"||", ":="})

Columns = Callable[[Span], Column | None]  # the column of the table that these tokens name, None for anything else


@dataclass(frozen=True, slots=True)
class Filter:
    """text: the condition; literals: for each its index, and of what kind it must be for the condition to be used."""

    text: Template
    literals: tuple[tuple[int, Kind], ...] = ()


@dataclass(frozen=True, slots=True)
class _Operand:
    """kind: None for a lone literal, whose index is `literal`; collation of a column's text."""

    kind: Kind | None
    end: int
    collation: str = ""
    literal: int = -1


def filters(draft: Draft, span: Span, columns: Columns) -> list[Filter]:
    """What the truth of an expression says of one table's rows: conditions that are all true where it is."""
    found: list[Filter] = []
    for term in conjuncts(draft, span):
        judged = _Condition(draft, columns).whole(term)
        if judged is not None:
            found.append(judged)
            continue
        choices = _choices(draft, term)
        each = [filters(draft, choice, columns) for choice in choices] if len(choices) > 1 else []
        if each and all(each):
            text = joined([all_of(some).text for some in each], b" OR ")
            literals = tuple(pair for some in each for one in some for pair in one.literals)
            found.append(Filter(b"(" + text + b")", literals))
    return found


def equalities(draft: Draft, span: Span) -> list[tuple[Span, Span]]:
    """The two sides of each term `name = name` of an AND."""
    found: list[tuple[Span, Span]] = []
    for term in conjuncts(draft, span):
        signs = [i for i in range(term.first, term.end) if draft.tokens[i].text == "="]
        if len(signs) == 1:
            sides = Span(term.first, signs[0]), Span(signs[0] + 1, term.end)
            if all(bare_column(draft.tokens[side.first : side.end]) for side in sides):
                found.append(sides)
    return found


def is_integer(column: Column) -> bool:
    """Whether two such columns are equal exactly when their values are written alike."""
    return column.data_type in _INTEGERS and "zerofill" not in column.column_type.lower()


def all_of(some: list[Filter]) -> Filter:
    """One condition of several."""
    if len(some) == 1:
        return some[0]
    text = joined([one.text for one in some], b" AND ")
    return Filter(b"(" + text + b")", tuple(pair for one in some for pair in one.literals))


def conjuncts(draft: Draft, span: Span) -> list[Span]:
    """The terms of an AND, parentheses around them undone; the whole where something binds looser."""
    span = _unwrapped(draft, span)
    cuts: list[int] = []
    between = case = 0
    for i in _outside(draft, span):
        word = draft.word(i)
        case += (word == "CASE") - (word == "END")
        if case:
            continue
        if word in _LOOSER or draft.tokens[i].text in _LOOSER_SIGNS:
            return [span]
        between += word == "BETWEEN"
        if word == "AND" and between:
            between -= 1
        elif word == "AND":
            cuts.append(i)
    if not cuts:
        return [span]
    parts = [Span(a, b) for a, b in zip([span.first, *(i + 1 for i in cuts)], [*cuts, span.end], strict=True)]
    return [term for part in parts for term in conjuncts(draft, part)]


def _choices(draft: Draft, span: Span) -> list[Span]:
    """The terms of an OR."""
    cuts: list[int] = []
    case = 0
    for i in _outside(draft, span):
        word = draft.word(i)
        case += (word == "CASE") - (word == "END")
        if word == "XOR" or draft.tokens[i].text in _LOOSER_SIGNS:
            return [span]
        if word == "OR" and not case:
            cuts.append(i)
    return [Span(a, b) for a, b in zip([span.first, *(i + 1 for i in cuts)], [*cuts, span.end], strict=True)]


def _unwrapped(draft: Draft, span: Span) -> Span:
    while (
        span.end - span.first > 2
        and draft.word(span.first) == "("
        and draft.word(span.first + 1) != "SELECT"
        and closing(draft, span.first) == span.end - 1
    ):
        span = Span(span.first + 1, span.end - 1)
    return span


def _outside(draft: Draft, span: Span) -> list[int]:
    """Indexes of tokens that are not inside parentheses."""
    found: list[int] = []
    at = span.first
    while at < span.end:
        found.append(at)
        at = closing(draft, at) + 1 if draft.word(at) == "(" else at + 1
    return found


class _No(Exception):
    """It is none of the conditions that are known here."""


class _Condition:
    def __init__(self, draft: Draft, columns: Columns) -> None:
        self.draft = draft
        self.columns = columns
        self.literals: list[tuple[int, Kind]] = []
        self.seen = False  # a column

    def whole(self, span: Span) -> Filter | None:
        """The filter that these tokens are; None when they are none, or name no column."""
        try:
            if self._any(span.first, span.end) != span.end or not self.seen:
                return None
        except _No:
            return None
        return Filter(b"(" + template(self.draft, span.first, span.end) + b")", tuple(self.literals))

    # ── OR, AND, NOT ──

    def _any(self, at: int, end: int) -> int:
        at = self._all(at, end)
        while at < end and self.draft.word(at) == "OR":
            at = self._all(at + 1, end)
        return at

    def _all(self, at: int, end: int) -> int:
        at = self._one(at, end)
        while at < end and self.draft.word(at) == "AND":
            at = self._one(at + 1, end)
        return at

    def _one(self, at: int, end: int) -> int:
        draft = self.draft
        while draft.word(at) == "NOT":
            at += 1
        if draft.word(at) == "(":
            close = closing(draft, at)
            if self._any(at + 1, close) != close:
                raise _No
            return close + 1
        return self._comparison(at, end)

    # ── comparisons ──

    def _comparison(self, at: int, end: int) -> int:
        draft = self.draft
        left = self._operand(at)
        at = left.end
        if at < end and draft.tokens[at].text in _COMPARISONS and draft.tokens[at].kind is TokenKind.SIGN:
            right = self._operand(at + 1)
            self._alike(left, right)
            return right.end
        if draft.word(at) == "IS":
            at += 1 + (draft.word(at + 1) == "NOT")
            if draft.word(at) != "NULL":
                raise _No
            return at + 1
        at += draft.word(at) == "NOT"
        match draft.word(at):
            case "LIKE" if left.kind is Kind.TEXT:
                right = self._operand(at + 1)
                self._alike(left, right)
                if draft.word(right.end) == "ESCAPE":
                    raise _No
                return right.end
            case "BETWEEN":
                low = self._operand(at + 1)
                if draft.word(low.end) != "AND":
                    raise _No
                high = self._operand(low.end + 1)
                self._alike(left, low)
                self._alike(left, high)
                return high.end
            case "IN" if draft.word(at + 1) == "(":
                return self._listed(left, at + 2)
        raise _No

    def _listed(self, left: _Operand, at: int) -> int:
        while True:
            value = self._operand(at)
            self._alike(left, value)
            at = value.end
            if self.draft.word(at) == ")":
                return at + 1
            if self.draft.word(at) != ",":
                raise _No
            at += 1

    def _alike(self, left: _Operand, right: _Operand) -> None:
        """Comparing them converts neither in a way that could warn. Raises _No."""
        for one, other in ((left, right), (right, left)):
            if one.kind is None and other.kind is not None:
                self.literals.append((one.literal, other.kind))
                return
        if left.kind is not right.kind or left.kind is None or len({left.collation, right.collation} - {""}) > 1:
            raise _No

    # ── operands ──

    def _operand(self, at: int) -> _Operand:
        draft = self.draft
        if at >= len(draft.tokens):
            raise _No
        token = draft.tokens[at]
        word = draft.word(at)
        if word == "-" or (token.literal >= 0 and draft.word(at + 1) in ("+", "-")):
            return self._number(at)
        if token.literal >= 0:
            return _Operand(None, at + 1, literal=token.literal)
        if word in ("DATE", "TIMESTAMP") and self._is_literal(at + 1):
            return self._moment(at + 2)
        if draft.word(at + 1) == "(":
            return self._call(at)
        if not is_name(token):
            raise _No
        return self._column(at)

    def _is_literal(self, at: int) -> bool:
        return at < len(self.draft.tokens) and self.draft.tokens[at].literal >= 0

    def _numeric(self, at: int) -> None:
        """A literal that must be a number. Raises _No."""
        if not self._is_literal(at):
            raise _No
        self.literals.append((self.draft.tokens[at].literal, Kind.NUMBER))

    def _number(self, at: int) -> _Operand:
        """Literals, added and subtracted."""
        while True:
            at += self.draft.word(at) == "-"
            self._numeric(at)
            at += 1
            if self.draft.word(at) not in ("+", "-"):
                return _Operand(Kind.NUMBER, at)
            at += 1

    def _moment(self, at: int) -> _Operand:
        """Behind a date: intervals that are added or subtracted."""
        draft = self.draft
        while draft.word(at) in ("+", "-") and draft.word(at + 1) == "INTERVAL":
            self._numeric(at + 2)
            if draft.word(at + 3) not in _UNITS:
                raise _No
            at += 4
        return _Operand(Kind.MOMENT, at)

    def _call(self, at: int) -> _Operand:
        draft = self.draft
        name = draft.word(at)
        argument = self._operand(at + 2)
        end = argument.end
        if name in _OF_TEXT and argument.kind is Kind.TEXT and draft.word(end) == ")":
            return _Operand(_OF_TEXT[name], end + 1, argument.collation)
        if name in _OF_MOMENT and argument.kind is Kind.MOMENT and draft.word(end) == ")":
            return _Operand(Kind.NUMBER, end + 1)
        if name in ("SUBSTRING", "SUBSTR", "LEFT", "RIGHT") and argument.kind is Kind.TEXT:
            most = 1 if name in ("LEFT", "RIGHT") else 2
            count = 0
            while draft.word(end) in (",", "FROM", "FOR") and count < most:
                self._numeric(end + 1)
                count += 1
                end += 2
            if draft.word(end) == ")" and count:
                return _Operand(Kind.TEXT, end + 1, argument.collation)
        raise _No

    def _column(self, at: int) -> _Operand:
        draft = self.draft
        end = at + 1
        while draft.word(end) == "." and end + 1 < len(draft.tokens):
            end += 2
        column = self.columns(Span(at, end))
        if column is None or column.auto_increment:
            raise _No
        self.seen = True
        kind = column.data_type
        if kind in _NUMBERS:
            return _Operand(Kind.NUMBER, end)
        if kind in _TEXTS and column.collation is not None:
            return _Operand(Kind.TEXT, end, column.collation)
        if kind in _MOMENTS:
            return _Operand(Kind.MOMENT, end)
        raise _No
