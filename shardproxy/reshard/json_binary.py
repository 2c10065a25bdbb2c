"""MySQL's binary JSON, as it stands in row events, to the text that a SELECT gives. Pure.

Source: MySQL's json_binary.h. The text is the server's own but for numbers with a fraction, which may have another
form of the same value.
"""

from __future__ import annotations

import base64
import re
import struct

from shardproxy.reshard.temporal import date_text, decimal_text, packed_datetime_text, packed_time_text

_ESCAPED = re.compile(rb'["\\\x00-\x1f]')
_NAMED = {
    b'"': b'\\"', b"\\": b"\\\\", b"\b": b"\\b", b"\f": b"\\f", b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t",
}  # fmt: skip
_LITERALS = {0: b"null", 1: b"true", 2: b"false"}
_FIXED = {5: "<h", 6: "<H", 7: "<i", 8: "<I", 9: "<q", 10: "<Q"}
_DECIMAL, _DATE, _TIME, _DATETIME, _TIMESTAMP = 246, 10, 11, 12, 7


def json_text(data: bytes) -> bytes:
    """The document as text. Raises ValueError, struct.error or IndexError when it is not one."""
    if not data:
        return b"null"
    return _value(data[0], data, 1)


def _value(kind: int, data: bytes, at: int) -> bytes:
    if kind <= 3:
        return _container(kind, data, at)
    if kind == 4:
        return _LITERALS[data[at]]
    if kind in _FIXED:
        return b"%d" % struct.unpack_from(_FIXED[kind], data, at)[0]
    if kind == 11:
        return repr(struct.unpack_from("<d", data, at)[0]).encode()
    if kind == 12:
        length, at = _length(data, at)
        return quoted(data[at : at + length])
    if kind == 15:
        length, start = _length(data, at + 1)
        return _opaque(data[at], data[start : start + length])
    raise ValueError(f"type {kind} is not known in a JSON document")


def _container(kind: int, data: bytes, base: int) -> bytes:
    large = kind in (1, 3)
    width, number = (4, "<I") if large else (2, "<H")
    [count] = struct.unpack_from(number, data, base)
    at = base + 2 * width
    names = []
    if kind <= 1:
        for _ in range(count):
            [offset] = struct.unpack_from(number, data, at)
            [length] = struct.unpack_from("<H", data, at + width)
            names.append(quoted(data[base + offset : base + offset + length]))
            at += width + 2
    values = []
    for _ in range(count):
        inner = data[at]
        if inner in (4, 5, 6) or (large and inner in (7, 8)):
            values.append(_value(inner, data, at + 1))
        else:
            [offset] = struct.unpack_from(number, data, at + 1)
            values.append(_value(inner, data, base + offset))
        at += 1 + width
    if kind <= 1:
        return b"{" + b", ".join(b"%s: %s" % pair for pair in zip(names, values, strict=True)) + b"}"
    return b"[" + b", ".join(values) + b"]"


def _length(data: bytes, at: int) -> tuple[int, int]:
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length, at
        shift += 7


def _opaque(kind: int, data: bytes) -> bytes:
    if kind == _DECIMAL:
        return decimal_text(data, 2, data[0], data[1])[0]
    if kind in (_DATE, _TIME, _DATETIME, _TIMESTAMP):
        [packed] = struct.unpack("<q", data)
        if kind == _TIME:
            return b'"' + packed_time_text(packed) + b'"'
        if kind == _DATE:
            ymd = packed >> 41
            return b'"' + date_text(ymd >> 5, ymd & 31) + b'"'
        return b'"' + packed_datetime_text(packed) + b'"'
    return b'"base64:type%d:%s"' % (kind, base64.b64encode(data))


def quoted(text: bytes) -> bytes:
    """A JSON string of UTF-8."""
    return b'"' + _ESCAPED.sub(_escape, text) + b'"'


def _escape(match: re.Match[bytes]) -> bytes:
    char = match.group()
    return _NAMED.get(char) or b"\\u%04x" % char[0]
