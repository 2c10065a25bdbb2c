"""Keys are brought by who wants them, in one process with real nodes: what is dropped, and what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from shardproxy.backend.redis.link import Waiter
from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.slot import Turn
from shardproxy.executor.redis.pulling import Puller
from shardproxy.local.redis_node import RedisNode as Server
from shardproxy.protocol.redis import moves
from shardproxy.topology.redis_ring import MovingRing, RedisRing
from shardproxy.topology.redis_routing import Routing
from tests.redis.kinds import kinds_of_nodes

ALL = frozenset(range(4096))


class Wanting(Waiter):
    """Wants one key, until it is there or not to be had."""

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key
        self.told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def wanted_keys(self) -> list[bytes]:
        return [self._key]

    def go_on(self) -> None:
        self.told.set_result(b"")

    def refuse(self, error: bytes) -> None:
        self.told.set_result(error)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    with kinds_of_nodes("redis", 3) as running:
        yield running


class Pulling:
    """Everything moves from the first server to the second one; the third one has nothing, but for the fence."""

    def __init__(self, nodes: list[RedisNode], replicas: int) -> None:
        self.ring = MovingRing(RedisRing([0] * 4096), ALL, 1, 2)
        self.target = nodes[1]
        self._puller = Puller(self.ring, Routing(1, [0] * 4096, 1, 1, ALL, 0, 1, True, replicas), nodes, 10)

    async def want(self, key: bytes) -> bytes:
        waiter = Wanting(key)
        self._puller.wait(waiter)
        return await waiter.told


@asynccontextmanager
async def pulling(servers: list[Server], replicas: int) -> AsyncIterator[Pulling]:
    for server in servers:
        with server.connect() as client:
            client.flushall()
            client.execute_command(*moves.raise_fence(moves.opened(1)))
    with servers[0].connect() as client:
        client.set("k", "v")
    turn = Turn(asyncio.get_running_loop())
    nodes = [RedisNode(server.name, server.host, server.port, LinkSettings(), turn) for server in servers[:2]]
    for node in nodes:
        node.start()
    try:
        yield Pulling(nodes, replicas)
    finally:
        for node in nodes:
            node.close()


def has(server: Server) -> bool:
    with server.connect() as client:
        return bool(client.get("k") == b"v")


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_key_is_dropped_when_the_replicas_have_it(servers: list[Server], replicas: int) -> None:
    """The target has no replica."""

    async def main() -> None:
        async with pulling(servers, replicas) as parts:
            assert await parts.want(b"k") == b""
            assert parts.ring.here == {b"k"} and parts.ring.node_of(b"k") == 1
            assert has(servers[1]) and has(servers[0]) == bool(replicas)

    asyncio.run(main())


def test_what_another_process_lacks_is_brought_there_again(servers: list[Server]) -> None:
    async def main() -> None:
        async with pulling(servers, 1) as parts:
            assert await parts.want(b"k") == b""
            assert parts.ring.node_of(b"k") == 1
            parts.target.move(servers[2].host, servers[2].port)
            assert parts.ring.waits(b"k")
            assert await parts.want(b"k") == b""
            assert parts.ring.node_of(b"k") == 1 and has(servers[2])

    asyncio.run(main())


def test_what_came_to_a_process_that_is_gone_is_brought_again(servers: list[Server]) -> None:
    """The node is another one before the key is there."""

    async def main() -> None:
        async with pulling(servers, 1) as parts:
            wanted = asyncio.ensure_future(parts.want(b"k"))

            def arrived() -> bool:
                return has(servers[1])

            while not (wanted.done() or await asyncio.to_thread(arrived)):  # noqa: ASYNC110 — another process has it
                await asyncio.sleep(0)
            parts.target.move(servers[2].host, servers[2].port)
            error = await wanted
            assert not parts.ring.here or has(servers[2]), error
            assert await parts.want(b"k") == b""
            assert has(servers[2])

    asyncio.run(main())
