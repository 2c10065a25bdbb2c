"""The keeper's process: `python -m shardproxy.keeper.process`.

It takes its settings from standard input, ends when that is closed, and says how it is on standard output: lines of
JSON, four a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shardproxy import logs
from shardproxy.backend.redis.node import LinkSettings
from shardproxy.backend.redis.slot import Turn
from shardproxy.cache.node import CacheNode
from shardproxy.cache.patterns import CachedRows, CacheSettings
from shardproxy.keeper.keep import ShardKeeper
from shardproxy.reshard.link import LinkLogin
from shardproxy.topology.model import Server
from shardproxy.topology.redis_ring import RedisRing

_PERIOD = 0.25
_CONNECTING = 0.01
_MOST = 1 << 20  # bytes of a line


@dataclass(frozen=True)
class KeeperSettings:
    """shards: primaries, and the rows and queried tables that each has. nodes: (name, host, port);
    owners: bucket → place of its node."""

    cache: CacheSettings
    shards: Sequence[tuple[Server, tuple[CachedRows, ...], tuple[tuple[str, str], ...]]]
    login: LinkLogin
    nodes: Sequence[tuple[str, str, int]]
    owners: Sequence[int]
    user: str
    password: bytes | None = field(repr=False)
    connect_timeout: float
    timeout: float
    log_level: str
    log_format: str


@dataclass(frozen=True)
class Condition:
    """How one shard is kept. fresh: there is a mark; invalidated: entries so far; problem: why there is none."""

    fresh: bool
    invalidated: int
    problem: str


Told = Callable[[Mapping[str, Condition]], None]


async def run_keeper(settings: KeeperSettings, told: Told) -> None:
    """Start the process, and return when it has ended; it is ended when this is cancelled."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shardproxy.keeper.process", limit=_MOST,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        data = pickle.dumps(settings)
        process.stdin.write(len(data).to_bytes(4, "little") + data)
        while line := await process.stdout.readline():
            told({name: Condition(*condition) for name, condition in json.loads(line).items()})
    finally:
        process.stdin.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _child() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    size = int.from_bytes(await reader.readexactly(4), "little")
    settings: KeeperSettings = pickle.loads(await reader.readexactly(size))  # noqa: S301  our own parent's
    logs.configure(settings.log_level, settings.log_format)

    async def end_with_parent() -> None:
        await reader.read(1)
        os._exit(0)

    s = settings
    turn = Turn(loop)
    links = LinkSettings(
        depth=65536, connect_timeout=s.connect_timeout, timeout=s.timeout, user=s.user, password=s.password
    )
    nodes = [CacheNode(name, host, port, links, turn) for name, host, port in s.nodes]
    for node in nodes:
        node.start()
    await _connected(nodes, s.connect_timeout)
    ring = RedisRing(s.owners)
    keepers = [ShardKeeper(s.cache, server, s.login, rows, nodes, ring, queried) for server, rows, queried in s.shards]
    tasks = [loop.create_task(keeper.run()) for keeper in keepers]
    tasks += [loop.create_task(_report(keepers, nodes, s.cache.bound)), loop.create_task(end_with_parent())]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()  # none of them ends by itself: an error ends the process, and the supervisor starts another


async def _connected(nodes: Sequence[CacheNode], seconds: float) -> None:
    """Give the first connections the time that they may take."""
    for _ in range(round(seconds / _CONNECTING)):
        if all(node.usable for node in nodes):
            return
        await asyncio.sleep(_CONNECTING)


async def _report(keepers: Sequence[ShardKeeper], nodes: Sequence[CacheNode], bound: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        now = loop.time()
        conditions = {
            keeper.server.shard: (now - keeper.marked < bound, keeper.invalidated, keeper.problem) for keeper in keepers
        }
        os.write(1, json.dumps(conditions).encode() + b"\n")
        for node in nodes:
            node.tick()
        await asyncio.sleep(_PERIOD)


def main() -> None:
    """Entry of the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    asyncio.run(_child())


if __name__ == "__main__":
    main()
