"""First pass: the text becomes tokens, or is refused because it cannot be read exactly."""

from __future__ import annotations

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Opcode, Plan, StatementKind
from shardproxy.sql.tokens import TokenKind, tokenize


def lex(draft: Draft) -> Plan | None:
    """Fills tokens, comments, words, positions. A text without tokens is an EMPTY plan."""
    context = draft.context
    stream = tokenize(draft.sql, context.modes, context.mariadb)
    draft.comments = stream.comments
    if stream.problem:
        raise refuse(f"cannot read the statement: {stream.problem}", 1064)
    tokens = list(stream.tokens)
    while tokens and tokens[-1].text == ";" and tokens[-1].kind is TokenKind.SIGN:
        tokens.pop()
    if not tokens:
        draft.kind = StatementKind.EMPTY
        return draft.plan(Opcode.NONE, "nothing but comments and blanks")
    if any(t.kind is TokenKind.SIGN and t.text == ";" for t in tokens):
        raise refuse("several statements in one text are not supported: send them one by one")
    if context.modes.foreign:
        raise refuse("sql_mode ORACLE and MSSQL are another grammar, which shardproxy does not read: unset them")
    draft.use(tuple(tokens))
    return None
