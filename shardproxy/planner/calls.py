"""What a statement calls and names that changes the session: found in the tokens, whatever the parser makes of them."""

from __future__ import annotations

from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.plan import PinReason, Plan, StatementKind
from shardproxy.sql.functions import BUILT_IN, CLOCK_WORDS, LOCKS, NOT_CALLED
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.user_variables import assigned_at, variable_name
from shardproxy.sql.words import words

# Before a name with ( behind it, these say that the name is a table's, an index's or an alias, not a function's.
_NAMING = words("""
    CALL PROCEDURE FUNCTION INTO TABLE INSERT REPLACE IGNORE LOW_PRIORITY DELAYED HIGH_PRIORITY QUICK AS WITH RECURSIVE
    KEY INDEX REFERENCES CONSTRAINT UNIQUE EXISTS WINDOW FULLTEXT SPATIAL
""")
_CHANGES_ROWS = frozenset({StatementKind.INSERT, StatementKind.REPLACE, StatementKind.UPDATE, StatementKind.DELETE})
_ASSIGNING = frozenset({StatementKind.SELECT, StatementKind.SET, StatementKind.DO})
_READING = _CHANGES_ROWS | {StatementKind.EXPLAIN, StatementKind.PREPARE}
UNKNOWN = "?"  # in Draft.functions: a function that is not built in


def calls(draft: Draft) -> Plan | None:
    """Fills `functions`, `pins`, `carries_insert_id` and `found_rows`."""
    functions = {name for i in range(len(draft.tokens) - 1) if draft.word(i + 1) == "(" and (name := _called(draft, i))}
    functions |= {word.lower() for word in draft.words if word.lower() in CLOCK_WORDS}
    if "CURRENT_USER" in draft.words:
        functions.add("current_user")  # written without ( ) too
    draft.functions = frozenset(functions)
    _user_variables(draft)
    if functions & LOCKS:
        draft.pins[PinReason.NAMED_LOCK] = None
    if draft.has("SQL_CALC_FOUND_ROWS"):
        draft.found_rows = draft.kind is StatementKind.SELECT
        if not draft.found_rows:
            draft.pins[PinReason.FOUND_ROWS] = None
    if UNKNOWN in functions and draft.kind is not StatementKind.DDL:
        draft.pins[PinReason.UNKNOWN_FUNCTION] = None
    if "last_insert_id" in functions:
        _insert_id(draft)
    return None


def _user_variables(draft: Draft) -> None:
    """What is assigned is carried where its value can be asked for afterwards; it pins elsewhere."""
    names = {i: variable_name(t) for i, t in enumerate(draft.tokens) if t.kind is TokenKind.USER_VARIABLE}
    if not names:
        return
    assigned = assigned_at(draft.tokens)
    if not all(names.values()) or draft.kind not in (_ASSIGNING if assigned else _ASSIGNING | _READING):
        draft.pins[PinReason.USER_VARIABLE] = None
    else:
        draft.assigns = tuple(dict.fromkeys(names[i] for i in assigned))


def _called(draft: Draft, index: int) -> str:
    """The function that the token before a ( calls: its name, UNKNOWN, or "" when it is no call."""
    token = draft.tokens[index]
    if token.upper:
        name = token.text.lower()
        if name in BUILT_IN:
            return name
        if name in NOT_CALLED or token.kind is not TokenKind.WORD:
            return ""
    elif not is_name(token):
        return ""
    first = index
    while draft.word(first - 1) == "." and first >= 2:
        first -= 2
    before = draft.word(first - 1)
    if before in _NAMING or before == ")" or (before == "," and _is_cte(draft, index)):
        return ""
    return UNKNOWN


def _is_cte(draft: Draft, index: int) -> bool:
    """WITH …, name (columns) AS ( …"""
    close = closing(draft, index + 1)
    return draft.word(close + 1) == "AS" and draft.word(close + 2) == "("


def closing(draft: Draft, opening: int) -> int:
    """Index of the ) that closes the ( at `opening`; past the end when there is none."""
    depth = 0
    for i in range(opening, len(draft.tokens)):
        if draft.word(i) == "(":
            depth += 1
        elif draft.word(i) == ")":
            depth -= 1
            if depth == 0:
                return i
    return len(draft.tokens)


def _insert_id(draft: Draft) -> None:
    for i, token in enumerate(draft.tokens):
        if token.upper != "LAST_INSERT_ID" or draft.word(i + 1) != "(":
            continue
        if draft.word(i + 2) == ")":
            draft.carries_insert_id = True
        elif draft.kind not in _CHANGES_ROWS:
            draft.pins[PinReason.LAST_INSERT_ID] = None  # a change of rows reports it in its OK packet
