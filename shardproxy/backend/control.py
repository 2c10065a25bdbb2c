"""Connections of the control plane: health checks, schema, `shardctl`. Through asyncmy; never on the hot path.

Autocommit is on, COMMIT begins no other transaction, every wait has an end, and asyncmy's errors come out as ours.
caching_sha2_password works without TLS too: with an empty cache on the server asyncmy sends the password encrypted with
the server's RSA key.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncmy
from asyncmy import errors as asyncmy_errors
from asyncmy.cursors import DictCursor

from shardproxy.errors import BackendLost, BackendUnavailable, SqlError
from shardproxy.sql.session_text import ASSUMED
from shardproxy.topology.model import Server

if TYPE_CHECKING:  # processes of the moving engine start without it
    from shardproxy.config import Config

# asyncmy logs every note of a server ("database exists") as a warning, with literals of the statement in it.
logging.getLogger("asyncmy").setLevel(logging.ERROR)

# The connection is gone: asyncmy's own numbers, and the servers' for shut down, killed and idle too long.
_LOST = (2006, 2013, 2014, 2055, 1053, 1927, 3169, 4031)

# What else comes out of asyncmy when a server dies in the middle of something: uvloop's RuntimeError for a write to a
# socket that has failed, and what its own code trips over in half an answer or a connection that it has closed.
_BROKEN = (OSError, EOFError, RuntimeError, AssertionError, AttributeError, IndexError, struct.error)

# For our own statements. A server may have other values for everybody: writes would stand in a transaction that nobody
# ends, lists would be cut short.
_OURS = {**ASSUMED, "completion_type": "'NO_CHAIN'", "sql_big_selects": "1", "sql_safe_updates": "0"}
SETTLED = ", ".join(f"{name} = {literal}" for name, literal in _OURS.items())

Args = Sequence[object] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in to the servers. tls: "off", "preferred" or "required"; tls_ca: PEM file, empty takes any."""

    user: str
    password: str = field(repr=False)
    tls: str = "off"
    tls_ca: str = ""

    @classmethod
    def of(cls, config: Config) -> Credentials:
        """The proxy's own account. Raises ConfigError when its password cannot be found."""
        backend = config.backend
        ca = str(config.resolve(backend.tls_ca)) if backend.tls_ca else ""
        return cls(backend.user, config.backend_password(), backend.tls, ca)

    @classmethod
    def of_moves(cls, config: Config) -> Credentials:
        """The account that moves rows. Raises as `of`."""
        user, password = config.rebalance_login()
        ca = str(config.resolve(config.backend.tls_ca)) if config.backend.tls_ca else ""
        return cls(user, password, config.backend.tls, ca)


