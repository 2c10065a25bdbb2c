"""A session's transaction on several shards.

The first shard (D) runs a plain BEGIN: its connection is `client.held`, and a transaction that stays there knows
nothing of this file. Each further shard joins as an XA branch on a connection of its own. Commit is `executor.commit`.

MySQL and MariaDB refuse things inside XA that they allow in a plain transaction (DDL and BEGIN, which would commit, SET
autocommit); here those end the whole transaction first, as they do on one server, so that no server sees them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from time import time
from typing import Any

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.backend.decisions import probe_texts
from shardproxy.backend.gateway import Gateway
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError, BackendLost, SessionError, SqlError, TransactionError
from shardproxy.executor import commit
from shardproxy.executor.client import Client
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.session.profile import Profile, with_variables
from shardproxy.session.xid import TransactionId, shard_word

# Errors after which a server has rolled back the whole transaction: deadlock, lock table full, and what a branch that
# was rolled back answers from then on.
ROLLED_BACK = frozenset((1213, 1206, 1399, 1402, 1613, 1614))
# Statements that commit a transaction, or do who knows what, behind our back; sent to one shard by a hint.
_UNCONTROLLED = frozenset((
    StatementKind.ADMIN, StatementKind.CALL, StatementKind.DDL, StatementKind.LOCK_TABLES, StatementKind.PREPARE,
))  # fmt: skip


class Branch:
    """One further shard. name: its XA id; wrote, locked: something was written, or rows were locked by a read, in it,
    as far as plans tell."""

    __slots__ = ("connection", "locked", "name", "shard", "wrote")

    def __init__(self, connection: BackendConnection, shard: int, name: bytes) -> None:
        self.connection = connection
        self.shard = shard
        self.name = name
        self.wrote = False
        self.locked = False


class Transaction:
    """first: D's connection; last: where the last statement ran, for SHOW WARNINGS; ending: its COMMIT or ROLLBACK has
    begun, so that it can be no deadlock's victim; snapshot: its snapshots on all shards are of one instant;
    fenced: shards where it holds a fence."""

    __slots__ = (
        "__weakref__", "branches", "ending", "fenced", "first", "first_shard", "gateway", "ident", "last", "snapshot",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, first: BackendConnection, first_shard: int) -> None:
        self.gateway = gateway
        self.first = first
        self.first_shard = first_shard
        self.last = first
        self.branches: dict[int, Branch] = {}
        self.ending = False
        self.snapshot = False
        self.fenced: set[int] = set()
        gateway.transactions += 1
        name = shard_word(gateway.shards[first_shard].name)
        self.ident = TransactionId(gateway.coordinator, int(time()), gateway.transactions, first.server_thread, name)
        gateway.spanning.add(self)

    @property
    def connections(self) -> list[BackendConnection]:
        return [self.first, *(branch.connection for branch in self.branches.values())]

    @property
    def by_shard(self) -> dict[int, BackendConnection]:
        """The connection on each shard that takes part."""
        return {self.first_shard: self.first} | {s: branch.connection for s, branch in self.branches.items()}

    def on(self, shard: int) -> BackendConnection | None:
        """The connection to a shard that takes part."""
        if shard == self.first_shard:
            return self.first
        branch = self.branches.get(shard)
        return None if branch is None else branch.connection

    def has(self, connection: BackendConnection) -> bool:
        return any(branch.connection is connection for branch in self.branches.values())

    def writes(self, shards: Sequence[int]) -> None:
        """Something is about to be written there."""
        for shard in shards:
            if shard != self.first_shard:
                self.branches[shard].wrote = True

    def locks(self, shard: int) -> None:
        """A read is about to lock rows there."""
        if shard != self.first_shard:
            self.branches[shard].locked = True

    async def begin(
        self, shard: int, connection: BackendConnection, first: Sequence[bytes], then: Sequence[bytes]
    ) -> None:
        """Make a connection a branch. first: SET TRANSACTION …; then: savepoints that exist. The connection is closed
        when that fails. Raises BackendError, BackendLost."""
        name = self.ident.branch(connection.server_thread).encode()
        try:
            await all_ok(connection, (*first, b"XA START " + name, *then))
        except BaseException:
            connection.close()
            raise
        self.branches[shard] = Branch(connection, shard, name)

    def drop(self) -> None:
        """Roll the branches back, whatever is under way on them; nobody waits for it."""
        self.ending = True
        for branch in self.branches.values():
            connection = branch.connection
            connection.holder = None
            if connection.closed:
                continue
            if connection.sinks or connection.tainted:
                connection.pool.abandon(connection)
            else:
                connection.pool.in_background(commit.undo_branch(branch.name, connection))
        self.branches.clear()


# ── joining ──


def check_plan(plan: Plan) -> None:
    """Raise SessionError for what a transaction on several shards cannot hold together."""
    if plan.pins:
        why = ", ".join(reason.value for reason in plan.pins)
        raise SessionError(
            f"the statement would pin the session to one shard ({why}), and its transaction is on several: COMMIT first"
        )
    if plan.kind in _UNCONTROLLED:
        raise SessionError(f"{plan.kind.value} cannot run inside a transaction on several shards: COMMIT first")


def check_pins(client: Client, shard: int) -> None:
    """Raise SessionError when the session is pinned, for a statement that needs another shard."""
    session = client.session
    if session.pins:
        shards = client.gateway.snapshot.shards
        have, want = shards[session.shard].name, shards[shard].name
        why = ", ".join(reason.value for reason in session.pins)
        raise SessionError(
            f"the session is pinned to shard {have} ({why}); this statement needs shard {want}: use another connection"
        )


async def join(client: Client, plan: Plan, shard: int) -> BackendConnection:
    """The session's transaction reaches a further shard; it holds one already. Raises SqlError."""
    check_pins(client, shard)
    check_plan(plan)
    held = client.held
    assert held is not None
    session = client.session
    transaction = client.spanning or Transaction(client.gateway, held, session.shard)
    connection = transaction.on(shard)
    if connection is None and transaction.snapshot:
        raise TransactionError(f"the transaction's snapshot is older than shard {client.gateway.shards[shard].name}")
    if connection is None:
        await check_bookkeeping(client.gateway, session.shard, session.profile)
        await check_bookkeeping(client.gateway, shard, session.profile)
        connection = await client.gateway.shards[shard].primary.checkout(session.profile)
        await transaction.begin(shard, connection, session.opened, savepoint_texts(session.savepoints))
        if client.held is not held:
            transaction.drop()
            raise TransactionError("the transaction ended while a further shard joined it")
        connection.holder = held.holder
        client.spanning = transaction
    if not plan.read and plan.kind is not StatementKind.SELECT:
        transaction.writes((shard,))
    elif plan.locks:
        transaction.locks(shard)
    return connection


