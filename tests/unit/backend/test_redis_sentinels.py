"""Which sentinel is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.sentinels import Sentinels, text_of
from shardproxy.backend.redis.slot import Turn

A, B, C = SENTINELS = [("10.0.0.8", 1), ("10.0.0.8", 2), ("10.0.0.8", 3)]
NOBODY = "no sentinel has told yet where it is"
ONE = "1 of 3 sentinels have told where it is, and more than half must"
ASKED = "sentinels are still being asked where it is"


class Lost(NamedTuple):
    sentinel: tuple[str, int]


def seen_by(told: Sequence[tuple[tuple[str, int], int, int] | tuple[str, int] | Lost]) -> list[str]:
    """Where a node is, or why it is held, at first and after each of these: a sentinel, its epoch and the port that it
    tells; a sentinel that was tried; one that was lost."""

    async def run() -> list[str]:
        node = RedisNode("r1", "127.0.0.1", 1, LinkSettings(), Turn(asyncio.get_running_loop()))
        sentinels = Sentinels(SENTINELS, {"main": node}, LinkSettings())
        sentinels.start()
        seen = [node.why_down]
        for each in told:
            if isinstance(each, Lost):
                sentinels.lost(each.sentinel)
            elif len(each) == 2:
                sentinels.tried(each)
            else:
                sentinel, epoch, port = each
                sentinels.heard(sentinel, "main", epoch, "127.0.0.1", port)
            seen.append(node.why_down if node.port == 1 else f"at {node.port}")
        sentinels.close()
        node.close()
        return seen

    return asyncio.run(run())


def test_what_is_not_newer_does_not_count() -> None:
    begun = seen_by([A, B, C, (A, 3, 2), (B, 3, 2), (C, 2, 9), (C, 3, 9), (C, 4, 3), (A, 3, 2)])
    assert begun == [NOBODY, NOBODY, NOBODY, NOBODY, ONE, "at 2", "at 2", "at 2", "at 3", "at 3"]


def test_at_first_more_than_half_must_tell_and_the_newest_counts() -> None:
    assert seen_by([A, B, C, (A, 3, 7), (A, 3, 7), (B, 4, 8)]) == [NOBODY, NOBODY, NOBODY, NOBODY, ONE, ONE, "at 8"]
    assert seen_by([A, B, C, (A, 4, 8), (B, 3, 7)]) == [NOBODY, NOBODY, NOBODY, NOBODY, ONE, "at 8"]


def test_at_first_each_is_tried() -> None:
    """Two that have not heard of a failover yet are more than half."""
    assert seen_by([(A, 3, 7), A, (B, 3, 7), B, (C, 4, 8), C]) == [NOBODY, ONE, ONE, ASKED, ASKED, ASKED, "at 8"]
    assert seen_by([(A, 3, 7), A, (B, 3, 7), B, C]) == [NOBODY, ONE, ONE, ASKED, ASKED, "at 7"]


def test_at_first_those_count_that_can_be_asked() -> None:
    assert seen_by([A, B, Lost(C), (A, 3, 7), Lost(A), (B, 3, 7)]) == [NOBODY, NOBODY, NOBODY, NOBODY, ONE, NOBODY, ONE]


def test_text() -> None:
    assert text_of(b"$4\r\nmain\r\n") == "main"
