"""Memory of a worker while a result of 1 GiB passes through it, to a quick client and to a slow one.

    ./dev bench big-result [--json FILE] [--mib N]

Three shapes: many short rows, rows of 1 MiB, rows of 32 MiB (which take several packets). The slow client reads at a
small rate, then stops for a while, then takes the rest: whatever the proxy holds for it shows as resident memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.rig.options import run_bench
from bench.rig.peak import Peak
from bench.rig.proxy import PASSWORD, USER, RunningProxy, start_proxy
from bench.rig.wire import ResultSize, WireClient
from shardproxy.errors import ShardproxyError
from shardproxy.local import LocalCluster, LocalServer

_MIB = 1 << 20
_BOUND = 16 * _MIB  # growth; a worker may buffer, but not in proportion to the result
_PIECE = 1024  # bytes stored in each row; larger rows are made of it by the server
_PIECES = 1024
_SLOW_RATE = 32 * _MIB  # bytes a second …
_SLOW_BYTES = 128 * _MIB  # … for so many bytes,
_STALL = 3.0  # then nothing for so many seconds
_KEYSPACE = """
[keyspaces.big]
key_type = "int"
map = "range"
[[keyspaces.big.ranges]]
from = "min"
to = "max"
shard = "shard1"
[keyspaces.big.tables]
piece = { key = "id" }
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """A result of `mib` MiB out of the table `piece`, whose rows all have id 1."""

    name: str
    row_bytes: int

    def sql(self, mib: int) -> str:
        rows = mib * _MIB // self.row_bytes
        if self.row_bytes > _PIECE:
            return f"SELECT REPEAT(body, {self.row_bytes // _PIECE}) FROM piece WHERE id = 1 LIMIT {rows}"
        return f"SELECT a.body FROM piece a JOIN piece b ON a.id = b.id WHERE a.id = 1 LIMIT {rows}"


SHAPES = (Shape("1 KiB rows", _PIECE), Shape("1 MiB rows", _MIB), Shape("32 MiB rows", 32 * _MIB))


@dataclass(frozen=True, slots=True)
class Passage:
    """One result that has passed. Bytes; `peak` is of the resident memory of all workers."""

    shape: str
    client: str
    result_bytes: int
    rows: int
    seconds: float
    before_bytes: int
    peak_bytes: int

    @property
    def growth(self) -> int:
        return self.peak_bytes - self.before_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    console = Console(stderr=True)
    with LocalCluster(shards=1, replicas=0) as cluster:
        _load(cluster.shards[0].primary)
        proxy = start_proxy(cluster, _KEYSPACE, workers=1, python=options.python)
        passages = []
        for shape in SHAPES:
            for client, pause in (("quick", _no_pause), ("slow", _slow_pause())):
                with console.status(f"{options.mib} MiB in {shape.name} to a {client} client"):
                    passages.append(_pass(proxy, shape, client, pause, options.mib))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(p) for p in passages], indent=1) + "\n")
    _show(passages, Console())
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench big-result", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--mib", type=int, default=1024, help="size of each result (default: 1024)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that shardproxy runs on")
    return parser.parse_args(arguments)


def _load(server: LocalServer) -> None:
    server.rows("CREATE DATABASE big")
    server.rows(
        "CREATE TABLE big.piece (id BIGINT NOT NULL, n INT NOT NULL, body VARCHAR(1024) NOT NULL, PRIMARY KEY (id, n)) "
        "CHARACTER SET ascii"
    )
    values = ", ".join(f"(1, {n}, REPEAT('{n % 10}', {_PIECE}))" for n in range(_PIECES))
    server.rows(f"INSERT INTO big.piece VALUES {values}")


def _pass(proxy: RunningProxy, shape: Shape, client: str, pause: Callable[[int], None], mib: int) -> Passage:
    connection = WireClient(proxy.mysql_port, USER, PASSWORD, "big")
    pids = proxy.worker_pids()
    with Peak(pids) as peak:
        start = time.monotonic()
        size = connection.count(shape.sql(mib), pause)
        seconds = time.monotonic() - start
    connection.close()
    _check(size, shape, mib)
    return Passage(shape.name, client, size.bytes, size.rows, seconds, peak.before, peak.highest)


def _check(size: ResultSize, shape: Shape, mib: int) -> None:
    if size.rows != mib * _MIB // shape.row_bytes or size.bytes < mib * _MIB:
        raise ShardproxyError(f"a result of {mib} MiB in {shape.name} came as {size}")


def _no_pause(received: int) -> None:
    return


def _slow_pause() -> Callable[[int], None]:
    """A pause for one result: see the module's docstring."""
    start = time.monotonic()
    stalled = False

    def pause(received: int) -> None:
        nonlocal stalled, start
        if received == 0:
            start = time.monotonic()
            stalled = False
        elif received < _SLOW_BYTES:
            ahead = received / _SLOW_RATE - (time.monotonic() - start)
            if ahead > 0:
                time.sleep(ahead)
        elif not stalled:
            stalled = True
            time.sleep(_STALL)

    return pause


def _show(passages: Sequence[Passage], console: Console) -> None:
    table = Table("result", "client", title="one result through one worker; memory in MiB")
    table.box, table.pad_edge, table.collapse_padding = box.SIMPLE_HEAD, False, True
    for name in ("MiB", "rows", "s", "RSS", "peak", "growth", "verdict"):
        table.add_column(name, justify="right")
    for p in passages:
        table.add_row(
            p.shape,
            p.client,
            f"{p.result_bytes / _MIB:,.0f}",
            f"{p.rows:,}",
            f"{p.seconds:.1f}",
            *(f"{n / _MIB:.1f}" for n in (p.before_bytes, p.peak_bytes, p.growth)),
            "[green]constant" if p.growth <= _BOUND else "[red]NOT constant",
        )
    console.print(table)


if __name__ == "__main__":
    run_bench(main)
