"""CPU per query, throughput and latency of sysbench's point select through shardproxy and its peers.

    ./dev bench point-select [--json FILE] [--seconds N] [--rounds N] …

Two shards, each holding the whole sysbench table; all peers in front of the same two servers (see rig/peers.py). The
peers take turns within each round, and ratios are taken within a round, so that what else the machine does hits all
alike. The JSON file is a list of objects
{peer, mode, clients, qps, p50_ms, p95_ms, p99_ms, cpu_us_per_query}: medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from bench.rig.figures import BOUNDS, Ratio, Sample, ratios, summary
from bench.rig.interpreter import described, warning
from bench.rig.options import WordsOf, numbers, run_bench, say_if_busy, started
from bench.rig.peers import NAMES, PASSWORD, USER, Peer, PeerOptions, start_peer
from bench.rig.sysbench import Mode, load_table, run_point_select
from shardproxy.local import LocalCluster, LocalError

_WARM_UP = 1.0  # seconds of load on each peer and mode before anything counts: pools, plan cache, buffer pool
_SERVER_OPTIONS = ("--max-connections=500", "--innodb-buffer-pool-size=256M")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    console.print(f"shardproxy runs on {options.python} ({described(options.python)}); servers: {options.flavor}")
    slow = warning(options.python)
    if slow:
        console.print(f"[bold red]{slow}", highlight=False)
    say_if_busy(console)
    with LocalCluster(options.flavor, shards=2, replicas=0, server_options=_SERVER_OPTIONS) as cluster:
        cluster.create_account(USER, PASSWORD)
        for shard in cluster.shards:
            load_table(shard.primary, USER, PASSWORD, options.rows)
        peers, missing = _start(cluster, options, console)
        samples = _measure(peers, options, console)
    figures, found = summary(samples), ratios(samples)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    _show(figures, found, missing, Console())
    return 0 if any(f["peer"] == "shardproxy" for f in figures) else 1


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench point-select", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer, mode and number of clients")
    parser.add_argument("--clients", type=numbers, default=[16, 64], help="default: 16,64")
    parser.add_argument("--modes", type=WordsOf(("text", "prepared")), default=["text", "prepared"])
    parser.add_argument("--peers", type=WordsOf(NAMES), default=list(NAMES), help=f"default: {','.join(NAMES)}")
    parser.add_argument("--flavor", choices=("mariadb", "mysql"), default="mariadb", help="servers behind the peers")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the table (default: 100000)")
    parser.add_argument("--router-threads", type=int, default=1, help="MySQL Router's io threads (default: 1)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that shardproxy runs on")
    return parser.parse_args(arguments)


def _start(
    cluster: LocalCluster, options: argparse.Namespace, console: Console
) -> tuple[list[Peer], dict[str, LocalError]]:
    """The peers that run, and why the others do not."""
    wanted = PeerOptions(rows=options.rows, python=options.python, router_threads=options.router_threads)
    return started(options.peers, lambda name: start_peer(name, cluster, wanted), console)


def _measure(peers: Sequence[Peer], options: argparse.Namespace, console: Console) -> list[Sample]:
    samples = []
    modes: list[Mode] = options.modes
    total = len(peers) * len(modes) * (1 + options.rounds * len(options.clients))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        for mode in modes:
            for peer in peers:
                progress.update(task, description=f"warming up {peer.name} {mode}")
                _run(peer, mode, max(options.clients), _WARM_UP, options.rows, 0)
                progress.advance(task)
        for number in range(1, options.rounds + 1):
            for mode in modes:
                for clients in options.clients:
                    for peer in _rotated(peers, number):
                        progress.update(task, description=f"round {number}: {peer.name} {mode} {clients}")
                        samples.append(_run(peer, mode, clients, options.seconds, options.rows, number))
                        progress.advance(task)
    return samples


def _rotated(peers: Sequence[Peer], number: int) -> list[Peer]:
    # A peer that always came after the same other one would always inherit its caches and clock speed.
    at = number % len(peers) if peers else 0
    return [*peers[at:], *peers[:at]]


def _run(peer: Peer, mode: Mode, clients: int, seconds: float, rows: int, number: int) -> Sample:
    readings: list[float] = []

    def read() -> None:
        readings.append(peer.cpu_seconds())

    result = run_point_select(
        peer.ports,
        USER,
        PASSWORD,
        mode=mode,
        clients=clients,
        seconds=seconds,
        rows=rows,
        started=read,
        ended=read,
    )
    before, after = readings
    p50, p95, p99 = (result.percentile(p) for p in (50, 95, 99))
    cpu_us = (after - before) * 1e6 / result.queries
    return Sample(number, peer.name, mode, clients, result.qps, p50, p95, p99, cpu_us)


def _show(
    figures: Sequence[dict[str, Any]], found: Sequence[Ratio], missing: dict[str, LocalError], console: Console
) -> None:
    console.print(_figures_table(figures))
    if found:
        console.print(_ratios_table(found))
    for name, error in missing.items():
        console.print(f"[bold red]NOT MEASURED: {name}: {str(error).splitlines()[0]}", highlight=False)
    unmet = [r for r in found if not r.met]
    if {r.peer for r in found} != set(BOUNDS):
        console.print("[bold red]no verdict: a peer is missing")
    elif unmet:
        console.print(f"[bold red]{len(unmet)} of {len(found)} needed ratios are not met")
    else:
        console.print(f"[bold green]all {len(found)} needed ratios are met")


def _figures_table(figures: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        "mode",
        Column("clients", justify="right"),
        Column("peer", no_wrap=True),
        title="sysbench point select, medians over the rounds",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for name in ("q/s", "p50 ms", "p95 ms", "p99 ms", "CPU µs/q"):
        table.add_column(name, justify="right")
    last = None
    for f in sorted(figures, key=lambda f: (f["mode"] != "text", f["clients"], NAMES.index(f["peer"]))):
        if last not in (None, (f["mode"], f["clients"])):
            table.add_section()
        last = (f["mode"], f["clients"])
        table.add_row(
            f["mode"],
            str(f["clients"]),
            f["peer"],
            f"{f['qps']:,.0f}",
            *(f"{f[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            "none" if f["peer"] == "direct" else f"{f['cpu_us_per_query']:.1f}",
        )
    return table


def _ratios_table(found: Sequence[Ratio]) -> Table:
    table = Table(
        "mode",
        Column("clients", justify="right"),
        "compared with",
        title="CPU per query, as a ratio",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for name in ("median", "of rounds", "needed", "verdict"):
        table.add_column(name, justify="right")
    for r in found:
        verdict = "[green]met" if r.met else "[red]NOT met"
        spread = f"{r.low:.2f}–{r.high:.2f}"
        table.add_row(r.mode, str(r.clients), r.peer, f"{r.median:.2f}", spread, f"≤ {r.bound:g}", verdict)
    return table


if __name__ == "__main__":
    run_bench(main)
