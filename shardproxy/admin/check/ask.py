"""Asking one server for its facts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from shardproxy.admin.check.facts import VARIABLES, Index, Replication, ServerFacts, TableFacts
from shardproxy.backend.catalog import read_tables
from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.errors import BackendError, SqlError
from shardproxy.topology.model import Role, Server

_TABLES = (
    "SELECT table_name AS name, engine, table_collation AS coll FROM information_schema.tables WHERE table_schema = %s"
)
_INDEXES = """SELECT table_name AS tbl, index_name AS name, non_unique, column_name AS col, collation AS direction,
 sub_part, index_type AS kind, {expression} AS expression
 FROM information_schema.statistics WHERE table_schema = %s ORDER BY table_name, index_name, seq_in_index"""
_FOREIGN_KEYS = """SELECT table_name AS tbl, constraint_name AS name, column_name AS col,
 referenced_table_schema AS other_db, referenced_table_name AS other, referenced_column_name AS other_col
 FROM information_schema.key_column_usage WHERE table_schema = %s AND referenced_table_name IS NOT NULL
 ORDER BY table_name, constraint_name, ordinal_position"""
_TRIGGERS = """SELECT event_object_table AS tbl, trigger_name AS name, action_timing AS timing,
 event_manipulation AS event, action_statement AS body FROM information_schema.triggers
 WHERE event_object_schema = %s AND LEFT(trigger_name, 12) <> '_shardproxy_' ORDER BY tbl, name"""
_GENERATED = """SELECT table_name AS tbl, column_name AS col, generation_expression AS expression
 FROM information_schema.columns WHERE table_schema = %s AND generation_expression <> ''"""
_DATABASES = "SELECT schema_name AS name, default_collation_name AS coll FROM information_schema.schemata"


async def ask_server(server: Server, credentials: Credentials, databases: Sequence[str], seconds: float) -> ServerFacts:
    """The facts of one server; nothing is raised. Table definitions are read from primaries only.

    seconds: limit for connecting and for each question.
    """
    try:
        async with await open_control(server, credentials, seconds) as connection:
            return await _facts(connection, databases)
    except (BackendError, SqlError) as error:
        return ServerFacts(server, error=str(error))


async def _facts(connection: ControlConnection, databases: Sequence[str]) -> ServerFacts:
    server = connection.server
    refused: list[tuple[str, str]] = []
    replication = None
    if server.role is Role.REPLICA:
        try:
            replication = await read_replication(connection)
        except BackendError:
            raise
        except SqlError as error:
            refused.append(("its replication status", str(error)))
    present = {str(text(r["name"])): str(text(r["coll"])) for r in await connection.query(_DATABASES)}
    tables: dict[tuple[str, str], TableFacts] = {}
    if server.role is Role.PRIMARY:
        for database in databases:
            if database in present:
                tables.update(await _tables(connection, database))
    return ServerFacts(
        server,
        version=connection.version,
        variables=await _variables(connection),
        replication=replication,
        databases=present,
        tables=tables,
        refused=tuple(refused),
        lock_waits=await _lock_waits(connection) if server.role is Role.PRIMARY else "",
    )


async def _lock_waits(connection: ControlConnection) -> str:
    """Why lock waits cannot be read, as looking for deadlocks over shards needs; empty when they can."""
    try:
        await connection.query("SELECT 1 FROM information_schema.innodb_trx LIMIT 1")
        if not connection.is_mariadb:
            await connection.query("SELECT 1 FROM performance_schema.data_lock_waits LIMIT 1")
            if not (await connection.query("SELECT @@performance_schema AS is_on"))[0]["is_on"]:
                return "performance_schema is OFF"
    except BackendError:
        raise
    except SqlError as error:
        return str(error)
    return ""


async def _variables(connection: ControlConnection) -> dict[str, str]:
    marks = ", ".join(["%s"] * len(VARIABLES))
    rows = await connection.query(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({marks})", VARIABLES)
    return {str(text(r["variable_name"])): str(text(r["value"])) for r in rows}


async def read_replication(connection: ControlConnection) -> Replication | None:
    """The state of the replica's (first) channel; None when it replicates from nowhere. Raises as `query`."""
    rows = await connection.query("SHOW REPLICA STATUS")
    return replication_from_row(rows[0]) if rows else None


