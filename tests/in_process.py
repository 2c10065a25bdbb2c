"""A worker in the test's own process: the test hands it maps itself, and sees what it does under each.

It is the real worker, on its own event loop in a thread, in front of real servers; only the supervisor is missing.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql

from shardproxy.app.channel import Channel, Message
from shardproxy.app.supervisor import Supervisor
from shardproxy.app.worker import Worker
from shardproxy.app.worker_handle import WorkerHandle
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.local.server import plain
from shardproxy.topology.model import Snapshot
from shardproxy.topology.moves import Move
from tests.proxy import KEYSPACES, USERS, create_tables, make_bookkeeping


class WorkerHere:
    """One worker on a port of this machine. snapshot: the map of the configuration file."""

    def __init__(
        self, cluster: LocalCluster, keyspaces: str = KEYSPACES, extra: str = "", *, make_tables: bool = True
    ) -> None:
        self.cluster = cluster
        if make_tables:
            for shard in cluster.shards:
                create_tables(shard.primary, shard.name)
        self.config = cluster.config_toml(
            keyspaces, proxy={"workers": 1, "drain_timeout": "100ms"}, users=USERS, extra=extra, name="here.toml"
        )
        make_bookkeeping(self.config.path)
        self.port = 0
        self.snapshot: Snapshot
        self.worker: Worker
        self.loop: asyncio.AbstractEventLoop
        self.reports: list[Message] = []
        self.maps = 0  # number of the last one that was handed
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(self.config.path,))

    def __enter__(self) -> WorkerHere:
        self._thread.start()
        self._ready.wait(30)
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        self.on_loop(self.worker.drain)
        self._thread.join(30)

    def _run(self, config: Path) -> None:
        try:
            asyncio.run(self._serve(config))
        except BaseException as error:
            self._failed = error
            self._ready.set()

    async def _serve(self, config: Path) -> None:
        self.loop = asyncio.get_running_loop()
        supervisor = Supervisor(load(config, proxy_environment()))
        await supervisor._load()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        ours, theirs = socket.socketpair()
        handle = WorkerHandle(1, listener)
        handle.coordinator = "0123456789ab"
        settings = supervisor._settings(handle)
        self.snapshot = settings.snapshot
        heard = await Channel.over(ours, self._heard, lambda: None)
        channel = await Channel.over(theirs, lambda message: None, lambda: None)
        self.worker = Worker(settings, channel, listener)
        await self.worker.serve()
        channel.close()
        heard.close()

    def _heard(self, message: Message) -> None:
        if message[0] == "ready":
            self._ready.set()
        else:
            self.reports.append(message)

    # ── for tests ──

    def on_loop(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Call something on the worker's loop, and wait for what it returns."""

        async def call() -> Any:
            return step(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    def hand(self, snapshot: Snapshot) -> None:
        """A new map arrives."""
        self.maps += 1
        self.on_loop(self.worker.receive, ("map", self.maps, snapshot))

    def moving(self, move: Move | None, keyspace: str = "main", **changes: Any) -> Snapshot:
        """The file's map with a move of a keyspace's keys. changes: of the keyspace."""
        keyspaces = dict(self.snapshot.keyspaces)
        keyspaces[keyspace] = replace(keyspaces[keyspace], move=move, **changes)
        return replace(self.snapshot, keyspaces=keyspaces)

    def connect(self, **options: Any) -> Any:
        """A new PyMySQL connection: user app, database main."""
        settings: dict[str, Any] = {
            "host": "127.0.0.1", "port": self.port, "user": "app", "password": "app", "database": "main",
            "autocommit": None, "connect_timeout": 10, "read_timeout": 60, "ssl_disabled": plain(options),
        }  # fmt: skip
        return pymysql.connect(**{**settings, **options})

    def primary(self, shard: int) -> LocalServer:
        return self.cluster.shards[shard].primary

    @property
    def waiting(self) -> int:
        """Writes that wait for a map."""
        return len(self.worker.front.gateway.held_writes.now)
