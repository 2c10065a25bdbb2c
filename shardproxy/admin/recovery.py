"""Recovery of transactions over several shards: steps 8 to 10 of the protocol in `executor.commit`, by whoever watches.

A prepared branch outlives its proxy, its connection and its server. Each round lists the branches of every primary;
one that has been there for longer than its coordinator may need is decided by a look-up on its deciding shard and then
ended accordingly. Any number of processes may do this at the same time, beside living coordinators: the look-up
decides once and for all. Patience is only there so that coordinators at work are not disturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from time import monotonic, time

from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.backend.decisions import Ask, Asked, kill_thread, look_up
from shardproxy.backend.engine_hold import held_transactions
from shardproxy.errors import SqlError
from shardproxy.session.xid import BranchId, parse_branch, parse_transaction, shard_named
from shardproxy.topology.model import Shard, Snapshot

KEPT = 3600  # seconds that decision rows are kept at least, for a coordinator that is slow to ask
_UNKNOWN_XID, _BUSY_XID = 1397, 1399
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Found:
    """A prepared branch on the primary of a shard."""

    shard: str
    branch: BranchId


@dataclass(frozen=True, slots=True)
class Ended:
    """A branch that recovery has ended, and how; or could not end, and why."""

    found: Found
    committed: bool | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of xa_decision on the deciding shard."""

    shard: str
    xid: str
    outcome: str
    coordinator: str
    decided_by: str
    age: float


