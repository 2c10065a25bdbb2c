from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.errors import LocalProtocolError
from shardproxy.protocol.mysql.accounts import Account, FastAuthCache, decoy_account
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, SHA2_PLUGIN, Cap
from shardproxy.protocol.mysql.handshake import AuthMoreData, AuthSwitch, HandshakeResponse
from shardproxy.protocol.mysql.packets import parse_err
from shardproxy.protocol.mysql.passwords import make_native_hash, make_sha2_hash, native_token, sha2_token
from shardproxy.protocol.mysql.rsa_exchange import RsaKey, encrypt_password
from shardproxy.protocol.mysql.server_auth import MAX_AUTH_PAYLOAD, Accepted, Action, Rejected, Send, ServerAuth

NONCE = bytes(range(1, 21))
PASSWORD = b"s3same"
SALT = b"0123456789abcdefghij"
ACCOUNTS = {
    "plain": Account("plain", plaintext=PASSWORD),
    "native": Account.from_hash("native", make_native_hash(PASSWORD)),
    "sha2": Account.from_hash("sha2", make_sha2_hash(PASSWORD, SALT, 1000)),
    "open": Account("open", plaintext=b""),
}
WITH_PASSWORD = ["plain", "native", "sha2"]
CAPS = int(Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH)
OLD_CAPS = int(Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION)
FAST = Send(b"\x01\x03")
FULL = Send(b"\x01\x04")
KEY = RsaKey()


class Login:
    """One client against one ServerAuth; `cache` and accounts may be shared between logins."""

    def __init__(self, secure: bool = False, cache: FastAuthCache | None = None, like: str = "sha2") -> None:
        self.cache = FastAuthCache() if cache is None else cache
        self.auth = ServerAuth(self.lookup, NONCE, KEY, self.cache, "10.0.0.7", secure)
        self.like = like

    def lookup(self, user: str) -> Account:
        return ACCOUNTS.get(user) or decoy_account(user, [ACCOUNTS[self.like]], b"key")

    def respond(self, user: str, plugin: str, token: bytes, caps: int = CAPS) -> list[Action]:
        return self.auth.respond(HandshakeResponse(user, token, None, plugin, caps))

    def sha2(self, user: str, password: bytes = PASSWORD) -> list[Action]:
        return self.respond(user, SHA2_PLUGIN, sha2_token(password, NONCE))

    def native(self, user: str, password: bytes = PASSWORD) -> list[Action]:
        return self.respond(user, NATIVE_PLUGIN, native_token(password, NONCE))


def is_accepted(actions: list[Action], user: str) -> bool:
    return [type(action) for action in actions] == [Accepted] and actions == [Accepted(ACCOUNTS[user])]


def check_rejected(login: Login, actions: list[Action], user: str, given: str = "YES") -> None:
    (rejected,) = actions
    assert isinstance(rejected, Rejected)
    assert str(rejected.error) == f"Access denied for user '{user}'@'10.0.0.7' (using password: {given})"
    err = parse_err(rejected.payload)
    assert (err.code, err.sqlstate, err.text) == (1045, "28000", str(rejected.error))
    assert login.auth.done
    for payload in (b"", b"\x02", PASSWORD + b"\0", sha2_token(PASSWORD, NONCE)):
        with pytest.raises(LocalProtocolError):
            login.auth.feed(payload)
    with pytest.raises(LocalProtocolError):
        login.sha2("plain")


# --- what is right gets in ---


@pytest.mark.parametrize("user", ["plain", "native"])
def test_native(user: str) -> None:
    assert is_accepted(Login().native(user), user)


def test_sha2_of_a_known_plaintext_is_fast_at_once() -> None:
    assert Login().sha2("plain") == [FAST, Accepted(ACCOUNTS["plain"])]


@pytest.mark.parametrize("user", ["native", "sha2"])
def test_full_exchange_over_tls_and_then_fast(user: str) -> None:
    login = Login(secure=True)
    assert login.sha2(user) == [FULL]
    assert not login.auth.done
    assert is_accepted(login.auth.feed(PASSWORD + b"\0"), user)
    assert Login(cache=login.cache).sha2(user) == [FAST, Accepted(ACCOUNTS[user])]


@pytest.mark.parametrize("user", ["native", "sha2"])
def test_full_exchange_by_rsa_and_then_fast(user: str) -> None:
    login = Login()
    assert login.sha2(user) == [FULL]
    (send,) = login.auth.feed(b"\x02")
    assert isinstance(send, Send)
    pem = AuthMoreData.parse(send.payload).data
    assert pem == KEY.public_pem()
    assert is_accepted(login.auth.feed(encrypt_password(PASSWORD, NONCE, pem)), user)
    assert Login(cache=login.cache).sha2(user) == [FAST, Accepted(ACCOUNTS[user])]


def test_a_client_may_have_the_key_from_before() -> None:
    login = Login()
    assert login.sha2("sha2") == [FULL]
    assert is_accepted(login.auth.feed(encrypt_password(PASSWORD, NONCE, KEY.public_pem())), "sha2")


