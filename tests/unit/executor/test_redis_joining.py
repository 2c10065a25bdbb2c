"""Replies of very many values are joined in slices of the loop, and are what they would be at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from shardproxy.backend.redis.slot import Slot, Turn
from shardproxy.executor.redis.joining import JoinedReply
from shardproxy.merge.redis_replies import join_split
from shardproxy.planner.redis.spec import Join
from shardproxy.router.redis import MANY, SLICE

COUNT = MANY + 1


def shares() -> list[list[int]]:
    """Which values each of three nodes has."""
    dice = random.Random(1)
    keys: list[list[int]] = [[], [], []]
    for number in range(COUNT):
        dice.choice(keys).append(number)
    return keys


def replies_for(keys: list[list[int]]) -> list[bytes]:
    return [b"*%d\r\n%b" % (len(some), b"".join(b":%d\r\n" % number for number in some)) for some in keys]


def joined(keys: list[list[int]], replies: list[bytes]) -> tuple[bytes, int]:
    """The reply for the client, and how often others had their turn meanwhile."""
    loop = asyncio.new_event_loop()
    turns = 0
    try:
        whole = Slot(None, 1)
        joint = JoinedReply(Turn(loop), whole, Join.LIST, keys)
        parts = [joint.part() for _ in keys]
        for part, reply in zip(parts, replies, strict=True):
            part.add(reply)
            part.done = True
            joint.came(part)
        while not whole.done:
            loop.call_soon(loop.stop)
            loop.run_forever()
            turns += 1
            assert turns < COUNT
        return whole.take(), turns
    finally:
        loop.close()


def test_many_values_are_in_their_order() -> None:
    keys = shares()
    replies = replies_for(keys)
    found, turns = joined(keys, replies)
    assert found == join_split(Join.LIST, replies, keys)
    assert turns >= COUNT // SLICE


def test_an_error_of_a_node_is_the_answer() -> None:
    keys = shares()
    replies = [*replies_for(keys)[:2], b"-LOADING\r\n"]
    assert joined(keys, replies)[0] == b"-LOADING\r\n"


@pytest.mark.parametrize("broken", [b"*1\r\n:1\r\n", b":1\r\n", b"+more\r\n"])
def test_a_reply_that_does_not_fit_is_an_error(broken: bytes) -> None:
    keys = shares()
    replies = replies_for(keys)
    replies[1] = broken if broken.startswith(b"*") else replies[1] + broken
    assert joined(keys, replies)[0].startswith(b"-ERR shardproxy cannot make one reply")
