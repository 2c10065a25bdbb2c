"""What is known of lookup indexes as a whole: `_shardproxy.lookup_index` on the first shard of their keyspace; and the
entries of an index all together, on one shard.

A schema change that takes all rows of a table away first *marks* the entries that there are (version 0), then runs on
the shards, then takes the marked ones away: so entries of rows that come meanwhile stay. At every moment a row has its
entry, so no read is led astray; an entry without row blocks nobody (see executor.lookup_entries).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardproxy.backend.ddl_record import Ask, sql_text
from shardproxy.errors import SqlError

_PAGE = 5000  # entries
_AGAIN = frozenset({1205, 1213})  # lock wait time-out, deadlock
_TRIES = 5

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


async def mark_entries(ask: Ask, keyspace: str, name: str) -> None:
    """Mark all entries of an index on one shard. Raises SqlError."""
    await _in_pages(ask, keyspace, name, "UPDATE _shardproxy.lookup SET version = 0")


async def delete_entries(ask: Ask, keyspace: str, name: str, marked: bool) -> None:
    """Take the entries of an index on one shard away, all or the marked ones. Raises SqlError."""
    await _in_pages(ask, keyspace, name, "DELETE FROM _shardproxy.lookup", " AND version = 0" if marked else "")


async def _in_pages(ask: Ask, keyspace: str, name: str, change: str, which: str = "") -> None:
    """Run a statement for some entries after the other, so that no lock is held for long."""
    where = _row(keyspace, name)
    behind = ""
    while True:
        [[count, last]] = await ask(
            f"SELECT COUNT(*), HEX(MAX(value)) FROM (SELECT value FROM _shardproxy.lookup WHERE {where}{behind} "
            f"ORDER BY value LIMIT {_PAGE}) AS page"
        )
        if count == "0":
            return
        for attempt in range(_TRIES):
            try:
                await ask(f"{change} WHERE {where}{behind} AND value <= x'{last}'{which}")
            except SqlError as error:
                if error.code not in _AGAIN or attempt == _TRIES - 1:
                    raise
            else:
                break
        behind = f" AND value > x'{last}'"


def _row(keyspace: str, name: str) -> str:
    return f"keyspace = {sql_text(keyspace)} AND index_name = {sql_text(name)}"