def replication_from_row(row: Mapping[str, Any]) -> Replication:
    """One row of SHOW REPLICA STATUS, column names in lower case.

    The two servers call the same column by an old word and a new one (…_Behind_Source); only its end is the same, so
    columns are found by how they begin and end.
    """

    def value(pattern: str) -> str:
        return next((str(text(v)) for name, v in row.items() if re.fullmatch(pattern, name) and v is not None), "")

    lag = value(r"seconds_behind_\w+")
    by_gtid = value("using_gtid") not in ("", "No") or value("auto_position") == "1"
    return Replication(
        source_id=value(r"[a-z]+_server_id"),
        source_uuid=value(r"[a-z]+_uuid"),
        receiving=value(r"[a-z]+_io_running") == "Yes",
        applying=value(r"[a-z]+_sql_running") == "Yes",
        lag=float(lag) if lag else None,
        by_gtid=by_gtid,
        last_error=value("last_io_error") or value("last_sql_error"),
    )


async def _tables(connection: ControlConnection, database: str) -> dict[tuple[str, str], TableFacts]:
    args = (database,)
    schemas = await read_tables(connection, database)
    kinds = {str(text(r["name"])): r for r in await connection.query(_TABLES, args)}
    expression = "NULL" if connection.is_mariadb else "expression"
    indexes = _by_table(await connection.query(_INDEXES.format(expression=expression), args))
    foreign_keys = _by_table(await connection.query(_FOREIGN_KEYS, args))
    triggers = _by_table(await connection.query(_TRIGGERS, args))
    generated = _by_table(await connection.query(_GENERATED, args))
    return {
        (database, name): TableFacts(
            schema=schema,
            engine=text(kinds.get(name, {}).get("engine")) or "",
            collation=text(kinds.get(name, {}).get("coll")) or "",
            indexes=_indexes(indexes.get(name, [])),
            foreign_keys=_foreign_keys(foreign_keys.get(name, []), database),
            triggers=tuple(
                f"{text(r['name'])} {text(r['timing'])} {text(r['event'])}: {text(r['body'])}"
                for r in triggers.get(name, [])
            ),
            expressions={str(text(r["col"])): str(text(r["expression"])) for r in generated.get(name, [])},
        )
        for name, schema in schemas.items()
    }


def _by_table(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(str(text(row["tbl"])), []).append(row)
    return out


def _indexes(rows: Sequence[Mapping[str, Any]]) -> tuple[Index, ...]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(str(text(row["name"])), []).append(row)
    return tuple(
        Index(
            name=name,
            unique=not int(parts[0]["non_unique"]),
            kind=str(text(parts[0]["kind"])),
            parts=tuple(_index_part(p) for p in parts),
            columns=tuple(text(p["col"]) for p in parts),
        )
        for name, parts in grouped.items()
    )


def _index_part(row: Mapping[str, Any]) -> str:
    column = text(row["col"])
    part = f"({text(row['expression'])})" if column is None else column
    prefix = f"({row['sub_part']})" if row["sub_part"] is not None else ""
    return part + prefix + (" DESC" if text(row["direction"]) == "D" else "")


def _foreign_keys(rows: Sequence[Mapping[str, Any]], database: str) -> tuple[str, ...]:
    grouped: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for r in rows:
        other_db = text(r["other_db"])
        other = f"{'' if other_db == database else f'{other_db}.'}{text(r['other'])}"
        grouped.setdefault((str(text(r["name"])), other), []).append((str(text(r["col"])), str(text(r["other_col"]))))
    return tuple(
        f"{name} ({', '.join(c for c, _ in columns)}) → {other} ({', '.join(o for _, o in columns)})"
        for (name, other), columns in grouped.items()
    )
