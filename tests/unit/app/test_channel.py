"""Messages come out of the channel as they went in, however the socket cuts them."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.app.channel import Channel, Message

MESSAGES = st.lists(
    st.lists(st.none() | st.integers() | st.text(max_size=9) | st.binary(max_size=300), max_size=3).map(tuple),
    max_size=6,
)


def framed(message: Message) -> bytes:
    data = pickle.dumps(message)
    return len(data).to_bytes(4, "little") + data


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 — of plain values
            await asyncio.sleep(0.001)


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=50)
def test_framing_in_any_pieces(messages: list[Message], sizes: list[int]) -> None:
    received: list[Message] = []
    channel = Channel(received.append, lambda: None)
    data = b"".join(map(framed, messages))
    turn = 0
    while data:
        size = sizes[turn % len(sizes)]
        channel.data_received(data[:size])
        data = data[size:]
        turn += 1
    assert received == messages


class Pair:
    """Two channels over a socket pair, and what each received."""

    def __init__(self) -> None:
        self.ends = socket.socketpair()
        self.received: tuple[list[Message], list[Message]] = ([], [])
        self.lost = [0, 0]

    async def open(self) -> tuple[Channel, Channel]:
        one, two = [await self._over(which) for which in (0, 1)]
        return one, two

    async def _over(self, which: int) -> Channel:
        def lost() -> None:
            self.lost[which] += 1

        return await Channel.over(self.ends[which], self.received[which].append, lost)


def test_messages_go_both_ways_in_order() -> None:
    async def run() -> None:
        pair = Pair()
        one, two = await pair.open()
        big: Any = {"rows": ["x" * 1000] * 3000}  # more than a socket buffer
        for i in range(100):
            one.send("count", i)
        one.send("big", big)
        two.send("back")
        await until(lambda: len(pair.received[1]) == 101 and bool(pair.received[0]))
        assert pair.received[1] == [*(("count", i) for i in range(100)), ("big", big)]
        assert pair.received[0] == [("back",)]
        one.close()
        await until(lambda: pair.lost == [1, 1])

    asyncio.run(run())


def test_what_was_sent_before_the_close_arrives() -> None:
    async def run() -> None:
        pair = Pair()
        one, _ = await pair.open()
        one.send("last", b"x" * 3_000_000)
        one.close()
        await until(lambda: pair.lost[1] == 1)
        assert pair.received[1] == [("last", b"x" * 3_000_000)]

    asyncio.run(run())


def test_sending_to_nobody_is_dropped() -> None:
    async def run() -> None:
        pair = Pair()
        one, two = await pair.open()
        two.close()
        await until(lambda: pair.lost == [1, 1])
        one.send("nobody hears")
        one.close()
        two.send("nor this")
        assert pair.received == ([], [])

    asyncio.run(run())


def test_an_end_that_dies_in_the_midst_of_a_message_is_lost() -> None:
    async def run() -> None:
        pair = Pair()
        await pair._over(1)
        pair.ends[0].sendall(framed(("whole",)) + framed(("torn", b"x" * 100))[:50])
        await until(lambda: bool(pair.received[1]))
        pair.ends[0].close()
        await until(lambda: pair.lost[1] == 1)
        assert pair.received[1] == [("whole",)]

    asyncio.run(run())
