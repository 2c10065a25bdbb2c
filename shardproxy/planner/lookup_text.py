"""Texts about entries of lookup indexes, for servers. They mean the same in every sql_mode and character set."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.lookup_plan import Index, Part, PartKind
from shardproxy.topology.keys import KeyType, KeyValue, canonical_text

ALL = b" LIMIT 18446744073709551615"  # whatever sql_select_limit says
_TABLE = b"_shardproxy.lookup"


def name(text: str) -> bytes:
    """A name in backticks."""
    return b"`" + text.replace("`", "``").encode("utf-8", "surrogateescape") + b"`"


def binary(value: bytes) -> bytes:
    """A binary string as a literal."""
    return b"x'" + value.hex().encode() + b"'"


def _text(value: str) -> bytes:
    return b"_utf8mb4 " + binary(value.encode("utf-8", "surrogateescape"))


def _column(column: str, source: str) -> bytes:
    return (name(source) + b"." if source else b"") + name(column)


def part_value(part: Part, source: str = "") -> bytes:
    """An expression for the bytes of a column's value: equal where the column calls values equal, but for blanks at the
    end of a padded text. source: what the table is called."""
    column = _column(part.column, source)
    if part.kind is PartKind.TEXT:
        if part.fixed:  # in some sql_mode they come with the blanks to their whole length
            column = b"TRIM(TRAILING ' ' FROM " + column + b")"
        return b"WEIGHT_STRING(" + column + b")"
    return b"CAST(" + column + b" AS BINARY)" if part.kind is PartKind.INTEGER else column


def key_value(index: Index, source: str = "") -> bytes:
    """An expression for the bytes of the shard key; see `key_bytes`."""
    column = _column(index.key, source)
    if index.key_type is KeyType.BINARY:
        return column
    if index.key_type is KeyType.TEXT:
        return b"CAST(CONVERT(" + column + b" USING utf8mb4) AS BINARY)"
    return b"CAST(" + column + b" AS BINARY)"


def key_bytes(index: Index, value: bytes) -> bytes:
    """The shard key's bytes as an entry has them."""
    return canonical_text(value) if index.key_type is KeyType.TEXT else value


def key_of(index: Index, stored: bytes) -> KeyValue:
    """The shard key of an entry."""
    return int(stored) if index.key_type is KeyType.INT else stored


def shown_text(part: Part, source: str = "") -> bytes:
    """An expression for a text as an error message shows it, in UTF-8."""
    return b"CAST(CONVERT(" + _column(part.column, source) + b" USING utf8mb4) AS BINARY)"


def primary_value(part: Part, source: str = "") -> bytes:
    """An expression for the bytes from which `primary_literal` makes the very value again."""
    column = _column(part.column, source)
    return column if part.kind is PartKind.BINARY else b"CAST(" + column + b" AS BINARY)"


def primary_literal(part: Part, value: bytes) -> bytes:
    if part.kind is PartKind.INTEGER:
        return value
    if part.kind is PartKind.BINARY:
        return binary(value)
    return b"_%s %s COLLATE %s" % (part.charset.encode(), binary(value), part.collation.encode())


def given_literal(part: Part, value: bytes) -> bytes:
    """An expression for a value as `shown_text` gave it of a text, or as it is otherwise."""
    if part.kind is PartKind.INTEGER:
        return value
    if part.kind is PartKind.BINARY:
        return binary(value)
    return b"CONVERT(_utf8mb4 %s USING %s) COLLATE %s" % (
        binary(value.rstrip(b" ") if part.fixed else value), part.charset.encode(), part.collation.encode()
    )  # fmt: skip


def row_there(index: Index, given: Sequence[bytes], lock: bytes = b"") -> bytes:
    """A query that finds whether a shard has a row with a value of the index. lock: as in `entry_read`."""
    terms = [
        b"%s = %s" % (name(part.column), given_literal(part, value))
        for part, value in zip(index.parts, given, strict=True)
    ]
    return b"SELECT 1 FROM %s.%s WHERE %s LIMIT 1%s" % (
        name(index.schema), name(index.table), b" AND ".join(terms), lock
    )  # fmt: skip


