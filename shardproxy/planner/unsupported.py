"""Last pass: what no other pass has planned is refused, by name."""

from __future__ import annotations

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Plan, StatementKind

_HINT = "a hint /*shardproxy: shard=NAME*/ sends it to one shard as it is"
_WHY = {
    StatementKind.CALL: "CALL is not supported: what a stored procedure touches is not known here",
    StatementKind.ADMIN: "this statement is about one server",
}


def unsupported(draft: Draft) -> Plan | None:
    """Always raises UnsupportedError."""
    first = draft.word(0) or draft.tokens[0].text
    why = _WHY.get(draft.kind, f"statements that begin with {first.upper()} are not supported")
    raise refuse(f"{why}; {_HINT}")
