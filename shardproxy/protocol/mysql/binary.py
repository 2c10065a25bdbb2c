"""COM_STMT_EXECUTE and the rows that answer it.

    execute   0x17, statement id 4, flags 1, iterations 4 (always 1); with parameters: NULL bitmap (n+7)/8,
              "types follow" 1, n × (type, 0x80 if unsigned) if so, the values of parameters that are not NULL
    row       0x00, NULL bitmap (n+9)/8 whose first two bits are not used, the values that are not NULL

Types are sent with the first execution and whenever they change: a packet without them means the ones of before, so
whoever moves a packet to another connection must put them in (`rebuild_execute`). A parameter whose value came by
COM_STMT_SEND_LONG_DATA has none in the packet. Valid only without Cap.QUERY_ATTRIBUTES, which we do not offer.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Com, FieldType
from shardproxy.protocol.mysql.packets import OK_HEADER, PayloadReader
from shardproxy.protocol.mysql.values import INTEGER_WIDTH, Value, build_value, read_value, skip_value

_HEAD = 10  # bytes of an execute packet before the NULL bitmap
_EXECUTE = Com.STMT_EXECUTE.value
_NULL_TYPE = FieldType.NULL.value
_UNSIGNED = 0x80


@dataclass(frozen=True, slots=True)
class ExecuteParameters:
    """A COM_STMT_EXECUTE, its values not decoded yet.

    `types` is the block of 2 bytes a parameter that holds for this execution, sent in it (`new_types`) or known from
    before. `nulls_at` and `values_at` are positions in `payload`. `long_data` are values that came separately.
    """

    payload: bytes
    statement_id: int
    flags: int
    count: int
    new_types: bool
    types: bytes
    nulls_at: int
    values_at: int
    long_data: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def null_bitmap(self) -> bytes:
        """One bit a parameter, least significant first."""
        return self.payload[self.nulls_at : self.nulls_at + (self.count + 7) // 8]

    def is_null(self, index: int) -> bool:
        """Whether a parameter is NULL."""
        if index in self.long_data:
            return False
        return _is_null(self.payload, index) or self.types[2 * index] == _NULL_TYPE

    def parameter(self, index: int) -> Value:
        """One parameter, decoded. Raises RemoteProtocolError when it, or one before it, cannot be read."""
        if not 0 <= index < self.count:
            raise LocalProtocolError(f"there is no parameter {index} among {self.count}")
        if index in self.long_data:
            return self.long_data[index]
        if self.is_null(index):
            return None
        at = _position(self.payload, self.types, self.values_at, index, self.long_data)
        return read_value(self.payload, at, self.types[2 * index], bool(self.types[2 * index + 1] & _UNSIGNED))[0]

    def parameters(self) -> list[Value]:
        """All parameters, decoded."""
        values: list[Value] = []
        at = self.values_at
        for index in range(self.count):
            if index in self.long_data:
                values.append(self.long_data[index])
            elif self.is_null(index):
                values.append(None)
            else:
                unsigned = bool(self.types[2 * index + 1] & _UNSIGNED)
                value, at = read_value(self.payload, at, self.types[2 * index], unsigned)
                values.append(value)
        return values


def parse_execute(
    payload: bytes,
    param_count: int,
    known_types: bytes | None = None,
    long_data: Mapping[int, bytes] | None = None,
) -> ExecuteParameters:
    """Find the parts of a COM_STMT_EXECUTE of a statement with `param_count` parameters.

    `known_types` are the types of an earlier execution, if there was one. Raises RemoteProtocolError when the packet
    is cut off, or needs types that nobody has sent.
    """
    if len(payload) < _HEAD or payload[0] != _EXECUTE:
        raise RemoteProtocolError("not a COM_STMT_EXECUTE")
    types, new_types, values_at = _types(payload, param_count, known_types)
    return ExecuteParameters(
        payload=payload,
        statement_id=int.from_bytes(payload[1:5], "little"),
        flags=payload[5],
        count=param_count,
        new_types=new_types,
        types=types,
        nulls_at=_HEAD,
        values_at=values_at,
        long_data=long_data or {},
    )


def integer_parameter(
    payload: bytes,
    param_count: int,
    known_types: bytes | None,
    index: int,
    long_data: Container[int] = (),
) -> int | None:
    """The parameter at `index` of a COM_STMT_EXECUTE if it is an integer; None for NULL and for any other type.

    The fast way to a routing value: nothing but it is decoded, and nothing after it is looked at. `long_data` are the
    indexes whose values came separately. Raises RemoteProtocolError like `parse_execute`.
    """
    if not 0 <= index < param_count:
        raise LocalProtocolError(f"there is no parameter {index} among {param_count}")
    types, _, at = _types(payload, param_count, known_types)
    width = INTEGER_WIDTH[types[2 * index]]
    if not width or _is_null(payload, index) or index in long_data:
        return None
    if index:
        at = _position(payload, types, at, index, long_data)
    end = at + width
    if end > len(payload):
        raise RemoteProtocolError(f"cut off at byte {at}: parameter {index} is incomplete")
    return int.from_bytes(payload[at:end], "little", signed=types[2 * index + 1] < _UNSIGNED)


def _types(payload: bytes, param_count: int, known_types: bytes | None) -> tuple[bytes, bool, int]:
    """The types in force, whether the packet brought them, and where the values start."""
    if not param_count:
        return b"", False, len(payload)
    flag_at = _HEAD + (param_count + 7) // 8
    if flag_at >= len(payload):
        raise RemoteProtocolError(f"COM_STMT_EXECUTE is cut off before its {param_count} parameters")
    if payload[flag_at]:
        values_at = flag_at + 1 + 2 * param_count
        if values_at > len(payload):
            raise RemoteProtocolError(f"COM_STMT_EXECUTE is cut off in the types of {param_count} parameters")
        return payload[flag_at + 1 : values_at], True, values_at
    if known_types is None or len(known_types) != 2 * param_count:
        raise RemoteProtocolError("COM_STMT_EXECUTE without types, and none were sent before")
    return known_types, False, flag_at + 1


def _is_null(payload: bytes, index: int) -> bool:
    return bool(payload[_HEAD + (index >> 3)] >> (index & 7) & 1)


def _position(payload: bytes, types: bytes, at: int, index: int, long_data: Container[int]) -> int:
    """Where the value of parameter `index` starts."""
    for before in range(index):
        if not payload[_HEAD + (before >> 3)] >> (before & 7) & 1 and before not in long_data:
            at = skip_value(payload, at, types[2 * before])
    return at


def rebuild_execute(payload: bytes, statement_id: int, param_count: int, known_types: bytes | None) -> bytes:
    """The same execution for another statement id, with its types: what another connection can take.

    `known_types` are put in when the packet has none. Raises RemoteProtocolError like `parse_execute`.
    """
    if len(payload) < _HEAD or payload[0] != _EXECUTE:
        raise RemoteProtocolError("not a COM_STMT_EXECUTE")
    head = payload[:1] + statement_id.to_bytes(4, "little")
    types, new_types, values_at = _types(payload, param_count, known_types)
    if new_types or not param_count:
        return head + payload[5:]
    return b"".join((head, payload[5 : values_at - 1], b"\1", types, payload[values_at:]))


def select_parameters(execution: ExecuteParameters, numbers: Sequence[int]) -> ExecuteParameters:
    """An execution with these parameters of another one, in this order, a parameter as often as it is named.

    Raises RemoteProtocolError when a value cannot be read.
    """
    starts: list[int] = []
    at = execution.values_at
    for index in range(execution.count):
        starts.append(at)
        if index not in execution.long_data and not _is_null(execution.payload, index):
            at = skip_value(execution.payload, at, execution.types[2 * index])
    starts.append(at)
    nulls = 0
    types = bytearray()
    values: list[bytes] = []
    long_data: dict[int, bytes] = {}
    for place, number in enumerate(numbers):
        types += execution.types[2 * number : 2 * number + 2]
        if number in execution.long_data:
            long_data[place] = execution.long_data[number]
        elif _is_null(execution.payload, number):
            nulls |= 1 << place
        else:
            values.append(execution.payload[starts[number] : starts[number + 1]])
    head = execution.payload[:5] + b"\0\1\0\0\0"
    count = len(numbers)
    bitmap = nulls.to_bytes((count + 7) // 8, "little")
    body = b"".join((bitmap, b"\1", bytes(types), *values)) if count else b""
    return ExecuteParameters(
        payload=head + body,
        statement_id=execution.statement_id,
        flags=0,
        count=count,
        new_types=count > 0,
        types=bytes(types),
        nulls_at=_HEAD,
        values_at=_HEAD + len(bitmap) + 1 + len(types) if count else _HEAD,
        long_data=long_data,
    )


def without_values(execution: ExecuteParameters, types: Container[int]) -> ExecuteParameters:
    """An execution whose parameters of these types are NULL and take no bytes: what is there is the next one's.

    Raises RemoteProtocolError when nothing is left for one of them, or a value cannot be read.
    """
    bitmap = bytearray(execution.null_bitmap)
    at = execution.values_at
    for index in range(execution.count):
        if index in execution.long_data or _is_null(execution.payload, index):
            continue
        kind = execution.types[2 * index]
        if kind not in types:
            at = skip_value(execution.payload, at, kind)
            continue
        if at >= len(execution.payload):
            raise RemoteProtocolError(f"cut off at byte {at}: parameter {index} is missing")
        bitmap[index >> 3] |= 1 << (index & 7)
    start = execution.nulls_at
    payload = execution.payload[:start] + bytes(bitmap) + execution.payload[start + len(bitmap) : at]
    return replace(execution, payload=payload)


def append_integers(execution: ExecuteParameters, numbers: Sequence[int]) -> ExecuteParameters:
    """An execution with further parameters behind its own: unsigned integers of 64 bits."""
    count = execution.count + len(numbers)
    nulls = int.from_bytes(execution.null_bitmap, "little") & ((1 << execution.count) - 1)
    types = execution.types + bytes((FieldType.LONGLONG, _UNSIGNED)) * len(numbers)
    bitmap = nulls.to_bytes((count + 7) // 8, "little")
    values = execution.payload[execution.values_at :] + b"".join(n.to_bytes(8, "little") for n in numbers)
    head = execution.payload[:5] + b"\0\1\0\0\0"
    return ExecuteParameters(
        payload=b"".join((head, bitmap, b"\1", types, values)) if count else head,
        statement_id=execution.statement_id,
        flags=0,
        count=count,
        new_types=count > 0,
        types=types,
        nulls_at=_HEAD,
        values_at=_HEAD + len(bitmap) + 1 + len(types) if count else _HEAD,
        long_data=execution.long_data,
    )


def build_execute(
    statement_id: int,
    parameters: Sequence[tuple[int, bool, Value]],
    flags: int = 0,
    with_types: bool = True,
    long_data: Container[int] = (),
) -> bytes:
    """A COM_STMT_EXECUTE; each parameter is type, unsigned, value. Values at indexes in `long_data` are left out."""
    head = bytes((_EXECUTE,)) + statement_id.to_bytes(4, "little") + bytes((flags,)) + b"\1\0\0\0"
    if not parameters:
        return head
    nulls = sum(1 << index for index, (_, _, value) in enumerate(parameters) if value is None)
    parts = [head, nulls.to_bytes((len(parameters) + 7) // 8, "little"), b"\1" if with_types else b"\0"]
    if with_types:
        parts.append(parameter_types(parameters))
    for index, (field_type, unsigned, value) in enumerate(parameters):
        if value is not None and index not in long_data:
            parts.append(build_value(value, field_type, unsigned))
    return b"".join(parts)


def parameter_types(parameters: Sequence[tuple[int, bool, Value]]) -> bytes:
    """The types block of `build_execute`."""
    return bytes(byte for kind, unsigned, _ in parameters for byte in (kind, _UNSIGNED if unsigned else 0))


# --- rows ---


def build_binary_row(values: Sequence[Value], columns: Sequence[ColumnDefinition]) -> bytes:
    """Payload of one row. Raises LocalProtocolError when a value does not fit its column."""
    nulls = sum(4 << index for index, value in enumerate(values) if value is None)
    parts = [bytes((OK_HEADER,)), nulls.to_bytes((len(columns) + 9) // 8, "little")]
    for value, column in zip(values, columns, strict=True):
        if value is not None:
            parts.append(build_value(value, column.type, column.unsigned))
    return b"".join(parts)


def parse_binary_row(payload: bytes, columns: Sequence[ColumnDefinition]) -> list[Value]:
    """The values of one row. Raises RemoteProtocolError when it does not fit the columns."""
    reader = PayloadReader(payload)
    if reader.integer(1) != OK_HEADER:
        raise RemoteProtocolError("not a binary row")
    nulls = int.from_bytes(reader.take((len(columns) + 9) // 8), "little") >> 2
    values: list[Value] = []
    at = reader.at
    for index, column in enumerate(columns):
        if nulls >> index & 1:
            values.append(None)
        else:
            value, at = read_value(payload, at, column.type, column.unsigned)
            values.append(value)
    PayloadReader(payload, at).expect_end("a binary row")
    return values
