"""From the shards' column definitions to how sort keys are read: what the plan left open is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, UnsupportedError
from shardproxy.merge import keys
from shardproxy.merge.keys import KeyPart
from shardproxy.planner.merge_plan import KeyKind, SortKey
from shardproxy.planner.sort_keys import is_padded, orders_by_weight
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Collation, ColumnFlag, FieldType
from shardproxy.protocol.mysql.resultset import parse_resultset

_ODD = (ColumnFlag.ENUM | ColumnFlag.SET | ColumnFlag.ZEROFILL).value
_INTEGERS = frozenset(t.value for t in (
    FieldType.TINY, FieldType.SHORT, FieldType.INT24, FieldType.LONG, FieldType.LONGLONG,
))  # fmt: skip
STRINGS = frozenset(t.value for t in (
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
        reply = await connection.query(f"SELECT WEIGHT_STRING(CONVERT(' ' USING {charset}) COLLATE {name}) LIMIT 1")
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        weight = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows[0][0]
        _BLANKS[mariadb, name] = weight or b""


class Described:
    """The columns of a shard's answer, as far as they say how keys are to be read.

    values: of the hidden columns, in any shard's first row; () when no shard has a row.
    """

    def __init__(
        self, definitions: Sequence[ColumnDefinition], values: Sequence[bytes | None], mariadb: bool, binary: bool
    ) -> None:
        self.definitions = definitions
        self.values = values
        self.mariadb = mariadb
        self.binary = binary

    def part(self, key: SortKey, column: int, descending: bool, whole: bool) -> KeyPart:
        """How the key is read whose columns begin at `column`. Raises NotMergeable.

        whole: equal keys must mean equal values.
        """
        if whole and key.kind is not KeyKind.TEXT and self._may_be_long(self.definitions[column]):
            raise NotMergeable("long texts to group or tell apart by: servers sort by their first bytes only")
        part = self._text(key) if key.kind is KeyKind.TEXT else self._found_out(key, column)
        part.columns = len(key.columns)
        part.descending = descending
        part.whole = whole
        return part

    def by_value(self, column: int, descending: bool) -> KeyPart:
        """How a plain value in `column` is read. Raises NotMergeable."""
        definition = self.definitions[column]
        kind = _kind(definition)
        if kind < 0:
            raise _cannot(definition)
        return KeyPart(kind, descending, self.binary, not definition.unsigned)

    def _may_be_long(self, definition: ColumnDefinition) -> bool:
        return definition.type in STRINGS and definition.length > keys.MOST_SORTED

    def _text(self, key: SortKey) -> KeyPart:
        part = KeyPart(keys.BYTES, False, self.binary)
        if is_padded(key.collation):
            part.kind = keys.PADDED
            part.blank = _BLANKS[self.mariadb, key.collation]
        part.most = keys.MOST_SORTED if self.mariadb or part.blank else 0
        return part

    def _found_out(self, key: SortKey, column: int) -> KeyPart:
        definition = self.definitions[column]
        kind = _kind(definition)
        if kind >= 0:
            part = KeyPart(kind, False, self.binary, not definition.unsigned)
            part.most = keys.MOST_SORTED if self.mariadb and kind == keys.BYTES else 0
            return part
        if key.kind is KeyKind.VALUE or definition.type not in STRINGS or definition.flags & _ODD:
            raise _cannot(definition)
        if not self.values:
            return KeyPart(keys.CONSTANT, False, self.binary)
        collation = (self.values[column + 2] or b"").decode("ascii", "replace")
        if not orders_by_weight(collation):
            raise NotMergeable(f"a sort key of collation {collation}, whose order is not known here")
        part = KeyPart(keys.BYTES, False, self.binary)
        if is_padded(collation):
            part.kind = keys.PADDED
            part.blank = self.values[column + 3] or b""
        part.most = keys.MOST_SORTED if self.mariadb or part.blank else 0
        part.used = 1
        return part


def _cannot(definition: ColumnDefinition) -> NotMergeable:
    return NotMergeable(
        f"values of this type (column type {definition.type}) cannot be sorted or combined exactly over several shards"
    )


def _kind(definition: ColumnDefinition) -> int:
    """How values of the column are compared; −1 for text, and what cannot be."""
    field_type = definition.type
    if definition.flags & _ODD:
        return -1
    if field_type in _BY_TYPE:
        return _BY_TYPE[field_type]
    if field_type == FieldType.DOUBLE.value and definition.decimals == _NO_FIXED_POINT:
        return keys.DOUBLE
    if field_type in STRINGS and definition.charset == Collation.BINARY.value:
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
