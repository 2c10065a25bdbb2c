"""A Redis client's connection: its commands go to nodes as they came, its replies come back in its order.

Commands that follow each other to one node are one run: one slice of the client's bytes and one slot for the replies.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from shardproxy import logs
from shardproxy.backend.redis.link import Link, Waiter
from shardproxy.backend.redis.slot import Holdable, Slot, Turn
from shardproxy.backend.tls import Transport
from shardproxy.executor.redis.joining import JoinedReply
from shardproxy.executor.redis.local_answers import RedisSession, answer
from shardproxy.planner.redis.spec import (
    CommandSpec,
    Join,
    Way,
    arity_error,
    arity_fits,
    key_indexes,
    refusal_error,
    unknown_error,
)
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.commands import BROKEN, FOUND, CommandScanner
from shardproxy.router.redis import APART, NOWHERE, apart_error, hindrance, place_of, split
from shardproxy.router.redis_scan import scan_target

if TYPE_CHECKING:
    from shardproxy.frontend.redis.front import RedisFront

log = logs.Log("redis")

STREAMED: Final = 64 << 10  # a reply of which so much is there is written before it is whole
_NO_CURSOR = b"-ERR invalid cursor\r\n"
_NO_AUTH = encode.error("NOAUTH Authentication required.")
_BEFORE_LOGIN = (b"AUTH", b"HELLO", b"QUIT", b"RESET")
_CHANGES_ORDER = (b"HELLO", b"RESET")  # replies of what stands before them come from other connections
# These see, or end, all keys of one moment, and while keys go from node to node there is no such moment.
_OVER_KEYS = (b"KEYS", b"DBSIZE", b"RANDOMKEY", b"FLUSHALL", b"FLUSHDB")
_KEYS_MOVE = encode.error(
    "TRYAGAIN keys are being moved between nodes: this command needs them all to stand still; SCAN works meanwhile"
)
_TOO_MANY = encode.error("ERR max number of clients reached")


class RedisClient(Waiter):
    """One client; an asyncio protocol by its methods, so that it can be compiled."""

    def __init__(self, front: RedisFront) -> None:
        super().__init__()
        self.front = front
        self.session = RedisSession(front.new_ident(), front.users)
        self.session.start()
        self.active = monotonic()
        self._transport: Transport | None = None
        self._scanner = CommandScanner(front.limits.max_command, self.session.user is not None)
        self._turn: Turn = front.turn
        self._links: list[Link] = []
        self._open = self.session.user is not None
        self._head: Slot | None = None
        self._tail: Slot | None = None
        self._again = False  # the command that was found last is still to be done
        self._stopped = False  # nothing is done until go_on
        self._barrier = False  # … which is when all replies have been written
        self._late: list[bytes] = []  # received while stopped
        self._ended = False  # it says no more, or nothing more is listened to
        self._writing_paused = False
        self._reading_paused = False
        self._waits: list[Holdable] = []
        self._stalled: float = 0.0  # since when links wait for it
        self._renew_links()

    @property
    def busy(self) -> bool:
        return self._head is not None

    def _renew_links(self) -> None:
        self._links = [node.link(self.session.resp3, self.session.ident) for node in self.front.nodes]
        self._links.append(self.front.nowhere)

    # ── asyncio.Protocol ──

    def connection_made(self, transport: Transport) -> None:
        front = self.front
        self._transport = transport
        front.accepted += 1
        if len(front.clients) >= front.limits.max_clients or front.draining:
            transport.write(_TOO_MANY)
            transport.close()
            self._ended = True
            return
        front.clients[self.session.ident] = self

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._stopped:
            self._late.append(data)
            return
        self._scanner.feed(data)
        self._work()

    def eof_received(self) -> bool:
        """What it has asked for is still answered: `redis-cli --pipe` and `nc` end like this."""
        self._ended = self._ended or not self._stopped
        if self._stopped:
            self.session.closing = True
        if self._head is None and not self._stopped:
            return False
        self.session.closing = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._transport = None
        self.front.clients.pop(self.session.ident, None)
        slot, self._head, self._tail = self._head, None, None
        while slot is not None:  # nodes go on: their replies go nowhere
            slot.taker = None
            slot.take()
            after, slot.after = slot.after, None
            slot = after
        self._release()

    def pause_writing(self) -> None:
        """It takes its replies slowly: no more of its commands until it has."""
        self._writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._release()
        if not self._stopped:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._ended:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._writing_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    # ── commands ──

    def _work(self) -> None:
        """Do all commands that are whole."""
        scanner = self._scanner
        simple = self.front.simple
        links = self._links
        ring = self.front.ring
        used: list[Link] = []
        data = scanner.data
        slot: Slot | None = None  # of the present run
        run: Link | None = None
        begin: i64 = 0
        end: i64 = 0
        done: i64 = 0
        while True:
            if self._again:
                self._again = False
            else:
                found = scanner.next()
                if found != FOUND:
                    if found == BROKEN:
                        self._broken(scanner.error)
                    break
            if scanner.data is not data:  # lines were rewritten: the run's bytes are in the old buffer
                if run is not None:
                    run.out.append(data[begin:end])
                    run = None
                data = scanner.data
            if scanner.count > 1 and self._open and data[scanner.name : scanner.name_end] in simple:
                link = links[ring.node_of(data[scanner.key : scanner.key_end])]
                if link is run and slot is not None:
                    slot.left += 1
                else:
                    if link.full:
                        self._stop_for(link)
                        break
                    if run is not None:
                        run.out.append(data[begin:end])
                    run = link
                    begin = scanner.start
                    slot = Slot(self, 1)
                    self._append(slot)
                    link.expect(slot)
                    if link.fresh == 0:
                        used.append(link)
                link.fresh += 1
                end = scanner.end
                done += 1
                continue
            if run is not None:
                run.out.append(data[begin:end])
                run = None
            if not self._other(used):
                break
            done += 1
            links = self._links
            if self._ended:
                break
        if run is not None:
            run.out.append(data[begin:end] if begin or end < len(data) else data)
        for link in used:
            link.flush()
        self.front.commands += done
        self.active = monotonic()
        head = self._head
        if head is not None and head.done:
            self._turn.touch(self)
        elif self._ended and head is None:
            self._close()

    def _append(self, slot: Slot) -> None:
        tail = self._tail
        if tail is None:
            self._head = slot
        else:
            tail.after = slot
        self._tail = slot

    def _answer(self, reply: bytes) -> None:
        """A reply of our own, in its turn."""
        slot = Slot(self, 0)
        slot.done = True
        slot.add(reply)
        self.held += len(reply)
        self._append(slot)

    def _broken(self, why: str) -> None:
        self._answer(encode.error(f"ERR Protocol error: {why}"))
        self._end()

    def _end(self) -> None:
        """Nothing more is listened to; the connection is closed behind the last reply."""
        self._ended = True
        self._late = []
        self.session.closing = True

    def _other(self, used: list[Link]) -> bool:
        """Do a command that is not simple. used: links with commands to flush. False: it has to wait."""
        front = self.front
        scanner = self._scanner
        args = scanner.arguments()
        spec = front.splits.get(args[0])
        if spec is not None and self._open and len(args) >= -spec.min_args:
            return self._split(spec, args, used)
        spec = front.spec_of(args)
        if not self._open and (spec is None or spec.name not in _BEFORE_LOGIN):
            self._answer(_NO_AUTH)
            return True
        if spec is None:
            self._answer(unknown_error(args))
            return True
        if not arity_fits(spec, args):
            self._answer(arity_error(spec))
            return True
        way = spec.way
        if way is Way.LOCAL:
            return self._local(spec, args)
        if way is Way.KEYED:
            return self._keyed(spec, args, used)
        if way is Way.SPLIT:
            return self._split(spec, args, used)
        if spec.join is Join.CURSOR:
            return self._scan(spec, args, used)
        if way is Way.EVERY and not spec.blocks:
            return self._every(spec, args, used)
        if way is Way.ANY:
            return self._forward(self._links[front.any_node(int(self.session.ident))], self._sent(), used)
        if way is Way.REFUSED:
            self._answer(refusal_error(spec))
            return True
        shown = spec.name.decode().replace("|", " ")
        reason = "it needs a connection of its own" if way is Way.OWN else "it goes through all nodes"
        self._answer(encode.error(f"ERR shardproxy does not do {shown} yet: {reason}"))
        return True

    def _sent(self) -> bytes:
        """The command that was found, as the client has sent it."""
        scanner = self._scanner
        return scanner.data[scanner.start : scanner.end]

    def _local(self, spec: CommandSpec, args: list[bytes]) -> bool:
        if spec.name in _CHANGES_ORDER and self._head is not None and not self._all_done():
            self._again = True
            self._barrier = True
            self._stop()
            return False
        session = self.session
        self._answer(answer(session, args))
        self._open = self._scanner.trusted = session.user is not None
        self._renew_links()
        if session.closing:
            self._end()
        return True

    def _all_done(self) -> bool:
        slot = self._head
        while slot is not None:
            if not slot.done:
                return False
            slot = slot.after
        return True

    def _keyed(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        if self.front.puller is not None and self._waits_for_keys(spec, args):
            return False
        place = place_of(spec, args, self.front.ring)
        if place == APART:
            self._answer(apart_error(spec))
            return True
        hindered = hindrance(spec, args, self.front.ring)
        if hindered:
            shown = spec.name.decode().replace("|", " ")
            self._answer(encode.error(f"ERR shardproxy does not do this {shown}: {hindered}"))
            return True
        if place == NOWHERE:
            place = self.front.any_node(int(self.session.ident))
        return self._forward(self._links[place], self._sent(), used)

    def _forward(self, link: Link, data: bytes, used: list[Link]) -> bool:
        """Send a whole command to one node."""
        if link.full:
            self._stop_for(link)
            return False
        slot = Slot(self, 1)
        self._append(slot)
        self._send(link, slot, data, used)
        return True

    def _send(self, link: Link, slot: Slot, data: bytes, used: list[Link]) -> None:
        link.expect(slot)
        if link.fresh == 0:
            used.append(link)
        link.fresh += 1
        link.out.append(data)

    def _split(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """Give each node its keys, in the client's own bytes; the replies are joined when all are there."""
        if self.front.puller is not None and self._waits_for_keys(spec, args):
            return False
        nodes, words, keys = split(spec, args, self._scanner.pieces(), self.front.ring)
        if not nodes:
            self._answer(arity_error(spec))
            return True
        links = [self._links[node] for node in nodes]
        if len(links) == 1:
            return self._forward(links[0], self._sent(), used)
        if self._stops_for_any(links):
            return False
        whole = Slot(self, 1)
        self._append(whole)
        joint = JoinedReply(self._turn, whole, spec.join, keys)
        for i in range(len(links)):
            part = words[i]
            self._send(links[i], joint.part(), b"*%d\r\n%b" % (len(part), b"".join(part)), used)
        return True

    def _scan(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """Ask the node that the cursor names."""
        front = self.front
        if front.puller is not None and not front.puller.moves:
            self._stop_for(front.nowhere)
            return False
        target = scan_target(args, front.scan)
        if target is None:
            self._answer(_NO_CURSOR)
            return True
        node, words = target
        link = self._links[node]
        if link.full:
            self._stop_for(link)
            return False
        whole = Slot(self, 1)
        self._append(whole)
        joint = JoinedReply(self._turn, whole, spec.join, [], [b"%d" % node], front.scan)
        self._send(link, joint.part(), encode.command(words), used)
        return True

    def _every(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """Give each node the whole command."""
        puller = self.front.puller
        if puller is not None and spec.name in _OVER_KEYS:
            if not puller.moves:
                self._stop_for(self.front.nowhere)
                return False
            self._answer(_KEYS_MOVE)
            return True
        links = self._links[:-1]
        if self._stops_for_any(links):
            return False
        whole = Slot(self, 1)
        self._append(whole)
        joint = JoinedReply(self._turn, whole, spec.join, [], args)
        data = self._sent()
        for link in links:
            self._send(link, joint.part(), data, used)
        return True

    def _stops_for_any(self, links: list[Link]) -> bool:
        for link in links:
            if link.full:
                self._stop_for(link)
                return True
        return False

    # ── waiting ──

    def _stop_for(self, link: Link) -> None:
        """The command that was found last has to wait for a link."""
        self._again = True
        self._stop()
        link.when_free(self)

    def _waits_for_keys(self, spec: CommandSpec, args: list[bytes]) -> bool:
        """Whether some of a command's keys are on their way. Then it waits for them."""
        ring = self.front.ring
        for index in key_indexes(spec, args):
            if ring.waits(args[index]):
                self._stop_for(self.front.nowhere)
                return True
        return False

    def wanted_keys(self) -> list[bytes]:
        args = self._scanner.arguments()
        spec = self.front.spec_of(args)
        ring = self.front.ring
        return [] if spec is None else [args[i] for i in key_indexes(spec, args) if ring.waits(args[i])]

    def refuse(self, error: bytes) -> None:
        if self._again:
            self._again = False
            self._answer(error)
        self.go_on()

    def _stop(self) -> None:
        self._stopped = True
        self._pause_reading()

    def go_on(self) -> None:
        if self._transport is None or not self._stopped:
            return
        self._stopped = False
        self._work()
        while self._late and not self._stopped and not self._ended:
            self._scanner.feed(self._late.pop(0))
            self._work()
        if not self._stopped:
            self._resume_reading()

    # ── replies ──

    def flush(self) -> bool:
        transport = self._transport
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
        self._head = slot
        if slot is None:
            self._tail = None
        if out:
            try:
                transport.write(out[0] if len(out) == 1 else b"".join(out))
            except RuntimeError:  # uvloop's, when the socket has failed and it has not said so yet
                transport.abort()
                return False
        if slot is None:
            if self._barrier:
                self._barrier = False
                self.front.nodes[0].loop.call_soon(self.go_on)
            elif self._ended or (self.session.closing and not self._stopped):
                self._close()
        if self._writing_paused or self.held > STREAMED:
            return self.held + transport.get_write_buffer_size() > self.front.limits.buffer
        if self._waits:
            self._release()
        return False

    def wait_for_me(self, link: Holdable) -> None:
        if self._transport is None:
            link.read_on()
            return
        if not self._waits:
            self._stalled = monotonic()
        self._waits.append(link)

    def _release(self) -> None:
        waits, self._waits = self._waits, []
        for link in waits:
            link.read_on()

    def tick(self, now: float) -> None:
        """To be called about once a second."""
        limits = self.front.limits
        if self._waits and now - self._stalled > limits.stall:
            self.front.slow_closed += 1
            self.abort(f"it has not taken its replies for {limits.stall:g} s")
        elif self._head is None and now - self.active > limits.idle:
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def close_when_idle(self) -> None:
        """The worker drains."""
        if self._head is None and not self._stopped:
            self._close()

    def abort(self, why: str) -> None:
        transport = self._transport
        if transport is not None:
            log.warning("redis_client_closed", client=self.session.ident, reason=why)
            transport.abort()
