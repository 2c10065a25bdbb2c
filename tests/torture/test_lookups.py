"""Lookup indexes under concurrent writers and crashes: one owner a value, and entries that agree with the rows.

Clients take names, hand them on from one row to another, and give them back, on rows of two shards; workers and servers
are killed at the steps of the commit. Meanwhile readers look for a name that always has a row, though it moves between
shards: it is always found.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from shardproxy.admin.lookup.backfill import backfill
from shardproxy.admin.lookup.verify import Differences, verify
from shardproxy.admin.lookup.work import Work, prepare
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.topology.build import build_snapshot
from tests.proxy import ProxyUnderTest, eventually, start_proxy
from tests.torture.test_commit import FAULTS, ready, strike

FAR, ROWS, NAMES, CLIENTS = 1000, 6, 8, 4
KEYSPACES = f"""
[keyspaces.main]
key_type = "int"
map = "range"
[[keyspaces.main.ranges]]
from = "min"
to = {FAR}
shard = "shard1"
[[keyspaces.main.ranges]]
from = {FAR}
to = "max"
shard = "shard2"
[keyspaces.main.tables]
users = {{ key = "uid", lookups = ["name"] }}
countries = {{ reference = true }}
"""
DEFINITIONS = (
    "CREATE DATABASE main CHARACTER SET utf8mb4",
    "CREATE TABLE main.users (uid BIGINT NOT NULL PRIMARY KEY, name VARCHAR(40) UNIQUE)",
    "CREATE TABLE main.countries (code CHAR(2) NOT NULL PRIMARY KEY, name VARCHAR(50) NOT NULL)",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def struck(flavor: FlavorName, folder: Path) -> Iterator[ProxyUnderTest]:
    """A proxy whose workers strike where `folder` says, with a lookup index that is ready."""
    environment = proxy_environment()
    environment["PYTHONPATH"] = f"{FAULTS}:{environment['PYTHONPATH']}"
    environment["SHARDPROXY_FAULTS"] = str(folder)
    with LocalCluster(flavor, shards=2, replicas=0) as cluster:
        for shard in cluster.shards:
            for text in DEFINITIONS:
                shard.primary.rows(text)
        running = start_proxy(
            cluster,
            "struck",
            proxy={"drain_timeout": "100ms"},
            backend={"connect_timeout": "2s", "pool_wait": "2s", "schema_interval": "100ms"},
            transactions={"recovery_interval": "300ms"},
            environment=environment,
            users={"app": {"password": "app", "reads": "primary"}},
            keyspaces=KEYSPACES,
        )
        asyncio.run(fill(running))
        eventually(lambda: routed(running), "statements are routed by the index", 30)
        yield running
        running.process.stop()


async def work(proxy: ProxyUnderTest) -> Work:
    settings = load(proxy.cluster.folder / "struck.toml", proxy_environment())
    return await prepare(build_snapshot(settings), Credentials.of(settings), 30, "users", "name", 1000)


async def fill(proxy: ProxyUnderTest) -> None:
    assert (await backfill(await work(proxy), lambda rows: None)).ready


async def compared(proxy: ProxyUnderTest) -> Differences:
    return await verify(await work(proxy), False, lambda rows: None)


def routed(proxy: ProxyUnderTest) -> bool:
    with closing(proxy.connect()) as client, client.cursor() as cursor:
        return by_index(cursor)


def by_index(cursor: pymysql.cursors.Cursor) -> bool:
    cursor.execute("EXPLAIN ROUTE SELECT * FROM users WHERE name = 'x'")
    return len(cursor.fetchall()) == 1


class Town:
    """Clients that take names for their rows. names: what each has seen committed is checked at the end only."""

    def __init__(self, proxy: ProxyUnderTest, seed: int) -> None:
        self.proxy = proxy
        self.seed = seed
        self.made = 0
        self.wrong: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]

    def open(self) -> None:
        with closing(self.proxy.connect()) as client, client.cursor() as cursor:
            try:
                cursor.execute("DELETE FROM users")
            except pymysql.MySQLError as error:
                raise AssertionError(f"{error}: who holds rows still? {self._transactions()}") from error
            for n in range(ROWS):
                cursor.execute(f"INSERT INTO users VALUES ({n}, NULL), ({FAR + n}, NULL)")
        for thread in self._threads:
            thread.start()

    def _transactions(self) -> list[str]:
        """All that are open on the servers, and their connections: for people."""
        asked = ("SELECT * FROM information_schema.innodb_trx", "XA RECOVER", "SHOW FULL PROCESSLIST")
        return [f"{shard} {sql}: {self.proxy.primary(shard).rows(sql)}" for shard in (0, 1) for sql in asked]

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        assert not self.wrong, self.wrong

    def _client(self, number: int) -> None:
        dice = random.Random(f"{self.seed}.{number}")
        while not self._end.is_set():
            try:
                with closing(self.proxy.connect(read_timeout=90)) as client, client.cursor() as cursor:
                    cursor.execute("SET innodb_lock_wait_timeout = 2")
                    while not self._end.is_set():
                        self._step(cursor, dice)
            except (pymysql.MySQLError, OSError):
                self._end.wait(0.02)

    def _step(self, cursor: pymysql.cursors.Cursor, dice: random.Random) -> None:
        name, uid = f"name{dice.randrange(NAMES)}", dice.randrange(ROWS) + dice.choice((0, FAR))
        sql = dice.choice((
            f"UPDATE users SET name = '{name}' WHERE uid = {uid}",
            f"UPDATE users SET name = NULL WHERE uid = {uid}",
            f"UPDATE users SET name = '{name}x' WHERE name = '{name}'",
            f"DELETE FROM users WHERE uid = {uid}",
            f"DELETE FROM users WHERE name = '{name}'",
            f"INSERT INTO users VALUES ({uid}, '{name}')",
            f"INSERT INTO users VALUES ({uid}, NULL), ({(uid + FAR) % (2 * FAR)}, '{name}')",
        ))  # fmt: skip
        try:
            cursor.execute(sql)
        except pymysql.MySQLError as error:
            if error.args[0] not in (1062, 1205, 1213):
                raise
        else:
            self.made += 1

    def audit(self) -> None:
        """All is at rest: each name has one row, and entries are as the rows are."""
        shards = (self.proxy.primary(0), self.proxy.primary(1))
        eventually(lambda: not any(shard.rows("XA RECOVER") for shard in shards), "no branch is left", 30)
        names = [row[0] for shard in shards for row in shard.rows("SELECT name FROM main.users WHERE name IS NOT NULL")]
        assert len(names) == len(set(names)), sorted(names)
        told = asyncio.run(compared(self.proxy))
        assert told.left == 0, told


def progress(town: Town, more: int = 15) -> None:
    goal = town.made + more
    eventually(lambda: town.made >= goal, "writes go on", 60)


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_crashes_at_a_step(struck: ProxyUnderTest, folder: Path, step: int) -> None:
    town = Town(struck, step)
    town.open()
    try:
        for victim in ("worker", "soon worker", f"shard {step % 2 + 1}"):
            progress(town)
            strike(struck, folder, step, victim)
        progress(town)
    finally:
        town.close()
    ready(struck)
    town.audit()


def test_backfill_while_clients_write(struck: ProxyUnderTest) -> None:
    town = Town(struck, 7)
    town.open()
    try:
        progress(town)
        for shard in (0, 1):
            struck.primary(shard).rows("UPDATE _shardproxy.lookup_index SET state = 'building'")
        for _ in range(5):
            asyncio.run(fill(struck))
        progress(town)
    finally:
        town.close()
    town.audit()


def test_a_name_that_moves_is_always_found(struck: ProxyUnderTest) -> None:
    """A reader outside transactions, while the name goes from a row on one shard to a row on the other and back. Each
    move is two statements in one transaction; between them the name has no row for nobody but its own transaction."""
    with closing(struck.connect()) as mover, mover.cursor() as moving:
        moving.execute("DELETE FROM users")
        moving.execute(f"INSERT INTO users VALUES (1, 'moving'), ({FAR}, NULL)")
        found: list[int] = []
        end = threading.Event()
        empty: list[int] = []

        def read() -> None:
            with closing(struck.connect()) as client, client.cursor() as cursor:
                # Its worker may not have heard yet that the index is filled again. Without it both shards are read, one
                # a moment after the other, and a row that moves meanwhile may be on neither.
                eventually(lambda: by_index(cursor), "it reads by the index", 30)
                while not end.is_set():
                    cursor.execute("SELECT uid FROM users WHERE name = 'moving'")
                    (found if cursor.fetchall() else empty).append(1)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            eventually(lambda: len(found) > 10, "they read", 40)
            for turn in range(100):
                old, new = (1, FAR) if turn % 2 == 0 else (FAR, 1)
                moving.execute("BEGIN")
                moving.execute(f"UPDATE users SET name = NULL WHERE uid = {old}")
                moving.execute(f"UPDATE users SET name = 'moving' WHERE uid = {new}")
                moving.execute("COMMIT")
        finally:
            end.set()
            for reader in readers:
                reader.join()
        print("found", len(found), "empty", len(empty))
        assert len(found) > 100
        assert not empty
