"""What preflight asks of the primaries of a move, beside what `shardctl check` asks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.admin.check.data import content_sql
from shardproxy.admin.check.facts import ServerFacts
from shardproxy.admin.rebalance.measure import Shard
from shardproxy.backend.control import ControlConnection, text
from shardproxy.errors import BackendError, SqlError
from shardproxy.topology.model import Keyspace, TableKind
from shardproxy.topology.moving import MovingKeys

_GRANT = re.compile(r"GRANT (.+?) ON (\S+) TO ", re.IGNORECASE)
_FILTERED = ("binlog_do_db", "binlog_ignore_db")
# Statements that change nothing and need the rights that a move needs.
_BOOKKEEPING = tuple(
    statement
    for table, column in (
        ("move", "writes"), ("stream", "applied"), ("stream_table", "copied_rows"), ("fence", "epoch"),
        ("fence_slot", "branches"), ("marker", "epoch"), ("lookup", "shard_key"),
    )
    for statement in (
        f"UPDATE _shardproxy.{table} SET {column} = {column} WHERE FALSE",  # noqa: S608
        f"DELETE FROM _shardproxy.{table} WHERE FALSE",  # noqa: S608
        f"INSERT INTO _shardproxy.{table} SELECT * FROM _shardproxy.{table} WHERE FALSE",  # noqa: S608
    )
)  # fmt: skip
_UNFINISHED = (
    "SELECT DISTINCT m.move_id AS id FROM _shardproxy.stream AS s JOIN _shardproxy.move AS m USING (move_id) "
    "WHERE m.keyspace = %s"
)
_CHANGING = "SELECT table_name AS name FROM _shardproxy.ddl_table WHERE keyspace = %s"
_REFERRING = (
    "SELECT CONCAT(table_schema, '.', table_name) AS tbl, constraint_name AS name, referenced_table_name AS other "
    "FROM information_schema.key_column_usage WHERE referenced_table_schema = %s AND table_schema <> %s"
)
_VERSIONED = (
    "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = %s AND table_type LIKE 'SYSTEM V%%'"
)
_DISKS = (
    "SELECT available * 1024 AS free FROM information_schema.disks WHERE @@datadir LIKE CONCAT(path, '%') "
    "ORDER BY LENGTH(path) DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class MoveFacts:
    """Of one primary. rights: names of privileges on everything; database_rights: on the keyspace's database too;
    own_rights: on `_shardproxy` too.

    refused: (statement, message) that our account may not run; strays: table → whether it has rows with keys that will
    come (None: not known in time); unequal: reference tables that differ from those of the first shard, and those that
    were not compared in time; free: bytes on the disk of the data, None where the server does not tell.
    """

    rights: frozenset[str]
    database_rights: frozenset[str]
    own_rights: frozenset[str]
    filters: str
    refused: tuple[tuple[str, str], ...]
    missing: str
    unfinished: tuple[int, ...]
    changing: tuple[str, ...]
    referring: tuple[str, ...]
    versioned: frozenset[str]
    same_account: int
    strays: dict[str, bool | None]
    free: int | None


async def ask_primary(shard: Shard, coming: Sequence[MovingKeys], facts: ServerFacts) -> MoveFacts:
    """The facts of one shard. coming: keys of which it gets rows. Raises BackendError, SqlError."""
    connection, keyspace = shard.connection, shard.ruler.keyspace
    name = keyspace.name
    rights, database_rights = await _rights(connection, name)
    _, own_rights = await _rights(connection, "_shardproxy")
    missing, refused = await _bookkeeping(connection)
    refused += await _tables(connection, keyspace, facts)
    unfinished = [] if missing else await connection.query(_UNFINISHED, (name,))
    changing = [] if missing else await connection.query(_CHANGING, (name,))
    referring = await connection.query(_REFERRING, (name, name))
    versioned = await connection.query(_VERSIONED, (name,)) if connection.is_mariadb else []
    return MoveFacts(
        rights=rights,
        database_rights=database_rights,
        own_rights=own_rights,
        filters=await _filters(connection),
        refused=tuple(refused),
        missing=missing,
        unfinished=tuple(int(row["id"]) for row in unfinished),
        changing=tuple(str(text(row["name"])) for row in changing),
        referring=tuple(f"{text(r['tbl'])} ({text(r['name'])}) → {text(r['other'])}" for r in referring),
        versioned=frozenset(str(text(row["name"])) for row in versioned),
        same_account=await _same_account(connection),
        strays={table.name: await _stray(shard, table.name, table.key or "", coming) for table in shard.tables}
        if coming
        else {},
        free=await _free(connection),
    )


async def reference_contents(shard: Shard, facts: ServerFacts) -> dict[str, tuple[int, ...] | None]:
    """Reference table → a checksum of its rows; None when there was no time. Tables that are missing are left out."""
    found: dict[str, tuple[int, ...] | None] = {}
    for table in shard.ruler.keyspace.tables.values():
        definition = facts.tables.get((shard.ruler.keyspace.name, table.name))
        if table.kind is TableKind.REFERENCE and definition is not None and not definition.schema.is_view:
            rows = await shard.count(content_sql(definition))
            found[table.name] = tuple(int(str(value)) for value in rows[0].values()) if rows else None
    return found


async def _rights(connection: ControlConnection, database: str) -> tuple[frozenset[str], frozenset[str]]:
    using = ""
    if not connection.is_mariadb:
        [row] = await connection.query("SELECT CURRENT_ROLE() AS roles")
        if row["roles"] != "NONE":
            using = f" FOR CURRENT_USER() USING {row['roles']}"
    everywhere: set[str] = set()
    here: set[str] = set()
    for row in await connection.query(f"SHOW GRANTS{using}"):
        match = _GRANT.match(str(text(next(iter(row.values())))))
        if match is None:
            continue
        names = {name.strip().upper() for name in match[1].split(",")}
        target = match[2].replace("\\_", "_").replace("\\%", "%")
        if target == "*.*":
            everywhere |= names
        elif target in (f"`{database}`.*", f"{database}.*"):
            here |= names
    return frozenset(everywhere), frozenset(everywhere | here)


async def _bookkeeping(connection: ControlConnection) -> tuple[str, list[tuple[str, str]]]:
    refused: list[tuple[str, str]] = []
    for statement in _BOOKKEEPING:
        try:
            await connection.execute(statement)
        except BackendError:
            raise
        except SqlError as error:
            if error.code in (1049, 1146):
                return str(error), []
            refused.append((statement, str(error)))
    return "", refused[:1]


async def _tables(connection: ControlConnection, keyspace: Keyspace, facts: ServerFacts) -> list[tuple[str, str]]:
    """Whether our account may read, write and delete the rows of the tables that move."""
    for table in keyspace.tables.values():
        definition = facts.tables.get((keyspace.name, table.name))
        if table.kind is not TableKind.SHARDED or definition is None or definition.schema.is_view:
            continue
        name = ".".join(f"`{part.replace('`', '``')}`" for part in (keyspace.name, table.name))
        plain = [c.name for c in definition.schema.columns if not c.generated]
        columns = ", ".join(f"`{column.replace('`', '``')}`" for column in plain)
        for statement in (
            f"DELETE FROM {name} WHERE FALSE",  # noqa: S608
            f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {name} WHERE FALSE",  # noqa: S608
            f"UPDATE {name} SET `{plain[0].replace('`', '``')}` = NULL WHERE FALSE",  # noqa: S608
        ):
            try:
                await connection.execute(statement)
            except BackendError:
                raise
            except SqlError as error:
                if error.code in (1044, 1142, 1143, 1205, 1227, 1370):
                    return [(statement.partition(" WHERE")[0], str(error))]
    return []


async def _filters(connection: ControlConnection) -> str:
    """Databases that the binlog is limited to, or leaves out."""
    statement = "SHOW BINLOG STATUS" if connection.is_mariadb else "SHOW BINARY LOG STATUS"
    try:
        rows = await connection.query(statement)
    except BackendError:
        raise
    except SqlError:
        return ""  # without the right; there is a finding about that
    return ", ".join(f"{key} = {text(row[key])}" for row in rows for key in _FILTERED if row.get(key))


async def _same_account(connection: ControlConnection) -> int:
    """Connections of others under our own account."""
    [me] = await connection.query("SELECT CONNECTION_ID() AS id, SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AS name")
    rows = await connection.query("SHOW PROCESSLIST")
    return sum(
        text(row["user"]) == text(me["name"])
        and int(row["id"]) != int(me["id"])
        and not str(text(row["command"])).startswith("Binlog Dump")
        for row in rows
    )


async def _stray(shard: Shard, table: str, key: str, coming: Sequence[MovingKeys]) -> bool | None:
    name = ".".join(f"`{part.replace('`', '``')}`" for part in (shard.ruler.keyspace.name, table))
    for keys in coming:
        rows = await shard.count(f"SELECT 1 FROM {name} WHERE {keys.condition(key).decode()} LIMIT 1")  # noqa: S608
        if rows is None or rows:
            return None if rows is None else True
    return False


async def _free(connection: ControlConnection) -> int | None:
    try:
        rows = await connection.query(_DISKS)
    except BackendError:
        raise
    except SqlError:
        return None
    return int(rows[0]["free"]) if rows and rows[0]["free"] is not None else None
