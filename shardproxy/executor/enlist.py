"""Connections to several shards for one statement: what it reads or writes there, it reads or writes as one.

    async with enlisted(client, plan, shards, replica=…, write=…) as enlistment:
        …run the statement on enlistment.connections, each answer taken whole or its connection `release`d…

Leaving the block without an error settles it: outside a transaction a write is committed on all shards, and the
connections go back. An error (or the client's end) undoes what the statement did, on all shards. So a statement ends
its answer (`client.ok`, `client.finish`) after the block, for before that it may still fail.

Inside a transaction the shards join it, and a write sets a savepoint on each first: when it fails anywhere, it is
undone everywhere and the transaction goes on, unless a server has rolled back the whole (a deadlock): then it is rolled
back on all shards, as one server does.

A read that locks rows keeps its locks on all shards until the block ends, outside a transaction too: there each shard
gets a plain transaction, which has written nothing and so needs no agreement on its end.

Shards are asked in order, as by every other statement, so that two of them never wait for each other in a ring.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, BackendLost, SqlError
from shardproxy.executor import clock, commit, fence, single, snapshot, transaction
from shardproxy.executor.client import Client
from shardproxy.executor.transaction import ROLLED_BACK, Transaction, all_ok, check_bookkeeping, quiet, to_the_end
from shardproxy.planner.plan import Plan
from shardproxy.protocol.mysql.response import ERR, IN_TRANS

_SAVEPOINT = b"SAVEPOINT `_shardproxy_statement`"
_UNDO = b"ROLLBACK TO SAVEPOINT `_shardproxy_statement`"


class Enlistment:
    """connections: one a shard, in the order of `shards`. This one is for a read that is in no transaction."""

    def __init__(self, shards: Sequence[int], connections: list[BackendConnection]) -> None:
        self.shards = tuple(shards)
        self.connections = connections
        self.clock_stopped = False  # all have one time until they are given back
        self.read_view = False  # all are in a transaction that only reads
        self._open = set(connections)

    def release(self, connection: BackendConnection, ended: bool) -> None:
        """This connection is not needed any more. ended: its answer is whole; else the rest is not wanted."""
        if connection in self._open:
            self._open.discard(connection)
            if not ended:
                connection.pool.abandon(connection)
            elif connection.tainted:
                connection.close()
            elif self.read_view:
                connection.pool.in_background(_end_view(connection, self.clock_stopped))
            elif self.clock_stopped:
                connection.pool.in_background(_give_back(connection))
            else:
                connection.pool.checkin(connection)

    def writes(self, shards: Sequence[int]) -> None:
        """Something is about to be written there; only of an enlistment with `write_later`."""

    def on(self, shard: int) -> BackendConnection:
        """The connection to a shard that takes part."""
        return self.connections[self.shards.index(shard)]

    async def add(self, client: Client, plan: Plan, shards: Sequence[int]) -> None:
        """Further shards take part in a write; those that do already are left out. Raises SqlError."""
        raise AssertionError("a read outside transactions has its shards from the start")

    def _more(self, shard: int, connection: BackendConnection) -> None:
        self.shards += (shard,)
        self.connections.append(connection)

    async def settle(self) -> None:
        """All answers are whole. Raises SqlError."""
        for connection in list(self._open):
            self.release(connection, True)

    async def undo(self, error: BaseException) -> None:
        """Something went wrong: nothing is known of answers that are under way."""
        for connection in list(self._open):
            self._open.discard(connection)
            connection.tainted = connection.tainted or self.clock_stopped or self.read_view
            connection.pool.release(connection)


async def _give_back(connection: BackendConnection) -> None:
    """Let its clock run again, then it is anybody's."""
    try:
        await clock.go_on((connection,))
    except SqlError:
        connection.close()
    else:
        connection.pool.checkin(connection)


class _AtOnce(Enlistment):
    """For a read outside transactions whose snapshots are of one instant: each is in a transaction that only reads."""

    def release(self, connection: BackendConnection, ended: bool) -> None:
        if ended and not self.clock_stopped and connection in self._open:
            self._open.discard(connection)
            connection.pool.in_background(commit.checked_in(connection, (b"COMMIT",)))
        elif connection in self._open:
            self._open.discard(connection)
            if not ended:
                connection.pool.abandon(connection)
            else:
                connection.pool.in_background(_end_view(connection, True))


async def _end_view(connection: BackendConnection, clock_stopped: bool) -> None:
    """Let its clock run again, and end its transaction."""
    try:
        if clock_stopped:
            await clock.go_on((connection,))
    except SqlError:
        connection.close()
    else:
        await commit.checked_in(connection, (b"COMMIT",))


