"""A connection of the moving engine to one server: raw rows at full speed, pipelined statements, binlog dumps.

Values are never decoded here: a row is its payload. The character set of the connection is `binary`, so bytes come
and go as they are stored.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from shardproxy.backend.control import SETTLED, Credentials, tls_context
from shardproxy.backend.dial import log_in
from shardproxy.backend.tls import Transport, hand_over
from shardproxy.errors import BackendLost, SqlError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD, Com
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import parse_eof, parse_err, parse_ok, read_lenenc_int
from shardproxy.protocol.mysql.text import parse_text_row
from shardproxy.topology.model import Server

_UTF8MB4 = 45
_MOST_BUFFERED = 2 << 20  # bytes of rows that wait for their reader before the socket is left alone

_FIRST, _DEFINITIONS, _ROWS, _PACKETS = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Answer:
    """affected, warnings of an OK; rows as payloads of the text protocol, `columns` values each."""

    affected: int = 0
    warnings: int = 0
    columns: int = 0
    rows: Sequence[bytes] = ()
    definitions: Sequence[bytes] = ()

    def names(self) -> list[bytes]:
        """The columns' names."""
        return [ColumnDefinition.parse(definition).name for definition in self.definitions]

    def values(self) -> list[list[bytes | None]]:
        """The rows' values."""
        return [parse_text_row(row, self.columns) for row in self.rows]

    def one(self) -> list[bytes | None]:
        """The values of the only row. Raises ValueError when there are more or none."""
        [row] = self.values()
        return row


@dataclass(frozen=True)
class LinkLogin:
    """How to log in; seconds: limit for connecting. Can be sent to another process."""

    credentials: Credentials
    seconds: float = 10.0

    @property
    def user(self) -> str:
        return self.credentials.user

    @property
    def password(self) -> bytes:
        return self.credentials.password.encode()

    @property
    def timeout(self) -> float:
        return self.seconds

    @property
    def tls(self) -> str:
        return self.credentials.tls

    @cached_property
    def context(self) -> ssl.SSLContext | None:
        return None if self.tls == "off" else tls_context(self.credentials.tls_ca)

    def __reduce__(self) -> tuple[type[LinkLogin], tuple[Credentials, float]]:
        return LinkLogin, (self.credentials, self.seconds)  # without the context, which cannot be sent


@dataclass(eq=False, slots=True)
class _Pending:
    """A command whose answer is not whole. `rows` are handed out bit by bit when it is streamed."""

    future: asyncio.Future[Answer | SqlError]
    state: int = _FIRST
    left: int = 0
    columns: int = 0
    definitions: list[bytes] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    buffered: int = 0
    streamed: bool = False
    more: asyncio.Event | None = None


_sent: Counter[str] = Counter()  # server → commands


