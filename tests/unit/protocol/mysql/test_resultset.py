"""Whole text results come back as they were built; anything less is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.packets import build_err, build_ok
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.protocol.mysql.text import join_packets, resultset
from tests.unit.protocol.mysql import strategies as made

EACH_EOF = pytest.mark.parametrize("deprecate_eof", [False, True])
VALUES = st.none() | st.binary(max_size=8) | st.sampled_from([b"v" * 250, b"v" * 251, b"v" * 70_000])
A, B = ColumnDefinition(b"a"), ColumnDefinition(b"b")
ROWS: list[list[bytes | None]] = [[b"1", None], [b"", b"2"]]


@EACH_EOF
@given(st.data())
@settings(max_examples=50)
def test_what_is_built_is_parsed(deprecate_eof: bool, data: st.DataObject) -> None:
    columns = data.draw(st.lists(made.columns, min_size=1, max_size=3))
    rows: list[list[bytes | None]] = data.draw(
        st.lists(st.lists(VALUES, min_size=len(columns), max_size=len(columns)), max_size=4)
    )
    wire = resultset(columns, rows, data.draw(made.u16), data.draw(made.u16), deprecate_eof)
    result = parse_resultset(wire, deprecate_eof)
    assert result.columns == tuple(columns)
    assert result.rows == tuple(rows)


def test_many_columns_and_rows_past_the_sequence_ids() -> None:
    columns = [ColumnDefinition(b"c%d" % i) for i in range(300)]
    rows: list[list[bytes | None]] = [[b"%d" % i] * 300 for i in range(300)]
    result = parse_resultset(resultset(columns, rows, 2, 0, True), True)
    assert result.columns == tuple(columns)
    assert result.rows == tuple(rows)


@EACH_EOF
def test_a_row_of_16_mib(deprecate_eof: bool) -> None:
    rows: list[list[bytes | None]] = [[b"x" * (1 << 24)], [b"y"]]
    for part in (rows, rows[:1]):
        assert parse_resultset(resultset([A], part, 2, 0, deprecate_eof), deprecate_eof).rows == tuple(part)


@EACH_EOF
def test_a_result_cut_anywhere_is_refused(deprecate_eof: bool) -> None:
    wire = resultset([A, B], ROWS, 2, 0, deprecate_eof)
    for end in range(len(wire)):
        with pytest.raises(RemoteProtocolError):
            parse_resultset(wire[:end], deprecate_eof)


@EACH_EOF
def test_a_result_that_ends_in_an_error_is_refused(deprecate_eof: bool) -> None:
    wire = resultset([A, B], ROWS, 2, 0, deprecate_eof)
    payloads = [payload for _, payload in PacketReader(len(wire), next_seq=1).feed(wire)]
    broken = join_packets([*payloads[:-1], build_err(1317, "70100", "Query execution was interrupted")], 1)
    with pytest.raises(RemoteProtocolError):
        parse_resultset(broken, deprecate_eof)


def test_the_other_kind_of_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_resultset(resultset([A, B], ROWS, 2, 0, True), False)
    with pytest.raises(RemoteProtocolError):
        parse_resultset(resultset([A, B], ROWS, 2, 0, False), True)


@EACH_EOF
@pytest.mark.parametrize("payload", [build_ok(1, 0, 2, 0), build_err(1064, "42000", "no"), b"\xfbfile", b""])
def test_other_answers_are_refused(payload: bytes, deprecate_eof: bool) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_resultset(packet(payload, 1), deprecate_eof)


@EACH_EOF
def test_rows_of_another_width_are_refused(deprecate_eof: bool) -> None:
    for width in (1, 3):
        with pytest.raises(RemoteProtocolError):
            parse_resultset(resultset([A, B], [[b"1"] * width], 2, 0, deprecate_eof), deprecate_eof)


@EACH_EOF
@given(st.data())
@settings(max_examples=50)
def test_garbage_is_parsed_or_refused(deprecate_eof: bool, data: st.DataObject) -> None:
    garbage = bytearray(resultset([A, B], ROWS, 2, 0, deprecate_eof))
    for _ in range(data.draw(st.integers(1, 4))):
        garbage[data.draw(st.integers(0, len(garbage) - 1))] = data.draw(st.integers(0, 255))
    try:
        result = parse_resultset(bytes(garbage), deprecate_eof)
    except RemoteProtocolError:
        return
    assert all(len(row) == len(result.columns) for row in result.rows)