def savepoint_texts(names: Sequence[str]) -> list[bytes]:
    """SAVEPOINT statements that make these savepoints."""
    return [b"SAVEPOINT `" + name.replace("`", "``").encode("utf-8", "surrogateescape") + b"`" for name in names]


async def check_bookkeeping(gateway: Gateway, shard: int, profile: Profile) -> None:
    """Make sure, once a server, that its shard can decide and that its branches can be found again.

    Raises TransactionError, on the statement that needs the second shard: at COMMIT it would be too late.
    """
    pool = gateway.shards[shard].primary
    if pool.server.name in gateway.verified:
        return
    failed = await _probe(pool, gateway.coordinator, profile)
    for _ in range(_PROBES):
        if failed is None or failed.error_code not in _LOCKED:
            break
        failed = await _probe(pool, gateway.coordinator, profile)
    if failed is not None and failed.error_code in _LOCKED:
        raise TransactionError(
            f"whether shard {pool.server.shard} can take part in a transaction over several could not be seen: try "
            f"again; the server says: {failed.error_message} ({failed.error_code})"
        )
    if failed is not None:
        raise TransactionError(
            f"a transaction over several shards needs the schema _shardproxy on shard {pool.server.shard}: run "
            "`shardctl migrate`, and GRANT backend.user SELECT, INSERT, DELETE ON _shardproxy.*, and on MySQL "
            f"XA_RECOVER_ADMIN ON *.*; the server says: {failed.error_message} ({failed.error_code})"
        )
    gateway.verified.add(pool.server.name)