class ControlConnection:
    """One logged-in connection; one statement at a time. Use as `async with`, or call `close`."""

    def __init__(self, server: Server, connection: Any, seconds: float) -> None:
        self.server = server
        # MariaDB greets with "5.5.5-" before its version, for the sake of old replication clients.
        self.version: str = connection.get_server_info().removeprefix("5.5.5-")
        self._connection = connection
        self._seconds = seconds

    @property
    def is_mariadb(self) -> bool:
        return "mariadb" in self.version.lower()

    async def query(self, sql: str, args: Args | None = None, seconds: float | None = None) -> list[dict[str, Any]]:
        """All rows, each by lower-case column name. `args` fill `%s` or `%(name)s`, quoted on our side.

        seconds: time limit, instead of the connection's own. Raises SqlError with the server's number and SQLSTATE;
        BackendLost when the connection broke or time ran out (it is closed then).
        """
        async with self._errors(seconds), self._connection.cursor(DictCursor) as cursor:
            await cursor.execute(sql, args)
            rows: Sequence[Mapping[str, Any]] = await cursor.fetchall()
        return [{name.lower(): value for name, value in row.items()} for row in rows]

    async def execute(self, sql: str, args: Args | None = None, seconds: float | None = None) -> int:
        """Run a statement that gives no rows; affected rows. Raises as `query`."""
        async with self._errors(seconds), self._connection.cursor() as cursor:
            affected: int = await cursor.execute(sql, args)
        return affected

    def _errors(self, seconds: float | None) -> _ErrorEdge:
        return _ErrorEdge(self, self._seconds if seconds is None else seconds)

    def abort(self) -> None:
        """Drop the connection without a word to the server."""
        self._connection.close()

    async def close(self) -> None:
        """Say goodbye and close; never raises, never waits longer than a second."""
        try:
            async with asyncio.timeout(1):
                await self._connection.ensure_closed()
        except (TimeoutError, asyncmy_errors.MySQLError, *_BROKEN):
            self.abort()

    async def __aenter__(self) -> ControlConnection:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _ErrorEdge:
    """Time limit and error translation around one statement."""

    def __init__(self, connection: ControlConnection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._timer = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timer.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        name = self._connection.server.name
        try:
            await self._timer.__aexit__(kind, error, trace)
        except TimeoutError:
            self._connection.abort()
            raise BackendLost(f"{name}: no answer within {self._seconds:g} s") from error
        if isinstance(error, asyncmy_errors.MySQLError):
            code, message = _number_and_text(error)
            if code in _LOST or not code:
                self._connection.abort()
                raise BackendLost(f"{name}: {message}") from error
            raise SqlError(f"{name}: {message}", code, getattr(error, "sqlstate", None) or "HY000") from error
        if isinstance(error, _BROKEN):
            self._connection.abort()
            raise BackendLost(f"{name}: {error or type(error).__name__}") from error


async def open_control(
    server: Server, credentials: Credentials, seconds: float, database: str | None = None
) -> ControlConnection:
    """Connect and log in; `seconds` is the limit for that and for each statement later.

    Raises SqlError (1045 and the like) when the server refuses the login, BackendUnavailable when it cannot be
    reached in time or its TLS is not what `credentials.tls` wants.
    """
    try:
        async with asyncio.timeout(seconds):
            connection = await _connect(server, credentials, seconds, database)
    except TimeoutError as error:
        raise BackendUnavailable(
            f"{server.name} ({server.host}:{server.port}): no connection within {seconds:g} s"
        ) from error
    except asyncmy_errors.MySQLError as error:
        code, message = _number_and_text(error)
        where = f"{server.name} ({server.host}:{server.port})"
        if 1000 <= code < 2000 or code >= 3000:
            raise SqlError(f"{where}: {message}", code, getattr(error, "sqlstate", None) or "HY000") from error
        raise BackendUnavailable(f"{where}: {message or error}") from error
    except _BROKEN as error:
        where = f"{server.name} ({server.host}:{server.port})"
        raise BackendUnavailable(f"{where}: {error or type(error).__name__}") from error
    return ControlConnection(server, connection, seconds)


async def _connect(server: Server, credentials: Credentials, seconds: float, database: str | None) -> Any:
    if credentials.tls == "off":
        return await _connect_once(server, credentials, seconds, database, None)
    context = tls_context(credentials.tls_ca)
    try:
        return await _connect_once(server, credentials, seconds, database, context)
    except (asyncmy_errors.MySQLError, OSError) as error:
        if credentials.tls == "required" or not _speaks_no_tls(error):
            raise
    return await _connect_once(server, credentials, seconds, database, None)


async def _connect_once(
    server: Server, credentials: Credentials, seconds: float, database: str | None, context: ssl.SSLContext | None
) -> Any:
    return await asyncmy.connect(
        host=server.host,
        port=server.port,
        user=credentials.user,
        password=credentials.password.encode(),  # as bytes: asyncmy would encode a str as latin-1
        database=database,
        charset="utf8mb4",
        autocommit=None,
        init_command=f"SET {SETTLED}",
        connect_timeout=seconds,
        ssl=context,
        program_name="shardproxy",
    )


def tls_context(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca or None)
    if not ca:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _speaks_no_tls(error: BaseException) -> bool:
    """A server without TLS answers our hello with a plain packet: "wrong version number", or closes."""
    cause = error.__cause__ if isinstance(error, asyncmy_errors.MySQLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return False
    return isinstance(cause, ssl.SSLError | ConnectionResetError) or (
        isinstance(error, asyncmy_errors.MySQLError) and error.args[:1] == (1043,)
    )


def _number_and_text(error: BaseException) -> tuple[int, str]:
    args = error.args
    if len(args) >= 2 and isinstance(args[0], int):
        return args[0], str(args[1])
    return 0, str(error)


def text(value: object) -> str | None:
    """A string column of a server's own tables: some of them are declared binary and come as bytes."""
    if value is None:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
