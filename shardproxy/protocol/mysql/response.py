"""Finds where a server's answer ends by walking packet headers; the bytes themselves are forwarded untouched.

Source: MySQL protocol pages "COM_QUERY response", "COM_STMT_PREPARE response", "COM_FIELD_LIST response".

Rules of this file: no per-packet objects, no copies of payloads, nothing kept of an answer but a tail too short to
judge. `scan` is on the path of every query.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from shardproxy.errors import RemoteProtocolError

# Shapes of an answer: which command it answers.
QUERY: Final = 0  # COM_QUERY, COM_STMT_EXECUTE: OK | ERR | result sets
PREPARE: Final = 1  # COM_STMT_PREPARE: OK with counts, then parameter and column definitions | ERR
FIELDS: Final = 2  # COM_FIELD_LIST: column definitions until EOF | ERR
SINGLE: Final = 3  # one packet: COM_STATISTICS, COM_PING, COM_INIT_DB, COM_RESET_CONNECTION …

# What the answer ended with.
OK: Final = 0
ROWS: Final = 1
ERR: Final = 2

IN_TRANS: Final = 0x0001
MORE_RESULTS: Final = 0x0008

_FIRST: Final = 0
_DEFS: Final = 1
_ROWS: Final = 2
_CONT: Final = 3
_MAX_TAIL: Final = 1 << 20


class ResponseScanner:
    """One per server connection. `start(shape)`, then `scan(data, pos)` until it returns an end.

    After the end: `outcome` (OK, ROWS, ERR), `status` (server status flags; unchanged on ERR, which carries none),
    `warnings`, and for OK `affected` and `insert_id`, for ERR `error_code` and `error` (the packet's payload).
    """

    __slots__ = (
        "_defs", "_resume", "_shape", "_skip", "_state", "_tail", "affected", "columns", "deprecate_eof", "error",
        "error_code", "insert_id", "outcome", "status", "warnings",
    )  # fmt: skip

    def __init__(self, deprecate_eof: bool) -> None:
        self.deprecate_eof = deprecate_eof
        self.status: i64 = 2
        self.warnings: i64 = 0
        self.affected = 0  # these two may be larger than an i64
        self.insert_id = 0
        self.error_code: i64 = 0
        self.error = b""
        self.outcome: i64 = OK
        self.columns: i64 = 0
        self._tail = b""
        self._shape: i64 = QUERY
        self._state: i64 = _FIRST
        self._resume: i64 = _FIRST
        self._defs: i64 = 0
        self._skip: i64 = 0

    def start(self, shape: i64) -> None:
        """Expect the first packet of an answer of this shape."""
        self._shape = shape
        self._state = _DEFS if shape == FIELDS else _FIRST
        self._defs = -1 if shape == FIELDS else 0
        self._skip = 0
        self._tail = b""

    def scan(self, data: bytes, pos: i64) -> i64:
        """Walk on from `data[pos:]`. Returns the index just after the answer's last byte, or −1 when it goes on.

        Raises RemoteProtocolError for an answer that cannot be one.
        """
        shift: i64 = 0
        if self._tail:
            if len(self._tail) > _MAX_TAIL:
                raise RemoteProtocolError("an OK or ERR packet of more than 1 MiB")
            shift = len(self._tail) - pos
            data = self._tail + data[pos:]
            pos = 0
            self._tail = b""
        skip = self._skip
        n: i64 = len(data)
        if skip:
            if skip >= n - pos:
                self._skip = skip - (n - pos)
                return -1
            pos += skip
            self._skip = 0
        state = self._state
        defs = self._defs
        while n - pos >= 5 or (state == _CONT and n - pos >= 4):
            length: i64 = data[pos]
            middle: i64 = data[pos + 1]
            upper: i64 = data[pos + 2]
            length |= middle << 8 | upper << 16
            after = pos + 4 + length
            if length == 0 and state != _CONT:
                raise RemoteProtocolError("an empty packet in an answer")
            if state == _ROWS:
                first: i64 = data[pos + 4]
                if (first == 0xFE and (length < 9 or (self.deprecate_eof and length < 0xFFFFFF))) or first == 0xFF:
                    if after > n:
                        break
                    if self._terminal(data, pos, first, length):
                        return after - shift
                    state = _FIRST
                elif length == 0xFFFFFF:
                    self._resume, state = _ROWS, _CONT
            elif state == _DEFS:
                if defs > 0:
                    if after > n:
                        break
                    if data[pos + 4] == 0xFF:
                        self._terminal(data, pos, 0xFF, length)
                        return after - shift
                    defs -= 1
                    if defs == 0 and self.deprecate_eof:
                        self._definitions_done()
                        state, defs = self._state, self._defs
                        if state < 0:
                            return after - shift
                else:
                    end = self._definitions_end(data, pos, length, n)
                    if end == 0:
                        break
                    if end < 0:
                        return after - shift
                    state, defs = self._state, self._defs
            elif state == _CONT:
                if length < 0xFFFFFF:
                    state = self._resume
            else:
                if length == 0xFFFFFF:
                    raise RemoteProtocolError("an answer whose first packet goes on in a second one")
                if after > n:
                    break
                first = data[pos + 4]
                if self._first(data, pos, first, length):
                    return after - shift
                state, defs = self._state, self._defs
            pos = after
            if pos > n:
                self._skip = pos - n
                pos = n
                break
        self._state = state
        self._defs = defs
        if pos < n:
            self._tail = data[pos:]
        return -1

    def _first(self, data: bytes, pos: i64, first: i64, length: i64) -> bool:
        """The first packet of an answer. True when it is also the last."""
        if first == 0xFF:
            return self._terminal(data, pos, first, length)
        shape = self._shape
        if shape == SINGLE:
            if first == 0x00 or (first == 0xFE and length < 9):
                return self._terminal(data, pos, first, length)
            self.outcome = OK
            return True
        if shape == PREPARE:
            self.outcome = OK
            return self._prepare_blocks(_short(data, pos + 11), _short(data, pos + 9))
        if first == 0x00:
            if self._terminal(data, pos, first, length):
                return True
            self._state = _FIRST
            return False
        if first < 0xFB:
            self._defs = first
        elif first == 0xFC:
            self._defs = _short(data, pos + 5)
        else:
            raise RemoteProtocolError(f"an answer that starts with byte 0x{first:02x}")
        self.columns = self._defs
        self._resume = _ROWS
        self._state = _DEFS
        return False

    def _prepare_blocks(self, params: i64, columns: i64) -> bool:
        """Set up for the definition blocks of a PREPARE answer. True when there is none."""
        if params:
            self._state, self._defs, self.columns = _DEFS, params, columns
            return False
        if columns:
            self._state, self._defs, self.columns = _DEFS, columns, 0
            return False
        return True

    def _definitions_done(self) -> None:
        """A definition block ended: sets `_state` (−1 when the answer ends with it)."""
        if self._shape == PREPARE:
            if self.columns:
                self._state, self._defs, self.columns = _DEFS, self.columns, 0
            else:
                self._state = -1
        else:
            self._state, self._defs = _ROWS, 0

    def _definitions_end(self, data: bytes, pos: i64, length: i64, n: i64) -> i64:
        """The packet where an EOF after definitions is due. −1: answer ends; 0: incomplete; 1: goes on."""
        first: i64 = data[pos + 4]
        if self._shape == FIELDS:
            if (first == 0xFE or first == 0xFF) and length < 0xFFFFFF:
                if pos + 4 + length > n:
                    return 0
                self._terminal(data, pos, first, length)
                return -1
            self._state, self._defs = _DEFS, -1
            return 1
        if first == 0xFF:
            if pos + 4 + length > n:
                return 0
            self._terminal(data, pos, first, length)
            return -1
        if first != 0xFE or length >= 9:
            raise RemoteProtocolError("no EOF after the column definitions")
        if pos + 4 + length > n:
            return 0
        self._definitions_done()
        return -1 if self._state < 0 else 1

    def _terminal(self, data: bytes, pos: i64, first: i64, length: i64) -> bool:
        """Read OK, EOF or ERR at `pos`. True unless more result sets follow."""
        if first == 0xFF:
            if length < 3:
                raise RemoteProtocolError("an ERR packet without a code")
            self.outcome = ERR
            self.error_code = _short(data, pos + 5)
            self.error = data[pos + 4 : pos + 4 + length]
            self.warnings = 1
            return True
        if first == 0xFE and not self.deprecate_eof:
            self.outcome = ROWS
            if length >= 5:
                self.warnings = _short(data, pos + 5)
                self.status = _short(data, pos + 7)
        else:
            self.outcome = ROWS if first == 0xFE else OK
            affected = data[pos + 5]
            insert_id = data[pos + 6]
            at = pos + 7
            if affected >= 0xFB or insert_id >= 0xFB:
                affected, after = _lenenc(data, pos + 5)
                insert_id, after = _lenenc(data, after)
                at = after
            if at > pos + length:
                raise RemoteProtocolError("an OK packet cut short")
            self.affected = affected
            self.insert_id = insert_id
            self.status = _short(data, at)
            self.warnings = _short(data, at + 2)
        return not self.status & MORE_RESULTS


def _short(data: bytes, pos: i64) -> i64:
    """Two bytes, the lower first."""
    low: i64 = data[pos]
    high: i64 = data[pos + 1]
    return low | high << 8


def _lenenc(data: bytes, pos: int) -> tuple[int, int]:
    first = data[pos]
    if first < 0xFB:
        return first, pos + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if size is None:
        raise RemoteProtocolError("a length-encoded integer that starts with 0xfb or 0xff")
    return int.from_bytes(data[pos + 1 : pos + 1 + size], "little"), pos + 1 + size
