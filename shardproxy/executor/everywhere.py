"""Statements that every shard of a keyspace runs: writes to reference tables, and DDL.

A reference write runs on all shards in one transaction, the session's or its own: all execute, all answers are
compared, and then it is committed on all or on none. Shards go in order, one after the other: the first shard's row
locks put concurrent writers in one order for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, SessionError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.diagnostics import Condition, fetch
from shardproxy.executor.enlist import enlisted
from shardproxy.executor.session_commands import commit_held
from shardproxy.executor.transaction import to_the_end
from shardproxy.planner.plan import InsertId, Plan
from shardproxy.protocol.mysql.packets import parse_ok
from shardproxy.protocol.mysql.response import OK
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import Profile, with_variables

Run = Callable[[BackendConnection], Awaitable[Reply]]


async def write(client: Client, plan: Plan, shards: tuple[int, ...], run: Run) -> None:
    """One write on all copies of a reference table, with the answer of one. Raises SqlError, all copies unchanged."""
    async with enlisted(client, plan, shards, replica=False, write=True) as enlistment:
        replies, conditions = await _execute(client, plan, enlistment.connections, run)
        for connection in enlistment.connections:
            enlistment.release(connection, True)
    first = replies[0]
    told = parse_ok(first.data[4 : 4 + int.from_bytes(first.data[:3], "little")], session_track=False)
    if plan.insert_id is InsertId.REPORTED and first.insert_id:
        client.session.insert_id = first.insert_id
    client.ok(first.affected, first.insert_id, first.warnings, told.info, conditions)


async def _execute(
    client: Client, plan: Plan, taken: list[BackendConnection], run: Run
) -> tuple[list[Reply], list[Condition] | None]:
    """The statement on each in turn; the answers, which are all the same, with the first's warnings."""
    replies: list[Reply] = []
    conditions: list[Condition] | None = None
    stamp = await _clock(taken[0]) if plan.fixed_time else b""
    for connection in taken:
        count(client, connection)
        if plan.fixed_time:
            await _ok(connection, b"SET timestamp=" + stamp)
        reply = await run(connection)
        if reply.outcome == OK and reply.warnings and conditions is None:
            conditions = await fetch(connection, None)
        if plan.fixed_time:
            await _ok(connection, b"SET timestamp=DEFAULT")
        if reply.failed:
            raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
        if reply.outcome != OK:
            raise BackendError("a write that returns rows cannot run on all copies of a reference table")
        replies.append(reply)
    if len({(r.affected, r.insert_id, r.warnings) for r in replies}) > 1:
        counts = ", ".join(f"{c.pool.server.shard}: {r.affected} rows" for c, r in zip(taken, replies, strict=True))
        raise BackendError(f"the copies of the reference table differ ({counts}); nothing was written: compare them")
    return replies, conditions


async def _clock(connection: BackendConnection) -> bytes:
    """The server's time, as SET timestamp takes it: NOW() and CURRENT_TIMESTAMP are then the same on every copy."""
    reply = await connection.query(b"SELECT UNIX_TIMESTAMP(NOW(6))")
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    value = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows[0][0]
    assert value is not None
    return value


def count(client: Client, connection: BackendConnection) -> None:
    """One more statement of the client's plan on this server."""
    if client.entry is not None:
        client.entry.series[connection.pool.slot] += 1


async def _ok(connection: BackendConnection, text: bytes) -> None:
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)


async def ddl(client: Client, plan: Plan, shards: tuple[int, ...], sql: bytes) -> None:
    """A schema change on every shard in order; stops at the first error and says which shards have it."""
    await to_the_end(_change(client, shards, sql))


async def _change(client: Client, shards: tuple[int, ...], sql: bytes) -> None:
    session = client.session
    await commit_held(client)
    if client.held is not None:
        raise SessionError("a schema change cannot run in a session pinned to one shard: use another connection")
    profile: Profile = session.profile if session.autocommit else with_variables(session.profile, {"autocommit": "1"})
    done: list[str] = []
    warnings = 0
    conditions: list[Condition] | None = None
    for shard in shards:
        pools = client.gateway.shards[shard]
        try:
            connection = await pools.primary.checkout(profile)
            count(client, connection)
            reply = await connection.query(sql)
            if reply.warnings and not reply.failed and conditions is None:
                conditions = await fetch(connection, None)
            connection.pool.checkin(connection)
            if reply.failed:
                raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
        except SqlError as error:
            if done:
                await client.schema_changed()
                missing = ", ".join(client.gateway.snapshot.shards[s].name for s in shards[len(done) :])
                raise BackendError(
                    f"{error} — on shard {pools.name}; shards {', '.join(done)} have the change, {missing} do not: "
                    f"mend {pools.name} and run the statement there with /*shardproxy: shard={pools.name}*/",
                    error.code,
                    error.sqlstate,
                ) from error
            raise
        warnings = max(warnings, reply.warnings)
        done.append(pools.name)
    await client.schema_changed()
    client.ok(warnings=warnings, conditions=conditions)
