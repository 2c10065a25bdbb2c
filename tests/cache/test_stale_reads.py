"""The hunt for stale rows: writers through a proxy and past it, readers at two proxies, keepers and nodes that die.

The servers' semi-synchronous replication is made to wait, without a replica, between a transaction's place in the
binlog and its being visible: that is the time in which an invalidation comes before the row that it is for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest
import redis

from shardproxy.local import LocalCluster
from tests.cache.test_rows import CACHE, KEYSPACES, TABLES
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

FAULTS = Path(__file__).parent / "faults"
BOUND = 1.0  # as in CACHE
SLACK = 0.3  # of this machine
SECONDS = 14.0
PATIENCE = 120.0  # seconds more on a slow machine, until enough was done
LONGEST = 60.0  # seconds for who must find something, which ends the hunt
KEYS = 4  # of each writer
PAUSE = 0.45  # between two writes of a writer: each key rests longer than BOUND + SLACK
WINDOW = 120  # milliseconds in which a transaction may be in the binlog and not visible


class Hunt:
    """written: by key, (when it was acknowledged, version), in order. stale: what readers have found. troubled: the
    hunt must not end yet."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.written: dict[int, list[tuple[float, int]]] = {}
        self.stale: list[str] = []
        self.reads = 0
        self.errors: list[str] = []
        self.troubled = False

    def is_enough(self) -> bool:
        """Whether so much was done that it shows something."""
        return self.reads > 200 and all(len(versions) >= 3 for versions in self.written.values())

    def write(self, connect: Callable[[], Any], first: int, cluster: LocalCluster) -> None:
        """Before each write the row is evicted from the cache, so that it is loaded meanwhile."""
        version = 0
        while not self.over.wait(PAUSE):
            try:
                with connect() as db, db.cursor() as cursor:
                    while not self.over.wait(PAUSE):
                        version += 1
                        key = first + version % KEYS
                        evict(cluster, key)
                        cursor.execute("UPDATE users SET version = %s WHERE uid = %s", (version, key))
                        self.written[key].append((time.monotonic(), version))
            except pymysql.MySQLError as error:
                self.errors.append(str(error))

    def read(self, proxy: RedisProxy, keys: list[int]) -> None:
        while not self.over.is_set():
            try:
                with proxy.connect() as client:
                    while not self.over.is_set():
                        for key in keys:
                            self.look(client, key)
            except redis.RedisError as error:
                self.errors.append(str(error))
                self.over.wait(0.02)

    def look(self, client: Any, key: int) -> None:
        """Read a row and see how old it is."""
        began = time.monotonic()
        due = max((v for at, v in list(self.written[key]) if at < began - BOUND - SLACK), default=0)
        found = json.loads(client.get(f"users:{key}"))["version"]
        self.reads += 1
        if found < due:
            self.stale.append(f"users:{key}: {found} where {due} was written {BOUND + SLACK} s before")

    def widen(self, servers: list[Any]) -> None:
        """Semi-synchronous replication switches itself off after each wait: on again."""
        while not self.over.wait(0.05):
            for server in servers:
                with server.connect() as db, db.cursor() as cursor:
                    cursor.execute("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
                    cursor.execute("SET GLOBAL rpl_semi_sync_master_enabled = ON")


@contextmanager
def slow_to_show(replicas: int = 0) -> Iterator[LocalCluster]:
    """A cluster whose transactions are in the binlog before they are visible, for WINDOW while `widen` runs."""
    with LocalCluster("mariadb", shards=2, replicas=replicas, redis=2) as running:
        for shard in running.shards:
            with shard.primary.connect() as db, db.cursor() as cursor:
                cursor.execute("CREATE DATABASE main")
                db.select_db("main")
                for text in TABLES:
                    cursor.execute(text)
                cursor.execute("SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'")
                cursor.execute(f"SET GLOBAL rpl_semi_sync_master_timeout = {WINDOW}")
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with slow_to_show() as running:
        yield running


def evict(cluster: LocalCluster, key: int) -> None:
    """A node throws a value away, as if memory were short. Tombstones and leases stay."""
    script = "if string.sub(redis.call('GET', KEYS[1]) or '', 1, 1) == 'V' then redis.call('DEL', KEYS[1]) end"
    for node in cluster.redis:
        with contextlib.suppress(redis.RedisError), node.connect() as direct:
            for name in direct.scan_iter(f"_shardproxy:*:row:users:{key}", count=1000):
                direct.eval(script, 1, name)


def both_kept(proxy: RedisProxy) -> bool:
    return proxy.metric("shardproxy_cache_fresh") == 2


@contextmanager
def two_proxies(
    cluster: LocalCluster, without: str, cache: str = CACHE, store: str = ""
) -> Iterator[tuple[RedisProxy, RedisProxy]]:
    environment = {"SHARDPROXY_CACHE_WITHOUT": without}
    options: dict[str, Any] = {
        "more": cache, "keyspaces": KEYSPACES, "environment": environment, "path": FAULTS, "store": store,
    }  # fmt: skip
    with (
        redis_proxy(cluster, f"one-{without}", **options) as one,
        redis_proxy(cluster, f"two-{without}", **options) as two,
    ):
        for proxy in (one, two):
            eventually(partial(both_kept, proxy), "both shards are kept", 30)
        yield one, two


def hunt(
    cluster: LocalCluster,
    one: RedisProxy,
    two: RedisProxy,
    trouble: Callable[[Hunt], None],
    seconds: float = SECONDS,
) -> Hunt:
    """Write and read as run_all does."""
    found = Hunt()
    with one.mysql() as db, db.cursor() as cursor:
        cursor.execute("DELETE FROM users WHERE uid < 100")
        for key in range(2 * KEYS):
            found.written[key] = []
            cursor.execute("INSERT INTO users (uid, version) VALUES (%s, 0)", (key,))
    behind = list(range(KEYS, 2 * KEYS))
    servers = [shard.primary for shard in cluster.shards]
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (found.write, (one.mysql, 0, cluster)),
        (found.write, (lambda: Both(servers), KEYS, cluster)),
        *((found.read, (proxy, list(range(KEYS)) + behind)) for proxy in (one, two)),
        (found.widen, (servers,)),
        (trouble, (found,)),
    ]
    run_all(work, found, seconds)
    return found


