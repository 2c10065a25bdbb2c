"""A client that costs next to nothing: a socket, logged in, and results that are counted instead of kept."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from shardproxy.errors import BackendError
from shardproxy.protocol.mysql.client_auth import ClientAuth
from shardproxy.protocol.mysql.constants import Com
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.packets import parse_err, parse_ok

_MAX_LENGTH = 0xFFFFFF
_ERR, _EOF, _OK = 0xFF, 0xFE, 0x00
_LOGIN_LIMIT = 1 << 16


class WireError(BackendError):
    """The server answered with an error, or closed the connection. code: the error's number, 0 when there is none."""

    code = 0


def _answered(payload: bytes) -> WireError:
    err = parse_err(payload)
    error = WireError(err.text)
    error.code = err.code
    return error


@dataclass(frozen=True, slots=True)
class ResultSize:
    """Rows, and bytes on the wire with all packet headers."""

    rows: int
    bytes: int


class WireClient:
    """A logged-in connection to 127.0.0.1:`port`. Blocking; raises WireError, AccessError, OSError."""

    __slots__ = ("socket",)

    def __init__(self, port: int, user: str, password: str, database: str | None = None, timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        try:
            self._log_in(ClientAuth(user, password.encode(), database))
        except BaseException:
            self.socket.close()
            raise

    def ping(self) -> None:
        """COM_PING; raises when the server does not answer OK."""
        self._send(bytes([Com.PING]))
        if self._receive_one()[:1] != b"\0":
            raise WireError("COM_PING was not answered with OK")

    def run(self, sql: str) -> int:
        """Run a statement that gives no rows; its answer is one packet. How many rows it changed."""
        self._send(bytes([Com.QUERY]) + sql.encode())
        answer = self._receive_one()
        if answer[:1] == b"\xff":
            raise _answered(answer)
        if answer[:1] != b"\0":
            raise WireError("the statement gave rows")
        return parse_ok(answer, session_track=False).affected

    def count(self, sql: str, pause: Callable[[int], None] = lambda received: None, chunk: int = 1 << 16) -> ResultSize:
        """Run a query that gives rows, and count what comes back, `chunk` bytes at most at a time.

        pause: called with the number of bytes received so far before each read; a slow client waits in it.
        """
        self._send(bytes([Com.QUERY]) + sql.encode())
        counter = ResultCounter()
        buffer = bytearray(chunk)
        view = memoryview(buffer)
        while not counter.done:
            pause(counter.bytes)
            received = self.socket.recv_into(buffer)
            if not received:
                raise WireError(f"the server closed the connection after {counter.bytes} bytes of a result")
            counter.feed(view[:received])
        return ResultSize(counter.rows, counter.bytes)

    def close(self) -> None:
        self.socket.close()

    def _send(self, payload: bytes) -> None:
        self.socket.sendall(packet(payload, 0))

    def _receive_one(self) -> bytes:
        reader = PacketReader(_LOGIN_LIMIT, next_seq=1)
        while True:
            for _, payload in reader.feed(self._receive()):
                return payload

    def _receive(self) -> bytes:
        data = self.socket.recv(1 << 14)
        if not data:
            raise WireError("the server closed the connection")
        return data

    def _log_in(self, auth: ClientAuth) -> None:
        reader = PacketReader(_LOGIN_LIMIT)
        while not auth.done:
            for seq, payload in reader.feed(self._receive()):
                greeted = auth.greeting is not None
                answers = auth.feed(payload) if greeted else [*auth.feed(payload), auth.response()]
                for number, answer in enumerate(answers, seq + 1):
                    self.socket.sendall(packet(answer, number))
                    reader.next_seq = (number + 1) & 0xFF


class ResultCounter:
    """Walks the packet headers of one text result set (without DEPRECATE_EOF) and counts its rows.

    Raises WireError when the server's answer is an error.
    """

    __slots__ = ("_eofs", "_joined", "_left", "_part", "bytes", "done", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0
        self.done = False
        self._eofs = 0
        self._left = 0  # bytes of a packet's payload that are still to come and do not matter
        self._part = b""  # a header, or the short packet after it, that is not whole
        self._joined = False  # the packet before was a full one: this one goes on with it

    def feed(self, data: bytes | memoryview) -> None:
        """Take received bytes."""
        self.bytes += len(data)
        if self._left >= len(data):
            self._left -= len(data)
            return
        rest = bytes(data[self._left :])
        self._left = 0
        if self._part:
            rest = self._part + rest
            self._part = b""
        at, size = 0, len(rest)
        while at < size and not self.done:
            at = self._packet(rest, at, size)
        if self.done and at < size:
            raise WireError(f"{size - at} bytes follow the end of the result")

    def _packet(self, data: bytes, at: int, size: int) -> int:
        """Account for the packet at `at`; where the next one starts, or `size` when it has not all come."""
        # An error is short and wanted whole; of anything else the header and one byte are enough.
        if size - at < 5:
            self._part = data[at:]
            return size
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        first = data[at + 4]
        end = at + 4 + length
        if length == 0:
            # The end of a row of a multiple of 16 MiB: it has no first byte.
            self._joined = False
            return end
        if not self._joined:
            if first == _ERR or (first == _EOF and length < 9) or (first == _OK and not self._eofs and length > 1):
                if end > size:
                    self._part = data[at:]
                    return size
                self._ends(data[at + 4 : end])
            elif self._eofs == 1:
                self.rows += 1
        self._joined = length == _MAX_LENGTH
        if end > size:
            self._left = end - size
            return size
        return end

    def _ends(self, payload: bytes) -> None:
        if payload[0] == _ERR:
            raise _answered(payload)
        if payload[0] == _OK:
            raise WireError("the statement gave no rows")
        self._eofs += 1  # the first ends the column definitions, the second the rows
        self.done = self._eofs == 2
