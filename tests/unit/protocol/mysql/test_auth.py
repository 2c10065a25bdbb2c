"""Both sides of authentication against each other, packet by packet through real framing."""

from __future__ import annotations

import pytest

from shardproxy.errors import AccessError
from shardproxy.protocol.mysql import auth
from shardproxy.protocol.mysql.auth import (
    Account,
    ClientAuth,
    FastAuthCache,
    Rejected,
    RsaKey,
    Send,
    ServerAuth,
    decoy_account,
    make_native_hash,
    make_sha2_hash,
)
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, SHA2_PLUGIN, Cap
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.handshake import Greeting, HandshakeResponse
from shardproxy.protocol.mysql.packets import build_ok

NONCE = bytes(range(1, 21))
PASSWORD = "pässword".encode()
KEY = RsaKey()
CAPS = int(
    Cap.LONG_PASSWORD | Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH | Cap.PLUGIN_AUTH_LENENC | Cap.SSL
)
ACCOUNTS = {
    "plain": Account("plain", plaintext=PASSWORD),
    "native": Account.from_hash("native", make_native_hash(PASSWORD)),
    "sha2": Account.from_hash("sha2", make_sha2_hash(PASSWORD, b"0123456789abcdefghij", 1000)),
    "open": Account("open", plaintext=b""),
}


def lookup(user: str) -> Account:
    return ACCOUNTS.get(user) or decoy_account(user, list(ACCOUNTS.values()), b"key")


def login(user: str, password: bytes, plugin: str, secure: bool, cache: FastAuthCache) -> int:
    """Number of packets until the client is done. Raises AccessError when it is rejected."""
    client = ClientAuth(user, password, secure=secure)
    to_client, to_server = PacketReader(1 << 16, 0), PacketReader(1 << 16, 1)
    client.feed(to_client.feed(packet(Greeting("9.7.4", 1, NONCE, CAPS, 255, 2, plugin).build(), 0))[0][1])
    server = ServerAuth(lookup, NONCE, KEY, cache, "localhost", secure)
    seq = 1
    ((seq, payload),) = to_server.feed(packet(client.response(), seq))
    actions = server.respond(HandshakeResponse.parse(payload))
    while True:
        sends = []
        for action in actions:
            if isinstance(action, Send | Rejected):
                sends.append(action.payload)
            else:
                sends.append(build_ok(0, 0, 2, 0))
        answers = []
        for send in sends:
            seq += 1
            to_client.next_seq = seq
            for _, received in to_client.feed(packet(send, seq)):
                answers += client.feed(received)
        if client.done:
            assert server.done
            return seq
        (answer,) = answers
        seq += 1
        to_server.next_seq = seq
        ((seq, payload),) = to_server.feed(packet(answer, seq))
        actions = server.feed(payload)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("plugin", [SHA2_PLUGIN, NATIVE_PLUGIN, "client_ed25519"])
@pytest.mark.parametrize("user", ACCOUNTS)
def test_both_sides_agree(user: str, plugin: str, secure: bool) -> None:
    cache = FastAuthCache()
    password = b"" if user == "open" else PASSWORD
    first = login(user, password, plugin, secure, cache)
    again = login(user, password, plugin, secure, cache)
    assert again <= first
    if user == "sha2":
        assert again < first  # the fast path
        assert len(cache) == 1


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("plugin", [SHA2_PLUGIN, NATIVE_PLUGIN])
@pytest.mark.parametrize("user", [*ACCOUNTS, "ghost"])
def test_both_sides_disagree(user: str, plugin: str, secure: bool) -> None:
    cache = FastAuthCache()
    for password in (b"wrong", PASSWORD[:-1], PASSWORD + b"!"):
        with pytest.raises(AccessError, match=f"'{user}'@'localhost' .using password: YES."):
            login(user, password, plugin, secure, cache)
    if user != "open":
        with pytest.raises(AccessError, match="using password: NO"):
            login(user, b"", plugin, secure, cache)
    assert len(cache) == 0


def test_every_public_name_is_there() -> None:
    for name in auth.__all__:
        assert getattr(auth, name) is not None
