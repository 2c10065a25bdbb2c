"""A plain SELECT on several shards: their rows one after the other, streamed, in bounded memory.

Every shard starts at once; while one is being relayed the others fill a buffer and are then told to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendError, BackendLost, ProtocolError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.merge.concat import Concatenation
from shardproxy.planner.plan import Plan

BUFFER = 256 * 1024  # bytes that a shard may run ahead of its turn


class Part(Sink):
    """Sink of one shard's answer: a queue of chunks with a bound."""

    def __init__(self, connection: BackendConnection) -> None:
        self.connection = connection
        self.chunks: list[bytes] = []
        self.size = 0
        self.ended = False
        self.paused = False
        self.lost: BackendLost | None = None
        self._changed = asyncio.Event()

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

    def finish(self, enlistment: Enlistment) -> None:
        """Give the connection back; where it is still at work, that ends."""
        if self.ended and self.paused:  # its end came in one piece with what was too much
            self.connection.transport.resume_reading()
        enlistment.release(self.connection, self.ended)


Wire = Callable[[BackendConnection], Awaitable[bytes]]
Ready = Callable[[BackendConnection], Awaitable[object]]
First = Callable[[bool], Awaitable[None]]


async def scatter(
    client: Client,
    plan: Plan,
    shards: tuple[int, ...],
    replica: bool,
    wire_for: Wire,
    ready: Ready | None = None,
    first: First | None = None,
) -> None:
    """Relay the concatenated answers of these shards. wire_for: the command for a connection; ready: what must have
    been done on all of them before the first is asked for; first: called before anything goes to the client, with
    whether there is a row: what it raises is raised here.

    Raises SqlError: BackendLost only when nothing has gone to the client yet.
    """
    async with enlisted(client, plan, shards, replica=replica, write=False) as enlistment:
        if ready is not None:
            for connection in enlistment.connections:
                await ready(connection)
        wires = [(connection, await wire_for(connection)) for connection in enlistment.connections]
        out = await _relay(client, enlistment, wires, first)
    session = client.session
    session.affected = -1
    if out is None:
        return
    session.warnings = out.warnings
    client.finish()


async def _relay(
    client: Client, enlistment: Enlistment, wires: list[tuple[BackendConnection, bytes]], first: First | None
) -> Concatenation | None:
    """None: the client has been cut off in the middle of a row."""
    parts = []
    for connection, wire in wires:
        if client.entry is not None:
            client.entry.series[connection.pool.slot] += 1
        part = Part(connection)
        parts.append(part)
        connection.send(wire, part)
    out = Concatenation(bool(wires[0][0].scanner.deprecate_eof))
    held = b""
    try:
        for part in parts:
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
        if not out.failed:
            client.write(out.end())
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