def run_all(work: list[tuple[Callable[..., None], tuple[Any, ...]]], found: Any, seconds: float) -> None:
    """A thread for each, for so many seconds and until it is enough, or until something stale is found. found: a hunt,
    with the event `over`."""
    threads = [threading.Thread(target=function, args=arguments) for function, arguments in work]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while not found.stale:
        passed = time.monotonic() - began
        if passed > seconds and (passed > seconds + PATIENCE or (found.is_enough() and not found.troubled)):
            break
        found.over.wait(0.05)
    found.over.set()
    for thread in threads:
        thread.join()


class Both:
    """Connections past the proxies, which write at both shards: one of them has the row."""

    def __init__(self, servers: list[Any]) -> None:
        self._connections = [server.connect("main") for server in servers]

    def __enter__(self) -> Both:
        return self

    cursor = __enter__

    def __exit__(self, *error: object) -> None:
        for connection in self._connections:
            if connection.open:
                connection.close()

    def execute(self, text: str, values: tuple[object, ...]) -> None:
        for connection in self._connections:
            connection.cursor().execute(text, values)


def nothing(found: Hunt) -> None:
    """No trouble."""


def test_nothing_is_staler_than_the_bound(cluster: LocalCluster) -> None:
    with two_proxies(cluster, "nothing") as (one, two):

        def trouble(found: Hunt) -> None:
            for act in (stop_keeper, kill_keepers, restart_node):
                if not found.over.wait(2.0):
                    act(found)

        def stop_keeper(found: Hunt) -> None:
            with two.stopped_keeper():
                found.over.wait(2.0)

        def kill_keepers(found: Hunt) -> None:
            for proxy in (one, two):
                os.kill(proxy.keeper_pid(), signal.SIGKILL)

        def restart_node(found: Hunt) -> None:
            cluster.redis[0].kill()
            found.over.wait(0.5)
            cluster.redis[0].restart()

        found = hunt(cluster, one, two, trouble)
        assert not found.stale
        assert not found.errors  # MySQL was there all the time
        assert found.reads > 200
        assert all(len(versions) >= 3 for versions in found.written.values())
        hits = sum(p.labelled("shardproxy_cache_reads_total", outcome="hit") for p in (one, two))
        assert hits > found.reads / 10  # there was a cache


@pytest.mark.parametrize("without", ["hold_off", "lease"])
def test_the_hunt_finds_what_is_left_out(cluster: LocalCluster, without: str) -> None:
    with two_proxies(cluster, without) as (one, two):
        assert hunt(cluster, one, two, nothing, LONGEST).stale


def test_a_hold_off_that_semi_synchronous_replication_outlasts(cluster: LocalCluster) -> None:
    primary = cluster.shards[0].primary
    with two_proxies(cluster, "nothing") as (proxy, _):
        primary.rows("SET GLOBAL rpl_semi_sync_master_timeout = 300")
        primary.rows("SET GLOBAL rpl_semi_sync_master_enabled = ON")
        try:
            os.kill(proxy.keeper_pid(), signal.SIGKILL)  # it looks when it begins
            why = "(AFTER_SYNC) may keep a transaction for 0.3 s in the binlog and not visible"
            eventually(lambda: why in proxy.process.log.read_text(), "the log says why", 60)
        finally:
            primary.rows("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
            primary.rows(f"SET GLOBAL rpl_semi_sync_master_timeout = {WINDOW}")
        eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "all is kept again", 30)
