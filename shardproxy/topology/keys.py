"""From a key value to the bytes that place it, and from those bytes to a bucket.

Two values that MySQL calls equal must give the same key bytes. Integers are canonical decimal text; text drops
trailing spaces (equal under PAD SPACE collations, harmlessly together under NO PAD ones); binary strings are raw.
"""

from __future__ import annotations

from enum import Enum
from zlib import crc32

BUCKETS = 4096  # fixed: a keyspace never changes its number of buckets


class KeyType(Enum):
    """The one type that all key columns of a keyspace have."""

    INT = "int"  # any integer column, signed or unsigned
    TEXT = "text"  # CHAR/VARCHAR/TEXT with a _bin collation over utf8mb4, utf8mb3 or ascii
    BINARY = "binary"  # BINARY/VARBINARY/BLOB


KeyValue = int | bytes  # int for KeyType.INT, canonical bytes for the others


def canonical_text(value: bytes) -> bytes:
    """Key bytes of a text value given as UTF-8."""
    return value.rstrip(b" ")


def has_four_bytes(text: bytes) -> bool:
    """Whether a text in UTF-8 has characters that take four bytes."""
    return bool(text) and max(text) >= 0xF0


def key_bytes(value: KeyValue) -> bytes:
    """The bytes that `CRC32(key)` sees on the servers."""
    return b"%d" % value if isinstance(value, int) else value


def bucket_of(value: KeyValue) -> int:
    """`CRC32(CRC32(key)) % 4096`; why twice: multiples of round numbers clump under one CRC (DESIGN 13 d)."""
    data = b"%d" % value if isinstance(value, int) else value
    return crc32(b"%d" % crc32(data)) & 4095
