"""The fence of a move: what makes sure that no write to moving keys commits on a shard that has given them away.

From ARMED on a transaction that writes (or locks) moving keys reads the fence's row on the shard that gives them away,
with a shared lock, before it does so. Only after the answer was read, and was exactly the epoch of the statement's map,
may COMMIT or XA PREPARE be sent. The orchestrator closes the fence by raising the epoch, which waits for all who hold
the lock; who comes later reads another epoch and is rolled back. So it does not matter how old the map of a proxy is,
nor how long it has been stopped.

A transaction that began under an older map, without the fence, catches up at its next statement that is no plain read,
at the latest before COMMIT: on each shard from which keys move and where it may have written. When the fence is closing
or closed by then, it is rolled back. Rules R5 and R6 of the model-checked protocol (docs/resharding.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendError, BackendLost, MovingError, SqlError
from shardproxy.executor import transaction
from shardproxy.executor.client import Client
from shardproxy.executor.commit import IN_TRANS_READONLY
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.response import IN_TRANS
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.router.moving import Touch, givers, may_have_moved
from shardproxy.router.route import ValueReader
from shardproxy.topology.moves import Move, Phase

Taken = set[tuple[int, int, int]]  # shard, move, epoch


class Mode(Enum):
    """ON, but for tests that show what the others do."""

    ON = "on"
    BLIND = "blind"  # COMMIT is sent before the fence's answer is read
    OFF = "off"


mode = Mode.ON  # tests that show what happens without put another here

# LIMIT: a session's sql_select_limit does not count then. One that is not there is "no".
_READ = b"SELECT epoch FROM _shardproxy.fence WHERE move_id = %d LIMIT 1 LOCK IN SHARE MODE"
_NO_TABLE = frozenset((1044, 1049, 1142, 1143, 1146))
# They end nothing, and what they would tell of the last statement must stay.
_QUIET = frozenset((
    StatementKind.ROLLBACK, StatementKind.SAVEPOINT, StatementKind.SHOW_WARNINGS, StatementKind.KILL,
    StatementKind.EMPTY, StatementKind.SHOW, StatementKind.DESCRIBE, StatementKind.EXPLAIN,
    StatementKind.EXPLAIN_ROUTE,
))  # fmt: skip


class FenceClosedError(MovingError):
    """The fence's row has another epoch. early: the fence is not armed yet, so that it may be worth a second look soon;
    else a newer map is on its way."""

    def __init__(self, keyspace: str, move: Move, early: bool) -> None:
        super().__init__(f"writes to {moving_keys(keyspace, move)} are not possible now: try again")
        self.keyspace = keyspace
        self.move = move
        self.early = early


class FenceUnreadError(BackendError):
    """The fence's row could not be read (a time-out, a deadlock, a missing right)."""


def moving_keys(keyspace: str, move: Move) -> str:
    """For messages."""
    return f"keys of keyspace '{keyspace}' that move to another shard (move {move.ident}, {move.phase.value})"


def retriable(keyspace: str, move: Move | None = None) -> SqlError:
    """What a client is told whose transaction was rolled back: to run it again, as after a deadlock."""
    keys = f"keys of keyspace '{keyspace}' have moved to another shard" if move is None else moving_keys(keyspace, move)
    return SqlError(f"{keys}: the transaction is older and has been rolled back; run it again", 1213, "40001")


def read_moved() -> SqlError:
    """What a client is told whose read would keep a switch waiting."""
    return SqlError("keys that it may read have moved to another shard meanwhile: run it again", 1213, "40001")


async def take(client: Client, connection: BackendConnection, shard: int, taken: Taken) -> bool:
    """Take the fences on a shard that the statement under way needs, in the transaction on this connection, unless it
    has them. False: there are none.

    Raises FenceClosedError and FenceUnreadError; the transaction must be rolled back then.
    """
    wanted = [touch for touch in client.crossing if shard in touch.sources]
    await _read(connection, shard, [(touch.keyspace, touch.move) for touch in wanted], taken)
    return bool(wanted) and mode is not Mode.OFF


async def take_held(client: Client, connection: BackendConnection, shard: int) -> None:
    """As take, in the session's transaction. Where one ends on a pinned connection is not watched: there the fence is
    taken each time."""
    if client.session.pins:
        client.session.fences.clear()
    if await take(client, connection, shard, client.session.fences) and client.spanning is not None:
        client.spanning.fenced.add(shard)


def texts(touches: Sequence[Touch], shard: int) -> list[tuple[str, Move, bytes]]:
    """The reads that a transaction on a shard needs, for who sends them together with BEGIN."""
    if mode is Mode.OFF:
        return []
    return [(t.keyspace, t.move, _READ % t.move.ident) for t in touches if shard in t.sources]


async def _read(connection: BackendConnection, shard: int, moves: Sequence[tuple[str, Move]], taken: Taken) -> None:
    for keyspace, move in moves:
        ident = (shard, move.ident, move.epoch)
        if ident in taken or mode is Mode.OFF:
            continue
        text = _READ % move.ident
        if mode is Mode.BLIND:
            connection.send(packet(b"\x03" + text, 0), Sink())
        else:
            reply = await connection.query(text)
            if reply.failed:
                raise unreadable(reply.error_message, reply.error_code, reply.sqlstate)
            check(keyspace, move, parse_resultset(reply.data, connection.scanner.deprecate_eof).rows)
        taken.add(ident)


