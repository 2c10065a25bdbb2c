from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.values import (
    INTEGER_WIDTH,
    DateTime,
    Time,
    Value,
    build_value,
    read_value,
    skip_value,
)

from .strategies import Typed, same_value, typed_values


@given(typed_values)
def test_round_trip(typed: Typed) -> None:
    field_type, unsigned, value = typed
    wire = build_value(value, field_type, unsigned)
    got, end = read_value(b"??" + wire + b"!", 2, field_type, unsigned)
    assert same_value(got, value)
    assert end == 2 + len(wire)
    assert skip_value(wire, 0, field_type) == len(wire)


@given(typed_values)
def test_cut_off(typed: Typed) -> None:
    field_type, unsigned, value = typed
    wire = build_value(value, field_type, unsigned)
    for length in {0, len(wire) // 2, len(wire) - 1}:
        with pytest.raises(RemoteProtocolError):
            read_value(wire[:length], 0, field_type, unsigned)
        with pytest.raises(RemoteProtocolError):
            skip_value(wire[:length], 0, field_type)


@pytest.mark.parametrize(
    ("value", "field_type", "wire"),
    [
        (DateTime(), FieldType.DATETIME, b"\0"),
        (DateTime(2026, 11, 22), FieldType.DATE, b"\x04\xea\x07\x0b\x16"),
        (DateTime(2026, 11, 22, 0, 0, 1), FieldType.DATETIME, b"\x07\xea\x07\x0b\x16\0\0\x01"),
        (DateTime(2026, 11, 22, 1, 2, 3, 4), FieldType.TIMESTAMP, b"\x0b\xea\x07\x0b\x16\1\2\3\4\0\0\0"),
        (Time(), FieldType.TIME, b"\0"),
        (Time(True, 4, 5, 6, 7), FieldType.TIME, b"\x08\x01\4\0\0\0\5\6\7"),
        (Time(False, 4, 5, 6, 7, 8), FieldType.TIME, b"\x0c\x00\4\0\0\0\5\6\7\x08\0\0\0"),
        (Decimal("-1.50"), FieldType.NEWDECIMAL, b"\x05-1.50"),
        (Decimal("1E+3"), FieldType.NEWDECIMAL, b"\x041000"),
        (-1, FieldType.TINY, b"\xff"),
        (-2, FieldType.INT24, b"\xfe\xff\xff\xff"),
        (2026, FieldType.YEAR, b"\xea\x07"),
        (1.5, FieldType.FLOAT, b"\0\0\xc0\x3f"),
        (2, FieldType.DOUBLE, b"\0\0\0\0\0\0\0\x40"),
        (b"abc", FieldType.BLOB, b"\3abc"),
    ],
)
def test_known_forms(value: Value, field_type: FieldType, wire: bytes) -> None:
    assert build_value(value, field_type.value, False) == wire
    assert read_value(wire, 0, field_type.value, False) == (value, len(wire))


def test_unsigned_integers() -> None:
    assert read_value(b"\xff", 0, FieldType.TINY.value, True) == (255, 1)
    assert build_value(2**64 - 1, FieldType.LONGLONG.value, True) == b"\xff" * 8


def test_null_type_takes_no_bytes() -> None:
    assert read_value(b"", 0, FieldType.NULL.value, False) == (None, 0)


def test_nan_and_infinity_are_read() -> None:
    value, _ = read_value(b"\0\0\0\0\0\0\xf8\x7f", 0, FieldType.DOUBLE.value, False)
    assert isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 8, 10, 12, 13, 200, 255])
def test_dates_of_other_lengths(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"date or time of {length} bytes"):
        read_value(bytes((length,)) + bytes(255), 0, FieldType.DATETIME.value, False)


@pytest.mark.parametrize("length", [1, 4, 7, 9, 11, 13, 255])
def test_times_of_other_lengths(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"date or time of {length} bytes"):
        read_value(bytes((length,)) + bytes(255), 0, FieldType.TIME.value, False)


@pytest.mark.parametrize(
    "text", [b"", b"abc", b"1.2.3", b"NaN", b"Infinity", b"--1", b" 1", b"1_0", "٣".encode(), b"1e"]
)
def test_decimals_that_are_none(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a decimal number"):
        read_value(bytes((len(text),)) + text, 0, FieldType.NEWDECIMAL.value, False)


@pytest.mark.parametrize(
    ("text", "value"), [(b"+1", "1"), (b"1.", "1"), (b".5", "0.5"), (b"1e3", "1000"), (b"-0", "0")]
)
def test_decimals_in_other_spellings(text: bytes, value: str) -> None:
    got, _ = read_value(bytes((len(text),)) + text, 0, FieldType.DECIMAL.value, False)
    assert got == Decimal(value)


def test_overlong_decimal() -> None:
    wire = b"\xfc\x91\x01" + b"1" * 401
    with pytest.raises(RemoteProtocolError, match="not a decimal number"):
        read_value(wire, 0, FieldType.NEWDECIMAL.value, False)


@pytest.mark.parametrize("field_type", [0x11, 0x14, 0x80, 0xF0, 0xF3])
def test_unknown_types(field_type: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"unknown type {field_type}"):
        skip_value(bytes(20), 0, field_type)
    with pytest.raises(LocalProtocolError):
        build_value(1, field_type, False)


@pytest.mark.parametrize(
    ("value", "field_type", "unsigned"),
    [
        (256, FieldType.TINY, True),
        (-1, FieldType.TINY, True),
        (128, FieldType.TINY, False),
        (2**64, FieldType.LONGLONG, True),
        (1e300, FieldType.FLOAT, False),
        (10**400, FieldType.DOUBLE, False),
        (b"1", FieldType.LONG, False),
        (1, FieldType.BLOB, False),
        (1, FieldType.NEWDECIMAL, False),
        (Decimal("NaN"), FieldType.NEWDECIMAL, False),
        (Decimal("Infinity"), FieldType.NEWDECIMAL, False),
        (DateTime(1), FieldType.TIME, False),
        (Time(True), FieldType.DATETIME, False),
        (DateTime(2026, 300), FieldType.DATE, False),
        (None, FieldType.LONG, False),
    ],
)
def test_values_that_do_not_fit(value: Value, field_type: FieldType, unsigned: bool) -> None:
    with pytest.raises(LocalProtocolError):
        build_value(value, field_type.value, unsigned)


def test_integer_widths() -> None:
    assert [INTEGER_WIDTH[kind] for kind in (FieldType.TINY, FieldType.SHORT, FieldType.LONG, FieldType.LONGLONG)] == [
        1,
        2,
        4,
        8,
    ]
    assert INTEGER_WIDTH[FieldType.DOUBLE] == INTEGER_WIDTH[FieldType.VAR_STRING] == INTEGER_WIDTH[FieldType.NULL] == 0
