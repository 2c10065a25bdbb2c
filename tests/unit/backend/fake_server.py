"""A server without sockets: what a pool dials, and what its connections write to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendLost, SqlError
from shardproxy.protocol.mysql.framing import PacketReader
from shardproxy.protocol.mysql.packets import build_err, build_ok
from shardproxy.protocol.mysql.text import join_packets
from shardproxy.session.profile import Profile, profile
from shardproxy.topology.model import Role, Server

AUTOCOMMIT, IN_TRANS = 2, 1
SERVER = Server("a/primary", "127.0.0.1", 3306, Role.PRIMARY, "a")
PLAIN = profile(0, None, ())
SHOP = profile(0, "shop", ())
STRICT = profile(0, "shop", (("sql_mode", "'ANSI'"),))
FOUND = profile(2, "shop", ())  # found rows are counted: another kind of connection for life


Answer = bytes | list[bytes] | type[Exception] | None


class FakeTransport:
    """Hands each whole command to the server, and the server's answers back a turn of the loop later."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.connection: BackendConnection | None = None
        self.commands: list[bytes] = []
        self.closing = False
        self.lost = False

    def write(self, data: bytes) -> None:
        if self.closing:
            return
        reader = PacketReader(1 << 24)
        while data:
            length = 4 + int.from_bytes(data[:3], "little")
            ((_, payload),) = reader.feed(data[:length])
            reader.next_seq = 0
            data = data[length:]
            self.commands.append(payload)
            self.server.take(self, payload)

    def receive(self, data: bytes) -> None:
        """Bytes from the server."""
        if not self.closing and self.connection is not None:
            self.connection.data_received(data)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.server.open.discard(self)
            asyncio.get_running_loop().call_soon(self._gone)

    abort = close

    def _gone(self) -> None:
        assert self.connection is not None and not self.lost
        self.lost = True
        self.connection.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closing


class FakeServer:
    """`dial` for a Pool. Answers OK after `turns()` turns of the loop unless `answer` says otherwise.

    answer: payload of a command → payload of the answer, or its payloads; None for never, an exception to break the
    connection.
    dialed: how often; open: transports that are not closed; refuse: raised by the next dials.
    """

    def __init__(self, turns: Callable[[], int] = lambda: 1) -> None:
        self.turns = turns
        self.answer: Callable[[bytes], Answer] = lambda payload: build_ok(0, 0, AUTOCOMMIT, 0)
        self.open: set[FakeTransport] = set()
        self.dialed = 0
        self.refuse: SqlError | None = None

    async def dial(self, pool: Pool, wanted: Profile) -> BackendConnection:
        self.dialed += 1
        ident = self.dialed
        for _ in range(self.turns()):
            await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        transport: Any = FakeTransport(self)
        connection = BackendConnection(pool, transport, ident, fresh(wanted), False)
        transport.connection = connection
        self.open.add(transport)
        return connection

    def take(self, transport: FakeTransport, payload: bytes) -> None:
        answer = self.answer(payload)
        if answer is not None:
            self._later(self.turns(), transport, answer)

    def _later(self, turns: int, transport: FakeTransport, answer: Answer) -> None:
        if turns > 0:
            asyncio.get_running_loop().call_soon(self._later, turns - 1, transport, answer)
        elif isinstance(answer, bytes | list):
            transport.receive(join_packets([answer] if isinstance(answer, bytes) else answer, 1))
        else:
            transport.close()


def fresh(wanted: Profile) -> Profile:
    """What a login gives: capabilities and schema."""
    return profile(wanted.capabilities, wanted.schema, ())


def transport_of(connection: BackendConnection) -> FakeTransport:
    transport: Any = connection.transport
    assert isinstance(transport, FakeTransport)
    return transport


class Ears(Sink):
    """Remembers what came of a command."""

    def __init__(self, redo: bool = False) -> None:
        self.ended = 0
        self.lost: list[BackendLost] = []
        self.redone = 0
        self._redo = redo

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        self.ended += 1

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        self.lost.append(error)

    def redo(self) -> bool:
        self.redone += 1
        return self._redo


def refused(code: int = 1049) -> bytes:
    return build_err(code, "42000", "no")


async def settled(turns: int = 30) -> None:
    """Let everything run that needs no time."""
    for _ in range(turns):
        await asyncio.sleep(0)
