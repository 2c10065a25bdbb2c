"""One time for all shards: NOW() and its like give what `timestamp` is set to, so all are set to one server's time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError
from shardproxy.protocol.mysql.resultset import parse_resultset

GO_ON = b"SET timestamp=DEFAULT"


async def clock(connection: BackendConnection) -> bytes:
    """The server's time, as SET timestamp takes it: NOW() and CURRENT_TIMESTAMP are then the same on every copy."""
    reply = await connection.query(b"SELECT UNIX_TIMESTAMP(NOW(6))")
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    value = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows[0][0]
    assert value is not None
    return value


async def stop(connections: Sequence[BackendConnection]) -> None:
    """Give all the time of the first, for the statement that follows. Raises BackendError, BackendLost."""
    await _set(connections, b"SET timestamp=" + await clock(connections[0]))


async def go_on(connections: Sequence[BackendConnection]) -> None:
    """Let their clocks run again. Raises BackendError, BackendLost."""
    await _set(connections, GO_ON)


async def _set(connections: Sequence[BackendConnection], text: bytes) -> None:
    for reply in await asyncio.gather(*(connection.query(text) for connection in connections)):
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
