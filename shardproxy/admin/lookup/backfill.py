"""Entries for rows that were there before their index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shardproxy.admin.lookup.verify import verify
from shardproxy.admin.lookup.work import (
    MOST_SHOWN,
    Advance,
    Work,
    enter,
    entries_pages,
    in_transaction,
    open_primary,
    rows_page,
)
from shardproxy.backend.catalog import asking
from shardproxy.backend.control import ControlConnection
from shardproxy.backend.lookup_record import LookupRecord, Progress, read_lookup, write_lookup
from shardproxy.planner.lookup_rows import FoundRow
from shardproxy.topology.lookup import home, placement


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


async def backfill(work: Work, advance: Advance) -> Backfilled:
    """Make the entry of every row, and mark the index as ready. Goes on where an earlier run was ended.

    advance: called with numbers of rows done. Raises ShardproxyError; what is done by then stays.
    """
    done = Backfilled()
    here = placement(work.snapshot, work.keyspace)
    async with AsyncExitStack() as stack:
        book = await stack.enter_async_context(open_primary(work, work.keyspace.home))
        record = await read_lookup(asking(book), work.keyspace.name, work.index.name)
        progress: dict[str, object] = {}
        if record is not None and record.placement == here and record.state == "building":
            progress = dict(record.progress)
        stale = not progress and await _has_entries(work)
        await _note(work, book, "building", here, progress)
        if stale:
            found = await verify(work, True, lambda rows: None, only_orphans=True)
            done.pruned = found.repaired
        homes = {i: await stack.enter_async_context(open_primary(work, i)) for i in work.keyspace.map.all_shards}
        for shard in work.keyspace.map.all_shards:
            name = work.snapshot.shards[shard].name
            if progress.get(name) is not True:
                async with open_primary(work, shard) as rows:
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
        page, conflicts, entries = await in_transaction(rows, partial(_one_batch, work, rows, homes, last))
        if not page:
            return
        last = page[-1].primary
        await note(last)
        done.rows += len(page)
        done.entries += entries
        done.conflicts += conflicts[: max(0, MOST_SHOWN - len(done.conflicts))]
        advance(len(page))


async def _one_batch(
    work: Work, rows: ControlConnection, homes: dict[int, ControlConnection], after: tuple[bytes, ...] | None
) -> tuple[list[FoundRow], list[str], int]:
    """The rows behind `after`, conflicts, and how many entries were made."""
    page = await rows_page(work, rows, after, " LOCK IN SHARE MODE")
    by_home: dict[int, list[FoundRow]] = {}
    for row in page:
        value = row.values[0]
        if value is not None:
            by_home.setdefault(home(work.keyspace, value), []).append(row)
    made = 0
    conflicts: list[str] = []
    for shard, mine in sorted(by_home.items()):
        entries, different = await enter(work, homes[shard], mine)
        made += entries
        conflicts += different
    return page, conflicts, made


async def _has_entries(work: Work) -> bool:
    for shard in work.keyspace.shards:
        async with open_primary(work, shard) as connection:
            async for _ in entries_pages(work, connection):
                return True
    return False
