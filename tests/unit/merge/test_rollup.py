"""Super-aggregate groups beside the sums over all rows with the same first columns."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.merge import grouped, keys
from shardproxy.merge.grouped import CellReader, Rows
from shardproxy.merge.having import Compares, Condition, Held, Operand
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.rollup import RolledUp
from shardproxy.merge.stream import ShardStream, first_values
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_ok, lenenc_int, lenenc_str

INT = ColumnDefinition(b"i", FieldType.LONGLONG.value, 63)
DEC = ColumnDefinition(b"d", FieldType.NEWDECIMAL.value, 63)
Line = tuple[tuple[int | None, ...], int]  # values of the group's columns, a value
Row = list[int | Fraction | None]


def _columns(levels: int) -> list[ColumnDefinition]:
    """Keys; hidden SUM(x), COUNT(x) and MIN(x)'s key; the columns, COUNT(*), SUM(x), AVG(x), MIN(x), BIT_OR(x)."""
    return [INT] * levels + [DEC, INT, INT] + [INT] * levels + [INT, DEC, DEC, INT, INT]


def _packed(values: list[int | None], columns: list[ColumnDefinition], binary: bool) -> bytes:
    if not binary:
        return b"".join(b"\xfb" if v is None else lenenc_str(b"%d" % v) for v in values)
    out = b"\x00" + sum(1 << i + 2 for i, v in enumerate(values) if v is None).to_bytes(
        (len(values) + 9) // 8, "little"
    )
    for value, column in zip(values, columns, strict=True):
        if value is not None:
            out += value.to_bytes(8, "little", signed=True) if column is INT else lenenc_str(b"%d" % value)
    return out


def _order(key: tuple[int | None, ...]) -> list[tuple[bool, int]]:
    return [(value is not None, value or 0) for value in key]


def _bits(values: list[int]) -> int:
    found = 0
    for value in values:
        found |= value
    return found


def _stream(lines: list[Line], levels: int, binary: bool) -> ShardStream:
    columns = _columns(levels)
    payloads = [lenenc_int(len(columns)), *(column.build() for column in columns)]
    for key in sorted({key for key, _ in lines}, key=_order):
        xs = [x for other, x in lines if other == key]
        # The average is only right where no other shard has the group: so a server would have computed it.
        mean = sum(xs) // len(xs)
        row = [*key, sum(xs), len(xs), min(xs), *key, len(xs), sum(xs), mean, min(xs), _bits(xs)]
        payloads.append(_packed(row, columns, binary))
    payloads.append(build_ok(0, 0, 2, 0, header=0xFE))
    stream = ShardStream(True, binary)
    stream.feed(b"".join(packet(payload, seq & 255) for seq, payload in enumerate(payloads, 1)))
    stream.decode([KeyPart(keys.INTEGER, False, binary) for _ in range(levels)], levels)
    return stream


def _cells(levels: int, binary: bool) -> list[CellReader]:
    first = 3 + levels
    cells = [
        CellReader(grouped.COUNT, first, -1), CellReader(grouped.SUM, first + 1, -1),
        CellReader(grouped.AVERAGE, first + 2, 0), CellReader(grouped.LEAST, first + 3, 2),
        CellReader(grouped.OR, first + 4, -1),
    ]  # fmt: skip
    cells[2].scale = 4
    cells[3].part = KeyPart(keys.INTEGER, False, binary)
    return cells


def _answer(shards: list[list[Line]], levels: int, binary: bool, total: bool, least: int | None = None) -> list[Row]:
    columns = _columns(levels)[levels:]
    having: Condition | None = None
    if least is not None:
        having = Compares(Held(3 + levels, 8 if binary else 0, True), Operand((least, 0)), (0, 1))
    merge = RolledUp(
        [_stream(lines, levels, binary) for lines in shards],
        Rows(columns, 3, binary),
        _cells(levels, binary),
        having,
        [KeyPart(keys.INTEGER, False, binary) for _ in range(levels)],
        [3 + level for level in range(levels)],
        total,
    )
    rows: list[bytes] = []
    while not merge.done:
        rows += merge.round()[1]
    shown = columns[3:]
    found: list[Row] = []
    for row in rows:
        values = first_values(row, len(shown), shown, binary)
        found.append([
            None if value is None
            else int.from_bytes(value, "little", signed=True) if binary and column is INT
            else Fraction(value.decode())
            for value, column in zip(values, shown, strict=True)
        ])  # fmt: skip
    return found


def _rows_of(key: tuple[int | None, ...], levels: int, xs: list[int]) -> Row:
    return [*key, *([None] * (levels - len(key))), len(xs), sum(xs), min(xs), _bits(xs)]


def _expected(lines: list[Line], levels: int) -> list[Row]:
    found: list[Row] = []

    def below(prefix: tuple[int | None, ...]) -> None:
        xs = [x for key, x in lines if key[: len(prefix)] == prefix]
        if len(prefix) < levels:
            for value in sorted({key[len(prefix)] for key, _ in lines if key[: len(prefix)] == prefix},
                                key=lambda v: _order((v,))):  # fmt: skip
                below((*prefix, value))
        if xs:
            found.append(_rows_of(prefix, levels, xs))

    below(())
    return found


def _lines(levels: int) -> st.SearchStrategy[list[Line]]:
    column = st.none() | st.integers(-2, 3)
    return st.lists(st.tuples(st.tuples(*[column] * levels), st.integers(0, 9)), max_size=16)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
@given(data=st.data())
def test_every_level_is_of_all_its_rows(levels: int, binary: bool, data: st.DataObject) -> None:
    shards = data.draw(st.lists(_lines(levels), min_size=1, max_size=3))
    least = data.draw(st.none() | st.integers(0, 4))
    lines = [line for shard in shards for line in shard]
    expected = [row for row in _expected(lines, levels) if least is None or int(row[levels] or 0) >= least]
    found = _answer(shards, levels, binary, False, least)
    mean = levels + 2
    assert [row[:mean] + row[mean + 1 :] for row in found] == expected


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("levels", [1, 3])
def test_of_no_row_there_may_be_a_total(levels: int, binary: bool) -> None:
    assert _answer([[], []], levels, binary, False) == []
    assert _answer([[], []], levels, binary, True) == [[*[None] * levels, 0, None, None, None, 0]]


def test_means_of_super_aggregates_are_of_all_rows() -> None:
    shards: list[list[Line]] = [[((1, 1), 1), ((1, 2), 1), ((2, 1), 5)], [((1, 2), 0), ((3, 3), 1)]]
    means = [row[4] for row in _answer(shards, 2, False, True)]
    thirds = Fraction("0.6667")
    assert means == [1, Fraction("0.5"), thirds, 5, 5, 1, 1, Fraction("1.6")]
