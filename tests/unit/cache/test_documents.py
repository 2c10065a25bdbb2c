"""Rows as values."""

from __future__ import annotations

import json
from base64 import b64decode
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.cache.documents import hash_field, hash_fields, hash_reply, json_document
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Collation, ColumnFlag, FieldType
from shardproxy.protocol.redis.replies import values_of

BINARY = Collation.BINARY.value


def column(kind: FieldType, charset: int = BINARY, flags: int = 0, name: bytes = b"c") -> ColumnDefinition:
    return ColumnDefinition(name, kind.value, charset, flags=flags)


@given(st.text())
def test_text_comes_back(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    document = json_document([column(FieldType.VAR_STRING, 45)], [text.encode()])
    assert json.loads(document) == {"c": text}


@given(st.binary())
def test_bytes_come_back(data: bytes) -> None:
    for kind in (FieldType.BLOB, FieldType.STRING, FieldType.BIT, FieldType.GEOMETRY, FieldType.VECTOR):
        assert b64decode(json.loads(json_document([column(kind)], [data]))["c"]) == data


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_come_back(number: int) -> None:
    assert json.loads(json_document([column(FieldType.LONGLONG)], [b"%d" % number])) == {"c": number}


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (FieldType.NEWDECIMAL, b"10.10", '"10.10"'),
        (FieldType.DATETIME, b"2020-01-01 00:00:00.5", '"2020-01-01 00:00:00.5"'),
        (FieldType.DATE, b"0000-00-00", '"0000-00-00"'),
        (FieldType.TIME, b"-838:59:59", '"-838:59:59"'),
        (FieldType.YEAR, b"2020", "2020"),
        (FieldType.DOUBLE, b"1.5e-300", "1.5e-300"),
        (FieldType.JSON, b'{"a": [1]}', '{"a": [1]}'),
        (FieldType.LONG, None, "null"),
    ],
)
def test_how_types_are_written(kind: FieldType, value: bytes | None, shown: str) -> None:
    document = json_document([column(kind)], [value])
    assert document == f'{{"c":{shown}}}'.encode()
    json.loads(document)


@pytest.mark.parametrize(
    ("value", "number"), [(b"00007", 7), (b"00000", 0), (b"000.5", Decimal("0.5")), (b"01.50", Decimal("1.5"))]
)
def test_zerofill_is_a_number_all_the_same(value: bytes, number: object) -> None:
    document = json_document([column(FieldType.FLOAT, flags=ColumnFlag.ZEROFILL.value)], [value])
    assert json.loads(document, parse_float=Decimal)["c"] == number


@given(st.dictionaries(st.binary(max_size=5), st.none() | st.binary()))
def test_a_hash_has_the_fields_that_are_not_null(row: dict[bytes, bytes | None]) -> None:
    fields = hash_fields([column(FieldType.BLOB, name=name) for name in row], list(row.values()))
    given = {name: data for name, data in row.items() if data is not None}
    assert len(values_of(hash_reply(fields, resp3=False))) == 2 * len(given)
    assert hash_reply(fields, resp3=True).startswith(b"%%%d\r\n" % len(given))
    for name, data in row.items():
        assert hash_field(fields, name) == (None if data is None else b"$%d\r\n%b\r\n" % (len(data), data))
    assert hash_field(fields, b"longer") is None
