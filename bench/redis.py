"""CPU per command, throughput and latency of the Redis port beside nutcracker (twemproxy) and Redis itself.

    ./dev bench redis [--json FILE] [--rounds N] [--seconds N] …

The peers take turns within each round, and ratios are taken within a round, so that what else the machine does hits all
alike. Needed: shardproxy's CPU per command ≤ 1.1 × nutcracker's, p99 ≤ 1.2 × nutcracker's. The JSON file is a list of
objects {peer, command, pipeline, clients, qps, p50_ms, p95_ms, p99_ms, cpu_us_per_command}: medians over the rounds.
CPU is user and system time of the proxy's processes; MGET of ten keys counts as one command.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.rig.interpreter import described, warning
from bench.rig.options import WordsOf, numbers, run_bench, say_if_busy, started
from bench.rig.peers import Peer
from bench.rig.redis_peers import COMMANDS, KEYS, NAMES, VALUE, Load, run_load, start_redis_peer
from shardproxy.local import LocalCluster, LocalError

CPU_BOUND, P99_BOUND = 1.1, 1.2


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One kind of load."""

    command: str
    pipeline: int
    clients: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one peer; cpu_us: per command, 0 without a proxy."""

    round: int
    peer: str
    case: Case
    load: Load
    cpu_us: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    console.print(f"shardproxy runs on {options.python} ({described(options.python)})")
    slow = warning(options.python)
    if slow:
        console.print(f"[bold red]{slow}", highlight=False)
    say_if_busy(console)
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        peers, missing = started(options.peers, lambda name: start_redis_peer(name, cluster, options.python), console)
        for peer in peers:
            _fill(peer)
        runs = list(_measure(peers, options, console))
    figures = summary(runs)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    _show(figures, runs, missing, Console())
    return 0 if any(f["peer"] == "shardproxy" for f in figures) else 1


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench redis", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long one run takes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each peer and load (default: 3)")
    parser.add_argument("--clients", type=numbers, default=[32, 200], help="default: 32,200")
    parser.add_argument("--pipelines", type=numbers, default=[1, 16, 64], help="default: 1,16,64")
    commands = list(COMMANDS)
    parser.add_argument("--commands", type=WordsOf(commands), default=commands, help=f"default: {','.join(commands)}")
    parser.add_argument("--peers", type=WordsOf(NAMES), default=list(NAMES), help=f"default: {','.join(NAMES)}")
    parser.add_argument("--python", default=sys.executable, help="interpreter that shardproxy runs on")
    return parser.parse_args(arguments)


def _fill(peer: Peer) -> None:
    """Give nearly all keys a value where this peer looks for them."""
    run_load(peer, ("SET", "key:__rand_int__", "x" * VALUE), 64, 32, KEYS * 4)


def _measure(peers: Sequence[Peer], options: argparse.Namespace, console: Console) -> Iterator[Run]:
    cases = [
        Case(command, pipeline, clients)
        for command in options.commands
        for pipeline in options.pipelines
        for clients in options.clients
    ]
    for case in cases:
        counts = {}
        for peer in peers:  # warms up, and tells how many commands a run is to have
            count = case.pipeline * case.clients * 20
            load = run_load(peer, COMMANDS[case.command], case.pipeline, case.clients, count)
            counts[peer.name] = max(count, int(load.qps * options.seconds))
        for number in range(1, options.rounds + 1):
            at = number % len(peers)  # in turn: who always comes after the same other inherits its caches
            for peer in [*peers[at:], *peers[:at]]:
                yield _run(number, peer, case, counts[peer.name])
        console.print(f"measured: {case.command}, pipeline {case.pipeline}, {case.clients} clients", highlight=False)


def _run(number: int, peer: Peer, case: Case, count: int) -> Run:
    before = peer.cpu_seconds()
    load = run_load(peer, COMMANDS[case.command], case.pipeline, case.clients, count)
    return Run(number, peer.name, case, load, (peer.cpu_seconds() - before) * 1e6 / count)


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Medians over the rounds, one object for each peer and load, in order of first appearance."""
    groups: dict[tuple[Case, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.case, run.peer), []).append(run)
    return [
        {
            "peer": peer,
            "command": case.command,
            "pipeline": case.pipeline,
            "clients": case.clients,
            "qps": round(median(r.load.qps for r in group), 1),
            "p50_ms": round(median(r.load.p50_ms for r in group), 3),
            "p95_ms": round(median(r.load.p95_ms for r in group), 3),
            "p99_ms": round(median(r.load.p99_ms for r in group), 3),
            "cpu_us_per_command": round(median(r.cpu_us for r in group), 3),
        }
        for (case, peer), group in groups.items()
    ]


def ratios(runs: Sequence[Run]) -> dict[Case, tuple[float, float]]:
    """shardproxy's CPU per command and p99 over nutcracker's: medians of the rounds' ratios."""
    found: dict[Case, list[tuple[float, float]]] = {}
    theirs = {(r.case, r.round): r for r in runs if r.peer == "nutcracker"}
    for ours in runs:
        other = theirs.get((ours.case, ours.round))
        if ours.peer == "shardproxy" and other is not None:
            pair = (ours.cpu_us / other.cpu_us, ours.load.p99_ms / other.load.p99_ms)
            found.setdefault(ours.case, []).append(pair)
    return {case: (median(c for c, _ in pairs), median(p for _, p in pairs)) for case, pairs in found.items()}


def _show(
    figures: Sequence[dict[str, Any]], runs: Sequence[Run], missing: dict[str, LocalError], console: Console
) -> None:
    table = Table("command", title="the Redis port, medians over the rounds", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("pipeline", justify="right")
    table.add_column("clients", justify="right")
    table.add_column("peer", no_wrap=True)
    for name in ("commands/s", "p50 ms", "p99 ms", "CPU µs", "CPU ratio", "p99 ratio"):
        table.add_column(name, justify="right")
    compared = ratios(runs)
    for f in figures:
        case = Case(f["command"], f["pipeline"], f["clients"])
        ours = f["peer"] == "shardproxy" and case in compared
        shown = [
            f"[{'green' if ratio <= bound else 'red'}]{ratio:.2f}"
            for ratio, bound in zip(compared[case], (CPU_BOUND, P99_BOUND), strict=True)
        ] if ours else ["", ""]  # fmt: skip
        cpu = "none" if f["peer"] == "direct" else f"{f['cpu_us_per_command']:.2f}"
        numbers = (f"{f['qps']:,.0f}", f"{f['p50_ms']:.2f}", f"{f['p99_ms']:.2f}", cpu)
        table.add_row(case.command, str(case.pipeline), str(case.clients), f["peer"], *numbers, *shown)
    console.print(table)
    for name, error in missing.items():
        console.print(f"[bold red]NOT MEASURED: {name}: {str(error).splitlines()[0]}", highlight=False)
    if not compared:
        console.print("[bold red]no verdict: a peer is missing")
        return
    unmet = [case for case, (cpu, p99) in compared.items() if cpu > CPU_BOUND or p99 > P99_BOUND]
    verdict = (
        f"[bold red]{len(unmet)} of {len(compared)} loads miss" if unmet else f"[green]all {len(compared)} loads meet"
    )
    console.print(f"{verdict} what is needed: CPU ≤ {CPU_BOUND} ×, p99 ≤ {P99_BOUND} × nutcracker's")


if __name__ == "__main__":
    run_bench(main)
