"""`shardctl lookup`: entries for rows that were there before their lookup index, and whether entries and rows agree.

Works on the servers themselves, while proxies write. A batch of rows is locked (shared) while its entries are made, so
that none of them is deleted or changed meanwhile; new rows bring their entries themselves.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from secrets import randbits
from typing import Any

from shardproxy.backend.catalog import asking, read_tables
from shardproxy.backend.control import ControlConnection, Credentials, open_control
from shardproxy.backend.lookup_record import LookupRecord, Progress, lookup_states, read_lookup, write_lookup
from shardproxy.errors import ConfigError, ShardproxyError, SqlError
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_index import index_of, parts_of
from shardproxy.planner.lookup_plan import Index, Part
from shardproxy.planner.lookup_rows import FoundRow, found_row, padded_parts
from shardproxy.topology.lookup import columns_of, home, index_name, placement
from shardproxy.topology.model import Keyspace, Snapshot, Table
from shardproxy.topology.schema import TableSchema

_AGAIN = frozenset({1205, 1213})  # lock wait time-out, deadlock
_TRIES = 20
_LOOKS = 5  # at a difference, before it counts: entry and row become visible a moment apart
_PAUSE = 0.1  # seconds between them
_SHOWN = 20  # conflicts and differences that are kept to be shown
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


@dataclass(slots=True)
class Backfilled:
    """rows: read; entries: made; conflicts: values that rows of different keys have; pruned: entries without a row."""

    rows: int = 0
    entries: int = 0
    pruned: int = 0
    conflicts: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return not self.conflicts


@dataclass(slots=True)
class Differences:
    """missing: rows without entry; orphans: entries without row, or where the map does not look for them; conflicts:
    rows whose value has an entry of another key. Counts; examples are lines for people. repaired: of these."""

    rows: int = 0
    entries: int = 0
    missing: int = 0
    orphans: int = 0
    conflicts: int = 0
    repaired: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.missing + self.orphans + self.conflicts - self.repaired

    def note(self, line: str) -> None:
        if len(self.examples) < _SHOWN:
            self.examples.append(line)


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
        async with await open_control(snapshot.shards[keyspace.shards[0]].primary, credentials, seconds) as first:
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
    wanted = sorted(column.lower() for column in columns_of(columns))
    lookup = next((i for i in found.lookups if sorted(c.lower() for c in i.columns) == wanted), None)
    if lookup is None:
        known = "; ".join(", ".join(i.columns) for i in found.lookups) or "none"
        raise ConfigError(f"{keyspace.name}.{found.name} has no lookup index over {columns}; it has: {known}")
    first = snapshot.shards[keyspace.shards[0]].primary
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
    return _bytes(next(iter(row.values()))) or b""


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


def _bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


# ── backfill ──


async def backfill(work: Work, advance: Advance) -> Backfilled:
    """Make the entry of every row, and mark the index as ready. Goes on where an earlier run was ended.

    advance: called with numbers of rows done. Raises ShardproxyError; what is done by then stays.
    """
    done = Backfilled()
    here = placement(work.snapshot, work.keyspace)
    async with AsyncExitStack() as stack:
        book = await stack.enter_async_context(_open(work, work.keyspace.shards[0]))
        record = await read_lookup(asking(book), work.keyspace.name, work.index.name)
        progress: dict[str, object] = {}
        if record is not None and record.placement == here and record.state == "building":
            progress = dict(record.progress)
        stale = not progress and await _has_entries(work)
        await _note(work, book, "building", here, progress)
        if stale:
            found = await verify(work, True, lambda rows: None)
            done.pruned = found.repaired
        homes = {i: await stack.enter_async_context(_open(work, i)) for i in work.keyspace.map.all_shards}
        for shard in work.keyspace.map.all_shards:
            name = work.snapshot.shards[shard].name
            if progress.get(name) is not True:
                async with _open(work, shard) as rows:
                    await _fill(
                        work, rows, homes, progress.get(name), done, advance, _noting(work, book, progress, name)
                    )
            progress[name] = True
        await _note(work, book, "ready" if done.ready else "building", here, progress if done.ready else {})
    return done


Noting = Callable[[Sequence[bytes]], Any]


def _noting(work: Work, book: ControlConnection, progress: dict[str, object], name: str) -> Noting:
    async def note(primary: Sequence[bytes]) -> None:
        progress[name] = [value.hex() for value in primary]
        await _note(work, book, "building", placement(work.snapshot, work.keyspace), progress)

    return note


async def _note(work: Work, book: ControlConnection, state: str, where: str, progress: Progress) -> None:
    await write_lookup(asking(book), work.keyspace.name, work.index.name, LookupRecord(state, where, progress))


async def _has_entries(work: Work) -> bool:
    for shard in work.keyspace.shards:
        async with _open(work, shard) as connection:
            async for _ in _entries(work, connection):
                return True
    return False


@asynccontextmanager
async def _open(work: Work, shard: int) -> AsyncIterator[ControlConnection]:
    server = work.snapshot.shards[shard].primary
    async with await open_control(server, work.credentials, work.seconds) as connection:
        for setting in _SETTINGS:
            await connection.execute(setting)
        yield connection


async def _fill(
    work: Work,
    rows: ControlConnection,
    homes: dict[int, ControlConnection],
    after: object,
    done: Backfilled,
    advance: Advance,
    note: Noting,
) -> None:
    """The entries of one shard's rows, batch by batch."""
    last = tuple(bytes.fromhex(value) for value in after) if isinstance(after, list) else None
    while True:
        page, conflicts, entries = await _again(rows, partial(_one_batch, work, rows, homes, last))
        if not page:
            return
        last = page[-1].primary
        await note(last)
        done.rows += len(page)
        done.entries += entries
        done.conflicts += conflicts[: max(0, _SHOWN - len(done.conflicts))]
        advance(len(page))


