"""One-shard traffic through this tree and through an earlier one, next to each other in front of the same servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.rig.measured import FAILED, Figure, median_ratio, uncertainty
from bench.rig.process_usage import cpu_seconds, tree
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.sysbench import DATABASE, SysbenchResult, load_table, run_point_select, run_transactions
from shardproxy.local import LocalCluster, LocalError
from shardproxy.local.folders import cache_folder, locked
from shardproxy.local.proxy_environment import COMPILED

COMMIT = "af17628"  # the last one before statements over several shards
NEEDED = 1.03
_CLIENTS = 16
_ROWS = 100_000
_WARM_UP = 1.0
_KEYSPACE = f"""
[keyspaces.{DATABASE}]
key_type = "int"
map = "range"
[[keyspaces.{DATABASE}.ranges]]
from = "min"
to = {_ROWS + 1}
shard = "shard1"
[[keyspaces.{DATABASE}.ranges]]
from = {_ROWS + 1}
to = "max"
shard = "shard2"
[keyspaces.{DATABASE}.tables]
sbtest1 = {{ key = "id" }}
"""
Run = Callable[[int, float, Callable[[], None], Callable[[], None]], SysbenchResult]


def one_shard_figures(rounds: int, seconds: float) -> list[Figure]:
    """CPU of the proxy per query, now over then: point selects as text and prepared, and transactions."""
    names = [f"one-shard {name}" for name in RUNS]
    try:
        package = earlier_package(Path(__file__).parents[2])
    except LocalError as error:
        return [Figure(n, "× before", needed=NEEDED, shards=1, state=FAILED, note=str(error)) for n in names]
    with LocalCluster(shards=2, replicas=0, server_options=("--innodb-buffer-pool-size=256M",)) as cluster:
        for shard in cluster.shards:
            shard.primary.rows(f"CREATE DATABASE {DATABASE}")
        cluster.create_account(USER, PASSWORD)
        for shard in cluster.shards:
            load_table(shard.primary, USER, PASSWORD, _ROWS if shard.name == "shard1" else 1)
        pairs: dict[str, list[_Pair]] = {name: [] for name in RUNS}
        for number in range(rounds):
            # New processes each round: two of the very same code were seen to differ for as long as they lived.
            now = start_proxy(cluster, _KEYSPACE, workers=1, name=f"now{number}")
            then = start_proxy(cluster, _KEYSPACE, workers=1, name=f"earlier{number}", package=package)
            for name, run in RUNS.items():
                pairs[name].append(_pair(run, (now, then), seconds, bool(number % 2)))
            now.process.stop()
            then.process.stop()
        return [_figure(name, pairs[run]) for name, run in zip(names, RUNS, strict=True)]


@dataclass(frozen=True, slots=True)
class _Pair:
    """CPU µs per query, and queries a second, of the present tree and of the earlier one in one round."""

    cpu: tuple[float, float]
    rate: tuple[float, float]


def _pair(run: Run, proxies: tuple[RunningProxy, RunningProxy], seconds: float, turned: bool) -> _Pair:
    for proxy in proxies:
        _measure(run, proxy, _WARM_UP)
    # In the order A B B A, so that within a round a load that grows or wanes hits both alike.
    order = (1, 0, 0, 1) if turned else (0, 1, 1, 0)
    found: tuple[list[tuple[float, int, float]], ...] = ([], [])
    for index in order:
        found[index].append(_measure(run, proxies[index], seconds))
    (ours, our_rate), (theirs, their_rate) = map(_together, found)
    return _Pair((ours, theirs), (our_rate, their_rate))


def _figure(name: str, pairs: list[_Pair]) -> Figure:
    ratio, low, high = median_ratio([pair.cpu for pair in pairs])
    doubt = uncertainty([a / b for a, b in (pair.cpu for pair in pairs)])
    note = f"uncertain by about {doubt:.2f}: the machine is too busy for a verdict" if doubt > NEEDED - 1 else ""
    detail = {
        "lowest": low,
        "highest": high,
        "uncertainty": doubt,
        "cpu_us_per_query": median(pair.cpu[0] for pair in pairs),
        "throughput_ratio": median_ratio([pair.rate for pair in pairs])[0],
    }
    return Figure(name, "× CPU before", ratio, NEEDED, 1, note=note, detail=detail)


def _measure(run: Run, proxy: RunningProxy, seconds: float) -> tuple[float, int, float]:
    """CPU seconds, queries, and seconds."""
    pids = tree(proxy.process.pid)
    readings: list[float] = []

    def read() -> None:
        readings.append(cpu_seconds(pids))

    result = run(proxy.mysql_port, seconds, read, read)
    return readings[1] - readings[0], result.queries, result.seconds


def _together(runs: list[tuple[float, int, float]]) -> tuple[float, float]:
    """CPU µs per query, and queries a second."""
    cpu, queries, seconds = map(sum, zip(*runs, strict=True))
    return cpu * 1e6 / queries, queries / seconds


def _text(port: int, seconds: float, started: Callable[[], None], ended: Callable[[], None]) -> SysbenchResult:
    return run_point_select(
        [port], USER, PASSWORD, mode="text", clients=_CLIENTS, seconds=seconds, rows=_ROWS, started=started, ended=ended
    )


def _prepared(port: int, seconds: float, started: Callable[[], None], ended: Callable[[], None]) -> SysbenchResult:
    return run_point_select(
        [port], USER, PASSWORD, mode="prepared", clients=_CLIENTS, seconds=seconds, rows=_ROWS, started=started,
        ended=ended,
    )  # fmt: skip


def _transactions(port: int, seconds: float, started: Callable[[], None], ended: Callable[[], None]) -> SysbenchResult:
    return run_transactions(
        port, USER, PASSWORD, clients=_CLIENTS, seconds=seconds, rows=_ROWS, started=started, ended=ended
    )


RUNS: dict[str, Run] = {"point select, text": _text, "point select, prepared": _prepared, "transaction": _transactions}


def earlier_package(checkout: Path) -> Path:
    """Folder with the package of COMMIT, compiled when the present one runs compiled; kept in the cache.

    Raises LocalError: no history here, or the build failed.
    """
    present = os.environ.get(COMPILED)
    compiled = bool(present)
    if present and not Path(present).is_dir():
        raise LocalError(f"{COMPILED} names {present}, which does not exist: the present tree would run uncompiled")
    name = f"{COMMIT}-{sys.implementation.cache_tag}"
    folder = cache_folder() / "earlier" / name
    source, built = folder / "source", folder / "compiled"
    with locked("earlier"):
        if not (source / "pyproject.toml").exists():
            source.mkdir(parents=True, exist_ok=True)
            archive = folder / "source.tar"
            _run(["git", "-C", str(checkout), "archive", "--format=tar", f"--output={archive}", COMMIT])
            _run(["tar", "-xf", str(archive), "-C", str(source)])
            archive.unlink()
        if not compiled:
            return source
        if not (built / "done").exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            command += ["--no-build-isolation", "--no-deps", "--upgrade", "--target", str(built), str(source)]
            _run(command, {**os.environ, "SHARDPROXY_COMPILE": "1", "PYTHONPATH": ""})
            (built / "done").touch()
    return built


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LocalError(f"the earlier tree cannot be had: {error}") from error
    if done.returncode != 0:
        raise LocalError(f"the earlier tree cannot be had: {command[0]}: {done.stderr.strip()[-500:]}")
