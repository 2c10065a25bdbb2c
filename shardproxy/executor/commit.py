"""The last-resource commit of a transaction on several shards: the ten steps that were model-checked, by number.

    1  plain BEGIN on the first shard D, XA START on the others
    2  XA END, XA PREPARE on all others; all must answer OK, else 7 (on a shard from which keys move away the branch's
       row of fence_slot is changed before: see executor.fence)
    3  INSERT of the decision row in D's transaction, and its answer read; any error: 7
    4  COMMIT on D, sent only now. OK: 5; no answer, or an error: 6
    5  XA COMMIT on the others. One that fails is closed, never reset or pooled; recovery ends it
    6  the look-up (8) before the client hears anything
    7  never committed: D is rolled back, then the branches
    8  look-up: an abort row under the same key. It collides with the decision row, or stands for good
    9, 10  recovery and the deletion of old rows: `admin.recovery`

Branches that have written nothing are not prepared. They keep their locks until D has committed, and end then: as on
one server, nobody gets a lock of a transaction whose writes are not visible yet. Those in which a read has locked rows
must be there still: XA END, at step 2, fails where a branch is gone, and with it what the client decided by those rows,
so nothing is committed. When no branch has written, D's COMMIT
alone decides and there is no row: a branch without writes may end either way. Whether D has written is not known
(one-shard transactions are not watched); it counts as if it had.

Between D's COMMIT and the last XA COMMIT other sessions may see a part of the transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from shardproxy.backend.connection import BackendConnection, Reply, Sink
from shardproxy.backend.decisions import Asked, decision_text, delete_text, look_up
from shardproxy.backend.gateway import Gateway
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendLost, SqlError, TransactionError
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import stateless

if TYPE_CHECKING:
    from shardproxy.executor.transaction import Branch, Transaction

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds that a client waits for the look-up when the answer to D's COMMIT is lost
_DUPLICATE = 1062
DEADLOCKS = frozenset((1213, 1402, 1613, 1614))

# Called with the number of each step before it is taken; tests that kill something just there put theirs here.
at_step: Callable[[Transaction, int], Awaitable[None]] | None = None


class OutcomeUnknown(TransactionError):
    """D did not answer in time: nobody may claim anything."""

    code = 9121


class Drain(Sink):
    """A sink that throws an answer away and tells when it is whole."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        if not self.future.done():
            self.future.set_exception(error)


NOWHERE = Sink()
IN_TRANS_READONLY = 0x2000  # server status: no participant can have written


async def commit(transaction: Transaction) -> None:
    """COMMIT. Takes the transaction's connections over; they are in their pools or closed when it returns.

    Raises SqlError when nothing was committed, OutcomeUnknown when nobody knows.
    """
    transaction.ending = True
    first = transaction.first
    branches = list(transaction.branches.values())
    read_only = bool(first.scanner.status & IN_TRANS_READONLY)
    writers = [branch for branch in branches if branch.wrote and not read_only]
    readers = [branch for branch in branches if branch not in writers]
    if writers or any(branch.locked for branch in readers):
        await _prepare(transaction, writers, readers)
    if writers:
        await _decide(transaction, writers, readers)
    await _step(transaction, 4)
    sent = asyncio.get_running_loop().time()
    try:
        reply = await first.query(b"COMMIT")
        problem = SqlError(reply.error_message, reply.error_code, reply.sqlstate) if reply.failed else None
    except BackendLost as lost:
        problem = lost
    if problem is not None:
        first.close()  # an open transaction must not stay, and what a failed COMMIT leaves is not known
        if not writers:
            await _undo(readers)
            raise problem
        await _uncertain(transaction, sent, problem, branches)
    await _step(transaction, 5)
    done = await asyncio.gather(
        *(_commit_branch(branch) for branch in writers), *(_end_reader(branch) for branch in readers)
    )
    if not first.closed:
        first.pool.give_back(first, True)
    transaction.gateway.commits += bool(writers)
    if writers and all(done):
        ended = transaction.gateway.ended
        ended.setdefault(transaction.first_shard, (first.profile, []))[1].append(transaction.ident.text)


