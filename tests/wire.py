"""A MySQL client for tests that need what no driver sends: raw packets, chosen capabilities, bytes one at a time."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from shardproxy.protocol.mysql.binary import build_execute, parse_binary_row
from shardproxy.protocol.mysql.client_auth import ClientAuth
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.commands import PrepareOk
from shardproxy.protocol.mysql.constants import Cap, Com
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.packets import Eof, Err, Ok, parse_eof, parse_err, parse_ok, read_lenenc_int
from shardproxy.protocol.mysql.text import parse_text_row
from shardproxy.protocol.mysql.values import Value

_LIMIT = 1 << 31


class Refused(Exception):
    """The server answered with ERR."""

    def __init__(self, err: Err) -> None:
        super().__init__(f"{err.code} ({err.sqlstate}): {err.text}")
        self.err = err

    @property
    def code(self) -> int:
        return self.err.code


class Closed(Exception):
    """The server closed the connection."""


@dataclass
class Result:
    """One answer. `rows` hold bytes (text protocol) or values (binary); `end` is what came last."""

    columns: list[ColumnDefinition] = field(default_factory=list)
    rows: list[list[Value]] = field(default_factory=list)
    end: Ok | Eof | None = None

    @property
    def ok(self) -> Ok:
        assert isinstance(self.end, Ok)
        return self.end

    @property
    def status(self) -> int:
        assert self.end is not None
        return self.end.status


@dataclass
class Prepared:
    """A statement as the server described it."""

    ident: int
    parameters: list[ColumnDefinition]
    columns: list[ColumnDefinition]


class RawClient:
    """A connection to 127.0.0.1:`port`, logged in unless `user` is "". Blocking; `seconds` limits each wait.

    deprecate_eof: how ends of rows are told. tls: a context to secure the connection with. step: bytes a write.
    """

    def __init__(
        self,
        port: int,
        user: str = "app",
        password: str = "app",
        database: str | None = "main",
        *,
        deprecate_eof: bool = True,
        capabilities: int = 0,
        charset: int = 45,
        tls: ssl.SSLContext | None = None,
        step: int = 0,
        seconds: float = 30.0,
    ) -> None:
        self.socket: socket.socket | ssl.SSLSocket = socket.create_connection(("127.0.0.1", port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.deprecate_eof = deprecate_eof
        self.step = step
        self.reader = PacketReader(_LIMIT)
        self._taken: list[tuple[int, bytes]] = []
        wanted = capabilities | int(Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH | Cap.TRANSACTIONS)
        if deprecate_eof:
            wanted |= int(Cap.DEPRECATE_EOF)
        self.auth = ClientAuth(user, password.encode(), database, charset, wanted)
        if user:
            try:
                self._log_in(tls)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def _log_in(self, tls: ssl.SSLContext | None) -> None:
        auth = self.auth
        auth.feed(self.receive())
        seq = 1
        if tls is not None:
            self.send(auth.ssl_request(), seq)
            assert isinstance(self.socket, socket.socket)
            self.socket = tls.wrap_socket(self.socket)
            auth.secure = True
            seq += 1
        self.send(auth.response(), seq)
        while not auth.done:
            for payload in auth.feed(self.receive()):
                self.send(payload, self.reader.next_seq)

    # ── bytes ──

    def write(self, data: bytes) -> None:
        """Send bytes, `step` at a time when that is set."""
        if not self.step:
            self.socket.sendall(data)
            return
        for at in range(0, len(data), self.step):
            self.socket.sendall(data[at : at + self.step])

    def send(self, payload: bytes, seq: int = 0) -> None:
        """Send one payload in as many packets as it takes; the answer's sequence ids go on from there."""
        self.write(packet(payload, seq))
        self.reader.next_seq = (seq + len(payload) // 0xFFFFFF + 1) & 0xFF

    def receive(self) -> bytes:
        """The next payload. Raises Closed, and RemoteProtocolError for a wrong sequence id."""
        while not self._taken:
            data = self._read()
            if not data:
                raise Closed("the connection was closed")
            self._taken += self.reader.feed(data)
        return self._taken.pop(0)[1]

    def _read(self) -> bytes:
        try:
            return self.socket.recv(1 << 20)
        except ConnectionError as error:
            raise Closed(str(error)) from error

    def expect_closed(self) -> None:
        """Wait until the server has closed; fail when it says anything first."""
        data = b""
        try:
            data = self._read()
        except Closed:
            return
        assert not data, data

    # ── commands ──

    def command(self, code: int, body: bytes = b"") -> Result:
        """One command answered by OK, ERR, or a text result. Raises Refused."""
        self.send(bytes((code,)) + body)
        return self.result()

    def query(self, sql: str | bytes) -> Result:
        """COM_QUERY. Raises Refused."""
        return self.command(Com.QUERY, sql.encode() if isinstance(sql, str) else sql)

    def rows(self, sql: str | bytes) -> list[list[Value]]:
        return self.query(sql).rows

    def result(self, binary: bool = False) -> Result:
        """The answer under way: OK or one result set."""
        first = self.receive()
        if first[:1] == b"\xff":
            raise Refused(parse_err(first))
        if first[:1] == b"\x00":
            return Result(end=parse_ok(first, session_track=False))
        count, _ = read_lenenc_int(first, 0)
        result = Result([ColumnDefinition.parse(self.receive()) for _ in range(count)])
        if not self.deprecate_eof:
            parse_eof(self.receive())
        while True:
            payload = self.receive()
            if payload[:1] == b"\xff":
                raise Refused(parse_err(payload))
            if self._is_end(payload):
                result.end = parse_ok(payload, session_track=False) if self.deprecate_eof else parse_eof(payload)
                return result
            if binary:
                result.rows.append(parse_binary_row(payload, result.columns))
            else:
                result.rows.append(list(parse_text_row(payload, count)))

    def _is_end(self, payload: bytes) -> bool:
        return payload[:1] == b"\xfe" and (len(payload) < 0xFFFFFF if self.deprecate_eof else len(payload) < 9)

    def prepare(self, sql: str | bytes) -> Prepared:
        """COM_STMT_PREPARE. Raises Refused."""
        self.send(bytes((Com.STMT_PREPARE,)) + (sql.encode() if isinstance(sql, str) else sql))
        first = self.receive()
        if first[:1] == b"\xff":
            raise Refused(parse_err(first))
        head = PrepareOk.parse(first)
        return Prepared(head.statement_id, self._definitions(head.params), self._definitions(head.columns))

    def _definitions(self, count: int) -> list[ColumnDefinition]:
        found = [ColumnDefinition.parse(self.receive()) for _ in range(count)]
        if count and not self.deprecate_eof:
            parse_eof(self.receive())
        return found

    def execute(
        self,
        statement: Prepared,
        parameters: Sequence[tuple[int, bool, Value]] = (),
        *,
        flags: int = 0,
        with_types: bool = True,
        long_data: Sequence[int] = (),
    ) -> Result:
        """COM_STMT_EXECUTE; arguments as of build_execute. Raises Refused."""
        self.send(build_execute(statement.ident, parameters, flags, with_types, long_data))
        return self.result(binary=True)

    def close_statement(self, statement: Prepared) -> None:
        """COM_STMT_CLOSE, which is not answered."""
        self.send(bytes((Com.STMT_CLOSE,)) + statement.ident.to_bytes(4, "little"))

    def send_long_data(self, statement: Prepared, index: int, data: bytes) -> None:
        """COM_STMT_SEND_LONG_DATA, which is not answered."""
        head = bytes((Com.STMT_SEND_LONG_DATA,)) + statement.ident.to_bytes(4, "little") + index.to_bytes(2, "little")
        self.send(head + data)


def code_of(client: RawClient, sql: str) -> int:
    """The number of the error that a statement gets."""
    with pytest.raises(Refused) as refused:
        client.query(sql)
    return refused.value.code
