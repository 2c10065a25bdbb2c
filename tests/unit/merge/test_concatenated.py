"""Texts of groups put together from several shards' pieces."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.merge import concatenated, grouped, keys
from shardproxy.merge.concatenated import Concatenated, JoinError
from shardproxy.merge.grouped import CellReader, Rows
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.stream import ShardStream, first_values
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_ok, lenenc_int, lenenc_str

INT = ColumnDefinition(b"i", FieldType.LONGLONG.value, 63)
TEXT = ColumnDefinition(b"t", FieldType.BLOB.value, 45)
# Keys g, y; hidden: the separator, the most bytes, the character sets; g, the text, COUNT(*)
SHOWN = [TEXT, INT, TEXT, INT, TEXT, INT]
Line = tuple[int, int | None, str | None]  # g, y, x
LINES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-2, 2), st.none() | st.sampled_from(["", "a", "bc"])), max_size=12
)


def _packed(values: list[int | str | None], columns: list[ColumnDefinition], binary: bool) -> bytes:
    if not binary:
        return b"".join(b"\xfb" if v is None else lenenc_str(str(v).encode()) for v in values)
    out = b"\x00" + sum(1 << i + 2 for i, v in enumerate(values) if v is None).to_bytes(
        (len(values) + 9) // 8, "little"
    )
    for value in values:
        if isinstance(value, int):
            out += value.to_bytes(8, "little", signed=True)
        elif value is not None:
            out += lenenc_str(value.encode())
    return out


def _stream(lines: list[Line], inner: bool, falls: bool, binary: bool, most: int, array: bool) -> ShardStream:
    """What a shard answers that groups by g, or by g, y."""
    columns = [INT, *([INT] if inner else []), *SHOWN]
    groups: dict[tuple[int, int | None], list[str | None]] = defaultdict(list)
    for g, y, x in lines:
        groups[g, y if inner else 0].append(x)
    payloads = [lenenc_int(len(columns)), *(column.build() for column in columns)]

    def order(key: tuple[int, int | None]) -> tuple[int, bool, int]:
        rank = (key[1] is not None, key[1] or 0)
        return (key[0], not rank[0], -rank[1]) if falls else (key[0], *rank)

    for g, y in sorted(groups, key=order):
        found = [x for x in groups[g, y] if x is not None]
        text = ("[" + ",".join(found) + "]" if array else "|".join(found)) if found else None
        row = [g, *([y] if inner else []), "," if array else "|", most, "utf8mb4,latin1", g, text, len(groups[g, y])]
        payloads.append(_packed(row, columns, binary))
    payloads.append(build_ok(0, 0, 2, 0, header=0xFE))
    stream = ShardStream(True, binary)
    stream.feed(b"".join(packet(payload, seq & 255) for seq, payload in enumerate(payloads, 1)))
    parts = _parts(inner, falls, binary)
    stream.decode(parts, len(parts))
    return stream


def _parts(inner: bool, falls: bool, binary: bool) -> list[KeyPart]:
    return [KeyPart(keys.INTEGER, False, binary), *([KeyPart(keys.INTEGER, falls, binary)] if inner else [])]


def _answer(
    shards: list[list[Line]], *, inner: bool, binary: bool = False, falls: bool = False, distinct: bool = False,
    most: int = 1024, array: bool = False,
) -> list[tuple[int, str | None, int]]:  # fmt: skip
    cell = CellReader(concatenated.ARRAY if array else concatenated.CONCAT, 4, 0)
    cell.distinct = distinct
    parts = _parts(inner, falls, binary)
    merge = Concatenated(
        [_stream(lines, inner, falls, binary, most, array) for lines in shards], Rows(SHOWN, 3, binary),
        [cell, CellReader(grouped.COUNT, 5, -1)], [], None, parts[:1] if inner else None, False, parts[1:],
    )  # fmt: skip
    found: list[tuple[int, str | None, int]] = []
    while not merge.done:
        for row in merge.round()[1]:
            values = first_values(row, 3, SHOWN[3:], binary)

            def number(value: bytes | None) -> int:
                assert value is not None
                return int.from_bytes(value, "little", signed=True) if binary else int(value)

            found.append((number(values[0]), None if values[1] is None else values[1].decode(), number(values[2])))
    return found


SHARDS = st.lists(LINES, min_size=1, max_size=3)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("array", [False, True])
@given(shards=SHARDS)
def test_any_order_has_all_parts(array: bool, binary: bool, shards: list[list[Line]]) -> None:
    found = _answer(shards, inner=False, binary=binary, array=array)
    lines = [line for shard in shards for line in shard]
    assert [(g, n) for g, _, n in found] == [
        (g, sum(1 for h, _, _ in lines if h == g)) for g in sorted({g for g, _, _ in lines})
    ]
    for g, text, _ in found:
        xs = sorted(x for h, _, x in lines if h == g and x is not None)
        if not xs:
            assert text is None
            continue
        assert text is not None
        assert (text[0], text[-1]) == ("[", "]") if array else text.count("|") == len(xs) - 1
        assert sorted(text.strip("[]").split("," if array else "|")) == xs


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("falls", [False, True])
@given(shards=SHARDS)
def test_parts_come_in_order(falls: bool, binary: bool, shards: list[list[Line]]) -> None:
    # The text of a row is its y: then the whole text says in which order the rows came.
    named = [[(g, y, None if x is None else str(y)) for g, y, x in lines] for lines in shards]
    expected = []
    lines = [line for shard in named for line in shard]
    for group in sorted({g for g, _, _ in lines}):
        ys = sorted((y for g, y, x in lines if g == group and x is not None and y is not None), reverse=falls)
        text = "|".join(map(str, ys)) if ys else None
        expected.append((group, text, sum(1 for g, _, _ in lines if g == group)))
    assert _answer(named, inner=True, binary=binary, falls=falls) == expected


@given(shards=SHARDS)
def test_distinct_values_come_once(shards: list[list[Line]]) -> None:
    # Each shard has a value once already, as GROUP_CONCAT(DISTINCT) over its finer group gives it.
    named: list[list[Line]] = [sorted({(g, y, str(y)) for g, y, _ in lines}) for lines in shards]
    for g, text, _ in _answer(named, inner=True, distinct=True):
        ys = sorted({y for lines in named for h, y, _ in lines if h == g and y is not None})
        assert text == "|".join(map(str, ys))


@pytest.mark.parametrize("falls", [False, True])
def test_null_in_the_order_is_not_joined(falls: bool) -> None:
    with pytest.raises(JoinError):
        _answer([[(1, None, "a"), (1, 2, "b")]], inner=True, falls=falls)
    assert _answer([[(1, None, None), (1, 2, "b")]], inner=True, falls=falls) == [(1, "b", 2)]


@pytest.mark.parametrize(("most", "fits"), [(11, True), (10, True), (9, False)])
def test_what_may_be_cut_is_not_joined(most: int, fits: bool) -> None:
    shards: list[list[Line]] = [[(1, 1, "abc")], [(1, 1, "d"), (2, 1, "x")]]
    if fits:
        assert _answer(shards, inner=False, most=most) == [(1, "abc|d", 2), (2, "x", 1)]
        return
    with pytest.raises(JoinError):
        _answer(shards, inner=False, most=most)


@pytest.mark.parametrize(
    ("separator", "charsets"), [("é", b""), (",", b"utf16"), (",", b"utf8mb4,utf32"), (",", b"gb18030")]
)
def test_what_may_have_other_bytes_is_not_joined(separator: str, charsets: bytes) -> None:
    pieces = concatenated.Pieces(CellReader(concatenated.CONCAT, 3, 0))
    with pytest.raises(JoinError):
        pieces.start([separator.encode(), b"100", charsets, b"x"], Rows(SHOWN, 3, False))


def test_one_shards_own_value_may_be_cut_too() -> None:
    with pytest.raises(JoinError):
        _answer([[(1, 1, "abcdefgh")], []], inner=False, most=8)
