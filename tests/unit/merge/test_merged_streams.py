"""Streams of sorted rows, fed in pieces of any size, beside a plain sort of all rows."""

from __future__ import annotations

import random
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import BackendError, RemoteProtocolError
from shardproxy.merge import grouped, keys
from shardproxy.merge.grouped import CellReader, Grouped, Rows, SortReader
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.ordered import NO_LIMIT, Ordered, Window, packed, packets_of
from shardproxy.merge.stream import ShardStream, first_values
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.packets import build_eof, build_err, build_ok, lenenc_int, lenenc_str

Row = tuple[int | None, bytes]  # the key, and what the client sees
INT = ColumnDefinition(b"k", FieldType.LONGLONG.value, 63)
TEXT = ColumnDefinition(b"t", FieldType.VAR_STRING.value, 45)
FULL = 0xFFFFFF


def _row(row: Row, binary: bool) -> bytes:
    key, text = row
    if not binary:
        return (b"\xfb" if key is None else lenenc_str(b"%d" % key)) + lenenc_str(text)
    nulls = bytes((4 if key is None else 0,))
    return b"\x00" + nulls + (b"" if key is None else key.to_bytes(8, "little", signed=True)) + lenenc_str(text)


def _shown(text: bytes, binary: bool) -> bytes:
    return (b"\x00\x00" if binary else b"") + lenenc_str(text)


def _answer(rows: list[Row], binary: bool, deprecate_eof: bool, definitions: tuple[ColumnDefinition, ...]) -> bytes:
    payloads = [lenenc_int(len(definitions)), *(d.build() for d in definitions)]
    if not deprecate_eof:
        payloads.append(build_eof(2, 0))
    payloads += [_row(row, binary) for row in rows]
    payloads.append(build_ok(0, 0, 2, 3, header=0xFE) if deprecate_eof else build_eof(2, 3))
    return b"".join(packet(payload, seq) for seq, payload in enumerate(payloads, 1))


def _order(row: Row) -> tuple[bool, int]:
    return (row[0] is not None, row[0] or 0)


def _merge(
    answers: list[bytes], binary: bool, eof: bool, descending: bool, distinct: bool, dice: random.Random
) -> list[bytes]:
    streams = [ShardStream(eof, binary) for _ in answers]
    left = list(answers)

    def feed(i: int) -> None:
        size = dice.choice((1, 2, 3, 7, 50, 1000))
        streams[i].feed(left[i][:size])
        left[i] = left[i][size:]

    for i, stream in enumerate(streams):
        while not stream.headed:
            feed(i)
    for stream in streams:
        stream.decode([KeyPart(keys.INTEGER, descending, binary)], 1)
    merge = Ordered(streams, distinct)
    out: list[bytes] = []
    while not merge.done:
        for stream in merge.hungry():
            while not stream.ended and not stream.waiting:
                feed(streams.index(stream))
        out += merge.round()
    assert all(stream.ended and stream.warnings == 3 for stream in streams)
    return out


ROWS = st.lists(st.tuples(st.one_of(st.none(), st.integers(-9, 9)), st.binary(max_size=4)), max_size=12)


@settings(max_examples=200)
@given(st.lists(ROWS, min_size=1, max_size=4), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_merged_rows_are_those_of_a_sort(
    shards: list[list[Row]], binary: bool, eof: bool, descending: bool, seed: int
) -> None:
    ordered = [sorted(rows, key=_order, reverse=descending) for rows in shards]
    answers = [_answer(rows, binary, eof, (INT, TEXT)) for rows in ordered]
    found = _merge(answers, binary, eof, descending, False, random.Random(seed))
    wanted = sorted((row for rows in ordered for row in rows), key=_order, reverse=descending)
    # Equal keys may stand in any order: compared as bags, key by key.
    at = 0
    for _, run in groupby(wanted, key=_order):
        texts = sorted(_shown(text, binary) for _, text in run)
        assert sorted(found[at : at + len(texts)]) == texts
        at += len(texts)
    assert at == len(found)


@given(st.lists(ROWS, min_size=1, max_size=3), st.booleans(), st.integers(0, 1000))
def test_distinct_gives_one_row_a_key(shards: list[list[Row]], binary: bool, seed: int) -> None:
    answers = [_answer(sorted(rows, key=_order), binary, True, (INT, TEXT)) for rows in shards]
    found = _merge(answers, binary, True, False, True, random.Random(seed))
    assert len(found) == len({row[0] for rows in shards for row in rows})


def test_rows_that_are_not_sorted_are_an_error() -> None:
    answers = [_answer([(3, b"c"), (1, b"a")], False, True, (INT, TEXT))]
    with pytest.raises(BackendError, match="not in the order"):
        _merge(answers, False, True, False, False, random.Random(1))
    late = [
        _answer([(i, b"") for i in (*range(300), 5)], False, True, (INT, TEXT)),
        _answer([(9, b"")], False, True, (INT, TEXT)),
    ]
    with pytest.raises(BackendError, match="not in the order"):
        _merge(late, False, True, False, False, random.Random(2))


@given(st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(0, 4), max_size=6))
def test_window(limit: int, offset: int, batches: list[int]) -> None:
    window = Window(limit, offset)
    rows = [b"%d" % i for i in range(sum(batches))]
    found: list[bytes] = []
    at = 0
    for size in batches:
        if window.full:
            break
        found += window.cut(rows[at : at + size])
        at += size
    assert found == rows[offset : offset + limit]


