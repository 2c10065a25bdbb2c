"""Places in the order of a client's replies."""

from __future__ import annotations

from mypy_extensions import i64


class Taker:
    """Who waits for replies."""

    def __init__(self) -> None:
        self.touched = False  # `flush` is due
        self.held: i64 = 0  # bytes of replies that are kept for it, because others come before them

    def flush(self) -> bool:
        """Some of its slots have got something. True: no more for now, the link must not read on."""
        return False

    def wait_for_me(self, link: Holdable) -> None:
        """The link reads nothing until it is told to; after `flush` said so."""

    def abort(self, why: str) -> None:
        """A reply of which it has a part already will not be whole."""


class Holdable:
    """Something that can be told to read on."""

    def read_on(self) -> None:
        """The taker that it waited for takes replies again."""


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
