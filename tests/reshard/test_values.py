"""Every type: what the copy writes and what the binlog writes is what a SELECT of the source gives."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from shardproxy.local.flavors import FlavorName
from shardproxy.reshard import binlog
from shardproxy.reshard.change_source import SourceSettings, changes
from shardproxy.reshard.columns import TableShape
from shardproxy.reshard.copier import primary_of
from shardproxy.reshard.link import LinkLogin, connect
from shardproxy.reshard.shapes import read_shape
from shardproxy.reshard.snapshot import source_position
from shardproxy.reshard.stream import Stream, start_stream
from shardproxy.topology.keys import KeyType
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import LOGIN, Sides

ALL = MovingKeys(KeyType.INT, intervals=[(-(2**63), 2**64)])
Make = Callable[[random.Random], Any]
ROWS = 60


def of(*values: Any) -> Make:
    """One of them."""
    return lambda dice: dice.choice(values)


def integer(bits: int, signed: bool) -> Make:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return lambda dice: dice.choice([low, high, 0, 1, dice.randint(low, high), dice.randint(max(low, -9), 99)])


def text(most: int, alphabet: str = "aZ0 '\\\"\n\r\t\0%_,()é日本😀") -> Make:
    return lambda dice: "".join(dice.choice(alphabet) for _ in range(dice.randrange(most + 1)))


def binary(most: int) -> Make:
    return lambda dice: dice.choice(
        [bytes(dice.choice((0, 32, 39, 92, 255, 65, 129)) for _ in range(dice.randrange(most + 1))), b"", b"\0" * most]
    )


def real(dice: random.Random) -> Any:
    return dice.choice([0, -0.0, 1.5, -1e-30, 3.4e38, 0.1, 123456789.123, dice.uniform(-1e6, 1e6), 1e15, 16777217])


def double(dice: random.Random) -> Any:
    return dice.choice([0.0, -0.0, 1e308, -5e-324, 0.1 + 0.2, 1e16, 1e22, dice.uniform(-1e300, 1e300), 2**53 + 1.0])


def decimal(digits: int, scale: int) -> Make:
    def make(dice: random.Random) -> str:
        whole = dice.randrange(10 ** dice.randrange(1, digits - scale + 1)) if digits > scale else 0
        fraction = f".{dice.randrange(10**scale):0{scale}d}" if scale else ""
        return f"{dice.choice(('', '-'))}{whole}{fraction}"

    return make


def time_of(decimals: int) -> Make:
    def make(dice: random.Random) -> str:
        fraction = f".{dice.randrange(10**decimals):0{decimals}d}" if decimals else ""
        clock = f"{dice.randrange(838):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}{fraction}"
        half = "-00:00:00" + (fraction or "")
        return dice.choice([clock, "-" + clock, half, "838:59:59", "-838:59:59", "00:00:00"])

    return make


def datetime_of(decimals: int, stamp: bool = False) -> Make:
    def make(dice: random.Random) -> str:
        fraction = f".{dice.randrange(10**decimals):0{decimals}d}" if decimals else ""
        year = dice.randrange(1971, 2037) if stamp else dice.randrange(1, 9999)
        moment = f"{year:04d}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d} 03:04:05{fraction}"
        odd = [] if stamp else ["2001-00-00 00:00:00", "2023-02-31 01:02:03", "9999-12-31 23:59:59"]
        return dice.choice([moment, "0000-00-00 00:00:00", *odd])

    return make


def json_value(dice: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: None, lambda: True, lambda: False, lambda: dice.randint(-(2**63), 2**64 - 1),
        lambda: dice.randint(-9, 9), lambda: dice.randint(-70000, 70000), lambda: dice.uniform(-1e9, 1e9),
        lambda: 1e300, lambda: 0.5,
        lambda: text(12)(dice).replace("\0", "\x01"), lambda: "long " * dice.randrange(60),
    ]  # fmt: skip
    if depth < 3:
        kinds += [
            lambda: [json_value(dice, depth + 1) for _ in range(dice.randrange(4))],
            lambda: {text(5)(dice).replace("\0", "n"): json_value(dice, depth + 1) for _ in range(dice.randrange(4))},
        ]
    return dice.choice(kinds)()


def document(dice: random.Random) -> str:
    value = json_value(dice)
    if dice.random() < 0.05:
        value = {f"key {i}": "x" * 300 for i in range(300)}  # the large format
    return json.dumps(value, ensure_ascii=dice.random() < 0.5)


COMMON: list[tuple[str, Make]] = [
    ("TINYINT", integer(8, True)), ("TINYINT UNSIGNED", integer(8, False)), ("SMALLINT", integer(16, True)),
    ("SMALLINT UNSIGNED", integer(16, False)), ("MEDIUMINT", integer(24, True)),
    ("MEDIUMINT UNSIGNED", integer(24, False)), ("INT", integer(32, True)), ("INT UNSIGNED", integer(32, False)),
    ("INT UNSIGNED ZEROFILL", integer(32, False)), ("BIGINT", integer(64, True)),
    ("BIGINT UNSIGNED", integer(64, False)),
    ("FLOAT", real), ("FLOAT(9,3)", lambda dice: dice.uniform(-99999, 99999)), ("DOUBLE", double),
    ("DOUBLE(12,4)", lambda dice: dice.uniform(-999999, 999999)), ("DECIMAL(1,0)", decimal(1, 0)),
    ("DECIMAL(10,2)", decimal(10, 2)), ("DECIMAL(65,30)", decimal(65, 30)), ("DECIMAL(18,9)", decimal(18, 9)),
    ("DECIMAL(20,20)", decimal(20, 20)),
    ("DATE", of("2020-02-29", "0000-00-00", "2001-00-10", "9999-12-31", "1000-01-01")),
    ("YEAR", of("1901", "2155", "0000", "2024")), ("TIME", time_of(0)), ("TIME(1)", time_of(1)),
    ("TIME(3)", time_of(3)),
    ("TIME(6)", time_of(6)), ("DATETIME", datetime_of(0)), ("DATETIME(2)", datetime_of(2)),
    ("DATETIME(5)", datetime_of(5)),
    ("DATETIME(6)", datetime_of(6)), ("TIMESTAMP", datetime_of(0, True)), ("TIMESTAMP(4)", datetime_of(4, True)),
    ("TIMESTAMP(6)", datetime_of(6, True)), ("CHAR(10)", text(10)), ("CHAR(80)", text(80)), ("CHAR(0)", of("")),
    ("VARCHAR(30)", text(30)), ("VARCHAR(300)", text(300)),
    ("VARCHAR(20) CHARACTER SET latin1", text(20, "a'\\éÿ€\x81\x8d ")),
    ("CHAR(20) CHARACTER SET latin1", text(20, "aé\x81 ")),
    ("VARCHAR(20) CHARACTER SET utf16", text(20)), ("CHAR(9) CHARACTER SET utf16", text(9)),
    ("VARCHAR(20) CHARACTER SET ucs2", text(20, "aé日 ")), ("VARCHAR(20) CHARACTER SET sjis", text(20, "aｱ日本\\ ")),
    ("VARCHAR(20) CHARACTER SET gbk", text(20, "a日本\\' ")), ("TEXT CHARACTER SET utf8mb3", text(50, "aé日\\ ")),
    ("VARCHAR(20) CHARACTER SET ascii", text(20, "az '\\")), ("BINARY(8)", binary(8)), ("BINARY(200)", binary(200)),
    ("VARBINARY(20)", binary(20)), ("VARBINARY(400)", binary(400)), ("TINYBLOB", binary(200)), ("BLOB", binary(900)),
    ("MEDIUMBLOB", binary(900)), ("LONGBLOB", binary(900)), ("TINYTEXT", text(50)), ("TEXT", text(400)),
    ("MEDIUMTEXT", text(400)), ("LONGTEXT", text(400)), ("BIT(1)", of(0, 1)), ("BIT(13)", integer(13, False)),
    ("BIT(64)", integer(64, False)), ("ENUM('a','é','x''y','')", of("a", "é", "x'y", "", 1, 4)),
    ("ENUM(" + ",".join(f"'v{i}'" for i in range(300)) + ")", of("v0", "v299", "v7")),
    ("SET('a','b','é')", of("", "a", "a,é", "a,b,é")),
    ("SET(" + ",".join(f"'v{i}'" for i in range(64)) + ")", of("v0,v63", "v63", "", "v5")),
    ("GEOMETRY", of("POINT(1 2)", "LINESTRING(0 0,1 1.5)", "POLYGON((0 0,1 0,1 1,0 0))")),
    ("POINT", of("POINT(3 -4.25)")),
    ("JSON", document), ("VARCHAR(10) INVISIBLE", text(10)),
]  # fmt: skip
MARIADB: list[tuple[str, Make]] = [
    ("UUID", of("123e4567-e89b-12d3-a456-426655440000", "00000000-0000-0000-0000-000000000000",
                "ffffffff-ffff-ffff-ffff-ffffffffffff", "019234ab-cdef-7abc-8def-001122334400",
                "1ec9414c-232a-6b00-b3c8-9e6bdeced846", "123e4567-e89b-42d3-2456-426655440000",
                "123e4567-e89b-82d3-a456-426655440000", "123e4567-e89b-92d3-a456-426655440000")),
    ("INET6", of("::", "::1", "2001:db8::ff00:42:8329", "::ffff:192.0.2.1", "ffff::", "1::")),
    ("INET4", of("0.0.0.0", "192.168.1.0", "255.255.255.255")),
]  # fmt: skip
MYSQL: list[tuple[str, Make]] = [("VECTOR(3)", of(b"\0\0\x80?\0\0\0@\0\0@@"))]


def types(flavor: FlavorName) -> list[tuple[str, Make]]:
    return COMMON + (MARIADB if flavor == "mariadb" else MYSQL)


def create(sides: Sides, flavor: FlavorName) -> list[tuple[str, Make]]:
    """Table `every` with a column c0, c1, … of each type, and generated columns, on both sides."""
    made = types(flavor)
    columns = ", ".join(f"c{i} {kind} NULL DEFAULT NULL" for i, (kind, _) in enumerate(made))
    sides.both(
        f"CREATE TABLE every (id INT PRIMARY KEY, {columns}, g1 INT AS (id + 1) VIRTUAL, g2 VARCHAR(20) AS "
        "(CONCAT('g', id)) STORED, g3 BIGINT AS (id * 2) VIRTUAL) ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4"
    )
    return made


def fill(sides: Sides, made: list[tuple[str, Make]], first: int, dice: random.Random, update: bool = False) -> None:
    with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'")
        for identity in range(first, first + ROWS):
            names, marks, values = ["id"], ["%s"], [identity]
            for i, (kind, make) in enumerate(made):
                if dice.random() < 0.1:
                    continue
                value = make(dice)
                names.append(f"c{i}")
                spatial = kind in ("GEOMETRY", "POINT")
                marks.append("ST_GeomFromText(%s)" if spatial else "_binary %s" if isinstance(value, bytes) else "%s")
                values.append(value)
            verb = "REPLACE" if update else "INSERT"
            cursor.execute(f"{verb} INTO every ({','.join(names)}) VALUES ({','.join(marks)})", values)
            [(level, code, said)] = (cursor.execute("SHOW WARNINGS") and cursor.fetchall()[:1]) or [("", 0, "")]
            assert code in (0, 1265, 1264, 1292, 1366), (level, code, said)


def test_round_trip(sides: Sides, flavor: FlavorName) -> None:
    """Copied rows, rows inserted, changed and deleted later: equal on both sides, to the bit."""
    dice = random.Random(11)
    made = create(sides, flavor)
    fill(sides, made, 0, dice)
    sides.source.rows("INSERT INTO every (id) VALUES (-1)", database=sides.database)
    plan = sides.plan([("every", "id")], ALL)

    async def move() -> None:
        await start_stream(plan)
        stream = await Stream.open(plan)
        try:
            await stream.copy()
            fill(sides, made, ROWS, dice)
            fill(sides, made, ROWS // 2, dice, update=True)
            sides.source.rows("DELETE FROM every WHERE id % 7 = 0", database=sides.database)
            sides.mark(1)
            await stream.reach_marker(1)
        finally:
            await stream.close()

    asyncio.run(move())
    assert sides.assert_equal(plan) > ROWS
    sums = [exact_sums(sides, server, len(made)) for server in (sides.source, sides.target)]
    kinds = ["count", *(kind for kind, _ in made), "g1", "g2", "g3"]
    assert {k: pair for k, *pair in zip(kinds, *sums, strict=True) if pair[0] != pair[1]} == {}


def exact_sums(sides: Sides, server: Any, columns: int) -> list[Any]:
    """Of each column, in a form that shows every bit: HEX of its own text, number and weight."""
    names = [f"c{i}" for i in range(columns)] + ["g1", "g2", "g3"]
    listed = ", ".join(f"SUM(CRC32(CONCAT_WS('|', id, ISNULL({n}), HEX({n}), LENGTH({n})))) AS {n}" for n in names)
    [sums] = server.rows(f"SELECT COUNT(*), {listed} FROM every", database=sides.database)
    return list(sums)


def test_binlog_gives_what_select_gives(sides: Sides, flavor: FlavorName) -> None:
    """Text for text, but for floating point numbers, which may be written otherwise and must be the same number."""
    made = create(sides, flavor)
    login = LinkLogin(LOGIN.credentials)

    async def both() -> tuple[TableShape, dict[bytes, list[bytes | None]], dict[bytes, list[bytes | None]]]:
        server = sides.server(sides.source)
        async with await connect(server, login, (b"SET time_zone = '+00:00'",)) as link:
            begin = str(await source_position(link))
            fill(sides, made, 0, random.Random(5))
            shape = await read_shape(link, sides.database, "every", "id")
            sql = b"SELECT " + shape.select_list + b" FROM " + shape.quoted
            answer = await link.query(sql)
            selected = {
                primary_of(shape, row)[0]: values for row, values in zip(answer.rows, answer.values(), strict=True)
            }
            settings = SourceSettings(server, login, (shape,), ALL, begin, begin)
            decoded = await _decoded(settings, shape, len(selected))
        return shape, selected, decoded

    shape, selected, decoded = asyncio.run(both())
    assert decoded.keys() == selected.keys()
    for identity, values in selected.items():
        for place, value in zip(shape.written, values, strict=True):
            column = shape.columns[place]
            seen = decoded[identity][place]
            if seen is not None and value is not None and column.data_type in ("float", "double"):
                assert float(seen) == float(value), (column, seen, value)
            elif seen is not None and value is not None and column.data_type == "json":
                assert json.loads(seen) == json.loads(value), (column, seen, value)
            elif seen is not None and value is not None and column.column_type.endswith("zerofill"):
                assert int(seen) == int(value)
            elif column.data_type == "inet6":
                assert (seen is None) == (value is None)
            else:
                assert seen == value, (column, seen, value)


async def _decoded(settings: SourceSettings, shape: TableShape, rows: int) -> dict[bytes, list[bytes | None]]:
    """The row images of the binlog from a position on, by id; through the pure decoder."""
    found: dict[bytes, list[bytes | None]] = {}
    original = binlog._primary

    def keep(reading: Any, values: list[bytes | None]) -> bytes:
        found[values[shape.primary[0]] or b""] = list(values)
        return original(reading, values)

    binlog._primary = keep  # type: ignore[assignment]
    try:
        async for _ in changes(settings):
            if len(found) >= rows:
                return found
    finally:
        binlog._primary = original
    return found


@pytest.mark.parametrize("what", ["MINIMAL", "NOBLOB"])
def test_rows_without_all_columns_are_refused(sides: Sides, what: str) -> None:
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, a INT, b BLOB)")
    plan = sides.plan([("t", "id")], ALL)

    async def move() -> None:
        await start_stream(plan)
        stream = await Stream.open(plan)
        try:
            await stream.copy()
            with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
                cursor.execute(f"SET SESSION binlog_row_image = {what}")
                cursor.execute("INSERT INTO t VALUES (1, 2, 'x')")
                cursor.execute("UPDATE t SET a = 3")
            sides.mark(1)
            await stream.reach_marker(1)
        finally:
            await stream.close()

    with pytest.raises(Exception, match="binlog_row_image must be FULL"):
        asyncio.run(move())
