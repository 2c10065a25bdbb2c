"""The way back of a Redis client's connection: replies in the order of its commands, and what comes out of turn."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from shardproxy import logs
from shardproxy.backend.redis.link import Waiter
from shardproxy.backend.redis.slot import Holdable, Slot, Turn
from shardproxy.backend.tls import Transport
from shardproxy.executor.redis.local_answers import RedisSession
from shardproxy.protocol.redis import encode

if TYPE_CHECKING:
    from shardproxy.frontend.redis.front import RedisFront

log = logs.Log("redis")

STREAMED: Final = 64 << 10  # a reply of which so much is there is written before it is whole
MANY: Final = 32768  # replies that one client may have due before it is read no further


class RedisReplies(Waiter):
    """What RedisClient is for nodes. Bytes that it does not take are bounded: replies wait at their nodes, and who does
    not take what it listens to is closed."""

    def __init__(self, front: RedisFront) -> None:
        super().__init__()
        self.front = front
        self.session = RedisSession(front.new_ident(), front.users)
        self.session.start()
        self.turn: Turn = front.turn
        self.transport: Transport | None = None
        self._head: Slot | None = None
        self._tail: Slot | None = None
        self._ended = False  # it says no more, or nothing more is listened to
        self._broken_off = False
        self._writing_paused = False
        self._waits: list[Holdable] = []
        self._stalled: float = 0.0  # since when links wait for it
        self._pushes: list[bytes] = []  # what it gets out of turn
        self._untaken: i64 = 0  # bytes of these, and of those that are written, as far as is known
        self._written: list[tuple[int, int]] = []  # of the latter: where in all that was sent they end, and size
        self._sent: i64 = 0  # bytes, so far
        self._due: i64 = 0  # slots
        self._crowded = False  # too much is kept behind a reply that is not there yet

    @property
    def busy(self) -> bool:
        return self._head is not None

    def append(self, slot: Slot) -> None:
        tail = self._tail
        if tail is None:
            self._head = slot
        else:
            tail.after = slot
        self._tail = slot
        self._due += 1

    def reply(self, reply: bytes) -> None:
        """A reply of our own, in its turn."""
        slot = Slot(self, 0)
        slot.done = True
        slot.add(reply)
        self.held += len(reply)
        self.append(slot)

    def later(self) -> Slot:
        """The place of a reply of our own that comes later."""
        slot = Slot(self, 1)
        self.append(slot)
        return slot

    def all_written(self) -> None:
        """There is no reply left to be written."""

    def thinned(self) -> None:
        """It is not crowded any more."""

    def flush(self) -> bool:
        transport = self.transport
        if transport is None:
            return False
        slot = self._head
        out: list[bytes] = []
        while slot is not None:
            if not slot.done:
                if slot.size >= STREAMED or (slot.written and slot.size):
                    self.held -= slot.size
                    out.append(slot.take())
                break
            self.held -= slot.size
            out.append(slot.first if slot.more is None else slot.take())
            slot = slot.after
            self._due -= 1
        pushed = b""
        if self._pushes and (slot is None or not slot.written):  # not into the middle of a reply
            pushed = b"".join(self._pushes)
            self._pushes = []
            out.append(pushed)
        self._head = slot
        if slot is None:
            self._tail = None
        if out:
            try:
                data = out[0] if len(out) == 1 else b"".join(out)
                self._sent += len(data)
                if pushed:
                    self._written.append((int(self._sent), len(pushed)))
                transport.write(data)
            except RuntimeError:  # uvloop's, when the socket has failed and it has not said so yet
                transport.abort()
                return False
        if slot is None:
            self.all_written()
        if self._crowded and not self._too_much():
            self._crowded = False
            self.thinned()
        if self._writing_paused or self.held > STREAMED:
            return self.held + transport.get_write_buffer_size() > self.front.limits.buffer
        if self._waits:
            self._release()
        return False

    def _too_much(self) -> bool:
        return self._due > MANY or self.held > self.front.limits.buffer

    def push(self, data: bytes) -> None:
        """Something that is no reply. Who does not take it is closed: nobody waits for it, and it has to be kept.

        Replies do not count: they wait at their nodes.
        """
        transport = self.transport
        if transport is None or self._broken_off:
            return
        self._pushes.append(data)
        self._untaken += len(data)
        taken = self._sent - transport.get_write_buffer_size()
        while self._written and self._written[0][0] <= taken:
            self._untaken -= self._written.pop(0)[1]
        if self._untaken > self.front.limits.buffer:
            self.front.slow_closed += 1
            self._broken_off = True
            self.abort("it has not taken what it listens to")
            return
        self.turn.touch(self)

    def break_off(self, why: str) -> None:
        """It cannot get what it was promised: it is told, and closed."""
        transport = self.transport
        if transport is None or self._broken_off:
            return
        self.flush()
        self._broken_off = self._ended = True
        log.warning("redis_client_closed", client=self.session.ident, reason=why)
        slot = self._head
        if slot is None or not slot.written:
            transport.write(encode.error(f"ERR shardproxy closes this connection: {why}"))
        transport.close()

    def wait_for_me(self, link: Holdable) -> None:
        if self.transport is None:
            link.read_on()
            return
        if not self._waits:
            self._stalled = monotonic()
        self._waits.append(link)

    def _release(self) -> None:
        waits, self._waits = self._waits, []
        for link in waits:
            link.read_on()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self, why: str) -> None:
        transport = self.transport
        if transport is not None:
            log.warning("redis_client_closed", client=self.session.ident, reason=why)
            transport.abort()
