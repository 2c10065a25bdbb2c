"""Values in binary form, as in rows of prepared statements and in bound parameters.

    integers             1, 2, 4 or 8 bytes, signed or unsigned by the column or parameter
    FLOAT, DOUBLE        IEEE 754, 4 or 8 bytes
    DATE … TIMESTAMP     length 0, 4, 7 or 11: year 2, month, day, hour, minute, second, microseconds 4 → DateTime
    TIME                 length 0, 8 or 12: negative 1, days 4, hours, minutes, seconds, microseconds 4 → Time
    DECIMAL              length-encoded digits → Decimal
    everything else      length-encoded bytes

Fields are not checked for range: servers store zero dates, and refuse the rest themselves.
"""

from __future__ import annotations

import re
import struct
from decimal import Decimal
from typing import NamedTuple

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.packets import lenenc_str, read_lenenc_int, read_lenenc_str


class DateTime(NamedTuple):
    """A DATE, DATETIME or TIMESTAMP; zero dates included, so it is not a datetime."""

    year: int = 0
    month: int = 0
    day: int = 0
    hour: int = 0
    minute: int = 0
    second: int = 0
    microsecond: int = 0


class Time(NamedTuple):
    """A TIME: an interval with a sign. `hours` < 24 when a server sends it; `days` makes up the rest."""

    negative: bool = False
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: int = 0
    microseconds: int = 0


Value = int | float | bytes | Decimal | DateTime | Time | None

_INTEGERS = {
    FieldType.TINY.value: 1,
    FieldType.SHORT.value: 2,
    FieldType.YEAR.value: 2,
    FieldType.LONG.value: 4,
    FieldType.INT24.value: 4,
    FieldType.LONGLONG.value: 8,
}
_FLOATS = {FieldType.FLOAT.value: struct.Struct("<f"), FieldType.DOUBLE.value: struct.Struct("<d")}
_DATES = {FieldType.DATE.value, FieldType.DATETIME.value, FieldType.TIMESTAMP.value, FieldType.NEWDATE.value}
_TIME = FieldType.TIME.value
_DECIMALS = {FieldType.DECIMAL.value, FieldType.NEWDECIMAL.value}
_STRINGS = {
    member.value
    for member in (
        FieldType.VARCHAR,
        FieldType.BIT,
        FieldType.VECTOR,
        FieldType.JSON,
        FieldType.ENUM,
        FieldType.SET,
        FieldType.TINY_BLOB,
        FieldType.MEDIUM_BLOB,
        FieldType.LONG_BLOB,
        FieldType.BLOB,
        FieldType.VAR_STRING,
        FieldType.STRING,
        FieldType.GEOMETRY,
    )
}

_LENENC = -1
_SHORT_LENGTH = -2
_UNKNOWN = -3


def _layout_of(field_type: int) -> int:
    if field_type in _INTEGERS:
        return _INTEGERS[field_type]
    if field_type in _FLOATS:
        return _FLOATS[field_type].size
    if field_type == FieldType.NULL.value:
        return 0
    if field_type in _DATES or field_type == _TIME:
        return _SHORT_LENGTH
    return _LENENC if field_type in _STRINGS or field_type in _DECIMALS else _UNKNOWN


_LAYOUT = tuple(map(_layout_of, range(256)))  # type → bytes of a value, or how its length is written
INTEGER_WIDTH = tuple(_INTEGERS.get(field_type, 0) for field_type in range(256))  # type → bytes, 0: not an integer

_DATE_FORMS = {
    0: struct.Struct("<"),
    4: struct.Struct("<HBB"),
    7: struct.Struct("<HBBBBB"),
    11: struct.Struct("<HBBBBBI"),
}
_TIME_FORMS = {0: struct.Struct("<"), 8: struct.Struct("<BIBBB"), 12: struct.Struct("<BIBBBI")}
_DECIMAL = re.compile(rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,6})?")
_MAX_DECIMAL = 400  # characters; a DECIMAL has at most 65 digits, a DOUBLE written out some 310


