"""Running sysbench's point select and reading its report.

The clock and the CPU readings start when sysbench says that its threads are connected, so logins and prepares are not
counted as queries' cost.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shardproxy.local import LocalError, LocalServer
from shardproxy.local.process import find_program

Mode = Literal["text", "prepared"]
HINT = "apt-get install sysbench"
DATABASE = "sbtest"
_STARTED = "Threads started!"
_PS_MODE: dict[Mode, str] = {"text": "disable", "prepared": "auto"}
_BUCKET = re.compile(r"^\s*([0-9.]+) \|\**\s+(\d+)$")


@dataclass(frozen=True, slots=True)
class SysbenchResult:
    """One run. `histogram`: (milliseconds, queries) in rising order."""

    queries: int
    seconds: float
    histogram: tuple[tuple[float, int], ...]

    @property
    def qps(self) -> float:
        return self.queries / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds within which `percent` of the queries were answered."""
        wanted = sum(count for _, count in self.histogram) * percent / 100
        below = 0
        for value, count in self.histogram:
            below += count
            if below >= wanted:
                return value
        raise ValueError("an empty histogram has no percentiles")


def load_table(server: LocalServer, user: str, password: str, rows: int) -> None:
    """Make database `sbtest` with `sbtest1`, the same rows on every server. Raises LocalError."""
    server.rows(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    command = [*_command([server.port], user, password, rows), "--rand-seed=42", "prepare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalError(f"sysbench prepare on {server.name} failed: {_tail(done.stdout + done.stderr)}")


def run_point_select(
    ports: Sequence[int],
    user: str,
    password: str,
    *,
    mode: Mode,
    clients: int,
    seconds: float,
    rows: int,
    started: Callable[[], None],
    ended: Callable[[], None],
) -> SysbenchResult:
    """Load the ports (connections go to them in turn) with `clients` connections for `seconds`.

    `started` is called when all are connected, `ended` when the last query is answered; both must be quick.
    Raises LocalError when sysbench fails or any query did.
    """
    command = [*_command(ports, user, password, rows), f"--db-ps-mode={_PS_MODE[mode]}"]
    return _run(command, clients, seconds, started, ended)


def run_transactions(
    port: int,
    user: str,
    password: str,
    *,
    clients: int,
    seconds: float,
    rows: int,
    started: Callable[[], None],
    ended: Callable[[], None],
) -> SysbenchResult:
    """The same with transactions of two point selects and an update by id, as text; `queries` counts BEGIN and COMMIT
    too."""
    mix = ("--point-selects=2", "--range-selects=off", "--index-updates=1", "--non-index-updates=0")
    command = [*_command([port], user, password, rows, "oltp_read_write"), *mix, "--delete-inserts=0"]
    return _run([*command, f"--db-ps-mode={_PS_MODE['text']}"], clients, seconds, started, ended)


def run_updates(
    port: int,
    user: str,
    password: str,
    *,
    clients: int,
    seconds: float,
    rows: int,
    started: Callable[[], None],
    ended: Callable[[], None],
) -> SysbenchResult:
    """The same with updates by id, as text, in autocommit."""
    command = _command([port], user, password, rows, "oltp_update_index")
    return _run([*command, f"--db-ps-mode={_PS_MODE['text']}"], clients, seconds, started, ended)


def run_query(port: int, user: str, password: str, text: str, *, clients: int, seconds: float) -> SysbenchResult:
    """The same with one query, to the letter, as text."""
    script = str(Path(__file__).with_name("query.lua"))
    command = _command([port], user, password, 1, script)
    return _run(command, clients, seconds, lambda: None, lambda: None, {"SHARDPROXY_BENCH_QUERY": text})


def _run(
    command: Sequence[str],
    clients: int,
    seconds: float,
    started: Callable[[], None],
    ended: Callable[[], None],
    variables: Mapping[str, str] | None = None,
) -> SysbenchResult:
    command = [
        *command,
        f"--threads={clients}",
        f"--time={seconds:g}",
        # Uniform: sysbench's default asks one id in a hundred for three queries of four, and all of them on one shard.
        "--rand-type=uniform",
        "--histogram=on",
        "run",
    ]
    lines = []
    pipe = subprocess.PIPE
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        assert process.stdout is not None
        running = False
        for line in process.stdout:
            lines.append(line)
            if line.startswith(_STARTED):
                running = True
                started()
            elif running and line.startswith("Latency histogram"):
                running = False
                ended()
    text = "".join(lines)
    if process.returncode != 0:
        raise LocalError(f"sysbench ended with exit status {process.returncode}: {_tail(text)}")
    return parse_report(text)


def parse_report(text: str) -> SysbenchResult:
    """Read sysbench's final report. Raises LocalError when it is not one, or tells of failed queries."""
    queries = re.search(r"^\s+total:\s+(\d+)$", text, re.MULTILINE)
    seconds = re.search(r"^\s+total time:\s+([0-9.]+)s$", text, re.MULTILINE)
    errors = re.search(r"^\s+ignored errors:\s+(\d+)", text, re.MULTILINE)
    reconnects = re.search(r"^\s+reconnects:\s+(\d+)", text, re.MULTILINE)
    histogram = [_BUCKET.match(line) for line in text.splitlines()]
    buckets = tuple((float(m[1]), int(m[2])) for m in histogram if m)
    if not (queries and seconds and errors and reconnects and buckets):
        raise LocalError(f"sysbench's report is not as expected: {_tail(text)}")
    if errors[1] != "0" or reconnects[1] != "0":
        raise LocalError(f"sysbench met {errors[1]} errors and {reconnects[1]} lost connections")
    return SysbenchResult(int(queries[1]), float(seconds[1]), buckets)


def _command(ports: Sequence[int], user: str, password: str, rows: int, test: str = "oltp_point_select") -> list[str]:
    return [
        find_program("sysbench", HINT),
        test,
        "--mysql-host=127.0.0.1",
        f"--mysql-port={','.join(map(str, ports))}",
        f"--mysql-user={user}",
        f"--mysql-password={password}",
        f"--mysql-db={DATABASE}",
        "--tables=1",
        f"--table-size={rows}",
    ]


def _tail(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-4:])
