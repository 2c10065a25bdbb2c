"""How the values of a column travel from a shard into a scratch table without loss, whatever the session has set.

Every value is read as a binary string: what the session's character set, sql_mode or time zone would do to it on the
way is out of the picture. It is written as a literal that the column takes for the same value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from shardproxy.errors import UnsupportedError
from shardproxy.sql.words import words

Literal = Callable[[bytes], bytes]

_EXACT_NUMBERS = words("tinyint smallint mediumint int integer bigint decimal numeric year")
_TEXTS = words("char varchar tinytext text mediumtext longtext")
_BYTES = words("""
    binary varbinary tinyblob blob mediumblob longblob geometry point linestring polygon multipoint multilinestring
    multipolygon geometrycollection geomcollection vector
""")
_TIMES = words("date datetime time")
_GEOMETRIES = words("""
    geometry point linestring polygon multipoint multilinestring multipolygon geometrycollection geomcollection
""")
_TYPE = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a scratch table. expression: what reads it as a binary string; literal: such a string to SQL, which
    may raise UnsupportedError; optional: rows can be inserted without it; json: its type is MySQL's JSON."""

    name: str
    expression: bytes
    literal: Literal
    optional: bool
    json: bool = False


def quoted(name: str) -> bytes:
    """An identifier in backticks."""
    return b"`" + name.replace("`", "``").encode() + b"`"


def string(value: bytes) -> bytes:
    """A string literal for a connection whose character set is binary and whose sql_mode is ours."""
    if b"\\" in value:
        value = value.replace(b"\\", b"\\\\")
    if b"'" in value:
        value = value.replace(b"'", b"\\'")
    return b"'" + value + b"'"


def number(value: bytes) -> bytes:
    return value


def _real(value: bytes) -> bytes:
    """With an exponent it is no integer, of which there is no -0."""
    return value if b"e" in value else value + b"e0"


# '' where the value read back from its own text takes another amount of space: it holds what JSON text cannot say.
_JSON = (
    b"IF(%(c)s IS NULL OR JSON_STORAGE_SIZE(JSON_EXTRACT(%(c)s,_utf8mb4'$'))"
    b"=JSON_STORAGE_SIZE(CAST(CAST(%(c)s AS CHAR CHARACTER SET utf8mb4) AS JSON)),CAST(%(c)s AS BINARY),_binary'')"
)


def _json(name: str) -> Literal:
    def literal(value: bytes) -> bytes:
        if not value:
            raise UnsupportedError(
                f"column '{name}' has a JSON value with a DECIMAL, a date or bytes inside, which its text does not "
                "carry: restrict the statement to one shard"
            )
        return b"_utf8mb4" + string(value)

    return literal


def _ascii(value: bytes) -> bytes:
    return b"_latin1" + string(value)


def _moment(value: bytes) -> bytes:
    """Seconds since 1970, for a column of type TIMESTAMP; 0 stands for its zero date."""
    return b"FROM_UNIXTIME(" + value + b")" if value.strip(b"0.") else b"'0000-00-00'"


def column(name: str, column_type: str, default: bytes | None, extra: str, key: bool) -> Column | None:
    """How to copy a column, from its row in SHOW COLUMNS; None for one that is computed. key: an index or a check of
    the table has to do with it.

    Raises UnsupportedError for a type whose values are not known to arrive unchanged.
    """
    if "generated" in extra.lower() and "default_generated" not in extra.lower():
        return None
    match = _TYPE.match(column_type.lower())
    kind = match.group() if match else column_type
    q = quoted(name)
    computed = default is not None and (b"(" in default or "default_generated" in extra.lower())
    optional = not key and not computed and kind not in _GEOMETRIES
    if kind in _EXACT_NUMBERS:
        return Column(name, b"CAST(%s AS BINARY)" % q, number, optional)
    if kind in ("float", "double", "real"):
        return Column(name, b"CAST(%s*1e0 AS BINARY)" % q, _real, optional)
    if kind in ("bit", "enum", "set"):
        return Column(name, b"CAST(CAST(%s AS UNSIGNED) AS BINARY)" % q, number, optional)
    if kind == "timestamp":
        return Column(name, b"CAST(UNIX_TIMESTAMP(%s) AS BINARY)" % q, _moment, optional)
    if kind in _TIMES or kind in _TEXTS:
        return Column(name, b"CAST(%s AS BINARY)" % q, string, optional)
    if kind in _BYTES:
        return Column(name, q, string, optional)
    if kind == "json":
        return Column(name, _JSON % {b"c": q}, _json(name), optional, True)
    if kind in ("inet4", "inet6", "uuid"):
        return Column(name, b"CAST(CAST(%s AS CHAR) AS BINARY)" % q, _ascii, optional)
    raise UnsupportedError(f"column '{name}' has the type {column_type}, which is not known to be copied exactly")
