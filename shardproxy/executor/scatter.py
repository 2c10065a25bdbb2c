"""A plain SELECT on several shards: their rows one after the other, streamed, in bounded memory.

Every shard starts at once; while one is being relayed the others fill a buffer and are then told to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendError, BackendLost, ProtocolError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.commit import IN_TRANS_READONLY
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.merge.concat import Concatenation
from shardproxy.planner.plan import Plan
from shardproxy.protocol.mysql.response import IN_TRANS

BUFFER = 256 * 1024  # bytes that a shard may run ahead of its turn


class Part(Sink):
    """Sink of one shard's answer: a queue of chunks with a bound."""

    def __init__(self, connection: BackendConnection) -> None:
        self.connection = connection
        self.chunks: list[bytes] = []
        self.size = 0
        self.sent = False
        self.ended = False
        self.paused = False
        self.lost: BackendLost | None = None
        self._changed = asyncio.Event()

    def start(self, wire: bytes) -> None:
        """Send the command."""
        self.sent = True
        self.connection.send(wire, self)

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        self.chunks.append(data)
        self.size += len(data)
        if self.size > BUFFER and not self.paused:
            self.paused = True
            connection.transport.pause_reading()
        self._changed.set()

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        self.chunks.append(data)
        self.ended = True
        self._changed.set()

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        self.lost = error
        self._changed.set()

    async def take(self) -> bytes:
        """The bytes received since the last call; empty at the end. Raises BackendLost."""
        while not self.chunks and not self.ended and self.lost is None:
            self._changed.clear()
            await self._changed.wait()
        if self.lost is not None:
            raise self.lost
        data = b"".join(self.chunks)
        self.chunks.clear()
        self.size = 0
        if self.paused:
            self.paused = False
            self.connection.transport.resume_reading()
        return data

    async def far(self) -> None:
        """Wait until the answer is whole, lost, or so long that the shard has been told to wait."""
        while not self.ended and not self.paused and self.lost is None:
            self._changed.clear()
            await self._changed.wait()

    def finish(self, enlistment: Enlistment) -> None:
        """Give the connection back; where it is still at work, that ends."""
        if self.ended and self.paused:  # its end came in one piece with what was too much
            self.connection.transport.resume_reading()
        enlistment.release(self.connection, self.ended or not self.sent)


Wire = Callable[[BackendConnection, int], Awaitable[bytes]]  # the int: of a connection to this shard
Ready = Callable[[BackendConnection, int], Awaitable[object]]
First = Callable[[bool], Awaitable[None]]


async def scatter(
    client: Client,
    plan: Plan,
    shards: tuple[int, ...],
    replica: bool,
    wire_for: Wire,
    ready: Ready | None = None,
    first: First | None = None,
    read_view: bool = False,
) -> None:
    """Relay the concatenated answers of these shards. wire_for: the command for a connection; ready: what must have
    been done on all of them before the first is asked for; first: called before anything goes to the client, with
    whether there is a row: what it raises is raised here; read_view: `ready` opens a transaction that only reads.

    Raises SqlError: BackendLost only when nothing has gone to the client yet.
    """
    async with enlisted(client, plan, shards, replica=replica, write=False) as enlistment:
        enlistment.read_view = read_view
        if ready is not None:
            for shard, connection in zip(enlistment.shards, enlistment.connections, strict=True):
                await ready(connection, shard)
        wires = [
            (connection, await wire_for(connection, shard))
            for shard, connection in zip(enlistment.shards, enlistment.connections, strict=True)
        ]
        out = await relay(client, enlistment, wires, 1 if plan.locks else client.gateway.scatter_limit, first)
    end(client, out)


def end(client: Client, out: Concatenation | None) -> None:
    """The end of an answer, when nothing is held on the shards any more. None: the client has been cut off."""
    session = client.session
    session.affected = -1
    if out is None:
        return
    if not out.failed:
        out.status = status_told(client, out.status)
        client.write(out.end())
    session.warnings = out.warnings
    client.finish()


async def relay(
    client: Client,
    enlistment: Enlistment,
    wires: list[tuple[BackendConnection, bytes]],
    at_once: int,
    first: First | None = None,
) -> Concatenation | None:
    """The answers one after the other, but for their end. at_once: how many shards may be at work.

    None: the client has been cut off in the middle of a row."""
    parts = [Part(connection) for connection, _ in wires]
    out = Concatenation(bool(wires[0][0].scanner.deprecate_eof))
    held = b""
    started = 0
    try:
        for turn, part in enumerate(parts):
            for connection, wire in wires[started : turn + at_once]:
                if client.entry is not None:
                    client.entry.series[connection.pool.slot] += 1
                parts[started].start(wire)
                started += 1
            while True:
                data = await part.take()
                if data:
                    held += out.feed(data)
                    if first is not None:
                        if not out.rows and not out.failed:
                            continue
                        if not out.failed:
                            await first(True)
                        first = None
                    client.write(held)
                    held = b""
                    await client.drained()
                elif part.ended:
                    break
            out.next_part()
            if out.failed:
                break
        if first is not None:
            await first(False)
            client.write(held)
            first = None
    except (SqlError, ProtocolError) as error:
        if isinstance(error, BackendLost) and not client.relayed:
            raise
        if first is not None and isinstance(error, SqlError):
            raise
        if out.mid_packet:
            client.abort()  # an ERR in the middle of a row would be read as part of it
            return None
        client.write(out.error(error if isinstance(error, SqlError) else BackendError(str(error))))
    finally:
        for part in parts:
            part.finish(enlistment)
    return out


def status_told(client: Client, status: int) -> int:
    """Server status flags that a shard gave, as the client is told them: a transaction that only a locking read has is
    no transaction of the session's."""
    return status & ~(IN_TRANS | IN_TRANS_READONLY) if client.session.simple else status


async def twice(client: Client, send: Callable[[], Awaitable[None]]) -> None:
    """Run a scatter, and once more when a server dies before a byte of its rows has gone to the client: they are
    reads. In a transaction only once: it is gone with the server. Raises SqlError."""
    again = client.session.simple
    try:
        await send()
    except BackendLost:
        if not again:
            raise
        client.redone = b"scatter"
        await send()
