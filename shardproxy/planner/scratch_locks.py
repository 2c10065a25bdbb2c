"""With which lock the rows of each table of a SELECT are gathered into its scratch table."""

from __future__ import annotations

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.locks import Lock
from shardproxy.planner.scratch_tables import Reference, Tables
from shardproxy.planner.template import Template, of_tokens


def reference_locks(draft: Draft, tables: Tables) -> dict[Reference, Template | None]:
    """For each reference to a table the clause that locks what it reads, None for none.

    Raises UnsupportedError where that is not certain: a read with a lock sees other rows than one without.
    """
    for word in ("LOCK", "SHARE"):
        if draft.has(word) and not tables.locks:
            raise refuse("a lock whose place in the statement is not certain")
    found: dict[Reference, Template | None] = {r: None for r in tables.references if r.cte is None}
    for block, lock in tables.locks:
        if not block:
            raise refuse("a lock behind a query in parentheses")
        inside = [r for r in tables.references if r.block == block]
        missing = set(lock.of) - {r.alias for r in inside}
        if missing:
            raise refuse(f"a lock OF '{min(missing)}', which is not in its FROM clause,")
        for reference in inside:
            if reference.cte is None and (not lock.of or reference.alias in lock.of):
                found[reference] = _clause(draft, lock)
    return found


def _clause(draft: Draft, lock: Lock) -> Template:
    """The clause without OF."""
    kind = b"FOR UPDATE" if lock.update else b"LOCK IN SHARE MODE" if draft.context.mariadb else b"FOR SHARE"
    how = of_tokens(draft.sql, draft.tokens[lock.how_first : lock.end])
    return b" " + kind + b" " + how if how.pieces else Template((b" " + kind,))
