"""Integers and strings of the wire, and the three packets that end an answer: OK, ERR, EOF.

Source: MySQL's "Protocol Basics", checked against the servers where the manual and they differ (`parse_ok`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.constants import Status

OK_HEADER = 0x00
EOF_HEADER = 0xFE  # of an EOF packet, and of the OK packet that takes its place under Cap.DEPRECATE_EOF
ERR_HEADER = 0xFF
NULL_VALUE = 0xFB  # in a text row: the value is NULL

_OK_TAIL = struct.Struct("<HH")  # status, warnings
_EOF = struct.Struct("<BHH")  # header, warnings, status
_ERR = struct.Struct("<BH")  # header, code


# --- length-encoded integers and strings ---


def lenenc_int(value: int) -> bytes:
    """A length-encoded integer, 1, 3, 4 or 9 bytes. Raises LocalProtocolError outside 0 … 2**64-1."""
    if 0 <= value < 0xFB:
        return bytes((value,))
    if 0 < value < 1 << 16:
        return b"\xfc" + value.to_bytes(2, "little")
    if 0 < value < 1 << 24:
        return b"\xfd" + value.to_bytes(3, "little")
    if 0 < value < 1 << 64:
        return b"\xfe" + value.to_bytes(8, "little")
    raise LocalProtocolError(f"{value} does not fit a length-encoded integer")


def lenenc_str(value: bytes) -> bytes:
    """A length-encoded string."""
    return lenenc_int(len(value)) + value


def read_lenenc_int(data: bytes, at: int) -> tuple[int, int]:
    """The length-encoded integer at `at`, and the position after it.

    Raises RemoteProtocolError when it is cut off or starts with 0xFB (NULL) or 0xFF, which are not integers.
    """
    try:
        first = data[at]
    except IndexError:
        raise RemoteProtocolError(f"cut off at byte {at}: a length is missing") from None
    if first < 0xFB:
        return first, at + 1
    width = _LENENC_WIDTH.get(first)
    if width is None:
        raise RemoteProtocolError(f"0x{first:02x} at byte {at} does not start a length")
    end = at + 1 + width
    if end > len(data):
        raise RemoteProtocolError(f"cut off at byte {at}: a length is incomplete")
    return int.from_bytes(data[at + 1 : end], "little"), end


_LENENC_WIDTH = {0xFC: 2, 0xFD: 3, 0xFE: 8}


def read_lenenc_str(data: bytes, at: int) -> tuple[bytes, int]:
    """The length-encoded string at `at`, and the position after it. Raises RemoteProtocolError when cut off."""
    length, start = read_lenenc_int(data, at)
    end = start + length
    if end > len(data):
        raise RemoteProtocolError(f"cut off at byte {start}: {length} bytes announced, {len(data) - start} there")
    return data[start:end], end


class PayloadReader:
    """Reads a payload from left to right; every read checks the bounds and raises RemoteProtocolError."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.at

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        end = self.at + length
        if end > len(self.data):
            raise RemoteProtocolError(f"cut off at byte {self.at}: {length} bytes expected, {self.left} there")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def integer(self, width: int) -> int:
        """An unsigned little-endian integer of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def lenenc_int(self) -> int:
        """A length-encoded integer."""
        value, self.at = read_lenenc_int(self.data, self.at)
        return value

    def lenenc_str(self) -> bytes:
        """A length-encoded string."""
        value, self.at = read_lenenc_str(self.data, self.at)
        return value

    def null_str(self) -> bytes:
        """A string up to a NUL byte, which is read too."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise RemoteProtocolError(f"cut off at byte {self.at}: a string has no end")
        value = self.data[self.at : end]
        self.at = end + 1
        return value

    def rest(self) -> bytes:
        """Everything that is left."""
        value = self.data[self.at :]
        self.at = len(self.data)
        return value

    def expect_end(self, what: str) -> None:
        """Raises RemoteProtocolError when bytes are left over."""
        if self.left:
            raise RemoteProtocolError(f"{self.left} bytes too many in {what}")


def null_str(value: bytes, what: str) -> bytes:
    """`value` and a NUL byte. Raises LocalProtocolError when it holds one itself."""
    if b"\0" in value:
        raise LocalProtocolError(f"{what} contains a NUL byte")
    return value + b"\0"


# --- OK, ERR, EOF ---


@dataclass(frozen=True, slots=True)
class Ok:
    """An OK packet. `session_state` is the raw block of session changes (`parse_session_state`)."""

    affected: int
    insert_id: int
    status: int
    warnings: int
    info: bytes = b""
    session_state: bytes = b""


@dataclass(frozen=True, slots=True)
class Err:
    """An ERR packet. `sqlstate` is 5 characters ("HY000" when the server sent none), `message` raw bytes."""

    code: int
    sqlstate: str
    message: bytes

    @property
    def text(self) -> str:
        """The message as text; bytes that are not UTF-8 are replaced."""
        return self.message.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Eof:
    """An EOF packet."""

    warnings: int
    status: int


