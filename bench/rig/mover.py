"""Leads moves as `shardctl rebalance` does, step by step as it is told.

A companion process: what it and the processes that read binlogs use is what a move costs beside the servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.rig.companion import Companion
from bench.rig.process_usage import cpu_seconds, tree
from shardproxy.admin.rebalance.plan import make_plan
from shardproxy.cli import rebalance_goals as words
from shardproxy.config import load
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.reshard.leading import Wishes, leading, new_owner, stored_maps
from shardproxy.reshard.ledger import Ledger, begin
from shardproxy.reshard.orchestrator import Orchestrator
from shardproxy.reshard.stream import Stream
from shardproxy.reshard.throttle import ThrottleLimits
from shardproxy.store.interface import MapStore
from shardproxy.store.opening import open_store
from shardproxy.topology import map_document
from shardproxy.topology.goals import Goal
from shardproxy.topology.moves import Phase
from shardproxy.topology.stages import FINAL, Stage, Step
from shardproxy.topology.workflow import Plan

_GOALS: dict[str, Callable[[str], Goal]] = {
    "add-shard": lambda word: words.add_shard(word, 1), "split-range": words.split_range,
    "move-range": words.move_range,
}  # fmt: skip
_SWITCHING = (Phase.CLOSING, Phase.SWITCHED)


class Mover:
    """One move at a time. Every method is an order; its answer is what goes back."""

    def __init__(self, config: str) -> None:
        self._config = load(Path(config), proxy_environment())
        self._stack = AsyncExitStack()
        self._led: Orchestrator | None = None
        self._plans: list[Any] = []
        self._copying: asyncio.Task[None] | None = None
        self._since = 0.0  # when the first rows were there

    @property
    def _orchestrator(self) -> Orchestrator:
        assert self._led is not None
        return self._led

    async def begin(self, keyspace: str, goals: dict[str, str], rate: int = 0, gentle: bool = False) -> dict[str, Any]:
        """Plan a move and lead it to where rows are copied. goals: options of
        `shardctl rebalance` and their words. streams: source, target and spans of buckets of each."""
        await self._stack.aclose()
        plan = await self._plan(keyspace, [_GOALS[name](word) for name, word in goals.items()])

        async def lead(store: MapStore) -> Ledger:
            return await begin(store, keyspace, new_owner(), plan, time.time)

        wishes = Wishes(ThrottleLimits(rate, gentle=gentle))
        self._led = await self._stack.enter_async_context(leading(self._config, lead, wishes))
        await self._led.run(lambda stage: stage is Stage.COPYING)
        return {"streams": [[s.source, s.target, s.keys.buckets or []] for s in plan.streams]}

    async def _plan(self, keyspace: str, goals: list[Goal]) -> Plan:
        store = await open_store(self._config)
        try:
            found = await make_plan(self._config, keyspace, goals, 0.0, None, await stored_maps(store))
        finally:
            await store.close()
        refused = [
            f"{finding.where}: {finding.what}" for finding in found.findings if finding.severity.value == "error"
        ]
        if refused:
            raise ValueError("; ".join(refused))
        names = [shard.name for shard in found.change.shards]
        streams = tuple(map_document.Stream.of(stream, names) for stream in found.change.streams)
        return Plan(goal="bench", streams=streams)

    async def copy(self) -> dict[str, Any]:
        """Copy all rows. cpu: seconds of this process; streams_cpu: of those that read binlogs; peak: bytes of all."""
        cpu, start = time.process_time(), time.perf_counter()
        await self._orchestrator.copied()
        seconds = time.perf_counter() - start
        own = os.getpid()
        others = [pid for pid in tree(own) if pid != own]
        return {
            "rows": sum(stream.copied for stream in self._orchestrator.streams),
            "seconds": seconds,
            "cpu": time.process_time() - cpu,
            "streams_cpu": cpu_seconds(others),
            "peak": sum(map(_highest, (own, *others))),
        }

    async def begin_copy(self) -> dict[str, Any]:
        """Begin to copy; the answer comes when the first rows are there."""
        self._copying = asyncio.create_task(self._orchestrator.copied())
        while not any(stream.copied for stream in self._orchestrator.streams):
            if self._copying.done():
                await self._copying
            await asyncio.sleep(0.01)
        self._since = time.perf_counter()
        return {}

    async def cancel(self) -> dict[str, Any]:
        """After `begin_copy`: give the move up, as `shardctl rebalance cancel` does. whole: all had been copied."""
        assert self._copying is not None
        found = {
            "rows": sum(stream.copied for stream in self._orchestrator.streams),
            "seconds": time.perf_counter() - self._since,
            "whole": self._copying.done(),
        }
        self._copying.cancel()
        await asyncio.gather(self._copying, return_exceptions=True)
        ident = self._orchestrator.ledger.workflow.id
        await self._stack.aclose()

        async def lead(store: MapStore) -> Ledger:
            return await Ledger.claim(store, ident, new_owner(), time.time)

        self._led = led = await self._stack.enter_async_context(leading(self._config, lead))
        await led.proceed(Step.CANCEL)
        await led.run(lambda stage: False)
        return found

    async def stop(self) -> dict[str, Any]:
        """End the streams: changes pile up."""
        self._plans = [stream.plan for stream in self._orchestrator.streams]
        await self._orchestrator.close()
        return {}

    async def catch_up(self) -> dict[str, Any]:
        """Apply what has piled up, all streams at once."""
        own = os.getpid()
        streams = [await Stream.open(plan) for plan in self._plans]
        try:
            cpu, start = time.process_time(), time.perf_counter()
            await asyncio.gather(*(stream.catch_up() for stream in streams))
            seconds = time.perf_counter() - start
            return {
                "transactions": sum(stream.applier.counts.transactions for stream in streams),
                "seconds": seconds,
                "cpu": time.process_time() - cpu,
                "streams_cpu": cpu_seconds(pid for pid in tree(own) if pid != own),
            }
        finally:
            for stream in streams:
                await stream.close()

    async def compare(self) -> dict[str, Any]:
        """Compare both sides, up to where the fence is armed."""
        await self._orchestrator.run(lambda stage: stage is Stage.ARMED)
        return {}

    async def switch(self) -> dict[str, Any]:
        """Arm the fence, and switch; compare before, when that has not been done."""
        await self._orchestrator.run(lambda stage: stage is Stage.OPEN)
        return self._held()

    async def ready_back(self) -> dict[str, Any]:
        """OPEN: the streams back follow."""
        await self._orchestrator.opened()
        await asyncio.gather(*(stream.when_copied() for stream in self._orchestrator.streams))
        await asyncio.gather(*(stream.when_level() for stream in self._orchestrator.streams))
        return {}

    async def compare_back(self) -> dict[str, Any]:
        """OPEN: `compare`, before it is taken back."""
        await self._orchestrator.reverse()
        return {}

    async def back(self) -> dict[str, Any]:
        """After `compare_back`: take it back, up to where the first owners have the keys again."""
        led = self._orchestrator
        await led.run(lambda stage: stage in (Stage.REVERSE_OPEN, Stage.OPEN))
        while led.ledger.stage is Stage.OPEN:  # it was given up for now
            await led.reverse()
            await led.run(lambda stage: stage in (Stage.REVERSE_OPEN, Stage.OPEN))
        return self._held()

    async def finish(self) -> dict[str, Any]:
        """To the end: the rows are deleted where they do not belong."""
        led = self._orchestrator
        await led.run(lambda stage: False, complete=not led.ledger.stage.reverse)
        assert led.ledger.stage in FINAL
        return {}

    def _held(self) -> dict[str, Any]:
        """held: seconds for which the switch held writes; given_up: why earlier tries were given up; took: seconds of
        each stage of the switch."""
        history = self._orchestrator.ledger.workflow.history
        took = {}
        for entry, after in pairwise(history):
            if entry.stage.phase in _SWITCHING:
                took[entry.stage.phase.value] = after.at - entry.at
        given_up = [entry.what for entry in history if entry.what.startswith("writes were held")]
        return {"held": self._orchestrator.held, "given_up": given_up, "took": took}


def _highest(pid: int) -> int:
    """The most resident bytes that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no VmHWM")


def start(config: Path) -> Companion:
    """A mover for the proxies' file."""
    return Companion("bench.rig.mover", {"config": str(config)})


def _listen(loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[str]) -> None:
    """A thread. When the bench is gone this process ends, whatever it is at: its servers are gone too."""
    for line in sys.stdin:
        loop.call_soon_threadsafe(orders.put_nowait, line)
    os._exit(1)


async def _serve() -> None:
    mover = Mover(**json.loads(sys.argv[1]))
    lines: asyncio.Queue[str] = asyncio.Queue()
    threading.Thread(target=_listen, args=(asyncio.get_running_loop(), lines), daemon=True).start()
    while True:
        order = json.loads(await lines.get())
        try:
            found = await getattr(mover, order.pop("order"))(**order)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
