"""What is known of lookup indexes as a whole: `_shardproxy.lookup_index` on the first shard of their keyspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardproxy.backend.ddl_record import Ask, sql_text

Progress = Mapping[str, object]  # shard → primary key of the last row read, a list; True when all rows are


@dataclass(frozen=True, slots=True)
class LookupRecord:
    """state: "building" or "ready". placement: see topology.lookup."""

    state: str
    placement: str
    progress: Progress = field(default_factory=dict)


async def lookup_states(ask: Ask, keyspace: str) -> dict[str, tuple[str, str]]:
    """Index name → (state, placement). Raises SqlError 1146 or 1049 when the bookkeeping table is missing."""
    rows = await ask(
        f"SELECT index_name, state, placement FROM _shardproxy.lookup_index WHERE keyspace = {sql_text(keyspace)}"
    )
    return {row[0] or "": (row[1] or "", row[2] or "") for row in rows}


async def read_lookup(ask: Ask, keyspace: str, name: str) -> LookupRecord | None:
    """The record of one index; None when it has none yet."""
    rows = await ask(f"SELECT state, placement, progress FROM _shardproxy.lookup_index WHERE {_row(keyspace, name)}")
    return LookupRecord(rows[0][0] or "", rows[0][1] or "", json.loads(rows[0][2] or "{}")) if rows else None


async def write_lookup(ask: Ask, keyspace: str, name: str, record: LookupRecord) -> None:
    """Write the record of one index, in place of a former one."""
    values = (keyspace, name, record.state, record.placement, json.dumps(dict(record.progress)))
    await ask(
        "REPLACE INTO _shardproxy.lookup_index (keyspace, index_name, state, placement, progress) VALUES "
        f"({', '.join(map(sql_text, values))})"
    )


async def set_lookup_building(ask: Ask, keyspace: str, name: str) -> None:
    """It lacks entries, or may."""
    await ask(f"UPDATE _shardproxy.lookup_index SET state = 'building', progress = '{{}}' WHERE {_row(keyspace, name)}")


def _row(keyspace: str, name: str) -> str:
    return f"keyspace = {sql_text(keyspace)} AND index_name = {sql_text(name)}"
