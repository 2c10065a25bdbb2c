from __future__ import annotations

import pytest

from shardproxy.errors import AccessError, LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.client_auth import ClientAuth
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, SHA2_PLUGIN, Cap
from shardproxy.protocol.mysql.handshake import (
    AuthMoreData,
    AuthSwitch,
    Greeting,
    HandshakeResponse,
    OldAuthSwitch,
    is_ssl_request,
)
from shardproxy.protocol.mysql.packets import build_err, build_ok
from shardproxy.protocol.mysql.passwords import native_token, sha2_token
from shardproxy.protocol.mysql.rsa_exchange import RsaKey

from . import captured

NONCE = bytes(range(1, 21))
OTHER_NONCE = bytes(range(21, 41))
OFFERED = int(
    Cap.LONG_PASSWORD
    | Cap.PROTOCOL_41
    | Cap.SECURE_CONNECTION
    | Cap.PLUGIN_AUTH
    | Cap.PLUGIN_AUTH_LENENC
    | Cap.CONNECT_WITH_DB
    | Cap.CONNECT_ATTRS
    | Cap.DEPRECATE_EOF
    | Cap.SESSION_TRACK
    | Cap.COMPRESS
    | Cap.SSL
)
OK = build_ok(0, 0, 2, 0)
FAST = AuthMoreData(b"\x03").build()
FULL = AuthMoreData(b"\x04").build()


def greeting(plugin: str = SHA2_PLUGIN, capabilities: int = OFFERED) -> bytes:
    return Greeting("9.7.4", 5, NONCE, capabilities, 255, 2, plugin).build()


def greeted(plugin: str = SHA2_PLUGIN, password: bytes = b"pw", secure: bool = False) -> ClientAuth:
    auth = ClientAuth("u", password, secure=secure)
    assert auth.feed(greeting(plugin)) == []
    auth.response()
    return auth


@pytest.mark.parametrize(
    "exchange", [captured.MYSQL_FAST_EXCHANGE, captured.MYSQL_FULL_EXCHANGE, captured.MARIADB_EXCHANGE]
)
def test_logins_to_real_servers_are_replayed(exchange: list[tuple[str, bytes]]) -> None:
    """Every payload of the client comes out as it was sent, but for the encrypted one, which is never the same."""
    auth = ClientAuth(
        captured.USER,
        captured.PASSWORD,
        capabilities=int(
            Cap.DEPRECATE_EOF | Cap.SESSION_TRACK | Cap.MULTI_STATEMENTS | Cap.CONNECT_ATTRS | Cap.TRANSACTIONS
        ),
        attributes={"_client_name": "shardproxy"},
    )
    sent = []
    for side, payload in exchange:
        if side == "S":
            sent += auth.feed(payload)
            if payload is exchange[0][1]:
                sent.append(auth.response())
    expected = [payload for side, payload in exchange if side == "C"]
    assert len(sent) == len(expected)
    for ours, theirs in zip(sent, expected, strict=True):
        assert ours == theirs or len(ours) == len(theirs) == 256
    assert auth.done
    assert auth.ok is not None and auth.ok.status & 2


def test_capabilities_are_what_both_want() -> None:
    wanted = Cap.DEPRECATE_EOF | Cap.LOCAL_FILES | Cap.COMPRESS | Cap.SSL
    auth = ClientAuth("u", b"pw", "db", capabilities=int(wanted))
    auth.feed(greeting())
    response = HandshakeResponse.parse(auth.response())
    assert response.capabilities == auth.agreed
    assert auth.agreed & Cap.DEPRECATE_EOF and auth.agreed & Cap.CONNECT_WITH_DB
    assert auth.agreed & Cap.PLUGIN_AUTH_LENENC
    assert not auth.agreed & (Cap.LOCAL_FILES | Cap.COMPRESS | Cap.SSL | Cap.SESSION_TRACK)
    assert (response.user, response.database, response.charset) == ("u", "db", 45)


def test_native() -> None:
    auth = ClientAuth("u", b"pw")
    auth.feed(greeting(NATIVE_PLUGIN))
    response = HandshakeResponse.parse(auth.response())
    assert response.auth_plugin == NATIVE_PLUGIN
    assert response.auth_response == native_token(b"pw", NONCE)
    assert auth.feed(OK) == []
    assert auth.done


def test_sha2_fast() -> None:
    auth = greeted()
    assert auth.feed(FAST) == []
    assert not auth.done
    auth.feed(OK)
    assert auth.done


def test_sha2_full_over_tls_sends_the_password() -> None:
    auth = greeted(secure=True)
    assert auth.feed(FULL) == [b"pw\0"]
    auth.feed(OK)
    assert auth.done


def test_sha2_full_without_tls_never_sends_the_password() -> None:
    key = RsaKey()
    auth = greeted()
    assert auth.feed(FULL) == [b"\x02"]
    (cipher,) = auth.feed(AuthMoreData(key.public_pem()).build())
    assert key.decrypt_password(cipher, NONCE) == b"pw"
    auth.feed(OK)
    assert auth.done


