"""Table maps and row images of the binlog, decoded to the texts that `ColumnShape.select` gives. Pure.

Source: MySQL's rows_event.h and field.cc, MariaDB's log_event.h and sql_type_fixedbin.h. What is not known here is
refused: a value that is guessed would be a wrong row.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from shardproxy.errors import ReshardError
from shardproxy.reshard.columns import ColumnShape, TableShape
from shardproxy.reshard.json_binary import json_text
from shardproxy.reshard.temporal import (
    datetime_text,
    decimal_size,
    decimal_text,
    old_date_text,
    time_text,
    timestamp_text,
)

Decode = Callable[[bytes, int], tuple[bytes, int]]  # image, place → text, place behind the value

_TWO_BYTES_META = frozenset({15, 16, 246, 253, 254, 247, 248, 141})
_ONE_BYTE_META = frozenset({4, 5, 252, 255, 245, 242, 17, 18, 19, 140, 20})
_COLUMN_NAMES = 4  # of the optional metadata
_OLD_TEMPORAL = {7: "TIMESTAMP", 11: "TIME", 12: "DATETIME"}
_COMPRESSED = {140: "BLOB COMPRESSED", 141: "VARCHAR COMPRESSED"}

_BLOBS = frozenset({"tinyblob", "blob", "mediumblob", "longblob", "tinytext", "text", "mediumtext", "longtext"})
_GEOMETRY = frozenset({
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
})  # fmt: skip
_CODES: dict[str, frozenset[int]] = {
    "tinyint": frozenset({1}), "smallint": frozenset({2}), "mediumint": frozenset({9}), "int": frozenset({3}),
    "bigint": frozenset({8}), "float": frozenset({4}), "double": frozenset({5}), "decimal": frozenset({246}),
    "date": frozenset({10, 14}), "time": frozenset({19}), "datetime": frozenset({18}), "timestamp": frozenset({17}),
    "year": frozenset({13}), "char": frozenset({254}), "binary": frozenset({254}), "varchar": frozenset({15}),
    "varbinary": frozenset({15}), "enum": frozenset({254}), "set": frozenset({254}), "bit": frozenset({16}),
    "json": frozenset({245}), "vector": frozenset({242}), "uuid": frozenset({254}), "inet6": frozenset({254}),
    "inet4": frozenset({254}), **{name: frozenset({252}) for name in _BLOBS},
    **{name: frozenset({255}) for name in _GEOMETRY},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableMap:
    """What a TABLE_MAP event says. names: empty where the server does not send them."""

    database: str
    table: str
    types: bytes
    metadata: tuple[int, ...]
    names: tuple[str, ...] = ()


def parse_table_map(body: bytes) -> TableMap:
    """body: behind the 8 bytes of table id and flags, without checksum."""
    length = body[0]
    database = body[1 : 1 + length].decode()
    at = 2 + length
    length = body[at]
    table = body[at + 1 : at + 1 + length].decode()
    at += 2 + length
    count, at = packed_int(body, at)
    types = body[at : at + count]
    at += count
    size, at = packed_int(body, at)
    metadata = _metadata(types, body[at : at + size])
    at += size + (count + 7) // 8
    names: tuple[str, ...] = ()
    while at < len(body):
        kind = body[at]
        size, at = packed_int(body, at + 1)
        if kind == _COLUMN_NAMES:
            names = tuple(_strings(body[at : at + size]))
        at += size
    return TableMap(database, table, types, metadata, names)


def packed_int(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer and the place behind it."""
    first = data[at]
    if first < 251:
        return first, at + 1
    width = {252: 2, 253: 3, 254: 8}[first]
    return int.from_bytes(data[at + 1 : at + 1 + width], "little"), at + 1 + width


def _strings(data: bytes) -> list[str]:
    at = 0
    found = []
    while at < len(data):
        size, at = packed_int(data, at)
        found.append(data[at : at + size].decode())
        at += size
    return found


def _metadata(types: bytes, data: bytes) -> tuple[int, ...]:
    """Of each column: first byte low. For STRING, ENUM, SET the first byte is the real type."""
    at = 0
    found = []
    for code in types:
        width = 2 if code in _TWO_BYTES_META else 1 if code in _ONE_BYTE_META else 0
        found.append(int.from_bytes(data[at : at + width], "little"))
        at += width
    if at != len(data):
        raise ReshardError(f"a table map has {len(data)} bytes of metadata where its types {types.hex()} have {at}")
    return tuple(found)


