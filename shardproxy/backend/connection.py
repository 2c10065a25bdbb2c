"""One connection to one server: sends commands, cuts the byte stream into answers, hands each to its sink.

Answers come in the order of commands, so the sinks stand in a queue. Several are queued only on a shared connection
(point reads of several clients).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from shardproxy.backend.tls import Transport
from shardproxy.errors import BackendLost, RemoteProtocolError
from shardproxy.protocol.mysql.constants import Com
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import parse_err
from shardproxy.protocol.mysql.response import ERR, QUERY, SINGLE, ResponseScanner
from shardproxy.session.profile import Profile, StatementKey, keeping, transition

if TYPE_CHECKING:
    from shardproxy.backend.pool import Pool

REPLY_LIMIT = 64 << 20  # an answer that we ourselves collect may not be larger


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink:
    """Where an answer goes; by itself, into nothing: the sink of a command that was sent again elsewhere."""

    def shape(self) -> int:
        """Shape of the answer, for the scanner."""
        return QUERY

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        """Some bytes of the answer; more follow."""

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        """The last bytes. `connection.scanner` tells the outcome, now and not later."""

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        """The rest will not come."""

    def redo(self) -> bool:
        """Send the command again on another connection, if that changes nothing. False: it cannot be."""
        return False

    def unwanted(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return False


@dataclass(frozen=True)
class Reply:
    """A whole answer that we collected ourselves. `data` are wire bytes; `error_message` is set when outcome is ERR."""

    data: bytes
    outcome: int
    status: int
    warnings: int
    affected: int
    insert_id: int
    error_code: int
    sqlstate: str = ""
    error_message: str = ""

    @property
    def failed(self) -> bool:
        return self.outcome == ERR


class Collector(Sink):
    """A sink that keeps the whole answer and resolves a future with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, shape: int) -> None:
        self._shape = shape
        self.future: asyncio.Future[Reply] = loop.create_future()
        self._chunks: list[bytes] = []
        self._size = 0

    def shape(self) -> int:
        return self._shape

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > REPLY_LIMIT:
            connection.fail(f"an answer of more than {REPLY_LIMIT >> 20} MiB where a short one was due")

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        self._chunks.append(data)
        whole = b"".join(self._chunks)
        if not self.future.done():
            self.future.set_result(reply_from(whole, connection.scanner))

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def reply_from(data: bytes, s: ResponseScanner) -> Reply:
    """A Reply out of the bytes of an answer and the scanner that found its end."""
    state, message = "", ""
    if s.outcome == ERR:
        err = parse_err(s.error)
        state, message = err.sqlstate, err.text
    return Reply(data, s.outcome, s.status, s.warnings, s.affected, s.insert_id, s.error_code, state, message)


