"""Every parser against bytes that were a message once: mutated, cut, spliced, fed in pieces.

Whatever comes in, a parser returns a message or raises RemoteProtocolError, and what it returns is no larger than what
came in. Authentication may also refuse (AccessError, Rejected); it must never accept.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import AccessError, RemoteProtocolError
from shardproxy.protocol.mysql.accounts import Account, FastAuthCache, decoy_account
from shardproxy.protocol.mysql.binary import (
    build_execute,
    integer_parameter,
    parse_binary_row,
    parse_execute,
    rebuild_execute,
)
from shardproxy.protocol.mysql.client_auth import ClientAuth
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.commands import (
    ChangeUser,
    FieldList,
    InitDb,
    PrepareOk,
    SetOption,
    StmtClose,
    StmtFetch,
    StmtPrepare,
    StmtReset,
    StmtSendLongData,
)
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, SHA2_PLUGIN, Cap, FieldType
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.handshake import (
    AuthMoreData,
    AuthSwitch,
    Greeting,
    HandshakeResponse,
    OldAuthSwitch,
    SslRequest,
)
from shardproxy.protocol.mysql.packets import (
    build_ok,
    parse_eof,
    parse_err,
    parse_ok,
    parse_session_state,
    parse_tracked_strings,
    read_lenenc_int,
    read_lenenc_str,
)
from shardproxy.protocol.mysql.passwords import make_sha2_hash, native_token, parse_stored_hash, sha2_token
from shardproxy.protocol.mysql.rsa_exchange import RsaKey
from shardproxy.protocol.mysql.server_auth import Accepted, Send, ServerAuth
from shardproxy.protocol.mysql.text import parse_text_row
from shardproxy.protocol.mysql.values import read_value, skip_value

from . import captured

NONCE = bytes(range(1, 21))
COLUMNS = [ColumnDefinition.parse(payload) for payload in captured.MYSQL_COLUMNS]
RESPONSES = [captured.PYMYSQL_RESPONSE, captured.MYSQL_CLI_RESPONSE, captured.MARIADB_CLI_RESPONSE]
EXECUTES = [captured.CONNECTOR_EXECUTE, captured.LIBMARIADB_EXECUTE, captured.LIBMARIADB_EXECUTE_AGAIN]
TYPES = bytes((FieldType.LONGLONG.value, 0, FieldType.VAR_STRING.value, 0, FieldType.TIME.value, 0))
CHANGE_CAPS = int(Cap.PLUGIN_AUTH | Cap.CONNECT_ATTRS)
SESSION_STATE = parse_ok(captured.MYSQL_SET_NAMES_OK).session_state


def _integers(payload: bytes) -> list[int | None]:
    return [integer_parameter(payload, 3, TYPES, index) for index in range(3)]


def _values(payload: bytes) -> list[object]:
    return (
        [read_value(payload, 1, payload[0], bool(payload[0] & 1)), skip_value(payload, 1, payload[0])]
        if payload
        else []
    )


PARSERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "lenenc_int": (lambda data: read_lenenc_int(data, 0), [b"\xfc\x01\x02", b"\xfe12345678"]),
    "lenenc_str": (lambda data: read_lenenc_str(data, 0), [b"\x03abc", b"\xfc\x05\x00hello"]),
    "ok": (parse_ok, [captured.MYSQL_INSERT_OK, captured.MYSQL_SET_NAMES_OK, captured.MYSQL_ROWS_END_OK]),
    "ok_without_session_track": (
        lambda data: parse_ok(data, session_track=False),
        [captured.MYSQL_INSERT_OK, captured.MYSQL_SET_NAMES_OK],
    ),
    "err": (parse_err, [captured.MYSQL_ERR, captured.MARIADB_ERR]),
    "eof": (parse_eof, [captured.MYSQL_ROWS_END_EOF]),
    "session_state": (parse_session_state, [SESSION_STATE]),
    "tracked_strings": (parse_tracked_strings, [parse_session_state(SESSION_STATE)[0][1]]),
    "greeting": (Greeting.parse, [captured.MYSQL_GREETING, captured.MARIADB_GREETING]),
    "ssl_request": (SslRequest.parse, [SslRequest(CHANGE_CAPS, 1 << 24, 45).build()]),
    "response": (HandshakeResponse.parse, RESPONSES),
    "switch": (AuthSwitch.parse, [captured.MYSQL_AUTH_SWITCH, captured.MARIADB_AUTH_SWITCH]),
    "old_switch": (OldAuthSwitch.parse, [b"\xfe"]),
    "more_data": (AuthMoreData.parse, [b"\x01\x03"]),
    "column": (ColumnDefinition.parse, [captured.MYSQL_COLUMNS[0], captured.MARIADB_COLUMNS[-1]]),
    "column_default": (
        lambda data: ColumnDefinition.parse(data, with_default=True),
        [captured.MYSQL_FIELD_LIST_COLUMN, captured.MARIADB_FIELD_LIST_COLUMN],
    ),
    "text_row": (lambda data: parse_text_row(data, 22), captured.MYSQL_TEXT_ROWS),
    "binary_row": (lambda data: parse_binary_row(data, COLUMNS), captured.MYSQL_BINARY_ROWS),
    "value": (_values, [b"\x07\x0b\xea\x07\x0b\x16\1\2\3\4\0\0\0", b"\xf6\x03-.5", b"\x0b\x08\1\1\0\0\0\1\1\1"]),
    "execute_6": (lambda data: parse_execute(data, 6).parameters(), EXECUTES),
    "execute_known_types": (lambda data: parse_execute(data, 3, TYPES).parameters(), EXECUTES),
    "execute_long_data": (lambda data: parse_execute(data, 3, TYPES, {1: b"long"}).parameters(), EXECUTES),
    "execute_integers": (_integers, EXECUTES),
    "execute_rebuild": (lambda data: rebuild_execute(data, 7, 3, TYPES), EXECUTES),
    "change_user": (lambda data: ChangeUser.parse(data, CHANGE_CAPS), [captured.CONNECTOR_CHANGE_USER]),
    "prepare_ok": (PrepareOk.parse, [captured.MYSQL_PREPARE_OK]),
    "init_db": (InitDb.parse, [b"\x02db"]),
    "field_list": (FieldList.parse, [b"\x04table\0%"]),
    "set_option": (SetOption.parse, [b"\x1b\0\0"]),
    "prepare": (StmtPrepare.parse, [b"\x16SELECT ?"]),
    "long_data": (StmtSendLongData.parse, [b"\x18\1\0\0\0\0\0data"]),
    "close": (StmtClose.parse, [b"\x19\1\0\0\0"]),
    "reset": (StmtReset.parse, [b"\x1a\1\0\0\0"]),
    "fetch": (StmtFetch.parse, [b"\x1c\1\0\0\0\1\0\0\0"]),
}

# Bytes that mean something somewhere: lengths, NULL, headers, and their neighbours.
_TELLING = st.sampled_from([0x00, 0x01, 0x02, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF]) | st.integers(0, 255)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed after up to six edits: overwrite, insert, remove, repeat, cut, splice with another seed."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes((draw(_TELLING),))
            case 1:
                data[at:at] = draw(st.binary(max_size=8))
            case 2:
                del data[at : at + draw(st.integers(1, 8))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 30))]
            case 4:
                del data[at:]
            case _:
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


def size(value: object) -> int:
    """Bytes of content, counting small things as 8."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(size(key) + size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(map(size, value))
    if is_dataclass(value):
        return sum(size(getattr(value, item.name)) for item in fields(value))
    return 8


