"""LOCK TABLES: supported where all the tables can be on one shard only. It pins the session there."""

from __future__ import annotations

from shardproxy.planner.blocks import find_table
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.plan import Group, Opcode, PinReason, Plan, StatementKind
from shardproxy.topology.model import TableKind

_SEVERAL = "LOCK TABLES over several shards is not supported: use SELECT … FOR UPDATE inside a transaction"


def lock_tables(draft: Draft) -> Plan | None:
    """The plan of LOCK TABLES (UNLOCK TABLES is a session statement)."""
    if draft.kind is not StatementKind.LOCK_TABLES:
        return None
    if draft.word(1) not in ("TABLES", "TABLE"):
        raise refuse(f"LOCK {draft.word(1)} is not supported")
    groups: list[Group] = []
    at = 2
    while True:
        database = ""
        if at >= len(draft.tokens) or not is_name(draft.tokens[at]):
            raise refuse("cannot read this LOCK TABLES", 1064)
        name = draft.tokens[at].text
        if draft.word(at + 1) == "." and at + 2 < len(draft.tokens):
            database, name, at = name, draft.tokens[at + 2].text, at + 2
        keyspace, table = find_table(draft, database, name)
        if keyspace is None or table is None:
            raise refuse("LOCK TABLES of system tables is not supported")
        shard = table.shard if table.kind is TableKind.SINGLE else keyspace.home
        if table.kind is not TableKind.SINGLE and len(keyspace.shards) > 1:
            raise refuse(_SEVERAL)
        groups.append(Group((name,), keyspace, shard=shard))
        while at < len(draft.tokens) and draft.word(at) != ",":
            at += 1
        if at >= len(draft.tokens):
            break
        at += 1
    if len({group.shard for group in groups}) > 1:
        raise refuse(_SEVERAL)
    draft.pins[PinReason.LOCK_TABLES] = None
    names = tuple(group.tables[0] for group in groups)
    return draft.plan(
        Opcode.UNSHARDED,
        f"one shard: {', '.join(names)} on one fixed shard",
        groups=tuple(groups),
        keyspace=groups[0].keyspace,
        tables=names,
        spread_error=_SEVERAL,
    )
