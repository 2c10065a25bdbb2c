"""Moving rows between shards: copy and catch-up rates, and what the application notices.

    ./dev bench rebalance [--json FILE] [--only PART,…] [--rows N] [--flavor mysql] …

Parts: `copy` (2 → 3 shards by ring growth and by a split range, without traffic, beside `mariadb-dump | mariadb` of the
same rows), `memory` (of the mover, a tenth of the table beside all of it), `catch-up` (single-row transactions that
have piled up), `traffic` (ring growth under 500 updates and 2,000 reads a second through two proxies: begun and
cancelled in rounds, which tell what copying does to the application, and once from begin to end), `switch` (small
tables there and back again and again under the same traffic, by a range and by ring growth; what comparing both sides
does to the application is told apart).
The servers, the mover, the proxies and the application share this machine: a rate says what all of them reach together,
CPU what is ours alone. The load average stands beside each figure. What copying does to the application is told by
rounds, some seconds without it and some with it in turn, by all seconds and by those in which no hypervisor took CPU
from this machine. The whole copy's figure has in it whatever else the machine did in those minutes. The JSON file is a
list of objects {figure, value, unit, needed, met, …}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.rig import mover, traffic
from bench.rig.companion import Companion
from bench.rig.measured import FAILED, MEASURED, Figure, notes, verdict
from bench.rig.move_data import MOST_ROWS, TABLE, Layout, by_range, by_ring, count, load
from bench.rig.options import WordsOf, run_bench
from bench.rig.process_usage import cpu_seconds
from bench.rig.proxy import RunningProxy, start_proxy
from bench.rig.seen import BESIDE, READS, STILL, UPDATES, Seen, compare_figures, copy_beside, switch_figures, whole_copy
from shardproxy.local import LocalCluster, LocalError, LocalServer
from shardproxy.local.process import find_program

PARTS = ("copy", "memory", "catch-up", "traffic", "switch")
_COPY_NEEDED = 80_000.0  # rows a second
_CPU_NEEDED = 1e6 / _COPY_NEEDED  # µs of one core for a row
_CATCH_UP_NEEDED = 10_000.0  # transactions a second
_MEMORY_NEEDED = 1.2  # × that of a tenth
_SHARE_NEEDED = 1.15 / 3  # of the rows, 2 → 3 shards
_PILED_UP = 100_000  # transactions
_SMALL = 20_000  # rows of the table that moves there and back
_BEFORE = 30.0  # seconds of traffic without a move, before one and behind it
_WARM = 5.0  # seconds of traffic before anything of it counts
_STILL, _BESIDE = 6.0, 12.0  # seconds of a round; a snapshot is copied from for 10, and what came meanwhile follows
_SETTLE = 0.5  # seconds of traffic between two switches, at least
_QUIET = 10.0  # between two rounds: for 6 s after a move was cancelled p99 was nearly twice what it was from then on
_OPTIONS = {
    "mariadb": ("--innodb-buffer-pool-size=768M", "--innodb-log-file-size=512M"),
    "mysql": ("--innodb-buffer-pool-size=768M", "--innodb-redo-log-capacity=1G"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    bench = Bench(options, console)
    if set(options.only) & {"copy", "memory", "catch-up"}:
        bench.without_traffic()
    if set(options.only) & {"traffic", "switch"}:
        bench.with_traffic()
    figures = bench.figures
    if options.json:
        Path(options.json).write_text(json.dumps([f.as_json() for f in figures], indent=1) + "\n")
    _show(figures, Console())
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="bench rebalance", description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--only", type=WordsOf(PARTS), default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--flavor", choices=("mariadb", "mysql"), default="mariadb", help="default: mariadb")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the table (default: 2000000)")
    parser.add_argument(
        "--throttle", type=int, default=0, help="rows/s of each stream under traffic (default: 0, none)"
    )
    parser.add_argument(
        "--gentle", action=argparse.BooleanOptionalAction, default=True,
        help="copy under traffic as `shardctl rebalance run` with this option (default: --gentle)",
    )  # fmt: skip
    parser.add_argument("--writes", type=float, default=500, help="updates a second (default: 500)")
    parser.add_argument("--reads", type=float, default=2000, help="reads a second (default: 2000)")
    parser.add_argument("--rounds", type=int, default=24, help="rounds of the part traffic (default: 24)")
    parser.add_argument("--switches", type=int, default=24, help="switches there and back (default: 24)")
    options = parser.parse_args(arguments)
    if not 1000 <= options.rows <= MOST_ROWS:
        parser.error(f"--rows: from 1000 to {MOST_ROWS}")
    return options


class Bench:
    """The parts, and the figures that they have given."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.figures: list[Figure] = []
        self._options = options
        self._console = console
        self._written: dict[str, int] = {}  # updates by keyspace that have been counted

    def _add(self, *figures: Figure) -> None:
        load = os.getloadavg()[0]
        self.figures += [replace(f, detail={**f.detail, "load": load}) for f in figures]

    def _cluster(self) -> LocalCluster:
        flavor = self._options.flavor
        return LocalCluster(flavor, shards=3, replicas=0, server_options=_OPTIONS[flavor])

    # ── without traffic ──

    def without_traffic(self) -> None:
        rows, only = self._options.rows, self._options.only
        two = ["shard1", "shard2"]
        ring, tenth, ranges = (
            by_ring("ring", two, rows),
            by_ring("tenth", two, rows // 10),
            by_range("split", two, rows),
        )
        wanted = [tenth] if "memory" in only else []
        wanted += [ring] if {"copy", "memory"} & set(only) else []
        wanted += [ranges] if {"copy", "catch-up"} & set(only) else []
        peaks = {}
        for layout in wanted:
            # Servers of its own: those that have copied before are slower, by what they still have to write.
            with self._cluster() as cluster:
                peaks[layout.keyspace] = self._alone(cluster, layout)
        if "memory" in only:
            self._memory(peaks)

    def _alone(self, cluster: LocalCluster, layout: Layout) -> int:
        """Copy one table, and what belongs to that; the mover's most bytes."""
        only = self._options.only
        with self._console.status(f"making {layout.rows:,} rows by {layout.keyspace}"):
            load(cluster, layout)
        config = start_proxy(cluster, layout.toml, workers=1, extra=_STORE).config
        goals = {"add-shard": "shard3"}
        if layout.keyspace == "split":
            goals["split-range"] = f"{layout.rows // 4}=shard3"
        with self._console.status(f"copying, {layout.keyspace}"), mover.start(config) as moving:
            streams = moving.ask("begin", keyspace=layout.keyspace, goals=goals)["streams"]
            before = _cpu_of(cluster)
            copied = moving.ask("copy")
            copied |= {f"{name}_cpu": used - before[name] for name, used in _cpu_of(cluster).items()}
            if "copy" in only and layout.keyspace != "tenth":
                self._copied(cluster, layout, streams, copied)
            if "catch-up" in only and layout.keyspace == "split":
                self._catch_up(cluster, layout, moving)
        peak: int = copied["peak"]
        return peak

    def _copied(self, cluster: LocalCluster, layout: Layout, streams: list[Any], copied: dict[str, Any]) -> None:
        name = "ring 2 → 3" if layout.keyspace == "ring" else "range split"
        rows = count(cluster.shards[2].primary, layout.keyspace)
        if rows != copied["rows"]:
            self._add(Figure(f"copy, {name}", "rows/s", state=FAILED, note=f"{rows} of {copied['rows']} rows arrived"))
            return
        if layout.keyspace == "ring":
            self._add(Figure(f"share of rows moved, {name}", "of all", rows / layout.rows, _SHARE_NEEDED))
        rate = rows / copied["seconds"]
        self._add(
            Figure(f"copy, {name}", "rows/s", rate, _COPY_NEEDED, at_least=True, detail=copied),
            Figure(
                f"copy, CPU of the mover, {name}", "µs/row", (copied["cpu"] + copied["streams_cpu"]) * 1e6 / rows,
                _CPU_NEEDED, detail=copied,
            ),
        )  # fmt: skip
        beside = _dumped(cluster, layout, streams, rows)
        state = MEASURED if beside[0] else FAILED
        self._add(Figure(f"mariadb-dump | mariadb, {name}", "rows/s", beside[0], state=state, note=beside[1]))
        if beside[0]:
            self._add(Figure(f"copy beside it, {name}", "× its rate", rate / beside[0]))

    def _memory(self, peaks: dict[str, int]) -> None:
        part, whole = peaks["tenth"], peaks["ring"]
        detail = {"tenth_mib": part / (1 << 20), "whole_mib": whole / (1 << 20)}
        self._add(Figure("memory of the mover, ten times the rows", "×", whole / part, _MEMORY_NEEDED, detail=detail))

    def _catch_up(self, cluster: LocalCluster, layout: Layout, moving: Companion) -> None:
        moving.ask("stop")
        low = layout.rows // 4
        span = layout.rows // 2 - low
        source = cluster.shards[0].primary
        with self._console.status(f"{_PILED_UP:,} transactions"):
            source.rows(
                "CREATE PROCEDURE pile_up(amount INT) BEGIN DECLARE i INT DEFAULT 0; WHILE i < amount DO "
                f"UPDATE {TABLE} SET writes = writes + 1 WHERE id = {low} + (i * 7919) % {span}; SET i = i + 1; "
                "END WHILE; END",
                database=layout.keyspace,
            )
            source.rows(f"CALL pile_up({_PILED_UP})", database=layout.keyspace)
        with self._console.status("catching up"):
            found = moving.ask("catch_up")
        moved = count(cluster.shards[2].primary, layout.keyspace, "SUM(writes)")
        unit = "transactions/s"
        if moved != _PILED_UP:
            self._add(Figure("catch-up", unit, state=FAILED, note=f"{moved} of {_PILED_UP} changes arrived"))
            return
        self._add(
            Figure("catch-up", unit, _PILED_UP / found["seconds"], _CATCH_UP_NEEDED, at_least=True, detail=found),
            Figure("catch-up, CPU of the engine", "µs/transaction", found["cpu"] * 1e6 / _PILED_UP),
            Figure("catch-up, CPU of reading the binlog", "µs/transaction", found["streams_cpu"] * 1e6 / _PILED_UP),
        )

    # ── with traffic ──

    def with_traffic(self) -> None:
        rows, only = self._options.rows, self._options.only
        big = by_ring("ring", ["shard1", "shard2"], rows)
        small = by_range("small", ["shard1", "shard2"], _SMALL)
        growing = by_ring("growing", ["shard1", "shard2"], _SMALL)
        wanted = (*([big] if "traffic" in only else []), *([small, growing] if "switch" in only else []))
        with self._cluster() as cluster:
            for layout in wanted:
                with self._console.status(f"making {layout.rows:,} rows by {layout.keyspace}"):
                    load(cluster, layout)
            toml = "".join(layout.toml for layout in wanted)
            proxies = [start_proxy(cluster, toml, workers=1, extra=_STORE, name=name) for name in ("left", "right")]
            if "traffic" in only:
                self._rounds(cluster, big, proxies)
                self._whole_move(cluster, big, proxies)
            if "switch" in only:
                low = small.rows // 4
                self._there_and_back(cluster, small, {"move-range": f"{low}:{2 * low}=shard2"}, proxies)
                self._there_and_back(cluster, growing, {"add-shard": "shard3"}, proxies)

    def _traffic(self, layout: Layout, proxies: Sequence[RunningProxy]) -> Companion:
        ports = [proxy.mysql_port for proxy in proxies]
        return traffic.start(ports, layout.keyspace, layout.rows, self._options.writes, self._options.reads)

    def _rounds(self, cluster: LocalCluster, layout: Layout, proxies: Sequence[RunningProxy]) -> None:
        """Begin a move, copy for a while, and cancel it, again and again."""
        rounds, rates = self._options.rounds, []
        with (
            self._console.status("rounds of copying") as status,
            self._traffic(layout, proxies) as application,
            mover.start(proxies[0].config) as moving,
        ):
            _undisturbed(application, "warming up", _WARM)
            for number in range(rounds):
                status.update(f"rounds of copying, {number} of {rounds}")
                _undisturbed(application, "between", _QUIET)
                _undisturbed(application, STILL, _STILL)
                application.ask("mark", name="begin")
                moving.ask("begin", **self._growth(layout))
                moving.ask("begin_copy")
                _undisturbed(application, BESIDE, _BESIDE)
                application.ask("mark", name="cancel")
                copied = moving.ask("cancel")
                if copied["whole"]:
                    raise LocalError(f"all of {layout.rows:,} rows were copied in a round: --rows must be larger")
                rates.append(copied["rows"] / copied["seconds"])
            seen = Seen(application.ask("end"))
        self._add(Figure("copy under traffic, in rounds", "rows/s", median(rates), detail={"least": min(rates)}))
        for kind, index in (("updates", UPDATES), ("reads", READS)):
            self._add(*(copy_beside(seen, kind, index, calm) for calm in (False, True)))
        self._lost(cluster, layout, seen, "rounds")

    def _growth(self, layout: Layout) -> dict[str, Any]:
        """How a move to the third shard is begun under traffic."""
        return {
            "keyspace": layout.keyspace, "goals": {"add-shard": "shard3"}, "rate": self._options.throttle,
            "gentle": self._options.gentle,
        }  # fmt: skip

    def _whole_move(self, cluster: LocalCluster, layout: Layout, proxies: Sequence[RunningProxy]) -> None:
        with self._console.status("a move under traffic"), self._traffic(layout, proxies) as application:
            with mover.start(proxies[0].config) as moving:
                _undisturbed(application, "warming up", _WARM)
                _undisturbed(application, "before")
                application.ask("mark", name="begin")
                moving.ask("begin", **self._growth(layout))
                application.ask("mark", name="copy")
                copied = moving.ask("copy")
                application.ask("mark", name="switch")
                switched = moving.ask("switch")
                application.ask("mark", name="after")
                moving.ask("finish")
                _undisturbed(application, "rest")
            seen = Seen(application.ask("end"))
        self._add(
            Figure("copy under traffic, ring 2 → 3", "rows/s", copied["rows"] / copied["seconds"], detail=copied),
        )
        for kind, index in (("updates", UPDATES), ("reads", READS)):
            self._add(*(whole_copy(seen, kind, index, calm) for calm in (False, True)))
        took = {f"{stage}_ms": seconds * 1e3 for stage, seconds in switched["took"].items()}
        self._add(Figure("writes held by that switch", "ms", switched["held"] * 1e3, detail=took))
        self._lost(cluster, layout, seen, "whole move")

    def _there_and_back(
        self, cluster: LocalCluster, layout: Layout, goals: dict[str, str], proxies: Sequence[RunningProxy]
    ) -> None:
        given_up: list[str] = []
        held = []
        took: dict[str, list[float]] = {}
        with (
            self._console.status("switching") as status,
            self._traffic(layout, proxies) as application,
            mover.start(proxies[0].config) as moving,
        ):
            for number in range((self._options.switches + 1) // 2):
                status.update(f"switching, {2 * number} of {self._options.switches}")
                moving.ask("begin", keyspace=layout.keyspace, goals=goals, gentle=self._options.gentle)
                moving.ask("copy")
                for order, ready in (("switch", "ready_back"), ("back", "finish")):
                    # Nothing waits for it; it is work as copying is, and told apart from what the switch does.
                    application.ask("mark", name="compare")
                    moving.ask("compare" if order == "switch" else "compare_back")
                    application.ask("mark", name="switch")
                    found = moving.ask(order)
                    application.ask("mark", name="between")
                    held.append(found["held"] * 1e3)
                    for stage, seconds in found["took"].items():
                        took.setdefault(f"{stage}_median_ms", []).append(seconds * 1e3)
                    moving.ask(ready)
                    time.sleep(_SETTLE)  # so that what the next switch does to the traffic is told from this one's
                given_up += found["given_up"]
            seen = Seen(application.ask("end"))
        kind = "a range" if "move-range" in goals else "ring 2 → 3"
        self._add(*switch_figures(seen, kind, held, took, len(given_up)), *compare_figures(seen, kind))
        self._lost(cluster, layout, seen, f"switches, {kind}")

    def _lost(self, cluster: LocalCluster, layout: Layout, seen: Seen, name: str) -> None:
        """Errors that the application saw, and writes that it was told of and that are not there once."""
        written = sum(count(shard.primary, layout.keyspace, "SUM(writes)") for shard in cluster.shards)
        rows = sum(count(shard.primary, layout.keyspace) for shard in cluster.shards)
        written -= self._written.get(layout.keyspace, 0)
        self._written[layout.keyspace] = self._written.get(layout.keyspace, 0) + written
        wrong = abs(written - seen.acknowledged) + abs(rows - layout.rows)
        note = seen.errors[0] if seen.errors else ""
        self._add(
            Figure(f"errors of the application, {name}", "", float(len(seen.errors)), 0.0, note=note),
            Figure(f"writes or rows lost or doubled, {name}", "", float(wrong), 0.0, detail={"writes": float(written)}),
        )


def _undisturbed(application: Companion, name: str, seconds: float = _BEFORE) -> None:
    """Measure the traffic by itself. A fixed time, as there is nothing to wait for: it is the time that is measured."""
    application.ask("mark", name=name)
    time.sleep(seconds)  # what is measured is what happens meanwhile


def _cpu_of(cluster: LocalCluster) -> dict[str, float]:
    """Seconds of CPU of each shard's server."""
    return {f"shard{number}": cpu_seconds([shard.primary.pid]) for number, shard in enumerate(cluster.shards, 1)}


_STORE = '[store]\npath = "shared.store"\n'


def _dumped(cluster: LocalCluster, layout: Layout, streams: list[Any], rows: int) -> tuple[float | None, str]:
    """Rows a second of mariadb-dump | mariadb, all streams at once; or None, and why not."""
    target = cluster.shards[2].primary
    target.rows("CREATE DATABASE beside CHARACTER SET utf8mb4")
    try:
        [(_, made)] = target.rows(f"SHOW CREATE TABLE {layout.keyspace}.{TABLE}")
        target.rows(made, database="beside")
        sources = {shard.name: shard.primary for shard in cluster.shards}
        start = time.perf_counter()
        with ThreadPoolExecutor(len(streams)) as pool:
            for said in pool.map(lambda s: _dump(sources[s[0]], target, layout, s[2]), streams):
                if said:
                    return None, said
        seconds = time.perf_counter() - start
        there = count(target, "beside")
        return (rows / seconds, "") if there == rows else (None, f"mariadb-dump gave {there} of {rows} rows")
    finally:
        target.rows("DROP DATABASE beside")


def _dump(source: LocalServer, target: LocalServer, layout: Layout, buckets: list[list[int]]) -> str:
    """What went wrong; "" when nothing did."""
    where = f"id >= {layout.rows // 4} AND id < {layout.rows // 2}"
    if buckets:
        where = " OR ".join(f"CRC32(CRC32(id)) % 4096 BETWEEN {low} AND {end - 1}" for low, end in buckets)
    hint = "apt-get install mariadb-client"
    dump = [
        find_program("mariadb-dump", hint), *_login(source), "--single-transaction", "--no-create-info",
        "--skip-triggers", "--skip-add-locks", "--skip-disable-keys", f"--where={where}", layout.keyspace, TABLE,
    ]  # fmt: skip
    load = [find_program("mariadb", hint), *_login(target), "beside"]
    with subprocess.Popen(dump, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        done = subprocess.run(load, stdin=first.stdout, capture_output=True, text=True, check=False)
        assert first.stdout is not None
        assert first.stderr is not None
        first.stdout.close()
        said = first.stderr.read().decode("utf-8", "replace")
    return (said + done.stderr).strip()[-300:] if first.returncode or done.returncode else ""


def _login(server: LocalServer) -> list[str]:
    user, password = server.admin_user, server.admin_password
    return ["--no-defaults", "--host=127.0.0.1", f"--port={server.port}", f"--user={user}", f"--password={password}"]


def _show(figures: Sequence[Figure], console: Console) -> None:
    table = Table("figure", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.pad_edge = False
    for name in ("value", "needed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit")
    table.add_column("verdict")
    table.add_column("load", justify="right")
    for f in figures:
        value = "–" if f.value is None else f"{f.value:,.0f}" if f.value >= 1000 else f"{f.value:,.3g}"
        needed = "" if f.needed is None else f"{'≥' if f.at_least else '≤'} {f.needed:,.3g}"
        if f.needed is not None and f.needed >= 1000:
            needed = f"≥ {f.needed:,.0f}"
        said = {None: "", True: "[green]met", False: "[red]NOT met"}[f.met]
        if f.value is None:
            said = f"[red]{f.state}"
        table.add_row(f.figure, value, needed, f.unit, said, f"{f.detail.get('load', 0):.1f}")
    console.print(table)
    for note in notes(figures):
        console.print(note, highlight=False)
    console.print(verdict(figures))


if __name__ == "__main__":
    run_bench(main)
