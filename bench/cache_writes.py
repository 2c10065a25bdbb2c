"""What a write of a cached table costs in the cache's strict mode, beside the same write in mode `bounded`.

    ./dev bench cache-writes [--json FILE] [--rounds N] [--seconds N] …

One shard, one Redis node, two proxies with one worker each and the same cached table: one `bounded`, one `strict`.
sysbench updates rows by their key, as text, in autocommit; the proxies take turns within each round, and ratios are
taken within a round. CPU is user and system time of that proxy's processes, MySQL and Redis together; both proxies'
keepers read the binlog all the time. The JSON file is a list of objects {way, clients, qps, p50_ms, p99_ms, proxy_us,
servers_us}: medians over the rounds; µs are per write.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from bench.rig.interpreter import described
from bench.rig.options import run_bench, say_if_busy
from bench.rig.process_usage import cpu_seconds, tree
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.sysbench import DATABASE, load_table, run_updates
from shardproxy.local import LocalCluster, LocalError, free_port

_KEYSPACES = f"""
[keyspaces.{DATABASE}]
key_type = "int"
map = "hash"
ring = {{ shard1 = 1 }}
tables = {{ sbtest1 = {{ key = "id" }} }}
"""
WAYS = ("bounded", "strict")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one way; µs per write."""

    round: int
    way: str
    qps: float
    p50_ms: float
    p99_ms: float
    proxy_us: float
    servers_us: float


def start(cluster: LocalCluster, way: str, python: str) -> RunningProxy:
    """A proxy of which the cache is kept. Raises LocalError."""
    [node] = cluster.redis
    extra = f"""
        [listen.redis]
        port = {free_port()}
        [redis.nodes.{node.name}]
        address = "{node.address}"
        [store]
        path = "{way}.store"
        [cache]
        mode = "{way}"
        [cache.rows.rows]
        key = "row:{{id}}"
        table = "{DATABASE}.sbtest1"
    """
    proxy = start_proxy(cluster, _KEYSPACES, workers=1, python=python, name=way, extra=extra)
    deadline = time.monotonic() + 30
    while not _kept(proxy):
        if time.monotonic() > deadline:
            raise LocalError("the cache's keeper has not begun within 30 s")
        time.sleep(0.1)  # nothing tells when a keeper has begun but its metric
    return proxy


def _kept(proxy: RunningProxy) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin_port}/metrics", timeout=10) as answer:
        return b'shardproxy_cache_fresh{shard="shard1"} 1.0' in answer.read()


def measure(number: int, way: str, proxy: RunningProxy, servers: Sequence[int], options: argparse.Namespace) -> Run:
    ours = tree(proxy.process.pid)
    before: list[float] = []
    after: list[float] = []

    def look(at: list[float]) -> None:
        at += [cpu_seconds(ours), cpu_seconds(servers)]

    result = run_updates(
        proxy.mysql_port, USER, PASSWORD, clients=options.clients, seconds=options.seconds, rows=options.rows,
        started=lambda: look(before), ended=lambda: look(after),
    )  # fmt: skip
    used = [(b - a) * 1e6 / result.queries for a, b in zip(before, after, strict=True)]
    return Run(number, way, result.qps, result.percentile(50), result.percentile(99), *used)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    console.print(f"shardproxy runs on {options.python} ({described(options.python)})")
    say_if_busy(console)
    runs: list[Run] = []
    with LocalCluster("mariadb", shards=1, replicas=0, redis=1) as cluster:
        [node], [shard] = cluster.redis, cluster.shards
        load_table(shard.primary, shard.primary.admin_user, shard.primary.admin_password, options.rows)
        proxies = {way: start(cluster, way, options.python) for way in WAYS}
        servers = [*tree(shard.primary.pid), node.pid]
        for number in range(1, options.rounds + 1):
            ways = WAYS if number % 2 else WAYS[::-1]
            runs += [measure(number, way, proxies[way], servers, options) for way in ways]
    figures = [{**asdict(run), "clients": options.clients} for run in summary(runs)]
    for figure in figures:
        del figure["round"]
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    _show(summary(runs), runs, Console())
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench cache-writes", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long one run takes (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--clients", type=int, default=32, help="connections (default: 32)")
    parser.add_argument("--rows", type=int, default=10_000, help="of the table (default: 10000)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that shardproxy runs on")
    return parser.parse_args(arguments)


def summary(runs: Sequence[Run]) -> list[Run]:
    """Medians over the rounds, by way, with round 0."""
    names = [field.name for field in fields(Run)][2:]
    groups = [[run for run in runs if run.way == way] for way in WAYS]
    return [
        Run(0, way, *(round(median(getattr(run, name) for run in group), 2) for name in names))
        for way, group in zip(WAYS, groups, strict=True)
    ]


def ratio(runs: Sequence[Run], name: str) -> float:
    """Strict over bounded: the median of the rounds' ratios."""
    found = {(run.round, run.way): float(getattr(run, name)) for run in runs}
    return median(found[number, "strict"] / found[number, "bounded"] for number in {run.round for run in runs})


def _show(figures: Sequence[Run], runs: Sequence[Run], console: Console) -> None:
    table = Table("mode", title="an update by key, medians over the rounds", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("writes/s", "p50 ms", "p99 ms", "proxy CPU µs", "servers' CPU µs"):
        table.add_column(name, justify="right")
    for f in figures:
        table.add_row(
            f.way, f"{f.qps:,.0f}", f"{f.p50_ms:.2f}", f"{f.p99_ms:.2f}", f"{f.proxy_us:.1f}", f"{f.servers_us:.1f}"
        )
    console.print(table)
    names = ("qps", "p50_ms", "p99_ms", "proxy_us", "servers_us")
    console.print("strict over bounded: " + ", ".join(f"{name} {ratio(runs, name):.2f}" for name in names))


if __name__ == "__main__":
    run_bench(main)
