"""One worker process: event loop, listener, pools, plans. Started and told everything by the supervisor.

python -m shardproxy.app.worker CHANNEL_FD LISTENER_FD [REDIS_LISTENER_FD…]
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING

import uvloop

from shardproxy import logs
from shardproxy.app.channel import Channel, Message
from shardproxy.app.in_flight import InFlight, gives_away
from shardproxy.app.own_process import die_with_supervisor, unmap_code_of_the_start
from shardproxy.app.settings import WorkerSettings, client_tls, server_tls
from shardproxy.backend.dial import DialSettings, dial
from shardproxy.backend.gateway import Gateway, ScratchBounds
from shardproxy.backend.pool import Pool
from shardproxy.executor.commit import forget_decisions
from shardproxy.executor.deadlock import DeadlockWatch
from shardproxy.frontend.mysql.front import Front
from shardproxy.frontend.mysql.login import ChangeUser, ClientLogin
from shardproxy.planner.cache import PlanCache
from shardproxy.planner.context import PlanContext
from shardproxy.protocol.mysql.accounts import Account, decoy_account
from shardproxy.session.profile import Charsets
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.model import Server, Snapshot
from shardproxy.topology.schema import Catalog

if TYPE_CHECKING:
    from shardproxy.app.redis_port import RedisPort
    from shardproxy.protocol.mysql.rsa_exchange import RsaKey

log = logs.Log("worker")
BACKLOG = 4096


class LateRsaKey:
    """The proxy's RSA key, loaded with its library (9 MiB) when the first password comes encrypted by it."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    @cached_property
    def _key(self) -> RsaKey:
        from shardproxy.protocol.mysql.rsa_exchange import RsaKey

        return RsaKey(self._pem)

    def public_pem(self) -> bytes:
        return self._key.public_pem()

    def decrypt_password(self, ciphertext: bytes, nonce: bytes) -> bytes | None:
        return self._key.decrypt_password(ciphertext, nonce)


