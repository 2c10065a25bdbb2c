"""What all Redis client connections of one worker share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from mypy_extensions import i64

from shardproxy.backend.redis.node import RedisNode
from shardproxy.backend.redis.nowhere import Nowhere
from shardproxy.backend.redis.slot import Turn
from shardproxy.executor.redis.pulling import Puller
from shardproxy.frontend.redis.replica_reads import ReplicaReads
from shardproxy.planner.redis.permissions import Permissions
from shardproxy.planner.redis.spec import CommandSpec, Way, find_spec
from shardproxy.planner.redis.table import SPECS
from shardproxy.router.redis import CHECKED
from shardproxy.router.redis_scan import scan_way
from shardproxy.topology.redis_ring import MovingRing, RedisRing, ring_by
from shardproxy.topology.redis_routing import Routing

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient
    from shardproxy.frontend.redis.rows import RowCommands

_SPELLINGS = 5000


@dataclass(frozen=True)
class RedisLimits:
    """max_command: bytes of one command. max_clients: of this worker. buffer: bytes of replies that may be kept for a
    client that does not take them. stall, idle: seconds; see config. hold: seconds that a command waits for keys that
    move. channels: that one client may listen to."""

    max_command: int
    max_clients: int
    buffer: int
    stall: float
    idle: float
    hold: float = 10.0
    channels: int = 100_000


def is_simple(spec: CommandSpec) -> bool:
    """Whether a command goes, as it is, to the node of its second word, whatever else it has."""
    one_key = spec.first == spec.last == 1 and spec.find is None
    return spec.way is Way.KEYED and one_key and b"|" not in spec.name and spec.name not in CHECKED


_SIMPLE = frozenset(name for name, spec in SPECS.items() if is_simple(spec))


def _simple_for(permissions: Permissions) -> set[bytes]:
    """Of the simple commands those that a user may run whatever they name."""
    found: set[bytes] = set()
    for name in _SIMPLE:
        spec = SPECS[name]
        limits = permissions.channels if spec.channels else permissions.keys
        if spec.name in permissions.names and limits is None:
            found.add(name)
    return found


class RedisFront:
    """One per worker. users: name → SHA-256 of the password. permissions: of users that have rules. weights: of the
    nodes by the names by which the ring knows them. cache: keys of a node that is ejected are on others as long as it
    is."""

    def __init__(
        self,
        worker: int,
        turn: Turn,
        nodes: Sequence[RedisNode],
        routing: Routing,
        users: Mapping[str, bytes],
        limits: RedisLimits,
        permissions: Mapping[str, Permissions],
        weights: Mapping[str, int],
        cache: bool,
    ) -> None:
        self.worker = worker
        self.turn = turn
        self.nodes = list(nodes)
        self._weights = weights
        self._cache = cache
        self._away: frozenset[int] = frozenset()
        self._at_home = False
        self.nowhere = Nowhere(self.nodes[0])
        self.pulled = 0  # keys that were moved for who wanted them, so far
        self.held = 0  # commands that waited for it, so far
        self.puller: Puller | None = None  # while keys move
        self.users = users
        self.limits = limits
        self.adopt(routing)
        self.simple = set(_SIMPLE)  # names of commands whose second word is their key, and that go there as they are
        self.permissions = permissions
        self.simple_for: dict[str, set[bytes]] = {user: _simple_for(permissions[user]) for user in permissions}
        self.replicas: list[list[RedisNode]] = [[] for _ in nodes]
        self.replica_readers: Mapping[str, bool] = {}
        self.max_replica_lag = 0.0
        self.splits: dict[bytes, CommandSpec] = {
            name: spec for name, spec in SPECS.items() if spec.way is Way.SPLIT and spec.min_args < 0
        }
        self.rows: RowCommands | None = None  # keys that are rows of MySQL
        self.clients: dict[int, RedisClient] = {}
        self.commands: i64 = 0  # so far
        self.accepted = 0
        self.slow_closed = 0  # clients closed because they did not take their replies
        self.draining = False
        self._next_ident = 0

    def adopt(self, routing: Routing) -> None:
        """Route by this map from now on. What was sent under the one before may still be in flight."""
        before, self.puller = self.puller, None
        was, self._at_home = self._away, routing.at_home
        self._away = self._find_away()
        # Keys that were on others, and are at home again though their node is away.
        self.come_home: RedisRing | None = None
        if was and routing.at_home:
            ring = ring_by(routing)
            theirs = [n for n in range(len(ring.owners)) if ring.owners[n] in was]
            self.come_home = MovingRing(ring, theirs, 0, len(self.nodes))
        self.since = monotonic()  # which is when keys have come to nodes at which they were not before
        count, last = len(self.nodes), routing.last
        self.scan = scan_way(count, last, routing.source, routing.target) if routing.pulls else scan_way(count, last)
        if routing.waiting:
            moving = MovingRing(ring_by(routing), routing.waiting, routing.target, len(self.nodes))
            self.ring: RedisRing = moving
            self.puller = Puller(moving, routing, self.nodes, self.limits.hold)
            self.nowhere.wait = self.puller.wait
        else:
            self._whole_ring = ring_by(routing)
            self.ring = self._whole_ring.without(self._away, self._weights)
        if before is not None:
            self.pulled += before.pulled
            self.held += before.held
            before.retire()

    def spec_of(self, args: Sequence[bytes]) -> CommandSpec | None:
        """What is known of a command. Spellings of simple ones are noted: see `simple`."""
        spec = find_spec(args)
        if spec is not None and is_simple(spec) and len(self.simple) < _SPELLINGS:
            self.simple.add(args[0])
        return spec

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

    def keyless_node(self, first: int) -> int:
        """For a command that names no keys: the node that has all of them, else some node. first: as for `any_node`."""
        return self.ring.node_of(b"") if self.ring.single else self.any_node(first)

    def tick(self, now: float) -> None:
        """To be called about once a second."""
        if self.puller is not None:
            self.puller.tick()
        for node in self.all_nodes():
            node.tick()
        if self._cache:
            self._find_ring()
        for client in list(self.clients.values()):
            client.tick(now)

    def read_from(self, replicas: Sequence[Sequence[RedisNode]], readers: Mapping[str, bool], max_lag: float) -> None:
        """Let some users read from replicas. replicas: of each node; readers: user → whether it sees its own writes at
        once; max_lag: seconds. To be called before there are clients."""
        self.replicas = [list(some) for some in replicas]
        self.replica_readers = readers
        self.max_replica_lag = max_lag

    def reads_of(self, user: str | None, ident: int) -> ReplicaReads | None:
        """How a client's reads go to replicas; None: they do not."""
        if user is None or user not in self.replica_readers:
            return None
        return ReplicaReads(self.replicas, self.max_replica_lag, self.replica_readers[user], ident)

    def all_nodes(self) -> list[RedisNode]:
        """With replicas."""
        found = list(self.nodes)
        for some in self.replicas:
            found += some
        return found

    def _find_away(self) -> frozenset[int]:
        """Nodes whose keys are on others now."""
        if not self._cache or self._at_home:
            return frozenset()
        return frozenset([place for place in range(len(self.nodes)) if self.nodes[place].ejected])

    def _find_ring(self) -> None:
        away = self._find_away()
        if away != self._away:
            self._away = away
            self.ring = self._whole_ring.without(away, self._weights)

    def close(self) -> None:
        """For good."""
        for client in list(self.clients.values()):
            client.abort("the proxy ends")
        for node in self.all_nodes():
            node.close()
