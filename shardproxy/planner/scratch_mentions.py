"""Where a statement may name a table at all, read from its tokens: a second opinion beside the reader of FROM clauses.

It errs towards tables: only where nothing but an expression, an assigned column or an alias can stand is a name not
taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardproxy.planner.draft import Draft, is_name
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words

_QUERIES = words("SELECT WITH TABLE VALUES")
_EXPRESSIONS = words("SELECT WHERE SET BY HAVING")  # behind these, up to the next of _TABLES, no table is named
_TABLES = words("FROM JOIN STRAIGHT_JOIN UPDATE DELETE INSERT REPLACE INTO USING TABLE OF LATERAL")
_BEFORE_A_TABLE = _TABLES | words("LOW_PRIORITY HIGH_PRIORITY DELAYED QUICK IGNORE OJ FOR") | frozenset({"(", ",", "{"})
_BEHIND_A_TABLE = frozenset({",", ".", "(", ")", "{", "}", ";"})


def table_places(draft: Draft) -> Iterator[int]:
    """Indexes of tokens that may be the last part of a table's name."""
    in_expression = [False]  # one for each pair of parentheses that is open
    for i, token in enumerate(draft.tokens):
        word = token.upper
        if word == "(":
            of_expressions = in_expression[-1] or not _may_precede(draft, i)
            in_expression.append(of_expressions and draft.word(i + 1) not in _QUERIES)
        elif word == ")":
            if len(in_expression) > 1:
                in_expression.pop()
        elif word in _EXPRESSIONS:
            in_expression[-1] = True
        elif word in _TABLES:
            in_expression[-1] = False
        if is_name(token) and _may_be_table(draft, i, in_expression[-1]):
            yield i


def _may_be_table(draft: Draft, at: int, in_expression: bool) -> bool:
    if in_expression:
        return draft.word(at - 1) == "FOR"
    first = at - 2 if draft.word(at - 1) == "." and at >= 2 else at
    behind = draft.tokens[at + 1] if at + 1 < len(draft.tokens) else None
    if behind is not None and behind.kind is TokenKind.SIGN and behind.text not in _BEHIND_A_TABLE:
        return False
    return _may_precede(draft, first)


def _may_precede(draft: Draft, at: int) -> bool:
    """Whether a table, or joined tables in parentheses, may begin at this token as far as the one before it tells."""
    return at == 0 or draft.tokens[at - 1].upper in _BEFORE_A_TABLE
