"""Select items without an alias whose text is going to change: the server labels them by their text.

Only items that hold a subquery change, and such an item is no plain column or string, whose labels are made otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.template import Label, of_tokens
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words

_ENDS = words("FROM WHERE GROUP HAVING WINDOW ORDER LIMIT FOR LOCK INTO UNION EXCEPT INTERSECT MINUS QUALIFY")
_MODIFIERS = words("""
    ALL DISTINCT DISTINCTROW HIGH_PRIORITY STRAIGHT_JOIN SQL_SMALL_RESULT SQL_BIG_RESULT SQL_BUFFER_RESULT SQL_CACHE
    SQL_NO_CACHE SQL_CALC_FOUND_ROWS
""")
# What may stand last in an expression, or be the last but one, and is no operand.
_VALUES = words("NULL TRUE FALSE UNKNOWN")
_OPERATORS = words("""
    AND OR XOR NOT DIV MOD LIKE RLIKE REGEXP IN IS BETWEEN BINARY COLLATE ESCAPE THEN ELSE WHEN CASE SOUNDS INTERVAL
    EXISTS OVER OF
""")


def labelled(draft: Draft, changed: Iterable[int]) -> dict[int, Label]:
    """For tokens that change: the labels of the items around them, by the index behind each item.

    Raises UnsupportedError where it is not certain whether an item has an alias, or what its text is.
    """
    inside = frozenset(changed)
    labels: dict[int, Label] = {}
    for first, end in _items(draft):
        changes = any(at in inside for at in range(first, end))
        comment = _has_comment(draft, first, end)
        if (not changes and (not comment or _is_column(draft, first, end))) or _has_alias(draft, first, end):
            continue
        if comment:
            raise refuse("a comment inside a select item that has no alias")
        pieces = of_tokens(draft.sql, draft.tokens[first:end], True).pieces
        labels[end] = Label(tuple(p for p in pieces if isinstance(p, (bytes, int))))
    return labels


def outside_columns(draft: Draft, changed: Iterable[int]) -> list[int]:
    """Those tokens that are in no select item which is a column alone, or `table.*`: such a one keeps its label, the
    last name."""
    columns = [
        (first, end)
        for first, end in _items(draft)
        if _is_column(draft, first, end) or (_is_column(draft, first, end - 2) and draft.tokens[end - 1].text == "*")
    ]
    return [at for at in changed if not any(first <= at < end for first, end in columns)]


def _has_comment(draft: Draft, first: int, end: int) -> bool:
    return any(draft.sql[a.end : b.start].strip() for a, b in pairwise(draft.tokens[first:end]))


def _is_column(draft: Draft, first: int, end: int) -> bool:
    """Names and dots: the label is the last name."""
    return all(is_name(t) if i % 2 == 0 else t.text == "." for i, t in enumerate(draft.tokens[first:end]))


def _items(draft: Draft) -> list[tuple[int, int]]:
    """First token and end of each select item of every query."""
    found: list[tuple[int, int]] = []
    for i in range(len(draft.tokens)):
        if draft.word(i) == "SELECT":
            found += _items_of(draft, i + 1)
    return found


def _items_of(draft: Draft, at: int) -> list[tuple[int, int]]:
    while draft.word(at) in _MODIFIERS:
        at += 1
    found: list[tuple[int, int]] = []
    first = at
    depth = 0
    while at < len(draft.tokens):
        word = draft.word(at)
        if depth == 0 and (word == "," or word == ")" or word in _ENDS):
            found.append((first, at))
            first = at + 1
            if word != ",":
                return found
        depth += (word == "(") - (word == ")")
        at += 1
    found.append((first, at))
    return found


def _has_alias(draft: Draft, first: int, end: int) -> bool:
    """Whether the item, which holds a subquery, ends with an alias."""
    last, before = draft.tokens[end - 1], draft.tokens[end - 2]
    if draft.word(end - 2) == "AS":
        return True
    word, word_before = draft.word(end - 1), draft.word(end - 2)
    if not (is_name(last) or last.kind is TokenKind.STRING) or word in _VALUES:
        return False
    if word == "END":
        if _unquoted(draft, first, end, "CASE") == _unquoted(draft, first, end, "END"):
            return False
        raise refuse("a select item that ends with END and has no AS")
    if word_before == ")":
        return True
    if before.kind is TokenKind.SIGN or word_before in _OPERATORS:
        return False
    raise refuse("a select item that may have an alias without AS")


def _unquoted(draft: Draft, first: int, end: int, word: str) -> int:
    return sum(draft.word(i) == word for i in range(first, end))
