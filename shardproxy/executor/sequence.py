"""Numbers for AUTO_INCREMENT columns that are unique over all shards, taken in blocks from `_shardproxy.sequence`.

The table is on the home shard of the keyspace. A worker takes a block by raising `next_value`, in a transaction of its
own that is durable before any number of it is used: a crash loses numbers, and never gives one twice.

A row may also bring its own number, as on one server, and then the next number must be above it. Most of what is here
is about that. A number at or above `next_value` raises it, before the row is written. A number below it could still be
given out by a worker that holds it in a block; so a block is used for HOLD seconds at most, and whoever brings such a
number waits until every block that could hold it has run out. `settled` is the bound below which no number can be
given out any more: no wait, no look at the server.

Each worker starts a table's sequence by looking up the largest number on all shards, under the lock of the sequence's
row: rows written behind the proxy's back are seen then, and only then.

A move that takes its keys from the home shard makes another shard the home (reshard/home_records.py). For a moment the
numbers are on neither: the old home's rows are 0, and both have a row without name that says so. Then we wait, for the
numbers or for a newer map. A block in hand stays good: the new home counts above all that the old one gave.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.backend.gateway import Gateway
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError, BackendLost, MovingError, SqlError
from shardproxy.executor.client import Client
from shardproxy.planner.bounds import integer_range
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import stateless
from shardproxy.topology.model import Keyspace
from shardproxy.topology.schema import Column

HOLD = 2.0  # seconds for which a block is used after it was taken; all proxies must agree
MARGIN = 0.5  # seconds that clocks may differ in speed over HOLD
SLACK = 4096  # the farthest that rows with their own numbers push the sequence ahead of themselves
MOVED = 0.01  # seconds between two looks for numbers that are on their way to another shard
GROWTH = 64  # a block grows to so many times its first size
_MOST = 2**64 - 1
_COUNTER = re.compile(rb"\bAUTO_INCREMENT=([0-9]+)")
Numbers = list[int | None]  # a row's own number, or None for the next


def quoted(name: str) -> bytes:
    """A name in backticks."""
    return b"`" + name.replace("`", "``").encode() + b"`"


def literal(value: bytes) -> bytes:
    """A string as a literal that means the same in every sql_mode."""
    return b"x'" + value.hex().encode() + b"'"


class Bookkeeping:
    """A worker's own connection to one primary, for statements on `_shardproxy`. It is not of the pool: clients that
    hold all of the pool's connections and wait for numbers would wait for ever. Hold `lock` while you use it."""

    def __init__(self, pool: Pool, capabilities: int) -> None:
        self._pool = pool
        self._capabilities = capabilities
        self._connection: BackendConnection | None = None
        self.lock = asyncio.Lock()

    async def ask(self, text: bytes, again: bool = False) -> Reply:
        """Run a statement. again: it may run twice, so that a connection that has died since its last use is no
        error. Raises BackendError with the server's own number, BackendLost, BackendUnavailable."""
        connection = self._connection
        if connection is None or connection.closed:
            again = False
            connection = self._connection = await self._pool.beyond(stateless(self._capabilities))
        try:
            reply = await connection.query(text)
        except BackendLost:
            self.close()
            if not again:
                raise
            return await self.ask(text)
        if reply.failed:
            raise _explained(reply, self._pool.server.name)
        return reply

    async def row(self, text: bytes) -> list[bytes | None]:
        """The one row of a query. Raises as `ask`."""
        reply = await self.ask(text)
        assert self._connection is not None
        rows = parse_resultset(reply.data, self._connection.scanner.deprecate_eof).rows
        if not rows:
            raise BackendError(f"{self._pool.server.name}: a row of `_shardproxy` has been deleted: try again")
        return list(rows[0])

    def close(self) -> None:
        """What is under way on it is undone by the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@asynccontextmanager
async def transaction(book: Bookkeeping) -> AsyncIterator[None]:
    """BEGIN and COMMIT around the block; whatever goes wrong undoes it. Raises as `Bookkeeping.ask`."""
    async with book.lock:
        try:
            await book.ask(b"BEGIN", again=True)
            yield
            await book.ask(b"COMMIT")
        except BaseException:
            book.close()
            raise


def _explained(reply: Reply, server: str) -> BackendError:
    if reply.error_code in (1146, 1049, 1054):
        return BackendError(
            f"{server} lacks the bookkeeping tables that count AUTO_INCREMENT columns over shards "
            f"({reply.error_message}): run shardctl migrate"
        )
    if reply.error_code in (1044, 1142, 1143):
        return BackendError(
            f"{server}: {reply.error_message}: the proxy's account must be able to read and write `_shardproxy`.*"
        )
    return BackendError(f"{server}: {reply.error_message}", reply.error_code, reply.sqlstate)


class _HeldElsewhereError(Exception):
    """A number below `bound` may be in the hands of another worker, for so many seconds more."""

    def __init__(self, seconds: float, bound: int) -> None:
        super().__init__(seconds, bound)
        self.seconds = seconds
        self.bound = bound


class _ElsewhereError(Exception):
    """The keyspace's numbers are counted on another shard, or are on their way to this one."""


