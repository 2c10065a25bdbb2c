"""What a Redis client hears out of turn: messages of channels (SUBSCRIBE and its like), and MONITOR.

A channel is heard at the node where its name places it, as PUBLISH goes there; a pattern at all nodes, and so is what
nodes tell of their keys (`__keyspace@0__:…`, `__keyevent@0__:…`). To nodes it is always RESP3, where messages are told
from replies. When a node is lost its messages are too, and nobody knows which: the client is told, and closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import i64

from shardproxy.backend.redis.link import Link
from shardproxy.backend.redis.slot import Ear, Holdable, Slot
from shardproxy.planner.redis.spec import CommandSpec
from shardproxy.protocol.redis import encode
from shardproxy.topology.redis_ring import RedisRing

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient

_OF_KEYS: Final = (b"__keyspace@", b"__keyevent@")
_MESSAGES: Final = (b"message", b"pmessage", b"smessage")


class Channels(Ear):
    """Of one client. names: of channels, patterns and sharded channels, by the command's first letters: see `_kind`."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self.names: dict[bytes, dict[bytes, None]] = {b"": {}, b"P": {}, b"S": {}}
        self._size: i64 = 0  # bytes of all names
        self._links: dict[int, Link] = {}  # by place
        self._slot: Slot | None = None  # of the command whose confirmations are due
        self._missing = 0  # so many of them
        self._asked: list[bytes] = []  # that command's names …
        self._verb = b""  # … and its own
        self._held: list[bytes] = []  # messages, until it is clear what the client knows

    @property
    def any(self) -> bool:
        return any(self.names.values())

    @property
    def waits(self) -> bool:
        """For nodes' confirmations."""
        return self._missing > 0

    def do(self, spec: CommandSpec, args: list[bytes]) -> bool:
        """SUBSCRIBE, UNSUBSCRIBE and their like. False: nothing more is done until their reply is there."""
        client = self.client
        if client.waits_for_earlier():
            return False
        verb = spec.name
        known = self.names[_kind(verb)]
        ends = b"UNSUBSCRIBE" in verb
        names = args[1:]
        if ends and not names:
            names = list(known)
            if not names:
                client.reply(self._told(verb, None))
                return True
        full = b"" if ends else self._too_many(names, known)
        if full:
            client.reply(full)
            return True
        at: dict[int, list[bytes]] = {}
        for name in names:
            if ends and name not in known:
                continue
            for place in self._places(verb, name):
                at.setdefault(place, []).append(name)
        error = self._borrow(at)
        if error:
            client.reply(error)
            return True
        self._verb = verb
        self._asked = names
        self._slot = Slot(client, 1)
        client.append(self._slot)
        self._missing = 0
        for place, some in at.items():
            # Names that come twice are confirmed twice.
            self._missing += len(some)
            link = self._links[place]
            link.out.append(encode.command([verb, *some]))
            link.flush()
        if not self._missing:
            self._finish()
            return True
        client.wait_for_reply()
        return False

    def _too_many(self, names: list[bytes], known: dict[bytes, None]) -> bytes:
        """An error line when this client may not hear these too, with what to do; else empty."""
        count: i64 = 0
        size = self._size
        for heard in self.names.values():
            count += len(heard)
        for name in set(names):
            if name not in known:
                count += 1
                size += len(name)
        limits = self.client.front.limits
        if count > limits.channels:
            what = f"to {limits.channels} channels and patterns at most (redis.max_channels)"
        elif size > limits.buffer:
            what = f"to channels and patterns whose names have {limits.buffer} bytes at most (redis.client_buffer)"
        else:
            return b""
        return encode.error(
            f"ERR shardproxy lets one client listen {what}, nothing was subscribed: unsubscribe from some, or use one "
            "more connection"
        )

    def _places(self, verb: bytes, name: bytes) -> list[int]:
        front = self.client.front
        if _kind(verb) == b"P" or (_kind(verb) == b"" and name.startswith(_OF_KEYS)):
            return list(range(len(front.nodes)))
        return [front.ring.home_of(name)]

    def hears_moving(self, ring: RedisRing) -> bool:
        """Whether one of its channels goes to another node."""
        heard = [
            *self.names[b""],
            *self.names[b"S"],
            *(self._asked if self.waits and _kind(self._verb) != b"P" else ()),
        ]
        return ring.any_moves([name for name in heard if not name.startswith(_OF_KEYS)])

    def _borrow(self, at: dict[int, list[bytes]]) -> bytes:
        """Links to these places, or an error line and no more links than before."""
        new: dict[int, Link] = {}
        for place in at:
            if place not in self._links:
                own = self.client.front.nodes[place].own
                link = own.borrow(True)
                if link is None:
                    for other in new.values():
                        other.node.own.give_back(other)
                    return own.full_error
                new[place] = link
        for place, link in new.items():
            link.ear = self
            self._links[place] = link
        return b""

    def heard(self, data: bytes) -> None:
        """A message, or a confirmation."""
        if data.startswith(b"-"):
            self.client.break_off(f"a node refused {self._verb.decode()}: {data[1:-2].decode(errors='replace')}")
            return
        kind = _first_word(data)
        if kind in _MESSAGES:
            if self._missing and b"UNSUBSCRIBE" not in self._verb:
                self._held.append(data)
            else:
                self._push(data)
        elif self._missing and kind.upper() == self._verb:
            self._missing -= 1
            if not self._missing:
                self._finish()

    def _finish(self) -> None:
        """All nodes have confirmed."""
        verb = self._verb
        known = self.names[_kind(verb)]
        for name in self._asked:
            if b"UNSUBSCRIBE" not in verb:
                if name not in known:
                    self._size += len(name)
                    known[name] = None
            elif name in known:
                self._size -= len(name)
                del known[name]
            self._push(self._told(verb, name))
        held, self._held = self._held, []
        for data in held:
            self._push(data)
        client = self.client
        slot, self._slot = self._slot, None
        if slot is not None:  # what it says is pushed already
            slot.left = 0
            slot.done = True
        self._give_back()
        client.settled()
        client.turn.touch(client)

    def _give_back(self) -> None:
        used: set[int] = set()
        for kind, names in self.names.items():
            for name in names:
                used.update(self._places(kind, name))
                if len(used) == len(self._links):
                    return
        for place in [place for place in self._links if place not in used]:
            link = self._links.pop(place)
            link.node.own.give_back(link)

    def _told(self, verb: bytes, name: bytes | None) -> bytes:
        """A confirmation for the client, with the number of what it hears."""
        names = self.names
        count = len(names[b"S"]) if _kind(verb) == b"S" else len(names[b""]) + len(names[b"P"])
        resp3 = self.client.session.resp3
        what = encode.bulk(name, resp3)
        return b"%b3\r\n%b%b%b" % (b">" if resp3 else b"*", encode.bulk(verb.lower()), what, encode.integer(count))

    def _push(self, data: bytes) -> None:
        self.client.push(data if self.client.session.resp3 else b"*" + data[1:])

    def lost(self, link: Holdable, why: str) -> None:
        """A node's messages are lost from now on."""
        self.client.break_off(f"{why}; what it subscribed to there is not heard any more")

    def close(self) -> None:
        """Hear nothing any more."""
        links, self._links = self._links, {}
        for link in links.values():
            link.node.own.drop(link)


