from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD
from shardproxy.protocol.mysql.framing import PacketReader
from shardproxy.protocol.mysql.packets import Eof, Ok, parse_eof, parse_ok, read_lenenc_int
from shardproxy.protocol.mysql.text import join_packets, parse_text_row, result_bytes, resultset, text_row

from . import captured
from .strategies import long_strings

rows = st.lists(st.none() | long_strings, max_size=8)


@given(rows)
def test_row_round_trip(values: list[bytes | None]) -> None:
    payload = text_row(values)
    assert parse_text_row(payload, len(values)) == values


@given(rows.filter(bool))
def test_row_with_another_number_of_values(values: list[bytes | None]) -> None:
    payload = text_row(values)
    with pytest.raises(RemoteProtocolError):
        parse_text_row(payload, len(values) + 1)
    with pytest.raises(RemoteProtocolError):
        parse_text_row(payload, len(values) - 1)


@pytest.mark.parametrize("payloads", [captured.MYSQL_TEXT_ROWS, captured.MARIADB_TEXT_ROWS])
def test_rows_of_real_servers(payloads: list[bytes]) -> None:
    full, zero = (parse_text_row(payload, 22) for payload in payloads)
    assert full[0] == b"18446744073709551615"
    assert full[8:13] == [
        b"-12345.6789000000",
        b"2026-11-22",
        b"2026-11-22 17:46:42.123456",
        b"2026-11-22 17:46:42",
        b"-101:02:03.000004",
    ]
    assert full[14:16] == ["Zoë".encode(), b"\x00\xff\x00"]
    assert zero[:2] == [b"0", None]
    assert zero[9] == b"0000-00-00"
    assert [text_row(full), text_row(zero)] == payloads


@pytest.mark.parametrize("payload", [captured.MYSQL_TEXT_ROWS[0]])
def test_row_cut_anywhere(payload: bytes) -> None:
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            parse_text_row(payload[:length], 22)


@pytest.mark.parametrize("deprecate_eof", [False, True])
@pytest.mark.parametrize("first_seq", [1, 254])
def test_resultset(deprecate_eof: bool, first_seq: int) -> None:
    columns = [ColumnDefinition(b"a"), ColumnDefinition(b"b")]
    values: list[list[bytes | None]] = [[b"1", None], [b"", b"x" * 300]]
    wire = resultset(columns, values, 0x22, 3, deprecate_eof, first_seq)
    packets = PacketReader(1000, first_seq).feed(wire)
    payloads = [payload for _, payload in packets]
    assert payloads[0] == b"\x02"
    assert [ColumnDefinition.parse(payload) for payload in payloads[1:3]] == columns
    if deprecate_eof:
        found, end = payloads[3:-1], parse_ok(payloads[-1])
        assert end == Ok(0, 0, 0x22, 3)
        assert payloads[-1][0] == 0xFE
    else:
        assert parse_eof(payloads[3]) == Eof(0, 0x22)
        found = payloads[4:-1]
        assert parse_eof(payloads[-1]) == Eof(3, 0x22)
    assert [parse_text_row(payload, 2) for payload in found] == values


def test_resultset_equals_the_one_of_a_real_server() -> None:
    columns = [ColumnDefinition.parse(payload) for payload in captured.MYSQL_COLUMNS]
    values = [parse_text_row(payload, 22) for payload in captured.MYSQL_TEXT_ROWS]
    wire = resultset(columns, values, 0x22, 0, True)
    payloads = [payload for _, payload in PacketReader(1000, 1).feed(wire)]
    assert payloads == [b"\x16", *captured.MYSQL_COLUMNS, *captured.MYSQL_TEXT_ROWS, captured.MYSQL_ROWS_END_OK]
    assert result_bytes(columns, captured.MYSQL_TEXT_ROWS, 0x22, 0, True) == wire


def test_resultset_without_rows() -> None:
    payloads = [
        payload for _, payload in PacketReader(1000, 1).feed(resultset([ColumnDefinition(b"a")], [], 2, 0, True))
    ]
    assert len(payloads) == 3


def test_more_columns_than_one_byte_counts() -> None:
    columns = [ColumnDefinition(b"c")] * 300
    wire = resultset(columns, [], 2, 0, False)
    ((_, first), *rest) = PacketReader(1000, 1).feed(wire)
    assert read_lenenc_int(first, 0) == (300, 3)
    assert len(rest) == 302


def test_row_over_16_mib_takes_two_sequence_ids() -> None:
    wire = resultset([ColumnDefinition(b"a")], [[b"x" * MAX_PAYLOAD], [b"y"]], 2, 0, True)
    packets = PacketReader(1 << 25, 1).feed(wire)
    assert [seq for seq, _ in packets] == [1, 2, 4, 5, 6]
    assert parse_text_row(packets[2][1], 1) == [b"x" * MAX_PAYLOAD]


def test_join_packets() -> None:
    assert join_packets([b"a", b""], 255) == b"\x01\0\0\xffa\0\0\0\0"
