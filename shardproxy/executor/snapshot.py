"""One snapshot of all shards: their snapshots open while no transaction over shards is between its commits.

    L  LOCK TABLES _shardproxy.xa_decision WRITE on every shard, on connections of the gate's own
    R  XA RECOVER on every shard, again until it lists no branch whose transaction has its commit row on its first shard
    S  the snapshots open, on the connections that will read
    U  UNLOCK TABLES on every shard, all of which must be answered OK

Why no transaction T over shards is seen in part. T commits on its first shard D at c(D), and on its other shards R at
c(R) > c(D); every R was prepared before c(D). In D's transaction a row is written into xa_decision (step 3 of
`executor.commit`), and the table's metadata lock is T's until that transaction has ended. So when L has the locks of
all shards, no T is between its row and c(D), and until U none gets there: its row waits.

    c(D) before L: at R, T is prepared or committed on all shards. A branch that is not listed is committed; one that
        is listed has its row on D, so R waits for it: the row is deleted only when all branches have committed. After
        R, T is committed everywhere, and every snapshot shows it.
    c(D) after U: all c(R) are later still, and no snapshot shows it.

The lock of a shard is gone when its connection is: that is why U counts. A server that hears nothing of the gate for
two seconds drops it (`wait_timeout`), so a proxy that has stopped holds nobody's commits for longer; the snapshots that
it has opened are void. A branch that stays (its coordinator died between c(D) and c(R)) is recovery's, which must write
to the table: so the gate steps back, and tries again.

A branch leaves XA RECOVER only after its rows are visible: measured on MariaDB 10.11 and MySQL 9.7, in 20,000 commits
no branch that was not listed was invisible to a snapshot that opened next.

What a commit pays is nothing, while nobody opens snapshots. All who want one at the same time share one hold, and holds
of a worker keep a distance, so that commits have their turn. Not held are commits on one shard. Of two of them on
different shards, within the milliseconds of S, a snapshot may show the later without the earlier one; but what came
before a transaction over shards that it shows, it shows too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.gateway import Gateway
from shardproxy.errors import BackendError, BackendLost, SessionError, SqlError, TransactionError
from shardproxy.executor import single
from shardproxy.executor.client import Client
from shardproxy.executor.transaction import Transaction, all_ok, check_bookkeeping
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import Profile, stateless
from shardproxy.session.xid import parse_branch, shard_named
from shardproxy.sql.session_text import access_mode

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds until who wants a snapshot is told that there is none
HELD = 1.0  # seconds that commits are held at most for the snapshots to open
LOCKING = 5.0  # seconds for the locks, each of which waits for one at most
DRAIN = 0.1  # seconds that commits are held for branches to end
LOOK_AGAIN = 0.002
STEP_BACK = 0.2  # seconds for recovery, and for whoever holds a lock, before another try
DISTANCE = 2  # so many times as long as it held commits, a worker lets them go on

_LOCK = (
    b"SET autocommit=1, lock_wait_timeout=1, wait_timeout=2",
    b"LOCK TABLES _shardproxy.xa_decision WRITE",
)
_UNLOCK = (b"UNLOCK TABLES", b"SET wait_timeout=600")
_LEVEL = b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
_START = b"START TRANSACTION WITH CONSISTENT SNAPSHOT"
_FIRST_READ = b"SELECT number FROM _shardproxy.migration LIMIT 1"  # in a branch, this opens the snapshot
_REFUSED = (1044, 1142)

Opening = Callable[[], Awaitable[None]]


class _NotNow(TransactionError):
    """Somebody is in the middle of a commit, and stays there. branch: the global part of its XA id, if it is known."""

    def __init__(self, message: str, branch: str = "") -> None:
        super().__init__(message)
        self.branch = branch


class Gate:
    """One a worker: holds the commits of all proxies while snapshots open."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: list[tuple[Opening, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._locks: dict[str, BackendConnection] = {}  # by server name

    async def through(self, profile: Profile, opening: Opening) -> None:
        """Run `opening` while commits are held. Raises SqlError, its own too; then what it opened is void."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((opening, done))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._serve(profile))
        await done

    async def _serve(self, profile: Profile) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            begun = loop.time()
            batch = [(opening, done) for opening, done in self._waiting if not done.done()]
            self._waiting = []
            try:
                outcomes = await self._hold_soon(profile, [opening for opening, _ in batch])
            except Exception as error:
                outcomes = [error if isinstance(error, SqlError) else TransactionError(str(error))] * len(batch)
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                if done.done():
                    continue  # its client has gone
                if outcome is None:
                    done.set_result(None)
                else:
                    done.set_exception(outcome)
            await asyncio.sleep(DISTANCE * min(loop.time() - begun, HELD))

    async def _hold_soon(self, profile: Profile, openings: Sequence[Opening]) -> list[Exception | None]:
        """How each of them went. Raises SqlError when commits could not be held."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                return await self._hold(profile, openings)
            except _NotNow as error:
                if loop.time() > until:
                    raise TransactionError(f"no snapshot of all shards within {PATIENCE:g} s: {error}") from None
                branch = error.branch
            while True:  # without holding anybody's commits
                await asyncio.sleep(STEP_BACK)
                if not branch or loop.time() > until or not await self._listed(profile, branch):
                    break

    async def _listed(self, profile: Profile, branch: str) -> bool:
        """Whether any shard still has a branch of this transaction. Raises SqlError."""
        answers = await _ask_all((await self._connections(profile)).values(), b"XA RECOVER")
        return any((data or b"").startswith(branch.encode()) for rows in answers for *_, data in rows)

    async def _hold(self, profile: Profile, openings: Sequence[Opening]) -> list[Exception | None]:
        locks = await self._connections(profile)
        try:
            async with asyncio.timeout(LOCKING):
                await self._lock(locks)
                await self._no_half(locks)
            async with asyncio.timeout(HELD):
                outcomes = await asyncio.gather(*(opening() for opening in openings), return_exceptions=True)
            await asyncio.gather(*(all_ok(connection, _UNLOCK) for connection in locks.values()))
        except BaseException as error:
            for connection in locks.values():
                connection.pool.abandon(connection)
            if isinstance(error, TimeoutError):
                raise TransactionError(
                    "the servers took too long to open snapshots of one instant; try again"
                ) from None
            if isinstance(error, BackendLost):
                raise TransactionError(f"snapshots of one instant could not be opened ({error}); try again") from None
            raise
        return [outcome if isinstance(outcome, Exception) else None for outcome in outcomes]

    async def _connections(self, profile: Profile) -> dict[str, BackendConnection]:
        """A connection of the gate's own to every primary, by shard, in the order in which all proxies lock. Raises
        SqlError."""
        found = {}
        for pools in sorted(self._gateway.shards, key=lambda pools: pools.name):
            name = pools.primary.server.name
            connection = self._locks.get(name)
            if connection is None or connection.closed or connection.pool is not pools.primary:
                connection = self._locks[name] = await pools.primary.beyond(stateless(profile.capabilities))
            found[pools.name] = connection
        return found

    async def _lock(self, locks: Mapping[str, BackendConnection]) -> None:
        """First one shard's, for which all who want them queue: who has it gets the others without a ring."""
        first, *others = locks.values()
        try:
            await all_ok(first, _LOCK)
            await asyncio.gather(*(all_ok(connection, _LOCK) for connection in others))
        except BackendError as error:
            if error.code in _REFUSED:
                raise TransactionError(
                    f"a snapshot of all shards needs GRANT LOCK TABLES ON _shardproxy.* TO backend.user: {error}"
                ) from None
            raise _NotNow(f"commits over shards cannot be held: {error}") from None

    async def _no_half(self, locks: Mapping[str, BackendConnection]) -> None:
        """Return when no branch of a committed transaction is left. Raises _NotNow when one stays."""
        loop = asyncio.get_running_loop()
        until = loop.time() + DRAIN
        undecided: set[str] = set()
        while True:
            listed: dict[str, set[str]] = {}
            for shard, rows in zip(locks, await _ask_all(locks.values(), b"XA RECOVER"), strict=True):
                for form, length, _, data in rows:
                    branch = parse_branch(int(form or 0), int(length or 0), (data or b"").decode("latin-1"))
                    if branch is None or branch.transaction.text in undecided:
                        continue
                    decider = shard_named(branch.transaction.shard, locks)
                    if decider is None:
                        raise _NotNow(f"a branch on {shard} is of a shard that is not in the configuration")
                    listed.setdefault(decider, set()).add(branch.transaction.text)
            if not listed:
                return
            for decider, xids in listed.items():
                committed = await _committed(locks[decider], xids)
                undecided |= xids - committed
                listed[decider] = committed
            left = [xid for xids in listed.values() for xid in xids]
            if not left:
                return
            if loop.time() > until:
                raise _NotNow(f"transaction {left[0]} is committed on its first shard, not yet on the others", left[0])
            await asyncio.sleep(LOOK_AGAIN)