class Link:
    """Made by `connect`. An asyncio protocol by its methods."""

    def __init__(self, server: Server, transport: Transport, thread: int, version: str) -> None:
        self.server = server
        self.thread = thread  # the server's number of this connection, for KILL
        self.version = version
        self.closed = False
        self._transport = transport
        self._pending: deque[_Pending] = deque()
        self._buffer = bytearray()
        self._need = 0
        self._joined: list[bytes] = []
        self._paused = False

    @property
    def is_mariadb(self) -> bool:
        return "mariadb" in self.version.lower()

    # ── asyncio.Protocol ──

    def data_received(self, data: bytes) -> None:
        if self._buffer or self._need:
            self._buffer += data
            if len(self._buffer) < self._need:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
            self._need = 0
        try:
            used = self._cut(data)
        except (SqlError, ValueError, IndexError) as error:
            self._fail(BackendLost(f"{self.server.name} broke the protocol: {error}"))
            return
        if used < len(data):
            self._buffer += data[used:] if used else data
            rest = len(data) - used
            self._need = 4 if rest < 4 else 4 + int.from_bytes(data[used : used + 3], "little")
        pending = self._pending[0] if self._pending else None
        if pending is not None and pending.streamed and pending.rows and pending.more is not None:
            pending.more.set()
            if pending.buffered > _MOST_BUFFERED and not self._paused:
                self._paused = True
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(BackendLost(f"{self.server.name}: the connection was lost{f': {exc}' if exc else ''}"))

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """What we send is bounded by statements that wait for their answers."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    def _cut(self, data: bytes) -> int:
        """Hand out the whole packets in `data`; the number of bytes used."""
        at = 0
        size = len(data)
        while at + 4 <= size:
            length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            end = at + 4 + length
            if end > size:
                break
            if length == MAX_PAYLOAD or self._joined:
                self._joined.append(data[at + 4 : end])
                at = end
                if length == MAX_PAYLOAD:
                    continue
                payload = b"".join(self._joined)
                self._joined.clear()
            else:
                payload = data[at + 4 : end]
                at = end
            if not self._pending:
                raise ValueError("bytes that nobody asked for")
            pending = self._pending[0]
            state = pending.state
            if state >= _ROWS:
                first = payload[0] if payload else 0
                if first < 0xFE or (first == 0xFE and len(payload) >= 9):
                    pending.rows.append(payload)
                    pending.buffered += len(payload)
                    continue
            self._other(pending, payload)
        return at

    def _other(self, pending: _Pending, payload: bytes) -> None:
        first = payload[0]
        if first == 0xFF and pending.state != _DEFINITIONS:
            err = parse_err(payload)
            self._done(pending, SqlError(f"{self.server.name}: {err.text}", err.code, err.sqlstate))
        elif pending.state == _FIRST:
            if first == 0x00:
                ok = parse_ok(payload, session_track=False)
                self._done(pending, Answer(ok.affected, ok.warnings))
            else:
                pending.columns, _ = read_lenenc_int(payload, 0)
                pending.left = pending.columns + 1
                pending.state = _DEFINITIONS
        elif pending.state == _DEFINITIONS:
            pending.left -= 1
            if pending.left:
                pending.definitions.append(payload)
            else:
                pending.state = _ROWS
        elif pending.state == _ROWS:
            self._done(
                pending, Answer(0, parse_eof(payload).warnings, pending.columns, pending.rows, pending.definitions)
            )
        else:
            self._done(pending, SqlError(f"{self.server.name} ended the stream of events"))

    def _done(self, pending: _Pending, answer: Answer | SqlError) -> None:
        self._pending.popleft()
        if not pending.future.done():
            pending.future.set_result(answer)
        if pending.more is not None:
            pending.more.set()

    def _fail(self, error: BackendLost) -> None:
        if not self.closed:
            self.closed = True
            self._transport.abort()
        while self._pending:
            self._done(self._pending[0], error)

    # ── commands ──

    async def query(self, sql: bytes, seconds: float = 60.0) -> Answer:
        """One statement. Raises SqlError with the server's number, BackendLost when no answer came in time."""
        [answer] = await self.queries((sql,), seconds)
        return answer

    async def queries(self, texts: Sequence[bytes], seconds: float = 60.0) -> list[Answer]:
        """Several statements in one write. The first error is raised when all answers have come.

        seconds: limit for all of them; when it is over the connection is given up.
        """
        answers = await self.attempts(texts, seconds)
        whole = []
        for answer in answers:
            if isinstance(answer, SqlError):
                raise answer
            whole.append(answer)
        return whole

    async def attempts(self, texts: Sequence[bytes], seconds: float = 60.0) -> list[Answer | SqlError]:
        """Like `queries`; errors stand in the list. Raises BackendLost only."""
        pendings = [self._send(bytes((Com.QUERY,)) + text) for text in texts]
        try:
            async with asyncio.timeout(seconds):
                answers = [await pending.future for pending in pendings]
        except TimeoutError:
            error = BackendLost(f"{self.server.name}: no answer within {seconds:g} s")
            self._fail(error)
            raise error from None
        except asyncio.CancelledError:
            self._fail(BackendLost(f"{self.server.name}: given up"))
            raise
        for answer in answers:
            if isinstance(answer, BackendLost):
                raise answer
        return answers

    async def stream(self, sql: bytes, seconds: float = 60.0) -> AsyncIterator[list[bytes]]:
        """The rows of one SELECT, in batches as they come. seconds: limit between two batches. Raises as `query`.

        Whoever leaves it early must close the connection.
        """
        pending = self._send(bytes((Com.QUERY,)) + sql, streamed=True)
        async for batch in self._batches(pending, seconds):
            yield batch

    async def packets(self, command: bytes, seconds: float) -> AsyncIterator[list[bytes]]:
        """The packets that answer a command without an end (a binlog dump), each with its first byte 0x00."""
        pending = self._send(command, streamed=True)
        pending.state = _PACKETS
        async for batch in self._batches(pending, seconds):
            yield batch

    async def _batches(self, pending: _Pending, seconds: float) -> AsyncIterator[list[bytes]]:
        assert pending.more is not None
        while True:
            if not pending.rows:
                if pending.future.done():
                    answer = pending.future.result()
                    if isinstance(answer, SqlError):
                        raise answer
                    return
                pending.more.clear()
                try:
                    async with asyncio.timeout(seconds):
                        await pending.more.wait()
                except TimeoutError:
                    error = BackendLost(f"{self.server.name}: no byte within {seconds:g} s")
                    self._fail(error)
                    raise error from None
                continue
            batch, pending.rows = pending.rows, []
            pending.buffered = 0
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            yield batch

    def _send(self, payload: bytes, streamed: bool = False) -> _Pending:
        if self.closed:
            raise BackendLost(f"{self.server.name}: the connection is closed")
        pending = _Pending(asyncio.get_running_loop().create_future())
        if streamed:
            pending.streamed = True
            pending.more = asyncio.Event()
        self._pending.append(pending)
        _sent[self.server.name] += 1
        self._transport.write(packet(payload, 0))
        return pending

    def close(self) -> None:
        """Close without a word; what the server has not committed is rolled back."""
        self._fail(BackendLost(f"{self.server.name}: closed"))

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


def sent_to(name: str) -> int:
    """Commands that this process has sent to a server over links, and others that count as its own."""
    return _sent[name]


def note_sent(name: str, commands: int) -> None:
    """Count commands that a child of this process has sent."""
    _sent[name] += commands


async def connect(server: Server, login: LinkLogin, settings: Sequence[bytes] = ()) -> Link:
    """A connection whose character set is binary, and which has no time limit for statements.

    settings: statements run first.

    Raises BackendUnavailable, AccessError, SqlError.
    """
    transport, auth = await log_in(server, login, _UTF8MB4, None)
    assert auth.greeting is not None
    link = Link(server, transport, auth.greeting.connection_id, auth.greeting.server_version)
    hand_over(transport, link)
    try:
        limit = "max_statement_time" if link.is_mariadb else "max_execution_time"
        await link.queries((f"SET NAMES binary, {SETTLED}, {limit} = 0".encode(), *settings), login.seconds)
    except BaseException:
        link.close()
        raise
    return link