def check(parse: Callable[[bytes], object], payload: bytes) -> None:
    try:
        message = parse(payload)
    except RemoteProtocolError:
        return
    assert size(message) <= 4 * len(payload) + 400


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_messages(name: str) -> None:
    parse, seeds = PARSERS[name]
    assert seeds

    @given(mutated(seeds))
    def run(payload: bytes) -> None:
        check(parse, payload)

    run()


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes(name: str) -> None:
    parse, seeds = PARSERS[name]
    heads = sorted({seed[:1] for seed in seeds} | {b""})

    @given(st.sampled_from(heads), st.binary(max_size=80))
    def run(head: bytes, tail: bytes) -> None:
        check(parse, head + tail)

    run()


@pytest.mark.parametrize("name", PARSERS)
def test_messages_of_every_shorter_length(name: str) -> None:
    parse, seeds = PARSERS[name]
    for seed in seeds:
        for length in range(len(seed)):
            check(parse, seed[:length])


@pytest.mark.parametrize("name", PARSERS)
def test_announced_lengths_allocate_nothing(name: str) -> None:
    """Each byte in turn becomes the start of the largest length: memory must follow the input, not the number."""
    parse, seeds = PARSERS[name]
    tracemalloc.start()
    try:
        for seed in seeds:
            for at in range(len(seed)):
                check(parse, seed[:at] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + seed[at + 1 :])
                check(parse, seed[:at] + b"\xfd\xff\xff\xff" + seed[at + 1 :])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(mutated([packet(seed, index) for index, seed in enumerate([*RESPONSES, *EXECUTES, b""])]), st.integers(1, 9))
