"""From a literal as written to the key value that MySQL would compare or store, or a refusal to say.

A value comes back only when every row that MySQL could find with the literal has exactly that key value, and a row
stored from it has it too. UNROUTABLE is never wrong: the router then asks all shards, or refuses.

Text is taken to be UTF-8; under a single-byte character set (SqlModes.single_byte) a text that is not plain ASCII is
UNROUTABLE, under utf8mb3 (SqlModes.three_bytes) one with characters of four bytes: servers make ? of them, or
????. A caller that must know whether a text or binary key is ASCII asks `value.isascii()`.
"""

from __future__ import annotations

import re
from enum import Enum

from shardproxy.sql.literals import string_value
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyType, KeyValue, canonical_text, has_four_bytes


class NoValue(Enum):
    """Why a literal gives no key value."""

    NULL = "NULL"  # matches no key
    UNROUTABLE = "unroutable"  # may match any key


NULLVALUE = NoValue.NULL
UNROUTABLE = NoValue.UNROUTABLE

# A string of up to 15 digits is compared with an integer column through a double without loss.
_INTEGER_TEXT = re.compile(rb"-?[1-9][0-9]{0,14}|0").fullmatch
_LONGEST_INTEGER = 40  # digits; BIGINT UNSIGNED has 20, leading zeros are rare


def key_value(raw: bytes, negative: bool, key_type: KeyType, modes: SqlModes) -> KeyValue | NoValue:
    """The key value of one literal.

    raw: as `scan` gives it; negative: a minus stands before it. Gives an int for KeyType.INT (of any size), key bytes
    for the others (text canonical), NULLVALUE for a bound NULL is the router's own; here only UNROUTABLE.
    """
    if key_type is KeyType.INT:
        return _integer(raw, negative, modes)
    if negative:
        return UNROUTABLE
    if key_type is KeyType.TEXT:
        text = string_value(raw, modes)
        return UNROUTABLE if text is None else text_key(text, modes)
    return _binary(raw, modes)


def text_key(text: bytes, modes: SqlModes) -> bytes | NoValue:
    """The key of a text as the client sent it."""
    if text.isascii():
        return canonical_text(text)
    if modes.single_byte or (modes.three_bytes and has_four_bytes(text)) or not _is_utf8(text):
        return UNROUTABLE
    return canonical_text(text)


def _integer(raw: bytes, negative: bool, modes: SqlModes) -> int | NoValue:
    if raw.isdigit():
        if len(raw) > _LONGEST_INTEGER:
            return UNROUTABLE
        return -int(raw) if negative else int(raw)
    text = string_value(raw, modes)
    if text is None or negative or not _INTEGER_TEXT(text):
        return UNROUTABLE
    return int(text)


def _binary(raw: bytes, modes: SqlModes) -> bytes | NoValue:
    if raw[:2] in (b"x'", b"X'"):
        digits = raw[2:-1]
    elif raw.startswith(b"0x"):
        digits = raw[2:] if len(raw) % 2 == 0 else b"0" + raw[2:]
    else:
        text = string_value(raw, modes)
        # Which bytes a text outside ASCII becomes depends on character_set_connection.
        return text if text is not None and text.isascii() else UNROUTABLE
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:  # also what is not ASCII, or has an odd number of digits: the server's syntax error
        return UNROUTABLE


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
