"""Sort keys as bytes whose order is the servers' order of the values.

Each value of a key becomes bytes such that comparing the bytes compares the values, and no value's bytes are the
beginning of another's: so the keys of several columns are put one after the other, and one comparison of bytes decides.
NULL comes first. For DESC all bits are inverted.

Values come as they stand in rows, text or binary protocol. Text is compared by the weights that the server gives
(WEIGHT_STRING), never here.
"""

from __future__ import annotations

import struct

from shardproxy.errors import BackendError, RemoteProtocolError

# How a value is read and compared.
INTEGER = 0  # text: digits, perhaps a minus; binary: 1, 2, 4 or 8 bytes
DECIMAL = 1  # digits, a point
DOUBLE = 2
MOMENT = 3  # DATE, DATETIME, YEAR: text of one fixed form
DURATION = 4  # TIME
BYTES = 5  # byte by byte: binary strings, weights of collations without padding
PADDED = 6  # weights of collations that compare as if padded with blanks
CONSTANT = 7  # always NULL

SEGMENT = 24  # bytes: a multiple of the length of any blank's weight (1, 2, 3, 4)
MOST_SORTED = 1024  # max_sort_length: what servers look at of a value when they sort
INVERT = bytes(255 - i for i in range(256))

_NULL = b"\x00"
_NEGATIVE = b"\x01"
_VALUE = b"\x02"
_DOUBLE = struct.Struct("<d")
_SIGN = 1 << 63


def integer_text(value: bytes) -> bytes:
    """A canonical integer as text: longer is larger, equal lengths compare digit by digit."""
    if value[0] == 0x2D:
        return _NEGATIVE + (bytes((len(value) - 1,)) + value[1:]).translate(INVERT)
    return _VALUE + bytes((len(value),)) + value


def integer_binary(value: bytes, signed: bool) -> bytes:
    """A little-endian integer; signed and unsigned ones do not meet in one column."""
    return _VALUE + (int.from_bytes(value, "little", signed=signed) + _SIGN).to_bytes(9, "big")


def decimal(value: bytes) -> bytes:
    """A decimal as text, of any number of digits after the point."""
    negative = value[0] == 0x2D
    whole, _, fraction = (value[1:] if negative else value).partition(b".")
    whole = whole.lstrip(b"0")
    fraction = fraction.rstrip(b"0")
    magnitude = bytes((len(whole),)) + whole + fraction + b"\x00"
    if negative and len(magnitude) > 2:
        return _NEGATIVE + magnitude.translate(INVERT)
    return _VALUE + magnitude


