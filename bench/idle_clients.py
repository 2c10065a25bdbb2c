"""Memory of ten thousand idle clients.

    ./dev bench idle-clients [--json FILE] [--clients N] [--workers N]

Opens authenticated connections that then stay silent, and reads the resident memory of the workers before and after.
Shown are RSS, which counts pages shared between workers in each of them, and PSS, which counts them once; the needed
bound is on the sum of RSS. (HAProxy in TCP mode is not shown beside it: it holds a server connection per client, so it
would need servers for ten thousand.)
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.rig.options import run_bench
from bench.rig.process_usage import Memory, memory
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.wire import WireClient
from shardproxy.local import LocalCluster, LocalError

_MIB = 1 << 20
_BOUND = 150 * _MIB  # for 10,000 clients over two workers
_SPARE_FILES = 200
_KEYSPACE = """
[keyspaces.idle]
key_type = "int"
map = "range"
[[keyspaces.idle.ranges]]
from = "min"
to = "max"
shard = "shard1"
[keyspaces.idle.tables]
t = { key = "id" }
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    _allow_files(options.clients + _SPARE_FILES)
    console = Console(stderr=True)
    with LocalCluster(shards=1, replicas=0) as cluster:
        primary = cluster.shards[0].primary
        primary.rows("CREATE DATABASE idle")
        primary.rows("CREATE TABLE idle.t (id BIGINT PRIMARY KEY)")
        proxy = start_proxy(cluster, _KEYSPACE, workers=options.workers, python=options.python)
        pids = proxy.worker_pids()
        WireClient(proxy.mysql_port, USER, PASSWORD, "idle").close()
        before = _settled(pids)
        clients = _connect(proxy, options.clients, console)
        spread = _spread(proxy, options.clients)
        after = _settled(pids)
        for client in clients[:: max(1, len(clients) // 100)]:
            client.ping()
    figures = {
        "clients": options.clients,
        "workers": options.workers,
        "clients_per_worker": spread,
        "rss_bytes_before": before.rss,
        "rss_bytes": after.rss,
        "pss_bytes_before": before.pss,
        "pss_bytes": after.pss,
        "bytes_per_client": round((after.rss - before.rss) / options.clients),
    }
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    _show(before, after, options.clients, spread, Console())
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench idle-clients", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--clients", type=int, default=10_000, help="connections (default: 10000)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the proxy (default: 2)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that shardproxy runs on")
    return parser.parse_args(arguments)


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files, ours and by inheritance the proxy's. Raises LocalError when it cannot be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError) as error:
        raise LocalError(
            f"{wanted} open files are needed and {hard} are allowed; run as root or raise `ulimit -n`"
        ) from error


def _connect(proxy: RunningProxy, count: int, console: Console) -> list[WireClient]:
    with Progress(console=console, transient=True) as progress:
        numbers = progress.track(range(count), description="connecting")
        return [WireClient(proxy.mysql_port, USER, PASSWORD, "idle") for _ in numbers]


def _spread(proxy: RunningProxy, count: int) -> list[int]:
    """Clients of each worker, once the workers have reported them all (they do so about once a second)."""

    def reported() -> list[int]:
        return [worker["clients"] for worker in proxy.status()["workers"]]

    _until(lambda: sum(reported()) == count, f"the workers report {count} clients")
    return reported()


def _settled(pids: Sequence[int]) -> Memory:
    """Memory once it stands still for a second."""
    last, since = memory(pids), time.monotonic()
    deadline = since + 30
    while time.monotonic() - since < 1 and time.monotonic() < deadline:
        time.sleep(0.1)
        now = memory(pids)
        if abs(now.rss - last.rss) > 64 << 10:
            last, since = now, time.monotonic()
    return memory(pids)


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise LocalError(f"not within 30 s: {what}")
        time.sleep(0.05)


def _show(before: Memory, after: Memory, clients: int, spread: Sequence[int], console: Console) -> None:
    table = Table("", title=f"{clients:,} idle clients over {len(spread)} workers ({', '.join(map(str, spread))})")
    for name in ("before", "with all clients", "per client"):
        table.add_column(name, justify="right")
    for name, a, b in (("RSS", before.rss, after.rss), ("PSS", before.pss, after.pss)):
        table.add_row(name, f"{a / _MIB:.1f} MiB", f"{b / _MIB:.1f} MiB", f"{(b - a) / clients / 1024:.1f} KiB")
    console.print(table)
    verdict = "[green]met" if after.rss <= _BOUND else "[red]NOT met"
    console.print(f"needed for 10,000 clients over two workers: RSS ≤ {_BOUND // _MIB} MiB: {verdict}")


if __name__ == "__main__":
    run_bench(main)
