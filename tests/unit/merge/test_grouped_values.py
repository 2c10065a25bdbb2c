"""Groups of DISTINCT values: shards send finer groups, and HAVING chooses among the whole ones."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.merge import grouped, keys
from shardproxy.merge.grouped import CellReader, Grouped, Rows
from shardproxy.merge.having import Compares, Condition, Held, Operand
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.stream import ShardStream
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_ok, lenenc_int, lenenc_str

INT = ColumnDefinition(b"i", FieldType.LONGLONG.value, 63)
DEC = ColumnDefinition(b"d", FieldType.NEWDECIMAL.value, 63)
# The keys g and x; hidden: SUM(DISTINCT x), COUNT(DISTINCT x);
# COUNT(DISTINCT x), SUM(DISTINCT x), AVG(DISTINCT x), COUNT(*), SUM(y), BIT_XOR(y)
COLUMNS = (INT, INT, DEC, INT, INT, DEC, DEC, INT, DEC, INT)
Line = tuple[int | None, int | None, int]  # g, x, y
LINES = st.lists(
    st.tuples(st.none() | st.integers(0, 3), st.none() | st.integers(-4, 4), st.integers(0, 9)), max_size=14
)


def _packed(values: list[int | None], binary: bool) -> bytes:
    if not binary:
        return b"".join(b"\xfb" if v is None else lenenc_str(b"%d" % v) for v in values)
    nulls = sum(1 << i + 2 for i, v in enumerate(values) if v is None).to_bytes((len(values) + 9) // 8, "little")
    out = b"\x00" + nulls
    for value, column in zip(values, COLUMNS, strict=True):
        if value is not None:
            out += value.to_bytes(8, "little", signed=True) if column is INT else lenenc_str(b"%d" % value)
    return out


def _rank(value: int | None) -> tuple[bool, int]:
    return value is not None, value or 0


def _shard(lines: list[Line], binary: bool) -> ShardStream:
    """What a shard answers that groups by g, x and sorts by them."""
    groups: dict[tuple[int | None, int | None], list[int]] = defaultdict(list)
    for g, x, y in lines:
        groups[g, x].append(y)
    payloads = [lenenc_int(len(COLUMNS)), *(column.build() for column in COLUMNS)]
    for (g, x), ys in sorted(groups.items(), key=lambda item: (_rank(item[0][0]), _rank(item[0][1]))):
        bits = 0
        for y in ys:
            bits ^= y
        one = 0 if x is None else 1
        payloads.append(_packed([g, x, x, one, one, x, x, len(ys), sum(ys), bits], binary))
    payloads.append(build_ok(0, 0, 2, 0, header=0xFE))
    stream = ShardStream(True, binary)
    stream.feed(b"".join(packet(payload, seq & 255) for seq, payload in enumerate(payloads, 1)))
    stream.decode([KeyPart(keys.INTEGER, False, binary), KeyPart(keys.INTEGER, False, binary)], 2)
    return stream


def _cells() -> list[CellReader]:
    cells = [
        CellReader(grouped.COUNT, 2, -1), CellReader(grouped.SUM, 3, -1), CellReader(grouped.AVERAGE, 4, 0),
        CellReader(grouped.COUNT, 5, -1), CellReader(grouped.SUM, 6, -1), CellReader(grouped.XOR, 7, -1),
    ]  # fmt: skip
    for cell in cells[:3]:
        cell.distinct = True
    cells[2].scale = 4
    return cells


def _answer(
    shards: list[list[Line]], binary: bool, having: Condition | None = None, always: bool = False, grouping: bool = True
) -> list[list[bytes | None]]:
    streams = [_shard(lines, binary) for lines in shards]
    rows = Rows(list(COLUMNS[2:]), 2, binary)
    outer = [KeyPart(keys.INTEGER, False, binary)] if grouping else []
    merge = Grouped(streams, rows, _cells(), [], having, outer, always)
    found: list[bytes] = []
    while not merge.done:
        found += merge.round()[1]
    shown = Rows(list(COLUMNS[4:]), 0, binary)
    return [shown.values(row) for row in found]


def _wanted(lines: list[Line], shown: Rows) -> list[bytes | None]:
    xs = {x for _, x, _ in lines if x is not None}
    ys = [y for _, _, y in lines]
    bits = 0
    for y in ys:
        bits ^= y
    mean: bytes | None = None
    if xs:
        exact = Fraction(sum(xs), len(xs))
        scaled = abs(exact) * 10_000
        number = int(scaled + Fraction(1, 2))
        sign = "-" if exact < 0 and number else ""
        mean = f"{sign}{number // 10_000}.{number % 10_000:04}".encode()
    return [
        shown.from_integer(len(xs)), b"%d" % sum(xs) if xs else None, mean,
        shown.from_integer(len(ys)), b"%d" % sum(ys), shown.from_integer(bits),
    ]  # fmt: skip


def _means_alike(row: list[bytes | None], binary: bool) -> list[bytes | None]:
    """The mean of one row as the shard gave it: our shards do not print digits after the point."""
    if row[2] is not None and b"." not in row[2]:
        row[2] += b".0000"
    return row


@given(st.lists(LINES, min_size=1, max_size=3), st.booleans())
def test_distinct_values_count_once_and_everything_else_as_often_as_it_is(
    shards: list[list[Line]], binary: bool
) -> None:
    everything = [line for lines in shards for line in lines]
    shown = Rows(list(COLUMNS[4:]), 0, binary)
    groups = sorted({g for g, _, _ in everything}, key=_rank)
    wanted = [_wanted([line for line in everything if line[0] == g], shown) for g in groups]
    assert [_means_alike(row, binary) for row in _answer(shards, binary)] == wanted


@pytest.mark.parametrize("binary", [False, True])
def test_without_groups_there_is_one_row_also_of_nothing(binary: bool) -> None:
    shown = Rows(list(COLUMNS[4:]), 0, binary)
    zero = shown.from_integer(0)
    assert _answer([[], []], binary, always=True, grouping=False) == [[zero, None, None, zero, None, zero]]
    assert _answer([[], []], binary, always=False) == []
    lines: list[Line] = [(1, 2, 3), (5, 4, 1)]
    [row] = _answer([lines, lines], binary, always=True, grouping=False)
    assert row == _wanted([*lines, *lines], shown)
    # BIT_AND of nothing is all ones.
    ones = CellReader(grouped.AND, 7, -1)
    merge = Grouped([_shard([], binary)], Rows(list(COLUMNS[2:]), 2, binary), [ones], [], None, [], True)
    [bits] = merge.round()[1]
    assert shown.values(bits)[5] == (b"\xff" * 8 if binary else b"18446744073709551615")


@given(st.lists(LINES, min_size=1, max_size=3), st.integers(0, 4), st.booleans())
def test_having_chooses_among_whole_groups(shards: list[list[Line]], least: int, binary: bool) -> None:
    having = Compares(Held(2, 8 if binary else 0, True), Operand((least, 0)), (0, 1))
    everything = [line for lines in shards for line in lines]
    shown = Rows(list(COLUMNS[4:]), 0, binary)
    groups = sorted({g for g, _, _ in everything}, key=_rank)
    wanted = []
    for g in groups:
        lines = [line for line in everything if line[0] == g]
        if len({x for _, x, _ in lines if x is not None}) >= least:
            wanted.append(_wanted(lines, shown))
    assert [_means_alike(row, binary) for row in _answer(shards, binary, having)] == wanted


def test_a_count_is_never_null() -> None:
    stream = ShardStream(True, False)
    payloads = [b"\x01", INT.build(), b"\xfb", b"\xfb", build_ok(0, 0, 2, 0, header=0xFE)]
    stream.feed(b"".join(packet(payload, seq) for seq, payload in enumerate(payloads, 1)))
    stream.decode([], 0)
    merge = Grouped([stream], Rows([INT], 0, False), [CellReader(grouped.COUNT, 0, -1)], [])
    merge.round()
    with pytest.raises(RemoteProtocolError):
        merge.round()
