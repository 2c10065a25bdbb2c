"""Whether a table and the entries of its index agree."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b

from shardproxy.admin.lookup.work import (
    MOST_SHOWN,
    Advance,
    Entry,
    Work,
    as_bytes,
    enter,
    entries_pages,
    in_transaction,
    open_primary,
    read_rows,
    readable,
    rows_page,
    select_text,
    shown,
)
from shardproxy.backend.control import ControlConnection
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_rows import FoundRow
from shardproxy.topology.lookup import home

_LOOKS = 5  # at a difference, before it counts: entry and row become visible a moment apart
_PAUSE = 0.1  # seconds between them


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
        if len(self.examples) < MOST_SHOWN:
            self.examples.append(line)


def _mark(value: bytes, key: bytes) -> int:
    return int.from_bytes(blake2b(b"%d:%s%s" % (len(value), value, key), digest_size=8).digest(), "big")


def _sorted(marks: array[int]) -> array[int]:
    return array("Q", sorted(marks))


def _within(marks: array[int], mark: int) -> bool:
    at = bisect_left(marks, mark)
    return at < len(marks) and marks[at] == mark


async def verify(work: Work, repair: bool, advance: Advance, only_orphans: bool = False) -> Differences:
    """Compare rows and entries both ways; 16 bytes of memory a row. What differs is looked at again, so that writes
    under way do not count. repair: make missing entries, and take away those without a row.

    advance: called with numbers of rows read; only_orphans: one way. Raises ShardproxyError.
    """
    told = Differences()
    async with AsyncExitStack() as stack:
        shards = {i: await stack.enter_async_context(open_primary(work, i)) for i in work.keyspace.shards}
        of_entries: array[int] = array("Q")
        for connection in shards.values():
            async for page in entries_pages(work, connection):
                of_entries.extend(_mark(entry.value, entry.key) for entry in page)
        told.entries = len(of_entries)
        of_entries = _sorted(of_entries)
        of_rows: array[int] = array("Q")
        for shard in work.keyspace.map.all_shards:
            async for rows in _all_rows(work, shards[shard]):
                told.rows += len(rows)
                marks = {row.primary: _mark(row.values[0], row.key) for row in rows if row.values[0] is not None}
                of_rows.extend(marks.values())
                lacking = [row for row in rows if row.primary in marks and not _within(of_entries, marks[row.primary])]
                if lacking and not only_orphans:
                    await _missing(work, shards, shard, lacking, repair, told)
                advance(len(rows))
        of_rows = _sorted(of_rows)
        for shard, connection in shards.items():
            async for page in entries_pages(work, connection):
                strays = [entry for entry in page if home(work.keyspace, entry.value) != shard]
                lost = [e for e in page if e not in strays and not _within(of_rows, _mark(e.value, e.key))]
                await _orphans(work, shards, shard, strays, lost, repair, told)
    return told


async def _all_rows(work: Work, connection: ControlConnection) -> AsyncIterator[list[FoundRow]]:
    after: tuple[bytes, ...] | None = None
    while page := await rows_page(work, connection, after):
        yield page
        after = page[-1].primary


async def _missing(
    work: Work,
    shards: dict[int, ControlConnection],
    shard: int,
    rows: list[FoundRow],
    repair: bool,
    told: Differences,
) -> None:
    """Rows whose entry was not seen."""
    owners: dict[bytes, bytes] = {}
    for look in range(_LOOKS):
        if look:
            await asyncio.sleep(_PAUSE)
        owners = await _owners(work, shards, rows)
        rows = [row for row in rows if owners.get(row.values[0] or b"") != row.key]
        rows = [row for row in rows if await _still(work, shards[shard], row)]
        if not rows:
            return
    for row in rows:
        owner = owners.get(row.values[0] or b"")
        place = f"'{shown(row)}' of {work.index.key} = {readable(row.key)}"
        if owner is not None:
            told.conflicts += 1
            told.note(f"{place}: the entry is of {readable(owner)}")
            continue
        told.missing += 1
        told.note(f"{place} has no entry")
        if repair:
            told.repaired += await in_transaction(shards[shard], partial(_make, work, shards, shard, row))


async def _owners(work: Work, shards: dict[int, ControlConnection], rows: list[FoundRow]) -> dict[bytes, bytes]:
    """Value → shard key of its entry, of those that have one."""
    by_home: dict[int, list[bytes]] = {}
    for row in rows:
        value = row.values[0] or b""
        by_home.setdefault(home(work.keyspace, value), []).append(value)
    owners: dict[bytes, bytes] = {}
    for shard, values in by_home.items():
        found = await shards[shard].query(lookup_text.present(work.index, values).decode())
        owners |= {as_bytes(row["value"]) or b"": as_bytes(row["shard_key"]) or b"" for row in found}
    return owners


async def _make(work: Work, shards: dict[int, ControlConnection], shard: int, row: FoundRow) -> int:
    """The entry of a row, while that is locked. 1: it has one now, or needs none any more."""
    if not await _still(work, shards[shard], row, " LOCK IN SHARE MODE"):
        return 1
    _, conflicts = await enter(work, shards[home(work.keyspace, row.values[0] or b"")], [row])
    return 0 if conflicts else 1


async def _still(work: Work, connection: ControlConnection, row: FoundRow, lock: str = "") -> bool:
    """Whether the row is there with this value."""
    terms = [
        b"%s = %s" % (lookup_text.name(part.column), lookup_text.primary_literal(part, value))
        for part, value in zip(work.primary, row.primary, strict=True)
    ]
    text = select_text(work) + b" WHERE " + b" AND ".join(terms)
    found = await read_rows(work, connection, text.decode() + lock)
    return any(one.values == row.values and one.key == row.key for one in found)


async def _orphans(
    work: Work,
    shards: dict[int, ControlConnection],
    shard: int,
    strays: list[Entry],
    lost: list[Entry],
    repair: bool,
    told: Differences,
) -> None:
    """strays: entries that are where nobody looks for them; lost: entries whose row was not seen."""
    for look in range(_LOOKS if lost else 0):
        if look:
            await asyncio.sleep(_PAUSE)
        lost = [entry for entry in lost if not await _owned(work, shards, entry)]
        there = (
            await shards[shard].query(lookup_text.present(work.index, [e.value for e in lost]).decode()) if lost else ()
        )
        keys = {as_bytes(row["value"]): as_bytes(row["shard_key"]) for row in there}
        lost = [entry for entry in lost if keys.get(entry.value) == entry.key]
        if not lost:
            break
    for entry in (*strays, *lost):
        told.orphans += 1
        why = "is on a shard where nobody looks for it" if entry in strays else "has no row"
        told.note(f"an entry of {work.index.key} = {readable(entry.key)} (value x'{entry.value.hex()}') {why}")
        if repair:
            remove = partial(_remove, work, shards, shard, entry, entry in strays)
            told.repaired += await in_transaction(shards[shard], remove)


async def _remove(work: Work, shards: dict[int, ControlConnection], shard: int, entry: Entry, stray: bool) -> int:
    """Take an entry away, while it is locked, unless it has a row by now. 1: nothing is wrong any more."""
    connection = shards[shard]
    there = await connection.query(lookup_text.entry_read(work.index, entry.value, b" FOR UPDATE").decode())
    if there and (stray or not await _owned(work, shards, entry, " LOCK IN SHARE MODE")):
        await connection.execute(lookup_text.entry_delete(work.index, entry.value, entry.key).decode())
    return 1


async def _owned(work: Work, shards: dict[int, ControlConnection], entry: Entry, lock: str = "") -> bool:
    """Whether a row of the entry's shard key has its value."""
    try:
        shard = work.keyspace.map.lookup(lookup_text.key_of(work.index, entry.key))
    except (LookupError, ValueError):
        return False
    text = select_text(work) + b" WHERE " + lookup_text.key_is(work.index, entry.key)
    found = await read_rows(work, shards[shard], text.decode() + lock)
    return any(row.values[0] == entry.value and row.key == entry.key for row in found)
