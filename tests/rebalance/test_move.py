"""A move end to end: two proxies that share a store, three shards, an application that goes on writing through both,
and an orchestrator in the test's own process. What clients were told must be there, once, and nothing else."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest

from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.reshard.leading import Wishes, leading, new_owner
from shardproxy.reshard.ledger import Ledger, begin
from shardproxy.reshard.orchestrator import Orchestrator
from shardproxy.store.interface import MapStore
from shardproxy.topology.map_document import Stream
from shardproxy.topology.map_form import KeySet
from shardproxy.topology.stages import Stage
from shardproxy.topology.workflow import Plan
from tests.clients import Clients
from tests.proxy import USERS, ProxyUnderTest, eventually, start_proxy

KEYSPACES = """
[keyspaces.main]
key_type = "int"
map = "range"
tables = { account = { key = "id" }, entry = { key = "account" } }
[[keyspaces.main.ranges]]
from = "min"
to = 1000
shard = "shard1"
[[keyspaces.main.ranges]]
from = 1000
to = 2000
shard = "shard2"
[[keyspaces.main.ranges]]
from = 2000
to = "max"
shard = "shard3"
"""
TABLES = (
    "CREATE TABLE account (id BIGINT NOT NULL PRIMARY KEY, owner INT NOT NULL, n INT NOT NULL DEFAULT 0, "
    "balance INT NOT NULL DEFAULT 100)",
    "CREATE TABLE entry (account BIGINT NOT NULL, writer INT NOT NULL, no INT NOT NULL, "
    "PRIMARY KEY (account, writer, no))",
)
ACCOUNTS = tuple(range(0, 3000, 25))
STREAMS = (
    Stream(source="shard1", target="shard3", keys=KeySet.model_validate({"ranges": ((400, 700),)})),
    Stream(source="shard2", target="shard3", keys=KeySet.model_validate({"ranges": ((1500, 2000),)})),
)
MOVING = tuple(key for key in ACCOUNTS if 400 <= key < 700 or 1500 <= key < 2000)
RETRIABLE = {1213, 1205, 9122}  # nothing was done


class Application(Clients):
    """Writers, each with accounts of its own to count in, and transfers between accounts of all."""

    def __init__(self, proxies: list[ProxyUnderTest], writers: int) -> None:
        super().__init__()
        self.retried: dict[int, int] = {}
        self.entries: dict[tuple[int, int, int], bool] = {}  # account, writer, number
        self.counts: dict[int, int] = {}
        self.longest = 0.0
        self.done = 0
        self._proxies = proxies
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]
        self._threads += [threading.Thread(target=self._read, args=(number,)) for number in range(2)]

    def _write(self, number: int) -> None:
        dice = random.Random(number)
        try:
            with self._proxies[number % 2].connect() as client, client.cursor() as cursor:
                mine = [key for key in ACCOUNTS if key // 25 % 6 == number]
                step = 0
                while not self._end.is_set():
                    step += 1
                    key, other = dice.choice(mine), dice.choice(ACCOUNTS)
                    work = dice.choice((self._count, self._insert, self._transfer, self._transfer))
                    begun = time.monotonic()
                    while not self._try(cursor, lambda: work(cursor, number, step, key, other)):  # noqa: B023
                        pass
                    self.longest = max(self.longest, time.monotonic() - begun)
                    self.done += 1
        except BaseException as error:
            self.errors.append(error)

    def _try(self, cursor: Any, work: Callable[[], None]) -> bool:
        try:
            work()
        except pymysql.MySQLError as error:
            if error.args[0] not in RETRIABLE:
                raise
            with self._lock:
                self.retried[error.args[0]] = self.retried.get(error.args[0], 0) + 1
            cursor.execute("ROLLBACK")
            return False
        return True

    def _count(self, cursor: Any, number: int, step: int, key: int, other: int) -> None:
        cursor.execute("UPDATE account SET n = n + 1 WHERE id = %s", (key,))
        assert cursor.rowcount == 1, key
        self.counts[key] = self.counts.get(key, 0) + 1

    def _insert(self, cursor: Any, number: int, step: int, key: int, other: int) -> None:
        cursor.execute("INSERT INTO entry VALUES (%s, %s, %s)", (key, number, step))
        with self._lock:
            self.entries[key, number, step] = True

    def _transfer(self, cursor: Any, number: int, step: int, key: int, other: int) -> None:
        if key == other:
            return
        cursor.execute("BEGIN")
        for account, amount in sorted(((key, -1), (other, 1))):
            cursor.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (amount, account))
            assert cursor.rowcount == 1, account
        cursor.execute("INSERT INTO entry VALUES (%s, %s, %s)", (other, number, step))
        cursor.execute("COMMIT")
        with self._lock:
            self.entries[other, number, step] = True

    def _read(self, number: int) -> None:
        """All accounts are always there, once."""
        try:
            with self._proxies[number % 2].connect() as client, client.cursor() as cursor:
                while not self._end.is_set():

                    def look() -> None:
                        cursor.execute("SELECT COUNT(*), COUNT(DISTINCT id) FROM account")
                        assert cursor.fetchone() == (len(ACCOUNTS), len(ACCOUNTS))
                        cursor.execute("SELECT id FROM account WHERE id = 500")
                        assert cursor.fetchone() == (500,)

                    self._try(cursor, look)
        except BaseException as error:
            self.errors.append(error)


class Scene:
    def __init__(self, cluster: LocalCluster, proxies: list[ProxyUnderTest], config: Path) -> None:
        self.cluster, self.proxies, self.config = cluster, proxies, config

    def lead(
        self, work: Callable[[Orchestrator], Awaitable[None]], plan: Plan | None = None, hold: float = 1.0
    ) -> None:
        """A new move, led as `work` says. hold: seconds that its switch may hold writes."""
        wanted = plan or Plan(goal="test", streams=STREAMS)

        async def lead(store: MapStore) -> Ledger:
            return await begin(store, "main", new_owner(), wanted, time.time)

        async def run() -> None:
            async with leading(load(self.config, proxy_environment()), lead, Wishes(hold=hold)) as orchestrator:
                await work(orchestrator)

        asyncio.run(run())

    def on_shards(self, sql: str) -> list[list[tuple[Any, ...]]]:
        return [list(shard.primary.rows(sql, database="main")) for shard in self.cluster.shards]

    def check(self, application: Application, moved: bool) -> None:
        """Everything that clients were told, on exactly one shard, the one that owns it."""
        accounts = self.check_rows(application)
        on_third = {row[0] for row in accounts[2]}
        assert set(MOVING) <= on_third if moved else not set(MOVING) & on_third

    def check_rows(self, application: Application) -> list[list[tuple[Any, ...]]]:
        """Everything that clients were told, on exactly one shard; the accounts of each."""
        assert not application.errors, application.errors
        accounts = self.on_shards("SELECT id, n, balance FROM account")
        found = [row for rows in accounts for row in rows]
        assert sorted(row[0] for row in found) == list(ACCOUNTS)
        assert {row[0]: row[1] for row in found if row[1]} == application.counts
        assert sum(row[2] for row in found) == 100 * len(ACCOUNTS)
        entries = [row for rows in self.on_shards("SELECT account, writer, no FROM entry") for row in rows]
        assert len(entries) == len(set(entries))
        assert set(entries) == set(application.entries)
        return accounts


@pytest.fixture
def scene(flavor: FlavorName) -> Iterator[Scene]:
    keyspaces = KEYSPACES + '[rebalance]\nbypass = "refuse"\n'  # which lets proxies and the way back through
    with LocalCluster(flavor, shards=3) as cluster, running(cluster, keyspaces) as proxies:
        yield Scene(cluster, proxies, cluster.folder / "left.toml")


@contextmanager
def running(
    cluster: LocalCluster, keyspaces: str = KEYSPACES, more: Mapping[int, str] | None = None
) -> Iterator[list[ProxyUnderTest]]:
    """Two proxies. more: shard → a statement that makes a further table there."""
    for number, shard in enumerate(cluster.shards):
        shard.primary.rows("CREATE DATABASE main")
        for statement in (*TABLES, *filter(None, [(more or {}).get(number)])):
            shard.primary.rows(statement, database="main")
        here = [key for key in ACCOUNTS if min(key // 1000, 2) == number]
        values = ", ".join(f"({key}, 0)" for key in here)
        shard.primary.rows(f"INSERT INTO account (id, owner) VALUES {values}", database="main")
    made: list[ProxyUnderTest] = []
    try:
        for name in ("left", "right"):
            proxy = start_proxy(
                cluster, name, proxy={"drain_timeout": "200ms"}, keyspaces=keyspaces, store={"path": "shared.store"},
                backend={"connect_timeout": "30s"},
                users={"app": USERS["app"]},
            )  # fmt: skip
            made.append(proxy)
        yield made
    finally:
        for proxy in made:
            with suppress(Exception):
                proxy.process.stop()


async def until(orchestrator: Orchestrator, stage: Stage) -> None:
    await orchestrator.run(lambda now: now is stage, complete=stage is Stage.DONE)


def goes_on(application: Application) -> None:
    """The application gets some work done."""
    before = application.done
    eventually(lambda: application.done > before + 30 or bool(application.errors), "the application goes on", 30.0)


@pytest.mark.alone
def test_there(scene: Scene) -> None:
    with Application(scene.proxies, 6) as application:

        async def work(orchestrator: Orchestrator) -> None:
            await until(orchestrator, Stage.COPYING)
            await orchestrator.copied()
            await asyncio.to_thread(goes_on, application)
            await until(orchestrator, Stage.OPEN)
            print(f"held {orchestrator.held * 1000:.0f} ms")
            assert orchestrator.held < 1.0
            await asyncio.to_thread(goes_on, application)
            await until(orchestrator, Stage.DONE)
            await asyncio.to_thread(goes_on, application)

        scene.lead(work)
    print(f"{application.done} writes, longest {application.longest * 1000:.0f} ms, again: {application.retried}")
    scene.check(application, moved=True)


def test_there_and_back(scene: Scene) -> None:
    with Application(scene.proxies, 6) as application:

        async def work(orchestrator: Orchestrator) -> None:
            await until(orchestrator, Stage.OPEN)
            await asyncio.to_thread(goes_on, application)
            while orchestrator.ledger.stage is Stage.OPEN:  # again, when a switch was given up for a moment
                print(f"held {orchestrator.held * 1000:.0f} ms {orchestrator.ledger.workflow.problem}")
                await orchestrator.reverse()
                await orchestrator.run(lambda stage: False)
            assert orchestrator.ledger.stage is Stage.REVERSE_DONE
            print(f"held {orchestrator.held * 1000:.0f} ms")
            await asyncio.to_thread(goes_on, application)

        scene.lead(work)
    print(f"{application.done} writes, longest {application.longest * 1000:.0f} ms, again: {application.retried}")
    scene.check(application, moved=False)