@pytest.mark.parametrize("plugin", [SHA2_PLUGIN, NATIVE_PLUGIN])
@pytest.mark.parametrize("token", [b"", b"\0"])
def test_account_without_password(plugin: str, token: bytes) -> None:
    assert is_accepted(Login().respond("open", plugin, token), "open")


@pytest.mark.parametrize("user", ["plain", "native"])
def test_clients_from_before_plugins(user: str) -> None:
    assert is_accepted(Login().respond(user, "", native_token(PASSWORD, NONCE), OLD_CAPS), user)


# --- switching the plugin ---


def test_native_client_of_an_sha2_account_is_switched() -> None:
    login = Login(secure=True)
    assert login.native("sha2") == [Send(AuthSwitch(SHA2_PLUGIN, NONCE).build())]
    assert login.auth.feed(sha2_token(PASSWORD, NONCE)) == [FULL]
    assert is_accepted(login.auth.feed(PASSWORD + b"\0"), "sha2")


@pytest.mark.parametrize("user", WITH_PASSWORD)
@pytest.mark.parametrize("plugin", ["", "mysql_clear_password", "client_ed25519", "sha256_password"])
def test_other_plugins_are_switched_to_the_one_that_fits_all(user: str, plugin: str) -> None:
    login = Login(secure=True)
    assert login.respond(user, plugin, PASSWORD + b"\0") == [Send(AuthSwitch(SHA2_PLUGIN, NONCE).build())]
    actions = login.auth.feed(sha2_token(PASSWORD, NONCE))
    if user == "plain":
        assert actions == [FAST, Accepted(ACCOUNTS["plain"])]
    else:
        assert actions == [FULL]


def test_switched_client_without_password() -> None:
    login = Login()
    login.respond("open", "client_ed25519", b"")
    assert is_accepted(login.auth.feed(b""), "open")


def test_change_of_user_asks_for_a_new_token() -> None:
    for plugin, expected in ((SHA2_PLUGIN, SHA2_PLUGIN), (NATIVE_PLUGIN, NATIVE_PLUGIN), ("other", SHA2_PLUGIN)):
        login = Login()
        assert login.auth.change_user("plain", plugin) == [Send(AuthSwitch(expected, NONCE).build())]
        token = native_token(PASSWORD, NONCE) if expected == NATIVE_PLUGIN else sha2_token(PASSWORD, NONCE)
        assert login.auth.feed(token)[-1] == Accepted(ACCOUNTS["plain"])


# --- what is wrong does not ---


@pytest.mark.parametrize("user", ["plain", "native"])
def test_wrong_native_password(user: str) -> None:
    login = Login()
    check_rejected(login, login.native(user, b"wrong"), user)


@pytest.mark.parametrize("user", WITH_PASSWORD)
@pytest.mark.parametrize("plugin", [SHA2_PLUGIN, NATIVE_PLUGIN])
@pytest.mark.parametrize("token", [b"", b"\0"])
def test_missing_password(user: str, plugin: str, token: bytes) -> None:
    login = Login()
    actions = login.respond(user, plugin, token)
    if user == "sha2" and plugin == NATIVE_PLUGIN:
        actions = login.auth.feed(token)
    check_rejected(login, actions, user, "NO")


@pytest.mark.parametrize("user", WITH_PASSWORD)
def test_wrong_password_in_the_full_exchange(user: str) -> None:
    for secure, payload in ((True, b"wrong\0"), (False, encrypt_password(b"wrong", NONCE, KEY.public_pem()))):
        login = Login(secure)
        assert login.sha2(user, b"wrong") == [FULL]
        check_rejected(login, login.auth.feed(payload), user)
        assert len(login.cache) == 0


def test_password_for_an_account_without_one() -> None:
    for plugin, token in ((SHA2_PLUGIN, sha2_token(b"x", NONCE)), (NATIVE_PLUGIN, native_token(b"x", NONCE))):
        login = Login()
        check_rejected(login, login.respond("open", plugin, token), "open")


@pytest.mark.parametrize("token", [b"x" * 31, b"x" * 33, b"x" * 20, b"\0\0"])
def test_sha2_token_of_a_wrong_length(token: bytes) -> None:
    login = Login()
    check_rejected(login, login.respond("sha2", SHA2_PLUGIN, token), "sha2")


@pytest.mark.parametrize("payload", [PASSWORD + b"\0", PASSWORD, b"", b"\x01", bytes(256), bytes(255)])
def test_clear_password_is_not_taken_without_tls(payload: bytes) -> None:
    login = Login(secure=False)
    login.sha2("sha2")
    check_rejected(login, login.auth.feed(payload), "sha2")


@pytest.mark.parametrize("payload", [PASSWORD, b"", b"\x02", PASSWORD + b"\0\0", b"\0" + PASSWORD + b"\0"])
def test_malformed_passwords_over_tls(payload: bytes) -> None:
    login = Login(secure=True)
    login.sha2("sha2")
    check_rejected(login, login.auth.feed(payload), "sha2")