async def forget_decisions(gateway: Gateway) -> None:
    """Delete the rows of transactions that are committed on all shards and answered. One that cannot be now is left to
    recovery."""
    ended, gateway.ended = gateway.ended, {}
    for shard, (profile, idents) in ended.items():
        pool = gateway.shards[shard].primary
        deletes = [delete_text(idents[i : i + _AT_ONCE]).encode() for i in range(0, len(idents), _AT_ONCE)]
        try:
            connection = await pool.checkout(profile)
            await checked_in(connection, (b"START TRANSACTION READ WRITE", *deletes, b"COMMIT"))
        except SqlError as error:
            log.warning("decision rows are left to recovery: %s", error)


_AT_ONCE = 500


async def _step(transaction: Transaction, number: int) -> None:
    if at_step is not None:
        await at_step(transaction, number)


async def _prepare(transaction: Transaction, writers: list[Branch], readers: list[Branch]) -> None:
    """Step 2."""
    await _step(transaction, 2)
    outcomes = await asyncio.gather(
        *(
            _run_branch(branch, *_fence_slot(transaction, branch), *_named(branch, b"XA END ", b"XA PREPARE "))
            for branch in writers
        ),
        *(_run_branch(branch, *_named(branch, b"XA END ")) for branch in readers if branch.locked),
    )
    error = next((outcome for outcome in outcomes if outcome is not None), None)
    if error is not None:
        await _abort(transaction, [*writers, *readers])
        raise _rolled_back(error)


def _named(branch: Branch, *verbs: bytes) -> list[bytes]:
    return [verb + branch.name for verb in verbs]


def _fence_slot(transaction: Transaction, branch: Branch) -> list[bytes]:
    """Where keys move away from the branch's shard: a change of its connection's own row. A prepared branch gives the
    shared lock of the fence back, but keeps this one, and whoever closes the fence waits for it."""
    if branch.shard not in transaction.fenced:
        return []
    ident = transaction.ident.coordinator.encode(), branch.connection.server_thread & 0xFFFFFFFF
    return [
        b"INSERT INTO _shardproxy.fence_slot (proxy, slot, branches) VALUES ('%s', %d, 1) "
        b"ON DUPLICATE KEY UPDATE branches = branches + 1" % ident
    ]


async def _run_branch(branch: Branch, *texts: bytes) -> SqlError | None:
    try:
        replies = await branch.connection.queries(texts)
    except BackendLost as error:
        return error
    failed = next((reply for reply in replies if reply.failed), None)
    return None if failed is None else SqlError(failed.error_message, failed.error_code, failed.sqlstate)


async def _decide(transaction: Transaction, writers: list[Branch], readers: list[Branch]) -> None:
    """Step 3."""
    await _step(transaction, 3)
    ident = transaction.ident
    text = decision_text(f"'{ident.text}'", "commit", ident.coordinator, ident.coordinator)
    error: SqlError
    try:
        reply = await transaction.first.query(text)
    except BackendLost as lost:
        error = lost
    else:
        if not reply.failed:
            return
        error = SqlError(reply.error_message, reply.error_code, reply.sqlstate)
    await _abort(transaction, [*writers, *readers])
    raise _rolled_back(error)


def _rolled_back(error: SqlError) -> SqlError:
    """What the client is told: a deadlock as a deadlock, a decision row that was there already as what it means (by its
    number the client would take it for a key of its own), everything else by its own number."""
    if error.code in DEADLOCKS:
        return SqlError("Deadlock found when trying to get lock; try restarting transaction", 1213, "40001")
    if error.code == _DUPLICATE:
        return SqlError(
            "the transaction took so long to commit that it was taken for lost, and has been rolled back on all its "
            "shards: run it again", 1213, "40001",
        )  # fmt: skip
    return SqlError(f"{error}; the transaction has been rolled back on all its shards", error.code, error.sqlstate)


async def _abort(transaction: Transaction, branches: list[Branch]) -> None:
    """Step 7: COMMIT was never sent on D."""
    await _step(transaction, 7)
    await _roll_back_plain(transaction.first)
    await _undo(branches)