def test_framing(stream: bytes, step: int) -> None:
    def read(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
        reader, got = PacketReader(limit=300), []
        try:
            for piece in pieces:
                reader.append(piece)
                while (one := reader.take()) is not None:
                    got.append(one)
                assert reader.buffered <= 300 + 4
        except RemoteProtocolError:
            assert reader.buffered == 0
            return got, True
        return got, False

    byte_by_byte = read([stream[at : at + 1] for at in range(len(stream))])
    in_steps = read([stream[at : at + step] for at in range(0, len(stream), step)])
    assert byte_by_byte == in_steps


_KEY = RsaKey()
_PASSWORD = b"s3same"
_ACCOUNTS = [
    Account("plain", plaintext=_PASSWORD),
    Account.from_hash("u_cas", make_sha2_hash(_PASSWORD, b"0123456789abcdefghij", 1000)),
]
_LAST_WORDS = [
    b"",
    b"\0",
    b"\x02",
    _PASSWORD,
    b"wrong\0",
    bytes(256),
    sha2_token(b"wrong", NONCE),
    native_token(b"wrong", NONCE),
]


@given(
    mutated([*RESPONSES, *(seed.replace(b"u_cas", b"plain") for seed in RESPONSES)]),
    st.lists(mutated(_LAST_WORDS), max_size=4),
    st.booleans(),
)
def test_server_side_of_authentication_lets_nobody_in(first: bytes, more: list[bytes], secure: bool) -> None:
    known = {account.user: account for account in _ACCOUNTS}
    server = ServerAuth(
        lambda user: known.get(user) or decoy_account(user, _ACCOUNTS, b"key"),
        NONCE,
        _KEY,
        FastAuthCache(),
        "localhost",
        secure,
    )
    try:
        actions = server.respond(HandshakeResponse.parse(first))
    except RemoteProtocolError:
        return
    assert not any(isinstance(action, Accepted) for action in actions)
    for payload in more:
        if server.done:
            break
        assert all(isinstance(action, Send) for action in actions)
        right = payload == _PASSWORD + b"\0" and secure
        actions = server.feed(payload)
        assert right or not any(isinstance(action, Accepted) for action in actions)


_SERVER_WORDS = [
    captured.MYSQL_GREETING,
    captured.MARIADB_GREETING,
    captured.MYSQL_AUTH_SWITCH,
    captured.MARIADB_AUTH_SWITCH,
    captured.MYSQL_DENIED,
    *(payload for side, payload in captured.MYSQL_FULL_EXCHANGE if side == "S"),
    b"\x01\x03",
    b"\x01\x04",
    build_ok(0, 0, 2, 0),
]


@given(st.lists(mutated(_SERVER_WORDS), min_size=1, max_size=5), st.booleans())
def test_client_side_of_authentication(payloads: list[bytes], secure: bool) -> None:
    client = ClientAuth("u", _PASSWORD, secure=secure)
    try:
        for index, payload in enumerate([captured.MYSQL_GREETING, *payloads]):
            answers = client.feed(payload)
            if index == 0:
                answers.append(client.response())
            # the password leaves in clear text only inside TLS
            assert secure or not any(_PASSWORD in answer for answer in answers)
            if client.done:
                assert payload[:1] == b"\0"
                return
    except (RemoteProtocolError, AccessError):
        assert not client.done


@given(
    st.text(max_size=80)
    | mutated([seed.encode() for seed in captured.SHA2_HASHES.values()]).map(lambda raw: raw.decode("latin-1"))
)
def test_stored_hashes(text: str) -> None:
    try:
        stored = parse_stored_hash(text)
    except ValueError:
        return
    assert parse_stored_hash(stored.text) == stored


@given(st.binary(max_size=60), st.integers(0, 40))
def test_execute_with_any_number_of_parameters(payload: bytes, count: int) -> None:
    for packet_bytes in (b"\x17" + payload, build_execute(1, []) + payload):
        check(lambda data: parse_execute(data, count).parameters(), packet_bytes)
        check(lambda data: rebuild_execute(data, 1, count, None), packet_bytes)


def test_the_plugins_of_the_corpus_are_both_there() -> None:
    """The corpus above is worth something only while it covers both plugins."""
    assert {HandshakeResponse.parse(seed).auth_plugin for seed in RESPONSES} == {NATIVE_PLUGIN, SHA2_PLUGIN}