def test_key_is_given_once() -> None:
    login = Login()
    login.sha2("sha2")
    login.auth.feed(b"\x02")
    check_rejected(login, login.auth.feed(b"\x02"), "sha2")


def test_overlong_password_is_refused_even_when_right() -> None:
    for length, accepted in ((256, True), (257, False)):
        password = b"x" * length
        auth = ServerAuth(
            lambda user, password=password: Account(user, plaintext=password),  # type: ignore[misc]
            NONCE,
            KEY,
            FastAuthCache(),
            "h",
            secure=True,
        )
        auth.respond(HandshakeResponse("u", sha2_token(b"other", NONCE), None, SHA2_PLUGIN, CAPS))
        (last,) = auth.feed(password + b"\0")
        assert isinstance(last, Accepted) == accepted


@pytest.mark.parametrize("user", ["sha2", "ghost"])
def test_oversized_payloads_are_refused_in_every_state(user: str) -> None:
    login = Login()
    login.respond(user, "other", b"x")
    check_rejected(login, login.auth.feed(bytes(MAX_AUTH_PAYLOAD + 1)), user, "NO")
    login = Login(secure=True)
    login.sha2(user)
    check_rejected(login, login.auth.feed(bytes(MAX_AUTH_PAYLOAD) + b"\0"), user)


def test_old_client_of_an_sha2_account_learns_why() -> None:
    for user in ("sha2", "ghost"):
        login = Login()
        (rejected,) = login.respond(user, "", native_token(PASSWORD, NONCE), OLD_CAPS)
        assert isinstance(rejected, Rejected)
        assert (rejected.error.code, rejected.error.sqlstate) == (1251, "08004")
        with pytest.raises(LocalProtocolError):
            login.auth.feed(b"")


# --- nobody learns who exists ---


def transcript(user: str, like: str, secure: bool, plugin: str) -> list[bytes]:
    """What a client with a wrong password sees, the user's name blanked out."""
    login = Login(secure, like=like)
    token = {SHA2_PLUGIN: sha2_token, NATIVE_PLUGIN: native_token}.get(plugin, sha2_token)(b"wrong", NONCE)
    answers = [
        sha2_token(b"wrong", NONCE),
        b"wrong\0" if secure else b"\x02",
        encrypt_password(b"wrong", NONCE, KEY.public_pem()),
    ]
    seen: list[bytes] = []
    actions = login.respond(user, plugin, token)
    while True:
        (action,) = actions
        assert not isinstance(action, Accepted)
        seen.append(action.payload.replace(b"'%s'@" % user.encode(), b"?@"))
        if isinstance(action, Rejected):
            return seen
        if action == FULL:
            answers = answers[1:] if len(answers) == 3 else answers
        actions = login.auth.feed(answers.pop(0))


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("plugin", [SHA2_PLUGIN, NATIVE_PLUGIN, "other", ""])
@pytest.mark.parametrize("user", WITH_PASSWORD)
def test_unknown_users_see_the_same_packets(user: str, plugin: str, secure: bool) -> None:
    known = transcript(user, user, secure, plugin)
    assert transcript("ghost", user, secure, plugin) == known
    assert b"Access denied" in known[-1]


def test_a_decoy_is_not_let_in_by_its_own_secret() -> None:
    for like in WITH_PASSWORD:
        decoy = decoy_account("ghost", [ACCOUNTS[like]], b"key")
        for stored in (decoy, replace(decoy, plaintext=PASSWORD)):
            auth = ServerAuth(lambda _, stored=stored: stored, NONCE, KEY, FastAuthCache(), "h", True)  # type: ignore[misc]
            secret = stored.plaintext or b"x"
            response = HandshakeResponse("ghost", native_token(secret, NONCE), None, NATIVE_PLUGIN, CAPS)
            last = auth.respond(response)
            if isinstance(last[-1], Send):
                auth.feed(sha2_token(secret, NONCE))
                last = auth.feed(secret + b"\0")
            assert isinstance(last[-1], Rejected)


# --- calls out of order ---


def test_nonce_is_checked() -> None:
    for nonce in (b"", NONCE[:-1], bytes(20)):
        with pytest.raises(LocalProtocolError, match="nonce"):
            ServerAuth(ACCOUNTS.__getitem__, nonce, KEY, FastAuthCache(), "h")


def test_feed_before_the_response() -> None:
    with pytest.raises(LocalProtocolError, match="START"):
        Login().auth.feed(b"")


def test_accepted_is_terminal_too() -> None:
    login = Login()
    login.native("plain")
    with pytest.raises(LocalProtocolError, match="ACCEPTED"):
        login.auth.feed(b"")
    with pytest.raises(LocalProtocolError, match="begun"):
        login.auth.change_user("plain", NATIVE_PLUGIN)
