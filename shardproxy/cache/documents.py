"""A row as a Redis value: a JSON document, or a hash. Pure.

Nothing of a value is lost. JSON: integers and floating point numbers are numbers, as the server writes them; DECIMAL is
a string, which no reader rounds; dates and times are strings; binary strings and BIT are base64; JSON columns of MySQL
stand as they are (MariaDB's are text). Hash: each field is the text that SELECT gives; NULL is no field.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Collation, ColumnFlag, FieldType
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.replies import values_of

_NUMBERS = frozenset(
    kind.value
    for kind in (
        FieldType.TINY, FieldType.SHORT, FieldType.LONG, FieldType.LONGLONG, FieldType.INT24, FieldType.FLOAT,
        FieldType.DOUBLE, FieldType.YEAR,
    )
)  # fmt: skip
_STRINGS = frozenset(
    kind.value
    for kind in (
        FieldType.VARCHAR, FieldType.VAR_STRING, FieldType.STRING, FieldType.TINY_BLOB, FieldType.MEDIUM_BLOB,
        FieldType.LONG_BLOB, FieldType.BLOB, FieldType.GEOMETRY, FieldType.VECTOR,
    )
)  # fmt: skip


def json_document(columns: Sequence[ColumnDefinition], row: Sequence[bytes | None]) -> bytes:
    """The row as one JSON object, its members in the table's order. Texts are UTF-8."""
    members = [
        json.dumps(column.name.decode(), ensure_ascii=False).encode() + b":" + _json_value(column, value)
        for column, value in zip(columns, row, strict=True)
    ]
    return b"{" + b",".join(members) + b"}"


def _json_value(column: ColumnDefinition, value: bytes | None) -> bytes:
    if value is None:
        return b"null"
    if column.type in _NUMBERS:
        return _without_zeros(value) if column.flags & ColumnFlag.ZEROFILL else value
    if column.type == FieldType.JSON:
        return value
    binary = column.charset == Collation.BINARY.value and column.type in _STRINGS
    if binary or column.type == FieldType.BIT:
        return b'"' + b64encode(value) + b'"'
    return json.dumps(value.decode(), ensure_ascii=False).encode()


def _without_zeros(value: bytes) -> bytes:
    """A number of a ZEROFILL column, as JSON wants it."""
    shorter = value.lstrip(b"0")
    return shorter if shorter[:1].isdigit() else b"0" + shorter


def hash_fields(columns: Sequence[ColumnDefinition], row: Sequence[bytes | None]) -> bytes:
    """The row as the fields of a hash: field, value, … as RESP bulk strings in one RESP array."""
    found = []
    for column, value in zip(columns, row, strict=True):
        if value is not None:
            found += [encode.bulk(column.name), encode.bulk(value)]
    return encode.array(found)


def hash_reply(fields: bytes, resp3: bool) -> bytes:
    """HGETALL's reply from `hash_fields`."""
    if not resp3:
        return fields
    count, _, rest = fields[1:].partition(b"\r\n")
    return b"%%%d\r\n%b" % (int(count) // 2, rest)


def hash_field(fields: bytes, name: bytes) -> bytes | None:
    """One field's value, as a RESP bulk string, from `hash_fields`; None when there is none. Raises
    RemoteProtocolError."""
    wanted = encode.bulk(name)
    values = values_of(fields)
    if len(values) % 2:
        raise RemoteProtocolError("a kept hash with a field without value")
    return next((values[i + 1] for i in range(0, len(values), 2) if values[i] == wanted), None)
