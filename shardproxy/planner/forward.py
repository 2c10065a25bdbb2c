"""A shard hint: the statement goes to the named shard as it is, whatever it says."""

from __future__ import annotations

from shardproxy.planner.draft import Draft
from shardproxy.planner.plan import InsertId, Opcode, PinReason, Plan, Spread, StatementKind

_PINS = {
    StatementKind.LOCK_TABLES: PinReason.LOCK_TABLES,
    StatementKind.PREPARE: PinReason.SQL_PREPARE,
    StatementKind.CALL: PinReason.PROCEDURE,
}
_INSERTS = frozenset({StatementKind.INSERT, StatementKind.REPLACE})


def forward(draft: Draft) -> Plan | None:
    """The plan of a statement with a shard hint."""
    if draft.shard_hint is None or "found_rows" in draft.functions:
        return None
    if draft.kind in _PINS:
        draft.pins[_PINS[draft.kind]] = None
    if draft.word(0) == "HANDLER":
        draft.pins[PinReason.HANDLER] = None
    if draft.has("TEMPORARY"):
        draft.pins[PinReason.TEMPORARY_TABLE] = None
    shows = draft.kind in (StatementKind.SHOW, StatementKind.DESCRIBE, StatementKind.EXPLAIN)
    reads = draft.kind is StatementKind.SELECT and not draft.has("UPDATE", "SHARE", "INTO")
    return draft.plan(
        Opcode.UNSHARDED,
        f"one shard: hint names {draft.shard_hint}",
        spread=Spread.ANY,
        read=(shows or reads) and not draft.pins,
        schema_change=draft.kind is StatementKind.DDL,
        insert_id=InsertId.ASKED if draft.kind in _INSERTS or draft.found_rows or draft.assigns else InsertId.REPORTED,
    )
