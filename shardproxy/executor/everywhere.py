"""Writes to reference tables, which every shard of a keyspace runs.

A reference write runs on all shards in one transaction, the session's or its own: all execute, all answers are
compared, and then it is committed on all or on none. Shards go in order, one after the other: the first shard's row
locks put concurrent writers in one order for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.clock import clock, running
from shardproxy.executor.diagnostics import Condition, fetch
from shardproxy.executor.enlist import enlisted
from shardproxy.planner.plan import InsertId, Plan
from shardproxy.protocol.mysql.packets import parse_ok
from shardproxy.protocol.mysql.response import OK

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
    stamp = await clock(taken[0]) if plan.fixed_time else b""
    for connection in taken:
        count(client, connection)
        if plan.fixed_time:
            await _ok(connection, b"SET timestamp=" + stamp)
        reply = await run(connection)
        if reply.outcome == OK and reply.warnings and conditions is None:
            conditions = await fetch(connection, None)
        if plan.fixed_time:
            await _ok(connection, running(connection))
        if reply.failed:
            raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
        if reply.outcome != OK:
            raise BackendError("a write that returns rows cannot run on all copies of a reference table")
        replies.append(reply)
    if len({(r.affected, r.insert_id, r.warnings) for r in replies}) > 1:
        counts = ", ".join(f"{c.pool.server.shard}: {r.affected} rows" for c, r in zip(taken, replies, strict=True))
        raise BackendError(f"the copies of the reference table differ ({counts}); nothing was written: compare them")
    return replies, conditions


def count(client: Client, connection: BackendConnection) -> None:
    """One more statement of the client's plan on this server."""
    if client.entry is not None:
        client.entry.series[connection.pool.slot] += 1


async def _ok(connection: BackendConnection, text: bytes) -> None:
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
