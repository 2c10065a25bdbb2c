"""Whether the beginning of a result set shows a row: at every cut, for every shape of answer."""

from __future__ import annotations

import pytest

from shardproxy.executor.lookup_reads import first_row, is_row
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_eof, build_ok


def answer(columns: int, rows: list[bytes], deprecate_eof: bool) -> tuple[bytes, int]:
    """Wire bytes of a result set, and where its rows begin."""
    count = bytes((columns,)) if columns < 0xFB else b"\xfc" + columns.to_bytes(2, "little")
    head = [count, *(b"\x03def" + b"x" * (i % 7 + 20) for i in range(columns))]
    eof = build_eof(0, 2)
    if not deprecate_eof:
        head.append(eof)
    end = b"\xfe" + build_ok(0, 0, 2, 0, b"")[1:] if deprecate_eof else eof
    payloads = [*head, *rows, end]
    begun = sum(4 + len(payload) for payload in head)
    return b"".join(packet(payload, i + 1 & 0xFF) for i, payload in enumerate(payloads)), begun


@pytest.mark.parametrize("deprecate_eof", [False, True])
@pytest.mark.parametrize("columns", [1, 2, 250, 251, 300])
@pytest.mark.parametrize("rows", [[], [b"\x011"], [b"\xfb"], [b"\x00\x00\x05"], [b"\xfe" + b"\0" * 30]])
def test_the_first_row(columns: int, rows: list[bytes], deprecate_eof: bool) -> None:
    if rows and rows[0][0] == 0xFE and deprecate_eof:
        rows = [rows[0] + b"\0" * (0xFFFFFF - 31)]  # a value of so many bytes comes in a packet of full length
    data, begun = answer(columns, rows, deprecate_eof)
    for end in range(begun + 4 if columns < 200 else begun - 40, begun + 4):
        assert first_row(data[:end], deprecate_eof) == -1
    for end in range(4 if columns < 10 else begun):
        assert first_row(data[:end], deprecate_eof) == -1
    assert first_row(data[: begun + 5], deprecate_eof) == begun
    assert is_row(data, begun, deprecate_eof) is bool(rows)


@pytest.mark.parametrize("payload", [build_ok(1, 0, 2, 0, b""), b"\xff\x15\x04#28000no", b"\xfbfile"])
def test_other_answers_have_none(payload: bytes) -> None:
    assert first_row(packet(payload, 1), False) == -1