def skip_value(payload: bytes, at: int, field_type: int) -> int:
    """The position after the value at `at`. Raises RemoteProtocolError when cut off or of an unknown type."""
    layout = _LAYOUT[field_type]
    if layout >= 0:
        end = at + layout
    elif layout == _LENENC:
        length, start = read_lenenc_int(payload, at)
        end = start + length
    elif layout == _SHORT_LENGTH:
        end = at + 1 + payload[at] if at < len(payload) else at + 1
    else:
        raise RemoteProtocolError(f"unknown type {field_type} of a value")
    if end > len(payload):
        raise RemoteProtocolError(f"cut off at byte {at}: a value of type {field_type} is incomplete")
    return end


def read_value(payload: bytes, at: int, field_type: int, unsigned: bool) -> tuple[Value, int]:
    """The value at `at`, and the position after it. Raises RemoteProtocolError when it cannot be read."""
    end = skip_value(payload, at, field_type)
    layout = _LAYOUT[field_type]
    if layout == _LENENC:
        text, _ = read_lenenc_str(payload, at)
        return (_decimal(text) if field_type in _DECIMALS else text), end
    if layout == _SHORT_LENGTH:
        return _temporal(payload[at + 1 : end], field_type), end
    if layout == 0:
        return None, end
    if number := _FLOATS.get(field_type):
        return float(number.unpack_from(payload, at)[0]), end
    return int.from_bytes(payload[at:end], "little", signed=not unsigned), end


def _decimal(text: bytes) -> Decimal:
    if len(text) > _MAX_DECIMAL or not _DECIMAL.fullmatch(text):
        raise RemoteProtocolError("a DECIMAL value that is not a decimal number")
    return Decimal(text.decode("ascii"))


def _temporal(data: bytes, field_type: int) -> DateTime | Time:
    form = (_TIME_FORMS if field_type == _TIME else _DATE_FORMS).get(len(data))
    if form is None:
        raise RemoteProtocolError(f"a date or time of {len(data)} bytes")
    fields = form.unpack(data)
    if field_type != _TIME:
        return DateTime(*fields)
    return Time(bool(fields[0]), *fields[1:]) if fields else Time()


def build_value(value: Value, field_type: int, unsigned: bool) -> bytes:
    """The binary form of a value that is not None. Raises LocalProtocolError when type and value do not fit."""
    try:
        return _build(value, field_type, unsigned)
    except (struct.error, OverflowError) as error:
        raise LocalProtocolError(f"value does not fit type {field_type}: {error}") from None


def _build(value: Value, field_type: int, unsigned: bool) -> bytes:
    if isinstance(value, DateTime) and field_type in _DATES:
        if not any(value):
            return b"\0"
        length = 11 if value.microsecond else 7 if any(value[3:]) else 4
        return bytes((length,)) + _DATE_FORMS[length].pack(*value[: {4: 3, 7: 6, 11: 7}[length]])
    if isinstance(value, Time) and field_type == _TIME:
        if not any(value):
            return b"\0"
        length = 12 if value.microseconds else 8
        return bytes((length,)) + _TIME_FORMS[length].pack(*value[: {8: 5, 12: 6}[length]])
    if isinstance(value, Decimal) and field_type in _DECIMALS and value.is_finite():
        return lenenc_str(format(value, "f").encode("ascii"))
    if isinstance(value, bytes) and field_type in _STRINGS:
        return lenenc_str(value)
    if isinstance(value, int) and field_type in _INTEGERS:
        return value.to_bytes(_INTEGERS[field_type], "little", signed=not unsigned)
    if isinstance(value, int | float) and field_type in _FLOATS:
        return _FLOATS[field_type].pack(value)
    raise LocalProtocolError(f"a {type(value).__name__} cannot be sent as type {field_type}")
