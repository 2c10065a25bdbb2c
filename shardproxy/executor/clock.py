"""One time for all shards: NOW() and its like give what `timestamp` is set to, so all are set to one server's time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError
from shardproxy.protocol.mysql.resultset import parse_resultset


async def clock(connection: BackendConnection) -> bytes:
    """The server's time, as SET timestamp takes it: NOW() and CURRENT_TIMESTAMP are then the same on every copy."""
    reply = await connection.query(b"SELECT UNIX_TIMESTAMP(NOW(6)) LIMIT 1")
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    value = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows[0][0]
    assert value is not None
    return value


async def stop(connections: Sequence[BackendConnection]) -> None:
    """Give all the time of the first, for the statement that follows. Raises BackendError, BackendLost."""
    text = b"SET timestamp=" + await clock(connections[0])
    await _all(connections, [text] * len(connections))


async def go_on(connections: Sequence[BackendConnection]) -> None:
    """Let their clocks run again, or stand where the session has set them. Raises BackendError, BackendLost."""
    await _all(connections, [running(connection) for connection in connections])


def running(connection: BackendConnection) -> bytes:
    """The SET that brings a connection's clock back to what its session has."""
    return b"SET timestamp=" + (connection.profile.value("timestamp") or "DEFAULT").encode()


async def _all(connections: Sequence[BackendConnection], texts: Sequence[bytes]) -> None:
    asked = zip(connections, texts, strict=True)
    for reply in await asyncio.gather(*(connection.query(text) for connection, text in asked)):
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
