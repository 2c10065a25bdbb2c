"""The client's side of authentication, towards a backend.

    greeting ── response ─┬─ OK ──────────────────────────────── done
                          ├─ ERR ─────────────────────────────── AccessError
                          ├─ switch (once) ── token ──┐
                          └─ more data 03 (fast ok) ──┤ back to waiting for OK or ERR
                             more data 04 (full) ─────┤ TLS: password + NUL
                                                      └ else: 02 → more data (public key) → encrypted password

Rules of this file: every payload of the server goes through `feed`; a state says what may come, anything else is a
RemoteProtocolError; an error is terminal.
"""

from __future__ import annotations

from enum import Enum, auto

from shardproxy.errors import AccessError, LocalProtocolError, RemoteProtocolError, ShardproxyError
from shardproxy.protocol.mysql.constants import NATIVE_PLUGIN, SHA2_PLUGIN, Cap, Collation
from shardproxy.protocol.mysql.handshake import AuthMoreData, AuthSwitch, Greeting, HandshakeResponse, SslRequest
from shardproxy.protocol.mysql.packets import EOF_HEADER, ERR_HEADER, OK_HEADER, Ok, parse_err, parse_ok
from shardproxy.protocol.mysql.passwords import native_token, sha2_token

FAST_OK = 0x03
FULL_NEEDED = 0x04
PUBLIC_KEY_REQUEST = b"\x02"

# LONG_PASSWORD also tells MariaDB that no extended capabilities follow.
_NEEDED = (Cap.LONG_PASSWORD | Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH).value
# Set by us where they belong, or a different framing that this package does not speak.
_NEVER_ASKED = (
    Cap.SSL | Cap.CONNECT_WITH_DB | Cap.COMPRESS | Cap.ZSTD_COMPRESSION | Cap.MULTI_FACTOR_AUTHENTICATION
).value
_OPTIONAL = Cap.PLUGIN_AUTH_LENENC.value


class _State(Enum):
    GREETING = auto()
    RESPONSE = auto()
    ANSWER = auto()  # response sent: OK, ERR, switch or more data
    PUBLIC_KEY = auto()
    PASSWORD_SENT = auto()  # only OK or ERR can follow
    DONE = auto()
    FAILED = auto()


