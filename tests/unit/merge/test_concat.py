"""Several result sets become one: rows in order, sequence ids without a gap, however the bytes come in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import BackendError, RemoteProtocolError, RouteError
from shardproxy.merge.concat import Concatenation
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD, ColumnFlag
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.packets import (
    EOF_HEADER,
    build_eof,
    build_err,
    build_ok,
    lenenc_int,
    lenenc_str,
    parse_eof,
    parse_err,
    parse_ok,
)
from shardproxy.protocol.mysql.text import join_packets, text_row
from tests.unit.protocol.mysql import answers as made

EACH_EOF = pytest.mark.parametrize("deprecate_eof", [False, True])
COLUMNS = (ColumnDefinition(b"a"), ColumnDefinition(b"b"))
ROWS = st.lists(st.lists(made.values, min_size=2, max_size=2).map(text_row) | made.binary_rows, max_size=4)


def part(
    rows: Iterable[bytes], deprecate_eof: bool, columns: Sequence[ColumnDefinition] = COLUMNS, last: bytes = b""
) -> bytes:
    """One shard's answer; `last` in place of the packet that ends it."""
    payloads = [lenenc_int(len(columns)), *(column.build() for column in columns)]
    if not deprecate_eof:
        payloads.append(build_eof(2, 0))
    return join_packets([*payloads, *rows, last or end(deprecate_eof, 2, 0)], 1)


def end(deprecate_eof: bool, status: int, warnings: int) -> bytes:
    return build_ok(0, 0, status, warnings, header=EOF_HEADER) if deprecate_eof else build_eof(status, warnings)


def payloads_of(wire: bytes) -> list[bytes]:
    """Every payload; the reader raises when a sequence id is out of order."""
    reader = PacketReader(1 << 26, next_seq=1)
    found = [payload for _, payload in reader.feed(wire)]
    assert reader.buffered == 0
    return found


def whole(parts: Iterable[bytes], deprecate_eof: bool) -> tuple[Concatenation, list[bytes]]:
    """Feed each part at once."""
    out = Concatenation(deprecate_eof)
    wire = b""
    for one in parts:
        wire += out.feed(one)
        out.next_part()
        if out.failed:
            return out, payloads_of(wire)
    return out, payloads_of(wire + out.end())


def inside_a_packet(wire: bytes | bytearray) -> bool:
    """Whether the bytes end inside a packet or inside a payload of several."""
    at, length = 0, 0
    while at < len(wire):
        length = int.from_bytes(wire[at : at + 3], "little")
        at += 4 + length
    return at > len(wire) or length == MAX_PAYLOAD


@EACH_EOF
@given(st.data())
@settings(max_examples=60)
def test_the_rows_of_all_parts_in_any_pieces(deprecate_eof: bool, data: st.DataObject) -> None:
    tables = data.draw(st.lists(ROWS, min_size=1, max_size=4))
    warnings = [data.draw(st.integers(0, 30_000)) for _ in tables]
    statuses = [data.draw(made.statuses) for _ in tables]
    out = Concatenation(deprecate_eof)
    wire = b""
    for rows, warned, status in zip(tables, warnings, statuses, strict=True):
        for piece in data.draw(made.pieces(part(rows, deprecate_eof, last=end(deprecate_eof, status, warned)))):
            wire += out.feed(piece)
            assert out.mid_packet == inside_a_packet(wire)
        out.next_part()
    assert not out.failed
    assert out.warnings == sum(warnings)
    head, last = payloads_of(part([], deprecate_eof))[:-1], payloads_of(wire + out.end())[-1]
    assert payloads_of(wire + out.end()) == [*head, *(row for rows in tables for row in rows), last]
    finish = parse_ok(last) if deprecate_eof else parse_eof(last)
    assert (finish.warnings, finish.status) == (min(sum(warnings), 0xFFFF), parsed_status(deprecate_eof, statuses[-1]))


