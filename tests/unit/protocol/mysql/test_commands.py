from __future__ import annotations

import pytest
from hypothesis import given

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
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
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, Cap, Com

from . import captured
from .strategies import CHANGE_USER_CAPABILITIES, SimpleCommand, change_users, simple_commands


@given(simple_commands)
def test_round_trip(command: SimpleCommand) -> None:
    assert type(command).parse(command.build()) == command


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (InitDb(b"shop"), b"\x02shop"),
        (FieldList(b"users", b"u%"), b"\x04users\0u%"),
        (SetOption(1), b"\x1b\x01\x00"),
        (StmtPrepare(b"SELECT ?"), b"\x16SELECT ?"),
        (StmtSendLongData(5, 2, b"piece"), b"\x18\x05\0\0\0\x02\0piece"),
        (StmtClose(4), b"\x19\x04\0\0\0"),
        (StmtReset(4), b"\x1a\x04\0\0\0"),
        (StmtFetch(4, 100), b"\x1c\x04\0\0\0\x64\0\0\0"),
        (PrepareOk(1, 22, 2), captured.MYSQL_PREPARE_OK),
        (PrepareOk(1, 22, 2), captured.MARIADB_PREPARE_OK),
    ],
)
def test_known_bytes(command: SimpleCommand, payload: bytes) -> None:
    assert command.build() == payload
    assert type(command).parse(payload) == command


FIXED = [SetOption(1), StmtSendLongData(5, 2, b""), StmtClose(4), StmtReset(4), StmtFetch(4, 9), PrepareOk(1, 2, 3, 4)]


@pytest.mark.parametrize("command", FIXED)
def test_cut_anywhere(command: SimpleCommand) -> None:
    payload = command.build()
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            type(command).parse(payload[:length])


@pytest.mark.parametrize("command", [InitDb(b"d"), FieldList(b"t"), StmtPrepare(b"s"), *FIXED])
def test_another_command_byte(command: SimpleCommand) -> None:
    payload = bytes((Com.PING.value,)) + command.build()[1:]
    with pytest.raises(RemoteProtocolError, match="not a"):
        type(command).parse(payload)
    with pytest.raises(RemoteProtocolError):
        type(command).parse(b"")


def test_bytes_after_the_last_field_are_ignored() -> None:
    assert StmtClose.parse(b"\x19\x04\0\0\0more") == StmtClose(4)
    assert PrepareOk.parse(captured.MYSQL_PREPARE_OK + b"\x01") == PrepareOk(1, 22, 2)


def test_field_list_needs_the_end_of_its_table() -> None:
    with pytest.raises(RemoteProtocolError, match="no end"):
        FieldList.parse(b"\x04users")
    with pytest.raises(LocalProtocolError):
        FieldList(b"us\0ers").build()


def test_prepare_counts_are_limited() -> None:
    for command in (PrepareOk(1, 65536, 0), PrepareOk(1, 0, 65536), PrepareOk(1, 0, -1)):
        with pytest.raises(LocalProtocolError):
            command.build()


# --- change of user ---


@given(change_users)
def test_change_user_round_trip(command: ChangeUser) -> None:
    payload = command.build(CHANGE_USER_CAPABILITIES)
    assert ChangeUser.parse(payload, CHANGE_USER_CAPABILITIES) == command


def test_change_user_of_the_connector() -> None:
    caps = int(Cap.PLUGIN_AUTH | Cap.CONNECT_ATTRS)
    command = ChangeUser.parse(captured.CONNECTOR_CHANGE_USER, caps)
    assert (command.user, command.database, command.charset) == ("u_cas", "mysql", 45)
    assert command.auth_plugin == NATIVE_PLUGIN
    assert len(command.auth_response) == 20
    assert command.attributes["_client_name"] == "mysql-connector-python"
    assert command.build(caps) == captured.CONNECTOR_CHANGE_USER


def test_change_user_follows_the_capabilities() -> None:
    command = ChangeUser("u", b"token", "db", 45, "plugin", {"k": "v"})
    assert ChangeUser.parse(command.build(0), 0) == ChangeUser("u", b"token", "db", 45)
    plugins = Cap.PLUGIN_AUTH.value
    assert ChangeUser.parse(command.build(plugins), plugins) == ChangeUser("u", b"token", "db", 45, "plugin")


def test_change_user_may_end_after_any_optional_field() -> None:
    caps = CHANGE_USER_CAPABILITIES
    full = ChangeUser("u", b"token", "db", 45, "plugin", {"k": "v"}).build(caps)
    whole = {len(ChangeUser("u", b"token", "db").build(caps)), len(full)}
    whole.add(full.index(b"plugin"))
    whole.add(full.index(b"plugin") + len(b"plugin\0"))
    for length in range(len(full) + 1):
        if length in whole:
            assert ChangeUser.parse(full[:length], caps).user == "u"
        else:
            with pytest.raises(RemoteProtocolError):
                ChangeUser.parse(full[:length], caps)


def test_change_user_names_that_are_not_utf8() -> None:
    with pytest.raises(RemoteProtocolError, match="database name is not UTF-8"):
        ChangeUser.parse(b"\x11u\0\0d\xff\0", 0)


def test_change_user_token_is_limited() -> None:
    with pytest.raises(LocalProtocolError, match="255"):
        ChangeUser("u", bytes(256), None).build(0)
