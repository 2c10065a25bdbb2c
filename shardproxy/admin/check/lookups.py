"""Rules about lookup indexes: they can be kept, the proxy may keep them, and they are filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shardproxy.admin.check.facts import ServerFacts, TableFacts
from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.admin.check.tables import primaries_by_shard
from shardproxy.backend.catalog import asking
from shardproxy.backend.control import Credentials, open_control
from shardproxy.backend.ddl_record import MISSING_TABLE
from shardproxy.backend.lookup_record import lookup_states
from shardproxy.errors import BackendError, SqlError
from shardproxy.planner.lookup_index import index_of
from shardproxy.topology.lookup import index_name, placement
from shardproxy.topology.model import Keyspace, LookupIndex, Snapshot, Table

# What a proxy does with entries; nothing is changed.
_PROBES = (
    "INSERT INTO _shardproxy.lookup (keyspace, index_name, value, shard_key, version) "
    "SELECT keyspace, index_name, value, shard_key, version FROM _shardproxy.lookup WHERE FALSE",
    "DELETE FROM _shardproxy.lookup WHERE FALSE",
    "UPDATE _shardproxy.lookup_index SET state = 'building' WHERE FALSE",
)
_RIGHTS = "run shardctl migrate, and GRANT SELECT, INSERT, UPDATE, DELETE ON _shardproxy.* TO the proxy's account"


def lookup_findings(snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """Findings about definitions, judged by the first shard that has the table (the others must equal it)."""
    by_shard = primaries_by_shard(snapshot, facts)
    for keyspace, table in _tables(snapshot):
        definitions = [
            by_shard[i].tables[keyspace.name, table.name]
            for i in keyspace.map.all_shards
            if i in by_shard and (keyspace.name, table.name) in by_shard[i].tables
        ]
        if definitions:
            yield from table_with_lookups(keyspace, table, definitions[0])


def table_with_lookups(keyspace: Keyspace, table: Table, facts: TableFacts) -> Iterator[Finding]:
    """Findings about one table's lookup indexes."""
    where = f"{keyspace.name}.{table.name}"
    for lookup in table.lookups:
        name = index_name(table.name, lookup.columns)
        index = index_of(keyspace, table, lookup, facts.schema)
        problem = _prefixed(lookup, facts) or (index if isinstance(index, str) else "")
        if problem:
            yield error(
                where,
                f"lookup index {name} cannot be kept: {problem}",
                "ALTER the table, or take the index out of `lookups`: until then writes to the table are refused",
            )
    for key in facts.foreign_keys:
        yield warning(
            where,
            f"foreign key {key}: a cascade would change rows without their entries in lookup indexes",
            "make it ON DELETE RESTRICT ON UPDATE RESTRICT, or drop it",
        )


def _prefixed(lookup: LookupIndex, facts: TableFacts) -> str:
    """Whether every unique key over the columns has only a part of one."""
    wanted = {column.lower() for column in lookup.columns}
    over = [
        index
        for index in facts.indexes
        if index.unique and {(column or "").lower() for column in index.columns} == wanted
    ]
    if over and all(any("(" in part for part in index.parts) for index in over):
        return f"its unique key {over[0].name} ({', '.join(over[0].parts)}) is over the beginning of a value only"
    return ""


async def lookup_state_findings(snapshot: Snapshot, credentials: Credentials, seconds: float) -> list[Finding]:
    """Findings about rights and states, asked of the primaries. Nothing is raised; servers that do not answer have
    findings elsewhere."""
    found: list[Finding] = []
    keyspaces = {keyspace.name: keyspace for keyspace, _ in _tables(snapshot)}
    for shard in sorted({shard for keyspace in keyspaces.values() for shard in keyspace.shards}):
        server = snapshot.shards[shard].primary
        try:
            async with await open_control(server, credentials, seconds) as connection:
                for probe in _PROBES:
                    await connection.execute(probe)
        except BackendError:
            continue
        except SqlError as problem:
            found.append(error(server.name, f"lookup indexes cannot be kept: {problem}", _RIGHTS))
    for keyspace in keyspaces.values():
        found += await _states(snapshot, keyspace, credentials, seconds)
    return found


async def _states(snapshot: Snapshot, keyspace: Keyspace, credentials: Credentials, seconds: float) -> list[Finding]:
    try:
        async with await open_control(snapshot.shards[keyspace.home].primary, credentials, seconds) as first:
            states = await lookup_states(asking(first), keyspace.name)
    except BackendError:
        return []
    except SqlError as problem:
        if problem.code not in MISSING_TABLE:
            return [error(keyspace.name, f"the states of lookup indexes cannot be read: {problem}", _RIGHTS)]
        states = {}
    ready = ("ready", placement(snapshot, keyspace))
    return [
        warning(
            f"{keyspace.name}.{table.name}",
            f"lookup index {index_name(table.name, lookup.columns)} is not filled: rows that were there before it are "
            "not unique over the shards, and statements are not routed by it",
            f"shardctl lookup backfill {keyspace.name}.{table.name} {','.join(lookup.columns)}",
        )
        for table in keyspace.tables.values()
        for lookup in table.lookups
        if states.get(index_name(table.name, lookup.columns)) != ready
    ]


def _tables(snapshot: Snapshot) -> Iterator[tuple[Keyspace, Table]]:
    for keyspace in snapshot.keyspaces.values():
        for table in keyspace.tables.values():
            if table.lookups:
                yield keyspace, table
