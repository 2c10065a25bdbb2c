"""Copies rows in the order of the primary key out of one snapshot: a reader and a writer, values never decoded.

Each target transaction inserts some rows and stores the watermark under the stream's unchanged position: after a
crash the rows up to the watermark are as the source had them at that position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.errors import BackendLost, ShardproxyError
from shardproxy.protocol.mysql.text import parse_text_row
from shardproxy.reshard.bookkeeping import StreamName, TableProgress, progress_update, transact
from shardproxy.reshard.columns import TableShape, text_row_literals
from shardproxy.reshard.link import Answer, Link
from shardproxy.reshard.rows import Expected
from shardproxy.reshard.throttle import Pace
from shardproxy.topology.moving import MovingKeys

# Measured, a split range on MariaDB, one stream: 66,000 to 70,000 rows/s by 1 MiB, 71,000 by 2, 80,000 to 94,000 by 4:
# at each transaction's end the target waits for its disk and for us.
CHUNK_BYTES = 4 << 20
GENTLE_BYTES = 1 << 20  # with a rate: `Pace.at_once` counts rows, and they may be wide
_GENTLE_LOOK = 20  # rows between two looks at the size, with a rate


@dataclass(slots=True)
class _Chunk:
    """Rows for one target transaction. after: the watermark behind them. finished: the table has no more."""

    literals: list[bytes]
    after: tuple[bytes, ...] | None
    finished: bool


class Copier:
    """Writes through `link` under the stream's name. most: the target's max_allowed_packet."""

    def __init__(
        self, link: Link, name: StreamName, moving: MovingKeys, pace: Pace, most: int, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self.rows = 0  # since the start of this process
        self.bytes = 0
        self._link = link
        self._name = name
        self._moving = moving
        self._pace = pace
        self._most = most
        self._chunk = chunk_bytes

    async def copy(
        self, source: Link, table: TableShape, progress: TableProgress, position: str, deadline: float
    ) -> None:
        """Copy on from the watermark until the table's end, or until the loop's time `deadline`.

        source: in the snapshot's transaction; it cannot be used again when the deadline came first. position: what the
        stream's row says. Raises ReshardError, NotOurs, BackendLost.
        """
        chunks: asyncio.Queue[_Chunk | None] = asyncio.Queue(1)
        reading = asyncio.create_task(self._read(source, table, progress.watermark, deadline, chunks))
        try:
            while (chunk := await _next(chunks, reading)) is not None:
                await self._pace.wait(len(chunk.literals))
                await self._write(table, progress, position, chunk)
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self,
        source: Link,
        table: TableShape,
        watermark: Sequence[bytes] | None,
        deadline: float,
        chunks: asyncio.Queue[_Chunk | None],
    ) -> None:
        loop = asyncio.get_running_loop()
        literals: list[bytes] = []
        size = 0
        last: bytes | None = None
        look = max(1, min(2000, self._chunk // 200))  # rows between two looks at the size
        after = watermark
        whole = False
        while not whole:
            # With small transactions a SELECT for each: else the source reads at once as many rows as the sockets hold,
            # again in each cycle, and its application waits.
            limit = self._pace.at_once
            count = 0
            async for rows in source.stream(select_rows(table, self._moving, after, limit), 600.0):
                count += len(rows)
                start = 0
                while start < len(rows):
                    most = self._pace.at_once
                    step = min(look, _GENTLE_LOOK, max(1, most - len(literals))) if most else look
                    part = rows[start : start + step]
                    start += len(part)
                    made = text_row_literals(part, table.forms)
                    literals += made
                    size += sum(map(len, made))
                    last = part[-1]
                    enough = min(self._chunk, GENTLE_BYTES) if most else self._chunk
                    if size >= enough or 0 < most <= len(literals):
                        await chunks.put(_Chunk(literals, primary_of(table, last), False))
                        literals, size = [], 0
                        if loop.time() >= deadline:
                            source.close()
                            await chunks.put(None)
                            return
            whole = not limit or count < limit
            after = primary_of(table, last) if last is not None else watermark
        await chunks.put(_Chunk(literals, primary_of(table, last) if last is not None else None, True))
        await chunks.put(None)

    async def _write(self, table: TableShape, progress: TableProgress, position: str, chunk: _Chunk) -> None:
        after = TableProgress(
            chunk.after if chunk.after is not None else progress.watermark,
            progress.copied + len(chunk.literals),
            chunk.finished,
        )
        expected = Expected()
        expected.insert(table, chunk.literals, self._most)
        statements = [*expected.statements, progress_update(self._name, table.label, after)]

        def check(answers: Sequence[Answer]) -> None:
            expected.check(answers)
            if answers[-1].affected != 1:
                raise ShardproxyError(f"{table.name}: the watermark on the target could not be moved on")

        await transact(self._link, self._name, position, statements, check)
        progress.watermark, progress.copied, progress.finished = after.watermark, after.copied, after.finished
        self.rows += len(chunk.literals)
        self.bytes += sum(map(len, chunk.literals))


async def _next(chunks: asyncio.Queue[_Chunk | None], reading: asyncio.Task[None]) -> _Chunk | None:
    """The next chunk, or the reader's error."""
    getting = asyncio.create_task(chunks.get())
    try:
        await asyncio.wait((getting, reading), return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        if reading.exception() is not None:
            await reading
            raise BackendLost("the reader ended")  # not reached: `await` raises
        return await getting
    finally:
        getting.cancel()


def select_rows(
    table: TableShape, moving: MovingKeys, watermark: Sequence[bytes] | None, limit: int = 0, skip: int = 0
) -> bytes:
    """All moving rows behind the watermark, in the server's order of the primary key; with a limit, 0: none, only so
    many after those that are skipped."""
    return b"SELECT %s FROM %s FORCE INDEX (PRIMARY) WHERE %s ORDER BY %s%s" % (
        table.select_list, table.quoted, table.condition_behind(moving, watermark), b", ".join(table.primary_names),
        b" LIMIT %d, %d" % (skip, limit) if limit else b"",
    )  # fmt: skip


def primary_of(table: TableShape, row: bytes) -> tuple[bytes, ...]:
    """The primary key's texts out of a row's payload."""
    values = parse_text_row(row, len(table.written))
    return tuple(values[i] or b"" for i in table.written_primary)
