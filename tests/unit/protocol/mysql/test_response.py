"""The scanner finds the end of every answer, however the bytes come in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import EOF_HEADER, build_eof, build_err, build_ok, lenenc_str
from shardproxy.protocol.mysql.response import ERR, FIELDS, OK, PREPARE, QUERY, ROWS, SINGLE, ResponseScanner
from shardproxy.protocol.mysql.text import result_bytes
from tests.unit.protocol.mysql import answers as made
from tests.unit.protocol.mysql import captured

Answer = made.Answer
EACH_EOF = pytest.mark.parametrize("deprecate_eof", [False, True])
COLUMN = ColumnDefinition(b"c")


def check(scanner: ResponseScanner, answer: Answer) -> None:
    assert scanner.outcome == answer.outcome
    for name in ("status", "warnings", "affected", "insert_id", "error_code"):
        want = getattr(answer, name)
        if want is not None:
            assert getattr(scanner, name) == want, name
    if answer.outcome == ERR:
        assert scanner.error == answer.payloads[-1]


def walk(scanner: ResponseScanner, expected: Sequence[Answer], chunks: Iterable[bytes]) -> None:
    """Feed as a server connection does; every end must be where the answer's last byte is."""
    ends: list[int] = []
    for answer in expected:
        ends.append((ends[-1] if ends else 0) + len(answer.wire))
    done = base = 0
    scanner.start(expected[0].shape)
    for chunk in chunks:
        pos = 0
        while pos < len(chunk):
            assert done < len(expected), "bytes after the last answer"
            status = scanner.status
            end = scanner.scan(chunk, pos)
            if end < 0:
                assert base + len(chunk) < ends[done], "the end was passed over"
                break
            assert base + end == ends[done]
            check(scanner, expected[done])
            if expected[done].outcome == ERR and len(expected[done].payloads) == 1:
                assert scanner.status == status, "an ERR carries no status"
            done += 1
            if done < len(expected):
                scanner.start(expected[done].shape)
            pos = end
        base += len(chunk)
    assert done == len(expected)


@EACH_EOF
@given(st.data())
@settings(max_examples=60)
def test_the_end_of_each_answer_is_found_in_any_pieces(deprecate_eof: bool, data: st.DataObject) -> None:
    expected = data.draw(st.lists(made.answers(deprecate_eof), min_size=1, max_size=4))
    wire = b"".join(answer.wire for answer in expected)
    walk(ResponseScanner(deprecate_eof), expected, data.draw(made.pieces(wire)))
    walk(ResponseScanner(deprecate_eof), expected, [wire])


@EACH_EOF
@given(st.data())
@settings(max_examples=25)
def test_the_end_of_each_answer_is_found_byte_by_byte(deprecate_eof: bool, data: st.DataObject) -> None:
    expected = data.draw(st.lists(made.answers(deprecate_eof), min_size=1, max_size=2))
    wire = b"".join(answer.wire for answer in expected)
    walk(ResponseScanner(deprecate_eof), expected, [wire[i : i + 1] for i in range(len(wire))])


def big_rows(deprecate_eof: bool, sizes: Sequence[int]) -> bytes:
    """Text rows of one NULL-free column whose payloads have exactly these sizes."""
    return result_bytes([COLUMN], [sized_row(size) for size in sizes], 2, 5, deprecate_eof)


def sized_row(size: int) -> bytes:
    head = {size <= 251: 1, size > 251: 3, size > 65_538: 4, size >= 2**24 + 4: 9}[True]
    row = lenenc_str(b"r" * (size - head))
    assert len(row) == size
    return row