class Sequence:
    """One worker's numbers of one table's column.

    first, position, end: the block in hand: it began at `first`, `position` is the next number, `end` is not in it.
    """

    def __init__(self, books: Books, keyspace: Keyspace, table: str, column: str, largest: int, block: int) -> None:
        self._books = books
        self._keyspace = keyspace
        self._table = table
        self._column = column
        self._largest = largest
        self._block = self._size = block
        self._row = b"keyspace = %s AND name = %s" % (literal(keyspace.name.encode()), literal(table.encode()))
        self._whole = b"keyspace = %s AND name = ''" % literal(keyspace.name.encode())
        self._lock = asyncio.Lock()
        self._started = False
        self._taken = False  # blocks have been taken, ever
        self._raises = 0
        self.first = self.position = self.end = 0
        self.expires = 0.0
        self.settled = 1

    def now(self, values: Numbers) -> list[int] | None:
        """Each row's number: the given one, or where None stands the next. None: not without asking the server;
        nothing has been taken."""
        wanted = values.count(None)
        position, end = self.position, self.end
        held = position + wanted <= end and time.monotonic() < self.expires
        if wanted and (not held or self._lock.locked()):
            return None
        found: list[int] = []
        for value in values:
            if value is None:
                if position >= end:
                    return None
                found.append(position)
                position += 1
            elif value < self.settled or self.first <= value < position:
                found.append(value)
            elif held and value < end:
                found.append(value)
                position = max(position, value + 1)
            else:
                return None
        self.position = position
        return found

    async def number(self, values: Numbers) -> list[int]:
        """As `now`, whatever it takes. Raises SqlError."""
        since = time.monotonic()
        while True:
            found = self.now(values)
            if found is not None:
                return found
            try:
                async with self._lock:
                    if not self._started:
                        await self._start()
                    return await self._number(values)
            except BackendError:
                self._started = False
                raise
            except _HeldElsewhereError as held:
                await asyncio.sleep(held.seconds)
                self.settled = max(self.settled, held.bound)
            except _ElsewhereError:
                self._started = False
                await self._later(since)
                newest = self._books.sequence(self._keyspace.name, self._table, self._column, self._largest)
                if newest is not self:
                    return await newest.number(values)

    async def _later(self, since: float) -> None:
        """Wait a moment for numbers that go to another shard. Raises MovingError when that takes too long."""
        timeout = self._books.gateway.held_writes.timeout
        if time.monotonic() - since > timeout:
            raise MovingError(
                f"the write has waited {timeout:g} s (transactions.hold_timeout) for the numbers of "
                f"{self._keyspace.name}.{self._table}, which go to another shard; nothing was done: try again, and see "
                "`shardctl rebalance status`"
            )
        await asyncio.sleep(MOVED)

    async def _number(self, values: Numbers) -> list[int]:
        found: list[int] = []
        left = values.count(None)
        for value in values:
            if value is None:
                if self.position + (left if not found or self.position >= self.end else 1) > self.end or self._expired:
                    await self._take(left)
                found.append(self.position)
                self.position += 1
                left -= 1
                continue
            found.append(value)
            stored = min(value, self._largest)
            if stored < self.settled or self.first <= stored < self.position:
                continue
            if stored < self.end and not self._expired:
                self.position = stored + 1
            else:
                await self._settle(stored)
        return found

    @property
    def _expired(self) -> bool:
        return time.monotonic() >= self.expires

    async def _take(self, least: int) -> None:
        """A block of at least so many numbers. What is left of the last one is taken again, as long as nobody has
        moved the sequence since: an idle client's numbers stay without gaps."""
        used_up = self.end > 0 and self.position >= self.end and not self._expired
        self._size = min(self._size * 2, self._block * GROWTH) if used_up else self._block
        self._raises = 0
        size = max(least, self._size)
        first, position, end = self.first, self.position, self.end
        self.first = self.position = self.end = 0  # should the answer get lost, they count as used
        text = (
            b"UPDATE _shardproxy.sequence SET next_value = GREATEST(next_value, LAST_INSERT_ID(IF(next_value = %d, %d, "
            b"next_value)) + %d), taken_at = UTC_TIMESTAMP(6) WHERE %s AND next_value > 0"
            % (end, position, size, self._row)
        )
        book = self._books.of(self._keyspace.home)
        while True:
            asked = time.monotonic()
            async with book.lock:
                reply = await book.ask(text, again=True)
            if reply.insert_id:
                break
            await self._start()  # somebody has deleted the row
        self.first = self.position = reply.insert_id
        self._used(first, position if reply.insert_id == position else end)
        last = max(end, position + size) if reply.insert_id == position else reply.insert_id + size
        self.end = min(last, self._largest + 1)
        self.expires = asked + HOLD
        if self.position > self._largest:
            raise SqlError("Failed to read auto-increment value from storage engine", 1467)

    def _used(self, first: int, end: int) -> None:
        """These were this worker's numbers, and are given out or given up."""
        if first <= self.settled < end:
            self.settled = end

    async def _start(self) -> None:
        """Bring the sequence above all numbers that are in the table."""
        book = self._books.of(self._keyspace.home)
        insert = b"INSERT IGNORE INTO _shardproxy.sequence (keyspace, name, next_value) VALUES (%s, '', 0), (%s, %s, 0)"
        keyspace = literal(self._keyspace.name.encode())
        async with book.lock:
            await book.ask(insert % (keyspace, keyspace, literal(self._table.encode())))
        async with transaction(book):
            # The row without name first, as whoever takes the numbers away.
            [here] = await book.row(
                b"SELECT generation FROM _shardproxy.sequence WHERE %s LOCK IN SHARE MODE" % self._whole
            )
            above, held = (0, 0.0) if here == b"0" else await self._start_here(book)
        if here == b"0":
            raise _ElsewhereError
        if not held:
            self.settled = max(self.settled, above)
        self._started = True

    async def _start_here(self, book: Bookkeeping) -> tuple[int, float]:
        """What `_start` does in its transaction. The number above all, and seconds as `_look` gives them."""
        before, held = await self._look(book)
        above = before
        for shard in self._keyspace.shards:
            above = max(above, await self._next_on(shard))
        if not held and self._taken:
            above = max(above, before + 1)  # as in `_settle`
        await book.ask(b"UPDATE _shardproxy.sequence SET next_value = %d WHERE %s" % (min(above, _MOST), self._row))
        return above, held

    async def _next_on(self, shard: int) -> int:
        """What this shard's server would count next, or what is above its largest number."""
        book = Bookkeeping(self._books.gateway.shards[shard].primary, self._books.capabilities)
        name = quoted(self._keyspace.name) + b"." + quoted(self._table)
        try:
            [largest] = await book.row(b"SELECT MAX(%s) FROM %s" % (quoted(self._column), name))
            shown = (await book.row(b"SHOW CREATE TABLE " + name))[1] or b""
        finally:
            book.close()
        counter = _COUNTER.search(shown[shown.rfind(b"\n)") :])
        return max(int(largest or 0) + 1, int(counter[1]) if counter else 1)

    async def _settle(self, value: int) -> None:
        """Make it impossible that this number, which a row brings, is given out later.

        Raises _HeldElsewhereError when that takes time.
        """
        book = self._books.of(self._keyspace.home)
        self._used(self.first, self.end)
        self.first = self.position = self.end = 0
        async with transaction(book):
            above, held = await self._look(book)
            slack = 0
            if not held and value >= above:
                # Nobody takes numbers, rows bring them: soon the sequence keeps a growing distance ahead.
                self._raises += 1
                slack = min(2 ** max(0, self._raises - 4), SLACK) - 1
            # Raised in any case: no worker then takes again what is left of its last block.
            raised = min(max(above, value) + 1 + slack, _MOST)
            await book.ask(
                b"UPDATE _shardproxy.sequence SET next_value = %d WHERE %s AND next_value > 0" % (raised, self._row)
            )
        if not above:
            raise _ElsewhereError  # whoever begins a sequence brings it to 1 at least
        if not held:
            self.settled = max(self.settled, raised)
        elif value < above and value >= self.settled:
            raise _HeldElsewhereError(held, above)

    async def _look(self, book: Bookkeeping) -> tuple[int, float]:
        """Lock the row. The next value that nobody has taken, and for how many seconds more blocks below it may be in
        use."""
        value, age = await book.row(
            b"SELECT next_value, TIMESTAMPDIFF(MICROSECOND, taken_at, UTC_TIMESTAMP(6)) FROM _shardproxy.sequence "
            b"WHERE %s FOR UPDATE" % self._row
        )
        self._taken = age is not None
        held = 0.0 if age is None else HOLD + MARGIN - int(age) / 1e6
        return int(value or 0), min(max(held, 0.0), HOLD + MARGIN)


