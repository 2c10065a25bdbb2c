"""From the shards' column definitions to how sort keys are read: what the plan left open is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, UnsupportedError
from shardproxy.merge import keys
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.stream import first_values
from shardproxy.planner.merge_plan import KeyKind, OrderTerm, SortKey
from shardproxy.planner.sort_keys import is_padded, orders_by_weight
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Collation, ColumnFlag, FieldType
from shardproxy.protocol.mysql.resultset import parse_resultset

_ODD = (ColumnFlag.ENUM | ColumnFlag.SET | ColumnFlag.ZEROFILL).value
_INTEGERS = frozenset(t.value for t in (
    FieldType.TINY, FieldType.SHORT, FieldType.INT24, FieldType.LONG, FieldType.LONGLONG,
))  # fmt: skip
_STRINGS = frozenset(t.value for t in (
    FieldType.VARCHAR, FieldType.VAR_STRING, FieldType.STRING, FieldType.TINY_BLOB, FieldType.BLOB,
    FieldType.MEDIUM_BLOB, FieldType.LONG_BLOB,
))  # fmt: skip
_NO_FIXED_POINT = 31  # decimals of a DOUBLE that is printed with as many digits as it needs
_BLANKS: dict[tuple[bool, str], bytes] = {}  # (MariaDB, collation) → weight of a blank


class NotMergeable(UnsupportedError):
    """The statement's values or the columns' types do not allow to merge the shards' rows."""


async def learn_blanks(connection: BackendConnection, wanted: Sequence[SortKey], mariadb: bool) -> None:
    """Ask for the weights of blanks in the collations of these keys, where they are not known yet."""
    for key in wanted:
        name = key.collation
        if key.kind is not KeyKind.TEXT or not is_padded(name) or (mariadb, name) in _BLANKS:
            continue
        charset = name.partition("_")[0]
        reply = await connection.query(f"SELECT WEIGHT_STRING(CONVERT(' ' USING {charset}) COLLATE {name})")
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        weight = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows[0][0]
        _BLANKS[mariadb, name] = weight or b""


def key_parts(
    wanted: Sequence[SortKey], terms: Sequence[OrderTerm], definitions: Sequence[ColumnDefinition], first_row: bytes,
    mariadb: bool, binary: bool, distinct: bool,
) -> list[KeyPart]:  # fmt: skip
    """How each key is read. first_row: any shard's, b"" when no shard has one. Raises NotMergeable."""
    hidden = sum(len(key.columns) for key in wanted)
    values = first_values(first_row, hidden, list(definitions), binary) if first_row else [None] * hidden
    parts: list[KeyPart] = []
    at = 0
    for key, term in zip(wanted, terms, strict=True):
        columns = len(key.columns)
        part = _part(key, definitions[at], values[at : at + columns], bool(first_row), mariadb, binary)
        part.columns = columns
        part.descending = term.descending
        part.whole = distinct
        parts.append(part)
        at += columns
    return parts


def _part(
    key: SortKey, definition: ColumnDefinition, values: Sequence[bytes | None], any_row: bool, mariadb: bool,
    binary: bool,
) -> KeyPart:  # fmt: skip
    signed = not definition.unsigned
    if key.kind is KeyKind.TEXT:
        part = KeyPart(keys.BYTES, False, binary)
        if is_padded(key.collation):
            part.kind = keys.PADDED
            part.blank = _BLANKS[mariadb, key.collation]
        part.most = keys.MOST_SORTED if mariadb or part.blank else 0
        return part
    kind = _kind(definition)
    if kind >= 0:
        part = KeyPart(kind, False, binary, signed)
        part.most = keys.MOST_SORTED if mariadb and kind == keys.BYTES else 0
        return part
    if key.kind is KeyKind.VALUE or definition.type not in _STRINGS or definition.flags & _ODD:
        raise NotMergeable(
            f"sort keys of this type cannot be merged over several shards (column type {definition.type}, "
            f"'{definition.name.decode('utf-8', 'replace')}')"
        )
    if not any_row:
        return KeyPart(keys.CONSTANT, False, binary)
    collation = (values[2] or b"").decode("ascii", "replace")
    if not orders_by_weight(collation):
        raise NotMergeable(f"a sort key of collation {collation}, whose order is not known here")
    part = KeyPart(keys.BYTES, False, binary)
    if is_padded(collation):
        part.kind = keys.PADDED
        part.blank = values[3] or b""
    part.most = keys.MOST_SORTED if mariadb or part.blank else 0
    part.used = 1
    return part


def _kind(definition: ColumnDefinition) -> int:
    """How values of the column are compared; −1 for text, and what cannot be."""
    field_type = definition.type
    if definition.flags & _ODD:
        return -1
    if field_type in _BY_TYPE:
        return _BY_TYPE[field_type]
    if field_type == FieldType.DOUBLE.value and definition.decimals == _NO_FIXED_POINT:
        return keys.DOUBLE
    if field_type in _STRINGS and definition.charset == Collation.BINARY.value:
        return keys.BYTES
    return -1


_BY_TYPE: Mapping[int, int] = {
    **dict.fromkeys(_INTEGERS, keys.INTEGER),
    FieldType.NEWDECIMAL.value: keys.DECIMAL,
    FieldType.DATE.value: keys.MOMENT,
    FieldType.NEWDATE.value: keys.MOMENT,
    FieldType.DATETIME.value: keys.MOMENT,
    FieldType.TIME.value: keys.DURATION,
    FieldType.BIT.value: keys.BYTES,
    FieldType.NULL.value: keys.CONSTANT,
}