class _Joined(Enlistment):
    """In the session's transaction, on `held` or on its branches. write: there is a savepoint to go back to."""

    def __init__(
        self, client: Client, shards: Sequence[int], connections: list[BackendConnection], write: bool
    ) -> None:
        super().__init__(shards, connections)
        self._client = client
        self._write = write

    def writes(self, shards: Sequence[int]) -> None:
        if self._client.spanning is not None:
            self._client.spanning.writes(shards)

    def release(self, connection: BackendConnection, ended: bool) -> None:
        """It stays with the transaction; an answer that is not wanted is thrown away when the block ends."""
        if ended:
            self._open.discard(connection)

    async def add(self, client: Client, plan: Plan, shards: Sequence[int]) -> None:
        for shard in shards:
            if shard in self.shards:
                continue
            transaction.check_pins(client, shard)
            connection = await single.take(client, plan, shard, False)
            self._more(shard, connection)
            if client.spanning is not None:
                client.spanning.writes((shard,))
            await all_ok(connection, (_SAVEPOINT,))

    async def settle(self) -> None:
        for connection in self._open:
            await quiet(connection)
        answers = [connection.scanner for connection in self.connections]
        if any(answer.outcome == ERR and answer.error_code in ROLLED_BACK for answer in answers):
            await transaction.roll_back_all(self._client)
        elif self.clock_stopped:
            await clock.go_on(self.connections)

    async def undo(self, error: BaseException) -> None:
        client = self._client
        if client.held is None or isinstance(error, asyncio.CancelledError):
            return  # the session has let go of all: they are rolled back
        code = error.code if isinstance(error, SqlError) else 0
        try:
            for connection in self.connections:
                await quiet(connection)
            if self.clock_stopped:
                await clock.go_on(self.connections)
            if code not in ROLLED_BACK and self._write:
                replies = await asyncio.gather(*(connection.query(_UNDO) for connection in self.connections))
                if any(reply.failed for reply in replies):  # it has gone with the whole transaction
                    code = 1213
            elif code not in ROLLED_BACK and not client.held.scanner.status & IN_TRANS:
                code = 1213
        except BackendError:
            code = 1213
        if code in ROLLED_BACK and client.held is not None:
            await transaction.roll_back_all(client)


class _Locking(Enlistment):
    """A read with locks outside transactions: one on each shard, which ends with the block."""

    def release(self, connection: BackendConnection, ended: bool) -> None:
        if ended:
            self._open.discard(connection)

    async def settle(self) -> None:
        await to_the_end(self._end(b"COMMIT"))

    async def undo(self, error: BaseException) -> None:
        await to_the_end(self._end(b"ROLLBACK"))

    async def _end(self, text: bytes) -> None:
        """Nothing has been written: what cannot be ended in order is closed."""
        for connection in self.connections:
            try:
                await quiet(connection)
                if self.clock_stopped:
                    await clock.go_on((connection,))
                reply = await connection.query(text)
            except SqlError:
                connection.close()
            else:
                connection.pool.give_back(connection, not reply.failed)


class _Alone(Enlistment):
    """A write outside transactions: one of its own, committed when the block ends."""

    def __init__(
        self, shards: Sequence[int], connections: list[BackendConnection], own: Transaction, first: Sequence[bytes]
    ) -> None:
        super().__init__(shards, connections)
        self._own = own
        self.fences: fence.Taken = set()
        self._first = first  # SET TRANSACTION …

    def writes(self, shards: Sequence[int]) -> None:
        self._own.writes(shards)

    def release(self, connection: BackendConnection, ended: bool) -> None:
        if ended:
            self._open.discard(connection)

    async def add(self, client: Client, plan: Plan, shards: Sequence[int]) -> None:
        own, profile = self._own, client.session.profile
        for shard in shards:
            if shard in self.shards:
                continue
            for other in (own.first_shard, shard):
                await check_bookkeeping(client.gateway, other, profile)
            [connection] = await _check_out(client, (shard,), False)
            await own.begin(shard, connection, self._first, ())
            self._more(shard, connection)
            if client.crossing and await fence.take(client, connection, shard, self.fences):
                own.fenced.add(shard)
            own.writes((shard,))

    async def settle(self) -> None:
        try:
            for connection in self._open:
                await quiet(connection)
        except BaseException as error:  # one has been lost since its answer: the others must not keep their locks
            await self.undo(error)
            raise
        await to_the_end(commit.commit(self._own))

    async def undo(self, error: BaseException) -> None:
        await to_the_end(commit.roll_back(self._own))


