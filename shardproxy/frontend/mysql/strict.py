"""Strict mode of the cache, at the MySQL port: what a statement may change is void before it runs or, in a transaction,
before that is committed; and no acknowledgement goes out while it may not be void any more.

Which statements these are, plans say (planner/voids.py); others pass by. A transaction gathers what it changes, and any
statement that is not sure to leave it open counts as its commit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardproxy import logs
from shardproxy.cache.voiding import Due, NotVoided, Voiding
from shardproxy.executor.fenced import alone
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.protocol.mysql.response import IN_TRANS
from shardproxy.router.route import ValueReader

if TYPE_CHECKING:
    from shardproxy.frontend.mysql.connection import ClientConnection

log = logs.Log("cache")

# In a transaction they leave it open, or roll it back.
_QUIET = frozenset((
    StatementKind.SELECT, StatementKind.INSERT, StatementKind.REPLACE, StatementKind.UPDATE, StatementKind.DELETE,
    StatementKind.ROLLBACK, StatementKind.SAVEPOINT, StatementKind.SHOW, StatementKind.SHOW_WARNINGS,
    StatementKind.DESCRIBE, StatementKind.EXPLAIN, StatementKind.EXPLAIN_ROUTE, StatementKind.USE, StatementKind.DO,
    StatementKind.EMPTY, StatementKind.KILL,
))  # fmt: skip


class StrictSession:
    """What one client's transaction has changed and not committed, and the gate before its answers."""

    def __init__(self, client: ClientConnection, voiding: Voiding) -> None:
        self._client = client
        self._voiding = voiding
        self._pending = Due()
        self._seen = -1.0  # the last command that was looked at
        self._gate: _Gate | None = None

    def due(self, plan: Plan) -> bool:
        """Whether `before` must be awaited before the command under way goes on."""
        return (plan.voids is not None or bool(self._pending)) and self._seen != self._client.started

    async def before(self, plan: Plan, read: ValueReader | None = None) -> None:
        """Make void what the command may change for others. read: its values. Raises NotVoided: it must not run."""
        client = self._client
        if self._gate is not None:
            await self._gate.empty()
        if not self._open():
            self._pending.clear()
        due = self._pending
        if alone(client):
            due = Due()
        if plan.voids is not None:
            self._add(due, plan, read)
        self._seen = client.started
        if not due or (due is self._pending and plan.kind in _QUIET):
            return
        due = due.copy()
        sure = await self._voiding.void(due)
        if self._gate is None:
            self._gate = _Gate(client, self._voiding)
        self._gate.guard(due, sure)

    def _open(self) -> bool:
        """Whether the servers have a transaction of the session."""
        client = self._client
        held = client.held
        if client.spanning is not None:
            return True
        return held is not None and (not client.session.pins or bool(held.scanner.status & IN_TRANS))

    def _add(self, due: Due, plan: Plan, read: ValueReader | None) -> None:
        voids = plan.voids
        assert voids is not None
        named = voids.whole if voids.table is None else (*voids.whole, voids.table)
        due.queried.update(table for table in named if table in self._voiding.queried)
        for table in voids.whole:
            for rows in self._voiding.of_table(table):
                due.add_whole(rows)
        if voids.table is None:
            return
        keys = voids.keys(plan, read) if read is not None else None
        for rows in self._voiding.of_table(voids.table):
            if keys is None or sorted(name.lower() for name in rows.columns) != sorted(voids.columns):
                due.add_whole(rows)
                continue
            places = [voids.columns.index(name.lower()) for name in rows.columns]
            for key in keys:
                due.add_row(rows, [key[place] for place in places])


class _Gate:
    """Stands in the client's transport while a command that made something void is under way. What goes to the client
    when the tombstones may have ended waits until they have been put again."""

    def __init__(self, client: ClientConnection, voiding: Voiding) -> None:
        self._client = client
        self._voiding = voiding
        self._below: Any = client.transport
        self._due = Due()
        self._sure = 0.0
        self._command = -1.0
        self._kept: list[bytes] = []
        self._closing = False
        self._again: asyncio.Task[None] | None = None

    def guard(self, due: Due, sure: float) -> None:
        """The command under way has made `due` void, surely until `sure` of the loop's clock."""
        self._due, self._sure, self._command = due, sure, self._client.started
        client: Any = self._client
        client.transport = self

    async def empty(self) -> None:
        """Wait until nothing is kept back. Raises NotVoided when the client has been closed instead."""
        if self._again is not None:
            await asyncio.shield(self._again)
        if self._closing:
            raise NotVoided("the connection is being closed: an earlier write could not be acknowledged")

    def write(self, data: bytes) -> None:
        if self._again is None:
            if self._client.started != self._command:  # that command's answer has gone
                client: Any = self._client
                client.transport = self._below
            elif asyncio.get_running_loop().time() >= self._sure:
                self._again = asyncio.get_running_loop().create_task(self._void_again())
        if self._again is None:
            self._below.write(data)
        else:
            self._kept.append(data)

    async def _void_again(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while loop.time() >= self._sure:
                self._voiding.counts["again"] += 1
                self._sure = await self._voiding.void(self._due)
        except Exception as error:  # whatever it is: what is kept back must not go out
            log.error("cache_write_unacknowledged", reason=str(error))
            self._closing = True
            self._client.abort()
            return
        finally:
            self._again = None
        kept, self._kept = self._kept, []
        for data in kept:
            self._below.write(data)
        if self._closing:
            self._below.close()

    def close(self) -> None:
        if self._again is None:
            self._below.close()
        self._closing = True

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)
