"""Times small statements on servers, in a process of its own: a busy engine would take itself for a slow server.

The child takes the servers and the login as one frame, and sends lines of JSON: server → seconds. It ends when the
parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from time import perf_counter

from shardproxy.errors import BackendError, BackendLost, SqlError
from shardproxy.reshard.link import LinkLogin, connect, note_sent
from shardproxy.topology.model import Server

_EVERY = 0.04  # seconds between two statements to one server; with 0.01 this process needs 6 % of a core, not 2
_TOLD_EVERY = 0.1  # seconds between two lines
_AGAIN = 1.0  # seconds until a server that did not answer is asked again


class Timing:
    """The parent's side. Made by `start`; `read` until `close`."""

    def __init__(self, process: Process, reader: asyncio.StreamReader) -> None:
        self._process = process
        self._reader = reader

    @classmethod
    async def start(cls, servers: Sequence[Server], login: LinkLogin) -> Timing:
        """Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shardproxy.reshard.timing", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        data = pickle.dumps((tuple(servers), login))
        process.stdin.write(len(data).to_bytes(4, "little") + data)
        return cls(process, process.stdout)

    async def read(self) -> dict[str, list[float]]:
        """What was measured since the last call, by server; waits for it. Raises BackendLost when the process ended."""
        line = await self._reader.readline()
        if not line:
            raise BackendLost("the process that times statements ended")
        found: dict[str, list[float]] = json.loads(line)
        for name, times in found.items():
            note_sent(name, len(times))
        return found

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def _child() -> None:
    data = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "little"))
    servers, login = pickle.loads(data)  # noqa: S301  our own parent's
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    times: dict[str, list[float]] = {server.name: [] for server in servers}
    asking = [asyncio.create_task(_time(server, login, times[server.name])) for server in servers]
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _TOLD_EVERY)
        if any(times.values()):
            os.write(1, json.dumps({name: found for name, found in times.items() if found}).encode() + b"\n")
            for found in times.values():
                found.clear()
    for task in asking:
        task.cancel()


async def _time(server: Server, login: LinkLogin, times: list[float]) -> None:
    """Note how long a server takes to answer next to nothing, again and again."""
    while True:
        try:
            async with await connect(server, login) as link:
                while True:
                    start = perf_counter()
                    await link.query(b"DO 0")
                    times.append(perf_counter() - start)
                    await asyncio.sleep(_EVERY)
        except (BackendError, SqlError):
            await asyncio.sleep(_AGAIN)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_child())