def parsed_status(deprecate_eof: bool, status: int) -> int:
    """An OK packet has no session state here, so it does not say that it has."""
    return status & ~0x4000 if deprecate_eof else status


@EACH_EOF
@given(st.lists(ROWS, min_size=1, max_size=2))
@settings(max_examples=20)
def test_byte_by_byte(deprecate_eof: bool, tables: list[list[bytes]]) -> None:
    out = Concatenation(deprecate_eof)
    wire = b""
    for rows in tables:
        data = part(rows, deprecate_eof)
        for i in range(len(data)):
            wire += out.feed(data[i : i + 1])
        out.next_part()
    assert payloads_of(wire + out.end()) == payloads_of(part([row for rows in tables for row in rows], deprecate_eof))


@EACH_EOF
def test_more_packets_than_sequence_ids(deprecate_eof: bool) -> None:
    rows = [text_row([b"%d" % i, None]) for i in range(300)]
    _, payloads = whole([part(rows, deprecate_eof)] * 3, deprecate_eof)
    assert payloads == payloads_of(part(rows * 3, deprecate_eof))


@EACH_EOF
@pytest.mark.parametrize("size", [MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 40])
def test_rows_of_several_packets(deprecate_eof: bool, size: int) -> None:
    head = len(lenenc_int(size - 5))
    rows = [lenenc_str(b"r" * (size - head))[:size], text_row([b"x", b"y"])]
    assert len(rows[0]) == size
    data = part(rows, deprecate_eof)
    start = len(part([], deprecate_eof)) - len(packet(end(deprecate_eof, 2, 0), 0))
    heads = [*range(start, len(data), MAX_PAYLOAD + 4), len(data)]
    cuts = sorted({0, len(data), 1 << 20, *(at + d for at in heads for d in range(-6, 8) if at + d <= len(data))})
    small = part(rows[1:], deprecate_eof)
    want = payloads_of(part([*rows, rows[1]], deprecate_eof))
    for pieces in ([data], [data[a:b] for a, b in pairwise(cuts)]):
        out = Concatenation(deprecate_eof)
        handed = bytearray()
        for piece in pieces:
            handed += out.feed(piece)
            assert out.mid_packet == inside_a_packet(handed)
        out.next_part()
        handed += out.feed(small)
        out.next_part()
        assert payloads_of(bytes(handed) + out.end()) == want


# ── errors ──