async def _again(connection: ControlConnection, step: Callable[[], Any]) -> Any:
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


async def _one_batch(
    work: Work, rows: ControlConnection, homes: dict[int, ControlConnection], after: tuple[bytes, ...] | None
) -> tuple[list[FoundRow], list[str], int]:
    """The rows behind `after`, conflicts, and how many entries were made."""
    page = await _page(work, rows, after, " LOCK IN SHARE MODE")
    by_home: dict[int, list[FoundRow]] = {}
    for row in page:
        value = row.values[0]
        if value is not None:
            by_home.setdefault(home(work.keyspace, value), []).append(row)
    made = 0
    conflicts: list[str] = []
    for shard, mine in sorted(by_home.items()):
        entries, different = await _enter(work, homes[shard], mine)
        made += entries
        conflicts += different
    return page, conflicts, made


async def _enter(work: Work, connection: ControlConnection, rows: Sequence[FoundRow]) -> tuple[int, list[str]]:
    """Make the entries that are missing. How many, and a line for each that another key has."""
    wanted = [(work.index, row.values[0] or b"", row.key, randbits(63)) for row in rows]
    made = await connection.execute(lookup_text.entries_insert(wanted, ignore=True).decode())
    present = await connection.query(lookup_text.present(work.index, [value for _, value, _, _ in wanted]).decode())
    owners = {_bytes(row["value"]): _bytes(row["shard_key"]) or b"" for row in present}
    return made, [
        f"'{_shown(row)}': rows with {work.index.key} = {_text(row.key)} and {_text(owners[row.values[0]])} have it"
        for row in rows
        if owners.get(row.values[0], row.key) != row.key
    ]


def _shown(row: FoundRow) -> str:
    return _text(row.shown[0])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


async def _page(
    work: Work, connection: ControlConnection, after: tuple[bytes, ...] | None, lock: str = ""
) -> list[FoundRow]:
    """The next rows of a shard in the order of the primary key."""
    names = [lookup_text.name(part.column) for part in work.primary]
    where = b" WHERE " + _behind(work.primary, names, after) if after is not None else b""
    text = b"%s%s ORDER BY %s LIMIT %d" % (_select(work), where, b", ".join(names), work.batch)
    return await _rows(work, connection, text.decode() + lock)


def _select(work: Work) -> bytes:
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


async def _rows(work: Work, connection: ControlConnection, sql: str) -> list[FoundRow]:
    rows = await connection.query(sql)
    return [
        found_row([_bytes(value) for value in row.values()], (work.index,), work.primary, work.blanks) for row in rows
    ]


# ── verify ──


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    key: bytes


async def _entries(work: Work, connection: ControlConnection) -> AsyncIterator[list[_Entry]]:
    """A shard's entries, page by page."""
    last: bytes | None = None
    while True:
        rows = await connection.query(lookup_text.entries_page(work.index, last, work.batch).decode())
        if not rows:
            return
        yield [_Entry(_bytes(row["value"]) or b"", _bytes(row["shard_key"]) or b"") for row in rows]
        last = _bytes(rows[-1]["value"])


def _mark(value: bytes, key: bytes) -> int:
    return int.from_bytes(blake2b(b"%d:%s%s" % (len(value), value, key), digest_size=8).digest(), "big")


def _sorted(marks: array[int]) -> array[int]:
    return array("Q", sorted(marks))


def _within(marks: array[int], mark: int) -> bool:
    at = bisect_left(marks, mark)
    return at < len(marks) and marks[at] == mark