def decoders(shape: TableShape, seen: TableMap) -> list[Decode]:
    """How each column of a row image is read. Raises ReshardError when the binlog's table is not the one of `shape`."""
    where = f"{seen.database}.{seen.table}"
    if len(seen.types) != len(shape.columns):
        raise ReshardError(
            f"{where}: the binlog has {len(seen.types)} columns, the table {len(shape.columns)}: its definition has "
            "changed; cancel the move, or start it anew"
        )
    if seen.names and tuple(name.lower() for name in seen.names) != tuple(c.name.lower() for c in shape.columns):
        raise ReshardError(
            f"{where}: the binlog has the columns {', '.join(seen.names)}, the table "
            f"{', '.join(c.name for c in shape.columns)}: its definition has changed; cancel the move, or start it anew"
        )
    found = []
    for column, code, meta in zip(shape.columns, seen.types, seen.metadata, strict=True):
        allowed = _CODES.get(column.data_type)
        if allowed is None:
            raise ReshardError(f"{where}.{column.name}: columns of type {column.column_type} cannot be moved")
        if code not in allowed:
            if code in _OLD_TEMPORAL or code in _COMPRESSED:
                name = _OLD_TEMPORAL.get(code, "") + _COMPRESSED.get(code, "")
                raise ReshardError(
                    f"{where}.{column.name}: {name} in an old or compressed storage format cannot be read from the "
                    "binlog; ALTER TABLE … FORCE, or MODIFY the column, makes it a current one"
                )
            raise ReshardError(
                f"{where}.{column.name}: the binlog has type {code}, the table {column.column_type}: its definition "
                "has changed; cancel the move, or start it anew"
            )
        found.append(_decoder(column, code, meta))
    return found


def _decoder(column: ColumnShape, code: int, meta: int) -> Decode:
    kind = column.data_type
    if code in _INTEGERS:
        return _integer(_INTEGERS[code], not column.unsigned)
    if code == 4:
        return _real("<f", 4)
    if code == 5:
        return _real("<d", 8)
    if code == 246:
        precision, scale = meta & 0xFF, meta >> 8
        return lambda data, at: decimal_text(data, at, precision, scale)
    if code in (10, 14):
        return old_date_text
    if code == 13:
        return lambda data, at: (b"%04d" % (1900 + data[at] if data[at] else 0), at + 1)
    if code in _TEMPORAL:
        decode = _TEMPORAL[code]
        return lambda data, at: decode(data, at, meta)
    if code == 15:
        return _prefixed(1 if meta < 256 else 2)
    if code == 16:
        return _bits((meta & 0xFF) + 8 * (meta >> 8))
    if code == 245:
        read = _prefixed(meta)
        return lambda data, at: _document(read(data, at))
    if code in (252, 255, 242):
        return _prefixed(meta)
    return _string(kind, meta)


def _string(kind: str, meta: int) -> Decode:
    first, second = meta & 0xFF, meta >> 8
    if (first & 0x30) != 0x30:
        length = second | ((first & 0x30) ^ 0x30) << 4
        real = first | 0x30
    else:
        length, real = second, first
    if real in (247, 248):
        if kind != ("enum" if real == 247 else "set"):
            raise ReshardError(f"the binlog has an ENUM or SET where the table has {kind}")
        return _bits(8 * length, "little")
    read = _prefixed(1 if length < 256 else 2)
    if kind == "binary":
        return lambda data, at: _padded(read(data, at), length)
    if kind == "uuid":
        return lambda data, at: _uuid(_padded(read(data, at), 16))
    if kind == "inet6":
        return lambda data, at: _address(_padded(read(data, at), 16))
    if kind == "inet4":
        return lambda data, at: _address(_padded(read(data, at), 4))
    return read


def _width(code: int, meta: int) -> int:
    """How many bytes a value takes in an image; negative: so many bytes before it tell. 0: only its decoder knows."""
    if code in _INTEGERS:
        return _INTEGERS[code]
    if code in (245, 252, 255, 242):
        return -meta
    if code == 15:
        return -1 if meta < 256 else -2
    if code == 246:
        return decimal_size(meta & 0xFF, meta >> 8)
    return {4: 4, 5: 8, 10: 3, 14: 3, 13: 1, 17: 4, 18: 5, 19: 3}.get(code, 0) + (
        (meta + 1) // 2 if code in _TEMPORAL else 0
    )


