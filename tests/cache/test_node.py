"""A node's connection that is lost while it is being made: replies still go to whom they are for afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from shardproxy.backend.redis.link import DOWN
from shardproxy.backend.redis.node import LinkSettings
from shardproxy.backend.redis.slot import Turn
from shardproxy.cache.node import CacheNode
from shardproxy.local.redis_node import RedisNode
from tests.redis.kinds import kinds_of_nodes


@pytest.fixture(scope="module")
def server() -> Iterator[RedisNode]:
    with kinds_of_nodes("redis", 1) as [running]:
        yield running


@asynccontextmanager
async def cut_after(replies: int, port: int) -> AsyncIterator[int]:
    """A way to the node at `port`. The first connection is closed together with the so manieth reply; others stay."""
    first = True

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        cut, first = first, False
        node_reader, node_writer = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            while data := await reader.read(65536):
                node_writer.write(data)

        sending = asyncio.create_task(forth())
        with suppress(OSError, asyncio.IncompleteReadError):
            if cut:
                writer.write(b"".join([await node_reader.readline() for _ in range(replies)]))
            else:
                while data := await node_reader.read(65536):
                    writer.write(data)
        sending.cancel()
        node_writer.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("replies", [0, 1, 2])
@pytest.mark.parametrize("time", range(3))
def test_a_connection_lost_while_it_is_made_leaves_nothing_behind(server: RedisNode, replies: int, time: int) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with cut_after(replies, server.port) as port:
            node = CacheNode("a", "127.0.0.1", port, LinkSettings(), Turn(loop))
            node.start()
            try:
                async with asyncio.timeout(20):
                    while not node.usable:
                        if node.main.state == DOWN:
                            node.tick()
                        await asyncio.sleep(0.01)
                    for n in range(5):
                        assert await node.ask([b"ECHO", b"%d" % n]) == b"$1\r\n%d\r\n" % n
            finally:
                node.close()

    asyncio.run(run())