@pytest.mark.parametrize(("plugin", "token"), [(NATIVE_PLUGIN, native_token), (SHA2_PLUGIN, sha2_token)])
@pytest.mark.parametrize("default", [NATIVE_PLUGIN, SHA2_PLUGIN, "client_ed25519"])
def test_switch(default: str, plugin: str, token: object) -> None:
    assert callable(token)
    auth = greeted(default)
    assert auth.feed(AuthSwitch(plugin, OTHER_NONCE).build()) == [token(b"pw", OTHER_NONCE)]
    if plugin == SHA2_PLUGIN:
        assert auth.feed(FAST) == []
    auth.feed(OK)
    assert auth.done


def test_switch_with_an_empty_password_sends_an_empty_packet() -> None:
    assert greeted(password=b"").feed(AuthSwitch(NATIVE_PLUGIN, OTHER_NONCE).build()) == [b""]


def test_tls() -> None:
    auth = ClientAuth("u", b"pw", capabilities=int(Cap.DEPRECATE_EOF))
    auth.feed(greeting())
    assert auth.server_offers_tls
    request = auth.ssl_request()
    assert is_ssl_request(request)
    with pytest.raises(LocalProtocolError, match="not established"):
        auth.response()
    auth.secure = True
    response = HandshakeResponse.parse(auth.response())
    assert response.capabilities & Cap.SSL
    assert response.capabilities == int.from_bytes(request[:4], "little")


def test_tls_that_the_server_does_not_offer() -> None:
    auth = ClientAuth("u", b"pw")
    auth.feed(greeting(capabilities=OFFERED & ~Cap.SSL.value))
    assert not auth.server_offers_tls
    with pytest.raises(LocalProtocolError, match="does not offer TLS"):
        auth.ssl_request()


def test_refusals_carry_the_servers_words() -> None:
    for auth, payload in (
        (ClientAuth("u", b"pw"), b"\xff\x10\x04Too many connections"),
        (greeted(), captured.MYSQL_DENIED),
    ):
        with pytest.raises(AccessError) as raised:
            auth.feed(payload)
        assert raised.value.code in (1040, 1045)
        assert raised.value.sqlstate == ("HY000" if raised.value.code == 1040 else "28000")
        assert str(raised.value).startswith(("Too many", "Access denied for user 'u_cas'"))
        with pytest.raises(LocalProtocolError):
            auth.feed(OK)
        assert not auth.done


@pytest.mark.parametrize("stage", [b"", FAST, FULL])
def test_refusal_at_any_stage(stage: bytes) -> None:
    auth = greeted()
    if stage:
        auth.feed(stage)
    with pytest.raises(AccessError):
        auth.feed(build_err(1045, "28000", "no"))


@pytest.mark.parametrize(
    "payload",
    [AuthSwitch("mysql_clear_password", NONCE).build(), AuthSwitch("client_ed25519", NONCE).build()],
)
def test_unknown_plugins_are_refused(payload: bytes) -> None:
    with pytest.raises(AccessError, match="supported are"):
        greeted(secure=True).feed(payload)


def test_old_password_is_never_sent() -> None:
    with pytest.raises(AccessError, match=r"before MySQL 4\.1"):
        greeted().feed(OldAuthSwitch().build())


@pytest.mark.parametrize(
    "payloads",
    [
        [b""],
        [b"\x05"],
        [AuthMoreData(b"\x05").build()],
        [AuthMoreData(b"").build()],
        [FAST, FAST],
        [FAST, FULL],
        [FULL, OK],
        [FULL, FAST],
        [FULL, AuthMoreData(b"no key").build()],
        [FAST, AuthSwitch(NATIVE_PLUGIN, NONCE).build()],
        [AuthSwitch(NATIVE_PLUGIN, NONCE).build(), AuthSwitch(SHA2_PLUGIN, NONCE).build()],
        [AuthSwitch(NATIVE_PLUGIN, NONCE).build(), FAST],
        [AuthSwitch(NATIVE_PLUGIN, b"").build()],
        [b"\xfeno end"],
        [b"\x00\x00"],
    ],
)
def test_servers_that_break_the_protocol(payloads: list[bytes]) -> None:
    auth = greeted()
    for payload in payloads[:-1]:
        auth.feed(payload)
    with pytest.raises(RemoteProtocolError):
        auth.feed(payloads[-1])
    with pytest.raises(LocalProtocolError):
        auth.feed(OK)


def test_native_server_sends_no_sha2_data() -> None:
    with pytest.raises(RemoteProtocolError):
        greeted(NATIVE_PLUGIN).feed(FULL)


def test_greeting_without_plugins() -> None:
    with pytest.raises(RemoteProtocolError, match="PLUGIN_AUTH"):
        ClientAuth("u", b"pw").feed(greeting("", OFFERED & ~Cap.PLUGIN_AUTH.value))


def test_order_of_calls() -> None:
    auth = ClientAuth("u", b"pw")
    for call in (auth.response, auth.ssl_request):
        with pytest.raises(LocalProtocolError, match="follows the greeting"):
            call()
    with pytest.raises(LocalProtocolError, match="has not come"):
        _ = auth.agreed
    auth.feed(greeting())
    with pytest.raises(LocalProtocolError, match="RESPONSE"):
        auth.feed(OK)
    auth.response()
    with pytest.raises(LocalProtocolError):
        auth.response()
    auth.feed(OK)
    with pytest.raises(LocalProtocolError, match="DONE"):
        auth.feed(OK)
