"""Imported by every Python that the crash tests start: lets them strike at one step of the commit protocol.

SHARDPROXY_FAULTS names a folder. A file `N` in it holds what the first worker that comes to step N does before it:
`die`, or process ids that it kills; a leading `soon` does that a moment later, with the step's statement under way.

SHARDPROXY_FENCE is a mode of executor.fence: `off`, or `blind` for COMMIT before the fence's answer is read.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

_FOLDER = Path(os.environ["SHARDPROXY_FAULTS"])


async def _strike(transaction: Any, step: int) -> None:
    armed, mine, taken = (_FOLDER / f"{step}{end}" for end in ("", f".{os.getpid()}", ".taken"))
    try:
        os.rename(armed, mine)
    except FileNotFoundError:
        return
    words = mine.read_text().split()
    os.rename(mine, taken)  # the test removes it as soon as it sees it
    victims = [os.getpid() if word == "die" else int(word) for word in words if word != "soon"]

    def kill() -> None:
        for victim in victims:
            os.kill(victim, signal.SIGKILL)

    if words[0] == "soon":
        asyncio.get_running_loop().call_later(0.002, kill)
    else:
        kill()


def _install() -> None:
    from shardproxy.executor import commit, fence

    commit.at_step = _strike
    fence.mode = fence.Mode(os.environ.get("SHARDPROXY_FENCE", "on"))


_install()