def unreadable(message: str, code: int, sqlstate: str) -> FenceUnreadError:
    """The error of a fence whose row could not be read."""
    if code in _NO_TABLE:
        message = f"while keys move, the proxy's account must be able to read _shardproxy.fence: {message}"
    return FenceUnreadError(message, code, sqlstate)


def check(keyspace: str, move: Move, rows: Sequence[Sequence[bytes | None]]) -> None:
    """Raise FenceClosedError unless these rows of the fence have exactly the map's epoch."""
    found = int(rows[0][0] or 0) if rows else -1
    if found != move.epoch:
        raise FenceClosedError(keyspace, move, found < move.epoch)


def goes_on(client: Client, touch: Touch) -> bool:
    """Whether the session's transaction may go on while the fence is being closed: it has it on every shard that the
    statement may need it on. On a pinned connection the fence's row will tell."""
    move = touch.move
    if move.phase is not Phase.CLOSING:
        return False
    return bool(client.session.pins) or all(
        (shard, move.ident, move.epoch) in client.session.fences for shard in touch.sources
    )


async def roll_back(client: Client) -> None:
    """ROLLBACK of the session's transaction, whose connection a pin may keep. Raises BackendLost."""
    client.gateway.held_writes.refused += 1
    held = client.held
    if held is None or not client.session.pins:
        await transaction.roll_back_all(client)
        return
    reply = await held.query(b"ROLLBACK")
    if reply.failed:
        held.close()
        raise BackendLost(reply.error_message)
    client.session.catch_up(client.map)


# ── transactions that are older than the newest map ──


def behind(client: Client, plan: Plan) -> bool:
    """Whether the session's transaction, which is older than the newest map, must catch up before this statement."""
    session, held = client.session, client.held
    if held is None:
        return False
    if client.spanning is None and not held.scanner.status & IN_TRANS:
        session.catch_up(client.map)  # no transaction: only a pin
        return False
    if mode is Mode.OFF or plan.read or plan.local or plan.kind in _QUIET:
        return False
    return any(True for _ in _owed(client))


class _BehindError(Exception):
    def __init__(self, keyspace: str, move: Move | None) -> None:
        super().__init__(keyspace)
        self.keyspace = keyspace
        self.move = move


async def catch_up(client: Client) -> None:
    """Take the fences that the session's transaction does not have yet. Raises SqlError; it is rolled back then."""
    try:
        for shard, connection, keyspace, move in list(_owed(client)):
            if move is None or not (move.fenced or (client.session.pins and move.phase is Phase.CLOSING)):
                raise _BehindError(keyspace, move)
            await _read(connection, shard, ((keyspace, move),), client.session.fences)
            if client.spanning is not None:
                client.spanning.fenced.add(shard)
    except _BehindError as late:
        await roll_back(client)
        raise retriable(late.keyspace, late.move) from None
    except FenceClosedError as closed:
        await roll_back(client)
        raise retriable(closed.keyspace, closed.move) from None
    except FenceUnreadError:
        await roll_back(client)
        raise
    client.session.fenced_under = client.map


def _owed(client: Client) -> Iterator[tuple[int, BackendConnection, str, Move | None]]:
    """Where the transaction may have written keys that move, or have moved, without a fence: shard, its connection
    there, keyspace, and the move if there is one still."""
    before = client.session.fenced_under
    assert before is not None
    for name, keyspace in client.map.keyspaces.items():
        old, move = before.keyspaces.get(name), keyspace.move
        if old is None:
            continue
        if move is not None and old.move is not None and old.move.guarded and move.same_fence(old.move):
            continue  # all of its writes to moving keys have taken the fence
        if move is not None and move.guarded:
            shards = move.sources
        else:
            shards, move = givers(old, keyspace), None
        for shard, connection in _written(client):
            if shard in shards:
                yield shard, connection, name, move


def _written(client: Client) -> Iterator[tuple[int, BackendConnection]]:
    """Shards where the session's transaction may have written or locked rows."""
    held, spanning = client.held, client.spanning
    assert held is not None
    if held.scanner.status & IN_TRANS_READONLY:
        return
    yield client.session.shard, held
    if spanning is not None:
        for shard, branch in spanning.branches.items():
            if branch.wrote or branch.locked:
                yield shard, branch.connection


def outdated(client: Client, plan: Plan, read: ValueReader) -> str:
    """The keyspace, if there is one, whose keys the statement may touch and that have another owner than when the
    session's transaction began: its snapshots are older than the move."""
    begun = client.session.begun
    if begun is None or client.held is None or begun is client.map:
        return ""
    if client.spanning is None and not client.held.scanner.status & IN_TRANS:
        return ""
    return may_have_moved(plan, read, begun)


async def refuse(client: Client, keyspace: str) -> None:
    """A statement of `outdated`: the transaction is rolled back. Raises SqlError."""
    await roll_back(client)
    raise retriable(keyspace)
