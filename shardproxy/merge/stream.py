"""One shard's result set on its way into a merge: wire bytes in, rows out, each with its sort key.

The first `hidden` columns of each row are ours: the keys. They are read and cut off; the other columns are kept as the
bytes that they came as. This is the inner loop of every merge: compiled.
"""

from __future__ import annotations

from shardproxy.errors import RemoteProtocolError
from shardproxy.merge.keys import INTEGER, KeyPart
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.packets import parse_eof, parse_err, parse_ok, read_lenenc_int

_COUNT, _DEFS, _EOF, _ROWS, _DONE = 0, 1, 2, 3, 4

_WIDTHS: dict[int, int] = {
    FieldType.TINY.value: 1,
    FieldType.SHORT.value: 2,
    FieldType.YEAR.value: 2,
    FieldType.LONG.value: 4,
    FieldType.INT24.value: 4,
    FieldType.LONGLONG.value: 8,
    FieldType.FLOAT.value: 4,
    FieldType.DOUBLE.value: 8,
}


def width_of(field_type: int) -> int:
    """Bytes of a value in a binary row; 0 for those that tell their length themselves, −1 for NULL's type."""
    if field_type == FieldType.NULL.value:
        return -1
    return _WIDTHS.get(field_type, 0)


class ShardStream:
    """Feed the bytes of one answer in any pieces.

    definitions, payloads: the columns, all of them, once `headed`. Rows are read when `decode` has told how; then
    `keys[at:]` and `rows[at:]` are the rows not taken yet: rows without the hidden columns, without packet headers.
    ended: the last row is here, or an ERR, whose payload is `error`.
    """

    __slots__ = (
        "_binary", "_columns", "_continued", "_deprecate_eof", "_hidden", "_joined", "_parts", "_single", "_state",
        "_tail", "_visible_nulls", "_widths", "at", "definitions", "ended", "error", "headed", "keys", "last",
        "payloads", "rows", "status", "warnings",
    )  # fmt: skip

    def __init__(self, deprecate_eof: bool, binary: bool) -> None:
        self.definitions: list[ColumnDefinition] = []
        self.payloads: list[bytes] = []
        self.headed = False
        self.ended = False
        self.error = b""
        self.keys: list[bytes] = []
        self.rows: list[bytes] = []
        self.at = 0
        self.last = b""  # key of the last row taken
        self.status = 2
        self.warnings = 0
        self._deprecate_eof = deprecate_eof
        self._binary = binary
        self._state = _COUNT
        self._columns = 0
        self._tail = b""
        self._continued = False
        self._joined = b""
        self._hidden = -1
        self._parts: list[KeyPart] = []
        self._widths: list[int] = []
        self._visible_nulls = 0
        self._single = False

    @property
    def waiting(self) -> int:
        """Rows not taken yet."""
        return len(self.rows) - self.at

    def decode(self, parts: list[KeyPart], hidden: int) -> None:
        """The key is made of these parts, whose values are the first `hidden` columns; reads the rows already here."""
        self._parts = parts
        self._hidden = hidden
        self._widths = [width_of(d.type) for d in self.definitions[:hidden]]
        self._visible_nulls = (len(self.definitions) - hidden + 9) >> 3
        self._single = (
            not self._binary and len(parts) == 1 and hidden == 1
            and parts[0].kind == INTEGER and not parts[0].descending
        )  # fmt: skip
        self.feed(b"")

    def first_row(self) -> bytes:
        """The payload of the first row, before `decode`; b"" when it is not here whole, or there is none."""
        data = self._tail
        if len(data) < 5 or self.ended:
            return b""
        length = data[0] | data[1] << 8 | data[2] << 16
        terminal = data[4] >= 0xFE and (data[4] == 0xFF or length < 9 or self._deprecate_eof)
        if length == 0xFFFFFF or terminal or len(data) < 4 + length:
            return b""
        return data[4 : 4 + length]

    def take(self, end: int) -> None:
        """The rows up to index `end` have been taken."""
        self.last = self.keys[end - 1]
        if end == len(self.rows):
            self.keys = []
            self.rows = []
            self.at = 0
        else:
            self.at = end

    def feed(self, data: bytes) -> None:
        """More bytes of the answer. Raises RemoteProtocolError when it is no result set."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        pos = 0
        if not self.headed:
            pos = self._head(data)
        if self.headed and self._hidden >= 0 and not self.ended:
            pos = self._rows(data, pos)
        if pos < len(data):
            if self.ended:
                raise RemoteProtocolError("bytes after the end of an answer")
            self._tail = data[pos:] if pos else data

    def _head(self, data: bytes) -> int:
        pos = 0
        n = len(data)
        while n - pos >= 4 and not self.headed and not self.ended:
            length = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
            after = pos + 4 + length
            if after > n:
                break
            if not length:
                raise RemoteProtocolError("an empty packet where a result set's head was due")
            self._head_packet(data[pos + 4 : after])
            pos = after
        return pos

    def _head_packet(self, payload: bytes) -> None:
        if payload[0] == 0xFF:
            self._fail(payload)
        elif self._state == _COUNT:
            if payload[0] in (0x00, 0xFB, 0xFE):
                raise RemoteProtocolError("a scattered SELECT was answered without rows")
            self._columns, _ = read_lenenc_int(payload, 0)
            self._state = _DEFS
        elif self._state == _DEFS:
            self.definitions.append(ColumnDefinition.parse(payload))
            self.payloads.append(payload)
            if len(self.definitions) == self._columns:
                self._state = _ROWS if self._deprecate_eof else _EOF
                self.headed = self._deprecate_eof
        else:
            parse_eof(payload)
            self._state = _ROWS
            self.headed = True

    def _fail(self, payload: bytes) -> None:
        parse_err(payload)
        self.error = payload
        self.ended = True
        self._state = _DONE

    def _rows(self, data: bytes, pos: int) -> int:
        """Read whole rows from `pos`; gives where the first row begins that is not whole."""
        n = len(data)
        deprecate_eof = self._deprecate_eof
        single = self._single
        keys = self.keys
        rows = self.rows
        while n - pos >= 4:
            length = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
            start = pos + 4
            after = start + length
            if after > n:
                break
            if self._continued or length == 0xFFFFFF:
                self._large(data[start:after])
            else:
                if not length:
                    raise RemoteProtocolError("an empty packet among rows")
                first = data[start]
                if first >= 0xFE and (first == 0xFF or length < 9 or deprecate_eof):
                    self._terminal(data[start:after])
                    return after
                if single and first < 0xFB:
                    split = start + 1 + first
                    if data[start + 1] != 0x2D:
                        keys.append(b"\x02" + data[start:split])
                    else:
                        keys.append(self._parts[0].encode(data[start + 1 : split]))
                    rows.append(data[split:after])
                elif self._binary:
                    self._binary_row(data, start, after)
                else:
                    self._text_row(data, start, after)
            pos = after
        return pos

    def _large(self, piece: bytes) -> None:
        """A packet of a row of 16 MiB or more."""
        self._joined += piece
        self._continued = len(piece) == 0xFFFFFF
        if not self._continued:
            whole = self._joined
            self._joined = b""
            if self._binary:
                self._binary_row(whole, 0, len(whole))
            else:
                self._text_row(whole, 0, len(whole))

    def _terminal(self, payload: bytes) -> None:
        if payload[0] == 0xFF:
            self._fail(payload)
            return
        end = parse_ok(payload, session_track=False) if self._deprecate_eof else parse_eof(payload)
        self.status = end.status
        self.warnings = end.warnings
        self.ended = True
        self._state = _DONE

    def _text_row(self, data: bytes, start: int, after: int) -> None:
        pos = start
        key = b""
        for part in self._parts:
            value: bytes | None = None
            used = part.used
            for i in range(part.columns):
                first = data[pos]
                pos += 1
                if first == 0xFB:
                    continue
                if first > 0xFB:
                    first, pos = read_lenenc_int(data, pos - 1)
                if i == used:
                    value = data[pos : pos + first]
                pos += first
            key += part.encode(value)
        if pos > after:
            raise RemoteProtocolError("a row cut short")
        self.keys.append(key)
        self.rows.append(data[pos:after])

    def _binary_row(self, data: bytes, start: int, after: int) -> None:
        hidden = self._hidden
        if not hidden:
            self.keys.append(b"")
            self.rows.append(data[start:after])
            return
        pos = start + 1 + ((len(self.definitions) + 9) >> 3)
        nulls = int.from_bytes(data[start + 1 : pos], "little") >> 2
        key = b""
        column = 0
        for part in self._parts:
            value: bytes | None = None
            for i in range(part.columns):
                if not nulls >> column & 1:
                    width = self._widths[column]
                    if width < 0:
                        width = 0
                    elif not width:
                        width, pos = read_lenenc_int(data, pos)
                    if i == part.used:
                        value = data[pos : pos + width]
                    pos += width
                column += 1
            key += part.encode(value)
        if pos > after:
            raise RemoteProtocolError("a row cut short")
        shown = (nulls >> hidden << 2).to_bytes(self._visible_nulls, "little")
        self.keys.append(key)
        self.rows.append(b"\x00" + shown + data[pos:after])


def first_values(data: bytes, count: int, definitions: list[ColumnDefinition], binary: bool) -> list[bytes | None]:
    """The first `count` values of a row's payload."""
    values: list[bytes | None] = []
    if not binary:
        pos = 0
        for _ in range(count):
            if data[pos] == 0xFB:
                values.append(None)
                pos += 1
                continue
            size, pos = read_lenenc_int(data, pos)
            values.append(data[pos : pos + size])
            pos += size
        return values
    pos = 1 + ((len(definitions) + 9) >> 3)
    nulls = int.from_bytes(data[1:pos], "little") >> 2
    for i in range(count):
        if nulls >> i & 1:
            values.append(None)
            continue
        width = width_of(definitions[i].type)
        if width < 0:
            width = 0
        elif not width:
            width, pos = read_lenenc_int(data, pos)
        values.append(data[pos : pos + width])
        pos += width
    return values
