"""Making one data connection: TCP, maybe TLS, login; then it is a BackendConnection."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Protocol

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.pool import Pool
from shardproxy.backend.tls import TlsTransport, Transport, hand_over
from shardproxy.errors import BackendLost, BackendUnavailable, ProtocolError, ShardproxyError, SqlError
from shardproxy.protocol.mysql.client_auth import ClientAuth
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.session.profile import Charsets, Profile, charset_assignments
from shardproxy.sql.session_text import ASSUMED
from shardproxy.topology.model import Server

# Multi-statements stay off: what we took for one statement can then never be two.
_CAPABILITIES = int(
    Cap.LONG_PASSWORD | Cap.LONG_FLAG | Cap.PROTOCOL_41 | Cap.TRANSACTIONS | Cap.SECURE_CONNECTION
    | Cap.MULTI_RESULTS | Cap.PS_MULTI_RESULTS | Cap.PLUGIN_AUTH | Cap.CONNECT_ATTRS
)  # fmt: skip
_LOGIN_LIMIT = 1 << 20
# DEFAULT: the global one, by which texts are read, and to which connections go back. init_connect may have set another.
_SETTLE = {**ASSUMED, "completion_type": "'NO_CHAIN'", "sql_mode": "DEFAULT", "time_zone": "DEFAULT"}
_SETTLED = [f"@@SESSION.{name}={literal}" for name, literal in _SETTLE.items()]


@dataclass(frozen=True, slots=True)
class DialSettings:
    """How to log in. tls: "off", "preferred", "required"; context is used for the latter two."""

    user: str
    password: bytes = field(repr=False)
    charsets: Charsets
    timeout: float
    tls: str = "off"
    context: ssl.SSLContext | None = None


class LoginSettings(Protocol):
    """What a login needs of `DialSettings`."""

    @property
    def user(self) -> str: ...
    @property
    def password(self) -> bytes: ...
    @property
    def timeout(self) -> float: ...
    @property
    def tls(self) -> str: ...
    @property
    def context(self) -> ssl.SSLContext | None: ...


class _Login(asyncio.Protocol):
    """Carries a ClientAuth over a transport; `done` resolves with (transport, auth)."""

    def __init__(self, auth: ClientAuth, settings: LoginSettings, name: str) -> None:
        self.done: asyncio.Future[Transport] = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(_noticed)  # whoever was to wait for it may have been cancelled
        self._auth = auth
        self._settings = settings
        self._name = name
        self._reader = PacketReader(_LOGIN_LIMIT)
        self._transport: Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        try:
            for seq, payload in self._reader.feed(data):
                self._take(seq, payload)
        except ShardproxyError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(BackendUnavailable(f"{self._name}: closed during login{f': {exc}' if exc else ''}"))

    def _fail(self, error: Exception) -> None:
        assert self._transport is not None
        self._transport.abort()
        if not self.done.done():
            self.done.set_exception(error)

    def _take(self, seq: int, payload: bytes) -> None:
        assert self._transport is not None
        auth = self._auth
        first = auth.greeting is None
        answers = auth.feed(payload)
        if first:
            tls = self._settings.tls
            if tls != "off" and auth.server_offers_tls:
                self._send(seq + 1, auth.ssl_request())
                assert self._settings.context is not None
                assert not isinstance(self._transport, TlsTransport)
                secured = TlsTransport(self._transport, self, self._settings.context, False, self._name)
                secured.start()
                self._transport = secured
                auth.secure = True
                seq += 1
            elif tls == "required":
                raise BackendUnavailable(f"{self._name} does not offer TLS, and backend.tls is 'required'")
            answers = [auth.response()]
        for answer in answers:
            seq += 1
            self._send(seq, answer)
        if auth.done and not self.done.done():
            self.done.set_result(self._transport)

    def _send(self, seq: int, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(packet(payload, seq))
        self._reader.next_seq = (seq + 1) & 0xFF


def _noticed(done: asyncio.Future[Transport]) -> None:
    if not done.cancelled():
        done.exception()


async def log_in(
    server: Server, settings: LoginSettings, charset: int, schema: str | None, capabilities: int = 0
) -> tuple[Transport, ClientAuth]:
    """A logged-in transport that nobody listens to yet: `hand_over` it. charset: collation id of the handshake.

    Raises BackendUnavailable, AccessError (the server's own words), ProtocolError turned into BackendUnavailable.
    """
    where = f"{server.name} ({server.host}:{server.port})"
    auth = ClientAuth(
        settings.user, settings.password, schema, charset, _CAPABILITIES | capabilities,
        attributes={"program_name": "shardproxy"},
    )  # fmt: skip
    login: _Login | None = None
    try:
        async with asyncio.timeout(settings.timeout):
            loop = asyncio.get_running_loop()
            made = await loop.create_connection(lambda: _Login(auth, settings, server.host), server.host, server.port)
            login = made[1]
            transport = await login.done
    except TimeoutError:
        _abort(login)
        raise BackendUnavailable(f"{where}: no connection within {settings.timeout:g} s") from None
    except asyncio.CancelledError:
        _abort(login)
        raise
    except OSError as error:
        raise BackendUnavailable(f"{where}: {error.strerror or error}") from error
    except ProtocolError as error:
        raise BackendUnavailable(f"{where}: {error}") from error
    except SqlError as error:
        raise type(error)(f"{where}: {error}", error.code, error.sqlstate) from error
    return transport, auth


async def dial(pool: Pool, wanted: Profile, settings: DialSettings) -> BackendConnection:
    """A new connection, as close to the wanted profile as a login brings it (its `profile` says how close).

    What the profile takes for granted is set: the server may have it otherwise for everybody, as a global variable or
    by init_connect. A write acknowledged in a transaction that nobody knows of would be lost.

    Raises BackendUnavailable, AccessError (the server's own words), ProtocolError turned into BackendUnavailable.
    """
    ident = settings.charsets.handshake_id(wanted)
    transport, auth = await log_in(
        pool.server, settings, ident, wanted.schema, _CAPABILITIES | wanted.capabilities
    )
    where = f"{pool.server.name} ({pool.server.host}:{pool.server.port})"
    assert auth.greeting is not None
    deprecate_eof = bool(auth.agreed & Cap.DEPRECATE_EOF)
    missing = wanted.capabilities & ~auth.agreed
    if missing:
        transport.abort()
        raise BackendUnavailable(f"{where}: the server lacks {Cap(missing)!r}, which the client uses")
    state = settings.charsets.fresh(wanted, ident)
    connection = BackendConnection(pool, transport, auth.greeting.connection_id, state, deprecate_eof)
    hand_over(transport, connection)
    try:
        async with asyncio.timeout(settings.timeout):
            reply = await connection.query("SET " + ", ".join((*charset_assignments(state), *_SETTLED)))
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            raise BackendUnavailable(f"{where}: no answer within {settings.timeout:g} s") from None
        if isinstance(error, BackendLost):
            raise BackendUnavailable(f"{where}: closed after login") from error
        raise
    if reply.failed:
        connection.close()
        raise BackendUnavailable(f"{where}: {reply.error_message}")
    return connection


def _abort(login: _Login | None) -> None:
    if login is not None and login._transport is not None:
        login._transport.abort()
