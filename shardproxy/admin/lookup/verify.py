"""Whether a table and the entries of its index agree."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
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


async def verify(work: Work, repair: bool, advance: Advance) -> Differences:
    """Compare rows and entries both ways; 16 bytes of memory a row. What differs is looked at again, so that writes
    under way do not count. repair: make missing entries, and take away those without a row.

    advance: called with numbers of rows read. Raises ShardproxyError.
    """
    told = Differences()
    async with AsyncExitStack() as stack:
        shards = {i: await stack.enter_async_context(open_primary(work, i)) for i in work.keyspace.shards}
        marks: array[int] = array("Q")
        for connection in shards.values():
            async for page in entries_pages(work, connection):
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
            async for page in entries_pages(work, connection):
                for entry in page:
                    if home(work.keyspace, entry.value) != shard or not _within(of_rows, _mark(entry.value, entry.key)):
                        await _orphan(work, shards, shard, entry, repair, told)
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
    row: FoundRow,
    repair: bool,
    told: Differences,
) -> None:
    """A row whose entry was not seen."""
    value = row.values[0] or b""
    at_home = shards[home(work.keyspace, value)]
    for _ in range(_LOOKS):
        found = await at_home.query(lookup_text.entry_read(work.index, value).decode())
        if found and as_bytes(found[0]["shard_key"]) == row.key:
            return
        if not await _still(work, shards[shard], row):
            return
        await asyncio.sleep(_PAUSE)
    owner = as_bytes(found[0]["shard_key"]) if found else None
    if owner is not None:
        told.conflicts += 1
        told.note(f"'{shown(row)}' of {work.index.key} = {readable(row.key)}: the entry is of {readable(owner)}")
        return
    told.missing += 1
    told.note(f"'{shown(row)}' of {work.index.key} = {readable(row.key)} has no entry")
    if repair:
        rows = shards[shard]

        async def make() -> int:
            made, _ = (
                await enter(work, at_home, [row]) if await _still(work, rows, row, " LOCK IN SHARE MODE") else (1, [])
            )
            return made

        told.repaired += min(1, await in_transaction(rows, make))


async def _still(work: Work, connection: ControlConnection, row: FoundRow, lock: str = "") -> bool:
    """Whether the row is there with this value."""
    terms = [
        b"%s = %s" % (lookup_text.name(part.column), lookup_text.primary_literal(part, value))
        for part, value in zip(work.primary, row.primary, strict=True)
    ]
    text = select_text(work) + b" WHERE " + b" AND ".join(terms)
    found = await read_rows(work, connection, text.decode() + lock)
    return any(one.values == row.values and one.key == row.key for one in found)


async def _orphan(
    work: Work,
    shards: dict[int, ControlConnection],
    shard: int,
    entry: Entry,
    repair: bool,
    told: Differences,
) -> None:
    """An entry whose row was not seen, or that is where nobody looks for it."""
    stray = home(work.keyspace, entry.value) != shard
    for _ in range(1 if stray else _LOOKS):
        found = await shards[shard].query(lookup_text.entry_read(work.index, entry.value).decode())
        if not found or as_bytes(found[0]["shard_key"]) != entry.key:
            return
        if not stray:
            if await _owned(work, shards, entry):
                return
            await asyncio.sleep(_PAUSE)
    told.orphans += 1
    why = "is on a shard where nobody looks for it" if stray else "has no row"
    told.note(f"an entry of {work.index.key} = {readable(entry.key)} (value x'{entry.value.hex()}') {why}")
    if repair:
        connection = shards[shard]

        async def remove() -> int:
            read = lookup_text.entry_read(work.index, entry.value, b" FOR UPDATE").decode()
            if not await connection.query(read) or (
                not stray and await _owned(work, shards, entry, " LOCK IN SHARE MODE")
            ):
                return 1
            return await connection.execute(lookup_text.entry_delete(work.index, entry.value, entry.key).decode())

        told.repaired += min(1, await in_transaction(connection, remove))


async def _owned(work: Work, shards: dict[int, ControlConnection], entry: Entry, lock: str = "") -> bool:
    """Whether a row of the entry's shard key has its value."""
    try:
        shard = work.keyspace.map.lookup(lookup_text.key_of(work.index, entry.key))
    except (LookupError, ValueError):
        return False
    text = select_text(work) + b" WHERE " + lookup_text.key_is(work.index, entry.key)
    found = await read_rows(work, shards[shard], text.decode() + lock)
    return any(row.values[0] == entry.value and row.key == entry.key for row in found)
