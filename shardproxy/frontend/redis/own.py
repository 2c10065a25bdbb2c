"""What a Redis client has for itself: a transaction, keys that it watches, a command that blocks, what it listens to.

A transaction is queued here and sent in one piece, so it needs no connection of its own. Watched keys do: as long as
there are some, all commands to their node go through that connection, in the client's order. A blocking command has one
for its time. Nothing of a client is done on two connections at once when the order matters: before and behind such a
command the client waits for its replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shardproxy.backend.redis.link import Link
from shardproxy.backend.redis.slot import Ear, Holdable, Joint, Slot
from shardproxy.executor.redis.joining import JoinedReply
from shardproxy.frontend.redis.channels import Channels, Monitor
from shardproxy.planner.redis.spec import CommandSpec, Join, arity_error, arity_fits, key_indexes, unknown_error
from shardproxy.planner.redis.waits import longest_wait
from shardproxy.protocol.redis import encode
from shardproxy.router.redis import APART, NOWHERE, apart_error, apart_line, place_of
from shardproxy.router.redis_multi import place_in_transaction
from shardproxy.topology.redis_ring import RedisRing

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient

_KEPT: Final = 64  # bytes, about, that a kept command costs beside its own
_QUEUED: Final = b"+QUEUED\r\n"
_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"
_UNWATCH: Final = b"*1\r\n$7\r\nUNWATCH\r\n"
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_SPUBLISH: Final = encode.command([b"SPUBLISH", b"__shardproxy:wait", b""])
_MOST: Final = encode.integer((1 << 63) - 1)
_NO_MULTI: Final = b"-ERR %b without MULTI\r\n"
_NESTED: Final = b"-ERR MULTI calls can not be nested\r\n"
_LATE_WATCH: Final = b"-ERR WATCH inside MULTI is not allowed\r\n"
_ABORTED: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
_TOO_LONG: Final = encode.error("ERR the transaction is longer than redis.max_command: send fewer commands in one")
_SYNTAX: Final = encode.error("ERR syntax error")
_NO_NUMBER: Final = encode.error("ERR value is not an integer or out of range")
_NO_REASON: Final = encode.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
_IN_MULTI: Final = (b"RESET", b"QUIT")
_WHILE_SUBSCRIBED: Final = (
    *(b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"),
    *(b"RESET", b"QUIT"),
)
_MOVED: Final = "TRYAGAIN its keys go, or have gone, from one node to another; nothing of it was done, send it again"
_WATCHES_APART: Final = b"the keys that are watched already are on another node"


class Own(Ear):
    """One client's. watching: the connection that watches keys, at place `watched_at`. lent: connections for the
    command that blocks, `blocks_on` its keys.

    takes_all: all commands come to `take` first. waits: a command blocks. holds: it would lose something if it were
    closed now, though it has all its replies.
    """

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self.watching: Link | None = None
        self.watched_at = NOWHERE
        self._void = ""  # why what was watched is not any more
        self._leaving = False  # nothing is watched any more, when the last reply is there
        self._watched: list[bytes] = []  # keys
        self.lent: list[Link] = []
        self.blocks_on: list[bytes] = []
        self._queue: list[bytes] | None = None  # the commands behind MULTI
        self._size = 0  # their bytes, and what it costs to keep them
        self._place = NOWHERE  # their node …
        self._keys: list[bytes] = []  # … because of these keys …
        self._ring: RedisRing = client.front.ring  # … as of this ring
        self._wrong = False  # one of them got an error
        self.channels: Channels | None = None
        self._monitor: Monitor | None = None
        self._last = b""  # the last command that was done here

    @property
    def takes_all(self) -> bool:
        return self._queue is not None or (self._subscribed and not self.client.session.resp3)

    @property
    def _subscribed(self) -> bool:
        return self.channels is not None and self.channels.any

    @property
    def listens(self) -> bool:
        """Whether it may be silent for as long as it likes."""
        return self._subscribed or self._monitor is not None

    @property
    def waits(self) -> bool:
        return bool(self.lent)

    @property
    def holds(self) -> bool:
        return self._queue is not None or self.watching is not None

    @property
    def listens_soon(self) -> bool:
        """Whether nodes still have to confirm that it listens."""
        by_channels = self.channels is not None and self.channels.waits
        return by_channels or (self._monitor is not None and self._monitor.waits)

    @property
    def flags(self) -> str:
        """As CLIENT LIST shows them."""
        shown = "O" if self._monitor is not None else ""
        shown += "P" if self._subscribed else ""
        return shown + ("x" if self._queue is not None else "") + ("b" if self.lent else "")

    @property
    def command(self) -> str:
        """What a client that blocks or listens does, as CLIENT LIST shows it; NULL for others."""
        return self._last.decode().lower() if self.lent or self.listens else "NULL"

    @property
    def queued(self) -> int:
        """Commands behind MULTI; -1 without MULTI."""
        return -1 if self._queue is None else len(self._queue)

    def takes(self, spec: CommandSpec | None, args: list[bytes]) -> bool:
        """Whether a command is not done as it is otherwise."""
        return spec is None or spec.name not in (_IN_MULTI if self._queue is not None else _WHILE_SUBSCRIBED)

    # Both: used: links with commands to flush. False: nothing more is done for now.

    def take(self, spec: CommandSpec | None, args: list[bytes], used: list[Link]) -> bool:
        """A command behind MULTI, or of a RESP2 client that is subscribed."""
        client = self.client
        if self._queue is None:
            client.reply(_subscribed_reply(spec, args))
            return True
        if spec is None:
            return self.refuse(unknown_error(args))
        name = spec.name
        fits = arity_fits(spec, args)
        if name == b"EXEC":
            self._wrong = self._wrong or not fits
            return self._exec(used)
        if not fits:
            return self.refuse(arity_error(spec))
        if name == b"DISCARD":
            self._queue = None
            client.settled()
            return self._unwatch(used)
        if name == b"MULTI" or name == b"WATCH":
            client.reply(_NESTED if name == b"MULTI" else _LATE_WATCH)
            return True
        rows = client.front.rows
        if rows is not None and (wrong := rows.not_in_transaction(spec, args)):
            return self.refuse(wrong)
        if client.front.puller is not None and client.waits_for_keys(spec, args):
            return False
        place, error = place_in_transaction(spec, args, client.front.ring, self._place)
        if error:
            return self.refuse(error)
        sent = client.sent()
        self._size += len(sent) + _KEPT
        if self._size > client.front.limits.max_command:
            self._queue = []
            return self.refuse(_TOO_LONG)
        self._place = place
        if self._queue is not None and not self._wrong:
            self._queue.append(sent)
            self._keys += [args[i] for i in key_indexes(spec, args)]
        client.reply(_QUEUED)
        return True

    def do(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """A command that needs more than the connections that all share."""
        client = self.client
        name = self._last = spec.name
        if name == b"MULTI":
            self._queue = []
            self._size = 0
            self._wrong = False
            self._place = self.watched_at
            self._keys = []
            self._ring = client.front.ring
            client.reply(encode.OK)
            client.settled()
            return True
        if name == b"EXEC" or name == b"DISCARD":
            client.reply(_NO_MULTI % name)
            return True
        if name == b"UNWATCH":
            return self._unwatch(used)
        if name == b"WATCH":
            return self._watch(spec, args, used)
        if name == b"WAIT" or name == b"WAITAOF":
            return self._wait(spec, args, used)
        if spec.blocks:
            return self._block(spec, args, used)
        if name == b"MONITOR":
            return self._watch_all()
        if name == b"CLIENT|UNBLOCK":
            return self._unblock(args, used)
        puller = client.front.puller
        if puller is not None and not puller.moves and client.waits_for_keys(spec, args):
            return False
        if self.channels is None:
            self.channels = Channels(client)
        return self.channels.do(spec, args)

    def refuse(self, error: bytes) -> bool:
        """A command is not done; behind MULTI none will be."""
        self._wrong = True
        self.client.reply(error)
        return True

    def _exec(self, used: list[Link]) -> bool:
        client = self.client
        queue = self._queue or []
        front = client.front
        place = self._place if self._place != NOWHERE else front.keyless_node(int(client.session.ident))
        link = client.links[place]
        if link.full or link.connects():
            client.stop_for(link)
            return False
        self._queue = None
        why = ""
        if self._void:
            why = f"what was watched is not any more: {self._void}"
        elif self._moved(place):
            why = _MOVED
        elif link.no_multi:
            why = f"node {link.node.name} ({link.node.address}) says {link.no_multi}"
        if self._wrong or why:
            self._void = ""
            client.settled()
            client.reply(_ABORTED if self._wrong else _aborted(why))
            if self.watching is not None:
                client.send(self.watching, Slot(None, 1), _UNWATCH, used)
            return self._leave()
        client.settled()
        if not queue and self.watching is None:
            client.reply(encode.array([]))
            return True
        whole = Slot(client, 1)
        begun = Slot(None, 1 + len(queue))
        begun.joint = _Begun(whole, len(queue))
        client.append(whole)
        link.expect(begun)
        link.expect(whole)
        if link.fresh == 0:
            used.append(link)
        link.fresh += 2 + len(queue)
        link.out.append(b"".join([_MULTI, *queue, _EXEC]))
        return self._leave()

    def _moved(self, place: int) -> bool:
        """Whether the keys behind MULTI may be at other places now than when they were queued."""
        front = self.client.front
        ring = front.ring
        if ring is self._ring and front.puller is None:
            return False
        return ring.single != self._ring.single or any(ring.node_of(key) != place for key in self._keys)

    def _send(self, link: Link, data: bytes, used: list[Link]) -> None:
        """One more command, even if the link is full: it is the client's own."""
        slot = Slot(self.client, 1)
        self.client.append(slot)
        self.client.send(link, slot, data, used)

    # ── watched keys ──

    def _watch(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        client = self.client
        if client.front.puller is not None and client.waits_for_keys(spec, args):
            return False
        place = place_of(spec, args, client.front.ring)
        if place == APART:
            client.reply(apart_error(spec, client.front.ring))
            return True
        if self._void:  # EXEC will say so
            client.reply(encode.OK)
            return True
        link = self.watching
        if link is not None:
            if place != self.watched_at:
                client.reply(apart_line(_WATCHES_APART, client.front.ring))
                return True
            if not client.forward(link, client.sent(), used):
                return False
            self._watched += args[1:]
            return True
        if client.waits_for_earlier():
            return False
        own = client.front.nodes[place].own
        link = own.borrow(client.session.resp3)
        if link is None:
            client.reply(own.full_error)
            return True
        link.ear = self
        self.watching = link
        self.watched_at = place
        self._watched = args[1:]
        client.settled()
        return client.forward(link, client.sent(), used)

    def _unwatch(self, used: list[Link]) -> bool:
        """Watch nothing any more, and answer +OK."""
        self._void = ""
        link = self.watching
        if link is None:
            self.client.reply(encode.OK)
            return True
        self._send(link, _UNWATCH, used)
        return self._leave()

    def _leave(self) -> bool:
        """What was sent last ends what is watched; other connections may do what comes after its reply."""
        if self.watching is None:
            return True
        self._leaving = True
        self.client.wait_for_reply()
        return False

    def _drop_watching(self) -> None:
        link, self.watching = self.watching, None
        self.watched_at = NOWHERE
        if link is not None:
            link.node.own.drop(link)

    def watches_moving(self, ring: RedisRing) -> bool:
        """Whether some of the watched keys go to another node."""
        return self.watching is not None and ring.any_moves(self._watched)

    def blocks_on_moving(self, ring: RedisRing) -> bool:
        """Whether it waits for keys that go to another node."""
        return bool(self.lent) and ring.any_moves(self.blocks_on)

    def lost(self, link: Holdable, why: str) -> None:
        """Keys of this node were watched."""
        if link is self.watching:
            self.watching = None
            self.watched_at = NOWHERE
            self._void = why
            self.client.settled()

    def _watch_all(self) -> bool:
        if self._monitor is not None:
            self.client.reply(encode.OK)
            return True
        if self.client.waits_for_earlier():
            return False
        monitor = Monitor(self.client)
        if monitor.start():
            return True
        self._monitor = monitor
        return False

    # ── blocking commands ──

    def _block(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        client = self.client
        front = client.front
        if front.puller is not None and client.waits_for_keys(spec, args):
            return False
        place = place_of(spec, args, front.ring)
        if place == APART:
            client.reply(apart_error(spec, client.front.ring))
            return True
        if client.waits_for_earlier():
            return False
        if place == NOWHERE:
            place = front.keyless_node(int(client.session.ident))
        own = front.nodes[place].own
        link = self.watching if place == self.watched_at else None
        if link is None:
            link = own.borrow(client.session.resp3)
            if link is None:
                client.reply(own.full_error)
                return True
        wait = longest_wait(spec, args)
        link.patience = 0.0 if wait is None else wait + link.node.settings.timeout
        self.lent.append(link)
        self.blocks_on = [args[i] for i in key_indexes(spec, args)]
        self._send(link, client.sent(), used)
        client.wait_for_reply()
        return False

    def _wait(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """WAIT, WAITAOF: the least of what all nodes say of the writes before it.

        A node counts replicas that have what its own connection did last, and so all that the node had written by then;
        and all earlier commands of this client have their replies. Up to Redis 7.0 that may be any command; later
        servers look at commands that replicas get, of which SPUBLISH to nobody is one that hurts nobody.
        """
        client = self.client
        if client.waits_for_earlier():
            return False
        links: list[Link] = []
        for node in client.front.nodes:
            link = node.own.borrow(client.session.resp3)
            if link is None:
                for other in links:
                    other.node.own.give_back(other)
                client.reply(node.own.full_error)
                return True
            links.append(link)
        name, milliseconds = spec.name, args[-1]
        whole = Slot(client, 1)
        client.append(whole)
        joint = JoinedReply(client.turn, whole, spec.join, [], args)
        parts = [joint.part() for _ in links]
        marks = [_Mark(joint, joint.part(), name == b"WAIT") for _ in links]
        sent = client.sent()
        for i in range(len(links)):
            link = links[i]
            endless = milliseconds == b"0" or not milliseconds.isdigit()
            link.patience = 0.0 if endless else int(milliseconds) / 1000 + link.node.settings.timeout
            client.send(link, Slot(None, 1), _PING, used)
            mark = Slot(None, 1)
            mark.joint = marks[i]
            client.send(link, mark, _SPUBLISH, used)
            client.send(link, parts[i], sent, used)
        self.lent = links
        self.blocks_on = []
        client.wait_for_reply()
        return False

    def _unblock(self, args: list[bytes], used: list[Link]) -> bool:
        """End another client's waiting: its nodes are told to, and say whether it did."""
        client = self.client
        if len(args) > 4 or not args[2].isdigit():
            client.reply(_NO_NUMBER if len(args) <= 4 else _SYNTAX)
            return True
        if len(args) == 4 and args[3].upper() not in (b"TIMEOUT", b"ERROR"):
            client.reply(_NO_REASON)
            return True
        other = client.front.clients.get(int(args[2]))
        links = other.own.ends_waiting() if other is not None and other.own is not None else []
        if not links:
            client.reply(encode.integer(0))
            return True
        whole = Slot(client, 1)
        client.append(whole)
        joint = JoinedReply(client.turn, whole, Join.MAX, [], args)
        parts = [joint.part() for _ in links]
        for i in range(len(links)):
            shared = links[i].node.link(client.session.resp3, client.session.ident)
            words = [b"CLIENT", b"UNBLOCK", b"%d" % links[i].ident, *args[3:]]
            client.send(shared, parts[i], encode.command(words), used)
        return True

    def ends_waiting(self) -> list[Link]:
        """The connections on which a command blocks, none if it is still on its way. They are not used again: a node
        may be told late to end what they do."""
        if not all(link.ident for link in self.lent):
            return []
        for link in self.lent:
            link.ended = True
        return list(self.lent)

    def tick(self, waited: float) -> None:
        """The client has waited so many seconds for one reply."""
        timeout = self.client.front.nodes[0].settings.timeout
        if waited > timeout and self.listens_soon:
            self.client.break_off(f"no node's word within {timeout:g} s that it listens")

    def go_on(self) -> None:
        """The client goes on. If it has waited for all replies, what it had for them goes back."""
        lent, self.lent = self.lent, []
        for link in lent:
            if link is self.watching:
                link.patience = link.node.settings.timeout
            else:
                link.node.own.give_back(link)
        if self._leaving:
            self._leaving = False
            self._void = ""
            link_or_none, self.watching = self.watching, None
            self.watched_at = NOWHERE
            if link_or_none is not None:
                link_or_none.node.own.give_back(link_or_none)
            self.client.settled()

    def close(self) -> None:
        """For good. A node must not give an element to somebody who is gone: connections are closed at once."""
        for link in self.lent:
            link.node.own.drop(link)
        self.lent = []
        self._drop_watching()
        self._queue = None
        if self.channels is not None:
            self.channels.close()
        if self._monitor is not None:
            self._monitor.close()


class _Mark(Joint):
    """The reply to what stands before WAIT. An error of it is WAIT's answer, but for servers that do not know it."""

    def __init__(self, joint: Joint, part: Slot, one_number: bool) -> None:
        self._joint = joint
        self._part = part
        self._well = _MOST if one_number else encode.array([_MOST, _MOST])

    def came(self, slot: Slot) -> None:
        if not slot.done:
            return
        data = slot.take()
        slot.joint = None
        refused = data[:1] == b"-" and not data.startswith(b"-ERR unknown command")
        self._part.add(data if refused else self._well)
        self._part.done = True
        self._joint.came(self._part)


class _Begun(Joint):
    """The replies to MULTI and to the queued commands. whole: EXEC's slot, whose EXECABORT gets the reason that is in
    these."""

    def __init__(self, whole: Slot, count: int) -> None:
        self._whole = whole
        self._count = count
        self._error = b""

    def came(self, slot: Slot) -> None:
        if not slot.done:
            return
        whole = self._whole
        data = slot.take()
        slot.joint = None
        if slot is whole:
            if data.startswith(b"-EXECABORT"):
                reply = _aborted(self._error.decode(errors="replace"))
                if slot.taker is not None:
                    slot.taker.held += len(reply) - len(data)
                data = reply
            slot.written = 0
            slot.add(data)
        elif data != encode.OK + _QUEUED * self._count:
            self._error = next((line[1:] for line in data.split(b"\r\n") if line.startswith(b"-")), b"previous errors")
            whole.joint = self


def _subscribed_reply(spec: CommandSpec | None, args: list[bytes]) -> bytes:
    """As Redis has it, for what is not _WHILE_SUBSCRIBED."""
    if spec is None:
        return unknown_error(args)
    if not arity_fits(spec, args) or (spec.name == b"PING" and len(args) > 2):
        return arity_error(spec)
    if spec.name == b"PING":
        return encode.array([encode.bulk(b"pong"), encode.bulk(args[1] if len(args) > 1 else b"")])
    return (
        b"-ERR Can't execute '%b': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
        b"context\r\n" % spec.name.lower()
    )


def _aborted(why: str) -> bytes:
    return encode.error(f"EXECABORT Transaction discarded because of: {why}")
