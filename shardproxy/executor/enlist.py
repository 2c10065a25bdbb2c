"""Connections to several shards for one statement: what it reads or writes there, it reads or writes as one.

    async with enlisted(client, plan, shards, replica=…, write=…) as enlistment:
        …run the statement on enlistment.connections, each answer taken whole or its connection `release`d…

Leaving the block without an error settles it: outside a transaction a write is committed on all shards, and the
connections go back. An error (or the client's end) undoes what the statement did, on all shards.

Shards are asked in order, as by every other statement, so that two of them never wait for each other in a ring.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import SessionError
from shardproxy.executor import single
from shardproxy.executor.client import Client
from shardproxy.planner.plan import Plan


class Enlistment:
    """connections: one a shard, in the order of `shards`."""

    def __init__(self, shards: Sequence[int], connections: list[BackendConnection]) -> None:
        self.shards = tuple(shards)
        self.connections = connections
        self._open = set(connections)

    def release(self, connection: BackendConnection, ended: bool) -> None:
        """This connection is not needed any more. ended: its answer is whole; else the rest is not wanted."""
        if connection in self._open:
            self._open.discard(connection)
            if ended:
                connection.pool.checkin(connection)
            else:
                connection.pool.abandon(connection)

    def settle(self) -> None:
        """All answers are whole."""
        for connection in list(self._open):
            self.release(connection, True)

    def undo(self) -> None:
        """Something went wrong: nothing is known of answers that are under way."""
        for connection in list(self._open):
            self._open.discard(connection)
            connection.pool.release(connection)


@asynccontextmanager
async def enlisted(
    client: Client, plan: Plan, shards: Sequence[int], *, replica: bool, write: bool
) -> AsyncIterator[Enlistment]:
    """See the module. Raises SqlError, also the servers' own."""
    session = client.session
    if not session.simple or write:
        raise SessionError(
            f"the statement needs {len(shards)} shards ({plan.reason}), and the session is in a transaction, which "
            "touches one shard here: run it outside the transaction (COMMIT first, autocommit=1), or give the shard key"
        )
    taken: list[BackendConnection] = []
    enlistment = Enlistment(shards, taken)
    try:
        for shard in shards:
            taken.append(await single.checkout(client, shard, replica))  # noqa: PERF401 — what was taken is given back
    except BaseException:
        for connection in taken:
            connection.pool.checkin(connection)
        raise
    enlistment = Enlistment(shards, taken)
    client.working = taken
    try:
        yield enlistment
    except BaseException:
        enlistment.undo()
        raise
    enlistment.settle()
