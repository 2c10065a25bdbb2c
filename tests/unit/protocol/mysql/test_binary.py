from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.binary import (
    build_binary_row,
    build_execute,
    integer_parameter,
    parameter_types,
    parse_binary_row,
    parse_execute,
    rebuild_execute,
)
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import ColumnFlag, FieldType
from shardproxy.protocol.mysql.values import DateTime, Time

from . import captured
from .strategies import Typed, integer_values, nullable_values, same_value, u32

BIGINT = FieldType.LONGLONG.value
STRING = FieldType.VAR_STRING.value
parameter_lists = st.lists(nullable_values, min_size=1, max_size=20)


# --- execute ---


@given(u32, parameter_lists, st.booleans())
def test_execute_round_trip(statement_id: int, parameters: list[Typed], with_types: bool) -> None:
    types = parameter_types(parameters)
    payload = build_execute(statement_id, parameters, flags=1, with_types=with_types)
    execute = parse_execute(payload, len(parameters), None if with_types else types)
    assert (execute.statement_id, execute.flags, execute.count) == (statement_id, 1, len(parameters))
    assert execute.new_types == with_types
    assert execute.types == types
    for index, (got, (_, _, value)) in enumerate(zip(execute.parameters(), parameters, strict=True)):
        assert same_value(got, value)
        assert same_value(execute.parameter(index), value)
        assert execute.is_null(index) == (value is None)
        assert execute.null_bitmap[index // 8] >> (index % 8) & 1 == (value is None)


@given(st.lists(nullable_values, max_size=20), integer_values, st.lists(nullable_values, max_size=5), st.booleans())
def test_integer_parameter(before: list[Typed], wanted: Typed, after: list[Typed], with_types: bool) -> None:
    parameters = [*before, wanted, *after]
    types = parameter_types(parameters)
    payload = build_execute(1, parameters, with_types=with_types)
    known = None if with_types else types
    assert integer_parameter(payload, len(parameters), known, len(before)) == wanted[2]
    for index, (_, _, value) in enumerate(parameters):
        expected = value if isinstance(value, int) else None
        assert integer_parameter(payload, len(parameters), known, index) == expected


@given(parameter_lists, st.sets(st.integers(0, 19)))
def test_long_data_has_no_value_in_the_packet(parameters: list[Typed], long: set[int]) -> None:
    long_data = {index: b"long %d" % index for index in long if index < len(parameters)}
    payload = build_execute(1, parameters, long_data=long_data)
    execute = parse_execute(payload, len(parameters), None, long_data)
    for index, (_, _, value) in enumerate(parameters):
        expected = long_data.get(index, value)
        assert same_value(execute.parameter(index), expected)
        assert same_value(execute.parameters()[index], expected)
        assert execute.is_null(index) == (expected is None)
        integer = expected if isinstance(expected, int) else None
        assert integer_parameter(payload, len(parameters), None, index, long_data) == integer


@given(u32, parameter_lists, st.booleans())
def test_rebuild_execute(statement_id: int, parameters: list[Typed], with_types: bool) -> None:
    payload = build_execute(7, parameters, flags=2, with_types=with_types)
    known = None if with_types else parameter_types(parameters)
    rebuilt = rebuild_execute(payload, statement_id, len(parameters), known)
    assert rebuilt == build_execute(statement_id, parameters, flags=2, with_types=True)


def test_execute_without_parameters() -> None:
    payload = build_execute(3, [])
    assert len(payload) == 10
    execute = parse_execute(payload, 0)
    assert execute.parameters() == [] and execute.types == b"" and not execute.new_types
    assert rebuild_execute(payload, 4, 0, None) == build_execute(4, [])
    with pytest.raises(LocalProtocolError):
        execute.parameter(0)
    with pytest.raises(LocalProtocolError):
        integer_parameter(payload, 0, None, 0)


def test_execute_of_the_connector() -> None:
    execute = parse_execute(captured.CONNECTOR_EXECUTE, 6)
    assert execute.statement_id == 3
    assert execute.new_types
    assert execute.parameters() == [
        1,
        -5000000000,
        "Zoë".encode(),
        Decimal("1.5"),
        DateTime(2026, 11, 22, 1, 2, 3, 4),
        None,
    ]
    assert integer_parameter(captured.CONNECTOR_EXECUTE, 6, None, 0) == 1
    assert integer_parameter(captured.CONNECTOR_EXECUTE, 6, None, 1) == -5000000000
    assert integer_parameter(captured.CONNECTOR_EXECUTE, 6, None, 2) is None
    assert integer_parameter(captured.CONNECTOR_EXECUTE, 6, None, 5) is None


def test_execute_of_libmariadb_sends_types_once() -> None:
    first = parse_execute(captured.LIBMARIADB_EXECUTE, 1)
    assert first.new_types
    assert first.parameters() == [6]
    again = parse_execute(captured.LIBMARIADB_EXECUTE_AGAIN, 1, first.types)
    assert not again.new_types
    assert again.parameters() == [5]
    assert integer_parameter(captured.LIBMARIADB_EXECUTE_AGAIN, 1, first.types, 0) == 5
    rebuilt = rebuild_execute(captured.LIBMARIADB_EXECUTE_AGAIN, 4, 1, first.types)
    assert rebuilt == captured.LIBMARIADB_EXECUTE[:-8] + (5).to_bytes(8, "little")
    for known in (None, b"", b"\x08"):
        with pytest.raises(RemoteProtocolError, match="without types"):
            parse_execute(captured.LIBMARIADB_EXECUTE_AGAIN, 1, known)
        with pytest.raises(RemoteProtocolError, match="without types"):
            integer_parameter(captured.LIBMARIADB_EXECUTE_AGAIN, 1, known, 0)
        with pytest.raises(RemoteProtocolError, match="without types"):
            rebuild_execute(captured.LIBMARIADB_EXECUTE_AGAIN, 4, 1, known)


def test_execute_cut_anywhere() -> None:
    payload = captured.CONNECTOR_EXECUTE
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            parse_execute(payload[:length], 6).parameters()
        if length < payload.index(b"\x04Zo"):
            with pytest.raises(RemoteProtocolError):
                integer_parameter(payload[:length], 6, None, 1)


@pytest.mark.parametrize("payload", [b"", b"\x16" + bytes(30), captured.CONNECTOR_EXECUTE[:9]])
def test_what_is_no_execute(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a COM_STMT_EXECUTE"):
        parse_execute(payload, 1, b"\x08\0")
    with pytest.raises(RemoteProtocolError, match="not a COM_STMT_EXECUTE"):
        rebuild_execute(payload, 1, 1, b"\x08\0")


def test_parameter_count_that_the_packet_cannot_hold() -> None:
    for count in (65535, 10**6):
        with pytest.raises(RemoteProtocolError, match="cut off"):
            parse_execute(captured.CONNECTOR_EXECUTE, count)
        with pytest.raises(RemoteProtocolError, match="cut off"):
            integer_parameter(captured.CONNECTOR_EXECUTE, count, None, 0)


def test_announced_lengths_are_bounded_by_the_packet() -> None:
    payload = build_execute(1, [(STRING, False, b"abc"), (BIGINT, False, 7)])
    broken = payload.replace(b"\x03abc", b"\xfe" + b"\xff" * 8)
    with pytest.raises(RemoteProtocolError, match="cut off"):
        parse_execute(broken, 2).parameter(0)
    with pytest.raises(RemoteProtocolError, match="cut off"):
        integer_parameter(broken, 2, None, 1)


def test_index_out_of_range() -> None:
    payload = build_execute(1, [(BIGINT, False, 7)])
    for index in (-1, 1):
        with pytest.raises(LocalProtocolError, match="no parameter"):
            parse_execute(payload, 1).parameter(index)
        with pytest.raises(LocalProtocolError, match="no parameter"):
            integer_parameter(payload, 1, None, index)


def test_parameter_of_an_unknown_type_stops_at_itself() -> None:
    payload = build_execute(1, [(BIGINT, False, 7), (BIGINT, False, 8), (BIGINT, False, 9)])
    types_at = payload.index(bytes((BIGINT, 0)) * 3)
    broken = payload[: types_at + 2] + b"\xf3" + payload[types_at + 3 :]
    assert integer_parameter(broken, 3, None, 0) == 7
    assert integer_parameter(broken, 3, None, 1) is None
    with pytest.raises(RemoteProtocolError, match="unknown type 243"):
        integer_parameter(broken, 3, None, 2)
    with pytest.raises(RemoteProtocolError, match="unknown type 243"):
        parse_execute(broken, 3).parameter(1)


# --- rows ---


@given(st.lists(nullable_values, max_size=20))
def test_row_round_trip(typed: list[Typed]) -> None:
    columns = [
        ColumnDefinition(b"c", kind, flags=ColumnFlag.UNSIGNED.value if unsigned else 0) for kind, unsigned, _ in typed
    ]
    payload = build_binary_row([value for _, _, value in typed], columns)
    got = parse_binary_row(payload, columns)
    assert all(same_value(left, right) for left, (_, _, right) in zip(got, typed, strict=True))
    with pytest.raises(RemoteProtocolError):
        parse_binary_row(payload + b"x", columns)
    with pytest.raises(RemoteProtocolError):
        parse_binary_row(payload[:-1], columns)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (captured.MYSQL_COLUMNS, captured.MYSQL_BINARY_ROWS),
        (captured.MARIADB_COLUMNS, captured.MARIADB_BINARY_ROWS),
    ],
)
def test_rows_of_real_servers(columns: list[bytes], rows: list[bytes]) -> None:
    parsed = [ColumnDefinition.parse(payload) for payload in columns]
    full = parse_binary_row(rows[0], parsed)
    assert full == [
        2**64 - 1,
        5,
        65535,
        -8388608,
        -2147483648,
        2026,
        1.5,
        -2.25e100,
        Decimal("-12345.6789"),
        DateTime(2026, 11, 22),
        DateTime(2026, 11, 22, 17, 46, 42, 123456),
        DateTime(2026, 11, 22, 17, 46, 42),
        Time(True, 4, 5, 2, 3, 4),
        b"abc",
        "Zoë".encode(),
        b"\x00\xff\x00",
        b"text",
        b"\xff",
        b"\x02\x01",
        b"b",
        b"x,y",
        b'{"k": 1}',
    ]
    zero = parse_binary_row(rows[1], parsed)
    assert zero == [
        0,
        5,
        *[None] * 7,
        DateTime(),
        DateTime(),
        None,
        Time(),
        b"",
        b"",
        b"",
        b"",
        b"",
        b"\0\0",
        None,
        b"",
        b"null",
    ]
    assert [build_binary_row(values, parsed) for values in (full, zero)] == rows


def test_row_cut_anywhere() -> None:
    columns = [ColumnDefinition.parse(payload) for payload in captured.MYSQL_COLUMNS]
    payload = captured.MYSQL_BINARY_ROWS[0]
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            parse_binary_row(payload[:length], columns)


def test_row_with_another_header() -> None:
    with pytest.raises(RemoteProtocolError, match="not a binary row"):
        parse_binary_row(b"\x01\x00", [])


def test_row_that_does_not_fit_its_columns() -> None:
    with pytest.raises(LocalProtocolError):
        build_binary_row([300], [ColumnDefinition(b"c", FieldType.TINY.value)])
    with pytest.raises(ValueError, match="shorter"):
        build_binary_row([1, 2], [ColumnDefinition(b"c", FieldType.TINY.value)])
