"""Which reads of a client go to replicas."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from shardproxy.backend.redis.link import UP, Link
from shardproxy.backend.redis.node import RedisNode
from shardproxy.planner.redis.categories import CATEGORIES_OF
from shardproxy.planner.redis.spec import CommandSpec, Way

_READS = frozenset(name for name, categories in CATEGORIES_OF.items() if "read" in categories)


class ReplicaReads:
    """Of one client. replicas: of each node. max_lag: seconds. own_writes: reads see what the same client has written.
    number: the client's; it decides which of several replicas it has, as long as that one is fit.

    A client that has written reads from the primaries until a replica is known to be newer than the moment at which all
    of its replies had come.
    """

    def __init__(self, replicas: Sequence[Sequence[RedisNode]], max_lag: float, own_writes: bool, number: int) -> None:
        self._replicas = replicas
        self._max_lag = max_lag
        self._own_writes = own_writes
        self._number = number
        self._written = 0.0  # when it was seen last that all writes were answered
        self.writing = own_writes  # some may not be answered yet, perhaps from before there was this object

    def note(self, spec: CommandSpec) -> None:
        """A command comes. Of those on connections of their own, EXEC may write."""
        if spec.write or spec.way is Way.OWN:
            self.writing = self._own_writes

    def settled(self) -> None:
        """All commands so far have been answered."""
        self.writing = False
        self._written = monotonic()

    def link(self, spec: CommandSpec, place: int, resp3: bool, since: float) -> Link | None:
        """The connection for a command that the node at `place` has the keys of; None: that to the node itself. since:
        when the last keys had come there from other nodes: a replica that is not newer does not have them."""
        replicas = self._replicas[place]
        if not replicas or self.writing or spec.write or spec.name not in _READS:
            return None
        oldest = max(monotonic() - self._max_lag, self._written, since)
        for i in range(len(replicas)):
            replica = replicas[(self._number + i) % len(replicas)]
            if replica.complete_until is not None and replica.complete_until > oldest:
                link = replica.link(resp3, self._number)
                if link.state == UP and not link.full:
                    replica.reads += 1
                    return link
                replica.open(link)  # for the next one
        return None
