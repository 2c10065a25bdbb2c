"""A client before it is let in: greeting, TLS, authentication. Rejected is terminal: ERR, then close.

Also runs the authentication of COM_CHANGE_USER on a connection that is already there.
"""

from __future__ import annotations

import asyncio
import os

from shardproxy.backend.tls import TlsTransport, Transport, hand_over
from shardproxy.errors import ProtocolError, RemoteProtocolError, SqlError
from shardproxy.frontend.mysql.connection import ClientConnection
from shardproxy.frontend.mysql.front import Front, Rights, check_schema
from shardproxy.protocol.mysql.commands import ChangeUser as CommandChangeUser
from shardproxy.protocol.mysql.constants import NONCE_LENGTH, SHA2_PLUGIN, Cap, Collation
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.handshake import Greeting, HandshakeResponse, SslRequest, is_ssl_request
from shardproxy.protocol.mysql.packets import build_err, build_ok
from shardproxy.protocol.mysql.server_auth import MAX_AUTH_PAYLOAD, Accepted, Action, Rejected, Send, ServerAuth
from shardproxy.session.profile import profile, unreadable, with_variables
from shardproxy.session.session import Session

_NEEDED = int(Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION)


def new_nonce() -> bytes:
    """20 random bytes other than NUL, 7 bits each as MySQL's."""
    return bytes(1 + b % 127 for b in os.urandom(NONCE_LENGTH))