class ClientAuth:
    """Logs in to one server. Sequence: `feed(greeting)`, maybe TLS, `response()`, `feed(…)` until `done`.

    `capabilities` are the wanted ones; the server's and our own needs decide (`agreed`). For TLS, after the greeting:
    when `server_offers_tls`, send `ssl_request()`, do the TLS handshake, set `secure = True`, then `response()`.
    `secure` means that a password may be sent in clear text inside the transport.
    """

    def __init__(
        self,
        user: str,
        password: bytes,
        database: str | None = None,
        charset: int = Collation.UTF8MB4_GENERAL_CI.value,
        capabilities: int = 0,
        secure: bool = False,
        max_packet: int = 1 << 30,
        attributes: dict[str, str] | None = None,
    ) -> None:
        self.user = user
        self.database = database
        self.charset = charset
        self.secure = secure
        self.max_packet = max_packet
        self.attributes = attributes or {}
        self.greeting: Greeting | None = None
        self.ok: Ok | None = None
        self._password = password
        self._wanted = int(capabilities)
        self._plugin = ""
        self._nonce = b""
        self._switched = False
        self._tls = False
        self._state = _State.GREETING

    @property
    def done(self) -> bool:
        """Whether the server accepted us; `ok` is its answer."""
        return self._state is _State.DONE

    @property
    def agreed(self) -> int:
        """The capabilities that both sides have; known after the greeting."""
        offered = self._greeted().capabilities
        agreed = (self._wanted & ~_NEVER_ASKED | _OPTIONAL) & offered | _NEEDED
        if self.database:
            agreed |= Cap.CONNECT_WITH_DB.value
        if self._tls:
            agreed |= Cap.SSL.value
        return agreed

    @property
    def server_offers_tls(self) -> bool:
        """Whether the server can do TLS; known after the greeting."""
        return bool(self._greeted().capabilities & Cap.SSL.value)

    def ssl_request(self) -> bytes:
        """The payload that asks for TLS, between greeting and `response()`."""
        if self._state is not _State.RESPONSE:
            raise LocalProtocolError("an SSL request follows the greeting")
        if not self.server_offers_tls:
            raise LocalProtocolError("the server does not offer TLS")
        self._tls = True
        return SslRequest(self.agreed, self.max_packet, self.charset).build()

    def response(self) -> bytes:
        """The handshake response."""
        if self._state is not _State.RESPONSE:
            raise LocalProtocolError("a handshake response follows the greeting")
        if self._tls and not self.secure:
            raise LocalProtocolError("TLS was asked for and not established")
        greeting = self._greeted()
        # A server's default plugin that we do not have says nothing about our user: it will ask us to switch.
        self._plugin = greeting.auth_plugin if greeting.auth_plugin in _TOKENS else NATIVE_PLUGIN
        self._nonce = greeting.nonce
        self._state = _State.ANSWER
        return HandshakeResponse(
            user=self.user,
            auth_response=_TOKENS[self._plugin](self._password, self._nonce),
            database=self.database,
            auth_plugin=self._plugin,
            capabilities=self.agreed,
            charset=self.charset,
            max_packet=self.max_packet,
            attributes=self.attributes,
        ).build()

    def feed(self, payload: bytes) -> list[bytes]:
        """Take one payload of the server; returns the payloads to send now (an empty one counts: b"").

        Raises AccessError with the server's number, SQLSTATE and words when it refuses us, or asks for a plugin that
        we do not have; RemoteProtocolError when it breaks the protocol; LocalProtocolError after the end.
        """
        if self._state in (_State.DONE, _State.FAILED, _State.RESPONSE):
            raise LocalProtocolError(f"no packet of the server can be taken in state {self._state.name}")
        try:
            return self._step(payload)
        except ShardproxyError:
            self._state = _State.FAILED
            raise

    def _step(self, payload: bytes) -> list[bytes]:
        first = payload[0] if payload else -1
        if first == ERR_HEADER:
            err = parse_err(payload)
            raise AccessError(err.text, err.code, err.sqlstate)
        if self._state is _State.GREETING:
            self.greeting = Greeting.parse(payload)
            if not self.greeting.capabilities & Cap.PLUGIN_AUTH.value:
                raise RemoteProtocolError("server does not offer PLUGIN_AUTH")
            self._state = _State.RESPONSE
            return []
        if self._state is _State.PUBLIC_KEY:
            # Imported here because its library takes 9 MiB of a process, and most processes never come here.
            from shardproxy.protocol.mysql.rsa_exchange import encrypt_password

            key = AuthMoreData.parse(payload).data
            self._state = _State.PASSWORD_SENT
            return [encrypt_password(self._password, self._nonce, key)]
        if first == OK_HEADER:
            self.ok = parse_ok(payload, bool(self.agreed & Cap.SESSION_TRACK.value))
            self._state = _State.DONE
            return []
        if self._state is _State.ANSWER and first == EOF_HEADER:
            return [self._switch(payload)]
        if self._state is _State.ANSWER and self._plugin == SHA2_PLUGIN:
            return self._more_data(AuthMoreData.parse(payload).data)
        raise RemoteProtocolError(f"server sent a packet of type {first} in the middle of authentication")

    def _switch(self, payload: bytes) -> bytes:
        if len(payload) == 1:
            raise AccessError("server asks for a password hash from before MySQL 4.1, which is not sent")
        switch = AuthSwitch.parse(payload)
        if self._switched:
            raise RemoteProtocolError("server switched the authentication plugin twice")
        token = _TOKENS.get(switch.auth_plugin)
        if token is None:
            raise AccessError(
                f"server asks user {self.user!r} for authentication plugin {switch.auth_plugin!r}; "
                f"supported are {', '.join(_TOKENS)}"
            )
        if not switch.nonce:
            raise RemoteProtocolError("server switched the authentication plugin without a nonce")
        self._switched = True
        self._plugin = switch.auth_plugin
        self._nonce = switch.nonce
        return token(self._password, self._nonce)

    def _more_data(self, data: bytes) -> list[bytes]:
        if data == bytes((FAST_OK,)):
            self._state = _State.PASSWORD_SENT
            return []
        if data != bytes((FULL_NEEDED,)):
            raise RemoteProtocolError("server sent authentication data that caching_sha2_password does not know")
        if self.secure:
            self._state = _State.PASSWORD_SENT
            return [self._password + b"\0"]
        self._state = _State.PUBLIC_KEY
        return [PUBLIC_KEY_REQUEST]

    def _greeted(self) -> Greeting:
        if self.greeting is None:
            raise LocalProtocolError("the greeting has not come yet")
        return self.greeting


_TOKENS = {NATIVE_PLUGIN: native_token, SHA2_PLUGIN: sha2_token}