@EACH_EOF
@pytest.mark.parametrize("place", ["first", "head", "definitions", "rows"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_error_of_a_shard_ends_the_answer(which: int, place: str, deprecate_eof: bool) -> None:
    err = build_err(1317, "70100", "Query execution was interrupted")
    rows = [text_row([b"1", b"2"])]
    good = part(rows, deprecate_eof)
    payloads = payloads_of(good)
    kept = {"first": 0, "head": 1, "definitions": 3, "rows": len(payloads) - 1}[place]
    bad = join_packets([*payloads[:kept], err], 1)
    for step in (1, 7, len(bad)):
        out = Concatenation(deprecate_eof)
        wire = b""
        if which:
            wire += out.feed(good)
            out.next_part()
        for at in range(0, len(bad), step):
            wire += out.feed(bad[at : at + step])
        out.next_part()
        assert out.failed and not out.mid_packet
        answer = payloads_of(wire)
        assert answer[-1] == err
        assert parse_err(answer[-1]).code == 1317
        before = payloads[:-1] if which else []
        assert answer[:-1] == before + (rows if place == "rows" else []) * which + payloads[:kept] * (not which)


@EACH_EOF
@pytest.mark.parametrize(
    "other",
    [
        (COLUMNS[0],),
        (*COLUMNS, COLUMNS[0]),
        (COLUMNS[0], replace(COLUMNS[1], name=b"B")),
        (replace(COLUMNS[0], type=3), COLUMNS[1]),
        (COLUMNS[0], replace(COLUMNS[1], charset=8)),
        (COLUMNS[0], replace(COLUMNS[1], flags=ColumnFlag.UNSIGNED.value)),
        (COLUMNS[0], replace(COLUMNS[1], decimals=2)),
    ],
)
def test_columns_that_differ_are_refused(other: tuple[ColumnDefinition, ...], deprecate_eof: bool) -> None:
    out = Concatenation(deprecate_eof)
    row = text_row([b"1", b"2"])
    wire = out.feed(part([row], deprecate_eof))
    out.next_part()
    with pytest.raises(BackendError, match="column"):
        out.feed(part([row], deprecate_eof, other))
    assert not out.mid_packet
    answer = payloads_of(wire + out.error(RouteError("they differ")))
    assert out.failed  # `end` must not follow: it would answer the next command
    assert answer[:-1] == payloads_of(part([row], deprecate_eof))[:-1]
    assert parse_err(answer[-1]).text == "they differ"


@EACH_EOF
def test_columns_that_differ_in_what_does_not_show_are_joined(deprecate_eof: bool) -> None:
    other = (replace(COLUMNS[0], flags=ColumnFlag.NOT_NULL.value, length=7), COLUMNS[1])
    rows = [text_row([b"1", b"2"])]
    _, payloads = whole([part(rows, deprecate_eof), part(rows, deprecate_eof, other)], deprecate_eof)
    assert payloads == payloads_of(part(rows * 2, deprecate_eof))


@EACH_EOF
def test_a_part_that_ends_too_early(deprecate_eof: bool) -> None:
    data = part([text_row([b"1", b"2"])], deprecate_eof)
    for cut in range(len(data)):
        out = Concatenation(deprecate_eof)
        out.feed(data[:cut])
        with pytest.raises(RemoteProtocolError, match="too early"):
            out.next_part()


@EACH_EOF
@pytest.mark.parametrize("payload", [build_ok(1, 0, 2, 0), b"\xfbfile", b"\xfe\0\0\2\0", b"", b"\xff\1"])
def test_what_is_no_result_set(payload: bytes, deprecate_eof: bool) -> None:
    with pytest.raises(RemoteProtocolError):
        Concatenation(deprecate_eof).feed(packet(payload, 1) + packet(b"next", 2))


@EACH_EOF
@pytest.mark.parametrize("more", [packet(b"\1", 1), packet(build_err(1, "HY000", "late"), 1)])
def test_bytes_after_the_end(more: bytes, deprecate_eof: bool) -> None:
    with pytest.raises(RemoteProtocolError, match="after the end"):
        Concatenation(deprecate_eof).feed(part([], deprecate_eof) + more)


@EACH_EOF
def test_bad_bytes_behind_the_rest_of_a_row_leave_the_client_inside_the_row(deprecate_eof: bool) -> None:
    """An ERR packet there would be read as part of the row: whoever asks `mid_packet` must hear of it."""
    data = part([text_row([b"x" * 100, b"y" * 100])], deprecate_eof)
    out = Concatenation(deprecate_eof)
    wire = out.feed(data[:-100])
    assert out.mid_packet and inside_a_packet(wire)
    with pytest.raises(RemoteProtocolError):
        out.feed(data[-100:] + packet(b"\1", 9))
    assert out.mid_packet


@EACH_EOF
@given(st.data())
@settings(max_examples=60)
def test_garbage_is_handed_on_or_refused(deprecate_eof: bool, data: st.DataObject) -> None:
    garbage = bytearray(part(data.draw(ROWS), deprecate_eof))
    for _ in range(data.draw(st.integers(1, 4))):
        garbage[data.draw(st.integers(0, len(garbage) - 1))] = data.draw(st.integers(0, 255))
    out = Concatenation(deprecate_eof)
    wire = b""
    try:
        for piece in data.draw(made.pieces(bytes(garbage))):
            wire += out.feed(piece)
        out.next_part()
    except RemoteProtocolError:
        pass
    assert out.mid_packet == inside_a_packet(wire)
    if not out.mid_packet:
        payloads_of(wire + (b"" if out.failed else out.error(RouteError("over"))))
