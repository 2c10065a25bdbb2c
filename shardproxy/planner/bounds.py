"""What a key column can store: a value outside would be changed by a server in a lax sql_mode, after routing by it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shardproxy.topology.keys import KeyType, KeyValue, has_four_bytes
from shardproxy.topology.schema import Column

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_BYTES = {
    "tinytext": 255, "text": 65_535, "mediumtext": 16_777_215, "longtext": 4_294_967_295,
    "tinyblob": 255, "blob": 65_535, "mediumblob": 16_777_215, "longblob": 4_294_967_295,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """column: "table.column" for messages; low, high: of an integer; characters, size: most characters, most bytes of
    a text or binary value (−1: no limit); exact: the value must have `size` bytes (BINARY(n) pads with NUL); charset:
    of a text, where it lacks characters of UTF-8."""

    column: str
    low: int = 0
    high: int = 0
    characters: int = -1
    size: int = -1
    exact: bool = False
    charset: str = ""

    def problem(self, value: KeyValue) -> str:
        """Why the column would not store this key value as it is; "" when it does."""
        if isinstance(value, int):
            if not self.low <= value <= self.high:
                return f"{self.column} cannot hold {value}: it stores {self.low} to {self.high}"
            return ""
        if self.charset and not value.isascii() and (self.charset == "ascii" or has_four_bytes(value)):
            return f"{self.column} cannot hold all characters of the value: its character set is {self.charset}"
        if 0 <= self.characters < len(value.decode("utf-8", "replace")):
            return f"{self.column} holds {self.characters} characters at most"
        if self.exact and len(value) != self.size:
            return f"{self.column} holds exactly {self.size} bytes: give the key padded to its length"
        if 0 <= self.size < len(value):
            return f"{self.column} holds {self.size} bytes at most"
        return ""


def key_bounds(table: str, column: Column, key_type: KeyType) -> KeyBounds | None:
    """Bounds of a key column; None when its type is not one for the keyspace's key type."""
    name = f"{table}.{column.name}"
    kind = column.data_type
    if key_type is KeyType.INT:
        low, high = integer_range(column)
        return KeyBounds(name, low, high) if high else None
    lacking = column.charset if column.charset in ("ascii", "utf8mb3", "utf8") and key_type is KeyType.TEXT else ""
    if kind in _BYTES and kind.endswith("text") == (key_type is KeyType.TEXT):
        return KeyBounds(name, size=_BYTES[kind], charset=lacking)
    length = re.search(r"\((\d+)\)", column.column_type)
    wanted = ("char", "varchar") if key_type is KeyType.TEXT else ("binary", "varbinary")
    if kind not in wanted or length is None:
        return None
    if key_type is KeyType.TEXT:
        return KeyBounds(name, characters=int(length.group(1)), charset=lacking)
    return KeyBounds(name, size=int(length.group(1)), exact=kind == "binary")


def integer_range(column: Column) -> tuple[int, int]:
    """The least and the largest number of an integer column; (0, 0) for another type."""
    bits = _BITS.get(column.data_type)
    if bits is None:
        return 0, 0
    if "unsigned" in column.column_type.lower():
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