def test_window_without_limit_is_never_full() -> None:
    window = Window(NO_LIMIT, 0)
    assert window.cut([b"a"] * 5) == [b"a"] * 5
    assert not window.full


@pytest.mark.parametrize("size", [FULL - 10, FULL - 5, FULL, 2 * FULL + 7])
@pytest.mark.parametrize("binary", [False, True])
def test_rows_of_several_packets(size: int, binary: bool) -> None:
    text = b"x" * size
    stream = ShardStream(True, binary)
    data = _answer([(1, text), (2, b"short")], binary, True, (INT, TEXT))
    for start in range(0, len(data), 5_000_000):
        stream.feed(data[start : start + 5_000_000])
        if stream.headed and start == 0:
            stream.decode([KeyPart(keys.INTEGER, False, binary)], 1)
    assert stream.rows == [_shown(text, binary), _shown(b"short", binary)]
    out = packed(stream.rows, 250)
    reader = PacketReader(len(out), next_seq=250)
    assert [payload for _, payload in reader.feed(out)] == stream.rows
    assert packets_of(stream.rows) == sum(len(row) // FULL + 1 for row in stream.rows)
    assert out[3] == 250


def test_sequence_ids_go_round() -> None:
    out = packed([b"a"] * 600, 7)
    assert [out[i + 3] for i in range(0, len(out), 5)] == [(7 + i) & 0xFF for i in range(600)]


def test_an_error_in_place_of_rows_and_among_them() -> None:
    error = build_err(1317, "70100", "interrupted")
    stream = ShardStream(True, False)
    stream.feed(packet(error, 1))
    assert stream.ended
    assert stream.error == error
    whole = _answer([(1, b"a")], False, True, (INT, TEXT))
    stream = ShardStream(True, False)
    stream.feed(whole[: -len(packet(build_ok(0, 0, 2, 3, header=0xFE), 0))] + packet(error, 9))
    stream.decode([KeyPart(keys.INTEGER, False, False)], 1)
    assert stream.rows == [lenenc_str(b"a")]
    assert stream.ended
    assert stream.error == error
    with pytest.raises(RemoteProtocolError, match="after the end"):
        stream.feed(b"x")


def test_an_answer_without_rows_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="without rows"):
        ShardStream(True, False).feed(packet(build_ok(0, 0, 2, 0), 1))


def test_the_first_row_before_it_is_decided_how_to_read() -> None:
    stream = ShardStream(True, False)
    data = _answer([(5, b"five")], False, True, (INT, TEXT))
    row = _row((5, b"five"), False)
    for i in range(len(data)):
        stream.feed(data[i : i + 1])
        if stream.headed and stream.first_row():
            break
    assert stream.first_row() == row
    assert first_values(row, 2, [INT, TEXT], False) == [b"5", b"five"]
    assert first_values(_row((None, b"x"), True), 2, [INT, TEXT], True) == [None, b"x"]


# ── groups ──

COUNT = ColumnDefinition(b"COUNT(*)", FieldType.LONGLONG.value, 63)
SUM = ColumnDefinition(b"SUM(n)", FieldType.NEWDECIMAL.value, 63)
Values = tuple[int | None, int, bytes | None]  # group, count, sum
GROUPS = st.dictionaries(
    st.one_of(st.none(), st.integers(0, 5)), st.tuples(st.integers(1, 9), st.integers(-99, 99)), max_size=6
)


def _group_row(values: Values, binary: bool) -> bytes:
    key, count, total = values
    if not binary:
        return b"".join(b"\xfb" if v is None else lenenc_str(v) for v in (
            None if key is None else b"%d" % key, b"%d" % count, total))  # fmt: skip
    nulls = (key is None) * 4 + (total is None) * 16
    fixed = b"".join(v.to_bytes(8, "little", signed=True) for v in (key, count) if v is not None)
    return b"\x00" + bytes((nulls,)) + fixed + (b"" if total is None else lenenc_str(total))


