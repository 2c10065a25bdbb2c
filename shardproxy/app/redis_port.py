"""The Redis port of one worker: its nodes, its clients, its listeners."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, cast

from shardproxy.app.settings import RedisWorkerSettings, client_tls, server_tls
from shardproxy.backend.gateway import Gateway
from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.replication import Replication
from shardproxy.backend.redis.sentinels import Sentinels
from shardproxy.backend.redis.slot import Turn
from shardproxy.cache.patterns import CacheSettings
from shardproxy.counters import Counters
from shardproxy.frontend.redis.connection import RedisClient
from shardproxy.frontend.redis.front import RedisFront, RedisLimits
from shardproxy.frontend.redis.settling import end_listeners, settle_own
from shardproxy.planner.redis.permissions import Permissions
from shardproxy.topology.redis_ring import RedisRing
from shardproxy.topology.redis_routing import Routing

if TYPE_CHECKING:
    from shardproxy.cache.answers import Answers
    from shardproxy.cache.row_cache import RowCache
    from shardproxy.cache.voiding import Voiding

TICK = 0.25  # seconds
READS_WAIT = 0.5  # seconds that replicas may take for what they read, when keys begin to move
BACKLOG = 4096


class RedisPort:
    """Serves from `start` to `close`."""

    def __init__(
        self,
        worker: int,
        settings: RedisWorkerSettings,
        listeners: Sequence[socket.socket],
        cache: CacheSettings | None = None,
        gateway: Gateway | None = None,
    ) -> None:
        s = settings
        links = LinkSettings(
            connections=s.connections,
            own=s.own_connections,
            depth=s.depth,
            connect_timeout=s.connect_timeout,
            timeout=s.timeout,
            user=s.user,
            password=s.password,
            tls=server_tls(s.tls, s.tls_ca),
            eject_after=s.eject_after,
            name=s.name,
            identity=s.identity,
        )
        # Others than those of clients are not ended when the proxy is shut out: they have no keys that move. Those to
        # replicas are: there are no keys that have gone elsewhere, and a proxy that does not know that would say so.
        unnamed = replace(links, name="")
        turn = Turn(asyncio.get_running_loop())
        routing = s.routing
        assert routing is not None
        places = self._places(s.nodes, routing) if not s.sentinels else s.nodes
        nodes = [RedisNode(name, host, port, links, turn) for name, host, port in places]
        limits = RedisLimits(
            s.max_command, s.max_clients, s.client_buffer, s.client_stall, s.idle_timeout, s.hold_timeout,
            s.max_channels,
        )  # fmt: skip
        permissions = {name: Permissions(rules) for name, rules in s.rules.items()}
        self.front = RedisFront(worker, turn, nodes, routing, s.users, limits, permissions, s.weights, s.cache)
        self._settling: set[asyncio.Task[None]] = set()
        replicas = [
            [RedisNode(f"{node.name}/replica{n}", *address, links, turn) for n, address in enumerate(some, 1)]
            for node, some in zip(nodes, s.replicas, strict=True)
        ]
        self.front.read_from(replicas, s.replica_readers, s.max_replica_lag)
        watched = [i for i in range(len(nodes)) if replicas[i] and s.replica_readers]
        self._replication = [Replication(nodes[i], replicas[i]) for i in watched]
        self._sentinels = (
            Sentinels(s.sentinels, dict(zip(s.watched, nodes, strict=True)), links) if s.sentinels else None
        )
        self.cache: RowCache | None = None
        self.answers: Answers | None = None
        self.voiding: Voiding | None = None
        if cache is not None and gateway is not None:
            from shardproxy.cache.node import CacheNode
            from shardproxy.cache.row_cache import RowCache
            from shardproxy.frontend.redis.rows import RowCommands

            # One connection of its own to each node: it must know which process is behind it.
            alone = replace(unnamed, connections=1)
            own = [CacheNode(name, host, port, alone, turn) for name, host, port in s.nodes]
            self.cache = RowCache(cache, own, RedisRing(s.owners), gateway)  # the keeper's ring
            self.front.rows = RowCommands(self.cache, turn)
            if cache.queried:
                from shardproxy.cache.answers import Answers

                self.answers = Answers(cache, own, RedisRing(s.owners), gateway)
            if cache.strict:
                from shardproxy.cache.voiding import Voiding

                self.voiding = Voiding(cache, own, RedisRing(s.owners))
        self._worker = str(worker)
        self._listeners = listeners
        self._tls = client_tls(s.tls_cert, s.tls_key)
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.Task[None] | None = None
        self._counted: dict[str, int] = {}

    @staticmethod
    def _places(nodes: Sequence[tuple[str, str, int]], routing: Routing) -> Sequence[tuple[str, str, int]]:
        """Where the nodes are: the file's addresses, but for those whose replica was promoted."""
        found = list(nodes)
        for place, host, port in routing.moved:
            found[place] = (found[place][0], host, port)
        return found

    async def start(self) -> None:
        """Accept clients."""
        loop = asyncio.get_running_loop()
        if self._sentinels is not None:
            self._sentinels.start()
        for node in [*self.front.all_nodes(), *(self.cache.nodes if self.cache else ())]:
            node.start()
        for replication in self._replication:
            replication.start()
        for sock in self._listeners:
            tls = self._tls if sock.family != socket.AF_UNIX else None
            make = cast("Callable[[], asyncio.Protocol]", lambda: RedisClient(self.front))  # by its methods
            self._servers.append(await loop.create_server(make, sock=sock, ssl=tls, backlog=BACKLOG))
        self._ticker = loop.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.front.tick(monotonic())
            if self.cache is not None:
                for node in self.cache.nodes:
                    node.tick()

    def adopt(self, routing: Routing, settled: Callable[[], None]) -> None:
        """Route by this map from now on. settled: called when nothing that was sent under an older one is in flight."""
        self.front.adopt(routing)
        if self._sentinels is None:  # they know better
            for place, host, port in routing.moved:
                self.front.nodes[place].move(host, port)
        moving = self.front.ring if routing.waiting and not routing.pulls else self.front.come_home
        if moving is not None:
            end_listeners(self.front, moving)
        task = asyncio.get_running_loop().create_task(self._settle(moving, settled))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, moving: RedisRing | None, settled: Callable[[], None]) -> None:
        if moving is not None:
            await settle_own(self.front, moving)
        reads = [replica.settle_reads(READS_WAIT) for some in self.front.replicas for replica in some]
        await asyncio.gather(*(node.settle() for node in self.front.nodes), *reads)
        settled()

    def drain(self) -> None:
        """Take no more clients; those that wait for nothing are closed."""
        self.front.draining = True
        for server in self._servers:
            server.close()
        self.close_idle()

    def close_idle(self) -> bool:
        """Close clients that wait for nothing. Whether any are left."""
        for client in list(self.front.clients.values()):
            client.close_when_idle()
        return bool(self.front.clients)

    def close(self) -> None:
        """For good."""
        if self._ticker is not None:
            self._ticker.cancel()
        for replication in self._replication:
            replication.close()
        if self._sentinels is not None:
            self._sentinels.close()
        if self.answers is not None:
            self.answers.close()
        if self.cache is not None:
            self.cache.close()
        for task in self._settling:
            task.cancel()
        self.front.close()

    def count(self, counters: Counters) -> None:
        """Put what was counted since the last call into the worker's counters."""
        front = self.front
        counters.set("shardproxy_redis_clients", (self._worker,), len(front.clients))
        self._add(counters, "shardproxy_redis_commands_total", (), int(front.commands))
        self._add(counters, "shardproxy_redis_connections_total", (), front.accepted)
        self._add(counters, "shardproxy_redis_slow_clients_closed_total", (), front.slow_closed)
        puller = front.puller
        pulled, held = (puller.pulled, puller.held) if puller is not None else (0, 0)
        self._add(counters, "shardproxy_redis_keys_pulled_total", (), front.pulled + pulled)
        self._add(counters, "shardproxy_redis_commands_held_total", (), front.held + held)
        now = monotonic()
        for some in front.replicas:
            for replica in some:
                self._add(counters, "shardproxy_redis_replica_reads_total", (replica.name,), replica.reads)
                if replica.complete_until is not None:
                    lag = now - replica.complete_until
                    counters.set("shardproxy_redis_replica_lag_seconds", (replica.name, self._worker), lag)
        for node in front.all_nodes():
            counters.set("shardproxy_redis_node_up", (node.name, self._worker), float(node.up))
            self._add(counters, "shardproxy_redis_node_failures_total", (node.name,), node.failures)
            counters.set("shardproxy_redis_node_ejected", (node.name, self._worker), float(node.ejected))
            self._add(counters, "shardproxy_redis_node_ejections_total", (node.name,), node.ejections)
        for node in front.nodes:
            counters.set("shardproxy_redis_own_connections", (node.name, self._worker), len(node.own.taken))
            self._add(counters, "shardproxy_redis_own_connections_refused_total", (node.name,), node.own.refused)
        if self.cache is not None:
            for outcome, total in {"hit": self.cache.hits, **self.cache.counts}.items():
                self._add(counters, "shardproxy_cache_reads_total", (outcome,), total)
            for labels, total in self.cache.sampler.counts.items():
                self._add(counters, "shardproxy_cache_samples_total", labels, total)
            for name, ages in self.cache.sampler.ages.items():
                counters.observe("shardproxy_cache_staleness_seconds", (name,), ages)
                ages.clear()
        if self.answers is not None:
            for outcome, total in {"hit": self.answers.hits, **self.answers.counts}.items():
                self._add(counters, "shardproxy_cache_queries_total", (outcome,), total)
        if self.voiding is not None:
            for what, total in self.voiding.counts.items():
                self._add(counters, "shardproxy_cache_voided_total", (what,), total)

    def _add(self, counters: Counters, name: str, labels: tuple[str, ...], total: int) -> None:
        key = name + "".join(labels)
        new = total - self._counted.get(key, 0)
        if new:
            self._counted[key] = total
            counters.add(name, labels, new)