class Recovery:
    """identity: who decides, for the rows; seconds: limit for connecting and for each statement.

    interval: seconds between rounds. A branch is left alone for `interval` × 2.5; for twice that when its coordinator
    is among `living()`; not at all when it is among `dead`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        credentials: Credentials,
        seconds: float,
        identity: str,
        interval: float,
        living: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self.snapshot = snapshot
        self.dead: set[str] = set()
        self.listed = 0  # branches seen in the last round
        self._credentials = credentials
        self._seconds = seconds
        self._identity = identity
        self._interval = interval
        self._living = living
        self._connections: dict[str, ControlConnection] = {}
        self._seen: dict[Found, float] = {}  # since when, by our clock
        self._held: dict[str, dict[int, str]] = {}  # shard → what its engine holds, as seen in this round

    async def close(self) -> None:
        for connection in self._connections.values():
            connection.abort()
        self._connections.clear()

    # ── looking ──

    async def branches(self) -> tuple[list[Found], dict[str, str]]:
        """Prepared branches of ours on all primaries, and why some shards could not be asked."""
        answers = await asyncio.gather(*(self._list(shard) for shard in self.snapshot.shards))
        found: list[Found] = []
        errors: dict[str, str] = {}
        for shard, answer in zip(self.snapshot.shards, answers, strict=True):
            if isinstance(answer, str):
                errors[shard.name] = answer
            else:
                found.extend(answer)
        return found, errors

    async def _list(self, shard: Shard) -> list[Found] | str:
        try:
            rows = await (await self._connection(shard)).query("XA RECOVER")
        except SqlError as error:
            return str(error)
        listed = []
        for row in rows:
            branch = parse_branch(int(row["formatid"]), int(row["gtrid_length"]), text(row["data"]) or "")
            if branch is not None:
                listed.append(Found(shard.name, branch))
        return listed

    async def decisions(self, most: int = 1000) -> list[Decision]:
        """Rows of xa_decision on all primaries, oldest first. Raises SqlError."""
        found = []
        for shard in self.snapshot.shards:
            rows = await (await self._connection(shard)).query(
                "SELECT xid, outcome, coordinator, decided_by, TIMESTAMPDIFF(SECOND, decided_at, NOW()) AS age "
                "FROM _shardproxy.xa_decision ORDER BY decided_at LIMIT %s",
                (most,),
            )
            found += [
                Decision(
                    shard.name, text(row["xid"]) or "", text(row["outcome"]) or "", text(row["coordinator"]) or "",
                    text(row["decided_by"]) or "", float(row["age"]),
                )
                for row in rows
            ]  # fmt: skip
        return found

    # ── ending ──

    async def round(self, patient: bool = True) -> tuple[list[Ended], dict[str, str]]:
        """List, and end what is due (all of it when not `patient`); and why some shards could not be asked."""
        found, errors = await self.branches()
        now = monotonic()
        self.listed = len(found)
        self._seen = {branch: self._seen.get(branch, now) for branch in found}
        due = [branch for branch in found if not patient or now - self._seen[branch] >= self._patience(branch)]
        self._held.clear()
        return [await self._end(branch) for branch in due], errors

    def _patience(self, found: Found) -> float:
        coordinator = found.branch.transaction.coordinator
        if coordinator in self.dead:
            return 0.0
        return self._interval * (5.0 if coordinator in self._living() else 2.5)

    async def _end(self, found: Found) -> Ended:
        ident = found.branch.transaction
        committed: bool | None = None
        name = shard_named(ident.shard, [shard.name for shard in self.snapshot.shards])
        if name is None:
            return Ended(found, None, f"its deciding shard {ident.shard} is not in the configuration")
        try:
            committed = await look_up(self._ask(await self._connection(self._shard(name))), ident, self._identity)
            await self._finish(found, committed)
        except SqlError as error:
            return Ended(found, committed, str(error))
        return Ended(found, committed)

    async def _finish(self, found: Found, committed: bool) -> None:
        """XA COMMIT or XA ROLLBACK. A branch that answers "unknown" is done only when it is not listed any more: on
        MariaDB one that is attached to a living connection says so too."""
        shard = self._shard(found.shard)
        verb = "COMMIT" if committed else "ROLLBACK"
        if (await self._connection(shard)).is_mariadb:
            await self._let_go(shard, found.branch)
        for _ in range(_TRIES):
            connection = await self._connection(shard)
            try:
                await connection.query(f"XA {verb} {found.branch.sql}")
            except SqlError as error:
                if error.code not in (_UNKNOWN_XID, _BUSY_XID):
                    raise
            else:
                return
            listed = await self._list(shard)
            if isinstance(listed, str):
                raise SqlError(listed)
            if found not in listed:
                return
            await kill_thread(self._ask(connection), found.branch.thread, found.branch.transaction.born)
            await asyncio.sleep(0.05)
        raise SqlError(f"XA {verb} is refused although the branch is listed")

    async def _let_go(self, shard: Shard, branch: BranchId) -> None:
        """Wait until MariaDB's engine holds the branch for no connection (`backend.engine_hold`); end that connection.

        One look serves all branches of a round, for what is free stays free. After the server has started again
        another connection may have the number: its transaction is waited for, and it is not ended.
        """
        first: str | None = None
        for _ in range(_TRIES):
            connection = await self._connection(shard)
            if shard.name not in self._held:
                self._held[shard.name] = await held_transactions(connection)
            held = self._held[shard.name].get(branch.thread)
            if held is None or (first is not None and held != first):
                return
            first = held
            await kill_thread(self._ask(connection), branch.thread, branch.transaction.born)
            del self._held[shard.name]
            await asyncio.sleep(0.05)
        raise SqlError(f"{shard.name}: connection {branch.thread} holds the branch and does not end")

    # ── deleting old rows ──

    async def clean(self) -> int:
        """Step 10: delete rows of commit and abort that nobody can need any more; how many.

        A row goes when it is an hour old, its coordinator is none of our living workers, the connection to D that its
        id names is gone (so that no COMMIT of it can be under way), and every shard is up and lists no branch of it. A
        coordinator itself trusts a look-up for a minute at most. Raises SqlError.
        """
        found, errors = await self.branches()
        if errors:
            return 0
        listed = {branch.branch.transaction.text for branch in found}
        living = set(self._living())
        deleted = 0
        for decision in await self.decisions():
            if decision.age < KEPT or decision.coordinator in living or decision.xid in listed:
                continue
            connection = await self._connection(self._shard(decision.shard))
            if await _connected(connection, decision.xid):
                continue
            deleted += await connection.execute(
                "DELETE FROM _shardproxy.xa_decision WHERE xid = %s AND outcome = %s", (decision.xid, decision.outcome)
            )
        return deleted

    # ── connections ──

    def _shard(self, name: str) -> Shard:
        return self.snapshot.shards[self.snapshot.shard_index(name)]

    async def _connection(self, shard: Shard) -> ControlConnection:
        """The connection to a shard's primary, made anew when the last one broke. Raises SqlError."""
        connection = self._connections.get(shard.name)
        if connection is not None:
            try:
                await connection.query("SELECT 1")
            except SqlError:
                connection.abort()
            else:
                return connection
        self._connections.pop(shard.name, None)
        made = await open_control(shard.primary, self._credentials, self._seconds)
        self._connections[shard.name] = made
        return made

    def _ask(self, connection: ControlConnection) -> Ask:
        async def ask(statement: str) -> Asked:
            return [tuple(text(value) or "" for value in _values(row)) for row in await connection.query(statement)]

        return ask


def _values(row: Mapping[str, object]) -> list[str | bytes | None]:
    return [value if isinstance(value, str | bytes | None) else str(value) for value in row.values()]


async def _connected(connection: ControlConnection, xid: str) -> bool:
    """Whether D still has the connection that a transaction id names."""
    ident = parse_transaction(xid)
    if ident is None:
        return False  # a probe's row that was left behind
    rows = await connection.query("SHOW GLOBAL STATUS LIKE 'Uptime'")
    if time() - int(rows[0]["value"]) > ident.born + 1:
        return False
    rows = await connection.query("SELECT 1 FROM information_schema.processlist WHERE id = %s", (ident.thread,))
    return bool(rows)
