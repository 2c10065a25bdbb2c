from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.key_values import UNROUTABLE, key_value
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyType

PLAIN = SqlModes()


def value(raw: bytes, key_type: KeyType, negative: bool = False, modes: SqlModes = PLAIN) -> object:
    return key_value(raw, negative, key_type, modes)


@pytest.mark.parametrize(
    ("raw", "negative", "expected"),
    [
        (b"5", False, 5),
        (b"5", True, -5),
        (b"007", False, 7),
        (b"18446744073709551615", False, 2**64 - 1),
        (b"'5'", False, 5),
        (b"'-5'", False, -5),
        (b"'0'", False, 0),
        (b"'123456789012345'", False, 123456789012345),
    ],
)
def test_integers(raw: bytes, negative: bool, expected: int) -> None:
    assert value(raw, KeyType.INT, negative) == expected


@pytest.mark.parametrize(
    "raw",
    [b"5.0", b"5e0", b".5", b"0x05", b"x'05'", b"b'101'", b"N'5'", b"'05'", b"' 5'", b"'5 '", b"'5.0'", b"'-0'",
     b"'+5'", b"'abc'", b"''", b"'1234567890123456'", b"?", b"9" * 50, "'５'".encode()],
)  # fmt: skip
def test_what_may_equal_other_integers_is_unroutable(raw: bytes) -> None:
    assert value(raw, KeyType.INT) is UNROUTABLE


def test_a_minus_before_a_string_is_unroutable() -> None:
    assert value(b"'5'", KeyType.INT, negative=True) is UNROUTABLE
    assert value(b"'a'", KeyType.TEXT, negative=True) is UNROUTABLE


@given(st.integers(-(2**63), 2**64 - 1))
def test_every_integer_comes_back(number: int) -> None:
    assert value(b"%d" % abs(number), KeyType.INT, negative=number < 0) == number


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"'abc'", b"abc"),
        (b"'abc  '", b"abc"),
        (b"' abc'", b" abc"),
        (b"''", b""),
        (b"'a''b'", b"a'b"),
        ("'zoë'".encode(), "zoë".encode()),
        (rb"'a\tb'", b"a\tb"),
    ],
)
def test_text_is_canonical(raw: bytes, expected: bytes) -> None:
    assert value(raw, KeyType.TEXT) == expected


@pytest.mark.parametrize("raw", [b"5", b"x'41'", b"0x41", b"N'a'", b"?", b"'\xff'", b"1e5"])
def test_what_is_not_plain_text_is_unroutable(raw: bytes) -> None:
    assert value(raw, KeyType.TEXT) is UNROUTABLE


def test_single_byte_charsets_route_ascii_only() -> None:
    modes = SqlModes(single_byte=True)
    assert value(b"'abc'", KeyType.TEXT, modes=modes) == b"abc"
    assert value("'é'".encode(), KeyType.TEXT, modes=modes) is UNROUTABLE


def test_under_utf8mb3_characters_of_four_bytes_route_nowhere() -> None:
    modes = SqlModes(three_bytes=True)
    assert value("'é€'".encode(), KeyType.TEXT, modes=modes) == "é€".encode()
    assert value("'é\N{GRINNING FACE}'".encode(), KeyType.TEXT, modes=modes) is UNROUTABLE
    assert value("'é\N{GRINNING FACE}'".encode(), KeyType.TEXT) == "é\N{GRINNING FACE}".encode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"x'4142'", b"AB"),
        (b"X'4142'", b"AB"),
        (b"0x4142", b"AB"),
        (b"0x142", b"\x01B"),
        (b"x''", b""),
        (b"'AB '", b"AB "),
    ],
)
def test_binary_is_raw(raw: bytes, expected: bytes) -> None:
    assert value(raw, KeyType.BINARY) == expected


@pytest.mark.parametrize("raw", [b"5", b"x'4'", b"x'zz'", "'é'".encode(), b"N'a'", b"b'01'", b"?"])
def test_what_is_not_plain_binary_is_unroutable(raw: bytes) -> None:
    assert value(raw, KeyType.BINARY) is UNROUTABLE
