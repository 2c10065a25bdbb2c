"""One lookup index as the operator works on it: which it is, its rows and its entries, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import randbits
from typing import Any

from shardproxy.backend.catalog import asking, read_tables
from shardproxy.backend.control import ControlConnection, Credentials, open_control
from shardproxy.backend.lookup_record import lookup_states
from shardproxy.errors import ConfigError, ShardproxyError, SqlError
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_index import index_of, parts_of
from shardproxy.planner.lookup_plan import Index, Part
from shardproxy.planner.lookup_rows import FoundRow, found_row, padded_parts
from shardproxy.topology.lookup import columns_of, index_name, placement
from shardproxy.topology.model import Keyspace, Snapshot, Table
from shardproxy.topology.schema import TableSchema

_AGAIN = frozenset({1205, 1213})  # lock wait time-out, deadlock
_TRIES = 20
MOST_SHOWN = 20  # conflicts and differences that are kept to be shown
_SETTINGS = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 3",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES'",
)
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Work:
    """One index of one table. primary: by which its rows are read in order; rows: about how many there are."""

    snapshot: Snapshot
    credentials: Credentials
    seconds: float
    keyspace: Keyspace
    index: Index
    primary: tuple[Part, ...]
    blanks: dict[str, bytes]
    rows: int
    batch: int = 1000


@dataclass(frozen=True, slots=True)
class Listed:
    """An index of the file and its state: "ready", "building", "building (for another map)"."""

    keyspace: str
    name: str
    state: str


async def list_indexes(snapshot: Snapshot, credentials: Credentials, seconds: float) -> list[Listed]:
    """All indexes of the file. Raises ShardproxyError."""
    found = []
    for keyspace in snapshot.keyspaces.values():
        names = [index_name(t.name, i.columns) for t in keyspace.tables.values() for i in t.lookups]
        if not names:
            continue
        async with await open_control(snapshot.shards[keyspace.home].primary, credentials, seconds) as first:
            states = await lookup_states(asking(first), keyspace.name)
        for name in names:
            state, where = states.get(name, ("building", placement(snapshot, keyspace)))
            if where != placement(snapshot, keyspace):
                state = "building (was filled for another map)"
            found.append(Listed(keyspace.name, name, state))
    return found


# ── which index ──


async def prepare(
    snapshot: Snapshot, credentials: Credentials, seconds: float, table: str, columns: str, batch: int
) -> Work:
    """The work on an index that people name: "users" or "main.users", "email". Raises ConfigError, ShardproxyError."""
    keyspace, found = _table(snapshot, table)
    if keyspace.move is not None:
        raise ConfigError(
            f"keys of keyspace {keyspace.name} move to other shards (move {keyspace.move.ident}), and entries with "
            "them: complete or cancel the move first (shardctl rebalance status)"
        )
    wanted = sorted(column.lower() for column in columns_of(columns))
    lookup = next((i for i in found.lookups if sorted(c.lower() for c in i.columns) == wanted), None)
    if lookup is None:
        known = "; ".join(", ".join(i.columns) for i in found.lookups) or "none"
        raise ConfigError(f"{keyspace.name}.{found.name} has no lookup index over {columns}; it has: {known}")
    first = snapshot.shards[keyspace.home].primary
    async with await open_control(first, credentials, seconds) as connection:
        schema = (await read_tables(connection, keyspace.name)).get(found.name)
        if schema is None:
            raise ShardproxyError(f"{first.name} has no table {keyspace.name}.{found.name}")
        index = index_of(keyspace, found, lookup, schema)
        if isinstance(index, str):
            raise ShardproxyError(f"{index_name(found.name, lookup.columns)} cannot be kept: {index}")
        blanks = {part.collation: await _blank(connection, part) for part in padded_parts((index,))}
    rows = await _about_rows(snapshot, credentials, seconds, keyspace, found)
    primary = _primary(found, schema)
    return Work(snapshot, credentials, seconds, keyspace, index, primary, blanks, rows, batch)


def _table(snapshot: Snapshot, name: str) -> tuple[Keyspace, Table]:
    database, dot, table = name.rpartition(".")
    found = [
        (keyspace, keyspace.tables[table])
        for keyspace in snapshot.keyspaces.values()
        if table in keyspace.tables and (not dot or keyspace.name == database)
    ]
    if len(found) != 1:
        raise ConfigError(f"table {name} is {'in several keyspaces: KEYSPACE.TABLE' if found else 'not in the file'}")
    return found[0]


def _primary(table: Table, schema: TableSchema) -> tuple[Part, ...]:
    parts = parts_of(schema, schema.primary_key)
    if isinstance(parts, str) or not parts:
        why = parts if isinstance(parts, str) else "it has none"
        raise ShardproxyError(f"{table.name} cannot be read in the order of its primary key: {why}")
    return parts


async def _blank(connection: ControlConnection, part: Part) -> bytes:
    [row] = await connection.query(lookup_text.weight_of(part, b" ").decode())
    return as_bytes(next(iter(row.values()))) or b""


async def _about_rows(
    snapshot: Snapshot, credentials: Credentials, seconds: float, keyspace: Keyspace, table: Table
) -> int:
    total = 0
    for shard in keyspace.map.all_shards:
        async with await open_control(snapshot.shards[shard].primary, credentials, seconds) as connection:
            rows = await connection.query(
                "SELECT table_rows AS n FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
                (keyspace.name, table.name),
            )
            total += int(rows[0]["n"] or 0) if rows else 0
    return total


def as_bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


# ── reading and writing ──


@asynccontextmanager
async def open_primary(work: Work, shard: int) -> AsyncIterator[ControlConnection]:
    server = work.snapshot.shards[shard].primary
    async with await open_control(server, work.credentials, work.seconds) as connection:
        for setting in _SETTINGS:
            await connection.execute(setting)
        yield connection


async def in_transaction(connection: ControlConnection, step: Callable[[], Any]) -> Any:
    """Take a step in a transaction; anew after a deadlock or a lock that did not come."""
    for attempt in range(_TRIES):
        try:
            await connection.execute("BEGIN")
            result = await step()
            await connection.execute("COMMIT")
        except SqlError as error:
            if error.code not in _AGAIN or attempt == _TRIES - 1:
                raise
            await connection.execute("ROLLBACK")
        else:
            return result
    raise AssertionError("the last attempt returns or raises")


async def enter(work: Work, connection: ControlConnection, rows: Sequence[FoundRow]) -> tuple[int, list[str]]:
    """Make the entries that are missing. How many, and a line for each that another key has."""
    wanted = [(work.index, row.values[0] or b"", row.key, randbits(63)) for row in rows]
    made = await connection.execute(lookup_text.entries_insert(wanted, ignore=True).decode())
    present = await connection.query(lookup_text.present(work.index, [value for _, value, _, _ in wanted]).decode())
    owners = {as_bytes(row["value"]): as_bytes(row["shard_key"]) or b"" for row in present}
    return made, [
        f"'{shown(row)}': {work.index.key} {readable(row.key)} and {readable(owners[row.values[0]])} both have it"
        for row in rows
        if owners.get(row.values[0], row.key) != row.key
    ]


def shown(row: FoundRow) -> str:
    return readable(row.shown[0])


def readable(value: bytes) -> str:
    return value.decode("utf-8", "replace")


async def rows_page(
    work: Work, connection: ControlConnection, after: tuple[bytes, ...] | None, lock: str = ""
) -> list[FoundRow]:
    """The next rows of a shard in the order of the primary key."""
    names = [lookup_text.name(part.column) for part in work.primary]
    where = b" WHERE " + _behind(work.primary, names, after) if after is not None else b""
    text = b"%s%s ORDER BY %s LIMIT %d" % (select_text(work), where, b", ".join(names), work.batch)
    return await read_rows(work, connection, text.decode() + lock)


def select_text(work: Work) -> bytes:
    columns = lookup_text.select_columns((work.index,), work.primary)
    listed = b", ".join(b"%s AS c%d" % (column, i) for i, column in enumerate(columns))
    return b"SELECT %s FROM %s.%s" % (
        listed, lookup_text.name(work.index.schema), lookup_text.name(work.index.table)
    )  # fmt: skip


def _behind(primary: Sequence[Part], names: Sequence[bytes], after: Sequence[bytes]) -> bytes:
    """primary key > after, column by column."""
    values = [lookup_text.primary_literal(part, value) for part, value in zip(primary, after, strict=True)]
    choices = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        equal = [b"%s = %s" % pair for pair in zip(names[:i], values[:i], strict=True)]
        choices.append(b" AND ".join([*equal, b"%s > %s" % (name, value)]))
    return b"(%s >= %s) AND (%s)" % (names[0], values[0], b" OR ".join(b"(" + c + b")" for c in choices))


async def read_rows(work: Work, connection: ControlConnection, sql: str) -> list[FoundRow]:
    rows = await connection.query(sql)
    return [
        found_row([as_bytes(value) for value in row.values()], (work.index,), work.primary, work.blanks) for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Entry:
    value: bytes
    key: bytes


async def entries_pages(work: Work, connection: ControlConnection) -> AsyncIterator[list[Entry]]:
    """A shard's entries, page by page."""
    last: bytes | None = None
    while True:
        rows = await connection.query(lookup_text.entries_page(work.index, last, work.batch).decode())
        if not rows:
            return
        yield [Entry(as_bytes(row["value"]) or b"", as_bytes(row["shard_key"]) or b"") for row in rows]
        last = as_bytes(rows[-1]["value"])