class Books:
    """A worker's bookkeeping connections by shard, and its sequences."""

    def __init__(self, gateway: Gateway, capabilities: int) -> None:
        self.gateway = gateway
        self.capabilities = capabilities
        self._by_pool: dict[Pool, Bookkeeping] = {}
        self._sequences: dict[tuple[str, str], tuple[Keyspace, Sequence]] = {}

    def of(self, shard: int) -> Bookkeeping:
        """The connection to a shard's primary."""
        pool = self.gateway.shards[shard].primary
        found = self._by_pool.get(pool)
        if found is None:
            found = self._by_pool[pool] = Bookkeeping(pool, self.capabilities)
        return found

    def sequence(self, keyspace: str, table: str, column: str, largest: int) -> Sequence:
        """The sequence of a table; made anew when the map has changed."""
        current = self.gateway.snapshot.keyspaces[keyspace]
        kept = self._sequences.get((keyspace, table))
        if kept is None or kept[0] is not current:
            made = Sequence(self, current, table, column, largest, self.gateway.sequence_block)
            kept = self._sequences[keyspace, table] = (current, made)
        return kept[1]


def books(client: Client) -> Books:
    """The worker's."""
    gateway = client.gateway
    if gateway.books is None:
        gateway.books = Books(gateway, client.session.profile.capabilities)
    found: Books = gateway.books
    return found


async def take_numbers(client: Client, keyspace: str, table: str, column: Column, count: int) -> list[int]:
    """The next numbers of an AUTO_INCREMENT column of a table with several shards, one after the other.

    Raises SqlError.
    """
    return await books(client).sequence(keyspace, table, column.name, integer_range(column)[1]).number([None] * count)