@EACH_EOF
@pytest.mark.parametrize(
    "sizes",
    [
        (MAX_PAYLOAD - 1,),
        (MAX_PAYLOAD,),
        (MAX_PAYLOAD + 20, 3),
        (5, 2 * MAX_PAYLOAD),
    ],
)
def test_rows_of_several_packets(deprecate_eof: bool, sizes: tuple[int, ...]) -> None:
    wire = big_rows(deprecate_eof, sizes)
    last = packet(b"\0\1\2\2\0\7\0", 1)
    answer = Answer(QUERY, (), ROWS, 2, 5)
    ends = [len(wire), len(wire) + len(last)]
    stream = wire + last
    # Cuts inside and around each header and the end, and in the midst of a payload.
    heads = [*range(0, len(wire), MAX_PAYLOAD + 4), len(wire), len(wire) - 1]
    cuts = sorted({0, len(stream), 1 << 20, *(at + d for at in heads for d in range(-6, 60) if at + d > 0)})
    for chunks in ([stream], [stream[a:b] for a, b in pairwise(cuts)]):
        scanner = ResponseScanner(deprecate_eof)
        scanner.start(QUERY)
        base, found = 0, []
        for chunk in chunks:
            pos = 0
            while pos < len(chunk) and (end := scanner.scan(chunk, pos)) >= 0:
                found.append(base + end)
                if len(found) == 1:
                    check(scanner, answer)
                scanner.start(QUERY)
                pos = end
            base += len(chunk)
        assert found == ends
        assert (scanner.affected, scanner.insert_id, scanner.warnings) == (1, 2, 7)


def test_a_row_that_starts_as_an_end_does() -> None:
    """A value of 16 MiB has a length that begins with 0xFE, an EOF's header; only the packet's length tells."""
    row = sized_row(MAX_PAYLOAD + 40)
    assert row[0] == EOF_HEADER
    for deprecate_eof in (False, True):
        wire = result_bytes([COLUMN], [row], 2, 0, deprecate_eof)
        scanner = ResponseScanner(deprecate_eof)
        scanner.start(QUERY)
        assert scanner.scan(wire, 0) == len(wire)


def test_what_real_servers_sent() -> None:
    scanner = ResponseScanner(True)
    for payload, outcome in (
        (captured.MYSQL_INSERT_OK, OK),
        (captured.MYSQL_SET_NAMES_OK, OK),
        (captured.MYSQL_ERR, ERR),
        (captured.MARIADB_ERR, ERR),
    ):
        scanner.start(QUERY)
        wire = packet(payload, 1)
        assert scanner.scan(wire, 0) == len(wire)
        assert scanner.outcome == outcome


def test_position_is_where_the_answer_starts_in_the_chunk() -> None:
    wire = packet(build_ok(3, 0, 2, 0), 1)
    scanner = ResponseScanner(False)
    scanner.start(QUERY)
    assert scanner.scan(b"before" + wire[:3], 6) == -1
    assert scanner.scan(b"again!!" + wire[3:] + b"behind", 7) == 7 + len(wire) - 3
    assert scanner.affected == 3


# ── what cannot be an answer ──


@pytest.mark.parametrize("first", [0xFB, 0xFD, 0xFE])
def test_an_answer_cannot_start_so(first: int) -> None:
    """0xFB asks for a local file, 0xFD counts 65536 columns, 0xFE is an EOF without rows."""
    scanner = ResponseScanner(False)
    scanner.start(QUERY)
    with pytest.raises(RemoteProtocolError, match=f"0x{first:02x}"):
        scanner.scan(packet(bytes((first, 1, 0, 2, 0)), 1), 0)


@pytest.mark.parametrize("what", [b"\x03def", build_eof(2, 0) + bytes(9)])
def test_definitions_without_eof(what: bytes) -> None:
    wire = packet(b"\x01", 1) + packet(COLUMN.build(), 2) + packet(what, 3)
    scanner = ResponseScanner(False)
    scanner.start(QUERY)
    with pytest.raises(RemoteProtocolError, match="no EOF"):
        scanner.scan(wire, 0)


@EACH_EOF
@pytest.mark.parametrize("shape", [QUERY, PREPARE])
def test_an_error_in_place_of_a_definition_ends_the_answer(shape: int, deprecate_eof: bool) -> None:
    head = b"\x02" if shape == QUERY else b"\0\1\0\0\0\2\0\0\0\0\0\0"
    err = packet(build_err(1317, "70100", "interrupted"), 3)
    wire = packet(head, 1) + packet(COLUMN.build(), 2) + err
    scanner = ResponseScanner(deprecate_eof)
    scanner.start(shape)
    assert scanner.scan(wire + b"more", 0) == len(wire)
    assert (scanner.outcome, scanner.error_code) == (ERR, 1317)


