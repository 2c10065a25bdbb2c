"""The proxies of a move: who has acknowledged its map (R3), who is shut out (R4), and who is let in again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from shardproxy.errors import ReshardError
from shardproxy.reshard.eviction import Evictor, gone, named
from shardproxy.reshard.ledger import Ledger
from shardproxy.reshard.readmission import locked_accounts, with_locked
from shardproxy.topology.barrier import Identity, Standing
from shardproxy.topology.stages import MEANINGS, Writes

log = logging.getLogger(__name__)


class Proxies:
    """answer: seconds that a proxy may take to acknowledge a map before it is shut out, unless it lives and no writes
    are held; back: seconds that a move which has ended waits for those that were; step: for tests, called before and
    after an `eviction` and a `readmission`."""

    def __init__(
        self,
        ledger: Ledger,
        evictor: Evictor,
        answer: float,
        back: float,
        step: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._evictor = evictor
        self._answer = answer
        self._back = back
        self._stepped = step

    async def _step(self, where: str) -> None:
        if self._stepped is not None:
            await self._stepped(where)

    async def barrier(self) -> None:
        """Every proxy has acknowledged the present map, or is evicted (R3, R4)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._answer
        async with self._ledger.acknowledgements() as heard:
            while left := await self._ledger.waited_for():
                for identity in left:
                    if gone(identity.place):
                        await self._evict(identity)
                if loop.time() > deadline:
                    for identity in await self._overdue(left):
                        await self._evict(identity)
                    deadline = loop.time() + self._answer
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await heard.from_all(left)
                        break
        await self.readmit()

    async def noticed(self, seconds: float) -> None:
        """As `barrier`, but nobody is shut out, and it takes no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._ledger.acknowledgements() as heard:
                await heard.from_all(await self._ledger.waited_for())

    async def _overdue(self, left: Sequence[Identity]) -> list[Identity]:
        """Proxies that are not waited for any longer. As long as no writes are held those that live are: a statement
        that began under an older map goes on there, a long read, or one that waits for a lock. But where the account is
        locked nothing goes on; such a proxy has come back, and cannot prove at the servers what it would have to."""
        if MEANINGS[self._ledger.stage].writes is Writes.HELD:
            return list(left)
        living = await self._ledger.living()
        locked = self._locked
        busy = [
            one for one in left if one.id in living and one.standing is Standing.ACTIVE and one.account not in locked
        ]
        if busy:
            what = f"waits for statements that began before, on proxy {named(busy)}"
            log.info("move %s %s", self._ledger.workflow.id, what)
            if self._ledger.workflow.problem != what:
                await self._ledger.note(problem=what)
        return [one for one in left if one not in busy]

    async def _evict(self, identity: Identity) -> None:
        log.warning("proxy %s does not acknowledge the map: it is shut out", named([identity]))
        before = self._locked
        await self._note_locked({*before, identity.account})  # first: who goes on after a crash must know of it
        await self._step("before eviction")
        try:
            if not await self._evictor.evict(identity):
                await self._note_locked(before)
            await self._step("after eviction")
        except ReshardError as error:
            await self._note_locked(before)
            await self._ledger.note(problem=str(error))
            log.warning("%s", error)

    @property
    def _locked(self) -> frozenset[str]:
        """Accounts that were locked to shut their proxies out, by us or a leader before us."""
        return locked_accounts(self._ledger.workflow)

    async def _note_locked(self, accounts: Iterable[str]) -> None:
        await self._ledger.note(figures=with_locked(self._ledger.workflow, accounts))

    async def readmit(self) -> None:
        """Let accounts in again whose proxies have come back with the newest map."""
        if not self._locked:
            return
        for account in sorted(await self._ledger.returned(self._locked)):
            await self._step("before readmission")
            await self._evictor.readmit(account)
            await self._step("after readmission")
            await self._note_locked(self._locked - {account})

    async def see_off(self) -> None:
        """The move has ended, and nobody will look after it: proxies that are shut out get a while to come back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._back
        while self._locked and loop.time() < deadline:
            await asyncio.sleep(0.2)
            await self.readmit()
        if self._locked:
            names = ", ".join(sorted(self._locked))
            what = f"accounts of proxies that were shut out are still locked: {names}; see `shardctl rebalance readmit`"
            log.warning("move %s has ended; %s", self._ledger.workflow.id, what)
            await self._ledger.note(problem=what)