def select_columns(indexes: Sequence[Index], primary: Sequence[Part], source: str = "") -> list[bytes]:
    """The shard key; of each index its parts, and its texts as they are shown; the primary key's parts: see
    lookup_rows."""
    columns = [key_value(indexes[0], source)]
    for index in indexes:
        columns += [part_value(part, source) for part in index.parts]
        columns += [shown_text(part, source) for part in index.parts if part.kind is PartKind.TEXT]
    columns += [primary_value(part, source) for part in primary]
    return columns


def select_list(indexes: Sequence[Index], primary: Sequence[Part], source: str = "") -> bytes:
    """`select_columns` as text."""
    return b", ".join(select_columns(indexes, primary, source))


def weight_of(part: Part, text: bytes) -> bytes:
    """A query for the weights of a text, given as UTF-8, in the column's collation."""
    return b"SELECT WEIGHT_STRING(CONVERT(_utf8mb4 %s USING %s) COLLATE %s) LIMIT 1" % (
        binary(text), part.charset.encode(), part.collation.encode()
    )  # fmt: skip


# ── entries ──


def entry(index: Index, value: bytes) -> bytes:
    """The condition for one entry, on the whole primary key."""
    return b"keyspace = %s AND index_name = %s AND value = %s AND distinct_by = ''" % (
        _text(index.schema), _text(index.name), binary(value)
    )  # fmt: skip


def entry_read(index: Index, value: bytes, lock: bytes = b"") -> bytes:
    """A query for the shard key and the version of one entry. lock: " FOR UPDATE" and its like."""
    return b"SELECT shard_key, CAST(version AS BINARY) FROM %s WHERE %s%s%s" % (_TABLE, entry(index, value), ALL, lock)


def taken(index: Index, values: Sequence[bytes]) -> bytes:
    """A query for those of these values that have an entry now: value, shard key, version."""
    columns = b"value, shard_key, CAST(version AS BINARY)"
    return b"SELECT %s FROM %s WHERE keyspace = %s AND index_name = %s AND value IN (%s)%s LOCK IN SHARE MODE" % (
        columns, _TABLE, _text(index.schema), _text(index.name), b", ".join(map(binary, values)), ALL
    )  # fmt: skip


def present(index: Index, values: Sequence[bytes]) -> bytes:
    """A query for the entries of these values: value and shard key."""
    return b"SELECT value, shard_key FROM %s WHERE keyspace = %s AND index_name = %s AND value IN (%s)" % (
        _TABLE, _text(index.schema), _text(index.name), b", ".join(map(binary, values))
    )  # fmt: skip


def entries_page(index: Index, after: bytes | None, count: int) -> bytes:
    """A query for the next entries in the order of their values."""
    behind = b"" if after is None else b" AND value > " + binary(after)
    return b"SELECT value, shard_key FROM %s WHERE keyspace = %s AND index_name = %s%s ORDER BY value LIMIT %d" % (
        _TABLE, _text(index.schema), _text(index.name), behind, count
    )  # fmt: skip


def key_is(index: Index, key: bytes) -> bytes:
    """The condition for rows of a shard key."""
    if index.key_type is KeyType.INT:
        return name(index.key) + b" = " + key
    return name(index.key) + b" = " + (binary(key) if index.key_type is KeyType.BINARY else b"_utf8mb4 " + binary(key))


def entries_insert(rows: Sequence[tuple[Index, bytes, bytes, int]], ignore: bool = False) -> bytes:
    """New entries: index, value, shard key, version."""
    values = [
        b"(%s, %s, %s, %s, %d)" % (_text(index.schema), _text(index.name), binary(value), binary(key), version)
        for index, value, key, version in rows
    ]
    verb = b"INSERT IGNORE INTO " if ignore else b"INSERT INTO "
    return verb + _TABLE + b" (keyspace, index_name, value, shard_key, version) VALUES " + b", ".join(values)


def entry_delete(index: Index, value: bytes, key: bytes, version: bytes | None = None) -> bytes:
    """The entry of a value goes, where it is of this shard key, and of this version when one is given."""
    text = b"DELETE FROM %s WHERE %s AND shard_key = %s" % (_TABLE, entry(index, value), binary(key))
    return text if version is None else text + b" AND version = " + version
