"""The server's side of authentication, towards a client. The greeting has offered caching_sha2_password.

                              ┌─ native token ── right ───────────────────────────── accepted
    response ─┬─ its plugin ──┤  sha2 token ──── known from the cache ── 03 ──────── accepted
              │  fits         │            └──── else 04 ──┬─ TLS: password ──────── accepted
              └─ switch ──────┘                            └─ 02 → our public key → encrypted password ── accepted

Everything that is not accepted is rejected, and rejected is terminal.

Rules of this file:
- A user that does not exist goes through the same packets as one that does, by a decoy account; nothing here asks
  whether an account is one before the very end.
- A password is only ever looked at when it came through TLS or RSA.
- The plugin follows from what the client speaks and from what is stored (`_plugin_for`), not from who the client is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha256
from typing import Protocol

from shardproxy.errors import AccessError, LocalProtocolError
from shardproxy.protocol.mysql.accounts import Account, FastAuthCache
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, NONCE_LENGTH, SHA2_PLUGIN, Cap
from shardproxy.protocol.mysql.handshake import AuthMoreData, AuthSwitch, HandshakeResponse
from shardproxy.protocol.mysql.packets import build_err
from shardproxy.protocol.mysql.passwords import MAX_PASSWORD, verify_native, verify_sha2_fast

MAX_AUTH_PAYLOAD = 64 * 1024  # bytes of any payload of a client before it is accepted
FAST_OK = b"\x03"
FULL_NEEDED = b"\x04"
PUBLIC_KEY_REQUEST = b"\x02"
ER_ACCESS_DENIED = 1045
ER_NOT_SUPPORTED_AUTH_MODE = 1251


@dataclass(frozen=True, slots=True)
class Send:
    """Send this payload, then feed the client's next one unless another action follows."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client is who it says. The caller answers OK, after its own checks (database, limits)."""

    account: Account


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client is not let in: send `payload` (ERR) and close."""

    payload: bytes
    error: AccessError


Action = Send | Accepted | Rejected


class PasswordKey(Protocol):
    """What is asked of the RSA key pair (`rsa_exchange.RsaKey`), which need not exist before it is asked."""

    def public_pem(self) -> bytes: ...
    def decrypt_password(self, ciphertext: bytes, nonce: bytes) -> bytes | None: ...


class _State(Enum):
    START = auto()
    TOKEN = auto()  # a switch was sent: the token of self._plugin comes next
    FULL = auto()  # 04 was sent: password, encrypted password or the request for our key
    ENCRYPTED = auto()  # our key was sent: the encrypted password comes next
    ACCEPTED = auto()
    REJECTED = auto()


class ServerAuth:
    """Authenticates one client, once. Sequence: `respond(handshake response)` or `change_user(…)`, then `feed`.

    `lookup` gives the account of a user name, a decoy for one that does not exist (`decoy_account`). `nonce` is what
    the greeting carried, for a change of user a fresh one: 20 bytes other than NUL. `secure`: the transport is TLS.
    `host` is the client's address as it stands in the message.
    """

    __slots__ = (
        "_account",
        "_cache",
        "_host",
        "_lookup",
        "_nonce",
        "_password_given",
        "_plugin",
        "_rsa",
        "_state",
        "secure",
    )

    def __init__(
        self,
        lookup: Callable[[str], Account],
        nonce: bytes,
        rsa: PasswordKey,
        cache: FastAuthCache,
        host: str,
        secure: bool = False,
    ) -> None:
        if len(nonce) != NONCE_LENGTH or 0 in nonce:
            raise LocalProtocolError(f"a nonce is {NONCE_LENGTH} bytes other than NUL")
        self.secure = secure
        self._lookup = lookup
        self._nonce = nonce
        self._rsa = rsa
        self._cache = cache
        self._host = host
        self._account: Account | None = None
        self._plugin = ""
        self._password_given = False
        self._state = _State.START

    @property
    def done(self) -> bool:
        """Whether it is decided."""
        return self._state in (_State.ACCEPTED, _State.REJECTED)

    def respond(self, response: HandshakeResponse) -> list[Action]:
        """Take the client's handshake response."""
        self._begin(response.user)
        knows_plugins = bool(response.capabilities & Cap.PLUGIN_AUTH.value)
        client_plugin = response.auth_plugin if knows_plugins else NATIVE_PLUGIN
        self._plugin = self._plugin_for(client_plugin)
        if self._plugin == client_plugin:
            return self._token(response.auth_response)
        if not knows_plugins:
            return self._reject(
                AccessError(
                    "Client does not support authentication protocol requested by server; consider upgrading "
                    "MySQL client",
                    ER_NOT_SUPPORTED_AUTH_MODE,
                    "08004",
                )
            )
        return self._switch()

    def change_user(self, user: str, client_plugin: str) -> list[Action]:
        """Take a COM_CHANGE_USER of a client with PLUGIN_AUTH. Its token is for an older nonce: it is asked anew."""
        self._begin(user)
        self._plugin = self._plugin_for(client_plugin)
        return self._switch()

    def feed(self, payload: bytes) -> list[Action]:
        """Take the client's next payload. Raises LocalProtocolError when it is decided, or has not begun."""
        if len(payload) > MAX_AUTH_PAYLOAD and not self.done:
            return self._reject()
        match self._state:
            case _State.TOKEN:
                return self._token(payload)
            case _State.FULL:
                return self._full(payload)
            case _State.ENCRYPTED:
                return self._encrypted(payload)
        raise LocalProtocolError(f"no packet of the client can be taken in state {self._state.name}")

    def _begin(self, user: str) -> None:
        if self._state is not _State.START:
            raise LocalProtocolError("authentication has begun already")
        self._account = self._lookup(user)

    def _known(self) -> Account:
        assert self._account is not None
        return self._account

    def _plugin_for(self, client_plugin: str) -> str:
        """The client's own plugin where it is one of ours and the stored password can be checked by it."""
        if client_plugin == NATIVE_PLUGIN and self._known().native_stage2 is not None:
            return NATIVE_PLUGIN
        return SHA2_PLUGIN  # full exchange: works with every stored form

    def _switch(self) -> list[Action]:
        self._state = _State.TOKEN
        return [Send(AuthSwitch(self._plugin, self._nonce).build())]

    def _token(self, token: bytes) -> list[Action]:
        account = self._known()
        self._password_given = token not in (b"", b"\0")
        if not self._password_given or account.passwordless:
            return self._accept() if account.passwordless and not self._password_given else self._reject()
        if self._plugin == NATIVE_PLUGIN:
            stage2 = account.native_stage2
            if stage2 is not None and verify_native(stage2, token, self._nonce):
                return self._accept()
            return self._reject()
        if self._known_by_token(account, token):
            return [Send(AuthMoreData(FAST_OK).build()), *self._accept()]
        if len(token) != sha256().digest_size:
            return self._reject()
        self._state = _State.FULL
        return [Send(AuthMoreData(FULL_NEEDED).build())]

    def _known_by_token(self, account: Account, token: bytes) -> bool:
        if account.plaintext is not None:
            verifier = sha256(sha256(account.plaintext).digest()).digest()
            return verify_sha2_fast(verifier, token, self._nonce)
        return self._cache.accepts(account, token, self._nonce)

    def _full(self, payload: bytes) -> list[Action]:
        if self.secure:
            return self._password(payload[:-1] if payload.endswith(b"\0") else None)
        if payload == PUBLIC_KEY_REQUEST:
            self._state = _State.ENCRYPTED
            return [Send(AuthMoreData(self._rsa.public_pem()).build())]
        return self._encrypted(payload)  # a client may have our key from before

    def _encrypted(self, payload: bytes) -> list[Action]:
        return self._password(self._rsa.decrypt_password(payload, self._nonce))

    def _password(self, password: bytes | None) -> list[Action]:
        account = self._known()
        if password is None or len(password) > MAX_PASSWORD or not account.matches(password):
            return self._reject()
        self._cache.fill(account, password)
        return self._accept()

    def _accept(self) -> list[Action]:
        account = self._known()
        if account.decoy:  # unreachable by design: a decoy's secrets match nothing
            return self._reject()
        self._state = _State.ACCEPTED
        return [Accepted(account)]

    def _reject(self, error: AccessError | None = None) -> list[Action]:
        if error is None:
            given = "YES" if self._password_given else "NO"
            user = self._known().user
            error = AccessError(f"Access denied for user '{user}'@'{self._host}' (using password: {given})")
        self._state = _State.REJECTED
        return [Rejected(build_err(error.code, error.sqlstate, str(error)), error)]
