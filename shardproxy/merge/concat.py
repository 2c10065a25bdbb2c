"""The rows of several result sets, one after the other, as one result set with running sequence ids.

Works on wire bytes: walks packet headers, rewrites the sequence byte, never looks into a row. The column definitions
of every part must be the same as the first's, else the parts are not rows of one table.
"""

from __future__ import annotations

from shardproxy.errors import BackendError, RemoteProtocolError, SqlError
from shardproxy.protocol.mysql.columns import ColumnDefinition, same_shape
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import (
    build_eof,
    build_err,
    build_ok,
    parse_eof,
    parse_err,
    parse_ok,
    read_lenenc_int,
)

_COUNT, _DEFS, _EOF, _ROWS, _DONE = range(5)


class Concatenation:
    """Feed the bytes of each part in any pieces; `next_part()` between parts; `end()` after the last.

    failed: the answer has ended in an ERR packet, a part's or that of `error`. rows: some row has been handed on.
    """

    def __init__(self, deprecate_eof: bool) -> None:
        self.failed = False
        self.rows = False
        self.warnings = 0
        self.status = 2
        self._deprecate_eof = deprecate_eof
        self._seq = 1
        self._first = True
        self._definitions: list[ColumnDefinition] = []
        self._reset()

    @property
    def mid_packet(self) -> bool:
        """Whether the bytes handed out so far end inside a packet, or inside a row of several packets."""
        return self._left > 0 or self._continued

    def _reset(self) -> None:
        self._state = _COUNT
        self._tail = b""
        self._left = 0  # payload bytes of a row still to come
        self._continued = False  # the packet is the continuation of a 16 MiB one
        self._columns = 0
        self._seen = 0

    def feed(self, data: bytes) -> bytes:
        """Bytes of the current part in, bytes for the client out.

        Raises BackendError when a part's columns differ, RemoteProtocolError when it is no result set: nothing of
        `data` is handed out then, and `mid_packet` and `error()` go by what was before.
        """
        before = self._left, self._continued, self._seq
        try:
            return self._walk(data)
        except (BackendError, RemoteProtocolError):
            self._left, self._continued, self._seq = before
            raise

    def _walk(self, data: bytes) -> bytes:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        buffer = bytearray(data)
        n = len(buffer)
        pos = min(self._left, n)
        self._left -= pos
        keep = [(0, pos)] if pos else []
        while n - pos >= 5 or (self._continued and n - pos >= 4):
            length = buffer[pos] | buffer[pos + 1] << 8 | buffer[pos + 2] << 16
            after = pos + 4 + length
            if self._state == _ROWS:
                if not self._continued and self._is_terminal(buffer[pos + 4], length):
                    if after > n:
                        break
                    self._terminal(bytes(buffer[pos + 4 : after]), keep, buffer, pos, after)
                    pos = after
                    continue
                self.rows = True
                self._continued = length == 0xFFFFFF
                self._number(buffer, pos)
                keep.append((pos, min(after, n)))
                pos = after
                if after > n:
                    self._left = after - n
                    pos = n
                    break
                continue
            if after > n:
                break
            if self._header(bytes(buffer[pos + 4 : after])) and (self._first or self.failed):
                self._number(buffer, pos)
                keep.append((pos, after))
            pos = after
        self._tail = bytes(buffer[pos:])
        return b"".join([bytes(buffer[a:b]) for a, b in _joined(keep)])

    def _number(self, buffer: bytearray, pos: int) -> None:
        buffer[pos + 3] = self._seq
        self._seq = (self._seq + 1) & 0xFF

    def _is_terminal(self, first: int, length: int) -> bool:
        return first == 0xFF or (first == 0xFE and (length < 9 or (self._deprecate_eof and length < 0xFFFFFF)))

    def _terminal(
        self, payload: bytes, keep: list[tuple[int, int]], buffer: bytearray, pos: int, after: int
    ) -> None:
        self._state = _DONE
        if payload[:1] == b"\xff":
            self._fail(payload)
            self._number(buffer, pos)
            keep.append((pos, after))
            return
        end = parse_ok(payload, session_track=False) if self._deprecate_eof else parse_eof(payload)
        self.status = end.status
        self.warnings += end.warnings

    def _header(self, payload: bytes) -> bool:
        """A packet before the rows. True: it belongs to the answer's head."""
        if self._state == _DONE:
            raise RemoteProtocolError("bytes after the end of an answer")
        if not payload:
            raise RemoteProtocolError("an empty packet where a result set's head was due")
        if payload[0] == 0xFF:
            self._fail(payload)
            return True
        if self._state == _COUNT:
            if payload[0] in (0x00, 0xFB, 0xFE):
                raise RemoteProtocolError("a scattered SELECT was answered without rows")
            self._columns, _ = read_lenenc_int(payload, 0)
            self._state = _DEFS
        elif self._state == _DEFS:
            definition = ColumnDefinition.parse(payload)
            if self._first:
                self._definitions.append(definition)
            elif self._seen >= len(self._definitions) or not same_shape(self._definitions[self._seen], definition):
                raise BackendError(
                    f"the shards describe column {self._seen + 1} of the result differently: run `shardctl check`"
                )
            self._seen += 1
            if self._seen == self._columns:
                if not self._first and self._columns != len(self._definitions):
                    raise BackendError("the shards give different numbers of columns: run `shardctl check`")
                self._state = _ROWS if self._deprecate_eof else _EOF
        else:
            parse_eof(payload)
            self._state = _ROWS
        return True

    def _fail(self, payload: bytes) -> None:
        parse_err(payload)
        self.failed = True
        self._state = _DONE

    def next_part(self) -> None:
        """The current part is whole; the next begins. Raises RemoteProtocolError when it was cut short."""
        if self._state != _DONE or self._tail or self._left:
            raise RemoteProtocolError("a shard's answer ended too early")
        self._first = False
        self._reset()

    def end(self) -> bytes:
        """The packet after the last row."""
        warnings = min(self.warnings, 0xFFFF)
        if self._deprecate_eof:
            return packet(build_ok(0, 0, self.status, warnings, header=0xFE), self._seq)
        return packet(build_eof(self.status, warnings), self._seq)

    def error(self, error: SqlError) -> bytes:
        """The packet that ends the answer in an error, wherever it stands. Nothing may follow it: the client would
        take that for the answer to its next command."""
        self.failed = True
        return packet(build_err(error.code, error.sqlstate, str(error)), self._seq)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring spans merged: most chunks are one span."""
    out: list[tuple[int, int]] = []
    for a, b in spans:
        if out and out[-1][1] == a:
            out[-1] = (out[-1][0], b)
        else:
            out.append((a, b))
    return out