def double_bits(value: float) -> bytes:
    """A double: its bits, those of negative ones inverted; −0 is 0."""
    bits = int.from_bytes(_DOUBLE.pack(value + 0.0), "little")
    if bits & _SIGN:
        return _NEGATIVE + (bits ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
    return _VALUE + bits.to_bytes(8, "big")


def moment_text(value: bytes) -> bytes:
    """A date or time of day as text: all of a column have one form and length."""
    return _VALUE + value + b"\x00"


def moment_binary(value: bytes) -> bytes:
    """The fields of a binary DATE, DATETIME: year (2 bytes), month, day, hour, minute, second, microseconds (4)."""
    whole = value + bytes(11 - len(value))
    return _VALUE + whole[1::-1] + whole[2:7] + whole[:6:-1]


def duration_text(value: bytes) -> bytes:
    """[-]hhh:mm:ss[.ffffff]; hours have two digits or three."""
    return integer_text(value)


def duration_binary(value: bytes) -> bytes:
    """The fields of a binary TIME: sign, days (4 bytes), hour, minute, second, microseconds (4)."""
    whole = value + bytes(12 - len(value))
    magnitude = whole[4:0:-1] + whole[5:8] + whole[:7:-1]
    if whole[0]:
        return _NEGATIVE + magnitude.translate(INVERT)
    return _VALUE + magnitude


def raw(value: bytes) -> bytes:
    """Bytes; the end is 0 0, and a 0 within is followed by ff."""
    return _VALUE + value.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def padded(weights: bytes, blank: bytes) -> bytes:
    """Weights of a collation with padding, `blank` the weight of one blank.

    Cut into segments of equal length; after each a byte says whether what follows it is less than blanks (1), nothing
    but blanks (2, the end) or more (3). (MyRocks stores such keys the same way.)
    """
    unit = len(blank)
    if not unit or len(weights) % unit or SEGMENT % unit:
        raise BackendError("the server's weights of a text are of a form that is not known here")
    end = len(weights)
    while end and weights[end - unit : end] == blank:
        end -= unit
    blanks = blank * (SEGMENT // unit)
    if end <= SEGMENT:
        return _VALUE + weights[:end] + blanks[end:] + b"\x02"
    starts = range(0, end, SEGMENT)
    pieces: list[bytes] = []
    mark = b"\x02"
    for start in reversed(starts):
        segment = weights[start : min(start + SEGMENT, end)]
        segment += blanks[len(segment) :]
        pieces.append(mark)
        pieces.append(segment)
        if segment > blanks:
            mark = b"\x03"
        elif segment < blanks:
            mark = b"\x01"
    pieces.append(_VALUE)
    pieces.reverse()
    return b"".join(pieces)


def double_text(value: bytes) -> bytes:
    """A DOUBLE as servers print it: with as many digits as tell it from its neighbours."""
    return double_bits(float(value))


def double_binary(value: bytes) -> bytes:
    """Eight bytes, little-endian."""
    if len(value) != 8:
        raise RemoteProtocolError("a DOUBLE that has not 8 bytes")
    return double_bits(_DOUBLE.unpack(value)[0])


class KeyPart:
    """How one key value is read: kind; binary: from the binary protocol; signed: of integers; blank: of PADDED;
    most: weights beyond so many bytes are not looked at, as the servers do when they sort (0: all are); whole: then a
    longer one is an error, because equal keys must mean equal values.

    columns: hidden columns that belong to it; used: which of them holds the value."""

    __slots__ = ("binary", "blank", "columns", "descending", "kind", "most", "signed", "used", "whole")

    def __init__(self, kind: int, descending: bool, binary: bool, signed: bool = True) -> None:
        self.kind = kind
        self.descending = descending
        self.binary = binary
        self.signed = signed
        self.blank = b""
        self.most = 0
        self.columns = 1
        self.used = 0
        self.whole = False

    def encode(self, value: bytes | None) -> bytes:
        """The value's bytes in a key."""
        if value is None:
            return b"\xff" if self.descending else _NULL
        key = self._encode(value)
        return key.translate(INVERT) if self.descending else key

    def end(self, key: bytes, at: int) -> int:
        """Where the bytes of this value end that begin at `at` of a key."""
        rest = key[at:].translate(INVERT) if self.descending else key
        start = 0 if self.descending else at
        return at + self._length(rest, start)

    def _length(self, key: bytes, at: int) -> int:
        kind = self.kind
        tag = key[at]
        if not tag or kind == CONSTANT:
            return 1
        if kind == DOUBLE:
            return 9
        if kind == INTEGER and self.binary:
            return 10
        if kind == MOMENT:
            return 12 if self.binary else key.index(b"\x00", at + 1) + 1 - at
        if kind == DURATION and self.binary:
            return 12
        if kind in (INTEGER, DURATION):
            digits = key[at + 1]
            return 2 + (digits if tag == 2 else 255 - digits)
        if kind == DECIMAL:
            if tag == 2:
                return key.index(b"\x00", at + 2 + key[at + 1]) + 1 - at
            return key.index(b"\xff", at + 257 - key[at + 1]) + 1 - at
        if kind == PADDED:
            end = at + 1 + SEGMENT
            while key[end] != 2:
                end += SEGMENT + 1
            return end + 1 - at
        end = key.index(b"\x00", at + 1)
        while key[end + 1] == 0xFF:
            end = key.index(b"\x00", end + 2)
        return end + 2 - at

    def _encode(self, value: bytes) -> bytes:
        kind = self.kind
        binary = self.binary
        if kind == INTEGER:
            return integer_binary(value, self.signed) if binary else integer_text(value)
        if kind == PADDED:
            return padded(self._sorted(value), self.blank)
        if kind == BYTES:
            return raw(self._sorted(value))
        if kind == DECIMAL:
            return decimal(value)
        if kind == DOUBLE:
            return double_binary(value) if binary else double_text(value)
        if kind == MOMENT:
            return moment_binary(value) if binary else moment_text(value)
        if kind == DURATION:
            return duration_binary(value) if binary else duration_text(value)
        return _VALUE

    def _sorted(self, value: bytes) -> bytes:
        """What servers look at of it when they sort."""
        if not self.most or len(value) <= self.most:
            return value
        if self.whole:
            raise BackendError(
                f"a value of more than {self.most} bytes to group or tell apart by: servers sort by the first ones "
                "only, so the shards' rows cannot be merged"
            )
        return value[: self.most]
