"""A proxy with a Redis port in front of real nodes."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardproxy.local import LocalCluster, LocalError, Process, free_port
from shardproxy.local.proxy_environment import is_ready, proxy_environment
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
        self, cluster: LocalCluster, process: Process, port: int, admin_port: int, path: Path, config: Path
    ) -> None:
        self.cluster = cluster
        self.process = process
        self.port = port
        self.admin_port = admin_port
        self.unix = path
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
    users: Mapping[str, str] | None = None,
    nodes: Mapping[str, str] | None = None,
    workers: int = 1,
    store: str = "",
) -> Iterator[RedisProxy]:
    """Start a proxy for the cluster's Redis nodes. redis: entries of [redis]; users: name → password; nodes: name →
    address, in place of the cluster's; store: the file of a map store that several proxies share."""
    port, path = free_port(), cluster.folder / f"{name}.sock"
    lines = [f'[listen.redis]\nport = {port}\nsocket = "{path}"\n[redis]']
    lines += [f"{key} = {json.dumps(value)}" for key, value in (redis or {}).items()]
    for node, address in (nodes or {node.name: node.address for node in cluster.redis}).items():
        lines.append(f'[redis.nodes.{node}]\naddress = "{address}"')
    lines += [f'[redis.users.{user}]\npassword = "{password}"' for user, password in (users or {}).items()]
    config = cluster.config_toml(
        KEYSPACES,
        proxy={"workers": workers, "log_format": "text"},
        extra="\n".join([*lines, f'[store]\npath = "{store or name}.store"\n']),
        name=f"{name}.toml",
    )
    make_bookkeeping(config.path)

    command = [sys.executable, "-m", "shardproxy.cli.proxy", "run", "--config", str(config.path)]
    process = cluster.program(name, command, ready=lambda: is_ready(config.admin_port), environment=proxy_environment())
    process.start()
    try:
        yield RedisProxy(cluster, process, port, config.admin_port, path, config.path)
    finally:
        process.stop()


__all__ = ["LocalError", "RedisProxy", "redis_proxy"]