_LOCKED = frozenset({1205, 1213})  # lock wait time-out, deadlock: other probes and decisions write beside ours
_PROBES = 5


async def _probe(pool: Pool, coordinator: str, profile: Profile) -> Reply | None:
    """The first error of a try to decide a transaction on this server, on a connection of its own."""
    connection = await pool.beyond(profile)
    try:
        replies = await connection.queries([text.encode() for text in probe_texts(coordinator)])
    finally:
        connection.close()
    return next((reply for reply in replies if reply.failed), None)


# ── the end ──


def take_over(client: Client) -> Transaction:
    """The transaction, which the session lets go of: from now on its end is ours, whatever becomes of the client."""
    transaction = client.spanning
    assert transaction is not None
    client.spanning = None
    for connection in transaction.connections:
        connection.holder = None
    client.forget_held()
    return transaction


async def commit_all(client: Client) -> None:
    """COMMIT of the session's transaction on all its shards. Raises SqlError; then the transaction is rolled back, or
    (9121) nobody knows, and the client's connection is closed."""
    transaction = take_over(client)
    try:
        await to_the_end(commit.commit(transaction))
    except commit.OutcomeUnknown:
        client.abort()
        raise


async def roll_back_all(client: Client) -> None:
    """ROLLBACK of the session's transaction on all its shards; connections that cannot be brought to it are closed,
    which rolls back too."""
    if client.spanning is None:
        client.let_go()
        return
    await to_the_end(commit.roll_back(take_over(client)))


async def savepoint_all(transaction: Transaction, text: bytes) -> None:
    """A savepoint statement on every shard. Raises the first server's error."""
    replies = await asyncio.gather(*(connection.query(text) for connection in transaction.connections))
    for reply in replies:
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)


async def switch_all(client: Client, wanted: Profile) -> None:
    """Bring every branch to the session's new profile. XA allows no switch of autocommit to on.

    Raises SqlError; the transaction is then rolled back, for its connections differ.
    """
    transaction = client.spanning
    if transaction is None:
        return
    for connection in [branch.connection for branch in transaction.branches.values()]:
        failed = await connection.switch(_keeping_autocommit(connection.profile, wanted))
        if failed is not None:
            await roll_back_all(client)
            raise SqlError(failed.error_message, failed.error_code, failed.sqlstate)


async def expect_switch(connection: BackendConnection, wanted: Profile) -> None:
    """Bring a connection to a profile. Raises BackendError."""
    failed = await connection.switch(wanted)
    if failed is not None:
        raise BackendError(failed.error_message, failed.error_code, failed.sqlstate)


def _keeping_autocommit(now: Profile, wanted: Profile) -> Profile:
    if now.autocommit == wanted.autocommit or not wanted.autocommit:
        return wanted  # with autocommit off, and clients are told so by every answer
    return with_variables(wanted, {"autocommit": now.value("autocommit") or "1"})


# ── for all of the above ──


async def all_ok(connection: BackendConnection, texts: Sequence[bytes]) -> None:
    """Run statements of ours in one round trip. Raises the first error as BackendError."""
    for reply in await connection.queries(texts):
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it whole even when the client goes away in the middle: half of it is worse than all or nothing."""
    task = asyncio.get_running_loop().create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


_unfinished: set[asyncio.Task[None]] = set()


async def quiet(connection: BackendConnection) -> None:
    """End the statement under way on a connection without losing its transaction: KILL QUERY, and its answer is
    thrown away. Raises BackendLost."""
    drain = commit.Drain(asyncio.get_running_loop())
    waiting = connection.sinks
    if connection.closed:
        raise BackendLost(f"lost the connection to {connection.pool.server.name}")
    if waiting:
        for i in range(len(waiting)):
            waiting[i] = commit.NOWHERE
        waiting[-1] = drain
        connection.transport.resume_reading()
        await connection.pool.end_statement(connection)
        await drain.future
        await connection.query(b"DO 0")  # a KILL that came late strikes this
