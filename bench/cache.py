"""What a read of a cached row costs beside the same row from MySQL through the same proxy.

    ./dev bench cache [--json FILE] [--rounds N] [--seconds N] …

One shard, one Redis node, one proxy with one worker; the rows of sysbench's table, and the same again with larger ids
as cached rows. The ways take turns within each round, and ratios are taken within a round. CPU is user and system time
of the proxy's processes, MySQL and Redis together. Needed: a hit costs ≤ 0.8 × the point read. The JSON file is a list
of objects {way, clients, qps, proxy_us, servers_us, hits}: medians over the rounds; µs are per read, hits the part of
reads.

Then a query that takes MySQL about a millisecond, with and without a hint that its answer be kept: needed are ≥ 5 × as
many a second. In the file these are {way, clients, qps, ms, hits}; ms: of the query alone, by one client.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.rig.interpreter import described
from bench.rig.options import run_bench, say_if_busy
from bench.rig.peers import Peer
from bench.rig.process_usage import cpu_seconds, tree
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.redis_peers import run_load
from bench.rig.sysbench import DATABASE, load_table, run_point_select, run_query
from shardproxy.local import LocalCluster, LocalError, free_port

NEEDED = 0.8
NEEDED_RATE = 5.0
NEARLY = 0.9  # milliseconds
_FIRST = 10**12  # redis-benchmark's numbers have twelve digits, with leading zeros
_KEYSPACES = f"""
[keyspaces.{DATABASE}]
key_type = "int"
map = "hash"
ring = {{ shard1 = 1 }}
tables = {{ sbtest1 = {{ key = "id" }}, points = {{ key = "id" }} }}
"""
WAYS = ("mysql", "cached")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one way; µs per read; hits: the part of the reads that were hits."""

    round: int
    way: str
    qps: float
    proxy_us: float
    servers_us: float
    hits: float


class Scene:
    """Proxy and servers, loaded."""

    def __init__(self, cluster: LocalCluster, options: argparse.Namespace) -> None:
        self.rows: int = options.rows
        self.clients: int = options.clients
        port = free_port()
        [node], [shard] = cluster.redis, cluster.shards
        load_table(shard.primary, shard.primary.admin_user, shard.primary.admin_password, self.rows)
        shard.primary.rows(f"CREATE TABLE {DATABASE}.points (id BIGINT PRIMARY KEY, c CHAR(120))")
        shard.primary.rows(f"INSERT INTO {DATABASE}.points SELECT id + {_FIRST} - 1, c FROM {DATABASE}.sbtest1")
        extra = f"""
            [listen.redis]
            port = {port}
            [redis.nodes.{node.name}]
            address = "{node.address}"
            [cache]
            [cache.rows.points]
            key = "point:{{id}}"
            table = "{DATABASE}.points"
            ttl = "1h"
            [cache.queries]
            tables = ["{DATABASE}.sbtest1"]
        """
        self.proxy: RunningProxy = start_proxy(cluster, _KEYSPACES, workers=1, python=options.python, extra=extra)
        self.redis = Peer("cached", (port,), self.proxy.process)
        self.servers = [*tree(shard.primary.pid), node.pid]
        deadline = time.monotonic() + 30
        while self.metric("shardproxy_cache_fresh", "") < 1:
            if time.monotonic() > deadline:
                raise LocalError("the cache's keeper has not begun within 30 s")
            time.sleep(0.1)  # nothing tells when a keeper has begun but its metric
        self.ours = tree(self.proxy.process.pid)

    def metric(self, name: str, label: str) -> float:
        """The sum of a metric's samples with a label."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.proxy.admin_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{") and label in line)

    def cached(self, count: int) -> float:
        """Read so many cached rows; reads per second."""
        words = ("GET", f"point:{str(_FIRST)[:1]}__rand_int__")
        return run_load(self.redis, words, 1, self.clients, count, self.rows).qps

    def one_millisecond(self) -> tuple[str, float]:
        """A query, and the milliseconds that it takes MySQL, through the proxy."""
        rows = 1000
        while True:
            text = f"SELECT count(*) FROM sbtest1 WHERE id <= {rows} AND c LIKE '%42%42%'"
            result = run_query(self.proxy.mysql_port, USER, PASSWORD, text, clients=1, seconds=1.0)
            took = 1000 / result.qps
            if took >= NEARLY or rows >= self.rows:
                return text, took
            rows = min(self.rows, max(rows + 1, round(rows / took)))

    def rate(self, text: str, seconds: float) -> tuple[float, float]:
        """Queries a second, and the part of them that were hits."""
        hits = self.metric("shardproxy_cache_queries_total", 'outcome="hit"')
        result = run_query(self.proxy.mysql_port, USER, PASSWORD, text, clients=self.clients, seconds=seconds)
        return result.qps, (self.metric("shardproxy_cache_queries_total", 'outcome="hit"') - hits) / result.queries

    def measure(self, number: int, way: str, seconds: float, count: int) -> Run:
        before: list[float] = []
        after: list[float] = []
        hits = self.metric("shardproxy_cache_reads_total", 'outcome="hit"')

        def look(at: list[float]) -> None:
            at += [cpu_seconds(self.ours), cpu_seconds(self.servers)]

        if way == "mysql":
            result = run_point_select(
                [self.proxy.mysql_port], USER, PASSWORD, mode="text", clients=self.clients, seconds=seconds,
                rows=self.rows, started=lambda: look(before), ended=lambda: look(after),
            )  # fmt: skip
            reads, qps = result.queries, result.qps
        else:
            look(before)
            qps = self.cached(count)
            look(after)
            reads = count
        ours, servers = ((b - a) * 1e6 / reads for a, b in zip(before, after, strict=True))
        found = self.metric("shardproxy_cache_reads_total", 'outcome="hit"') - hits
        return Run(number, way, qps, ours, servers, found / reads)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    console.print(f"shardproxy runs on {options.python} ({described(options.python)})")
    say_if_busy(console)
    runs: list[Run] = []
    with LocalCluster("mariadb", shards=1, replicas=0, redis=1) as cluster:
        scene = Scene(cluster, options)
        scene.cached(options.rows * 5)  # nearly all rows come into the cache
        count = int(scene.cached(5000) * options.seconds)
        for number in range(1, options.rounds + 1):
            ways = WAYS if number % 2 else WAYS[::-1]
            runs += [scene.measure(number, way, options.seconds, count) for way in ways]
        queries = measure_queries(scene, options)
    figures = summary(runs, options.clients)
    if options.json:
        Path(options.json).write_text(json.dumps([*figures, *queries], indent=1) + "\n")
    out = Console()
    _show_queries(queries, out)
    return _show(figures, ratio(runs), out)


def measure_queries(scene: Scene, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The query from MySQL and as a kept answer: medians over the rounds."""
    text, took = scene.one_millisecond()
    texts = {"query": text, "kept": f"/*shardproxy: cache=1h*/ {text}"}
    scene.rate(texts["kept"], 1.0)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in texts}
    for number in range(options.rounds):
        for way in list(texts)[:: 1 if number % 2 else -1]:
            found[way].append(scene.rate(texts[way], options.seconds))
    return [
        {
            "way": way,
            "clients": options.clients,
            "qps": round(median(qps for qps, _ in rounds), 1),
            "ms": round(took, 3),
            "hits": round(median(hits for _, hits in rounds), 4),
        }
        for way, rounds in found.items()
    ]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench cache", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long one run takes (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--clients", type=int, default=32, help="connections (default: 32)")
    parser.add_argument("--rows", type=int, default=10_000, help="of the table (default: 10000)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that shardproxy runs on")
    return parser.parse_args(arguments)


