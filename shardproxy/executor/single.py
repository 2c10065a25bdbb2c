"""Rung 1: one shard answers, and its bytes go to the client as they are."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError, BackendLost, BackendUnavailable, SessionError, SqlError
from shardproxy.executor.client import Client
from shardproxy.planner.plan import Plan


def forward(client: Client, plan: Plan, shard: int, replica: bool, wire: bytes) -> Coroutine[Any, Any, None] | None:
    """Relay one command to one shard. Done at once when a connection is at hand, else by the returned coroutine.

    Raises SessionError when the session holds a connection to another shard.
    """
    session = client.session
    held = client.held
    if held is not None:
        check_shard(client, shard)
        if not plan.pins and (session.pins or not plan.needs_insert_id):
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


def check_shard(client: Client, shard: int) -> None:
    """Raise SessionError unless the held connection is on this shard."""
    session = client.session
    if session.shard == shard:
        return
    shards = client.gateway.snapshot.shards
    have, want = shards[session.shard].name, shards[shard].name
    if session.pins:
        why = ", ".join(reason.value for reason in session.pins)
        raise SessionError(
            f"the session is pinned to shard {have} ({why}); this statement needs shard {want}: use another connection"
        )
    raise SessionError(
        f"the transaction is on shard {have} and this statement needs shard {want}: a transaction touches one shard; "
        "COMMIT first"
    )


async def _bring_and_forward(client: Client, plan: Plan, shard: int, replica: bool, wire: bytes) -> None:
    try:
        connection = await take(client, plan, shard, replica)
    except SqlError as error:
        client.error(error)
        return
    client.relay_from(connection, wire, shard)


async def take(client: Client, plan: Plan, shard: int, replica: bool) -> BackendConnection:
    """A connection ready for this plan: in the session's state, in its transaction, held where it must be.

    Raises SqlError (also the server's own, from opening the transaction).
    """
    session = client.session
    alone = session.simple and not plan.pins
    connection = client.held
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


async def _open_transaction(client: Client, connection: BackendConnection) -> None:
    """Send what the session owes: SET TRANSACTION, BEGIN, savepoints, in the order in which the client said them."""
    session = client.session
    if session.next_transaction:
        connection.tainted = True  # a transaction that never began would leave it to the next user
    for text in (*session.next_transaction, *(session.begin or ())):
        await expect_ok(connection, text)
    session.begin = None
    session.next_transaction = ()


async def expect_ok(connection: BackendConnection, text: bytes) -> None:
    """Run a statement of ours. Raises the server's error as BackendError."""
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
