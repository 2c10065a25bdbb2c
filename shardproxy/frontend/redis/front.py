"""What all Redis client connections of one worker share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mypy_extensions import i64

from shardproxy.backend.redis.node import RedisNode
from shardproxy.backend.redis.slot import Turn
from shardproxy.planner.redis.spec import CommandSpec, Way, find_spec
from shardproxy.topology.redis_ring import RedisRing

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient

_ROUTES = 2000  # names kept, in all their spellings


@dataclass(frozen=True)
class RedisLimits:
    """max_command: bytes of one command. max_clients: of this worker. buffer: bytes of replies that may be kept for a
    client that does not take them. stall, idle: seconds; see config."""

    max_command: int
    max_clients: int
    buffer: int
    stall: float
    idle: float


class Route:
    """What to do with a command of this name. simple: its key is its second word, and it goes there as it is."""

    def __init__(self, spec: CommandSpec | None) -> None:
        self.spec = spec
        self.simple = (
            spec is not None
            and spec.way is Way.KEYED
            and spec.find is None
            and spec.first == spec.last == 1
            and spec.min_args >= 2
        )


class RedisFront:
    """One per worker. users: name → SHA-256 of the password."""

    def __init__(
        self,
        worker: int,
        turn: Turn,
        nodes: Sequence[RedisNode],
        ring: RedisRing,
        users: Mapping[str, bytes],
        limits: RedisLimits,
    ) -> None:
        self.worker = worker
        self.turn = turn
        self.nodes = list(nodes)
        self.ring = ring
        self.users = users
        self.limits = limits
        self.routes: dict[bytes, Route] = {}
        self.clients: dict[int, RedisClient] = {}
        self.commands: i64 = 0  # so far
        self.accepted = 0
        self.slow_closed = 0  # clients closed because they did not take their replies
        self.draining = False
        self._next_ident = 0

    def route(self, name: bytes, args: Sequence[bytes]) -> Route:
        """The route of a command; kept by its name when that says it all."""
        spec = find_spec(args)
        route = Route(spec)
        if spec is not None and b"|" not in spec.name and len(name) < 32:
            if len(self.routes) >= _ROUTES:
                self.routes.clear()
            self.routes[name] = route
        return route

    def new_ident(self) -> int:
        """A client's number, of this worker only."""
        while True:
            self._next_ident = self._next_ident % 0xFFFFFF + 1
            ident = self.worker << 24 | self._next_ident
            if ident not in self.clients:
                return ident

    def any_node(self, first: int) -> int:
        """Some node, one that is up if there is one."""
        count = len(self.nodes)
        return next((n % count for n in range(first, first + count) if self.nodes[n % count].up), first % count)

    def tick(self, now: float) -> None:
        """To be called about once a second."""
        for node in self.nodes:
            node.tick()
        for client in list(self.clients.values()):
            client.tick(now)

    def close(self) -> None:
        """For good."""
        for client in list(self.clients.values()):
            client.abort("the proxy ends")
        for node in self.nodes:
            node.close()