def build_ok(
    affected: int,
    insert_id: int,
    status: int,
    warnings: int,
    info: bytes = b"",
    header: int = OK_HEADER,
    session_state: bytes = b"",
) -> bytes:
    """Payload of an OK packet; `header` is OK_HEADER, or EOF_HEADER where it ends rows under Cap.DEPRECATE_EOF.

    `session_state` (only for a client with Cap.SESSION_TRACK) sets the status flag that announces it. Numbers are
    unsigned; warnings above 65535 are capped, as servers do.
    """
    if session_state:
        status |= Status.SESSION_STATE_CHANGED.value
    else:
        status &= ~Status.SESSION_STATE_CHANGED.value
    payload = (
        bytes((header,))
        + lenenc_int(affected)
        + lenenc_int(insert_id)
        + _OK_TAIL.pack(status & 0xFFFF, min(warnings, 0xFFFF))
    )
    if info or session_state:
        payload += lenenc_str(info)
    if session_state:
        payload += lenenc_str(session_state)
    return payload


def build_err(code: int, sqlstate: str, message: str | bytes) -> bytes:
    """Payload of an ERR packet. Raises LocalProtocolError when `sqlstate` is not 5 ASCII characters."""
    state = sqlstate.encode("ascii", "replace")
    if len(state) != 5:
        raise LocalProtocolError(f"SQLSTATE {sqlstate!r} is not 5 characters")
    text = message.encode("utf-8", "replace") if isinstance(message, str) else message
    return _ERR.pack(ERR_HEADER, code & 0xFFFF) + b"#" + state + text


def build_eof(status: int, warnings: int) -> bytes:
    """Payload of an EOF packet."""
    return _EOF.pack(EOF_HEADER, min(warnings, 0xFFFF), status & 0xFFFF)


def parse_ok(payload: bytes, session_track: bool = True) -> Ok:
    """An OK packet with header 0x00 or 0xFE; `session_track` says whether the connection has Cap.SESSION_TRACK.

    The manual says that without Cap.SESSION_TRACK `info` is the rest of the packet; MySQL and MariaDB send it
    length-encoded either way. What does not read as one length-encoded string to the end is taken as the rest.
    """
    if not payload or payload[0] not in (OK_HEADER, EOF_HEADER):
        raise RemoteProtocolError("not an OK packet")
    reader = PayloadReader(payload, 1)
    affected = reader.lenenc_int()
    insert_id = reader.lenenc_int()
    status = reader.integer(2)
    warnings = reader.integer(2)
    info = session_state = b""
    if reader.left:
        if session_track and status & Status.SESSION_STATE_CHANGED.value:
            info = reader.lenenc_str()
            session_state = reader.lenenc_str()
            reader.expect_end("an OK packet")
        else:
            info = _whole_lenenc_str(payload, reader.at)
    return Ok(affected, insert_id, status, warnings, info, session_state)


def _whole_lenenc_str(payload: bytes, at: int) -> bytes:
    try:
        value, end = read_lenenc_str(payload, at)
    except RemoteProtocolError:
        return payload[at:]
    return value if end == len(payload) else payload[at:]


def parse_err(payload: bytes) -> Err:
    """An ERR packet, with or without SQLSTATE (servers send none before they know the client)."""
    if len(payload) < _ERR.size or payload[0] != ERR_HEADER:
        raise RemoteProtocolError("not an ERR packet")
    code = payload[1] | payload[2] << 8
    if len(payload) >= 9 and payload[3] == 0x23 and payload[4:9].isalnum():
        return Err(code, payload[4:9].decode("ascii"), payload[9:])
    return Err(code, "HY000", payload[3:])


def parse_eof(payload: bytes) -> Eof:
    """An EOF packet (5 bytes)."""
    if len(payload) != _EOF.size or payload[0] != EOF_HEADER:
        raise RemoteProtocolError("not an EOF packet")
    _, warnings, status = _EOF.unpack(payload)
    return Eof(warnings, status)


# --- session changes inside an OK packet ---

TRACK_SYSTEM_VARIABLE = 0
TRACK_SCHEMA = 1
TRACK_STATE_CHANGE = 2
TRACK_GTIDS = 3
TRACK_TRANSACTION_CHARACTERISTICS = 4
TRACK_TRANSACTION_STATE = 5


def parse_session_state(block: bytes) -> list[tuple[int, bytes]]:
    """The changes in `Ok.session_state`: pairs of TRACK_… type and that type's own data, in order of the packet."""
    reader = PayloadReader(block)
    changes = []
    while reader.left:
        kind = reader.integer(1)
        changes.append((kind, reader.lenenc_str()))
    return changes


def parse_tracked_strings(data: bytes) -> list[bytes]:
    """The strings of one change: name and value of each system variable (alternating), or one schema name."""
    reader = PayloadReader(data)
    strings = []
    while reader.left:
        strings.append(reader.lenenc_str())
    return strings


def build_session_state(changes: list[tuple[int, bytes]]) -> bytes:
    """The block that `parse_session_state` reads."""
    return b"".join(bytes((kind,)) + lenenc_str(data) for kind, data in changes)
