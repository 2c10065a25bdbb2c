"""A connection to a node on which commands of many clients follow each other, and their replies too.

Or those of one client, for as long as it has the connection for itself: see own.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from shardproxy.backend.redis.slot import Ear, Holdable, Slot, Taker, Turn
from shardproxy.backend.tls import Transport
from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.replies import PUSH, ReplyScanner

if TYPE_CHECKING:
    from shardproxy.backend.redis.node import RedisNode

DOWN: Final = 0
CONNECTING: Final = 1
UP: Final = 2
_PING: Final = b"*1\r\n$4\r\nPING\r\n"


class Link(Holdable):
    """One connection, made anew when it breaks. An asyncio protocol by its methods, so that it can be compiled.

    full: no more commands for now; who has some waits with `when_free`. pending: replies due. fresh: commands put into
    `out` since the last `flush`. own: one client has it for itself, and knows what the node remembers of it; so it is
    never made anew. ear: who gets what is no reply to a command. patience: seconds without a reply after which an own
    link is given up; 0: endless.
    Nothing is ever sent twice: a command whose reply is lost is answered with an error, and so is one that comes while
    the node is down. Only commands that come while a connection is being made wait for it.
    """

    def __init__(self, node: RedisNode, resp3: bool, depth: int, own: bool = False) -> None:
        self.node = node
        self.resp3 = resp3
        self.own = own
        self.ear: Ear | None = None
        self.patience: float = node.settings.timeout
        self.no_multi = ""  # why the node takes no transactions
        self.ident = 0  # of an own link: the node's number for it, 0 if not known
        self.ended = False  # of an own link: the node was told to end what it does there, so it is not used again
        self.spent = ""  # of an own link: why it takes no more commands
        self.state = DOWN
        self.full = False
        self.pending: i64 = 0
        self.depth: i64 = depth
        self.fresh: i64 = 0
        self.out: list[bytes] = []  # commands of this turn, for `flush`
        self.received: i64 = 0  # reads so far, to see whether it is stuck
        self.held_by: Taker | None = None
        self.transport: Transport | None = None
        self._head: Slot | None = None
        self._tail: Slot | None = None
        self._scanner = ReplyScanner()
        self._part = b""  # the beginning of a line
        self._unasked: list[bytes] = []  # the beginning of what nobody asked for
        self._paused = False
        self._waiting: list[Waiter] = []
        self._turn: Turn = node.turn
        self._sending = False
        self.name = b""  # that the node lists the present connection under

    # ── commands ──

    def expect(self, slot: Slot) -> None:
        """Replies to what is put into `out` next go to this slot. Its `left` may grow until `flush`."""
        slot.below = None
        tail = self._tail
        if tail is None:
            self._head = slot
        else:
            tail.below = slot
        self._tail = slot

    def flush(self) -> None:
        """Send what is in `out`, at the end of this turn."""
        self.pending += self.fresh
        self.fresh = 0
        if self.pending >= self.depth:
            self.full = True
        if not self._sending:
            self._sending = True
            self._turn.send(self)

    def send(self) -> None:
        self._sending = False
        if self.state == CONNECTING or not self.out:
            return  # goes out, in order, when the connection is made
        if self.spent:
            self.lose(f"{self.spent}; the command was not sent")
            return
        if self.state == DOWN:
            self.node.open(self)
            if self.state == DOWN:
                why = self.node.why_down or "the proxy ends"
                self.end(why)
                self.lose(f"{why}; the command was not sent")
            return
        out, self.out = self.out, []
        transport = self.transport
        if transport is None:
            return
        try:
            transport.write(out[0] if len(out) == 1 else b"".join(out))
        except RuntimeError:  # uvloop's, when the socket has failed and it has not said so yet
            self.node.loop.call_soon(self.connection_lost, None)

    @property
    def last(self) -> Slot | None:
        """Of the replies that are due, where the last ones go."""
        return self._tail

    def ping(self) -> None:
        """Ask for a sign of life, to be seen in `received`."""
        self.expect(Slot(None, 1))
        self.out.append(_PING)
        self.fresh += 1
        self.flush()

    def connects(self) -> bool:
        """Begin to connect if there is no connection. Whether it is being made: `when_free` tells when that ends."""
        if self.state == DOWN and not self.spent:
            self.node.open(self)
        return self.state == CONNECTING

    def when_free(self, waiter: Waiter) -> None:
        """Tell once when the link is not full any more."""
        self._waiting.append(waiter)

    # ── replies ──

    def data_received(self, data: bytes) -> None:
        self.received += 1
        if self._part:
            data = self._part + data
            self._part = b""
        try:
            self._read(data)
        except RemoteProtocolError as error:
            self.fail(f"broke the protocol: {error}")
        if self.full and self.pending < self.depth and not self._paused:
            self._free()

    def _read(self, data: bytes) -> None:
        size: i64 = len(data)
        pos: i64 = 0
        begin: i64 = 0
        scanner = self._scanner
        slot = self._head
        while pos < size:
            end = scanner.scan(data, pos)
            if end < 0:
                at = scanner.at
                if slot is not None and scanner.kind != PUSH:
                    if pos > begin:
                        slot.whole = slot.written + slot.size + pos - begin
                    if at > begin:
                        self._give(slot, data[begin:at])
                else:
                    if slot is not None and pos > begin:
                        self._give(slot, data[begin:pos])
                        slot.whole = slot.written + slot.size
                    if at > pos and self.ear is not None:
                        self._unasked.append(data[pos:at])
                self._part = data[at:]
                self._head = slot
                return
            scanner.due = 1
            if scanner.kind == PUSH or (slot is None and self.ear is not None):
                if slot is not None and pos > begin:
                    self._give(slot, data[begin:pos])
                    slot.whole = slot.written + slot.size
                if self.ear is not None:
                    self._hear(data[pos:end])
                begin = end
                pos = end
                scanner.kind = 0
                continue
            scanner.kind = 0
            pos = end
            if slot is None:
                raise RemoteProtocolError("a reply that nobody asked for")
            slot.left -= 1
            self.pending -= 1
            if slot.left == 0:
                below = slot.below
                slot.below = None
                self._head = below
                if below is None:
                    self._tail = None
                slot.done = True
                self._give(slot, data if begin == 0 and pos == size else data[begin:pos])
                begin = pos
                slot = below
        if slot is not None and pos > begin:  # some of the slot's replies, all whole
            self._give(slot, data[begin:pos])
            slot.whole = slot.written + slot.size

    def _give(self, slot: Slot, data: bytes) -> None:
        taker = slot.taker
        joint = slot.joint
        if taker is None and joint is None:
            return  # its client is gone
        slot.add(data)
        if joint is not None and slot.done:
            joint.came(slot)
        if taker is not None:
            taker.held += len(data)
            taker.source = self
            self._turn.touch(taker)

    def _hear(self, data: bytes) -> None:
        if self._unasked:
            data = b"".join([*self._unasked, data])
            self._unasked = []
        if self.ear is not None:
            self.ear.heard(data)

    def hold_for(self, taker: Taker) -> None:
        if self.held_by is None and self.transport is not None:
            self.held_by = taker
            self.transport.pause_reading()
            taker.wait_for_me(self)

    def read_on(self) -> None:
        if self.held_by is not None:
            self.held_by = None
            if self.transport is not None:
                self.transport.resume_reading()

    # ── the connection ──

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        """The node takes commands slowly."""
        self._paused = True
        self.full = True

    def resume_writing(self) -> None:
        self._paused = False
        if self.pending < self.depth:
            self._free()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.fail("closed the connection" + (f" ({exc})" if exc else ""))

    def expect_first(self, slot: Slot) -> None:
        """The reply that comes before all others, while connecting."""
        slot.below = self._head
        self._head = slot
        if self._tail is None:
            self._tail = slot
        self.pending += slot.left

    def ready(self) -> None:
        """The connection is made and logged in: what came meanwhile goes out."""
        self.state = UP
        out, self.out = self.out, []
        if out and self.transport is not None:
            self.transport.write(b"".join(out))
        if self._waiting and self.pending < self.depth:
            self._free()

    def fail(self, why: str) -> None:
        """Give the connection up: every command whose reply is not whole gets an error."""
        transport, self.transport = self.transport, None
        if transport is None:
            return
        transport.abort()
        if self.pending and self.name:
            self.node.ghosts.add(self.name)
        self.state = DOWN
        self._scanner = ReplyScanner()
        self._part = b""
        self._paused = False
        self.held_by = None
        self._unasked = []
        self.node.lost(self, why)
        self.end(why)
        self.lose(f"{why} while this command was running; whether it ran is not known")

    def end(self, why: str) -> None:
        """An own link takes no more commands; who listens to it is told. Before `lose`, which lets clients go on."""
        if self.own:
            self.node.own.forget(self)
            self.spent = why
            ear, self.ear = self.ear, None
            if ear is not None:
                ear.lost(self, f"node {self.node.name} ({self.node.address}): {why}")

    def drop(self) -> None:
        """Close an own link at once. Replies that are due do not come, and nobody is told."""
        transport, self.transport = self.transport, None
        if self.pending and self.name:
            self.node.ghosts.add(self.name)
        self.state = DOWN
        self.spent = "its connection was closed"
        self.ear = None
        self.held_by = None
        self._head = self._tail = None
        self.out = []
        self.pending = 0
        if transport is not None:
            transport.abort()

    def lose(self, why: str) -> None:
        """Answer all commands with an error."""
        message = encode.error(f"ERR node {self.node.name} ({self.node.address}): {why}")
        slot, self._head, self._tail = self._head, None, None
        self.out = []
        self.pending = 0
        while slot is not None:
            below, slot.below = slot.below, None
            slot.end_with(message)
            if slot.joint is not None:
                slot.joint.came(slot)
            if slot.taker is not None:
                self._turn.touch(slot.taker)
            slot = below
        self._free()

    def _free(self) -> None:
        self.full = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.go_on()


class Waiter(Taker):
    """Someone with commands for a link that is full."""

    def go_on(self) -> None:
        """The link takes commands again; perhaps not for long."""

    def refuse(self, error: bytes) -> None:
        """It has waited long enough: the command gets this reply, and the next one may come."""

    def wanted_keys(self) -> list[bytes]:
        """Keys of the command that waits that are on their way."""
        return []


class Greeting(Taker):
    """Waits for the replies to some commands of our own, such as what a connection begins with."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.slot = Slot(self, count)
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def flush(self) -> bool:
        if self.slot.done and not self.future.done():
            self.future.set_result(self.slot.take())
        return False


async def ask(link: Link, words: Sequence[bytes]) -> bytes:
    """The reply to a command of our own, behind all that is on its way; an error of the node's or ours too."""
    greeting = Greeting(1)
    link.expect(greeting.slot)
    link.fresh += 1
    link.out.append(encode.command(words))
    link.flush()
    return await greeting.future
