from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql import packets
from shardproxy.protocol.mysql.constants import Status
from shardproxy.protocol.mysql.packets import (
    EOF_HEADER,
    Eof,
    Err,
    Ok,
    PayloadReader,
    build_eof,
    build_err,
    build_ok,
    build_session_state,
    lenenc_int,
    lenenc_str,
    null_str,
    parse_eof,
    parse_err,
    parse_ok,
    parse_session_state,
    parse_tracked_strings,
    read_lenenc_int,
    read_lenenc_str,
)

from . import captured
from .strategies import long_strings, u16, u64

SIZES = [(0, 1), (250, 1), (251, 3), (65535, 3), (65536, 4), (2**24 - 1, 4), (2**24, 9), (2**64 - 1, 9)]


@pytest.mark.parametrize(("value", "size"), SIZES)
def test_lenenc_int_sizes(value: int, size: int) -> None:
    wire = lenenc_int(value)
    assert len(wire) == size
    assert read_lenenc_int(b"??" + wire + b"!", 2) == (value, 2 + size)


@pytest.mark.parametrize("value", [-1, -(2**70), 2**64])
def test_lenenc_int_out_of_range(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        lenenc_int(value)


@pytest.mark.parametrize("wire", [b"", b"\xfb", b"\xff", b"\xfc\x01", b"\xfd\x01\x02", b"\xfe1234567"])
def test_lenenc_int_broken(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_lenenc_int(wire, 0)


@given(long_strings)
def test_lenenc_str_round_trip_and_truncation(value: bytes) -> None:
    wire = lenenc_str(value)
    assert read_lenenc_str(wire + b"more", 0) == (value, len(wire))
    with pytest.raises(RemoteProtocolError):
        read_lenenc_str(wire[:-1], 0)


def test_announced_length_is_not_allocated() -> None:
    with pytest.raises(RemoteProtocolError, match="cut off"):
        read_lenenc_str(b"\xfe" + b"\xff" * 8, 0)


def test_payload_reader() -> None:
    reader = PayloadReader(b"\x01\x02\x00name\0\x02okrest")
    assert reader.integer(1) == 1
    assert reader.integer(2) == 2
    assert reader.null_str() == b"name"
    assert reader.lenenc_str() == b"ok"
    assert reader.left == 4
    with pytest.raises(RemoteProtocolError, match="4 bytes too many in a test"):
        reader.expect_end("a test")
    with pytest.raises(RemoteProtocolError, match="cut off"):
        reader.take(5)
    with pytest.raises(RemoteProtocolError, match="no end"):
        reader.null_str()
    assert reader.rest() == b"rest"
    reader.expect_end("a test")


def test_null_str_refuses_nul() -> None:
    assert null_str(b"ab", "name") == b"ab\0"
    with pytest.raises(LocalProtocolError, match="name contains"):
        null_str(b"a\0b", "name")


@given(u64, u64, u16, u16, long_strings, st.sampled_from([0x00, EOF_HEADER]), st.binary(max_size=300))
def test_ok_round_trip(
    affected: int, insert_id: int, status: int, warnings: int, info: bytes, header: int, state: bytes
) -> None:
    payload = build_ok(affected, insert_id, status, warnings, info, header, state)
    assert payload[0] == header
    changed = Status.SESSION_STATE_CHANGED.value
    expected_status = status | changed if state else status & ~changed
    assert parse_ok(payload) == Ok(affected, insert_id, expected_status, warnings, info, state)


def test_ok_as_servers_send_it() -> None:
    assert build_ok(2, 0, 2, 0, b"Records: 2  Duplicates: 0  Warnings: 0") == captured.MYSQL_INSERT_OK
    ok = parse_ok(captured.MYSQL_SET_NAMES_OK)
    assert ok.status == Status.AUTOCOMMIT | Status.SESSION_STATE_CHANGED
    changes = parse_session_state(ok.session_state)
    assert [kind for kind, _ in changes] == [packets.TRACK_SYSTEM_VARIABLE] * 3
    assert parse_tracked_strings(changes[0][1]) == [b"character_set_client", b"latin1"]
    assert build_session_state(changes) == ok.session_state
    assert build_ok(0, 0, 2, 0, session_state=ok.session_state) == captured.MYSQL_SET_NAMES_OK
    for use in (captured.MYSQL_USE_OK, captured.MARIADB_USE_OK):
        ((kind, data),) = parse_session_state(parse_ok(use).session_state)
        assert kind == packets.TRACK_SCHEMA
        assert parse_tracked_strings(data) == [b"mysql"]
    assert parse_ok(captured.MYSQL_ROWS_END_OK) == Ok(0, 0, 0x22, 0)


def test_ok_info_that_is_not_length_encoded() -> None:
    head = build_ok(1, 2, 3, 4)
    assert parse_ok(head + b"plain words").info == b"plain words"
    assert parse_ok(head + b"\xff").info == b"\xff"
    assert parse_ok(head + b"\x05words").info == b"words"


def test_ok_flagged_without_session_track() -> None:
    flagged = build_ok(0, 0, 2, 0, b"hi", session_state=b"x")[:-2]  # the flag and the info, no changes
    with pytest.raises(RemoteProtocolError):
        parse_ok(flagged)
    assert parse_ok(flagged, session_track=False).info == b"hi"


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x00", b"\x00\x00\x00\x02", b"\xff\x00\x00\x02\x00\x00\x00"])
def test_ok_broken(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_ok(payload)


@given(u16, st.text("ABCDEFGHIJ0123456789", min_size=5, max_size=5), st.binary(max_size=600))
def test_err_round_trip(code: int, sqlstate: str, message: bytes) -> None:
    assert parse_err(build_err(code, sqlstate, message)) == Err(code, sqlstate, message)


def test_err_as_servers_send_it() -> None:
    assert parse_err(captured.MYSQL_ERR) == Err(1054, "42S22", b"Unknown column 'nope' in 'field list'")
    assert build_err(1054, "42S22", "Unknown column 'nope' in 'SELECT'") == captured.MARIADB_ERR
    denied = parse_err(captured.MYSQL_DENIED)
    assert (denied.code, denied.sqlstate) == (1045, "28000")
    assert denied.text == "Access denied for user 'u_cas'@'localhost' (using password: YES)"


def test_err_without_sqlstate() -> None:
    assert parse_err(b"\xff\x10\x04Too many connections") == Err(1040, "HY000", b"Too many connections")
    assert parse_err(b"\xff\x10\x04") == Err(1040, "HY000", b"")
    assert parse_err(b"\xff\x10\x04#\xff\xff\xff\xff\xffx").message.startswith(b"#")


def test_err_of_text_that_is_not_utf8() -> None:
    assert build_err(1, "HY000", "\ud800").endswith(b"?")
    assert parse_err(build_err(1, "HY000", b"\xff")).text == "�"


def test_err_sqlstate_is_checked() -> None:
    with pytest.raises(LocalProtocolError):
        build_err(1, "HY00", "x")


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\xff\x10", b"\xfe\x10\x04"])
def test_err_broken(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_err(payload)


@given(u16, u16)
def test_eof_round_trip(status: int, warnings: int) -> None:
    assert parse_eof(build_eof(status, warnings)) == Eof(warnings, status)


def test_eof_as_servers_send_it() -> None:
    assert build_eof(0x22, 0) == captured.MYSQL_ROWS_END_EOF == captured.MARIADB_ROWS_END_EOF
    assert build_eof(0, 1 << 20) == b"\xfe\xff\xff\x00\x00"


@pytest.mark.parametrize("payload", [b"", b"\xfe", b"\xfe\0\0\0", b"\xfe\0\0\0\0\0", b"\0\0\0\0\0"])
def test_eof_broken(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_eof(payload)


@pytest.mark.parametrize("block", [b"\x00", b"\x00\x05abc", b"\x01\xfb"])
def test_session_state_broken(block: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_session_state(block)