async def _uncertain(transaction: Transaction, sent: float, error: SqlError, branches: list[Branch]) -> None:
    """Step 6. Returns when D has committed; raises when it has not, or when nobody knows.

    What the look-up finds counts only while the answer is young: after an hour others may have deleted the row.
    """
    await _step(transaction, 6)
    pool = transaction.first.pool
    loop = asyncio.get_running_loop()
    transaction.first.close()
    committed: bool | None = None
    while committed is None and loop.time() - sent < PATIENCE:
        try:
            async with asyncio.timeout(PATIENCE - (loop.time() - sent)):
                committed = await ask_decision(pool, transaction)
        except (SqlError, TimeoutError) as problem:
            log.warning("the outcome of %s is not known yet: %s", transaction.ident.text, problem)
            await asyncio.sleep(0.1)
    if committed is None or loop.time() - sent > 2 * PATIENCE:
        for branch in branches:
            branch.connection.close()
        raise OutcomeUnknown(
            f"no answer to COMMIT, and shard {pool.server.shard} cannot be asked ({error}): the transaction is "
            "committed on all its shards or on none, as recovery will find"
        )
    if not committed:
        await _undo(branches)
        raise _rolled_back(error)


async def ask_decision(pool: Pool, transaction: Transaction) -> bool:
    """Step 8, on a connection of its own, which has nothing of the session's state. Raises SqlError."""
    connection = await pool.beyond(stateless(transaction.first.profile.capabilities))
    ident = transaction.ident

    async def ask(text: str) -> Asked:
        reply = await connection.query(text)
        return _asked(reply, connection)

    try:
        return await look_up(ask, ident, ident.coordinator)
    finally:
        connection.close()


def _asked(reply: Reply, connection: BackendConnection) -> Asked:
    if reply.failed:
        raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
    if reply.data[4] == 0:
        return []
    rows = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows
    return [tuple("" if value is None else value.decode() for value in row) for row in rows]


async def _commit_branch(branch: Branch) -> bool:
    """XA COMMIT of a prepared branch. False: recovery will do it."""
    connection = branch.connection
    try:
        reply = await connection.query(b"XA COMMIT " + branch.name)
    except BackendLost:
        return False
    if reply.failed:
        log.warning("XA COMMIT on %s is left to recovery: %s", connection.pool.server.name, reply.error_message)
        connection.close()
        return False
    connection.pool.give_back(connection, True)
    return True


async def _end_reader(branch: Branch) -> bool:
    connection = branch.connection
    await checked_in(connection, (b"XA END " + branch.name, b"XA COMMIT " + branch.name + b" ONE PHASE"))
    return True


async def _undo(branches: Sequence[Branch]) -> None:
    await asyncio.gather(*(undo_branch(branch.name, branch.connection) for branch in branches))


async def undo_branch(name: bytes, connection: BackendConnection) -> None:
    """Roll back a branch, prepared or not. Where that fails its connection is closed: the server rolls back what is
    not prepared, and recovery what is."""
    if connection.closed:
        return
    if connection.sinks:
        connection.pool.abandon(connection)
        return
    await checked_in(connection, (b"XA END " + name, b"XA ROLLBACK " + name))


async def checked_in(connection: BackendConnection, texts: Sequence[bytes]) -> None:
    """Run the texts; when the last has succeeded the connection is free, else it is closed. (XA END fails for a branch
    that is prepared or was rolled back by the server.)"""
    try:
        replies = await connection.queries(texts)
    except BackendLost:
        return
    if replies[-1].failed:
        connection.close()
    else:
        connection.pool.give_back(connection, True)


async def _roll_back_plain(connection: BackendConnection) -> None:
    if connection.closed:
        return
    if connection.sinks:
        connection.pool.abandon(connection)
        return
    await checked_in(connection, (b"ROLLBACK",))


async def roll_back(transaction: Transaction) -> None:
    """ROLLBACK on all shards."""
    transaction.ending = True
    await asyncio.gather(_roll_back_plain(transaction.first), _undo(list(transaction.branches.values())))