async def _ask_all(connections: Iterable[BackendConnection], text: bytes) -> list[Sequence[Sequence[bytes | None]]]:
    return list(await asyncio.gather(*(_ask(connection, text) for connection in connections)))


async def _ask(connection: BackendConnection, text: bytes) -> Sequence[Sequence[bytes | None]]:
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    return parse_resultset(reply.data, connection.scanner.deprecate_eof).rows


async def _committed(connection: BackendConnection, xids: set[str]) -> set[str]:
    """Those of the transactions that have their commit row on this shard."""
    names = b", ".join(b"'%s'" % xid.encode() for xid in sorted(xids))
    rows = await _ask(
        connection, b"SELECT xid FROM _shardproxy.xa_decision WHERE outcome = 'commit' AND xid IN (%s)" % names
    )
    return {row[0].decode() for row in rows if row[0] is not None}


def _gate(gateway: Gateway) -> Gate:
    if gateway.gate is None:
        gateway.gate = Gate(gateway)
    gate: Gate = gateway.gate
    return gate


# ── who wants one ──


def check_session(client: Client) -> None:
    """Raise SessionError when the session cannot begin a transaction with a snapshot of all shards."""
    session = client.session
    if session.pins:
        why = ", ".join(reason.value for reason in session.pins)
        raise SessionError(f"the session is pinned to one shard ({why}): it cannot have a snapshot of all")


