"""Rung 1: one shard answers, and its bytes go to the client as they are."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError, BackendLost, BackendUnavailable, SqlError
from shardproxy.executor import fence, transaction
from shardproxy.executor.client import Client
from shardproxy.planner.plan import Plan
from shardproxy.sql.session_text import access_mode, savepoints_after


def forward(client: Client, plan: Plan, shard: int, replica: bool, wire: bytes) -> Coroutine[Any, Any, None] | None:
    """Relay one command to one shard. Done at once when a connection is at hand, else by the returned coroutine.

    Raises SessionError when the session's transaction on several shards cannot hold the statement.
    """
    session = client.session
    held = client.held
    if held is not None:
        if session.shard == shard and not plan.pins and (session.pins or not plan.needs_insert_id):
            if client.spanning is not None:
                transaction.check_plan(plan)
            client.relay_from(held, wire, shard)
            return None
    elif session.simple and not plan.pins and not plan.needs_insert_id:
        pool = choose_pool(client, shard, replica)
        connection = pool.checkout_now(session.profile)
        if connection is not None:
            client.relay_from(connection, wire, shard)
            return None
        pools = client.gateway.shards[shard]
        if pool is not pools.primary:
            pools.unread()
    return _bring_and_forward(client, plan, shard, replica, wire)


def choose_pool(client: Client, shard: int, replica: bool) -> Pool:
    """Replicas serve reads of sessions that hold nothing; everything else goes to the primary. So does a read that lost
    its replica: the pool may not have noticed yet that the other connections to it are dead, too."""
    pools = client.gateway.shards[shard]
    session = client.session
    if replica and session.simple and not session.reads_primary and client.redone is None:
        return pools.reader()
    return pools.primary


def any_shard(client: Client) -> int:
    """The shard for statements that any can answer: the held one, else the first of the default schema."""
    session = client.session
    if session.shard >= 0:
        return session.shard
    keyspace = client.gateway.snapshot.keyspaces.get(session.profile.schema or "")
    return keyspace.shards[0] if keyspace else 0


async def _bring_and_forward(client: Client, plan: Plan, shard: int, replica: bool, wire: bytes) -> None:
    try:
        connection = await take(client, plan, shard, replica)
    except SqlError as error:
        client.error(error)
        return
    client.relay_from(connection, wire, shard)


async def take(client: Client, plan: Plan, shard: int, replica: bool) -> BackendConnection:
    """A connection ready for this plan: in the session's state, in its transaction, held where it must be, behind the
    fence where keys move.

    Raises SqlError (also the server's own, from opening the transaction; FenceClosedError).
    """
    connection = await _take(client, plan, shard, replica)
    if client.crossing:
        await fence.take_held(client, connection, shard)
    return connection


async def _take(client: Client, plan: Plan, shard: int, replica: bool) -> BackendConnection:
    session = client.session
    alone = session.simple and not plan.pins
    connection = client.held
    if client.spanning is not None:
        transaction.check_plan(plan)
    if connection is not None and session.shard != shard:
        connection = await transaction.join(client, plan, shard)
        if plan.needs_insert_id:
            await expect_ok(connection, b"SET @@SESSION.last_insert_id=%d" % session.insert_id)
        return connection
    if connection is None:
        if plan.pins:
            connection = await client.gateway.shards[shard].primary.checkout_new(session.profile)
        else:
            connection = await checkout(client, shard, replica and alone)
    try:
        if not alone:
            if client.held is None:
                await _open_transaction(client, connection)
            pinned_before = bool(session.pins)
            client.hold(connection, shard, plan.pins)
            if pinned_before:
                return connection  # it knows the session's LAST_INSERT_ID() better than we
        if plan.needs_insert_id or (plan.pins and session.insert_id):
            await expect_ok(connection, b"SET @@SESSION.last_insert_id=%d" % session.insert_id)
    except BaseException:
        if client.held is None:
            connection.pool.release(connection)
        raise
    return connection


async def checkout(client: Client, shard: int, replica: bool) -> BackendConnection:
    """A connection to the shard; the primary serves a read when the replica whose turn it is cannot be reached."""
    pool = choose_pool(client, shard, replica)
    primary = client.gateway.shards[shard].primary
    try:
        return await pool.checkout(client.session.profile)
    except (BackendUnavailable, BackendLost):
        if pool is primary:
            raise
    return await primary.checkout(client.session.profile)


_PLAIN_BEGIN = len("START TRANSACTION")  # a longer text has options


async def _open_transaction(client: Client, connection: BackendConnection) -> None:
    """Send what the session owes: SET TRANSACTION, BEGIN, savepoints, in the order in which the client said them."""
    session = client.session
    if session.next_transaction:
        connection.tainted = True  # a transaction that never began would leave it to the next user
    begin = session.begin or ()
    for text in (*session.next_transaction, *begin):
        await expect_ok(connection, text)
    session.opened = session.next_transaction
    session.savepoints = ()
    if begin and (len(begin) > 1 or len(begin[0]) > _PLAIN_BEGIN or b"SAVE" in begin[0].upper()):
        session.opened += access_mode(begin[0], session.modes)
        session.savepoints = savepoints_after((), begin, session.modes)
    session.begin = None
    session.next_transaction = ()


async def expect_ok(connection: BackendConnection, text: bytes) -> None:
    """Run a statement of ours. Raises the server's error as BackendError."""
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
