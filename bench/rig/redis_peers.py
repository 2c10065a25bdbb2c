"""What Redis clients are compared on: shardproxy, nutcracker (twemproxy), and one Redis server without a proxy.

The proxies use the same two Redis servers. nutcracker works in one thread, as shardproxy's one worker does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rig.peers import Peer
from bench.rig.proxy import start_proxy
from shardproxy.local import LocalCluster, LocalError, free_port

NAMES = ("shardproxy", "nutcracker", "direct")
_KEYSPACE = """
[keyspaces.main]
key_type = "int"
map = "hash"
ring = { shard1 = 1 }
tables = { users = { key = "uid" } }
"""
KEYS = 100_000
VALUE = 32  # bytes
COMMANDS: dict[str, tuple[str, ...]] = {
    "get": ("GET", "key:__rand_int__"),
    "set": ("SET", "key:__rand_int__", "x" * VALUE),
    "mget10": ("MGET", *["key:__rand_int__"] * 10),
}


@dataclass(frozen=True, slots=True)
class Load:
    """What redis-benchmark measured: commands per second, milliseconds."""

    qps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def start_redis_peer(name: str, cluster: LocalCluster, python: str) -> Peer:
    """Start one of NAMES in front of the cluster's Redis servers. Raises LocalError when it cannot run here."""
    if name == "direct":
        return Peer(name, (cluster.redis[0].port,), detail="one Redis server, no proxy")
    port = free_port()
    if name == "shardproxy":
        nodes = "".join(f'[redis.nodes.{node.name}]\naddress = "{node.address}"\n' for node in cluster.redis)
        extra = f"[listen.redis]\nport = {port}\n[redis]\n{nodes}"
        running = start_proxy(cluster, _KEYSPACE, workers=1, python=python, extra=extra)
        return Peer(name, (port,), running.process, "one worker")
    servers = "".join(f"   - {node.address}:1\n" for node in cluster.redis)
    config = cluster.folder / "nutcracker.yml"
    config.write_text(
        f"bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n"
        f"  preconnect: true\n  servers:\n{servers}"
    )
    command = ["nutcracker", "-c", str(config), "-s", str(free_port()), "-o", str(cluster.folder / "nutcracker.log")]
    process = cluster.program(name, command, port=port, hint="apt-get install nutcracker")
    process.start()
    return Peer(name, (port,), process, "fnv1a_64, ketama, one thread")


def run_load(peer: Peer, command: Sequence[str], pipeline: int, clients: int, count: int, keys: int = KEYS) -> Load:
    """`count` commands by redis-benchmark, over so many keys. Raises LocalError when it fails."""
    arguments = [
        *("redis-benchmark", "--csv", "-h", "127.0.0.1", "-p", str(peer.ports[0])),
        *("-P", str(pipeline), "-c", str(clients), "-n", str(count), "-r", str(keys)),
    ]
    done = subprocess.run([*arguments, *command], capture_output=True, text=True, timeout=300)
    rows = [line for line in done.stdout.splitlines() if line.startswith('"') and not line.startswith('"test"')]
    if done.returncode or not rows:
        raise LocalError(f"redis-benchmark on {peer.name} failed: {(done.stderr or done.stdout).strip()[:300]}")
    # "name","rps","avg","min","p50","p95","p99","max": the name may hold commas.
    numbers = [float(word.strip('"')) for word in rows[-1].split('","')[-7:]]
    return Load(numbers[0], numbers[3], numbers[4], numbers[5])
