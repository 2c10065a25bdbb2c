"""SHOW WARNINGS and friends, for sessions whose statements ran on connections that they no longer have.

A server keeps the conditions of a statement until the next one on the same connection. Before a connection with
conditions goes back to the pool, they are read and kept with the session.
"""

from __future__ import annotations

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, BackendLost
from shardproxy.protocol.mysql.resultset import parse_resultset

KEPT = 64  # max_error_count of old servers; the rest is counted but not kept
DEADLOCK = 1213
Condition = tuple[bytes, bytes, bytes]  # level, code, message


async def fetch(connection: BackendConnection, error: tuple[int, str] | None) -> list[Condition]:
    """The conditions that the last statement left on this connection.

    error: number and message of the ERR that ended it, for when the connection does not survive the question.
    """
    fallback = [(b"Error", b"%d" % error[0], error[1].encode())] if error else []
    try:
        reply = await connection.query(b"SHOW WARNINGS")
    except BackendLost:
        return fallback
    return fallback if reply.failed else conditions(reply, bool(connection.scanner.deprecate_eof), error)


def conditions(reply: Reply, deprecate_eof: bool, error: tuple[int, str] | None) -> list[Condition]:
    """The conditions in an answer to SHOW WARNINGS. error: see fetch."""
    fallback = [(b"Error", b"%d" % error[0], error[1].encode())] if error else []
    rows = parse_resultset(reply.data, deprecate_eof).rows
    found = [(row[0] or b"", row[1] or b"", row[2] or b"") for row in rows[:KEPT]]
    if error is not None and error[0] == DEADLOCK and (b"%d" % DEADLOCK) not in [row[1] for row in rows]:
        return fallback  # a deadlock over shards, which the server knows as an interrupted statement
    return found or fallback


async def insert_id(connection: BackendConnection) -> int:
    """LAST_INSERT_ID() on this connection. Raises BackendError, BackendLost."""
    return await _number(connection, b"SELECT LAST_INSERT_ID() LIMIT 1")


async def found_rows(connection: BackendConnection) -> int:
    """FOUND_ROWS() on this connection. Raises BackendError, BackendLost."""
    return await _number(connection, b"SELECT FOUND_ROWS() LIMIT 1")


async def _number(connection: BackendConnection, text: bytes) -> int:
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    [[value]] = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows
    assert value is not None
    return int(value)