class BackendConnection:
    """A logged-in connection; an asyncio protocol by its methods, not by its base, so that it can be compiled.

    profile: the carried state that it is in. statements: key → server statement, see executor.prepared.
    tainted: the session that used it left state behind that a profile does not carry, so nobody else may get it.
    """

    __slots__ = (
        "_now", "_out", "closed", "holder", "idle_since", "killings", "pool", "preparing", "profile", "retiring",
        "scanner", "server_thread", "shared", "sinks", "statements", "tainted", "transport", "turns",
    )  # fmt: skip

    def __init__(
        self, pool: Pool, transport: Transport, server_thread: int, profile: Profile, deprecate_eof: bool
    ) -> None:
        self.pool = pool
        self.transport = transport
        self.server_thread = server_thread
        self.profile = profile
        self.scanner = ResponseScanner(deprecate_eof)
        self.sinks: list[Sink] = []  # few, so that taking the first is cheap
        self.statements: dict[tuple[StatementKey, bytes], Any] = {}  # values: executor.prepared.ServerStatement
        self.preparing: set[tuple[StatementKey, bytes]] = set()  # being prepared on a shared connection
        self._out: list[bytes] = []  # commands for a shared connection, to be written at the end of this turn
        self.closed = False
        self.tainted = False
        self.holder: Sink | None = None  # the session whose transaction or pins it keeps, told also when it is idle
        self.killings = 0  # KILLs of it that are under way: until they have struck, nobody else may get it
        self.retiring = False  # to be closed once its queue is empty
        self.shared = False
        self.turns = 0  # reads from the server: a shared connection that takes none for a while is stuck
        self._now = 0.0  # when the last read was; 0: nobody has asked yet
        self.idle_since = 0.0

    # ── asyncio.Protocol ──

    def data_received(self, data: bytes) -> None:
        sinks = self.sinks
        scanner = self.scanner
        self.turns += 1
        self._now = 0.0
        pos = 0
        size = len(data)
        while sinks:
            try:
                end = scanner.scan(data, pos)
            except (RemoteProtocolError, IndexError) as error:
                self.fail(str(error))
                return
            if end < 0:
                sinks[0].response_chunk(data[pos:] if pos else data, self)
                return
            sink = sinks.pop(0)
            if sinks:
                scanner.start(sinks[0].shape())
            sink.response_end(data if end == size and pos == 0 else data[pos:end], self)
            if end >= size:
                if self.retiring and not sinks:
                    self.close()
                return
            pos = end
        # Bytes that nobody asked for: the server says goodbye (shutdown, wait_timeout) before it closes.
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.sinks and not self.closed:
            self.pool.note_cut(self.server_thread)
        self.closed = True
        self.pool.forget(self)
        error = BackendLost(
            f"lost the connection to {self.pool.server.name} ({self.pool.server.host}:{self.pool.server.port})"
            + (f": {exc}" if exc else "")
        )
        holder, self.holder = self.holder, None
        if holder is not None and holder not in self.sinks:
            holder.response_lost(error, self)
        while self.sinks:
            self.sinks.pop(0).response_lost(error, self)

    def pause_writing(self) -> None:
        """The server takes a command slowly. It is in memory as a whole already, so there is nothing to hold back."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    def eof_received(self) -> bool:
        """The server closes; so do we."""
        return False

    # ── for the executor ──

    def read_at(self) -> float:
        """The time (perf_counter) of the answer that is being delivered: one for all that came in one read."""
        if self._now == 0.0:
            self._now = perf_counter()
        return self._now

    def send(self, data: bytes, sink: Sink) -> None:
        """Send one whole command (wire bytes); its answer, of the sink's shape, goes to the sink."""
        if not self.sinks:
            self.scanner.start(sink.shape())
        self.sinks.append(sink)
        if not self.shared:
            self._write(data)
            return
        # The event loop would make one system call of each write: those of one turn of the loop go out together.
        if not self._out:
            self.pool.loop.call_soon(self._flush)
        self._out.append(data)

    def say(self, data: bytes) -> None:
        """Send one whole command that has no answer, in its turn."""
        if self.shared and self._out:
            self._out.append(data)
        else:
            self._write(data)

    def _flush(self) -> None:
        out = self._out
        self._write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def _write(self, data: bytes) -> None:
        try:
            self.transport.write(data)
        except RuntimeError:
            # uvloop's, when the socket has failed and it has not said so yet: the sinks must hear of it all the same.
            self.pool.loop.call_soon(self.connection_lost, None)

    async def command(self, payload: bytes, shape: int = QUERY) -> Reply:
        """Send one command (payload without header) and wait for its whole answer.

        Raises BackendLost. When the waiting task is cancelled, the statement is ended and the connection is closed.
        """
        collector = Collector(asyncio.get_running_loop(), shape)
        self.send(packet(payload, 0), collector)
        try:
            return await collector.future
        except asyncio.CancelledError:
            self.pool.abandon(self)
            raise

    async def query(self, sql: str | bytes) -> Reply:
        """COM_QUERY with text; the reply may be an ERR."""
        text = sql.encode() if isinstance(sql, str) else sql
        return await self.command(bytes([Com.QUERY]) + text)

    async def queries(self, texts: Sequence[bytes]) -> list[Reply]:
        """Several COM_QUERY in one write, and all their answers. Raises BackendLost, as `command` does."""
        loop = asyncio.get_running_loop()
        collectors = [Collector(loop, QUERY) for _ in texts]
        if not self.sinks:
            self.scanner.start(QUERY)
        self.sinks.extend(collectors)
        self._write(b"".join([packet(b"\x03" + text, 0) for text in texts]))
        try:
            return list(await asyncio.gather(*[collector.future for collector in collectors]))
        except asyncio.CancelledError:
            self.pool.abandon(self)
            raise

    async def switch(self, wanted: Profile) -> Reply | None:
        """Bring the connection to a profile. None when it is there; else the server's ERR reply, and the connection
        is closed because its state is no longer known."""
        if self.profile is wanted:
            return None
        wanted = keeping(self.profile, wanted)
        schema, assignments = transition(self.profile, wanted)
        if schema is not None:
            reply = await self.command(bytes([Com.INIT_DB]) + schema.encode(), SINGLE)
            if reply.failed:
                self.close()
                return reply
        if assignments is not None:
            reply = await self.query(assignments)
            if reply.failed:
                self.close()
                return reply
        self.profile = wanted
        return None

    def fail(self, why: str) -> None:
        """Give up the connection because of what the server sent."""
        if not self.closed:
            self.closed = True
            self.pool.note_cut(self.server_thread)
            self.transport.abort()
            error = BackendLost(f"{self.pool.server.name} broke the protocol: {why}")
            self.pool.forget(self)
            while self.sinks:
                self.sinks.pop(0).response_lost(error, self)

    def close(self) -> None:
        """Close without waiting for anything; pending sinks hear of it when the transport is gone."""
        if not self.closed:
            self.closed = True
            if self.sinks:
                self.pool.note_cut(self.server_thread)
            self.pool.forget(self)
            self.transport.close()
