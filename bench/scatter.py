"""Statements over several shards: wall time beside one server with all rows, CPU and memory of the proxy, commits.

    ./dev bench scatter [--json FILE] [--only PART,…] [--rows N] [--rounds N] …

Parts: `speed` (six statements over 2, 4 and 8 shards), `rows` (CPU per merged row and memory while all rows pass in
order), `planning` (the 22 TPC-H queries), `commit` (two shards beside two single ones), `before` (one-shard traffic
beside the tree before this was built), `lookup` (selects and inserts with and without a lookup index). All servers are
MariaDB on this machine, which they share with the proxy and the client: wall times say what an answer costs altogether,
not what more machines would bring. What is compared runs alternately, and ratios are taken within a round. Every answer
is compared with the one server's first, but in `commit`, `before` and `lookup`. A statement that the proxy refuses is
reported as refused. The JSON file is a list of objects {figure, shards, value, unit, needed, met, state, note, …}.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pymysql
from rich import box
from rich.console import Console
from rich.table import Column, Table

from bench.rig.before import one_shard_figures
from bench.rig.commits import two_shard_commit
from bench.rig.lookups import lookup_figures
from bench.rig.measured import FAILED, Figure, median_ratio, notes, verdict
from bench.rig.options import WordsOf, numbers, run_bench, say_if_busy
from bench.rig.peak import Peak
from bench.rig.planning import planning_context, planning_ms, refused
from bench.rig.process_usage import cpu_seconds, rss
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.scatter_data import (
    ALL_BY_NUMBER,
    ALL_BY_TEXT,
    STATEMENTS,
    Statement,
    keyspace,
    keyspace_toml,
    load_lone,
    load_shards,
)
from bench.rig.wire import WireClient, WireError
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.topology.maps import BucketMap
from tests.tpch import schema as tpch
from tests.tpch.load import create_tables
from tests.tpch.queries import queries

PARTS = ("speed", "rows", "planning", "commit", "before", "lookup")
_CPU_NEEDED = {ALL_BY_NUMBER: 1.5, ALL_BY_TEXT: 3.0}  # µs per merged row
_MEMORY_NEEDED = 64.0  # MiB over idle
_PLANNING_NEEDED = 10.0  # ms
_SERVER_OPTIONS = ("--innodb-buffer-pool-size=256M", "--tmp-table-size=64M", "--max-heap-table-size=64M")
_SECONDS = 300.0
_PASSES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    say_if_busy(console)
    figures: list[Figure] = []
    if set(options.only) - {"before", "lookup"}:
        figures += _over_shards(options, console)
    if "before" in options.only:
        with console.status("one-shard traffic, now and before"):
            figures += one_shard_figures(options.turns, options.seconds)
    if "lookup" in options.only:
        with console.status("a lookup index"):
            figures += lookup_figures(options.rounds, options.seconds)
    if options.json:
        Path(options.json).write_text(json.dumps([f.as_json() for f in figures], indent=1) + "\n")
    _show(figures, Console())
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="bench scatter", description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--only", type=WordsOf(PARTS), default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--shards", type=numbers, default=[2, 4, 8], help="default: 2,4,8")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default: 1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each statement (default: 5)")
    parser.add_argument("--turns", type=int, default=12, help="rounds of `before`, each of four runs (default: 12)")
    parser.add_argument("--seconds", type=int, default=1, help="length of such a run (default: 1)")
    return parser.parse_args(arguments)


def _over_shards(options: argparse.Namespace, console: Console) -> list[Figure]:
    """All parts that need the big table."""
    only, counts = options.only, options.shards
    middle = counts[len(counts) // 2]
    with (
        LocalCluster(shards=max(counts), replicas=0, server_options=_SERVER_OPTIONS) as cluster,
        LocalCluster.single(server_options=_SERVER_OPTIONS) as lone,
    ):
        names = [shard.name for shard in cluster.shards]
        places: dict[int, BucketMap] = {}
        with console.status(f"making {options.rows:,} rows, {len(counts) + 1} times"):
            load_lone(lone.server, options.rows)
            for count in counts:
                places[count] = load_shards(cluster, count, options.rows)
            for shard in cluster.shards:
                create_tables(shard.primary)
        toml = [keyspace_toml(names[:count]) for count in counts] + [tpch.keyspace_toml(names[:middle])]
        proxy = start_proxy(cluster, "\n".join(toml), workers=1)
        figures = []
        if "rows" in only:  # first: before anything else has left its memory behind
            idle = _idle(proxy, middle)
            for statement in (ALL_BY_NUMBER, ALL_BY_TEXT):
                with console.status(f"{statement.name} over {middle} shards"):
                    figures += _merged_rows(proxy, middle, statement, options.rows, idle)
        if "speed" in only:
            for count in counts:
                for statement in STATEMENTS:
                    with console.status(f"{statement.name} over {count} shards"):
                        figures.append(_speed(proxy, lone.server, count, statement, options.rounds))
        if "planning" in only:
            figures += _planning(proxy)
        if "commit" in only:
            with console.status("two-shard commits"):
                count = min(counts)
                port = proxy.mysql_port
                figures += two_shard_commit(cluster, port, keyspace(count), places[count], 60 * options.rounds)
        return figures


def _speed(proxy: RunningProxy, lone: LocalServer, shards: int, statement: Statement, rounds: int) -> Figure:
    unit = "× one server"
    try:
        same = _same_answer(proxy, lone, shards, statement)
    except pymysql.err.MySQLError as error:
        return Figure(statement.name, unit, shards=shards).failed(*error.args)
    if not same:
        return Figure(statement.name, unit, shards=shards, state=FAILED, note="WRONG ANSWER: not that of one server")
    with (
        closing(WireClient(proxy.mysql_port, USER, PASSWORD, keyspace(shards), _SECONDS)) as ours,
        closing(WireClient(lone.port, lone.admin_user, lone.admin_password, "scatter", _SECONDS)) as theirs,
    ):
        pairs = [(_seconds(ours, statement), _seconds(theirs, statement)) for _ in range(rounds)]
    ratio, low, high = median_ratio(pairs)
    detail = {
        "lowest": low,
        "highest": high,
        "proxy_ms": median(a for a, _ in pairs) * 1e3,
        "one_server_ms": median(b for _, b in pairs) * 1e3,
    }
    return Figure(statement.name, unit, ratio, shards=shards, detail=detail)


def _seconds(client: WireClient, statement: Statement) -> float:
    start = time.perf_counter()
    client.count(statement.sql)
    return time.perf_counter() - start


def _same_answer(proxy: RunningProxy, lone: LocalServer, shards: int, statement: Statement) -> bool:
    """Raises pymysql's errors of the proxy's side."""
    settings: dict[str, Any] = {
        "host": "127.0.0.1", "port": proxy.mysql_port, "user": USER, "password": PASSWORD,
        "database": keyspace(shards), "autocommit": None, "read_timeout": _SECONDS,
    }  # fmt: skip
    answers = []
    for connection in (pymysql.connect(**settings), lone.connect("scatter")):
        with connection, connection.cursor() as cursor:
            cursor.execute(statement.sql)
            rows = list(cursor.fetchall())
            answers.append(rows if statement.ordered else sorted(rows))
    return bool(answers[0] == answers[1])


def _idle(proxy: RunningProxy, shards: int) -> int:
    """Resident bytes of a worker that has served something small."""
    with closing(WireClient(proxy.mysql_port, USER, PASSWORD, keyspace(shards), _SECONDS)) as client:
        client.count("SELECT COUNT(*) FROM facts WHERE id = 1")
    return rss(proxy.worker_pids())


def _merged_rows(proxy: RunningProxy, shards: int, statement: Statement, rows: int, idle: int) -> list[Figure]:
    """CPU per row (the median of some passes) and memory over `idle` bytes (the highest) while all rows pass through
    one worker."""
    cpu = Figure(f"CPU per row, {statement.name}", "µs", needed=_CPU_NEEDED[statement], shards=shards)
    memory = Figure(f"memory, {statement.name}", "MiB over idle", needed=_MEMORY_NEEDED, shards=shards)
    pids = proxy.worker_pids()
    times, highest = [], 0
    with closing(WireClient(proxy.mysql_port, USER, PASSWORD, keyspace(shards), _SECONDS)) as client:
        for _ in range(_PASSES):
            try:
                with Peak(pids) as peak:
                    before, start = cpu_seconds(pids), time.perf_counter()
                    size = client.count(statement.sql)
                    times.append((cpu_seconds(pids) - before, time.perf_counter() - start))
            except WireError as error:
                return [figure.failed(error.code, str(error)) for figure in (cpu, memory)]
            if size.rows != rows:
                wrong = f"WRONG ANSWER: {size.rows} rows"
                return [replace(figure, state=FAILED, note=wrong) for figure in (cpu, memory)]
            highest = max(highest, peak.highest)
    detail = {"rows": float(rows), "seconds": median(seconds for _, seconds in times)}
    mib = 1 << 20
    return [
        replace(cpu, value=median(used for used, _ in times) * 1e6 / rows, detail=detail),
        replace(memory, value=(highest - idle) / mib, detail={**detail, "idle_mib": idle / mib}),
    ]


def _planning(proxy: RunningProxy) -> list[Figure]:
    texts = [query.sql for query in queries(0.05)]
    context = planning_context(proxy.config, tpch.DATABASE)
    times = planning_ms(texts, context)
    count = refused(texts, context)
    note = f"{count} of the {len(texts)} are refused" if count else ""
    detail = {"slowest_ms": max(times), "quickest_ms": min(times)}
    return [
        Figure("planning, median of 22 TPC-H queries", "ms", median(times), _PLANNING_NEEDED, note=note, detail=detail)
    ]


def _show(figures: Sequence[Figure], console: Console) -> None:
    table = Table("figure", Column("shards", justify="right"), box=box.SIMPLE_HEAD, collapse_padding=True)
    table.pad_edge = False
    for name in ("value", "needed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("verdict")
    last = None
    for f in figures:
        if last not in (None, f.shards):
            table.add_section()
        last = f.shards
        value = "–" if f.value is None else f"{f.value:,.2f}"
        needed = "" if f.needed is None else f"≤ {f.needed:g}"
        said = {None: "", True: "[green]met", False: "[red]NOT met"}[f.met]
        if f.value is None:
            said = f"[red]{f.state}"
        table.add_row(f.figure, str(f.shards or ""), value, needed, f.unit, said)
    console.print(table)
    for note in notes(figures):
        console.print(note, highlight=False)
    console.print(verdict(figures))


if __name__ == "__main__":
    run_bench(main)
