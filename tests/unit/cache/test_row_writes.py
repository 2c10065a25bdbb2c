"""Values of Redis commands as SQL literals."""

from __future__ import annotations

import json
import re
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.cache.documents import json_document
from shardproxy.cache.patterns import CachedRows
from shardproxy.cache.row_writes import BadValue, RowSql, from_json, from_text
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.topology.schema import Column, TableSchema

ROWS = CachedRows("items", "items:{uid}:{no}", "main", "it`ems", "json", 1000, 0, True)
COLUMNS = (
    Column("no", "int", "int(11)"),
    Column("uid", "bigint", "bigint(20)"),
    Column("name", "varchar", "varchar(20)"),
    Column("twice", "int", "int(11)", extra="VIRTUAL GENERATED"),
)
SQL = RowSql(ROWS, TableSchema("main", "it`ems", COLUMNS, (("no", "uid"),), ("no", "uid")))


def meant(literal: bytes) -> bytes:
    """The text that a server makes of a literal, in every sql_mode."""
    converted = re.fullmatch(rb"CONVERT\(x'([0-9a-f]*)' USING utf8mb4\)", literal)
    if converted is not None:
        return bytes.fromhex(converted[1].decode())
    assert literal[:1] == literal[-1:] == b"'" and b"'" not in literal[1:-1] and b"\\" not in literal
    return literal[1:-1]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_texts(text: str) -> None:
    column = Column("c", "varchar", "varchar(20)")
    assert meant(from_json(column, text)) == meant(from_text(column, text.encode())) == text.encode()


@given(st.binary())
def test_bytes(data: bytes) -> None:
    column = Column("c", "blob", "blob")
    assert from_json(column, b64encode(data).decode()) == from_text(column, data) == b"x'%b'" % data.hex().encode()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text("aü\\\"'"), inner)))  # fmt: skip
def test_json_columns(value: object) -> None:
    column = Column("name", "json", "json")
    definition = ColumnDefinition(b"name", FieldType.JSON.value, 45)
    kept = json_document([definition], [json.dumps(value).encode()])
    sql = RowSql(ROWS, TableSchema("main", "it`ems", (*COLUMNS[:2], column), (), ("no", "uid")))
    document = kept[:-1] + b', "no": 1, "UID": 2}'
    assert json.loads(meant(sql.of_document((2, 1), document)["name"])) == value


def test_numbers_are_written_as_they_came() -> None:
    sql = RowSql(ROWS, TableSchema("main", "t", (*COLUMNS[:2], Column("r", "double", "double")), (), ("no", "uid")))
    for number in ("1e300", "0.10", "18446744073709551615", "-0"):
        assert sql.of_document((2, 1), b'{"no": 1, "uid": 2, "r": %b}' % number.encode()) == {"r": number.encode()}
    for number in ("NaN", "-Infinity", "1.", '"1"'):
        with pytest.raises(BadValue):
            sql.of_document((2, 1), b'{"no": 1, "uid": 2, "r": %b}' % number.encode())
    for text in (b"1; DROP TABLE t", b"", b"0x10", b"1 ", "\u0661".encode()):
        with pytest.raises(BadValue):
            from_text(Column("c", "int", "int"), text)


def test_statements() -> None:
    values = SQL.of_fields((2, 1), [b"name", b"x", b"UID", b"2"])
    assert values == {"name": b"'x'"}
    table, where = b"`main`.`it``ems`", b"`uid` = 2 AND `no` = 1"
    assert SQL.lock((2, 1), COLUMNS[2:3]) == b"SELECT `name` FROM %b WHERE %b FOR UPDATE" % (table, where)
    assert SQL.lock((2, 1), ()) == b"SELECT 1 FROM %b WHERE %b FOR UPDATE" % (table, where)
    assert SQL.insert((2, 1), values) == b"INSERT INTO %b (`uid`, `no`, `name`) VALUES (2, 1, 'x')" % table
    assert SQL.update((2, 1), values) == b"UPDATE %b SET `name` = 'x' WHERE %b" % (table, where)
    assert SQL.delete((2, 1)) == b"DELETE FROM %b WHERE %b" % (table, where)
    assert SQL.of_document((2, 1), b'{"NO": 1, "uid": 2, "name": null, "twice": 7}') == {"name": b"NULL"}
    with pytest.raises(BadValue, match="twice is a generated column"):
        SQL.of_fields((2, 1), [b"twice", b"1"])