class Worker:
    """Implements frontend.mysql.front.Neighbours by way of the supervisor."""

    def __init__(
        self,
        settings: WorkerSettings,
        channel: Channel,
        listener: socket.socket,
        redis_listeners: Sequence[socket.socket] = (),
    ) -> None:
        self.settings = settings
        self._channel = channel
        self._listener = listener
        self._server: asyncio.Server | None = None
        self._kills: dict[int, asyncio.Future[bool]] = {}
        self._reloads: dict[int, asyncio.Future[None]] = {}
        self._requests = 0
        self._counted: dict[tuple[str, str, int], int] = {}
        self._misses = 0
        self._pinned: dict[str, int] = {}  # as last reported
        self._forgetting: asyncio.Task[None] | None = None
        self._deadlocks = DeadlockWatch()
        self.done = asyncio.Event()
        self.front = self._wire()
        self.redis = self._wire_redis(redis_listeners)
        self._in_flight = InFlight(self.front, lambda number, cut: self._channel.send("map_taken", number, cut))

    def _wire(self) -> Front:
        s = self.settings
        charsets = Charsets(s.collations)
        dialing = DialSettings(
            s.pool.user,
            s.pool.password,
            charsets,
            s.pool.connect_timeout,
            s.pool.tls,
            server_tls(s.pool.tls, s.pool.tls_ca),
        )
        self._slots: list[Server] = []

        def make_pool(server: Server) -> Pool:
            self._slots.append(server)
            return Pool(
                server,
                lambda pool, profile: dial(pool, profile, dialing),
                s.pool.size,
                s.pool.wait,
                len(self._slots) - 1,
                s.pool.shared_connections,
                s.pool.shared_depth,
            )

        bounds = ScratchBounds(
            s.pool.scratch_server, s.pool.scratch_rows, s.pool.scratch_bytes, s.pool.scratch_worker_bytes
        )
        gateway = Gateway(
            s.snapshot, make_pool, s.pool.max_lag, s.coordinator, scratch=bounds, sequence_block=s.pool.sequence_block
        )
        gateway.scatter_limit = s.pool.scatter_limit
        gateway.held_writes.timeout = s.pool.hold_timeout
        gateway.see(s.health)
        modes = SqlModes.parse(s.sql_mode)
        cached = s.cache.tables if s.cache is not None and s.cache.strict else frozenset()
        caching = s.cache.caching if s.cache is not None else None
        context = PlanContext(s.snapshot, s.catalog, None, modes, s.mariadb, cached, caching)
        plans = PlanCache(context, s.plan_cache, len(self._slots))
        known = list(s.accounts.values())

        def account(user: str) -> Account:
            return s.accounts.get(user) or decoy_account(user, known, s.decoy_key)

        return Front(
            s.index, gateway, plans, charsets, account, s.rights.__getitem__, s.limits, LateRsaKey(s.rsa_pem),
            s.server_version, modes, self, ChangeUser, client_tls(s.tls_cert, s.tls_key), s.require_tls,
            s.session_defaults,
        )  # fmt: skip

    def _wire_redis(self, listeners: Sequence[socket.socket]) -> RedisPort | None:
        if self.settings.redis is None:
            return None
        from shardproxy.app.redis_port import RedisPort  # memory that only who has the port needs

        s = self.settings
        port = RedisPort(s.index, self.settings.redis, listeners, s.cache, self.front.gateway)
        if s.cache is not None and port.front.rows is not None and any(rows.write for rows in s.cache.rows):
            from shardproxy.frontend.redis.row_writes import RowWriter

            port.front.rows.writer = RowWriter(self.front)
        if port.answers is not None:
            from shardproxy.frontend.mysql.kept import KeptAnswers

            self.front.kept = KeptAnswers(port.answers)
        voiding = port.voiding
        if voiding is not None:
            from shardproxy.frontend.mysql.strict import StrictSession

            self.front.strict = lambda client: StrictSession(client, voiding)
        return port

    async def serve(self) -> None:
        """Accept clients until drained."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientLogin(self.front), sock=self._listener, backlog=BACKLOG)
        if self.redis is not None:
            await self.redis.start()
        self._channel.send("ready")
        gc.collect()
        gc.freeze()  # what is alive now stays alive: no collection has to walk it again
        unmap_code_of_the_start()
        ticker = loop.create_task(self._tick())
        after = self.settings.pool.deadlock_after
        watch = loop.create_task(self._deadlocks.watch(self.front.gateway, self.settings.mariadb, after))
        await self.done.wait()
        ticker.cancel()
        watch.cancel()
        self.front.gateway.close()
        if self.redis is not None:
            self.redis.close()
        self.report()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        last = perf_counter()
        while True:
            await asyncio.sleep(1)
            now = perf_counter()
            sampled = self.front.gateway.load.take(now - last)
            last = now
            if sampled:
                self._channel.send("load", sampled)
            self.front.gateway.reap(now, self.settings.pool.max_idle)
            idle = self.front.limits.idle
            for client in list(self.front.clients.values()):
                if not client.busy and client.started and now - client.started > idle:
                    client.close()
            if self.front.gateway.ended and (self._forgetting is None or self._forgetting.done()):
                self._forgetting = loop.create_task(forget_decisions(self.front.gateway))
            self.report()

    # ── messages ──

    def receive(self, message: Message) -> None:
        match message:
            case ("health", health):
                self.front.gateway.see(health)
            case ("schema", number, snapshot, catalog):
                if self._renew(snapshot, catalog):
                    self._channel.send("schema_taken", number)
            case ("map", number, snapshot):
                before = self.front.gateway.snapshot
                if self._renew(snapshot, self.front.plans.context.catalog):
                    self._in_flight.adopted(number, snapshot, gives_away(before, snapshot))
            case ("redis_map", number, routing):
                if self.redis is not None:
                    self.redis.adopt(routing, lambda: self._channel.send("redis_taken", number))
            case ("kill", request, ident, query_only, user):
                self._channel.send("killed", request, self.front.kill_here(ident, query_only, user))
            case ("killed", request, done):
                waiting = self._kills.pop(request, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(done)
            case ("schema_seen", request):
                reload = self._reloads.pop(request, None)
                if reload is not None and not reload.done():
                    reload.set_result(None)
            case ("report", number):
                self.report(number)
            case ("drain",):
                self.drain()

    def _renew(self, snapshot: Snapshot, catalog: Catalog) -> bool:
        """Take a new map and catalog. A worker that cannot ends, and another takes its place."""
        try:
            self.front.gateway.adopt(snapshot)
        except ValueError as error:
            log.error("map_refused", error)
            self.drain()
            return False
        self.front.overtake()
        plans = self.front.plans
        plans.renew(replace(plans.context, snapshot=snapshot, catalog=catalog), len(self._slots))
        return True

    async def kill(self, ident: int, query_only: bool, user: str) -> bool:
        self._requests += 1
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._kills[self._requests] = waiting
        self._channel.send("find_and_kill", self._requests, ident, query_only, user)
        return await waiting

    async def schema_changed(self) -> None:
        self._requests += 1
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reloads[self._requests] = waiting
        self._channel.send("schema_changed", self._requests)
        await waiting

    # ── the end ──

    def drain(self) -> None:
        """Take no more clients; close idle ones; give transactions and running statements their time."""
        if self.front.draining:
            return
        self.front.draining = True
        if self._server is not None:
            self._server.close()
        self._listener.close()
        if self.redis is not None:
            self.redis.drain()
        asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout
        while loop.time() < deadline:
            redis_left = self.redis is not None and self.redis.close_idle()
            if not self.front.clients and not redis_left:
                break
            for client in list(self.front.clients.values()):
                if not client.busy and not client.session.in_transaction:
                    client.close()
            await asyncio.sleep(0.05)
        for client in list(self.front.clients.values()):
            client.abort()
        await asyncio.sleep(0)
        self.done.set()

    # ── counting ──

    def report(self, number: int = 0) -> None:
        """Fold what the hot path counted, and send the cumulative report. number: of the request that it answers."""
        front = self.front
        counters = front.counters
        for (kind, opcode), counts in front.plans.series.items():
            for slot, count in enumerate(counts):
                key = (kind.value, opcode.value, slot)
                new = count - self._counted.get(key, 0)
                if new:
                    server = self._slots[slot]
                    self._counted[key] = count
                    labels = (kind.value, opcode.value, server.shard, server.role.value)
                    counters.add("shardproxy_queries_total", labels, new)
        for opcode, seconds in front.plans.latencies.items():
            if seconds:
                counters.observe("shardproxy_query_seconds", (opcode.value,), seconds)
                seconds.clear()
        self._count_plans()
        self._count_pools()
        counters.add("shardproxy_xa_commits_total", (), self._new("xa commits", front.gateway.commits))
        counters.add("shardproxy_deadlocks_total", (), self._new("deadlocks", self._deadlocks.ended))
        counters.add("shardproxy_deadlock_looks_total", ("done",), self._new("looks", self._deadlocks.looks))
        counters.add("shardproxy_deadlock_looks_total", ("failed",), self._new("no looks", self._deadlocks.failed))
        scratch = front.gateway.scratch
        counters.add("shardproxy_scratch_queries_total", (), self._new("scratch queries", scratch.queries))
        counters.add("shardproxy_scratch_rows_total", (), self._new("scratch rows", scratch.gathered_rows))
        counters.add("shardproxy_scratch_bytes_total", (), self._new("scratch bytes", scratch.gathered_bytes))
        self._count_held()
        clients = front.clients.values()
        counters.set("shardproxy_clients", (str(self.settings.index),), len(clients))
        counters.set("shardproxy_transactions_open", (), sum(1 for c in clients if c.session.in_transaction))
        pinned = dict.fromkeys(self._pinned, 0)  # a reason that nobody has any more goes back to 0
        for client in clients:
            for reason in client.session.pins:
                pinned[reason.value] = pinned.get(reason.value, 0) + 1
        for name, count in pinned.items():
            counters.set("shardproxy_pinned_sessions", (name,), count)
        self._pinned = pinned
        if self.redis is not None:
            self.redis.count(counters)
        self._channel.send("report", counters.snapshot(), number)

    def _count_plans(self) -> None:
        plans, counters = self.front.plans, self.front.counters
        new = plans.misses - self._misses
        if new:
            counters.add("shardproxy_plan_cache_total", ("miss",), new)
            self._misses = plans.misses
        counters.add("shardproxy_plan_cache_total", ("hit",), self._new("hits", plans.hits))
        counters.add("shardproxy_connections_total", (), self._new("connections", self.front.accepted))
        counters.set("shardproxy_plan_cache_entries", (), len(plans))

    def _count_held(self) -> None:
        counters, held = self.front.counters, self.front.gateway.held_writes
        counters.add("shardproxy_writes_held_total", (), self._new("held writes", held.count))
        counters.add("shardproxy_moving_rollbacks_total", (), self._new("moving rollbacks", held.refused))
        counters.set("shardproxy_writes_held_now", (), len(held.now))
        counters.set("shardproxy_held_longest_seconds", (str(self.settings.index),), held.longest)
        seconds = held.take()
        if seconds:
            counters.observe("shardproxy_held_seconds", (), seconds)

    def _count_pools(self) -> None:
        counters = self.front.counters
        for name, pool in self.front.gateway.pools.items():
            idle = pool.idle_count
            shared = sum(len(stack) for stack in pool.shared.values())
            counters.set("shardproxy_pool_connections", (name, "idle"), idle)
            counters.set("shardproxy_pool_connections", (name, "shared"), shared)
            counters.set("shardproxy_pool_connections", (name, "busy"), len(pool.connections) - idle - shared)
            counters.add("shardproxy_pool_waits_total", (name,), self._new(f"waits {name}", pool.waits))
            counters.add("shardproxy_pool_timeouts_total", (name,), self._new(f"timeouts {name}", pool.timeouts))

    def _new(self, name: str, total: int) -> int:
        """How much a running total has grown beyond the most that it has ever been.

        Plan cache hits are a difference, and a run of statements that are planned and not routed makes it smaller.
        """
        key = (name, "", -1)
        known = self._counted.get(key, 0)
        if total <= known:
            return 0
        self._counted[key] = total
        return total - known


async def _main(channel_end: socket.socket, listener: socket.socket, redis: Sequence[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[WorkerSettings] = loop.create_future()
    worker: Worker | None = None
    early: list[Message] = []

    def receive(message: Message) -> None:
        if worker is not None:
            worker.receive(message)
        elif message[0] == "settings":
            first.set_result(message[1])
        else:
            early.append(message)

    def lost() -> None:
        # The supervisor is gone, and with it everything that watches over this process.
        if worker is not None:
            worker.settings = replace(worker.settings, drain_timeout=0.0)
            worker.drain()
        elif not first.done():
            first.cancel()

    channel = await Channel.over(channel_end, receive, lost)
    settings = await first
    logs.configure(settings.log_level, settings.log_format)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)  # the supervisor decides when workers end
    worker = Worker(settings, channel, listener, redis)
    for message in early:
        worker.receive(message)
    await worker.serve()
    channel.close()


def main() -> None:
    """Entry point of the worker process."""
    die_with_supervisor()
    channel_end = socket.socket(fileno=int(sys.argv[1]))
    listener = socket.socket(fileno=int(sys.argv[2]))
    gc.set_threshold(50_000, 20, 50)  # the hot path makes no cycles; look for them seldom
    redis = [socket.socket(fileno=int(number)) for number in sys.argv[3:]]
    uvloop.run(_main(channel_end, listener, redis))


if __name__ == "__main__":
    main()