def steps(seen: TableMap, decode: Sequence[Decode], wanted: Container[int]) -> list[tuple[Decode | None, int]]:
    """How to read only some columns of an image: for each column its decoder, or None and the bytes to leave out (see
    `_width`). wanted: their places."""
    found: list[tuple[Decode | None, int]] = []
    for place, (code, meta) in enumerate(zip(seen.types, seen.metadata, strict=True)):
        width = _width(code, meta)
        found.append((decode[place], 0) if place in wanted or not width else (None, width))
    return found


_INTEGERS = {1: 1, 2: 2, 9: 3, 3: 4, 8: 8}
_TEMPORAL: dict[int, Callable[[bytes, int, int], tuple[bytes, int]]] = {
    17: timestamp_text, 18: datetime_text, 19: time_text,
}  # fmt: skip


def _integer(width: int, signed: bool) -> Decode:
    from_bytes = int.from_bytes

    def decode(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + width
        return b"%d" % from_bytes(data[at:end], "little", signed=signed), end

    return decode


def _real(layout: str, width: int) -> Decode:
    unpack = struct.Struct(layout).unpack_from

    def decode(data: bytes, at: int) -> tuple[bytes, int]:
        return repr(unpack(data, at)[0]).encode(), at + width

    return decode


def _prefixed(width: int) -> Decode:
    """Bytes behind their length."""
    if width == 1:

        def short(data: bytes, at: int) -> tuple[bytes, int]:
            start = at + 1
            end = start + data[at]
            return data[start:end], end

        return short

    def decode(data: bytes, at: int) -> tuple[bytes, int]:
        start = at + width
        end = start + int.from_bytes(data[at:start], "little")
        return data[start:end], end

    return decode


def _bits(bits: int, order: str = "big") -> Decode:
    width = (bits + 7) // 8

    def decode(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + width
        return b"%d" % int.from_bytes(data[at:end], order), end  # type: ignore[arg-type]  # big or little

    return decode


def _document(read: tuple[bytes, int]) -> tuple[bytes, int]:
    return json_text(read[0]), read[1]


def _padded(read: tuple[bytes, int], length: int) -> tuple[bytes, int]:
    """The binlog leaves out NUL bytes at the end of a fixed binary value."""
    return read[0].ljust(length, b"\0"), read[1]


def _uuid(read: tuple[bytes, int]) -> tuple[bytes, int]:
    """In the binlog the bytes stand as they are written; only MariaDB's own records have another order."""
    text = read[0].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode(), read[1]


def _address(read: tuple[bytes, int]) -> tuple[bytes, int]:
    return str(ipaddress.ip_address(read[0])).encode(), read[1]


def read_image(
    data: bytes, at: int, present: Sequence[int], decode: Sequence[Decode], nulls: int
) -> tuple[list[bytes | None], int]:
    """One row image at `at`: a value for each column, None for NULL, and the place behind it.

    present: places of the columns in the image; nulls: bytes of its NULL bitmap. Columns that are not present (only
    generated ones may be missing) come as None.
    """
    bitmap = int.from_bytes(data[at : at + nulls], "little")
    at += nulls
    if not bitmap & ((1 << len(present)) - 1) and len(present) == len(decode):
        whole: list[bytes | None] = []
        for read in decode:
            value, at = read(data, at)
            whole.append(value)
        return whole, at
    row: list[bytes | None] = [None] * len(decode)
    for bit, place in enumerate(present):
        if not bitmap >> bit & 1:
            row[place], at = decode[place](data, at)
    return row, at


def read_identity(
    data: bytes, at: int, present: Sequence[int], reading: Sequence[tuple[Decode | None, int]], nulls: int
) -> tuple[list[bytes | None], int]:
    """Like `read_image`, but only the columns that tell which row it is and whether it moves; what others hold is of
    no use. reading: of `steps`."""
    bitmap = int.from_bytes(data[at : at + nulls], "little")
    at += nulls
    row: list[bytes | None] = [None] * len(reading)
    for bit, place in enumerate(present):
        if bitmap >> bit & 1:
            continue
        decode, width = reading[place]
        if decode is not None:
            row[place], at = decode(data, at)
        elif width > 0:
            at += width
        elif width == -1:
            at += 1 + data[at]
        else:
            at += int.from_bytes(data[at : at - width], "little") - width
    return row, at