def _combined(shards: list[list[Values]], binary: bool, final: bool) -> tuple[list[bytes], list[list[bytes | None]]]:
    streams = []
    for values in shards:
        payloads = [lenenc_int(3), *(d.build() for d in (INT, COUNT, SUM))]
        payloads += [_group_row(v, binary) for v in values] + [build_ok(0, 0, 2, 0, header=0xFE)]
        stream = ShardStream(True, binary)
        stream.feed(b"".join(packet(payload, seq) for seq, payload in enumerate(payloads, 1)))
        stream.decode([KeyPart(keys.INTEGER, False, binary)], 1)
        streams.append(stream)
    rows = Rows([COUNT, SUM], 0, binary)
    cells = [CellReader(grouped.COUNT, 0, -1), CellReader(grouped.SUM, 1, -1)]
    order = [SortReader(0, KeyPart(keys.INTEGER, True, binary))] if final else []
    merge = Grouped(streams, rows, cells, order)
    sort_keys: list[bytes] = []
    found: list[bytes] = []
    while not merge.done:
        more = merge.round()
        sort_keys += more[0]
        found += more[1]
    return sort_keys, [rows.values(row) for row in found]


@given(st.lists(GROUPS, min_size=1, max_size=3), st.booleans())
def test_equal_groups_become_one(shards: list[dict[int | None, tuple[int, int]]], binary: bool) -> None:
    ordered = [sorted(groups, key=lambda key: (key is not None, key or 0)) for groups in shards]
    answers: list[list[Values]] = [
        [(key, groups[key][0], b"%d" % groups[key][1]) for key in names]
        for names, groups in zip(ordered, shards, strict=True)
    ]
    _, found = _combined(answers, binary, False)
    everything = sorted({key for groups in shards for key in groups}, key=lambda key: (key is not None, key or 0))
    wanted = [
        (
            sum(groups[key][0] for groups in shards if key in groups),
            sum(groups[key][1] for groups in shards if key in groups),
        )
        for key in everything
    ]
    read = Rows([COUNT, SUM], 0, binary)
    assert [(read.integer(count or b"", True), int(total or b"")) for count, total in found] == wanted


@pytest.mark.parametrize("binary", [False, True])
def test_sums_of_nothing_are_null(binary: bool) -> None:
    _, found = _combined([[(1, 2, None)], [(1, 3, b"4.50")], [(1, 0, None)], []], binary, False)
    assert found == [[(5).to_bytes(8, "little") if binary else b"5", b"4.50"]]
    _, found = _combined([[(None, 2, None)], [(None, 3, None)]], binary, False)
    assert found == [[(5).to_bytes(8, "little") if binary else b"5", None]]


def test_groups_bring_the_keys_by_which_they_are_sorted_afterwards() -> None:
    sort_keys, found = _combined([[(1, 2, b"1"), (2, 9, b"1")], [(1, 3, b"2")]], False, True)
    assert sorted(zip(sort_keys, found, strict=True)) == [(sort_keys[1], [b"9", b"1"]), (sort_keys[0], [b"5", b"3"])]


def test_extremes_and_averages_with_hidden_columns() -> None:
    """Hidden: sum, count of the average, weight of the greatest."""
    rows = Rows([SUM, COUNT, TEXT, SUM, TEXT], 3, False)
    greatest = CellReader(grouped.GREATEST, 4, 2)
    greatest.part = KeyPart(keys.BYTES, False, False)
    mean = CellReader(grouped.AVERAGE, 3, 0)
    mean.scale = 4
    streams = []
    for values in (
        (b"10", b"4", b"\x01", b"2.5000", b"low"),
        (b"1", b"2", b"\x02", b"0.5000", b"high"),
        (None, b"0", None, None, None),
    ):
        stream = ShardStream(True, False)
        row = b"".join(b"\xfb" if value is None else lenenc_str(value) for value in values)
        payloads = [b"\x05", *(d.build() for d in rows.definitions), row, build_ok(0, 0, 2, 0, header=0xFE)]
        stream.feed(b"".join(packet(payload, seq) for seq, payload in enumerate(payloads, 1)))
        stream.decode([], 0)
        streams.append(stream)
    merge = Grouped(streams, rows, [mean, greatest], [])
    found: list[bytes] = []
    while not merge.done:
        found += merge.round()[1]
    assert found == [lenenc_str(b"1.8333") + lenenc_str(b"high")]
