"""What a move does about writers that go to a shard directly, past the proxies and the fence.

Until the last moment before the switch the stream carries what they write. Then, what was written behind the marker
gives the switch up; what comes later is found in the binlog (`watch`), and stops the deletion of the old rows. Triggers
(`guards`) can refuse all of it from just before the switch on, but not what slips past them: so both go together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Literal

from shardproxy.errors import BackendError, ReshardError
from shardproxy.reshard.bookkeeping import StreamName, open_writer, transact
from shardproxy.reshard.guards import guard, triggers
from shardproxy.reshard.link import LinkLogin
from shardproxy.reshard.runner import Running
from shardproxy.reshard.snapshot import source_position
from shardproxy.reshard.stream import StreamPlan
from shardproxy.reshard.warm_links import WarmLinks
from shardproxy.reshard.watch import MOST_SHOWN, Told, Watch, watch_deletes

Policy = Literal["detect", "refuse", "ignore"]


class Bypass:
    """Of one move. despite: old rows may be deleted although somebody wrote them. own: the move's name for
    transactions that concern no stream alone; told: called with what is found."""

    def __init__(self, policy: Policy, despite: bool, own: StreamName, login: LinkLogin, told: Told) -> None:
        self._policy, self._despite, self._own, self._login, self._told = policy, despite, own, login, told
        self._guarded = False
        self._watches: dict[StreamName, Watch] = {}
        self._warm = WarmLinks(login)

    def none_late(self, streams: Iterable[Running]) -> None:
        """Before the switch. Raises ReshardError when a stream brought rows from behind its marker."""
        late = [row for stream in streams for row in stream.late]
        if late and self._policy != "ignore":
            raise ReshardError(
                f"somebody writes moving rows directly to their shard, past the fence: {', '.join(late[:MOST_SHOWN])}. "
                "Nothing is switched, and nothing is lost: end who writes them, then switch again"
            )

    # ── triggers ──

    async def guard(self, plans: Sequence[StreamPlan], accounts: Iterable[str], seconds: float) -> None:
        """When direct writes are to be refused: have them refused at the sources of these streams, and nowhere else.
        accounts: of users that write all the same. Raises as `guards.guard`."""
        if self._policy == "refuse":
            self._guarded = True
            await self._guards(plans, {*accounts, self._login.user}, seconds)

    async def unguard(self, plans: Sequence[StreamPlan], seconds: float) -> None:
        """Refuse nothing any more. Raises as `guards.guard`."""
        await self._guards(plans, None, seconds)
        self._guarded = False

    async def unguard_stale(self, plans: Sequence[StreamPlan]) -> None:
        """What another orchestrator has left, if that is possible at once: proxies may have other accounts now."""
        if not self._guarded:
            with contextlib.suppress(ReshardError):
                await self.unguard(plans, 0.0)

    async def _guards(self, plans: Sequence[StreamPlan], accounts: Iterable[str] | None, seconds: float) -> None:
        servers = {server.name: server for plan in plans for server in (plan.source, plan.target)}
        database, move = plans[0].database, self._own.move_id
        for server in servers.values():
            mine = [plan for plan in plans if plan.source == server and accounts is not None]
            await guard(server, self._login, database, move, triggers(mine, move, accounts or ()), seconds)

    # ── watches ──

    async def watch(self, plans: Sequence[StreamPlan]) -> None:
        """After the switch: have the sources of these streams, which have ended, watched, and no others."""
        if self._policy == "ignore" or self._despite or set(self._watches) == {plan.name for plan in plans}:
            return
        await self.close()
        for plan in plans:
            self._watches[plan.name] = watch = Watch(plan, self._told)
            watch.begin()

    async def none(self) -> None:
        """Raises ReshardError when moved rows were written directly, or that cannot be known."""
        await asyncio.gather(*(watch.none() for watch in self._watches.values()))

    def sure(self, name: StreamName) -> Callable[[], Awaitable[None]] | None:
        """What asks the same for the rows of one stream, from within a transaction that has locked some of them:
        whoever changed them before is in the binlog, and nobody can now. None when nobody asks."""
        watch = self._watches.get(name)
        return None if watch is None else partial(self._sure, watch)

    async def _sure(self, watch: Watch) -> None:
        async with self._warm.writer(watch.plan.source) as link:
            # Who gives a lock free by COMMIT may not be in the server's position yet; it is when a later one is.
            await transact(link, self._own, None, [])
            goal = await source_position(link)
            await link.query(b"COMMIT")
        await watch.none_before(goal)

    async def forget(self, plans: Iterable[StreamPlan]) -> None:
        """The move has ended: the places that were kept are not needed any more."""
        await self.close()
        with contextlib.suppress(BackendError):  # what is left is in nobody's way
            await asyncio.gather(*(self._forget(plan) for plan in plans))

    async def _forget(self, plan: StreamPlan) -> None:
        async with await open_writer(plan.target, plan.login) as link:
            await transact(link, plan.name, None, watch_deletes(plan.name))

    async def close(self) -> None:
        """End the watches; their places stay."""
        self._warm.close()
        watches, self._watches = list(self._watches.values()), {}
        await asyncio.gather(*(watch.close() for watch in watches))