@asynccontextmanager
async def enlisted(
    client: Client, plan: Plan, shards: Sequence[int], *, replica: bool, write: bool, write_later: bool = False
) -> AsyncIterator[Enlistment]:
    """See the module. write_later: where it is written is told by `writes`; else it is written on all of them.

    Raises SqlError, also the servers' own.
    """
    session = client.session
    first: tuple[bytes, ...] = ()
    if session.next_transaction and session.begin is None and client.held is None and session.autocommit:
        # SET TRANSACTION before a statement that is a transaction by itself: it holds for that one.
        first, session.next_transaction = session.next_transaction, ()
        session.refresh()
    if plan.snapshot and len(shards) > 1:
        snapshot.check_statement(client)
    if not session.simple:
        enlistment: Enlistment = await _join(client, plan, shards, write)
    elif write:
        enlistment = await _begin(client, shards, first)
    elif plan.locks:
        enlistment = await _begin_locking(client, shards, first)
    elif plan.snapshot and len(shards) > 1:
        enlistment = _AtOnce(shards, await snapshot.read(client, await _check_out(client, shards, False, first)))
    else:
        enlistment = Enlistment(shards, await _check_out(client, shards, replica and not first, first))
    client.working = enlistment.connections
    try:
        if plan.needs_insert_id:
            text = b"SET @@SESSION.last_insert_id=%d" % client.session.insert_id
            await asyncio.gather(*(single.expect_ok(connection, text) for connection in enlistment.connections))
        if plan.fixed_time and not write:
            enlistment.clock_stopped = True
            await clock.stop(enlistment.connections)
        if write and not write_later:
            enlistment.writes(shards)
        yield enlistment
        client.working = []
    except BaseException as error:
        client.working = []
        if first and not write and isinstance(error, BackendLost):
            session.next_transaction = first  # a read that lost its server is run again
            session.refresh()
        await enlistment.undo(error)
        raise
    try:
        await enlistment.settle()
    except commit.OutcomeUnknown:
        client.abort()
        raise


async def _check_out(
    client: Client, shards: Sequence[int], replica: bool, first: Sequence[bytes] = ()
) -> list[BackendConnection]:
    """One connection a shard. first: SET TRANSACTION … for what runs there next; nobody else gets such a connection."""
    taken: list[BackendConnection] = []
    try:
        for shard in shards:
            taken.append(await single.checkout(client, shard, replica))
            if first:
                taken[-1].tainted = True
                await all_ok(taken[-1], first)
    except BaseException:
        for connection in taken:
            connection.pool.release(connection)
        raise
    return taken


async def _join(client: Client, plan: Plan, shards: Sequence[int], write: bool) -> _Joined:
    transaction.check_plan(plan)
    taken = []
    for shard in shards:
        transaction.check_pins(client, shard)
        taken.append(await single.take(client, plan, shard, False))
    if write:
        await asyncio.gather(*(all_ok(connection, (_SAVEPOINT,)) for connection in taken))
    return _Joined(client, shards, taken, write)


async def _begin_locking(client: Client, shards: Sequence[int], first: Sequence[bytes]) -> _Locking:
    """A transaction on each shard. first: SET TRANSACTION … for it."""
    taken = await _check_out(client, shards, False)
    try:
        await asyncio.gather(*(all_ok(connection, (*first, b"START TRANSACTION")) for connection in taken))
        if client.crossing:
            for shard, connection in zip(shards, taken, strict=True):
                await fence.take(client, connection, shard, set())
    except BaseException:
        for connection in taken:
            connection.close()
        raise
    return _Locking(shards, taken)


async def _begin(client: Client, shards: Sequence[int], first: Sequence[bytes]) -> _Alone:
    """A transaction of the statement's own, on connections that are taken in order and begun at once.

    first: SET TRANSACTION … for it.
    """
    profile = client.session.profile
    if len(shards) > 1:
        for shard in shards:
            await check_bookkeeping(client.gateway, shard, profile)
    taken = await _check_out(client, shards, False)
    own = Transaction(client.gateway, taken[0], shards[0])
    begin = [all_ok(taken[0], (*first, b"START TRANSACTION"))]
    begin += [own.begin(shard, connection, first, ()) for shard, connection in zip(shards[1:], taken[1:], strict=True)]
    enlistment = _Alone(shards, taken, own, first)
    try:
        await asyncio.gather(*begin)
        if client.crossing:
            await _take_fences(client, enlistment, own)
    except BaseException:
        for connection in taken:
            connection.close()
        raise
    return enlistment


async def _take_fences(client: Client, enlistment: _Alone, own: Transaction) -> None:
    """In order, as everything on several shards."""
    for shard, connection in zip(enlistment.shards, enlistment.connections, strict=True):
        if await fence.take(client, connection, shard, enlistment.fences):
            own.fenced.add(shard)
