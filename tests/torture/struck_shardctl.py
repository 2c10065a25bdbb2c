"""shardctl, led by the nose. A program of the tests: before and after each step that it stores it says where it is, and
waits for a word; instead of one it may be killed. What else differs from the real program: how long it waits for
proxies, and mistakes on purpose.

SHARDPROXY_STEPS   two file descriptors: where it writes lines, and where it reads a byte for each
SHARDPROXY_WRONG   words: open-early, no-fence, position-first, positions-apart
SHARDPROXY_ANSWER  seconds that a proxy may take to acknowledge a map
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from shardproxy.cli import main, rebalance_lead
from shardproxy.config import Config
from shardproxy.reshard import leading
from shardproxy.reshard.leading import Wishes
from shardproxy.reshard.ledger import Ledger
from shardproxy.reshard.orchestrator import Faults, Settings
from shardproxy.reshard.stream import Mutations
from shardproxy.store.interface import MapStore

OUT, IN = map(int, os.environ["SHARDPROXY_STEPS"].split())


async def step(where: str) -> None:
    os.write(OUT, f"{where}\n".encode())
    if not await asyncio.to_thread(os.read, IN, 1):
        os._exit(3)  # the test is over


def faults() -> Faults:
    words = os.environ.get("SHARDPROXY_WRONG", "").split()
    stream = Mutations(
        position_first=(lambda: asyncio.sleep(0.5)) if "position-first" in words else None,
        positions_apart=(lambda: asyncio.sleep(0.3)) if "positions-apart" in words else None,
    )
    return Faults(stream, "no-fence" in words, "open-early" in words, step)


def install() -> None:
    lead = rebalance_lead.lead

    def struck(
        config: Config, begin: Callable[[MapStore], Awaitable[Ledger]], work: rebalance_lead.Work, wishes: Wishes
    ) -> None:
        what = "begin" if sys.argv[2] == "run" else "claim"

        async def begun(store: MapStore) -> Ledger:
            await step(f"before {what}")
            ledger = await begin(store)
            await step(f"after {what}")
            return ledger

        lead(config, begun, work, replace(wishes, faults=faults()))

    vars(rebalance_lead)["lead"] = struck
    answer = float(os.environ.get("SHARDPROXY_ANSWER", "5"))
    vars(leading)["Settings"] = partial(Settings, answer=answer, settle=0.5)


if __name__ == "__main__":
    install()
    main.main()
