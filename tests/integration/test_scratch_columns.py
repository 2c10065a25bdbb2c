"""Values of every column type, read as scratch tables read them and written as they write them, are what they were."""

from __future__ import annotations

from typing import Any

import pytest

from shardproxy.errors import UnsupportedError
from shardproxy.executor.scratch_columns import column, quoted
from shardproxy.local import LocalServer
from shardproxy.local.flavors import FlavorName

MEMBERS = ",".join(f"'s{i}'" for i in range(64))
TYPES: list[tuple[str, list[str]]] = [
    ("TINYINT", ["-128", "127", "0"]),
    ("BIGINT UNSIGNED", ["18446744073709551615", "0"]),
    ("INT(8) ZEROFILL", ["42", "99999999"]),
    ("FLOAT", ["0.1", "-0e0", "3.4028234e38", "1e-40", "16777217", "123456.789", "1.17549435e-38"]),
    ("FLOAT(10,3)", ["1234.567", "0.001"]),
    ("DOUBLE", ["0.1", "-0e0", "1.7976931348623157e308", "5e-324", "1e15/3", "123456789.123456789"]),
    ("DOUBLE(12,4)", ["1.2345", "99999999.9999"]),
    ("DECIMAL(65,30)", ["1.000000000000000000000000000001", "-99999999999999999999999999999999999.9"]),
    ("BIT(64)", ["0xffffffffffffffff", "0", "5"]),
    ("BIT(12)", ["0xabc"]),
    ("CHAR(7)", ["'ab  '", "''", "'é'"]),
    ("VARCHAR(90)", ["'a\\\\b'", "'q''uote'", "'tail  '", "'\\0nul'", "'\U0001f600'", "'NULL'"]),
    ("VARCHAR(20) CHARACTER SET latin1", ["_latin1 x'8180e9ff00275c'"]),
    ("VARCHAR(20) CHARACTER SET utf16", ["_utf16 x'0061d83dde00'"]),
    ("CHAR(5) CHARACTER SET ucs2", ["_ucs2 x'00270061'"]),
    ("TEXT CHARACTER SET utf32", ["_utf32 x'0001f600'"]),
    ("BINARY(6)", ["x'00'", "x'616200200000'"]),
    ("VARBINARY(20)", ["x'0020ff27005c'", "''"]),
    ("LONGTEXT", ["REPEAT('xé', 300)"]),
    ("BLOB", ["x'00ff'", "REPEAT('z', 300)"]),
    ("ENUM('one','','three')", ["'one'", "''", "'three'", "'bogus'"]),
    ("ENUM('x','y')", ["'bogus'"]),
    (f"SET({MEMBERS})", ["'s63,s0'", "''", "18446744073709551615"]),
    ("DATE", ["'0000-00-00'", "'2020-00-00'", "'2020-02-31'", "'9999-12-31'"]),
    ("TIME(6)", ["'-838:59:58.999999'", "'-00:00:00.5'", "'12:00:00'"]),
    ("DATETIME(6)", ["'0000-00-00'", "'1000-01-01 00:00:00.000001'", "'2020-02-31 01:02:03'"]),
    ("TIMESTAMP(6) NULL", ["'0000-00-00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.999999'"]),
    ("YEAR", ["0", "1901", "2155", "2000"]),
    ("JSON", ["""'{"a": [1, 1.5, 1e100, null, "it\\'s"]}'""", "'\"\U0001f600\"'", "'1.0'", "'null'"]),
    ("GEOMETRY", ["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1,2 39)', 4326)"]),
    ("POINT", ["ST_GeomFromText('POINT(39 92)')"]),
]
ONLY: dict[FlavorName, list[tuple[str, list[str]]]] = {
    "mysql": [("VECTOR(4)", ["STRING_TO_VECTOR('[1,2,3,0.1]')"])],
    "mariadb": [
        ("INET6", ["'::1'", "'2001:db8::ff00:42:8329'"]),
        ("INET4", ["'1.2.3.4'"]),
        ("UUID", ["'123e4567-e89b-12d3-a456-426655440000'"]),
    ],
}
# What tells two values apart that `<=>` takes for equal, such as -0.0 and 0.0, or ENUM 0 and ENUM ''.
SEEN_AS = ("HEX({0})", "CAST({0} AS BINARY)", "{0}")