def check_statement(client: Client) -> None:
    """Raise SessionError for a statement with the hint in a transaction that began otherwise."""
    if client.session.simple or (client.spanning is not None and client.spanning.snapshot):
        return
    raise SessionError(
        "in a transaction the hint snapshot belongs to its begin: START TRANSACTION WITH CONSISTENT SNAPSHOT; with "
        "autocommit off, every statement is in one"
    )


async def read(client: Client, connections: list[BackendConnection]) -> list[BackendConnection]:
    """Begin transactions that only read, with snapshots of one instant. Closes the connections and raises SqlError when
    that fails."""

    async def opening() -> None:
        await asyncio.gather(*(all_ok(connection, (_START + b", READ ONLY",)) for connection in connections))

    try:
        await asyncio.gather(*(all_ok(connection, (_LEVEL,)) for connection in connections))
        await _gate(client.gateway).through(client.session.profile, opening)
    except BaseException:
        for connection in connections:
            connection.pool.abandon(connection)
        raise
    for connection in connections:
        connection.tainted = False  # whatever was set for the next transaction is used up
    return connections


async def begin(client: Client, sql: bytes, asked: Sequence[bytes]) -> None:
    """START TRANSACTION on all shards at once. asked: SET TRANSACTION … for it. Raises SqlError."""
    session, gateway = client.session, client.gateway
    session.begin = None
    session.next_transaction = ()
    session.refresh()
    if any(b"ISOLATION" in text.upper() and b"REPEATABLE" not in text.upper() for text in asked):
        raise SessionError("a snapshot is of a transaction with isolation level REPEATABLE READ")
    before = (*asked, *access_mode(sql, session.modes))
    taken: list[BackendConnection] = []
    try:
        for shard in range(len(gateway.shards)):
            if len(gateway.shards) > 1:
                await check_bookkeeping(gateway, shard, session.profile)
            taken.append(await single.checkout(client, shard, False))
        transaction = await _open(client, taken, before, b"CONSISTENT" in sql.upper() and not asked)
    except BaseException:
        for connection in taken:
            connection.pool.abandon(connection)
        raise
    session.opened = before
    session.savepoints = ()
    client.hold(taken[0], 0)
    for connection in taken[1:]:
        connection.holder = taken[0].holder
    if len(taken) > 1:
        client.spanning = transaction


async def _open(client: Client, taken: list[BackendConnection], before: Sequence[bytes], as_set: bool) -> Transaction:
    """as_set: by the level that the session has, which then must be REPEATABLE READ."""
    first, others = taken[0], taken[1:]
    if as_set:
        name = b"tx_isolation" if client.mariadb else b"transaction_isolation"
        [[level]] = await _ask(first, b"SELECT @@" + name + b" LIMIT 1")
        if level != b"REPEATABLE-READ":
            raise SessionError(f"a snapshot needs isolation level REPEATABLE READ, not {(level or b'').decode()}")
    transaction = Transaction(client.gateway, first, 0)
    transaction.snapshot = True
    set_up = (*before, _LEVEL)
    await asyncio.gather(
        all_ok(first, set_up),
        *(transaction.begin(shard, connection, set_up, ()) for shard, connection in enumerate(others, 1)),
    )

    async def opening() -> None:
        await asyncio.gather(
            all_ok(first, (_START,)), *(_ask(connection, _FIRST_READ) for connection in others)
        )  # fmt: skip

    if others:
        await _gate(client.gateway).through(client.session.profile, opening)
    else:
        await opening()
    return transaction
