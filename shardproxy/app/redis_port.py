"""The Redis port of one worker: its nodes, its clients, its listeners."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import cast

from shardproxy.app.settings import RedisWorkerSettings, client_tls
from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.slot import Turn
from shardproxy.counters import Counters
from shardproxy.frontend.redis.connection import RedisClient
from shardproxy.frontend.redis.front import RedisFront, RedisLimits
from shardproxy.topology.redis_routing import Routing

TICK = 0.25  # seconds
BACKLOG = 4096


class RedisPort:
    """Serves from `start` to `close`."""

    def __init__(self, worker: int, settings: RedisWorkerSettings, listeners: Sequence[socket.socket]) -> None:
        s = settings
        assert s.routing is not None
        links = LinkSettings(
            s.connections, s.depth, s.connect_timeout, s.timeout, s.user, s.password, None, s.name, s.identity
        )
        turn = Turn(asyncio.get_running_loop())
        nodes = [RedisNode(name, host, port, links, turn) for name, host, port in s.nodes]
        limits = RedisLimits(
            s.max_command, s.max_clients, s.client_buffer, s.client_stall, s.idle_timeout, s.hold_timeout
        )
        self.front = RedisFront(worker, turn, nodes, s.routing, s.users, limits)
        self._settling: set[asyncio.Task[None]] = set()
        self._worker = str(worker)
        self._listeners = listeners
        self._tls = client_tls(s.tls_cert, s.tls_key)
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.Task[None] | None = None
        self._counted: dict[str, int] = {}

    async def start(self) -> None:
        """Accept clients."""
        loop = asyncio.get_running_loop()
        for node in self.front.nodes:
            node.start()
        for sock in self._listeners:
            tls = self._tls if sock.family != socket.AF_UNIX else None
            make = cast("Callable[[], asyncio.Protocol]", lambda: RedisClient(self.front))  # by its methods
            self._servers.append(await loop.create_server(make, sock=sock, ssl=tls, backlog=BACKLOG))
        self._ticker = loop.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.front.tick(monotonic())

    def adopt(self, routing: Routing, settled: Callable[[], None]) -> None:
        """Route by this map from now on. settled: called when nothing that was sent under an older one is in flight."""
        self.front.adopt(routing)
        task = asyncio.get_running_loop().create_task(self._settle(settled))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, settled: Callable[[], None]) -> None:
        await asyncio.gather(*(node.settle() for node in self.front.nodes))
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
        for node in front.nodes:
            counters.set("shardproxy_redis_node_up", (node.name, self._worker), float(node.up))
            self._add(counters, "shardproxy_redis_node_failures_total", (node.name,), node.failures)

    def _add(self, counters: Counters, name: str, labels: tuple[str, ...], total: int) -> None:
        key = name + "".join(labels)
        new = total - self._counted.get(key, 0)
        if new:
            self._counted[key] = total
            counters.add(name, labels, new)