@pytest.mark.parametrize("charset", ["latin1", "utf8mb4"])
def test_every_type_arrives_as_it_was(oracle: LocalServer, flavor: FlavorName, charset: str) -> None:
    with oracle.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'")
        cursor.execute("DROP DATABASE IF EXISTS scratch_types")
        cursor.execute("CREATE DATABASE scratch_types")
        cursor.execute("USE scratch_types")
        for kind, values in TYPES + ONLY[flavor]:
            cursor.execute("DROP TABLE IF EXISTS origin, arrived")
            for table in ("origin", "arrived"):
                cursor.execute(f"CREATE TABLE {table} (k INT PRIMARY KEY, v {kind}, made INT AS (k + 1))")
            for i, value in enumerate([*values, "NULL"]):
                cursor.execute(f"INSERT INTO origin (k, v) VALUES ({i}, {value})")
            connection.commit()
            _carry(connection, oracle, charset)
            for seen in SEEN_AS:
                here, there = seen.format("a.v"), seen.format("b.v")
                same = f"SUM({here} <=> {there} AND a.made = b.made)"
                cursor.execute(f"SELECT COUNT(*), {same} FROM origin a JOIN arrived b USING (k)")
                assert cursor.fetchall() == ((len(values) + 1, len(values) + 1),), (kind, seen)
        cursor.execute("DROP DATABASE scratch_types")


KEPT = ("[1, 1.5, -0.0, 1e100, null, true, 18446744073709551615]", '{"a": {"b": "é"}, "c": []}', '"2020-01-01"')
LOST = (
    "JSON_OBJECT('a', 1.55)",
    "JSON_ARRAY(CAST('2020-01-01' AS DATE))",
    "CAST(CAST('10:11:12' AS TIME) AS JSON)",
    "JSON_ARRAY(1, JSON_OBJECT('b', x'00ff'))",
    "JSON_ARRAY(TIMESTAMP'2020-01-01 00:00:00')",
)


def test_json_that_its_text_does_not_carry_is_found(oracle: LocalServer, flavor: FlavorName) -> None:
    if flavor == "mariadb":
        assert oracle.rows("SELECT CAST(JSON_ARRAY(DATE'2020-01-01') AS CHAR)") == [('["2020-01-01"]',)]
        return  # JSON is text there
    made = column("j", "json", None, "", False)
    assert made is not None and made.json
    with oracle.connect(charset="latin1") as connection, connection.cursor() as cursor:
        for values, lost in ((KEPT, False), (LOST, True)):
            for value in values:
                value = value if lost else f"CAST('{value}' AS JSON)"
                cursor.execute(f"SELECT {made.expression.decode()} FROM (SELECT {value} AS j) d")
                ((found,),) = cursor.fetchall()
                assert (found == b"") is lost, (value, found)
    with pytest.raises(UnsupportedError, match="column 'j'"):
        made.literal(b"")


def _carry(connection: Any, server: LocalServer, charset: str) -> None:
    """Rows of `origin` to `arrived`, read in a session with other settings, written in that of scratch tables."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW COLUMNS FROM origin")
        described = cursor.fetchall()
    columns = []
    for name, kind, _, key, default, extra in described:
        text = kind.decode() if isinstance(kind, bytes) else kind
        found = column(name, text, default, extra, bool(key))
        if found is not None:
            columns.append(found)
    assert [c.name for c in columns] == ["k", "v"]
    reader = server.connect("scratch_types", charset=charset, use_unicode=False, conv={})
    with reader, reader.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ANSI_QUOTES', time_zone = '+02:00'")
        cursor.execute(b"SELECT " + b",".join(c.expression for c in columns) + b" FROM origin")
        rows = cursor.fetchall()
    with connection.cursor() as cursor:
        cursor.execute("SET NAMES binary")
        for row in rows:
            values = [b"NULL" if v is None else c.literal(v) for c, v in zip(columns, row, strict=True)]
            names = b",".join(quoted(c.name) for c in columns)
            cursor.execute(b"INSERT INTO arrived (" + names + b") VALUES (" + b",".join(values) + b")")
        connection.commit()
        cursor.execute("SET NAMES utf8mb4")
