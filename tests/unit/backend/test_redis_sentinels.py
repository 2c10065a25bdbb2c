"""Which sentinel is believed."""

from __future__ import annotations

import asyncio

from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.sentinels import Sentinels, text_of
from shardproxy.backend.redis.slot import Turn


def test_what_is_not_newer_does_not_count() -> None:
    async def run() -> list[str]:
        node = RedisNode("r1", "127.0.0.1", 1, LinkSettings(), Turn(asyncio.get_running_loop()))
        sentinels = Sentinels([], {"main": node}, LinkSettings())
        sentinels.start()
        seen = [node.why_down]
        for epoch, port in ((3, 2), (2, 1), (3, 1), (4, 3)):
            sentinels.heard("main", epoch, "127.0.0.1", port)
            seen.append(node.address)
        node.close()
        return seen

    assert asyncio.run(run()) == [
        "no sentinel has told yet where it is",
        "127.0.0.1:2",
        "127.0.0.1:2",
        "127.0.0.1:2",
        "127.0.0.1:3",
    ]


def test_text() -> None:
    assert text_of(b"$4\r\nmain\r\n") == "main"
