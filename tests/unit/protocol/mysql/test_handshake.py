from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, SHA2_PLUGIN, Cap, MariaDbCap
from shardproxy.protocol.mysql.handshake import (
    AuthMoreData,
    AuthSwitch,
    Greeting,
    HandshakeResponse,
    OldAuthSwitch,
    SslRequest,
    is_ssl_request,
)

from . import captured
from .strategies import auth_more_data, auth_switches, greetings, handshake_responses, ssl_requests

NONCE = bytes(range(1, 21))
CAPS = int(Cap.LONG_PASSWORD | Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH)


@given(greetings())
def test_greeting_round_trip(greeting: Greeting) -> None:
    assert Greeting.parse(greeting.build()) == greeting


def test_greeting_of_mysql() -> None:
    greeting = Greeting.parse(captured.MYSQL_GREETING)
    assert greeting.server_version == greeting.version == "9.7.4-2"
    assert not greeting.is_mariadb
    assert greeting.auth_plugin == SHA2_PLUGIN
    assert greeting.charset == 255
    assert greeting.capabilities & Cap.DEPRECATE_EOF and greeting.capabilities & Cap.SSL
    assert greeting.extended == 0
    assert greeting.build() == captured.MYSQL_GREETING


def test_greeting_of_mariadb() -> None:
    greeting = Greeting.parse(captured.MARIADB_GREETING)
    assert greeting.server_version.startswith("5.5.5-10.11.19-MariaDB")
    assert greeting.version.startswith("10.11.19-MariaDB")
    assert greeting.is_mariadb
    assert greeting.auth_plugin == NATIVE_PLUGIN
    assert not greeting.capabilities & Cap.LONG_PASSWORD
    assert greeting.extended & MariaDbCap.STMT_BULK_OPERATIONS
    assert greeting.build() == captured.MARIADB_GREETING


def test_greeting_nonce_is_checked_when_built() -> None:
    greeting = Greeting("9.7.4", 1, NONCE, CAPS, 255, 2, SHA2_PLUGIN)
    for nonce in (NONCE[:-1], NONCE + b"x", bytes(20)):
        with pytest.raises(LocalProtocolError, match="nonce"):
            replace(greeting, nonce=nonce).build()
    with pytest.raises(LocalProtocolError, match="LONG_PASSWORD"):
        replace(greeting, extended=1).build()


def test_greeting_of_unsupported_servers() -> None:
    with pytest.raises(RemoteProtocolError, match="version 9"):
        Greeting.parse(b"\x09" + captured.MYSQL_GREETING[1:])
    old = Greeting("4.0", 1, NONCE, int(Cap.PROTOCOL_41), 8, 2, "").build()
    with pytest.raises(RemoteProtocolError, match=r"before MySQL 4\.1"):
        Greeting.parse(old)


@given(handshake_responses())
def test_response_round_trip(response: HandshakeResponse) -> None:
    assert HandshakeResponse.parse(response.build()) == response


def test_response_of_pymysql() -> None:
    response = HandshakeResponse.parse(captured.PYMYSQL_RESPONSE)
    assert (response.user, response.database) == ("u_cas", "mysql")
    assert response.auth_plugin == SHA2_PLUGIN
    assert len(response.auth_response) == 32
    assert response.charset == 45
    assert response.attributes["_client_name"] == "pymysql"
    assert response.build() == captured.PYMYSQL_RESPONSE


def test_response_of_the_mysql_client() -> None:
    response = HandshakeResponse.parse(captured.MYSQL_CLI_RESPONSE)
    assert response.capabilities & Cap.DEPRECATE_EOF and response.capabilities & Cap.SESSION_TRACK
    assert response.attributes["program_name"] == "mysql"
    assert response.build() == captured.MYSQL_CLI_RESPONSE


def test_response_of_the_mariadb_client() -> None:
    response = HandshakeResponse.parse(captured.MARIADB_CLI_RESPONSE)
    assert response.auth_plugin == NATIVE_PLUGIN
    assert response.extended & MariaDbCap.EXTENDED_METADATA
    assert response.build() == captured.MARIADB_CLI_RESPONSE


