"""bench.rig.wire: counting a result however its bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rig.wire import ResultCounter, WireError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_err, build_ok
from shardproxy.protocol.mysql.text import resultset, text_row

COLUMNS = [ColumnDefinition(name=b"a"), ColumnDefinition(name=b"b")]


def _result(rows: list[list[bytes | None]]) -> bytes:
    return resultset(COLUMNS, rows, 2, 0, deprecate_eof=False)


def _fed(data: bytes, chunk: int) -> ResultCounter:
    counter = ResultCounter()
    for at in range(0, len(data), chunk):
        assert not counter.done
        counter.feed(data[at : at + chunk])
    return counter


values = st.one_of(st.none(), st.binary(max_size=300))


@given(st.lists(st.lists(values, min_size=2, max_size=2), max_size=20), st.integers(1, 400))
def test_rows_are_counted_however_the_bytes_come(rows: list[list[bytes | None]], chunk: int) -> None:
    data = _result(rows)
    counter = _fed(data, chunk)
    assert (counter.done, counter.rows, counter.bytes) == (True, len(rows), len(data))


@pytest.mark.parametrize("size", [0xFFFFFF - 6, 0xFFFFFF - 5, 0xFFFFFF - 4, 0x1000000, 2 * 0xFFFFFF + 100])
def test_a_row_of_several_packets_is_one_row(size: int) -> None:
    # A continuation may begin with any byte, here with what would be an EOF or an error.
    for byte in (b"\xfe", b"\xff", b"\0"):
        rows: list[list[bytes | None]] = [[b"x", byte * size], [b"y", b"z"]]
        data = _result(rows)
        counter = _fed(data, 1 << 16)
        assert (counter.done, counter.rows, counter.bytes) == (True, 2, len(data))


def test_the_edge_of_a_packet_is_met() -> None:
    # The row of exactly 0xFFFFFF bytes that the test above must contain is followed by an empty packet.
    row = text_row([b"x", b"z" * (0xFFFFFF - 6)])
    assert len(row) == 0xFFFFFF
    assert packet(row, 0)[-4:-1] == b"\0\0\0"


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_errors(chunk: int) -> None:
    with pytest.raises(WireError, match="no such table") as found:
        _fed(packet(build_err(1146, "42S02", "no such table"), 1), chunk)
    assert found.value.code == 1146
    with pytest.raises(WireError, match="gave no rows"):
        _fed(packet(build_ok(0, 0, 2, 0), 1), chunk)


def test_an_error_among_the_rows() -> None:
    whole = _result([[b"a", b"b"]])
    end = packet(b"\xfe\0\0\2\0", whole[-6])
    assert whole.endswith(end)
    broken = whole[: -len(end)] + packet(build_err(1317, "70100", "interrupted"), whole[-6])
    with pytest.raises(WireError, match="interrupted"):
        _fed(broken, 7)


def test_bytes_after_the_end() -> None:
    with pytest.raises(WireError, match="3 bytes follow"):
        ResultCounter().feed(_result([]) + b"abc")
