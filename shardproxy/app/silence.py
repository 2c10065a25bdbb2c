"""Workers that stand still: a process that says nothing to its supervisor for too long is ended.

It may be stopped (SIGSTOP), or caught in something endless. Its clients wait without an answer then, and no map is
acknowledged: a move of rows waits for the proxy, which lives, as its supervisor says. Once the process has ended it is
replaced like any that dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

EVERY = 1.0  # seconds between two looks; a worker reports as often
LEAST = 3  # looks


class Speaker(Protocol):
    """A worker. ready: it serves; heard: it has said something since the last look; silent: looks since then."""

    ready: bool
    heard: bool
    silent: int


async def watch(workers: Sequence[Speaker], seconds: float, end: Callable[[int], None]) -> None:
    """Call `end` with the place of each worker that has been silent for so long, again and again. seconds: 0 for never.

    Looks are counted, not seconds: when the whole machine stood still, the supervisor did too.
    """
    most = max(round(seconds / EVERY), LEAST)
    while seconds > 0:
        await asyncio.sleep(EVERY)
        for place, worker in enumerate(workers):
            worker.silent = worker.silent + 1 if worker.ready and not worker.heard else 0
            worker.heard = False
            if worker.silent >= most:
                worker.silent = 0
                end(place)