class ClientLogin(asyncio.Protocol):
    """The protocol of a client's transport until it is accepted; then a ClientConnection takes its place."""

    __slots__ = (
        "_auth", "_front", "_ident", "_nonce", "_reader", "_response", "_seq", "_timer", "_transport",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        self._front = front
        self._reader = PacketReader(MAX_AUTH_PAYLOAD + 1024)
        self._auth: ServerAuth | None = None
        self._response: HandshakeResponse | None = None
        self._transport: Transport
        self._timer: asyncio.TimerHandle | None = None
        self._nonce = b""
        self._ident = 0
        self._seq = 0

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        front = self._front
        self._transport = transport  # type: ignore[assignment]
        front.connecting += 1
        self._timer = asyncio.get_running_loop().call_later(front.limits.login, self._too_slow)
        if front.draining:
            self._refuse(SqlError("Server shutdown in progress", 1053, "08S01"))
            return
        if len(front.clients) + front.connecting > front.limits.max_clients:
            self._refuse(SqlError("Too many connections", 1040, "08004"))
            return
        self._nonce = new_nonce()
        self._ident = front.new_ident()
        greeting = Greeting(
            front.server_version, self._ident, self._nonce, front.capabilities, Collation.UTF8MB4_GENERAL_CI.value,
            0 if "autocommit" in front.session_defaults else 2, SHA2_PLUGIN,
        )  # fmt: skip
        self._send(0, greeting.build())

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.append(data)
            while (one := self._reader.take()) is not None:
                seq, payload = one
                self._seq = seq
                if self._auth is None and is_ssl_request(payload):
                    self._start_tls(payload)
                    return
                self._take(payload)
                if self._timer is None:
                    return
        except RemoteProtocolError as error:
            self._refuse(SqlError(f"Bad handshake: {error}", 1043, "08S01"))
        except ProtocolError:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()

    # ── steps ──

    def _start_tls(self, payload: bytes) -> None:
        SslRequest.parse(payload)
        if self._front.tls is None or isinstance(self._transport, TlsTransport):
            raise RemoteProtocolError("TLS was not offered")
        early = self._reader.release()
        self._reader.next_seq = (self._seq + 1) & 0xFF
        secured = TlsTransport(self._transport, self, self._front.tls, server_side=True)
        self._transport = secured
        secured.start(early)

    def _take(self, payload: bytes) -> None:
        if self._auth is not None:
            self._act(self._auth.feed(payload))
            return
        response = HandshakeResponse.parse(payload)
        if response.capabilities & _NEEDED != _NEEDED:
            raise RemoteProtocolError("the client speaks a protocol from before MySQL 4.1")
        secure = isinstance(self._transport, TlsTransport)
        if self._front.require_tls and not secure:
            self._refuse(SqlError("Connections using insecure transport are prohibited", 3159, "HY000"))
            return
        self._response = response
        self._auth = ServerAuth(
            self._front.accounts, self._nonce, self._front.rsa, self._front.fast_auth, peer_host(self._transport),
            secure,
        )  # fmt: skip
        self._act(self._auth.respond(response))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(payload):
                    self._send(self._seq + 1, payload)
                    self._seq += 1
                case Rejected(payload, _):
                    self._front.counters.add("shardproxy_errors_total", ("1045",))
                    self._send(self._seq + 1, payload)
                    self._close()
                case Accepted(account):
                    self._accept(account.user)

    def _accept(self, user: str) -> None:
        response = self._response
        assert response is not None
        front = self._front
        try:
            rights = admit(front, user)
            schema = response.database or rights.default_keyspace or None
            check_schema(front, rights, schema, user, peer_host(self._transport))
            session = new_session(front, self._ident, user, rights, response.capabilities, response.charset, schema)
        except SqlError as error:
            self._refuse(error)
            return
        transport = self._transport
        rest = self._reader.release()
        connection = ClientConnection(front, transport, session, rights, response.capabilities, peer_host(transport))
        front.accepted += 1
        hand_over(transport, connection)
        seq = self._seq + 1
        self._done()
        transport.write(packet(build_ok(0, 0, connection.status(), 0), seq))
        if rest:
            connection.data_received(rest)

    def _send(self, seq: int, payload: bytes) -> None:
        self._transport.write(packet(payload, seq))
        self._reader.next_seq = (seq + 1) & 0xFF

    def _refuse(self, error: SqlError) -> None:
        self._front.counters.add("shardproxy_errors_total", (str(error.code),))
        seq = self._seq + 1 if self._nonce else 0
        self._transport.write(packet(build_err(error.code, error.sqlstate, str(error)), seq))
        self._close()

    def _close(self) -> None:
        self._done()
        self._transport.close()

    def _too_slow(self) -> None:
        self._timer = None
        self._front.connecting -= 1
        self._transport.abort()

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._front.connecting -= 1


def peer_host(transport: Transport) -> str:
    """The client's address, as it stands in messages and USER()."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else "localhost"


def admit(front: Front, user: str) -> Rights:
    """The user's rights. Raises SqlError when the user has too many connections."""
    rights = front.rights(user)
    if rights.max_connections and front.per_user.get(user, 0) >= rights.max_connections:
        raise SqlError(f"User '{user}' has exceeded the 'max_user_connections' resource", 1226, "42000")
    return rights


def new_session(
    front: Front, ident: int, user: str, rights: Rights, capabilities: int, charset: int, schema: str | None
) -> Session:
    """The session of a client just let in. Raises SqlError 9103 for a character set that cannot be read."""
    state = profile(capabilities, schema, front.charsets.variables(charset))
    if front.session_defaults:
        state = with_variables(state, front.session_defaults)
    problem = unreadable(state)
    if problem:
        raise SqlError(problem, 9103)
    session = Session(ident, user, state, front.default_modes)
    session.reads_primary = rights.reads_primary
    return session


class ChangeUser(asyncio.Protocol):
    """The protocol of a client's transport while COM_CHANGE_USER is authenticated; then the connection goes on."""

    def __init__(self, connection: ClientConnection, payload: bytes) -> None:
        self._connection = connection
        self._request = CommandChangeUser.parse(payload, connection.capabilities)
        self._seq = connection.seq - 1
        self._reader = PacketReader(MAX_AUTH_PAYLOAD + 1024)
        front = connection.front
        secure = isinstance(connection.transport, TlsTransport)
        self._auth = ServerAuth(front.accounts, new_nonce(), front.rsa, front.fast_auth, connection.host, secure)
        connection.transport.set_protocol(self)
        self._act(self._auth.change_user(self._request.user, self._request.auth_plugin))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.append(data)
            while not self._auth.done and (one := self._reader.take()) is not None:
                self._seq, payload = one
                self._act(self._auth.feed(payload))
        except ProtocolError:
            self._connection.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(payload):
                    self._send(payload)
                case Rejected(payload, _):
                    self._send(payload)
                    self._connection.close()
                case Accepted(account):
                    self._accept(account.user)

    def _send(self, payload: bytes) -> None:
        self._seq += 1
        self._connection.transport.write(packet(payload, self._seq))
        self._reader.next_seq = (self._seq + 1) & 0xFF

    def _accept(self, user: str) -> None:
        connection, request = self._connection, self._request
        front, old = connection.front, connection.session
        try:
            rights = admit(front, user)
            schema = request.database or rights.default_keyspace or None
            check_schema(front, rights, schema, user, connection.host)
            charset = request.charset if request.charset is not None else Collation.UTF8MB4_GENERAL_CI.value
            session = new_session(front, old.ident, user, rights, connection.capabilities, charset, schema)
        except SqlError as error:
            self._send(build_err(error.code, error.sqlstate, str(error)))
            connection.close()
            return
        connection.become(session, rights)
        hand_over(connection.transport, connection)
        rest = self._reader.release()
        self._send(build_ok(0, 0, connection.status(), 0))
        connection.finish()
        if rest:
            connection.data_received(rest)