@EACH_EOF
@pytest.mark.parametrize("shape", [QUERY, SINGLE, PREPARE, FIELDS])
@pytest.mark.parametrize("first", [0x00, 0xFF, 0xFE, 0x20])
def test_a_first_packet_of_16_mib_is_no_answer_or_goes_on(shape: int, first: int, deprecate_eof: bool) -> None:
    """Never is the end found beyond what has come in."""
    scanner = ResponseScanner(deprecate_eof)
    scanner.start(shape)
    data = b"\xff\xff\xff\x01" + bytes((first,)) + b"\x01" * 100
    try:
        assert scanner.scan(data, 0) == -1
    except RemoteProtocolError:
        return
    assert shape == FIELDS or (shape == QUERY and first == 0x20)


@EACH_EOF
@pytest.mark.parametrize("payload", [b"\0", b"\0\1\1\2\0", b"\0\xfe\1\2\3\4\5\6\7\x08\1\2\0\0", b"\xff\1"])
def test_a_first_packet_cut_short_is_an_error_whatever_follows(payload: bytes, deprecate_eof: bool) -> None:
    scanner = ResponseScanner(deprecate_eof)
    scanner.start(QUERY)
    with pytest.raises((RemoteProtocolError, IndexError)):
        scanner.scan(packet(payload, 1) + packet(build_ok(1, 1, 2, 0), 1), 0)


@EACH_EOF
@pytest.mark.parametrize("split", range(6))
@pytest.mark.parametrize("shape", [QUERY, SINGLE, PREPARE, FIELDS])
def test_an_empty_packet_is_no_answer_wherever_it_is_cut(shape: int, split: int, deprecate_eof: bool) -> None:
    """Its end once came out as position 0: the byte after its header was taken for its first."""
    scanner = ResponseScanner(deprecate_eof)
    scanner.start(shape)
    wire = packet(b"", 1) + packet(build_ok(1, 1, 2, 0), 1)
    try:
        ended = scanner.scan(wire[:split], 0)
    except RemoteProtocolError:
        return
    assert ended == -1
    with pytest.raises(RemoteProtocolError, match="empty packet"):
        scanner.scan(wire[split:], 0)


@EACH_EOF
@pytest.mark.parametrize("rows", [False, True])
def test_an_empty_packet_amid_definitions_or_rows_is_an_error(rows: bool, deprecate_eof: bool) -> None:
    head = packet(b"\x01", 1) + (packet(COLUMN.build(), 2) if rows else b"")
    head += packet(build_eof(2, 0), 3) if rows and not deprecate_eof else b""
    scanner = ResponseScanner(deprecate_eof)
    scanner.start(QUERY)
    with pytest.raises(RemoteProtocolError, match="empty packet"):
        scanner.scan(head + packet(b"", 4) + packet(b"\x011", 5), 0)


def test_a_terminal_packet_without_an_end_is_not_kept_for_ever() -> None:
    scanner = ResponseScanner(True)
    scanner.start(QUERY)
    assert scanner.scan(b"\xfe\xff\xff\x01\x00" + bytes(600 * 1024), 0) == -1
    assert scanner.scan(bytes(600 * 1024), 0) == -1
    with pytest.raises(RemoteProtocolError, match="1 MiB"):
        scanner.scan(b"\0", 0)


@EACH_EOF
@given(st.data())
@settings(max_examples=60)
def test_garbage_gives_an_error_or_an_end_that_has_come_in(deprecate_eof: bool, data: st.DataObject) -> None:
    answer = data.draw(made.answers(deprecate_eof))
    garbage = bytearray(answer.wire)
    for _ in range(data.draw(st.integers(0, 4))):
        garbage[data.draw(st.integers(0, len(garbage) - 1))] = data.draw(st.integers(0, 255))
    garbage += data.draw(st.binary(max_size=30))
    scanner = ResponseScanner(deprecate_eof)
    scanner.start(answer.shape)
    for chunk in data.draw(made.pieces(bytes(garbage))):
        try:
            end = scanner.scan(chunk, 0)
        except (RemoteProtocolError, IndexError):
            return
        assert end == -1 or 0 < end <= len(chunk)
        if end > 0:
            return
