from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.sql.literals import string_value
from shardproxy.sql.modes import SqlModes

PLAIN = SqlModes()


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"'abc'", b"abc"),
        (b'"abc"', b"abc"),
        (b"''", b""),
        (b"'a''b\"\"'", b'a\'b""'),
        (b'"a""b\'\'"', b"a\"b''"),
        (rb"'\0\b\n\r\t\Z\\\'\"'", b"\0\b\n\r\t\x1a\\'\""),
        (rb"'\%\_\x\q'", rb"\%\_xq"),
        (rb"'\'''", b"''"),
        ("'é'".encode(), "é".encode()),
    ],
)
def test_strings_are_decoded(raw: bytes, value: bytes) -> None:
    assert string_value(raw, PLAIN) == value


def test_without_backslash_escapes() -> None:
    assert string_value(rb"'a\n''b'", SqlModes(no_backslash_escapes=True)) == rb"a\n'b"


@pytest.mark.parametrize("raw", [b"5", b"x'41'", b"N'a'", b"b'01'", b"0x41", b"?", b"'", b""])
def test_other_literals_are_no_plain_strings(raw: bytes) -> None:
    assert string_value(raw, PLAIN) is None


@given(st.binary(max_size=30))
def test_what_is_escaped_comes_back(value: bytes) -> None:
    escaped = value.replace(b"\\", rb"\\").replace(b"'", rb"\'")
    assert string_value(b"'" + escaped + b"'", PLAIN) == value
    doubled = value.replace(b"'", b"''")
    assert string_value(b"'" + doubled + b"'", SqlModes(no_backslash_escapes=True)) == value
