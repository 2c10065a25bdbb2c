"""SELECT of nothing but session state that the proxy knows and no server does: LAST_INSERT_ID(), CONNECTION_ID() …"""

from __future__ import annotations

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Local, Opcode, Plan, StatementKind
from shardproxy.sql.tokens import TokenKind

_FUNCTIONS = {
    "LAST_INSERT_ID": Local.LAST_INSERT_ID,
    "ROW_COUNT": Local.ROW_COUNT,
    "FOUND_ROWS": Local.FOUND_ROWS,
    "CONNECTION_ID": Local.CONNECTION_ID,
    "USER": Local.USER,
    "SESSION_USER": Local.USER,
    "SYSTEM_USER": Local.USER,
    "CURRENT_USER": Local.CURRENT_USER,
}
_VARIABLES = {
    "warning_count": Local.WARNING_COUNT,
    "error_count": Local.ERROR_COUNT,
    "last_insert_id": Local.LAST_INSERT_ID,
    "identity": Local.LAST_INSERT_ID,
    "pseudo_thread_id": Local.CONNECTION_ID,
}
# Inside a larger expression a server would answer these for its own connection to the proxy.
NOT_FOR_SERVERS = frozenset(
    {"connection_id", "row_count", "found_rows", "user", "session_user", "system_user", "current_user"}
)


def local_functions(draft: Draft) -> Plan | None:
    """The plan of such a SELECT. Raises UnsupportedError for the same functions amid others."""
    if draft.kind is StatementKind.SELECT and draft.word(0) == "SELECT":
        items = _items(draft)
        if items:
            draft.carries_insert_id = False
            return draft.plan(Opcode.NONE, "answered by the proxy: session state", local=tuple(items), read=True)
    asked = sorted(draft.functions & NOT_FOR_SERVERS)
    variables = [t.text for t in draft.tokens if t.kind is TokenKind.SYSTEM_VARIABLE and _variable(t.text)]
    if asked or variables:
        name = f"{asked[0].upper()}()" if asked else variables[0]
        raise refuse(f"{name} is known to the proxy only: select it alone (SELECT {name}) and use the value")
    return None


def _items(draft: Draft) -> list[tuple[str, Local]]:
    """(label, function) of each item of the select list; [] when any is something else."""
    items: list[tuple[str, Local]] = []
    at = 1
    while True:
        start = at
        token = draft.tokens[at] if at < len(draft.tokens) else None
        if token is None:
            return []
        if token.kind is TokenKind.SYSTEM_VARIABLE:
            what = _variable(token.text)
            at += 1
        else:
            what = _FUNCTIONS.get(token.upper)
            if draft.word(at + 1) == "(" and draft.word(at + 2) == ")":
                at += 3
            elif token.upper == "CURRENT_USER":
                at += 1
            else:
                return []
        if what is None:
            return []
        label = draft.sql[draft.tokens[start].start : draft.tokens[at - 1].end].decode("utf-8", "replace")
        named = draft.word(at) == "AS"
        at += named
        if at < len(draft.tokens) and draft.word(at) != ",":
            alias = draft.tokens[at]
            if alias.kind is TokenKind.STRING:
                raise refuse(f"write the alias of {label} as a name, not as a string")
            if alias.kind not in (TokenKind.WORD, TokenKind.NAME) or (not named and alias.upper in _CLAUSES):
                return []
            label = alias.text
            at += 1
        items.append((label, what))
        if at >= len(draft.tokens):
            return items
        if draft.word(at) != ",":
            return []
        at += 1


_CLAUSES = frozenset(
    {"FROM", "WHERE", "LIMIT", "ORDER", "GROUP", "HAVING", "INTO", "UNION", "FOR", "LOCK", "PROCEDURE"}
)


def _variable(text: str) -> Local | None:
    name = text[2:].lower().replace("`", "")
    scope, _, rest = name.partition(".")
    if rest and scope in ("session", "local"):
        name = rest
    return _VARIABLES.get(name)
