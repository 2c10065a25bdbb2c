"""Tables that were registered while a proxy ran: `_shardproxy.table_config`, a copy on every shard of the keyspace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shardproxy.backend.ddl_record import Ask, sql_text
from shardproxy.topology.model import Table, TableKind

Registration = Mapping[str, str | None]  # name, kind, key, shard: of one table, JSON-able


@dataclass(frozen=True, slots=True)
class Registered:
    """One row. shard: name, of a single table."""

    keyspace: str
    name: str
    kind: TableKind
    key: str | None
    shard: str | None


def registration(table: Table, shards: Sequence[str]) -> Registration:
    """A table as it is registered. shards: names by index."""
    shard = None if table.shard is None else shards[table.shard]
    return {"name": table.name, "kind": table.kind.value, "key": table.key, "shard": shard}


async def register(ask: Ask, keyspace: str, table: Registration) -> None:
    """Write the row of one table, in place of a former one."""
    values = ", ".join(sql_text(value) for value in (keyspace, *(table[k] for k in ("name", "kind", "key", "shard"))))
    await ask(
        f"REPLACE INTO _shardproxy.table_config (keyspace, table_name, kind, key_column, shard) VALUES ({values})"
    )


async def unregister(ask: Ask, keyspace: str, names: Sequence[str]) -> None:
    """Take the rows of these tables away, where there are any."""
    if names:
        listed = ", ".join(sql_text(name) for name in names)
        await ask(
            f"DELETE FROM _shardproxy.table_config WHERE keyspace = {sql_text(keyspace)} AND table_name IN ({listed})"
        )


def as_tables(rows: Iterable[Registered], shards: Sequence[str]) -> tuple[list[tuple[str, Table]], list[Registered]]:
    """(keyspace, table) of each row, and the rows whose shard is not among these. shards: names by index."""
    indexes = {name: i for i, name in enumerate(shards)}
    tables: list[tuple[str, Table]] = []
    unknown: list[Registered] = []
    for row in rows:
        if row.shard is not None and row.shard not in indexes:
            unknown.append(row)
            continue
        shard = None if row.shard is None else indexes[row.shard]
        tables.append((row.keyspace, Table(row.name, row.kind, row.key, shard)))
    return tables, unknown


async def registered(ask: Ask, keyspace: str) -> list[Registered]:
    """The rows of one keyspace. Raises SqlError 1146 or 1049 when the bookkeeping schema is missing."""
    rows = await ask(
        "SELECT table_name, kind, key_column, shard FROM _shardproxy.table_config "
        f"WHERE keyspace = {sql_text(keyspace)} ORDER BY table_name"
    )
    return [Registered(keyspace, name or "", TableKind(kind), key, shard) for name, kind, key, shard in rows]
