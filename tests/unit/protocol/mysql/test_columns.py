from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.columns import ColumnDefinition, same_shape
from shardproxy.protocol.mysql.constants import Collation, ColumnFlag, FieldType

from . import captured
from .strategies import columns

CAPTURED = [captured.MYSQL_COLUMNS, captured.MARIADB_COLUMNS]


@given(columns)
def test_round_trip(column: ColumnDefinition) -> None:
    assert ColumnDefinition.parse(column.build()) == column


@given(columns, st.none() | st.binary(max_size=300))
def test_round_trip_with_default(column: ColumnDefinition, default: bytes | None) -> None:
    column = replace(column, default=default)
    assert ColumnDefinition.parse(column.build(with_default=True), with_default=True) == column


@pytest.mark.parametrize("payloads", CAPTURED)
def test_definitions_of_real_servers(payloads: list[bytes]) -> None:
    parsed = [ColumnDefinition.parse(payload) for payload in payloads]
    assert [column.build() for column in parsed] == payloads
    assert [column.name for column in parsed[:3]] == [b"id", b"i8", b"i16"]
    by_name = {column.name: column for column in parsed}
    assert by_name[b"id"].type == FieldType.LONGLONG and by_name[b"id"].unsigned
    assert by_name[b"i8"].type == FieldType.TINY and not by_name[b"i8"].unsigned
    assert by_name[b"de"].type == FieldType.NEWDECIMAL and by_name[b"de"].decimals == 10
    assert by_name[b"v"].charset == Collation.UTF8MB4_GENERAL_CI and by_name[b"v"].length == 200
    assert by_name[b"b"].charset == Collation.BINARY
    assert by_name[b"e"].flags & ColumnFlag.ENUM
    assert {column.org_table for column in parsed} == {b"t"}
    assert {column.catalog for column in parsed} == {b"def"}


@pytest.mark.parametrize("payload", [captured.MYSQL_FIELD_LIST_COLUMN, captured.MARIADB_FIELD_LIST_COLUMN])
def test_definition_with_default_of_real_servers(payload: bytes) -> None:
    column = ColumnDefinition.parse(payload, with_default=True)
    assert (column.name, column.default) == (b"Host", b"")
    assert column.build(with_default=True) == payload
    with pytest.raises(RemoteProtocolError, match="1 bytes too many"):
        ColumnDefinition.parse(payload)


@pytest.mark.parametrize("payload", [captured.MYSQL_COLUMNS[0], captured.MARIADB_COLUMNS[-1]])
def test_cut_anywhere(payload: bytes) -> None:
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            ColumnDefinition.parse(payload[:length])


def test_fixed_part_of_another_length() -> None:
    payload = captured.MYSQL_COLUMNS[0]
    with pytest.raises(RemoteProtocolError, match="not 12 bytes"):
        ColumnDefinition.parse(payload.replace(b"\x0c\x3f\x00", b"\x0d\x3f\x00"))


def test_same_shape_ignores_what_does_not_change_values() -> None:
    column = ColumnDefinition(b"c", FieldType.LONG.value, 63, 11, ColumnFlag.NUM.value, 0, b"db1", b"t")
    for other in (
        replace(column, length=20),
        replace(column, schema=b"db2", table=b"alias", org_name=b"x"),
        replace(column, flags=int(ColumnFlag.NUM | ColumnFlag.NOT_NULL | ColumnFlag.PRI_KEY)),
    ):
        assert same_shape(column, other)
        assert same_shape(other, column)
    for other in (
        replace(column, name=b"d"),
        replace(column, type=FieldType.LONGLONG.value),
        replace(column, charset=45),
        replace(column, decimals=2),
        replace(column, flags=int(ColumnFlag.NUM | ColumnFlag.UNSIGNED)),
        replace(column, flags=int(ColumnFlag.NUM | ColumnFlag.ZEROFILL)),
    ):
        assert not same_shape(column, other)
        assert not same_shape(other, column)