def summary(runs: Sequence[Run], clients: int) -> list[dict[str, Any]]:
    """Medians over the rounds, by way."""
    found = []
    for way in WAYS:
        group = [run for run in runs if run.way == way]
        found.append(
            {
                "way": way,
                "clients": clients,
                "qps": round(median(run.qps for run in group), 1),
                "proxy_us": round(median(run.proxy_us for run in group), 2),
                "servers_us": round(median(run.servers_us for run in group), 2),
                "hits": round(median(run.hits for run in group), 4),
            }
        )
    return found


def ratio(runs: Sequence[Run]) -> float:
    """CPU of a cached read over that of MySQL's: the median of the rounds' ratios."""
    cost = {(run.round, run.way): run.proxy_us + run.servers_us for run in runs}
    rounds = {run.round for run in runs}
    return median(cost[number, "cached"] / cost[number, "mysql"] for number in rounds)


def _show_queries(figures: Sequence[dict[str, Any]], console: Console) -> None:
    query, kept = figures
    times = kept["qps"] / query["qps"]
    colour = "green" if times >= NEEDED_RATE else "bold red"
    console.print(
        f"a query of {query['ms']:.2f} ms: {query['qps']:,.0f}/s from MySQL, {kept['qps']:,.0f}/s kept, "
        f"{kept['hits']:.1%} hits\n[{colour}]{times:.1f} × the rate; needed: ≥ {NEEDED_RATE:g}"
    )


def _show(figures: Sequence[dict[str, Any]], found: float, console: Console) -> int:
    table = Table("way", title="a row by its key, medians over the rounds", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("reads/s", "proxy CPU µs", "servers' CPU µs", "hits"):
        table.add_column(name, justify="right")
    for f in figures:
        numbers = (f"{f['qps']:,.0f}", f"{f['proxy_us']:.1f}", f"{f['servers_us']:.1f}", f"{f['hits']:.1%}")
        table.add_row(f["way"], *numbers)
    console.print(table)
    colour = "green" if found <= NEEDED else "bold red"
    console.print(f"[{colour}]a cached read costs {found:.2f} × the read from MySQL; needed: ≤ {NEEDED}")
    return 0


if __name__ == "__main__":
    run_bench(main)
