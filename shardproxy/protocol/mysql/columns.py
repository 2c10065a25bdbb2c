"""Column definitions: what comes before the rows of a result, and before the parameters of a prepared statement."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.constants import Collation, ColumnFlag, FieldType
from shardproxy.protocol.mysql.packets import NULL_VALUE, PayloadReader, lenenc_str

_FIXED_LENGTH = 0x0C
# Flags that say how a value reads; the others (keys, NOT NULL) may differ between shards by data or optimizer.
_SHAPE_FLAGS = (
    ColumnFlag.UNSIGNED | ColumnFlag.ZEROFILL | ColumnFlag.BINARY | ColumnFlag.BLOB | ColumnFlag.ENUM | ColumnFlag.SET
).value


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """A column as on the wire (protocol 4.1). Names are bytes in the character set of the results.

    `length` is the longest display in bytes; `charset` a collation id (63: binary or number). `default` is sent only
    in answers to COM_FIELD_LIST, where None stands for NULL.
    """

    name: bytes
    type: int = FieldType.VAR_STRING.value
    charset: int = Collation.UTF8MB4_GENERAL_CI.value
    length: int = 1024
    flags: int = 0
    decimals: int = 0
    schema: bytes = b""
    table: bytes = b""
    org_table: bytes = b""
    org_name: bytes = b""
    catalog: bytes = b"def"
    default: bytes | None = None

    @property
    def unsigned(self) -> bool:
        """Whether integers of the column are unsigned."""
        return bool(self.flags & ColumnFlag.UNSIGNED.value)

    def build(self, with_default: bool = False) -> bytes:
        """The payload; `with_default` for an answer to COM_FIELD_LIST."""
        payload = b"".join(
            (
                lenenc_str(self.catalog),
                lenenc_str(self.schema),
                lenenc_str(self.table),
                lenenc_str(self.org_table),
                lenenc_str(self.name),
                lenenc_str(self.org_name),
                bytes((_FIXED_LENGTH,)),
                (self.charset & 0xFFFF).to_bytes(2, "little"),
                (self.length & 0xFFFFFFFF).to_bytes(4, "little"),
                bytes((self.type & 0xFF,)),
                (self.flags & 0xFFFF).to_bytes(2, "little"),
                bytes((self.decimals & 0xFF, 0, 0)),
            )
        )
        if not with_default:
            return payload
        return payload + (bytes((NULL_VALUE,)) if self.default is None else lenenc_str(self.default))

    @classmethod
    def parse(cls, payload: bytes, with_default: bool = False) -> ColumnDefinition:
        """The definition. Raises RemoteProtocolError when it is cut off or too long."""
        reader = PayloadReader(payload)
        catalog, schema, table, org_table, name, org_name = (reader.lenenc_str() for _ in range(6))
        if reader.lenenc_int() != _FIXED_LENGTH:
            raise RemoteProtocolError("a column definition whose fixed part is not 12 bytes")
        charset = reader.integer(2)
        length = reader.integer(4)
        field_type = reader.integer(1)
        flags = reader.integer(2)
        decimals = reader.integer(1)
        reader.take(2)
        default = None
        if with_default:
            if reader.left == 1 and payload[reader.at] == NULL_VALUE:
                reader.take(1)
            else:
                default = reader.lenenc_str()
        reader.expect_end("a column definition")
        return cls(
            name, field_type, charset, length, flags, decimals, schema, table, org_table, org_name, catalog, default
        )


def same_shape(left: ColumnDefinition, right: ColumnDefinition) -> bool:
    """Whether values of both may stand in one result column: same name, type, collation, decimals and signedness.

    The display length and the flags about keys and NOT NULL do not count.
    """
    return (
        left.name == right.name
        and left.type == right.type
        and left.charset == right.charset
        and left.decimals == right.decimals
        and not (left.flags ^ right.flags) & _SHAPE_FLAGS
    )