def test_response_with_nul_terminated_token() -> None:
    old_style = HandshakeResponse("u", b"token", None, "", int(Cap.PROTOCOL_41))
    assert HandshakeResponse.parse(old_style.build()).auth_response == b"token"
    with pytest.raises(LocalProtocolError):
        replace(old_style, auth_response=b"to\0ken").build()


def test_response_that_cannot_be_sent() -> None:
    response = HandshakeResponse("u", b"", None, "", CAPS)
    with pytest.raises(LocalProtocolError, match="CONNECT_WITH_DB"):
        replace(response, database="d").build()
    with pytest.raises(LocalProtocolError, match="255"):
        replace(response, auth_response=bytes(256)).build()
    with pytest.raises(LocalProtocolError, match="user name"):
        replace(response, user="a\0b").build()


@pytest.mark.parametrize(
    "payload", [captured.PYMYSQL_RESPONSE, captured.MYSQL_CLI_RESPONSE, captured.MARIADB_CLI_RESPONSE]
)
def test_response_cut_anywhere(payload: bytes) -> None:
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            HandshakeResponse.parse(payload[:length])


@pytest.mark.parametrize("payload", [captured.MYSQL_GREETING, captured.MARIADB_GREETING])
def test_greeting_cut_anywhere(payload: bytes) -> None:
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            Greeting.parse(payload[:length])


def test_response_names_that_are_not_utf8() -> None:
    payload = captured.PYMYSQL_RESPONSE.replace(b"u_cas", b"u_\xff\xfes")
    with pytest.raises(RemoteProtocolError, match="user name is not UTF-8"):
        HandshakeResponse.parse(payload)


def test_attributes_that_are_not_utf8_are_replaced() -> None:
    payload = captured.PYMYSQL_RESPONSE.replace(b"\x07pymysql", b"\x07py\xffysql")
    assert HandshakeResponse.parse(payload).attributes["_client_name"] == "py�ysql"


def test_response_of_before_4_1() -> None:
    with pytest.raises(RemoteProtocolError, match=r"before MySQL 4\.1"):
        HandshakeResponse.parse(b"\x85\x24\x00\x00\x00old\0" + bytes(40))


@given(ssl_requests)
def test_ssl_request_round_trip(request: SslRequest) -> None:
    payload = request.build()
    assert is_ssl_request(payload)
    assert SslRequest.parse(payload) == request


def test_what_is_no_ssl_request() -> None:
    payload = SslRequest(CAPS, 1 << 24, 45).build()
    assert not is_ssl_request(payload[:-1])
    assert not is_ssl_request(payload + b"\0")
    assert not is_ssl_request(captured.PYMYSQL_RESPONSE)
    without = (CAPS & ~Cap.SSL.value).to_bytes(4, "little") + payload[4:]
    assert not is_ssl_request(without)
    with pytest.raises(RemoteProtocolError):
        SslRequest.parse(without)


@given(auth_switches)
def test_auth_switch_round_trip(switch: AuthSwitch) -> None:
    assert AuthSwitch.parse(switch.build()) == switch


def test_auth_switch_as_servers_send_it() -> None:
    for payload, plugin in ((captured.MYSQL_AUTH_SWITCH, SHA2_PLUGIN), (captured.MARIADB_AUTH_SWITCH, NATIVE_PLUGIN)):
        switch = AuthSwitch.parse(payload)
        assert switch.auth_plugin == plugin
        assert len(switch.nonce) == 20
        assert switch.build() == payload


@pytest.mark.parametrize("payload", [b"", b"\xfe", b"\xfeplugin", b"\x00plugin\0nonce", b"\xfe\xff\0nonce"])
def test_auth_switch_broken(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        AuthSwitch.parse(payload)


def test_old_auth_switch() -> None:
    assert OldAuthSwitch.parse(OldAuthSwitch().build()) == OldAuthSwitch()
    with pytest.raises(RemoteProtocolError):
        OldAuthSwitch.parse(b"\xfe\0")


@given(auth_more_data)
def test_more_data_round_trip(data: AuthMoreData) -> None:
    assert AuthMoreData.parse(data.build()) == data


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\xfe\x04"])
def test_more_data_broken(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        AuthMoreData.parse(payload)
