"""HAVING over groups that the proxy combines, read at the tokens: comparisons of numbers under AND, OR and NOT.

What is not certainly a comparison of an aggregate or a grouped value with a number is not read: a reason, a text, comes
back.
"""

from __future__ import annotations

from collections.abc import Callable

from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.merge_plan import Compares, Connected, Having, Held, IsNull, Negated, Number
from shardproxy.planner.plan import Value
from shardproxy.planner.select_parts import Span
from shardproxy.sql.tokens import TokenKind

_SIGNS = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NUMBERS = (TokenKind.NUMBER, TokenKind.PARAM)
_OTHER = "HAVING with more than comparisons of aggregates and grouped columns with numbers"


class _Unread(Exception):
    """The reason."""


class Conditions:
    """held: what an operand, an aggregate or an expression of columns, means; a reason where that is not certain."""

    def __init__(self, draft: Draft, span: Span, held: Callable[[Span], Held | str]) -> None:
        self._draft = draft
        self._at = span.first
        self._end = span.end
        self._held = held

    def read(self) -> Having | str:
        """The condition, or why it is not read."""
        try:
            found = self._any()
            if self._at != self._end:
                raise _Unread(_OTHER)
        except _Unread as why:
            return str(why)
        return found

    def _word(self) -> str:
        return self._draft.word(self._at) if self._at < self._end else ""

    def _took(self, *words: str) -> bool:
        """Whether the next tokens are these; then they are behind us."""
        if self._at + len(words) > self._end or any(
            self._draft.word(self._at + i) != word for i, word in enumerate(words)
        ):
            return False
        self._at += len(words)
        return True

    def _need(self, word: str) -> None:
        if not self._took(word):
            raise _Unread(_OTHER)

    # ── AND, OR, NOT ──

    def _any(self) -> Having:
        parts = [self._every()]
        while self._took("OR"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Connected(False, tuple(parts))

    def _every(self) -> Having:
        parts = [self._one()]
        while self._took("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Connected(True, tuple(parts))

    def _one(self) -> Having:
        if self._took("NOT"):  # of what is in parentheses: else sql_mode may say what it belongs to
            self._need("(")
            self._at -= 1
            return Negated(self._parenthesis())
        if self._word() == "(":
            return self._parenthesis()
        return self._comparison()

    def _parenthesis(self) -> Having:
        self._need("(")
        found = self._any()
        self._need(")")
        if self._word() not in ("", "AND", "OR", ")"):
            raise _Unread(_OTHER)
        return found

    # ── comparisons ──

    def _comparison(self) -> Having:
        left = self._operand()
        sign = _SIGNS.get(self._word())
        if sign is not None:
            self._at += 1
            right = self._operand()
            if isinstance(left, Number) and isinstance(right, Number):
                raise _Unread(_OTHER)
            return Compares(left, sign, right)
        if isinstance(left, Number):
            raise _Unread(_OTHER)
        if self._took("IS", "NULL"):
            return IsNull(left)
        if self._took("IS", "NOT", "NULL"):
            return Negated(IsNull(left))
        negated = self._took("NOT")
        found: Having
        if self._took("BETWEEN"):
            low = self._number()
            self._need("AND")
            found = Connected(True, (Compares(left, ">=", low), Compares(left, "<=", self._number())))
        elif self._took("IN", "("):
            numbers = [self._number()]
            while self._took(","):
                numbers.append(self._number())
            self._need(")")
            found = Connected(False, tuple(Compares(left, "=", number) for number in numbers))
        else:
            raise _Unread(_OTHER)
        return Negated(found) if negated else found

    def _operand(self) -> Held | Number:
        draft, start = self._draft, self._at
        if start >= self._end:
            raise _Unread(_OTHER)
        token = draft.tokens[start]
        if token.literal >= 0 or token.text in ("-", "+"):
            return self._number()
        if draft.word(start + 1) == "(" and token.upper:
            self._at = closing(draft, start + 1) + 1
        elif is_name(token) and token.upper not in ("NULL", "TRUE", "FALSE", "NOT"):
            self._at += 1
            while self._took("."):
                self._at += 1
        if self._at == start or self._at > self._end:
            raise _Unread(_OTHER)
        found = self._held(Span(start, self._at))
        if isinstance(found, str):
            raise _Unread(found)
        return found

    def _number(self) -> Number:
        negative = self._took("-")
        if self._at >= self._end:
            raise _Unread(_OTHER)
        token = self._draft.tokens[self._at]
        if token.literal < 0 or token.kind not in _NUMBERS:
            raise _Unread(_OTHER)
        self._at += 1
        return Number(Value(token.literal, negative))
