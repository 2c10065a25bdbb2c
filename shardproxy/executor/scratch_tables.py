"""Scratch tables on the connection where the statement will run: made like the tables that they stand for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError, UnsupportedError
from shardproxy.executor.scratch_columns import Column, column, quoted
from shardproxy.planner.scratch_plan import Copy
from shardproxy.protocol.mysql.resultset import TextResult, parse_resultset
from shardproxy.session.profile import Profile, profile, with_variables

# Rows are written with these: bytes as they are, zero dates as they are, 0 in an AUTO_INCREMENT column as it is.
_LOADING = {
    "character_set_client": "'binary'",
    "character_set_connection": "'binary'",
    "character_set_results": "'binary'",
    "collation_connection": "'binary'",
    "sql_mode": "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
    "time_zone": "'+00:00'",
    "sql_notes": "0",
}
_LOGS = b"SELECT @@log_bin AND @@binlog_format <> 'ROW'"


def loading(session: Profile) -> Profile:
    """The state in which scratch tables are made and filled."""
    return profile(session.capabilities, session.schema, tuple(sorted(_LOADING.items())))


def exact(session: Profile) -> Profile:
    """The state in which rows are written as they are, on a connection that is in the session's state otherwise."""
    return with_variables(session, _LOADING)


def full_name(copy: Copy) -> bytes:
    """The scratch table's name with its database."""
    return quoted(copy.database) + b"." + quoted(copy.name)


async def no_log(connection: BackendConnection) -> None:
    """Keep what happens here out of the binary log, where it would be in one: replicas must not see scratch tables.

    Raises BackendError.
    """
    if result(await connection.query(_LOGS), connection).rows[0][0] == b"1":
        reply = await connection.query(b"SET SESSION sql_log_bin=0")
        if reply.failed:
            raise BackendError(
                f"{connection.pool.server.name} would write scratch tables to its binary log: set binlog_format=ROW "
                f"there, or let the proxy's account set sql_log_bin ({reply.error_message})"
            )


async def create(connection: BackendConnection, copy: Copy, definition: Callable[[], Awaitable[bytes]]) -> list[Column]:
    """Make the table, empty, and say how its columns are filled.

    definition: asks a shard that has the table for its SHOW CREATE TABLE, for where LIKE does not serve: the server
    has no such table, or one with a full-text index or partitions. Raises BackendError, UnsupportedError.
    """
    made = quoted(copy.database) + b"." + quoted("shp_scratch_table")
    table = quoted(copy.database) + b"." + quoted(copy.table)
    target = full_name(copy)
    show = b"SHOW COLUMNS FROM " + target
    like, renamed, shown, whole = await asyncio.gather(
        connection.query(b"CREATE TEMPORARY TABLE %s LIKE %s" % (made, table)),
        connection.query(b"ALTER TABLE %s RENAME %s" % (made, target)),
        connection.query(show),
        connection.query(b"SHOW CREATE TABLE " + target),
    )
    if like.failed or renamed.failed:
        reply = await connection.query(temporary_table(await definition(), target))
        if reply.failed:
            raise BackendError(
                f"no scratch table for {copy.database}.{copy.table} on {connection.pool.server.name}: "
                f"{(like if like.failed else renamed).error_message}; made from its columns: {reply.error_message}",
            )
        shown = await connection.query(show)
        whole = await connection.query(b"SHOW CREATE TABLE " + target)
    return _columns(result(shown, connection), result(whole, connection).rows[0][1] or b"")


_CHARSET = re.compile(rb" DEFAULT CHARSET=\w+( COLLATE[= ]\w+)?")
_LEFT_OUT = (b"CONSTRAINT ", b"FULLTEXT KEY", b"SPATIAL KEY", b"VECTOR KEY", b"PERIOD FOR ")


def temporary_table(definition: bytes, target: bytes) -> bytes:
    """CREATE TEMPORARY TABLE out of SHOW CREATE TABLE: its columns and plain indexes, its character set.

    Raises UnsupportedError when the definition is not that of a table.
    """
    lines = definition.split(b"\n")
    end = next((i for i, line in enumerate(lines) if line.startswith(b")")), 0)
    if not lines[0].startswith(b"CREATE TABLE ") or not end:
        raise UnsupportedError("a table whose definition cannot be read: run `shardctl check`")
    kept = [line.strip().rstrip(b",") for line in lines[1:end] if not line.strip().startswith(_LEFT_OUT)]
    charset = _CHARSET.search(lines[end])
    return b"CREATE TEMPORARY TABLE %s (\n%s\n)%s" % (target, b",\n".join(kept), charset.group() if charset else b"")


async def definition_of(copy: Copy, pool: Pool, session: Profile) -> bytes:
    """SHOW CREATE TABLE of a scratch table's original, asked of a server that has it. Raises BackendError."""
    connection = await pool.checkout(loading(session))
    try:
        name = quoted(copy.database) + b"." + quoted(copy.table)
        found = result(await connection.query(b"SHOW CREATE TABLE " + name), connection)
    finally:
        pool.release(connection)
    return found.rows[0][1] or b""


_NAMES = re.compile(rb"`((?:[^`]|``)+)`")
_INDEX = re.compile(rb"\s*(PRIMARY |UNIQUE |FULLTEXT |SPATIAL |VECTOR )?(KEY|INDEX) ")


def _bound_names(definition: bytes) -> frozenset[bytes] | None:
    """Columns that an index has; None where others may depend on any: computed columns, checks, indexed expressions."""
    found: set[bytes] = set()
    for line in definition.split(b"\n")[1:]:
        if b" GENERATED ALWAYS AS " in line or b" AS (" in line or b"CHECK (" in line or b"((" in line:
            return None
        if _INDEX.match(line):
            found |= {name.replace(b"``", b"`") for name in _NAMES.findall(line)}
    return frozenset(found)


def _columns(found: TextResult, definition: bytes) -> list[Column]:
    """The table's columns, from SHOW COLUMNS and SHOW CREATE TABLE."""
    columns = []
    bound = _bound_names(definition)
    for name, kind, _, key, default, extra, *_ in found.rows:
        made = column(
            (name or b"").decode(), (kind or b"").decode(), default, (extra or b"").decode(),
            bool(key) or bound is None or name in bound,
        )  # fmt: skip
        if made is not None:
            columns.append(made)
    return columns


def result(reply: Reply, connection: BackendConnection) -> TextResult:
    """The rows of an answer. Raises BackendError for an ERR."""
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    return parse_resultset(reply.data, connection.scanner.deprecate_eof)
