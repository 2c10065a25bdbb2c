"""Connections to a node that one client has for itself, for a while: what it does there would hinder the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shardproxy.backend.redis.link import UP, Link
from shardproxy.protocol.redis import encode

if TYPE_CHECKING:
    from shardproxy.backend.redis.node import RedisNode

KEPT: Final = 16  # idle ones, of each protocol version


class OwnLinks:
    """Those to one node, of one worker. most: how many there may be. taken: by clients. refused: clients, so far."""

    def __init__(self, node: RedisNode, most: int) -> None:
        self.node = node
        self.most = most
        self.taken: set[Link] = set()
        self.refused = 0
        self._idle: dict[bool, list[Link]] = {False: [], True: []}
        self._seen: dict[Link, tuple[int, float]] = {}  # reads, and since when there are no more

    @property
    def full_error(self) -> bytes:
        """For who gets none."""
        return encode.error(
            f"ERR node {self.node.name} ({self.node.address}): all {self.most} connections for clients that need "
            "one of their own are taken; raise redis.own_connections, or have fewer that block, watch or subscribe"
        )

    def borrow(self, resp3: bool) -> Link | None:
        """A link on which nothing is due and of which the node remembers nothing; None: `full_error`.

        It connects when it is first used, if it has not yet. It comes back by `give_back` or `drop`, or breaks.
        """
        idle = self._idle[resp3]
        if idle:
            link = idle.pop()
        else:
            other = self._idle[not resp3]
            if len(self.taken) + len(other) >= self.most:
                if not other:
                    self.refused += 1
                    return None
                self.node.abandon(other.pop())
            link = Link(self.node, resp3, self.node.settings.depth, own=True)
        link.patience = self.node.settings.timeout
        self.taken.add(link)
        return link

    def give_back(self, link: Link) -> None:
        """The node remembers nothing of the client: no watched keys, no channels. Else: `drop`."""
        idle = self._idle[link.resp3]
        clean = link.state == UP and not link.pending and not link.out and link.held_by is None
        clean = clean and not link.ended
        if link not in self.taken or not clean or len(idle) >= KEPT:
            self.drop(link)
            return
        self.forget(link)
        link.ear = None
        idle.append(link)

    def drop(self, link: Link) -> None:
        """Close it at once: what is due on it is not wanted."""
        self.forget(link)
        self.node.abandon(link)

    def forget(self, link: Link) -> None:
        """It broke, or has left."""
        self.taken.discard(link)
        self._seen.pop(link, None)
        idle = self._idle[link.resp3]
        if link in idle:
            idle.remove(link)

    def tick(self, now: float) -> None:
        """To be called about once a second: links that are stuck are given up."""
        for link in list(self.taken):
            reads, since = self._seen.get(link, (-1, now))
            waits = link.state == UP and link.pending > 0 and link.held_by is None and link.patience > 0
            if not waits or reads != link.received:
                self._seen[link] = (int(link.received), now)
            elif now - since > link.patience:
                link.fail(f"gave no reply for {link.patience:g} s")

    def leave(self, why: str) -> None:
        """The node does not answer, or is elsewhere: who has a connection is told that it broke."""
        for idle in self._idle.values():
            for link in list(idle):
                self.drop(link)
        for link in list(self.taken):
            self.node.give_up(link, why)

    def close(self) -> None:
        """For good."""
        for link in [*self.taken, *self._idle[False], *self._idle[True]]:
            self.drop(link)
