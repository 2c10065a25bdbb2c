"""Writes to reference tables run on every shard: only what gives the same rows on each of them."""

from __future__ import annotations

from shardproxy.planner.blocks import Facts, Source, SourceKind
from shardproxy.planner.calls import UNKNOWN
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Opcode, Plan, Spread
from shardproxy.sql.functions import CLOCK, LOCKS, RANDOM, SERVER, SESSION
from shardproxy.topology.model import Keyspace
from shardproxy.topology.schema import Column, TableSchema

CLOCK_DEFAULTS = (
    "current_timestamp",
    "now(",
    "curdate",
    "current_date",
    "curtime",
    "current_time",
    "localtime",
    "utc_",
)
_RANDOM_DEFAULTS = ("rand(", "uuid", "sysdate", "user(", "nextval", "connection_id", "sys_guid", "random_bytes")


def reference_write(draft: Draft, facts: Facts, targets: list[Source]) -> Plan:
    """The plan of an UPDATE or DELETE whose targets are reference tables."""
    for source in facts.sources:
        if source.kind is not SourceKind.REFERENCE:
            what = source.table.name if source.table else "a subquery or system table"
            raise refuse(f"a write to a reference table may use reference tables only, not {what}")
    if facts.derived:
        raise refuse("a write to a reference table may not use a subquery in FROM or a WITH query")
    if draft.has("LIMIT"):
        raise refuse("a write to a reference table may not use LIMIT: shards could choose different rows")
    target = targets[0]
    assert target.keyspace is not None
    schemas = [check_target(draft, one.keyspace, one.table.name) for one in targets if one.keyspace and one.table]
    return spread_everywhere(draft, target.keyspace, tuple(s.table.name for s in facts.sources if s.table), schemas)


def check_target(draft: Draft, keyspace: Keyspace, table: str) -> TableSchema:
    """The target's schema. Raises when it is unknown: its defaults decide what every shard would store."""
    schema = draft.context.catalog.get(keyspace.name, table)
    if schema is None:
        raise refuse(f"the definition of reference table '{keyspace.name}.{table}' could not be read from the servers")
    return schema


def spread_everywhere(draft: Draft, keyspace: Keyspace, tables: tuple[str, ...], schemas: list[TableSchema]) -> Plan:
    """The plan of a write that every shard runs. Raises when shards could store different values."""
    called = draft.functions
    if UNKNOWN in called:
        raise refuse("a write to a reference table may not call functions that are not built in")
    odd = sorted(called & (RANDOM | SESSION | LOCKS | SERVER))
    if odd:
        raise refuse(
            f"a write to a reference table may not use {odd[0].upper()}(): shards would store different values; send "
            "the value instead"
        )
    if draft.has_variables:
        raise refuse("a write to a reference table may not use variables: send the value instead")
    if draft.has("RETURNING"):
        raise refuse("a write to a reference table may not use RETURNING")
    reads_clock = bool(called & CLOCK)
    for schema in schemas:
        for column in schema.columns:
            reads_clock = _check_default(schema, column) or reads_clock
    names = tuple(dict.fromkeys(tables))
    return draft.plan(
        Opcode.REFERENCE,
        f"reference table {', '.join(names)}: written on every shard of {keyspace.name}",
        spread=Spread.ALL,
        keyspace=keyspace,
        fixed_time=reads_clock,
        tables=names,
    )


def _check_default(schema: TableSchema, column: Column) -> bool:
    """Whether a default (or ON UPDATE) reads the clock. Raises for one that differs from server to server."""
    text = f"{column.default or ''} {column.extra}".lower()
    if column.data_type in ("char", "varchar", "text", "enum", "set") and "default_generated" not in text:
        return "on update" in text  # a plain text default may contain any word
    if any(word in text for word in _RANDOM_DEFAULTS):
        raise refuse(
            f"column {schema.name}.{column.name} has a default that differs from server to server: shards would store "
            "different values"
        )
    return any(word in text for word in CLOCK_DEFAULTS) or "on update" in text
