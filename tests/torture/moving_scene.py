"""Four shards, three proxies with an account of their own each, a map store, and shardctl as a process that tells of
each step."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import pymysql

from shardproxy.config import load
from shardproxy.errors import StoreError
from shardproxy.local import LocalCluster, LocalEtcd
from shardproxy.local.flavors import FlavorName
from shardproxy.local.process import die_with_parent
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.reshard.ledger import all_moves, read_map
from shardproxy.reshard.readmission import locked_accounts
from shardproxy.store.interface import MapStore
from shardproxy.store.opening import open_store
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.workflow import Workflow
from tests.proxy import USERS, ProxyUnderTest, eventually, start_proxy
from tests.torture.audit import Found
from tests.torture.layout import RANGES, Layout, places
from tests.torture.traffic import KEY_COLUMNS, SHARDS, place_rows

T = TypeVar("T")
StoreKind = Literal["embedded", "etcd"]
PROGRAM = Path(__file__).with_name("struck_shardctl.py")
FAULTS = Path(__file__).parent / "faults"
_ROOT = Path(__file__).parents[2]
_NO_SUCH_TABLE = 1146


class Led:
    """A `shardctl rebalance …` that waits at each of its steps: read `steps`, and answer each by `go` or `kill`."""

    def __init__(self, words: Sequence[str], config: Path, folder: Path, wrong: str, answer: float) -> None:
        self.words = list(words)
        self.began = time.monotonic()
        self.killed = False
        told, out = os.pipe()
        into, self._answer = os.pipe()
        self._told = os.fdopen(told)
        self._log = folder / f"shardctl-{time.monotonic_ns()}.log"
        environment = {
            **os.environ, "PYTHONPATH": str(_ROOT), "SHARDPROXY_STEPS": f"{out} {into}", "SHARDPROXY_WRONG": wrong,
            "SHARDPROXY_ANSWER": str(answer),
        }  # fmt: skip
        command = [*die_with_parent(), sys.executable, str(PROGRAM), "rebalance", *words, "--config", str(config)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(out, into)
            )
        os.close(out)
        os.close(into)

    def steps(self) -> Iterator[str]:
        """Where it is, before and after each step: `before copying next`, `after armed`. Ends with the process."""
        for line in self._told:
            yield line.strip()

    def go(self) -> None:
        with suppress(BrokenPipeError):
            os.write(self._answer, b".")

    def kill(self) -> None:
        self.killed = True
        self.process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let it go on through all of its steps."""
        for _ in range(100):
            self.go()

    def wait(self) -> int:
        """Its status, when it has ended."""
        status = self.process.wait(120)
        os.close(self._answer)
        self._told.close()
        return status

    @property
    def said(self) -> str:
        return f"shardctl rebalance {' '.join(self.words)}:\n{self._log.read_text(errors='replace')}"


