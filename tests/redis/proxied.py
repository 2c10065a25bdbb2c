"""A proxy with a Redis port in front of real nodes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardproxy.local import LocalCluster, LocalError, Process, free_port
from shardproxy.local.proxy_environment import is_ready, proxy_environment
from shardproxy.local.redis_node import RedisNode
from tests.proxy import make_bookkeeping

KEYSPACES = """
[keyspaces.main]
key_type = "int"
map = "hash"
ring = { shard1 = 1 }
tables = { users = { key = "uid" } }
"""


class RedisProxy:
    """`port`: for Redis clients; `folder`: of the cluster."""

    def __init__(
        self,
        cluster: LocalCluster,
        process: Process,
        port: int,
        admin_port: int,
        path: Path,
        mysql_port: int,
        config: Path,
    ) -> None:
        self.cluster = cluster
        self.process = process
        self.port = port
        self.admin_port = admin_port
        self.unix = path
        self.mysql_port = mysql_port
        self.config = config

    def connect(self, **options: Any) -> Any:
        """A redis-py client with one connection."""
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, single_connection_client=True, **options)

    def raw(self, *, small: bool = False) -> socket.socket:
        """A bare connection. small: with small buffers, for who does not read."""
        sock = socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split(" ")[0] == name)

    def labelled(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(name + "{") and all(text in line for text in wanted)
        )

    def mysql(self) -> Any:
        """A pymysql connection to the MySQL port, in `main`, with autocommit."""
        import pymysql

        return pymysql.connect(
            host="127.0.0.1", port=self.mysql_port, user="app", password="app", database="main", autocommit=True
        )

    def keeper_pid(self) -> int:
        """Pid of the cache's keeper."""
        listed = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "shardproxy.keeper.process"], capture_output=True, check=True
        )
        return int(listed.stdout)

    @contextmanager
    def stopped_keeper(self) -> Iterator[None]:
        """While the cache's keeper stands still."""
        pid = self.keeper_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def worker_pid(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/api/status", timeout=10) as answer:
            pid: int = json.load(answer)["workers"][0]["pid"]
        return pid


@contextmanager
def redis_proxy(
    cluster: LocalCluster,
    name: str = "redis-proxy",
    *,
    redis: Mapping[str, object] | None = None,
    users: Mapping[str, str | Mapping[str, object]] | None = None,
    nodes: Mapping[str, str | Mapping[str, object]] | None = None,
    listen: Mapping[str, object] | None = None,
    workers: int = 1,
    more: str = "",
    keyspaces: str = KEYSPACES,
    environment: Mapping[str, str] | None = None,
    path: Path | None = None,
    store: str = "",
) -> Iterator[RedisProxy]:
    """Start a proxy for the cluster's Redis nodes. redis: entries of [redis]; users: name → password, or its table;
    nodes: name → address, or its table, in place of the cluster's; listen: entries of [listen.redis]; more: tables of
    the file; environment: more variables; path: a folder with a sitecustomize that it imports; store: the file of a map
    store that several proxies share."""
    port, unix = free_port(), cluster.folder / f"{name}.sock"
    lines = [
        _table("listen.redis", {"port": port, "socket": str(unix), **(listen or {})}),
        _table("redis", redis or {}),
    ]
    for node, told in (nodes or {node.name: node.address for node in cluster.redis}).items():
        lines.append(_table(f"redis.nodes.{node}", {"address": told} if isinstance(told, str) else told))
    for user, given in (users or {}).items():
        lines.append(_table(f"redis.users.{user}", {"password": given} if isinstance(given, str) else given))
    config = cluster.config_toml(
        keyspaces,
        proxy={"workers": workers, "log_format": "text"},
        extra="\n".join([*lines, more, f'[store]\npath = "{store or name}.store"\n']),
        name=f"{name}.toml",
    )
    make_bookkeeping(config.path)

    command = [sys.executable, "-m", "shardproxy.cli.proxy", "run", "--config", str(config.path)]
    variables = {**proxy_environment(), **(environment or {})}
    if path is not None:
        variables["PYTHONPATH"] = f"{path}:{variables['PYTHONPATH']}"
    process = cluster.program(name, command, ready=lambda: is_ready(config.admin_port), environment=variables)
    process.start()
    try:
        yield RedisProxy(cluster, process, port, config.admin_port, unix, config.mysql_port, config.path)
    finally:
        process.stop()


def _table(title: str, entries: Mapping[str, object]) -> str:
    # What JSON writes for text, numbers, true, false and lists of these is TOML.
    return "\n".join([f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())])


def reads(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or all until the peer closes."""
    found = bytearray()
    while len(found) < size:
        data = sock.recv(min(1 << 20, size - len(found)))
        if not data:
            break
        found += data
    return bytes(found)


def node_of(cluster: LocalCluster, client: Any, key: str) -> RedisNode:
    """The node that has a key."""
    client.set(key, "here")
    for node in cluster.redis:
        with node.connect() as direct:
            if direct.exists(key):
                return node
    raise AssertionError(f"no node has {key}")


def keys_on(cluster: LocalCluster, client: Any, nodes: int = 0) -> dict[str, str]:
    """For each node's name, a key that is there. nodes: how many the proxy has; 0: all of the cluster."""
    found: dict[str, str] = {}
    number = 0
    while len(found) < (nodes or len(cluster.redis)):
        found.setdefault(node_of(cluster, client, f"on:{number}").name, f"on:{number}")
        number += 1
    return found


__all__ = ["LocalError", "RedisProxy", "keys_on", "node_of", "reads", "redis_proxy"]
