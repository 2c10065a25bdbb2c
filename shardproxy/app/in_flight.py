"""What is in flight on a worker under older maps than the newest (R3): commands that were under way when it came.

Writes that wait for a map are not: they are planned anew under the next one. A transaction between two commands is not
either: its next command knows that it is older (executor.fence). Nor is a write of keys that stay, from the map on in
which the move was armed up to the switch: no map of these has its rows elsewhere, or has it wait. Such a write may wait
for a row's lock for long, and others would be held that long.

Reads under the map before a switch must not keep it waiting, for writes are held: those that last are run again under
the new map, or ended with an error that asks the client to do so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.pool import DROPPED
from shardproxy.executor.fence import read_moved
from shardproxy.frontend.mysql.connection import ClientConnection
from shardproxy.frontend.mysql.front import Front
from shardproxy.planner.plan import Opcode, Plan, Spread, StatementKind
from shardproxy.topology.model import Keyspace, Snapshot
from shardproxy.topology.moves import Phase

LOOK = 0.001  # seconds between two looks, while something is left
READS = 0.05  # seconds that reads may go on when a map gives keys another owner
PATIENCE = 0.5  # seconds more until a client goes whose read does not end although its server was told

Cut = Mapping[str, Sequence[int] | None]  # server → see Pool.take_cut
_WRITES = frozenset((StatementKind.INSERT, StatementKind.REPLACE, StatementKind.UPDATE, StatementKind.DELETE))
_Commands = dict[ClientConnection, float]  # → `started`, which no two commands of a client share


def gives_away(before: Snapshot, after: Snapshot) -> bool:
    """Whether a new map has keys go to another owner."""
    for name, keyspace in after.keyspaces.items():
        move = keyspace.move
        if move is not None and move.phase is Phase.SWITCHED:
            earlier = before.keyspaces[name].move if name in before.keyspaces else None
            if earlier is None or earlier.phase is not Phase.SWITCHED:
                return True
    return False


def nowhere(plan: Plan) -> bool:
    """Whether no map says where the statement runs: a SELECT without tables (SLEEP, GET_LOCK)."""
    return plan.kind is StatementKind.SELECT and plan.opcode is Opcode.NONE and plan.shard_hint is None


def stays(client: ClientConnection, after: Snapshot) -> bool:
    """Whether the command under way writes rows whose keys have one owner in its map, in this one, and in all between.

    It was planned while the fence that still counts was armed, so whatever may touch moving keys was known by then
    (executor.moving). Before that nobody looks: such a write is waited for before the move is armed.
    """
    entry = client.entry
    if entry is None or client.touching == client.started:
        return False
    plan = entry.plan
    if plan.read or plan.kind not in _WRITES or not plan.groups or plan.shard_hint is not None:
        return False
    if plan.spread is Spread.SCRATCH or plan.subqueries is not None or plan.lookups or plan.entries is not None:
        return False  # where it reads, or what it changes beside its rows, is seen only when it runs
    return all(_same_fence(group.keyspace, after.keyspaces.get(group.keyspace.name)) for group in plan.groups)


def _same_fence(before: Keyspace, after: Keyspace | None) -> bool:
    if after is None or before.move is None or after.move is None:
        return False
    return before.move.guarded and after.move.same_fence(before.move)


def leave(connection: BackendConnection, client: ClientConnection) -> None:
    """The client does not wait for this connection's answer any more."""
    if connection.shared:
        for i, sink in enumerate(connection.sinks):
            if sink is client:
                connection.sinks[i] = DROPPED
    else:
        connection.pool.abandon(connection)


class InFlight:
    """answer(number, cut): nothing older than this map is in flight, but for what went on on `cut`."""

    def __init__(self, front: Front, answer: Callable[[int, Cut], None]) -> None:
        self._front = front
        self._answer = answer
        self._left: dict[int, _Commands] = {}  # map → commands older than it
        self._switches: dict[int, float] = {}  # map that gives keys another owner → when older reads are ended
        self._told: dict[ClientConnection, tuple[float, float]] = {}  # → command whose server was told, and when
        self._timer: asyncio.TimerHandle | None = None

    def adopted(self, number: int, after: Snapshot, switches: bool) -> None:
        """The worker has just taken this map. switches: it gives keys another owner, so that reads must not go on."""
        self._left[number] = {
            client: client.started
            for client in self._front.clients.values()
            if client.busy and client.waiting is None and not stays(client, after)
        }
        if switches:
            self._switches[number] = monotonic() + READS
        self._look()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reached = 0
        now = monotonic()
        due = max((number for number, at in self._switches.items() if at < now), default=0)
        for number, commands in self._left.items():  # in the order of the maps
            late = number <= due  # what is older than an earlier map is older than the switch too
            for client, started in list(commands.items()):
                if self._over(client, started) or (late and self._end_read(client)):
                    del commands[client]
            if commands:
                break
            reached = number
        for number in [n for n in self._left if n <= reached]:
            del self._left[number]
            self._switches.pop(number, None)
        if not self._left:
            self._told.clear()
        if reached:
            self._answer(reached, self._cut())
        if self._left:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _over(self, client: ClientConnection, started: float) -> bool:
        if not client.busy or client.started != started or client.waiting is not None:
            return True
        if client.entry is not None and nowhere(client.entry.plan):  # not known as long as it is being planned
            return True
        return self._front.clients.get(client.session.ident) is not client

    def _end_read(self, client: ClientConnection) -> bool:
        """End the read under way. True: it is over, or runs anew under the newest map."""
        entry, source = client.entry, client.source
        if entry is None or not entry.plan.read:
            return False
        told = self._told.get(client)
        if told is not None and told[0] == client.started:
            if monotonic() - told[1] > PATIENCE:
                client.abort()
            return False
        if source is not None and not client.relayed:
            if client.redo():
                leave(source, client)
                return True
            if client.spanning is None and not client.session.pins:
                client.source = None
                if source is client.held:
                    client.forget_held()
                leave(source, client)
                client.error(read_moved())
                return True
        self._told[client] = (client.started, monotonic())
        client.read_ended = client.started
        for connection in (source, *client.working):
            if connection is not None and not connection.closed and not connection.shared:
                connection.pool.kill(connection, True)
        return False

    def _cut(self) -> Cut:
        found = {}
        for name, pool in self._front.gateway.pools.items():
            if pool.cut:
                found[name] = pool.take_cut()
        return found