class Monitor(Ear):
    """MONITOR: what all nodes do, as they tell it: the addresses are the proxy's."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self._links: list[Link] = []
        self._missing = 0
        self._slot = Slot(client, 1)

    @property
    def waits(self) -> bool:
        """For nodes' confirmations."""
        return self._missing > 0

    def start(self) -> bool:
        """False: nothing more is done until all nodes have agreed; True: it was refused."""
        client = self.client
        for node in client.front.nodes:
            link = node.own.borrow(False)
            if link is None:
                self.close()
                client.reply(node.own.full_error)
                return True
            self._links.append(link)
        client.append(self._slot)
        self._missing = len(self._links)
        for link in self._links:
            link.ear = self
            link.out.append(encode.command([b"MONITOR"]))
            link.flush()
        client.wait_for_reply()
        return False

    def heard(self, data: bytes) -> None:
        """+OK, then lines."""
        client = self.client
        if data.startswith(b"-"):
            client.break_off(f"a node refused MONITOR: {data[1:-2].decode(errors='replace')}")
        elif not self._missing:
            client.push(data)
        elif data == encode.OK:
            self._missing -= 1
            if not self._missing:
                self._slot.left = 0
                self._slot.done = True
                client.push(encode.OK)

    def lost(self, link: Holdable, why: str) -> None:
        """A node tells nothing any more."""
        self.client.break_off(f"{why}; MONITOR shows all nodes or none")

    def close(self) -> None:
        """See nothing any more."""
        links, self._links = self._links, []
        for link in links:
            link.node.own.drop(link)


def _kind(verb: bytes) -> bytes:
    """Of channels: nothing, of patterns: P, of sharded channels: S."""
    if verb in (b"SUBSCRIBE", b"UNSUBSCRIBE", b""):
        return b""
    return verb[:1]


def _first_word(data: bytes) -> bytes:
    """Of a push message."""
    begin = data.find(b"\r\n", data.find(b"\r\n") + 2) + 2
    return data[begin : data.find(b"\r\n", begin)]
