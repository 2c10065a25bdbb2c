"""Values of Redis commands as SQL: what `documents` gives comes back as it was. Pure."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import Any

from shardproxy.cache.patterns import CachedRows
from shardproxy.topology.schema import Column, TableSchema

_INTEGERS = frozenset(("tinyint", "smallint", "mediumint", "int", "bigint", "year"))
_REALS = frozenset(("float", "double"))
_BYTES = frozenset((
    "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit", "vector", "geometry", "point",
    "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection",
))  # fmt: skip
_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_REAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r"[ -&(-\[\]-~]*")  # no quote, no backslash, whatever sql_mode says


class BadValue(ValueError):
    """The text says which column, and what it takes."""


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class RowSql:
    """Statements for rows of one table. Values are given as SQL literals, by column."""

    def __init__(self, rows: CachedRows, schema: TableSchema) -> None:
        self.rows = rows
        self.schema = schema
        self.key = [name.lower() for name in rows.columns]
        self.columns = [column for column in schema.columns if not column.generated]
        self._table = f"{_name(rows.database)}.{_name(rows.table)}".encode()

    def lock(self, parts: Sequence[int], columns: Sequence[Column]) -> bytes:
        """The row's columns, and the row locked."""
        listed = b", ".join(_name(column.name).encode() for column in columns) or b"1"
        return b"SELECT %b FROM %b WHERE %b FOR UPDATE" % (listed, self._table, self._where(parts))

    def insert(self, parts: Sequence[int], values: Mapping[str, bytes]) -> bytes:
        """A new row."""
        named = [*((name, b"%d" % part) for name, part in zip(self.rows.columns, parts, strict=True)), *values.items()]
        names = b", ".join(_name(name).encode() for name, _ in named)
        return b"INSERT INTO %b (%b) VALUES (%b)" % (self._table, names, b", ".join(value for _, value in named))

    def update(self, parts: Sequence[int], values: Mapping[str, bytes]) -> bytes:
        """Columns of a row that is there."""
        assigned = b", ".join(_name(name).encode() + b" = " + value for name, value in values.items())
        return b"UPDATE %b SET %b WHERE %b" % (self._table, assigned, self._where(parts))

    def delete(self, parts: Sequence[int]) -> bytes:
        """No row."""
        return b"DELETE FROM %b WHERE %b" % (self._table, self._where(parts))

    def of_document(self, parts: Sequence[int], document: bytes) -> dict[str, bytes]:
        """The columns beside the key, from a JSON document with all of them. Raises BadValue."""
        try:
            found = json.loads(document, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise BadValue(f"the value is no JSON document: {error}") from error
        if not isinstance(found, dict):
            raise BadValue("the value is no JSON object")
        members = {name.lower(): value for name, value in found.items()}
        unknown = [name for name in found if self.schema.column(name) is None]
        if unknown:
            raise BadValue(f"{self.rows.label} has no column {unknown[0]}")
        missing = [column.name for column in self.columns if column.name.lower() not in members]
        if missing:
            raise BadValue(f"SET writes whole rows, and the document has no {', '.join(missing)}")
        values = {column.name: from_json(column, members[column.name.lower()]) for column in self.columns}
        return self._beside_key(parts, values)

    def of_fields(self, parts: Sequence[int], fields: Sequence[bytes]) -> dict[str, bytes]:
        """The columns beside the key that are given: field, value, … Raises BadValue."""
        values = {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            column = self.schema.column(name.decode(errors="replace"))
            if column is None:
                raise BadValue(f"{self.rows.label} has no column {name.decode(errors='replace')}")
            if column.generated:
                raise BadValue(f"{column.name} is a generated column")
            values[column.name] = from_text(column, value)
        return self._beside_key(parts, values)

    def _beside_key(self, parts: Sequence[int], values: dict[str, bytes]) -> dict[str, bytes]:
        rest = {}
        for name, value in values.items():
            if name.lower() not in self.key:
                rest[name] = value
            elif value.strip(b"'") != b"%d" % parts[self.key.index(name.lower())]:
                raise BadValue(f"{name} is a part of the key, which says another value")
        return rest

    def _where(self, parts: Sequence[int]) -> bytes:
        pairs = zip(self.rows.columns, parts, strict=True)
        return b" AND ".join(b"%b = %d" % (_name(column).encode(), part) for column, part in pairs)


def from_json(column: Column, value: Any) -> bytes:
    """The SQL literal of a member of a JSON document. Raises BadValue."""
    kind = column.data_type
    if kind == "json":
        return _text(_written(value))
    if value is None:
        return b"NULL"
    if kind in _INTEGERS or kind in _REALS:
        pattern = _INTEGER if kind in _INTEGERS else _REAL
        if not isinstance(value, _Number) or not pattern.fullmatch(value):
            raise BadValue(f"{column.name} is {kind}: it takes a number, and got {_shown(value)}")
        return value.encode()
    if kind == "decimal":
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
            raise BadValue(f"{column.name} is decimal: it takes a string of digits, and got {_shown(value)}")
        return b"'" + value.encode() + b"'"
    if not isinstance(value, str) or isinstance(value, _Number):
        raise BadValue(f"{column.name} is {kind}: it takes a string, and got {_shown(value)}")
    if kind in _BYTES:
        try:
            return _hexadecimal(b64decode(value, validate=True))
        except (NotBase64, ValueError) as error:
            raise BadValue(f"{column.name} is {kind}: it takes base64, and got {_shown(value)}") from error
    return _text(value)


def from_text(column: Column, value: bytes) -> bytes:
    """The SQL literal of a hash's field. Raises BadValue."""
    kind = column.data_type
    if kind in _BYTES:
        return _hexadecimal(value)
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise BadValue(f"{column.name} is {kind}: it takes UTF-8") from error
    pattern = _INTEGER if kind in _INTEGERS else _REAL if kind in _REALS else _DECIMAL if kind == "decimal" else None
    if pattern is None:
        return _text(text)
    if not pattern.fullmatch(text):
        raise BadValue(f"{column.name} is {kind}: it takes a number, and got {_shown(text)}")
    return b"'" + text.encode() + b"'" if kind == "decimal" else text.encode()


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _written(value: Any) -> str:
    """JSON again, numbers as they were."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)


def _text(value: str) -> bytes:
    if _PLAIN.fullmatch(value):
        return b"'" + value.encode() + b"'"
    try:
        return b"CONVERT(%b USING utf8mb4)" % _hexadecimal(value.encode())
    except UnicodeEncodeError as error:
        raise BadValue("a text with half of a surrogate pair") from error


def _hexadecimal(value: bytes) -> bytes:
    return b"x'" + value.hex().encode() + b"'"


def _shown(value: Any) -> str:
    return _written(value)[:50] if not isinstance(value, str) else value[:50]


def _name(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"
