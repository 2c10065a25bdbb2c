"""The embedded map store: a SQLite file, for any number of processes on one machine.

Two threads do the file's work, one reads and one writes, so a write that waits for another process keeps no read
waiting. A watch asks for what is new whenever a bell rings (see `bell`), and a few times a second without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from shardproxy.errors import StoreError, StoreOutcomeUnknown, StoreUnavailable
from shardproxy.store.bell import ANY, Bell, concerns, mark
from shardproxy.store.interface import (
    Changes,
    Condition,
    Delete,
    Document,
    Entry,
    Listing,
    Put,
    Write,
    checked,
)
from shardproxy.store.sqlite_file import Attempt, SqliteFile, Stage, bells_of

LOOK_EVERY = 0.1  # seconds between two looks of a watch that hears no bell
_Result = TypeVar("_Result")


class EmbeddedStore:
    """A MapStore in the SQLite file `path`. Made by `open`."""

    def __init__(self, reader: SqliteFile, writer: SqliteFile, seconds: float) -> None:
        self._reader, self._writer, self._seconds = reader, writer, seconds
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reads")
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-writes")
        self._bell: Bell | None = None
        self._watches: dict[asyncio.Event, bytes] = {}  # → mark of what is watched
        self._closed = False

    @classmethod
    async def open(cls, path: Path, seconds: float) -> EmbeddedStore:
        """Open the file, or make it. seconds: the longest that any call takes. Raises StoreUnavailable."""

        def connect() -> tuple[SqliteFile, SqliteFile]:
            reader = SqliteFile(path, seconds)
            try:
                return reader, SqliteFile(path, seconds)
            except BaseException:
                reader.close()
                raise

        return cls(*await asyncio.to_thread(connect), seconds)

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda: self._reader.get(key))

    async def list(self, prefix: str) -> Listing:
        return await self._read(lambda: self._reader.entries(prefix))

    async def put(self, key: str, value: Document, expect: int, lease: str | None = None) -> int:
        return await self.commit([Condition(key, expect)], [Put(key, value, lease)])

    async def delete(self, key: str, expect: int) -> int:
        return await self.commit([Condition(key, expect)], [Delete(key)])

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write], lasting: bool = True) -> int:
        encoded = checked(conditions, writes)
        return await self._change(lambda attempt: self._writer.commit(attempt, conditions, writes, encoded, lasting))

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        rung = asyncio.Event()
        self._watches[rung] = mark(prefix)
        try:
            if self._bell is None:
                with contextlib.suppress(OSError):  # without a bell it looks by itself, only later
                    self._bell = Bell(bells_of(self._writer.path), self._heard)
            while True:
                rung.clear()  # before the look: what changes after it rings again
                found, after, ended_leases = await self._read(partial(self._reader.changes, prefix, after))
                for changes in found:
                    yield changes
                if ended_leases:
                    with contextlib.suppress(StoreError):  # another look follows soon
                        await self._change(self._writer.sweep)
                if not found:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY):
                            await rung.wait()
        finally:
            del self._watches[rung]

    async def grant(self, seconds: int) -> str:
        return await self._change(lambda attempt: self._writer.grant(attempt, seconds))

    async def renew(self, lease: str) -> None:
        await self._change(lambda attempt: self._writer.renew(attempt, lease))

    async def revoke(self, lease: str) -> None:
        await self._change(lambda attempt: self._writer.revoke(attempt, lease))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._bell is not None:
            self._bell.close()
        self._heard(ANY)  # watches look once more, and find the store closed
        ends = [self._reading.submit(self._reader.close), self._writing.submit(self._writer.close)]
        await asyncio.wait(map(asyncio.wrap_future, ends), timeout=self._seconds)
        for pool in (self._reading, self._writing):
            pool.shutdown(wait=False)

    def _heard(self, marks: bytes) -> None:
        for rung, mine in self._watches.items():
            if concerns(marks, mine):
                rung.set()

    async def _read(self, work: Callable[[], _Result]) -> _Result:
        self._expect_open()
        future = self._reading.submit(work)
        if not await self._in_time(future):
            raise StoreUnavailable(f"map store {self._reader.path}: no answer within {self._seconds:g} s; see its disk")
        return future.result()

    async def _change(self, work: Callable[[Attempt], _Result]) -> _Result:
        self._expect_open()
        attempt = Attempt(time.monotonic() + self._seconds)
        future = self._writing.submit(work, attempt)
        try:
            done = await self._in_time(future)
        except asyncio.CancelledError:
            attempt.enter(Stage.ABANDONED)
            raise
        if done:
            return future.result()
        where = f"map store {self._writer.path}: no answer within {self._seconds:g} s"
        if attempt.enter(Stage.ABANDONED):
            raise StoreUnavailable(f"{where}, nothing was changed; see its disk, and who has it locked")
        raise StoreOutcomeUnknown(f"{where} after the commit had begun: read what is there")

    async def _in_time(self, future: Future[_Result]) -> bool:
        waited = asyncio.wrap_future(future)
        waited.add_done_callback(_take_notice)
        # The thread's own deadline comes first when another process has the lock: its message is the better one.
        await asyncio.wait([waited], timeout=self._seconds + 0.1)
        return waited.done()

    def _expect_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"map store {self._reader.path}: it was closed")


def _take_notice(future: asyncio.Future[_Result]) -> None:
    """How the call ended is read from the thread's own future, if anybody still waits for it."""
    if not future.cancelled():
        future.exception()