async def verify(work: Work, repair: bool, advance: Advance) -> Differences:
    """Compare rows and entries both ways; 16 bytes of memory a row. What differs is looked at again, so that writes
    under way do not count. repair: make missing entries, and take away those without a row.

    advance: called with numbers of rows read. Raises ShardproxyError.
    """
    told = Differences()
    async with AsyncExitStack() as stack:
        shards = {i: await stack.enter_async_context(_open(work, i)) for i in work.keyspace.shards}
        marks: array[int] = array("Q")
        for connection in shards.values():
            async for page in _entries(work, connection):
                marks.extend(_mark(entry.value, entry.key) for entry in page)
        told.entries = len(marks)
        marks = _sorted(marks)
        of_rows: array[int] = array("Q")
        for shard in work.keyspace.map.all_shards:
            async for rows in _all_rows(work, shards[shard]):
                told.rows += len(rows)
                for row in rows:
                    value = row.values[0]
                    if value is None:
                        continue
                    mark = _mark(value, row.key)
                    of_rows.append(mark)
                    if not _within(marks, mark):
                        await _missing(work, shards, shard, row, repair, told)
                advance(len(rows))
        of_rows = _sorted(of_rows)
        for shard, connection in shards.items():
            async for page in _entries(work, connection):
                for entry in page:
                    if home(work.keyspace, entry.value) != shard or not _within(of_rows, _mark(entry.value, entry.key)):
                        await _orphan(work, shards, shard, entry, repair, told)
    return told


async def _all_rows(work: Work, connection: ControlConnection) -> AsyncIterator[list[FoundRow]]:
    after: tuple[bytes, ...] | None = None
    while page := await _page(work, connection, after):
        yield page
        after = page[-1].primary


async def _missing(
    work: Work,
    shards: dict[int, ControlConnection],
    shard: int,
    row: FoundRow,
    repair: bool,
    told: Differences,
) -> None:
    """A row whose entry was not seen."""
    value = row.values[0] or b""
    at_home = shards[home(work.keyspace, value)]
    for _ in range(_LOOKS):
        found = await at_home.query(lookup_text.entry_read(work.index, value).decode())
        if found and _bytes(found[0]["shard_key"]) == row.key:
            return
        if not await _still(work, shards[shard], row):
            return
        await asyncio.sleep(_PAUSE)
    owner = _bytes(found[0]["shard_key"]) if found else None
    if owner is not None:
        told.conflicts += 1
        told.note(f"'{_shown(row)}' of {work.index.key} = {_text(row.key)}: the entry is of {_text(owner)}")
        return
    told.missing += 1
    told.note(f"'{_shown(row)}' of {work.index.key} = {_text(row.key)} has no entry")
    if repair:
        rows = shards[shard]

        async def make() -> int:
            made, _ = (
                await _enter(work, at_home, [row]) if await _still(work, rows, row, " LOCK IN SHARE MODE") else (1, [])
            )
            return made

        told.repaired += min(1, await _again(rows, make))


async def _still(work: Work, connection: ControlConnection, row: FoundRow, lock: str = "") -> bool:
    """Whether the row is there with this value."""
    terms = [
        b"%s = %s" % (lookup_text.name(part.column), lookup_text.primary_literal(part, value))
        for part, value in zip(work.primary, row.primary, strict=True)
    ]
    text = _select(work) + b" WHERE " + b" AND ".join(terms)
    found = await _rows(work, connection, text.decode() + lock)
    return any(one.values == row.values and one.key == row.key for one in found)


async def _orphan(
    work: Work,
    shards: dict[int, ControlConnection],
    shard: int,
    entry: _Entry,
    repair: bool,
    told: Differences,
) -> None:
    """An entry whose row was not seen, or that is where nobody looks for it."""
    stray = home(work.keyspace, entry.value) != shard
    for _ in range(1 if stray else _LOOKS):
        found = await shards[shard].query(lookup_text.entry_read(work.index, entry.value).decode())
        if not found or _bytes(found[0]["shard_key"]) != entry.key:
            return
        if not stray:
            if await _owned(work, shards, entry):
                return
            await asyncio.sleep(_PAUSE)
    told.orphans += 1
    why = "is on a shard where nobody looks for it" if stray else "has no row"
    told.note(f"an entry of {work.index.key} = {_text(entry.key)} (value x'{entry.value.hex()}') {why}")
    if repair:
        connection = shards[shard]

        async def remove() -> int:
            read = lookup_text.entry_read(work.index, entry.value, b" FOR UPDATE").decode()
            if not await connection.query(read) or (
                not stray and await _owned(work, shards, entry, " LOCK IN SHARE MODE")
            ):
                return 1
            return await connection.execute(lookup_text.entry_delete(work.index, entry.value, entry.key).decode())

        told.repaired += min(1, await _again(connection, remove))


async def _owned(work: Work, shards: dict[int, ControlConnection], entry: _Entry, lock: str = "") -> bool:
    """Whether a row of the entry's shard key has its value."""
    try:
        shard = work.keyspace.map.lookup(lookup_text.key_of(work.index, entry.key))
    except (LookupError, ValueError):
        return False
    text = _select(work) + b" WHERE " + lookup_text.key_is(work.index, entry.key)
    found = await _rows(work, shards[shard], text.decode() + lock)
    return any(row.values[0] == entry.value and row.key == entry.key for row in found)
