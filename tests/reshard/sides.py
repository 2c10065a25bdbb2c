"""A source and a target for moves, and what must be equal on them."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardproxy.admin.migrations import migrations_folder, read_migrations
from shardproxy.backend.control import Credentials
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.reshard.bookkeeping import StreamName, open_writer
from shardproxy.reshard.copier import select_rows
from shardproxy.reshard.link import LinkLogin
from shardproxy.reshard.shapes import read_shape
from shardproxy.reshard.stream import StreamPlan
from shardproxy.topology.model import Role, Server
from shardproxy.topology.moving import MovingKeys

LOGIN = LinkLogin(Credentials("root", "root"))
ROOT = Path(__file__).parents[2]


def bookkeeping(server: LocalServer) -> None:
    """The bookkeeping tables, empty."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS _shardproxy")
        for migration in read_migrations(migrations_folder()):
            for statement in migration.statements:
                cursor.execute(statement)
        for table in ("move", "stream", "stream_table", "marker", "fence", "fence_slot"):
            cursor.execute(f"DELETE FROM _shardproxy.{table}")


@dataclass
class Sides:
    """Two servers with the bookkeeping, and a database of their own."""

    source: LocalServer
    target: LocalServer
    database: str
    move_id: int = 1
    engines: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def of(cls, cluster: LocalCluster, database: str) -> Sides:
        sides = cls(cluster.shards[0].primary, cluster.shards[1].primary, database)
        for server in (sides.source, sides.target):
            bookkeeping(server)
            server.rows(f"DROP DATABASE IF EXISTS {database}")
            server.rows(f"CREATE DATABASE {database}")
            server.rows("INSERT INTO _shardproxy.move (move_id, keyspace, generation) VALUES (1, %s, 1)", (database,))
        return sides

    def both(self, sql: str) -> None:
        for server in (self.source, self.target):
            server.rows(sql, database=self.database)

    def server(self, which: LocalServer) -> Server:
        return Server(which.name, which.host, which.port, Role.PRIMARY, which.name)

    def plan(self, tables: Sequence[tuple[str, str]], moving: MovingKeys, **more: Any) -> StreamPlan:
        return StreamPlan(
            StreamName(self.move_id, "forward", 1),
            self.server(self.source),
            self.server(self.target),
            LOGIN,
            self.database,
            tuple(tables),
            moving,
            **more,
        )

    # ── the engine's process ──

    def start(self, plan: StreamPlan, folder: Path, epoch: int) -> subprocess.Popen[str]:
        path = folder / "plan"
        path.write_bytes(pickle.dumps(plan))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.reshard.engine", str(path), str(epoch)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.engines.append(process)
        return process

    def mark(self, epoch: int) -> None:
        self.source.rows("INSERT INTO _shardproxy.marker (move_id, epoch) VALUES (%s, %s)", (self.move_id, epoch))

    def finish(self, plan: StreamPlan, folder: Path, epoch: int = 1, seconds: float = 120) -> None:
        """Run the engine until it has applied what the source has now. Fails with what the engine said."""
        self.mark(epoch)
        process = self.start(plan, folder, epoch)
        _, said = process.communicate(timeout=seconds)
        if process.returncode:
            raise AssertionError(said)

    def copied(self) -> int:
        """Rows that the copy has brought, and 1000 for each table that is copied: it grows with each of its steps."""
        [(rows,)] = self.target.rows(
            "SELECT COALESCE(SUM(copied_rows + 1000 * finished), 0) FROM _shardproxy.stream_table"
        )
        return int(rows)

    def applied(self) -> int:
        """Transactions that the stream has applied."""
        [(count,)] = self.target.rows("SELECT COALESCE(SUM(applied), 0) FROM _shardproxy.stream")
        return int(count)

    def run_and_kill(self, plan: StreamPlan, folder: Path, dice: random.Random, phase: str) -> str | None:
        """Run the engine and kill it: soon after its start, after it has copied ("copy") or applied ("apply") more.
        What it said when it ended by itself."""
        measure = {"copy": self.copied, "apply": self.applied}.get(phase)
        before = measure() if measure is not None else 0
        process = self.start(plan, folder, 0)
        until = time.monotonic() + (dice.random() if measure is None else 20)
        steps = dice.randrange(1, 60)
        while process.poll() is None and time.monotonic() < until:
            if measure is not None and (measure() > before + steps or (phase == "copy" and self.all_copied())):
                break
            time.sleep(0.005)
        time.sleep(dice.random() * 0.02)
        if process.poll() is not None:
            return process.communicate()[1] or "it ended without a word"
        process.kill()
        process.communicate()
        return None

    def all_copied(self) -> bool:
        rows = self.target.rows("SELECT finished FROM _shardproxy.stream_table")
        return bool(rows) and all(finished for (finished,) in rows)

    def end(self) -> None:
        for process in self.engines:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()

    # ── what is there ──

    def rows(self, which: LocalServer, plan: StreamPlan, everything: bool = False) -> dict[str, list[bytes]]:
        """The moving rows of each table, as the engine would read them. everything: all rows."""

        async def read() -> dict[str, list[bytes]]:
            async with await open_writer(self.server(which), LOGIN) as link:
                found = {}
                for table, key in plan.tables:
                    shape = await read_shape(link, self.database, table, key)
                    sql = select_rows(shape, plan.moving, None)
                    if everything:
                        sql = sql.replace(plan.moving.condition(key), b"TRUE")
                    found[table] = list((await link.query(sql)).rows)
                return found

        return asyncio.run(read())

    def assert_equal(self, plan: StreamPlan) -> int:
        """The target has exactly the source's moving rows; how many."""
        source, target = self.rows(self.source, plan), self.rows(self.target, plan, everything=True)
        for table, rows in source.items():
            missing = sorted(set(rows) - set(target[table]))[:5]
            strange = sorted(set(target[table]) - set(rows))[:5]
            assert not missing and not strange, f"{table}: only on the source {missing}, only on the target {strange}"
            assert target[table] == rows
        return sum(map(len, source.values()))
