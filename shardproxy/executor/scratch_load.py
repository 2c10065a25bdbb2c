"""Rows of one shard's answer as the VALUES of INSERT statements: text or binary protocol, in bounded pieces."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.errors import BackendError, RemoteProtocolError
from shardproxy.executor.scratch_columns import Literal
from shardproxy.protocol.mysql.framing import PacketReader
from shardproxy.protocol.mysql.packets import parse_err, read_lenenc_int

PIECE = 512 * 1024  # bytes of VALUES after which an INSERT is sent
_LARGEST = 1 << 30
_COUNT, _DEFINITIONS, _EOF, _ROWS, _DONE = range(5)


class Rows:
    """Feed the bytes of an answer in any pieces; `values` fills with "(…)" a row. All columns are binary strings.

    rows, size: how many rows and bytes of rows have come so far.
    """

    def __init__(self, literals: Sequence[Literal], deprecate_eof: bool, binary: bool) -> None:
        self.values: list[bytes] = []
        self.pending = 0  # bytes in `values`
        self.rows = 0
        self.size = 0
        self._literals = tuple(literals)
        self._deprecate_eof = deprecate_eof
        self._binary = binary
        self._reader = PacketReader(_LARGEST, next_seq=1)
        self._state = _COUNT
        self._left = 0

    @property
    def whole(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> None:
        """Raises the server's error as BackendError, RemoteProtocolError when it is no result set."""
        row = self._binary_row if self._binary else self._text_row
        for _, payload in self._reader.feed(data):
            if self._state == _ROWS and not self._ends(payload):
                self.add(row(payload))
                self.rows += 1
                self.size += len(payload)
            else:
                self._other(payload)

    def add(self, literals: list[bytes]) -> None:
        """One row has come."""
        value = b"(" + b",".join(literals) + b")"
        self.values.append(value)
        self.pending += len(value)

    def take(self) -> bytes:
        """The VALUES so far, for one INSERT."""
        out = b",".join(self.values)
        self.values.clear()
        self.pending = 0
        return out

    def _ends(self, payload: bytes) -> bool:
        first = payload[:1]
        if first == b"\xff":
            return True
        return first == b"\xfe" and (len(payload) < 0xFFFFFF if self._deprecate_eof else len(payload) < 9)

    def _other(self, payload: bytes) -> None:
        if payload[:1] == b"\xff":
            error = parse_err(payload)
            raise BackendError(error.text, error.code, error.sqlstate)
        if self._state == _COUNT:
            if payload[:1] in (b"", b"\x00", b"\xfb"):
                raise RemoteProtocolError("a SELECT was answered without rows")
            self._left, _ = read_lenenc_int(payload, 0)
            if self._left != len(self._literals):
                raise RemoteProtocolError("a SELECT was answered with another number of columns")
            self._state = _DEFINITIONS
        elif self._state == _DEFINITIONS:
            self._left -= 1
            if self._left == 0:
                self._state = _ROWS if self._deprecate_eof else _EOF
        elif self._state == _EOF:
            self._state = _ROWS
        elif self._state == _ROWS:
            self._state = _DONE
        else:
            raise RemoteProtocolError("bytes after the end of an answer")

    def _text_row(self, payload: bytes) -> list[bytes]:
        parts = []
        at = 0
        for literal in self._literals:
            length = payload[at]
            at += 1
            if length == 0xFB:
                parts.append(b"NULL")
                continue
            if length > 0xFB:
                length, at = read_lenenc_int(payload, at - 1)
            parts.append(literal(payload[at : at + length]))
            at += length
        if at != len(payload):
            raise RemoteProtocolError("a row that is not of the expected columns")
        return parts

    def _binary_row(self, payload: bytes) -> list[bytes]:
        literals = self._literals
        at = 1 + (len(literals) + 9 >> 3)
        parts = []
        for i, literal in enumerate(literals):
            if payload[1 + (i + 2 >> 3)] & 1 << (i + 2 & 7):
                parts.append(b"NULL")
                continue
            length, at = read_lenenc_int(payload, at)
            parts.append(literal(payload[at : at + length]))
            at += length
        if at != len(payload):
            raise RemoteProtocolError("a row that is not of the expected columns")
        return parts
