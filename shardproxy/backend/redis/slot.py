"""Places in the order of a client's replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mypy_extensions import i64


class Taker:
    """Who waits for replies. source: the link that gave it something last."""

    def __init__(self) -> None:
        self.touched = False  # `flush` is due at the end of this turn
        self.source: Holdable | None = None
        self.held: i64 = 0  # bytes of replies that are kept for it, because others come before them

    def flush(self) -> bool:
        """Some of its slots have got something. True: no more for now, the link must not read on."""
        return False

    def wait_for_me(self, link: Holdable) -> None:
        """The link reads nothing until it is told to; after `flush` said so."""

    def abort(self, why: str) -> None:
        """A reply of which it has a part already will not be whole."""


class Ear:
    """Who listens to a link of its own."""

    def heard(self, data: bytes) -> None:
        """A push message, or a reply that is due to nobody: whole."""

    def lost(self, link: Holdable, why: str) -> None:
        """The link broke, or could not be made: there is nothing more to hear."""


class Holdable:
    """A link, as far as a taker knows it."""

    def hold_for(self, taker: Taker) -> None:
        """Read nothing more until `read_on`."""

    def send(self) -> None:
        """Write what has come together in this turn."""

    def read_on(self) -> None:
        """The taker that it waited for takes replies again."""


class Turn:
    """What is to be written at the end of this turn of the event loop: it makes one system call of each write, and most
    of what a command costs are system calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due = False
        self._takers: list[Taker] = []
        self._links: list[Holdable] = []

    def touch(self, taker: Taker) -> None:
        """The taker has something to write."""
        if not taker.touched:
            taker.touched = True
            self._takers.append(taker)
            if not self._due:
                self._due = True
                self.loop.call_soon(self._end)

    def send(self, link: Holdable) -> None:
        """The link has something to send. To be called once a turn."""
        self._links.append(link)
        if not self._due:
            self._due = True
            self.loop.call_soon(self._end)

    def _end(self) -> None:
        self._due = False
        links = self._links
        if links:  # first: nodes work while we write to clients
            self._links = []
            for link in links:
                link.send()
        takers = self._takers
        if takers:
            self._takers = []
            for taker in takers:
                taker.touched = False
                if taker.flush():
                    source = taker.source
                    if source is not None:
                        source.hold_for(taker)


class Joint:
    """Makes one reply of several."""

    def came(self, slot: Slot) -> None:
        """One of them is whole."""


class Slot:
    """The place of some replies that come one after the other from one link, or of one of our own.

    left: replies still due. `first` and then `more` are the bytes so far; size: how many of them are kept here.
    whole: how many of all bytes belong to replies that are whole; told only while `partial`.
    """

    def __init__(self, taker: Taker | None, left: int) -> None:
        self.taker = taker
        self.left: i64 = left
        self.done = False
        self.first = b""
        self.more: list[bytes] | None = None
        self.size: i64 = 0
        self.written: i64 = 0
        self.whole: i64 = 0
        self.joint: Joint | None = None
        self.after: Slot | None = None  # the next in the client's order
        self.below: Slot | None = None  # the next in the link's order

    def add(self, data: bytes) -> None:
        """More bytes."""
        if self.more is not None:
            self.more.append(data)
        elif self.first:
            self.more = [data]
        else:
            self.first = data
        self.size += len(data)

    def take(self) -> bytes:
        """The bytes that are kept, which from now on are written."""
        data = self.first if self.more is None else b"".join([self.first, *self.more])
        self.first = b""
        self.more = None
        self.written += self.size
        self.size = 0
        return data

    def end_with(self, error: bytes) -> None:
        """The replies that are not whole will not come: each is this error. The taker is not told."""
        if self.written > self.whole:
            if self.taker is not None:
                self.taker.abort("a node broke in the middle of a reply")
        elif self.written + self.size > self.whole:
            kept = self.take()
            self.written -= len(kept)
            if self.taker is not None:
                self.taker.held -= len(kept)
            kept = kept[: self.whole - self.written]
            self._keep(kept)
        self._keep(error * int(self.left))
        self.left = 0
        self.done = True

    def _keep(self, data: bytes) -> None:
        if data:
            self.add(data)
            if self.taker is not None:
                self.taker.held += len(data)

    def settle(self, turn: Turn, reply: bytes) -> None:
        """Give the taker the whole reply, which is one of ours."""
        self.left = 0
        self.done = True
        self.add(reply)
        taker = self.taker
        if taker is not None:
            taker.held += len(reply)
            turn.touch(taker)


class Answer(Joint):
    """Gives one whole reply, or the error in its place, to `told`."""

    def __init__(self, told: Callable[[bytes], None]) -> None:
        self._told = told

    def came(self, slot: Slot) -> None:
        if slot.done:
            slot.joint = None
            self._told(slot.take())