class Scene:
    def __init__(
        self, cluster: LocalCluster, proxies: list[ProxyUnderTest], config: Path, etcd: LocalEtcd | None, wrong: str
    ) -> None:
        self.cluster, self.proxies, self.config, self.etcd, self.wrong = cluster, proxies, config, etcd, wrong

    @property
    def store_file(self) -> Path:
        return self.config.with_name("torture.store")

    def shardctl(self, *words: str, answer: float = 2.5) -> Led:
        return Led(words, self.config, self.cluster.folder, self.wrong, answer)

    # ── the store ──

    def move(self) -> Workflow | None:
        """The newest move."""

        async def newest(store: MapStore) -> Workflow | None:
            moves = await all_moves(store)
            return moves[-1] if moves else None

        return self._ask(newest)

    def locked(self) -> bool:
        """Whether accounts of proxies are locked for a move's sake."""

        async def any_of(store: MapStore) -> bool:
            return any(locked_accounts(move) for move in await all_moves(store))

        return self._ask(any_of)

    def document(self) -> MapDocument:
        """The stored map."""

        async def document(store: MapStore) -> MapDocument:
            return (await read_map(store, "main"))[0]

        return self._ask(document)

    def _ask(self, question: Callable[[MapStore], Awaitable[T]]) -> T:
        """Ask the store, again while it is cut off."""

        async def ask() -> T:
            store = await open_store(load(self.config, {}))
            try:
                return await question(store)
            finally:
                await store.close()

        deadline = time.monotonic() + 60
        while True:
            try:
                return asyncio.run(ask())
            except StoreError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)  # between two looks: a nemesis has cut the store off

    # ── the servers ──

    def on_shard(self, shard: int, sql: str) -> list[tuple[Any, ...]]:
        return list(self.cluster.shards[shard].primary.rows(sql, database="main"))

    def found(self) -> Found:
        """What is there, when nobody writes any more and no branch is left prepared."""
        for shard in range(SHARDS):
            eventually(lambda: not self.on_shard(shard, "XA RECOVER"), "no branch is left prepared", 40)  # noqa: B023
        tables = {table: [self._all(shard, table) for shard in range(SHARDS)] for table in KEY_COLUMNS}
        return Found(tables, places(self.document()))

    def _all(self, shard: int, table: str) -> list[tuple[Any, ...]]:
        try:
            return self.on_shard(shard, f"SELECT * FROM {table}")
        except pymysql.ProgrammingError as error:
            if error.args[0] != _NO_SUCH_TABLE:  # a shard that has not joined yet
                raise
            return []


@contextmanager
def scene(
    flavor: FlavorName, store: StoreKind, layout: Layout = RANGES, *, proxies: int = 3, wrong: str = "",
    fence: str = "on",
) -> Iterator[Scene]:  # fmt: skip
    """wrong: mistakes of the orchestrator (struck_shardctl); fence: executor.fence.Mode of the proxies."""
    with ExitStack() as stack:
        etcd = stack.enter_context(LocalEtcd()) if store == "etcd" else None
        cluster = stack.enter_context(LocalCluster(flavor, shards=SHARDS, replicas=0))
        place: dict[str, object] = {"path": "torture.store"}
        if etcd is not None:
            place = {"kind": "etcd", "endpoints": etcd.endpoints, "timeout": "2s"}
        for shard in cluster.shards:
            shard.primary.rows("CREATE DATABASE main")
        place_rows(
            lambda shard, statement: cluster.shards[shard].primary.rows(statement, database="main"), layout.members,
            layout.shard_of,
        )  # fmt: skip
        environment = proxy_environment()
        if fence != "on":
            environment["PYTHONPATH"] = f"{FAULTS}:{environment['PYTHONPATH']}"
            environment["SHARDPROXY_FAULTS"], environment["SHARDPROXY_FENCE"] = str(cluster.folder), fence
        made: list[ProxyUnderTest] = []
        for number in range(proxies):
            account = f"proxy{number + 1}"
            cluster.create_account(account, account)
            made.append(
                start_proxy(
                    cluster, account, proxy={"drain_timeout": "200ms", "workers": 1 if number else 2},
                    keyspaces=layout.keyspaces(), store=place,
                    backend={"user": account, "password": account, "connect_timeout": "2s", "pool_wait": "2s",
                             "health_interval": "500ms"},
                    transactions={"recovery_interval": "300ms"}, users={"app": USERS["app"]}, environment=environment,
                )
            )  # fmt: skip
            stack.callback(_end, made[-1])
        config = cluster.config_toml(layout.keyspaces(), users={"app": USERS["app"]}, name="operator.toml").path
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in place.items())
        config.write_text(f"{config.read_text()}\n[store]\n{lines}")
        yield Scene(cluster, made, config, etcd, wrong)


def _end(proxy: ProxyUnderTest) -> None:
    with suppress(ProcessLookupError):
        os.killpg(proxy.process.pid, signal.SIGCONT)
    with suppress(Exception):
        proxy.process.stop(5)
