"""The supervisor: owns the listening port, the health checks, the admin HTTP server and the metrics; starts workers,
replaces those that die, tells them what changes, and ends them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import uvloop
from aiohttp import web

import shardproxy
from shardproxy import logs
from shardproxy.admin.http import ExplainValue, make_app
from shardproxy.admin.metrics import Exposition, Totals, WorkerReport
from shardproxy.admin.recovery import Recovery
from shardproxy.admin.show.redis_map import redis_json
from shardproxy.admin.show.status import WorkerProcess, status_json
from shardproxy.admin.show.store import store_json
from shardproxy.admin.show.topology import topology_json
from shardproxy.app import silence
from shardproxy.app.cache_keeping import CacheKeeping, keeper_settings
from shardproxy.app.channel import Channel, Message
from shardproxy.app.definitions import Definitions
from shardproxy.app.explain import explain
from shardproxy.app.from_config import accounts_of, cache_of, greeted_version, limits_of, pool_of, redis_of, rights_of
from shardproxy.app.handover import Handover
from shardproxy.app.kills import Kills
from shardproxy.app.load_samples import LoadSamples
from shardproxy.app.map_watch import Documents, MapWatch
from shardproxy.app.redis_maps import CONNECTIONS, RedisMapWatch
from shardproxy.app.settings import RedisWorkerSettings, WorkerSettings, client_tls, server_tls
from shardproxy.app.system import ended, listen, listen_redis, raise_file_limit, resident_bytes
from shardproxy.app.worker_handle import WorkerHandle
from shardproxy.backend import health
from shardproxy.backend.control import Credentials
from shardproxy.config import Config
from shardproxy.counters import Counters
from shardproxy.errors import BackendError, ConfigError, ReshardError, SqlError, StoreError
from shardproxy.planner.context import PlanContext
from shardproxy.protocol.mysql.rsa_exchange import RsaKey
from shardproxy.reshard.eviction import seen_over
from shardproxy.router.balance import ServerHealth
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Server, Snapshot

log = logs.Log("supervisor")
SLOT = "supervisor"
CATALOG_RETRY = 1.0
SCHEMA_WAIT = 5.0
REPORT_WAIT = 1.0
KILL_WAIT = 3.0
PROOF_RETRY = 0.2  # seconds between two looks at a server that does not answer
LEAVE_WAIT = 3.0
CLEAN_ROUNDS = 60  # rounds of recovery between two looks for old decision rows


class Supervisor:
    """Implements admin.http.AdminControl."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._file_snapshot = build_snapshot(config)
        self.snapshot = self._file_snapshot  # the same, with the maps of the store
        self.totals = Totals()
        self.health: dict[str, ServerHealth] = {}
        self.workers: list[WorkerHandle] = []  # filled once: others keep the list itself
        self._credentials = Credentials.of(config)
        self._accounts = accounts_of(config)
        self._pool = pool_of(config)
        self._redis = redis_of(config)
        self._cache = cache_of(config, self._redis)
        self._keeping: CacheKeeping | None = None
        if self._cache is not None and self._redis is not None:
            settings = keeper_settings(config, self._cache, self._redis)
            self._keeping = CacheKeeping(settings, lambda: self.snapshot)
        self._exposition = Exposition(self.totals)
        self._counters = Counters()
        self._definitions = Definitions(
            self._file_snapshot, self._credentials, config.backend.connect_timeout, self._with_maps
        )
        self._why_not_ready = "the servers' table definitions have not been read yet"
        self._rsa = RsaKey()
        self._decoy_key = secrets.token_bytes(32)
        self._stopping = asyncio.Event()
        self._status = 0
        self._reported: asyncio.Event = asyncio.Event()  # every worker asked has answered the newest request
        self._report = 0  # number of the newest request for reports
        self._silent: set[int] = set()  # workers that have not answered it yet
        self._tasks: set[asyncio.Task[Any]] = set()
        self._kills = Kills(self.workers)
        self._recovery = Recovery(
            self.snapshot,
            self._credentials,
            config.backend.connect_timeout,
            secrets.token_hex(6),
            config.transactions.recovery_interval,
            lambda: [worker.coordinator for worker in self.workers],
        )
        self._handover = Handover()
        self._loads = LoadSamples()
        self.maps = MapWatch(config, self._file_snapshot, self._handover, self._take, self._shut_for_good, self._loads)
        self.redis_maps = self._watch_redis()
        self._schema_number = 0
        self._unseen: dict[int, set[int]] = {}  # number of a schema that was sent → workers that have not taken it

    def _watch_redis(self) -> RedisMapWatch | None:
        if self._redis is None:
            return None
        return RedisMapWatch(
            self.config, lambda number, routing: self._tell_all("redis_map", number, routing), self._shut
        )

    # ── life ──

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        listeners = listen(self.config)
        redis = listen_redis(self.config)
        self.workers += [WorkerHandle(i, *socks) for i, socks in enumerate(zip(listeners, redis, strict=True))]
        admin = self.config.listen.admin
        runner = web.AppRunner(make_app(self), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, admin.host, admin.port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(f"listen.admin: cannot listen on {admin.host}:{admin.port}: {error.strerror}") from error
        mysql = self.config.listen.mysql
        log.info("listening", mysql=f"{mysql.host}:{mysql.port}", admin=f"{admin.host}:{admin.port}")
        for shard in self.snapshot.shards:
            for server in shard.servers:
                self._spawn(self._watch(server))
        self._spawn(self.maps.run())
        if self.redis_maps is not None:
            self._spawn(self.redis_maps.run())
        self._spawn(self._start_workers())
        self._spawn(self._recover())
        await self._stopping.wait()
        log.info("draining", seconds=self.config.proxy.drain_timeout)
        await self._drain()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leave()
        await runner.cleanup()
        log.info("stopped")
        return self._status

    async def _start_workers(self) -> None:
        """Read maps and catalog, however long store and servers take to answer; then start every worker."""
        await asyncio.to_thread(self._rsa.prepare)
        await self._maps_acknowledged()
        while self._definitions.loaded is None:
            try:
                await self._load()
            except (BackendError, SqlError) as error:
                self._why_not_ready = str(error)
                log.warning("catalog_not_read", error=error, reason=str(error))
                await asyncio.sleep(CATALOG_RETRY)
        gc.collect()
        gc.freeze()  # a full collection would take 50 ms, perhaps while writes wait for a map that we pass on
        if self._keeping is not None:
            self._spawn(self._keeping.run())
        for worker in self.workers:
            self._spawn(self._keep_running(worker))
        self._spawn(silence.watch(self.workers, self.config.proxy.worker_silence, self._end_silent))
        if self.config.backend.schema_interval > 0:
            for shard in self.snapshot.shards:
                self._spawn(self._definitions.watch(shard.primary, self.config.backend.schema_interval, self._renew))

    async def _maps_acknowledged(self) -> None:
        await self.maps.acknowledged.wait()
        if self.redis_maps is not None:
            await self.redis_maps.ready.wait()

    async def _load(self) -> None:
        await self._definitions.load()
        self.snapshot = self._with_maps(self._definitions.tables)  # the newest: they may have changed meanwhile

    # ── the maps of the store ──

    def _with_maps(self, snapshot: Snapshot) -> Snapshot:
        return with_stored(snapshot, self.maps.documents)

    def _take(self, documents: Documents) -> None:
        """Serve by these maps from now on. Raises ConfigError for what this proxy's file cannot go with."""
        self.snapshot = with_stored(self._definitions.tables, documents)
        number = self._handover.new_map({name: document.epoch for name, document in documents.items()})
        self._tell_all("map", number, self.snapshot)

    async def _shut_for_good(self) -> None:
        """As `_shut`; and wait until nothing of them is in flight. As long as something may be, the void identity is
        needed: it can be the only proof (see _seen_over)."""
        await self._shut()
        await self._handover.nobody()

    async def _shut(self) -> None:
        """End every worker, and with it its clients and server connections: our identity is void."""
        for worker in self.workers:
            worker.ready = False
            if worker.process is not None and worker.process.poll() is None:
                worker.process.kill()

    async def _prove_over(self, pid: int) -> None:
        """A worker has ended. What its server connections still run may go on to its end: only then nothing of it is in
        flight."""
        await self._seen_over({shard.primary: None for shard in self.snapshot.shards})
        self._handover.left(pid)

    async def _answered(
        self, order: asyncio.Lock, pid: int, number: int, cut: Mapping[str, Sequence[int] | None]
    ) -> None:
        """A worker has nothing older than a map in flight, but for what it left on these server connections."""
        async with order:
            await self._seen_over(
                {s.primary: cut[s.primary.name] for s in self.snapshot.shards if s.primary.name in cut}
            )
            self._handover.answered(pid, number)

    async def _seen_over(self, left: dict[Server, Sequence[int] | None]) -> None:
        """Wait until server connections whose clients are gone run nothing any more; None: all of our account's."""
        while left:
            for server, threads in list(left.items()):
                with contextlib.suppress(BackendError, SqlError, ReshardError):
                    await seen_over(server, self._credentials, self.config.backend.connect_timeout, threads)
                    del left[server]
            with contextlib.suppress(StoreError):
                if left and await self.maps.evicted():
                    return
            if left:
                await asyncio.sleep(PROOF_RETRY)

    async def _leave(self) -> None:
        """The orderly end: all workers have ended. While keys move it must be certain that nothing goes on."""
        over = True
        if any(document.move is not None for document in self.maps.documents.values()):
            try:
                async with asyncio.timeout(LEAVE_WAIT):
                    for shard in self.snapshot.shards:
                        await seen_over(shard.primary, self._credentials, LEAVE_WAIT, None)
            except (TimeoutError, BackendError, SqlError, ReshardError):
                over = False
        await self.maps.leave(over)
        if self.redis_maps is not None:
            await self.redis_maps.leave()

    async def _renew(self) -> None:
        """The schema changed: read it anew and void all plans. Raises as `_load`."""
        await self._load()
        await self._tell_schema()

    async def _keep_running(self, worker: WorkerHandle) -> None:
        """Start the worker, and again whenever it dies; soon at first, slower when it keeps dying."""
        pause = 0.05
        while not self._stopping.is_set():
            await self._maps_acknowledged()
            worker.started = monotonic()
            await self._start(worker)
            assert worker.process is not None
            status = await ended(worker.process)
            worker.ready = False
            self._spawn(self._prove_over(worker.process.pid))
            if self.redis_maps is not None:
                self._spawn(self.redis_maps.prove_over(worker.process.pid, worker.redis_name))
            self._recovery.dead.add(worker.coordinator)
            self.totals.retire(worker.slot)
            self._kills.died(worker)
            if worker.channel is not None:
                worker.channel.close()
            if self._stopping.is_set():
                return
            self._counters.add("shardproxy_worker_restarts_total")
            log.error("worker_died", worker=worker.index, pid=worker.process.pid, status=status)
            pause = 0.05 if monotonic() - worker.started > 10 else min(pause * 2, 5.0)
            await asyncio.sleep(pause)

    def _end_silent(self, place: int) -> None:
        process = self.workers[place].process
        if process is not None and process.poll() is None and not self._stopping.is_set():
            log.error("worker_silent", worker=place, pid=process.pid, seconds=self.config.proxy.worker_silence)
            process.kill()

    async def _start(self, worker: WorkerHandle) -> None:
        worker.coordinator = secrets.token_hex(6)
        worker.proving = asyncio.Lock()
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), worker.listener.fileno(), *(sock.fileno() for sock in worker.redis_listeners))
        # Popen, and not the event loop's own: it passes these descriptors on and no others. A worker that held the
        # other workers' listening sockets would keep them open, and clients waiting on them, while the proxy drains.
        worker.process = subprocess.Popen(  # noqa: S603, ASYNC220 — our own module; it returns at once
            [sys.executable, "-m", "shardproxy.app.worker", *map(str, fds)], pass_fds=fds, start_new_session=True
        )
        theirs.close()
        pid = worker.process.pid

        def receive(message: Message) -> None:
            self._heard(worker, pid, message)

        worker.channel = await Channel.over(ours, receive, lambda: None)
        self._handover.joined(pid)
        if self.redis_maps is not None:
            self.redis_maps.handover.joined(pid)
        worker.channel.send("settings", self._settings(worker))

    def _settings(self, worker: WorkerHandle) -> WorkerSettings:
        config, loaded = self.config, self._definitions.loaded
        assert loaded is not None
        mysql = config.listen.mysql
        return WorkerSettings(
            index=worker.index,
            coordinator=worker.coordinator,
            snapshot=self.snapshot,
            catalog=loaded.catalog,
            collations={ident: (c.charset, c.name) for ident, c in loaded.collations.items()},
            server_version=config.proxy.server_version or greeted_version(loaded.server_version),
            mariadb=self._definitions.mariadb,
            sql_mode=self._definitions.sql_mode,
            session_defaults=self._definitions.session_defaults,
            health=dict(self.health),
            accounts=self._accounts,
            rights=rights_of(config),
            limits=limits_of(config),
            plan_cache=config.proxy.plan_cache,
            pool=self._pool,
            rsa_pem=self._rsa.private_pem(),
            decoy_key=self._decoy_key,
            tls_cert=str(config.resolve(mysql.tls_cert)) if mysql.tls_cert else "",
            tls_key=str(config.resolve(mysql.tls_key)) if mysql.tls_key else "",
            require_tls=mysql.require_tls,
            drain_timeout=config.proxy.drain_timeout,
            log_level=config.proxy.log_level,
            log_format=config.proxy.log_format,
            redis=self._redis_settings(worker),
            cache=self._cache,
        )

    def _redis_settings(self, worker: WorkerHandle) -> RedisWorkerSettings | None:
        maps = self.redis_maps
        if maps is None or self._redis is None:
            return self._redis
        worker.redis_name = f"{CONNECTIONS}:{maps.identity}:{worker.coordinator}"
        return replace(self._redis, routing=maps.routing, identity=maps.identity, name=worker.redis_name)

    async def _drain(self) -> None:
        for worker in self.workers:
            for sock in (worker.listener, *worker.redis_listeners):
                sock.close()
            if worker.channel is not None:
                worker.channel.send("drain")
        living = [w.process for w in self.workers if w.process is not None and w.process.poll() is None]
        if not living:
            return
        waits = [asyncio.ensure_future(ended(process)) for process in living]
        _, late = await asyncio.wait(waits, timeout=self.config.proxy.drain_timeout + 5)
        if late:
            for process in living:
                if process.poll() is None:
                    log.error("worker_killed", pid=process.pid)
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
            await asyncio.wait(waits)

    # ── servers ──

    async def _watch(self, server: Server) -> None:
        backend = self.config.backend
        none: frozenset[str] = frozenset()
        wanted = lambda: self.snapshot.positions.get(server.shard, none)  # noqa: E731
        await health.watch(
            server, self._credentials, backend.health_interval, backend.connect_timeout, self._looked, wanted
        )

    def _looked(self, server: Server, seen: ServerHealth) -> None:
        before = self.health.get(server.name)
        self.health[server.name] = seen
        if before is None or (before.up, before.reason) != (seen.up, seen.reason):
            log.info("server_health", server=server.name, up=seen.up, lag_s=seen.lag, reason=seen.reason)
        if before != seen:
            self._tell_all("health", dict(self.health))

    async def _recover(self) -> None:
        """End what crashes have left of transactions over shards, again and again."""
        interval = self.config.transactions.recovery_interval
        told: dict[str, str] = {}
        rounds = 0
        while True:
            ended, errors = await self._recovery.round()
            for branch in ended:
                outcome = "failed" if branch.error else "commit" if branch.committed else "rollback"
                self._counters.add("shardproxy_xa_recovered_total", (outcome,))
                xid = branch.found.branch.transaction.text
                log.warning("recovery", shard=branch.found.shard, xid=xid, outcome=outcome, reason=branch.error)
            self._counters.set("shardproxy_xa_in_doubt", (), self._recovery.listed)
            for shard, error in errors.items():
                if told.get(shard) != error:
                    log.warning("recovery", shard=shard, outcome="cannot look", reason=error)
            told = errors
            rounds += 1
            if rounds % CLEAN_ROUNDS == 0 and not errors:
                try:
                    await self._recovery.clean()
                except SqlError as error:
                    log.warning("recovery", outcome="old rows stay", reason=str(error))
            await asyncio.sleep(interval)

    def _tell_all(self, *message: Any) -> None:
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.send(*message)

    # ── what workers say ──

    def _heard(self, worker: WorkerHandle, pid: int, message: Message) -> None:
        worker.heard = True
        match message:
            case ("ready",):
                worker.ready = True
                log.info("worker_ready", worker=worker.index, pid=pid)
                if worker.channel is not None:
                    worker.channel.send("health", dict(self.health))
            case ("report", report, number):
                self.totals.accept(worker.slot, pid, WorkerReport.from_json(report))
                if number == self._report:
                    self._silent.discard(worker.index)
                    if not self._silent:
                        self._reported.set()
            case ("load", batches):
                self._loads.hear(batches)
            case ("map_taken", number, cut):
                if cut or worker.proving.locked():
                    self._spawn(self._answered(worker.proving, pid, number, cut))
                else:
                    self._handover.answered(pid, number)
            case ("redis_taken", number) if self.redis_maps is not None:
                self.redis_maps.handover.answered(pid, number)
            case ("schema_taken", number):
                self._unseen.get(number, set()).discard(worker.index)
            case ("schema_changed", request):
                self._spawn(self._reload(worker, request))
            case ("find_and_kill", request, ident, query_only, user):
                self._kills.ask(worker, request, ident, query_only, user)
            case ("killed", request, done):
                self._kills.answered(worker, request, done)

    async def _tell_schema(self) -> None:
        """Send map and catalog to every worker, and wait until each that lives has taken them."""
        assert self._definitions.loaded is not None
        self._schema_number += 1
        number = self._schema_number
        waiting = self._unseen[number] = {worker.index for worker in self.workers if worker.ready}
        self._tell_all("schema", number, self.snapshot, self._definitions.loaded.catalog)
        deadline = monotonic() + SCHEMA_WAIT
        while waiting and monotonic() < deadline:
            await asyncio.sleep(0.005)
            waiting &= {worker.index for worker in self.workers if worker.ready}
        if waiting:
            log.error("schema_not_seen", workers=sorted(waiting))
        del self._unseen[number]

    async def _reload(self, asker: WorkerHandle, request: int) -> None:
        """A schema change ran through the proxy."""
        try:
            await self._renew()
        except (BackendError, SqlError) as error:
            log.error("catalog_not_read", error=error, reason=str(error))
        if asker.channel is not None:
            asker.channel.send("schema_seen", request)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Without this task the proxy would look alive and not be: end, and let whoever watches over it start anew.
            log.error("task_failed", error=task.exception())
            self._status = 1
            self._stopping.set()

    # ── AdminControl ──

    async def status(self) -> dict[str, Any]:
        await self._fresh_reports()
        self._count_servers()
        now = monotonic()
        processes = [
            WorkerProcess(w.slot, w.process.pid, now - w.started, resident_bytes(w.process.pid))
            for w in self.workers
            if w.process is not None and w.process.poll() is None
        ]
        limit = self.config.backend.pool_size
        shown = status_json(shardproxy.__version__, self.snapshot, processes, self.health, self.totals, limit)
        return {**shown, "store": self._store_shown()}

    def _store_shown(self) -> dict[str, Any]:
        maps, told = self.maps, self._handover.epochs
        ident = maps.identity.id if maps.identity else ""
        return store_json(self.config.store.kind, maps.up, maps.problem, ident, maps.documents, told)

    async def topology(self) -> dict[str, Any]:
        shown = topology_json(self.snapshot)
        document = self.redis_maps.document if self.redis_maps is not None else None
        return shown if document is None else {**shown, "redis": redis_json(document)}

    async def explain(self, sql: str, schema: str | None, values: Sequence[ExplainValue]) -> dict[str, Any]:
        known = self._definitions
        if known.loaded is None:
            raise BackendError(f"not ready: {self._why_not_ready}")
        modes = SqlModes.parse(known.sql_mode)
        caching = self._cache.caching if self._cache is not None else None
        context = PlanContext(self.snapshot, known.loaded.catalog, schema, modes, known.mariadb, caching=caching)
        return explain(sql, values, context)

    async def metrics(self) -> bytes:
        await self._fresh_reports()
        self._count_servers()
        return self._exposition.text()

    def ready(self) -> tuple[bool, str]:
        if self._stopping.is_set():
            return False, "shutting down"
        if not self.maps.acknowledged.is_set():
            return False, self.maps.problem or "the maps of the store are being acknowledged"
        if self._definitions.loaded is None:
            return False, self._why_not_ready
        lines = [f"worker {w.index} has not started" for w in self.workers if not w.ready]
        for shard in self.snapshot.shards:
            seen = self.health.get(shard.primary.name)
            if seen is None or not seen.up:
                lines.append(f"{shard.primary.name}: {seen.reason if seen else 'not looked at yet'}")
        return not lines, "\n".join(lines)

    async def _fresh_reports(self) -> None:
        """Ask the workers for their counts as of now; a worker that does not answer at once shows its last ones."""
        self._silent = {worker.index for worker in self.workers if worker.ready}
        if not self._silent:
            return
        self._reported.clear()
        self._report += 1
        self._tell_all("report", self._report)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_WAIT):
                await self._reported.wait()

    def _count_servers(self) -> None:
        counters = self._counters
        for shard in self.snapshot.shards:
            for server in shard.servers:
                seen = self.health.get(server.name)
                up = seen is not None and seen.up
                counters.set("shardproxy_server_up", (server.name, server.role.value), float(up))
                if seen is not None and seen.lag is not None:
                    counters.set("shardproxy_replica_lag_seconds", (server.name,), seen.lag)
        if self._keeping is not None:
            self._keeping.count(counters)
        counters.set("shardproxy_store_up", (), float(self.maps.up))
        counters.add("shardproxy_load_samples_total", (), self._loads.taken())
        counters.set("shardproxy_map_epoch", (), self.snapshot.epoch)
        self.totals.accept(SLOT, os.getpid(), WorkerReport.from_json(counters.snapshot()))


