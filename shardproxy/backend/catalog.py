"""Reading table definitions and collations from the servers' information_schema."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.backend.ddl_record import MISSING_TABLE, Ask, Row, sql_text
from shardproxy.backend.lookup_record import lookup_states, set_lookup_building
from shardproxy.backend.table_config import Registered, registered
from shardproxy.errors import BackendError, BackendUnavailable, SqlError
from shardproxy.topology.build import with_ready
from shardproxy.topology.lookup import index_name
from shardproxy.topology.model import Keyspace, Snapshot, TableKind
from shardproxy.topology.schema import Catalog, Column, TableSchema

log = logging.getLogger(__name__)

_TABLES = "SELECT table_name AS name, table_type AS type FROM information_schema.tables WHERE table_schema = %s"
_COLUMNS = (
    "SELECT table_name AS tbl, column_name AS name, data_type, column_type, is_nullable, column_default, extra, "
    "character_set_name AS charset, collation_name AS collation FROM information_schema.columns "
    "WHERE table_schema = %s ORDER BY table_name, ordinal_position"
)
_VIEWS = (
    "SELECT table_name AS name, view_definition AS definition FROM information_schema.views WHERE table_schema = %s"
)
_UNIQUE = (
    "SELECT table_name AS tbl, index_name AS name, IF(sub_part IS NULL, column_name, NULL) AS col "
    "FROM information_schema.statistics "
    "WHERE table_schema = %s AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index"
)
# MariaDB's uca1400 collations serve several character sets: only this table has their numbers on the wire.
_COLLATIONS_MARIADB = (
    "SELECT id, character_set_name AS charset, full_collation_name AS name "
    "FROM information_schema.collation_character_set_applicability WHERE id IS NOT NULL"
)
_COLLATIONS_MYSQL = (
    "SELECT id, character_set_name AS charset, collation_name AS name FROM information_schema.collations"
)


# JSON_ARRAY tells NULL from an empty text, and one value from the next.
_DIGESTS = tuple(
    f"SELECT COUNT(*) AS n, COALESCE(SUM(CRC32(CONCAT({values}))), 0) AS digest FROM {table}"  # noqa: S608
    for values, table in (
        (
            "JSON_ARRAY(table_schema, table_name, column_name, ordinal_position, column_type, is_nullable, "
            "column_default, extra, collation_name)",
            "information_schema.columns WHERE table_schema IN (DATABASES)",
        ),
        (
            "JSON_ARRAY(table_schema, table_name, index_name, non_unique, seq_in_index, column_name)",
            "information_schema.statistics WHERE table_schema IN (DATABASES)",
        ),
        (
            "JSON_ARRAY(table_schema, table_name, view_definition)",
            "information_schema.views WHERE table_schema IN (DATABASES)",
        ),
        (
            "JSON_ARRAY(table_schema, table_name, table_type)",
            "information_schema.tables WHERE table_schema IN (DATABASES)",
        ),
        (
            "JSON_ARRAY(keyspace, table_name, kind, key_column, shard)",
            "_shardproxy.table_config WHERE keyspace IN (DATABASES)",
        ),
        (
            "JSON_ARRAY(keyspace, index_name, state, placement)",
            "_shardproxy.lookup_index WHERE keyspace IN (DATABASES)",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Collation:
    """What a collation number in a column definition means."""

    charset: str
    name: str


@dataclass(frozen=True, slots=True)
class LoadedCatalog:
    """What one reading of the servers gave.

    collations: number → collation, from the first server that answered. server_version: that server's.
    unread: why some single tables are missing, a line each ("main.settings: c/primary (…): no connection …").
    """

    catalog: Catalog
    collations: Mapping[int, Collation]
    server_version: str
    unread: tuple[str, ...] = ()


async def load_catalog(snapshot: Snapshot, credentials: Credentials, seconds: float, version: int = 1) -> LoadedCatalog:
    """Read the definitions of all keyspaces, each from the first of its shards whose primary answers.

    Single tables are read from their own shard; when that one is down they are missing and named in `unread`.
    seconds: limit per connection and per statement. Raises BackendUnavailable when no shard of a keyspace answers.
    """
    tables: dict[tuple[str, str], TableSchema] = {}
    unread: list[str] = []
    collations: dict[int, Collation] = {}
    server_version = ""
    for keyspace in snapshot.keyspaces.values():
        connection = await _first_answering(snapshot, keyspace, credentials, seconds)
        async with connection:
            found = await read_tables(connection, keyspace.name)
            if not collations:
                collations, server_version = await read_collations(connection), connection.version
        elsewhere = _single_tables_elsewhere(snapshot, keyspace, connection.server.shard)
        for name in {name for names in elsewhere.values() for name in names}:
            found.pop(name, None)
        for shard, names in elsewhere.items():
            try:
                async with await open_control(snapshot.shards[shard].primary, credentials, seconds) as other:
                    theirs = await read_tables(other, keyspace.name)
            except (BackendError, SqlError) as error:
                unread.extend(f"{keyspace.name}.{name}: {error}" for name in names)
                continue
            found.update({name: theirs[name] for name in names if name in theirs})
        tables.update({(keyspace.name, name): schema for name, schema in found.items()})
    return LoadedCatalog(Catalog(tables, version), collations, server_version, tuple(unread))


async def load_registered(snapshot: Snapshot, credentials: Credentials, seconds: float) -> list[Registered]:
    """Tables registered at run time, of each keyspace from the first of its shards whose primary answers.

    None where the bookkeeping schema is missing. Raises as `load_catalog`.
    """
    found: list[Registered] = []
    for keyspace in snapshot.keyspaces.values():
        async with await _first_answering(snapshot, keyspace, credentials, seconds) as connection:
            try:
                found += await registered(asking(connection), keyspace.name)
            except SqlError as error:
                if error.code not in MISSING_TABLE:
                    raise
    return found


async def load_lookups(snapshot: Snapshot, credentials: Credentials, seconds: float) -> Snapshot:
    """The snapshot with its lookup indexes marked as ready, where the keyspace's first shard says so; none where that
    does not answer: their entries may be behind the rows.

    An index that is recorded and not configured is no longer kept up to date: its record is set back to building.
    """
    states: dict[tuple[str, str], tuple[str, str]] = {}
    for keyspace in snapshot.keyspaces.values():
        configured = {index_name(t.name, i.columns) for t in keyspace.tables.values() for i in t.lookups}
        try:
            async with await open_control(snapshot.shards[keyspace.home].primary, credentials, seconds) as first:
                ask = asking(first)
                found = await lookup_states(ask, keyspace.name)
                for name, (state, _) in found.items():
                    if name not in configured and state == "ready":
                        await set_lookup_building(ask, keyspace.name, name)
        except (BackendError, SqlError) as error:
            if configured and getattr(error, "code", 0) not in MISSING_TABLE:
                log.warning("lookup indexes of keyspace %s are not asked: %s", keyspace.name, error)
            continue
        states |= {(keyspace.name, name): state for name, state in found.items() if name in configured}
    return with_ready(snapshot, states)


async def lookups_as_told(connection: ControlConnection, snapshot: Snapshot) -> bool:
    """Whether the snapshot's lookup indexes are ready just where this server says so, of keyspaces that have their
    records on it. Raises SqlError, BackendError."""
    ask = asking(connection)
    states: dict[tuple[str, str], tuple[str, str]] = {}
    here: list[str] = []
    for keyspace in snapshot.keyspaces.values():
        configured = any(table.lookups for table in keyspace.tables.values())
        if configured and snapshot.shards[keyspace.home].primary.name == connection.server.name:
            here.append(keyspace.name)
            try:
                found = await lookup_states(ask, keyspace.name)
            except SqlError as error:
                if error.code not in MISSING_TABLE:
                    raise
                found = {}
            states |= {(keyspace.name, name): state for name, state in found.items()}
    told = with_ready(snapshot, states).keyspaces
    return all(told[name].tables == snapshot.keyspaces[name].tables for name in here)


def asking(connection: ControlConnection) -> Ask:
    """Statements of our own on a control connection."""

    async def ask(sql: str) -> list[Row]:
        return [[text(value) for value in row.values()] for row in await connection.query(sql)]

    return ask


async def schema_digest(connection: ControlConnection, databases: Sequence[str]) -> tuple[object, ...]:
    """Something that differs when tables, columns, unique keys or registrations of these databases have changed."""
    listed = ", ".join(sql_text(name) for name in databases)
    parts: list[object] = []
    for sql in _DIGESTS:
        try:
            rows = await connection.query(sql.replace("DATABASES", listed))
        except SqlError as error:
            if error.code not in MISSING_TABLE:
                raise
            parts.append(None)
        else:
            parts += [str(value) for value in rows[0].values()]
    return tuple(parts)


async def _first_answering(
    snapshot: Snapshot, keyspace: Keyspace, credentials: Credentials, seconds: float
) -> ControlConnection:
    reasons = []
    for shard in (keyspace.home, *(shard for shard in keyspace.shards if shard != keyspace.home)):
        try:
            return await open_control(snapshot.shards[shard].primary, credentials, seconds)
        except (BackendError, SqlError) as error:
            reasons.append(str(error))
    raise BackendUnavailable(f"keyspace {keyspace.name}: no primary answers: {'; '.join(reasons)}")


def _single_tables_elsewhere(snapshot: Snapshot, keyspace: Keyspace, here: str) -> dict[int, list[str]]:
    """Single tables that do not live on the shard named `here`: shard index → table names."""
    out: dict[int, list[str]] = {}
    for table in keyspace.tables.values():
        if table.kind is TableKind.SINGLE and table.shard is not None and snapshot.shards[table.shard].name != here:
            out.setdefault(table.shard, []).append(table.name)
    return out


async def read_tables(connection: ControlConnection, database: str) -> dict[str, TableSchema]:
    """Definitions of all tables and views of one database on one server, by name."""
    kinds = {text(row["name"]): text(row["type"]) for row in await connection.query(_TABLES, (database,))}
    views = {text(row["name"]): text(row["definition"]) or "" for row in await connection.query(_VIEWS, (database,))}
    columns: dict[str, list[Column]] = {}
    for row in await connection.query(_COLUMNS, (database,)):
        columns.setdefault(str(text(row["tbl"])), []).append(_column(row))
    unique: dict[str, dict[str, list[str | None]]] = {}
    for row in await connection.query(_UNIQUE, (database,)):
        index = unique.setdefault(str(text(row["tbl"])), {}).setdefault(str(text(row["name"])), [])
        index.append(text(row["col"]))
    return {
        name: replace(
            _table(database, name, kinds.get(name) == "VIEW", cols, unique.get(name, {})), view_text=views.get(name, "")
        )
        for name, cols in columns.items()
        if name in kinds
    }


def _table(
    database: str, name: str, is_view: bool, columns: list[Column], indexes: Mapping[str, list[str | None]]
) -> TableSchema:
    unique = {}
    for index, parts in indexes.items():
        named = tuple(part for part in parts if part is not None)
        if len(named) == len(parts):  # one over an expression, or the beginning of a value, is of no whole columns
            unique[index] = named
    primary = unique.get("PRIMARY", ())
    keys, names = tuple(unique.values()), tuple(unique)
    return TableSchema(database, name, tuple(columns), keys, primary, is_view, unique_names=names)


def _column(row: Mapping[str, Any]) -> Column:
    return Column(
        name=str(text(row["name"])),
        data_type=str(text(row["data_type"])).lower(),
        column_type=str(text(row["column_type"])),
        nullable=text(row["is_nullable"]) == "YES",
        default=text(row["column_default"]),
        extra=text(row["extra"]) or "",
        charset=text(row["charset"]),
        collation=text(row["collation"]),
    )


async def read_collations(connection: ControlConnection) -> dict[int, Collation]:
    """The server's collations by the number that column definitions carry."""
    sql = _COLLATIONS_MARIADB if connection.is_mariadb else _COLLATIONS_MYSQL
    rows = await connection.query(sql)
    return {int(row["id"]): Collation(str(text(row["charset"])), str(text(row["name"]))) for row in rows}
