"""What is compared: shardproxy, HAProxy in TCP mode, MySQL Router, and no proxy at all.

All use the same servers, the primaries of a cluster whose shards each hold the whole table: a peer that cannot route
spreads its connections over them, shardproxy spreads the ids; either way each server gets its part of the queries.
HAProxy and Router do their work in one thread each, as shardproxy's one worker does.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.rig.process_usage import cpu_seconds, tree
from bench.rig.proxy import PASSWORD, USER, start_proxy
from bench.rig.sysbench import DATABASE
from shardproxy.local import LocalCluster, LocalError, Process, free_port
from shardproxy.local.mysql_tree import ensure_tree

NAMES = ("shardproxy", "haproxy", "mysqlrouter", "direct")


@dataclass(frozen=True, slots=True)
class Peer:
    """Where clients connect to (`ports` in turn) and the program whose CPU time counts; none for "direct".

    All peers take user USER with PASSWORD.
    """

    name: str
    ports: tuple[int, ...]
    process: Process | None = None
    detail: str = ""
    _pids: list[int] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """CPU time of the proxy so far, its child processes included; 0 for "direct"."""
        if self.process is None:
            return 0.0
        if not self._pids:
            self._pids.extend(tree(self.process.pid))
        return cpu_seconds(self._pids)


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """python: interpreter of shardproxy. router_threads: Router's io threads. rows: of the table."""

    rows: int
    python: str = sys.executable
    router_threads: int = 1


def start_peer(name: str, cluster: LocalCluster, options: PeerOptions) -> Peer:
    """Start one of NAMES in front of the cluster's primaries. Raises LocalError when it cannot run here."""
    starters: dict[str, Callable[[LocalCluster, PeerOptions], Peer]] = {
        "shardproxy": _shardproxy,
        "haproxy": _haproxy,
        "mysqlrouter": _mysqlrouter,
        "direct": _direct,
    }
    return starters[name](cluster, options)


def _direct(cluster: LocalCluster, options: PeerOptions) -> Peer:
    return Peer("direct", tuple(shard.primary.port for shard in cluster.shards), detail="no proxy")


def _shardproxy(cluster: LocalCluster, options: PeerOptions) -> Peer:
    running = start_proxy(cluster, keyspace_toml(cluster, options.rows), workers=1, python=options.python)
    return Peer("shardproxy", (running.mysql_port,), running.process, "one worker")


def keyspace_toml(cluster: LocalCluster, rows: int) -> str:
    """The sysbench table over all shards by equal ranges of its id."""
    names = [shard.name for shard in cluster.shards]
    edges = [rows * i // len(names) + 1 for i in range(1, len(names))]
    ranges = [
        f"[[keyspaces.{DATABASE}.ranges]]\nfrom = {start}\nto = {end}\nshard = '{name}'"
        for name, start, end in zip(names, ["'min'", *edges], [*edges, "'max'"], strict=True)
    ]
    head = f"[keyspaces.{DATABASE}]\nkey_type = 'int'\nmap = 'range'"
    return "\n".join([head, *ranges, f"[keyspaces.{DATABASE}.tables]", "sbtest1 = { key = 'id' }"])


def _haproxy(cluster: LocalCluster, options: PeerOptions) -> Peer:
    port = free_port()
    config = cluster.folder / "haproxy.cfg"
    servers = "\n".join(f"    server {s.name} {s.primary.address}" for s in cluster.shards)
    config.write_text(
        f"""global
    nbthread 1
    maxconn 2000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen mysql
    bind 127.0.0.1:{port}
    balance roundrobin
{servers}
"""
    )
    command = ["haproxy", "-db", "-f", str(config)]  # -db: stay in the foreground, one process
    process = cluster.program("haproxy", command, port=port, hint="apt-get install haproxy")
    process.start()
    return Peer("haproxy", (port,), process, "TCP mode, one thread")


def _mysqlrouter(cluster: LocalCluster, options: PeerOptions) -> Peer:
    port = free_port()
    folder = cluster.folder / "mysqlrouter"
    for name in ("log", "run", "data"):
        (folder / name).mkdir(parents=True)
    program, plugins = _router_program()
    destinations = ",".join(shard.primary.address for shard in cluster.shards)
    config = folder / "mysqlrouter.conf"
    config.write_text(
        f"""[DEFAULT]
logging_folder = {folder}/log
runtime_folder = {folder}/run
data_folder = {folder}/data
{plugins}
[logger]
level = WARNING
[io]
threads = {options.router_threads}
[routing:bench]
bind_address = 127.0.0.1
bind_port = {port}
destinations = {destinations}
routing_strategy = round-robin
protocol = classic
client_ssl_mode = DISABLED
server_ssl_mode = DISABLED
"""
    )
    process = cluster.program("mysqlrouter", [*program, "-c", str(config)], port=port)
    process.start()
    return Peer("mysqlrouter", (port,), process, f"classic protocol, io threads = {options.router_threads}")


def _router_program() -> tuple[list[str], str]:
    """argv of MySQL Router, and the configuration line that it needs: an installed one, else the MySQL tree's.

    The tree's is run by its own dynamic linker instead of by chroot, so that its files can be the cluster's.
    """
    installed = shutil.which("mysqlrouter")
    if installed is not None:
        return [installed], ""
    tree_folder = ensure_tree()
    linkers = sorted(tree_folder.glob("usr/lib*/ld-linux*.so.*")) + sorted(tree_folder.glob("usr/lib/*/ld-linux*.so.*"))
    libraries = [*(tree_folder / "usr/lib").glob("*-linux-gnu"), tree_folder / "usr/lib/mysql-router"]
    if not linkers or not all(map(Path.is_dir, libraries)):
        raise LocalError(f"MySQL Router is not as expected in {tree_folder}; remove that folder to have it built again")
    argv = [str(linkers[0]), "--library-path", ":".join(map(str, libraries)), str(tree_folder / "usr/bin/mysqlrouter")]
    return argv, f"plugin_folder = {tree_folder}/usr/lib/mysqlrouter/plugin"


__all__ = ["NAMES", "PASSWORD", "USER", "Peer", "PeerOptions", "keyspace_toml", "start_peer"]