def run(config: Config) -> int:
    """Run the proxy until a signal ends it. Returns the exit status; raises ConfigError for what cannot be used."""
    logs.configure(config.proxy.log_level, config.proxy.log_format)
    mysql = config.listen.mysql
    if mysql.tls_cert:
        try:
            client_tls(str(config.resolve(mysql.tls_cert)), str(config.resolve(mysql.tls_key)) if mysql.tls_key else "")
        except OSError as error:
            raise ConfigError(f"listen.mysql.tls_cert: cannot be used ({error}); expected a PEM file") from error
    redis = config.listen.redis
    if config.redis is not None and redis.tls_cert:
        try:
            client_tls(str(config.resolve(redis.tls_cert)), str(config.resolve(redis.tls_key)) if redis.tls_key else "")
        except OSError as error:
            raise ConfigError(f"listen.redis.tls_cert: cannot be used ({error}); expected a PEM file") from error
    if config.redis is not None and config.redis.tls_ca:
        try:
            server_tls(config.redis.tls, str(config.resolve(config.redis.tls_ca)))
        except OSError as error:
            raise ConfigError(f"redis.tls_ca: cannot be used ({error}); expected a PEM file") from error
    raise_file_limit(config)

    async def main() -> int:
        return await Supervisor(config).run()

    return uvloop.run(main())
