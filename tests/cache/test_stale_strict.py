"""The hunt for stale rows in strict mode: no reader finds less than what was acknowledged before it began to read.

Writers at both proxies, of single rows, of ranges, and in transactions over both shards; readers at both; keepers, a
node and a worker die. Binlog events can be read before their rows are visible, as in the other hunt.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
import redis
from typer.testing import CliRunner

from shardproxy.cli.main import app
from shardproxy.local import LocalCluster
from tests.cache.test_rows import CACHE
from tests.cache.test_stale_reads import LONGEST, SECONDS, cluster, evict, run_all, two_proxies
from tests.redis.proxied import RedisProxy

__all__ = ["cluster"]  # the fixture

STRICT = CACHE.replace('bound = "1s"', 'mode = "strict"\nbound = "1s"\nwrite_wait = "2s"')
KEYS = 4  # of each writer
PAUSE = 0.15  # between two writes of a writer: each key rests longer than the hold-off


class Hunt:
    """acknowledged: by key, the newest version whose write was. stale: what readers have found. troubled: the hunt must
    not end yet."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.acknowledged: dict[int, int] = {}
        self.stale: list[str] = []
        self.reads = 0
        self.writes = 0
        self.unanswered = 0
        self.troubled = False

    def is_enough(self) -> bool:
        """Whether so much was done that it shows something."""
        return self.reads > 200 and self.writes > 30

    def write(self, proxy: RedisProxy, first: int, cluster: LocalCluster) -> None:
        """Before each write the row is evicted from the cache, so that it is loaded meanwhile."""
        version = 0
        while not self.over.wait(0.02):
            with contextlib.suppress(pymysql.MySQLError), proxy.mysql() as db, db.cursor() as cursor:
                while not self.over.wait(PAUSE):
                    version += 1
                    key = first + version % KEYS
                    evict(cluster, key)
                    self.unanswered += 1
                    for text in _texts(version, key):
                        cursor.execute(text)
                    self.acknowledged[key] = version
                    self.unanswered -= 1
                    self.writes += 1

    def read(self, proxy: RedisProxy, keys: list[int]) -> None:
        while not self.over.is_set():
            self.over.wait(0.02)
            with contextlib.suppress(redis.RedisError), proxy.connect() as client:
                while not self.over.is_set():
                    for key in keys:
                        due = self.acknowledged[key]
                        found = json.loads(client.get(f"users:{key}"))["version"]
                        self.reads += 1
                        if found < due:
                            self.stale.append(f"users:{key}: {found} where {due} was acknowledged before")

    def widen(self, servers: list[Any]) -> None:
        """Semi-synchronous replication switches itself off after each wait: on again."""
        while not self.over.wait(0.05):
            for server in servers:
                with server.connect() as db, db.cursor() as cursor:
                    cursor.execute("SET GLOBAL rpl_semi_sync_master_enabled = OFF")
                    cursor.execute("SET GLOBAL rpl_semi_sync_master_enabled = ON")


def _texts(version: int, key: int) -> list[str]:
    """A write, in one of its forms."""
    single = f"UPDATE users SET version = {version} WHERE uid = {key}"
    others = f"UPDATE users SET rate = {version} WHERE uid IN (50, 51, 52, 53, 54, 55)"  # of both shards
    forms = [
        [single],
        [f"UPDATE users SET version = {version} WHERE uid BETWEEN {key} AND {key}"],
        ["BEGIN", others, single, "COMMIT"],
        [f"INSERT INTO users (uid) VALUES ({key}) ON DUPLICATE KEY UPDATE version = {version}"],
        ["BEGIN", single, "COMMIT"],
    ]
    return forms[version % len(forms)]


def hunt(
    cluster: LocalCluster,
    proxies: tuple[RedisProxy, RedisProxy],
    trouble: Callable[[Hunt], None],
    seconds: float = SECONDS,
) -> Hunt:
    """Write and read as run_all does."""
    found = Hunt()
    keys = list(range(2 * KEYS))
    with proxies[0].mysql() as db, db.cursor() as cursor:
        cursor.execute("DELETE FROM users WHERE uid < 100")
        for key in (*keys, *range(50, 56)):
            cursor.execute("INSERT INTO users (uid, version) VALUES (%s, 0)", (key,))
    found.acknowledged = dict.fromkeys(keys, 0)
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        *((found.write, (proxy, number * KEYS, cluster)) for number, proxy in enumerate(proxies)),
        *((found.read, (proxy, keys)) for proxy in proxies),
        (found.widen, ([shard.primary for shard in cluster.shards],)),
        (trouble, (found,)),
    ]
    run_all(work, found, seconds)
    return found


def test_nothing_is_stale(cluster: LocalCluster) -> None:
    with two_proxies(cluster, "nothing", STRICT) as (one, two):

        def trouble(found: Hunt) -> None:
            for act in (stop_keepers, kill_keepers, restart_node, kill_worker):
                if not found.over.wait(1.5):
                    act(found)

        def stop_keepers(found: Hunt) -> None:
            with one.stopped_keeper(), two.stopped_keeper():
                found.over.wait(1.5)

        def kill_keepers(found: Hunt) -> None:
            for proxy in (one, two):
                os.kill(proxy.keeper_pid(), signal.SIGKILL)

        def restart_node(found: Hunt) -> None:
            cluster.redis[0].kill()
            found.over.wait(0.5)
            cluster.redis[0].restart()

        def kill_worker(found: Hunt) -> None:
            os.kill(two.worker_pid(), signal.SIGKILL)

        found = hunt(cluster, (one, two), trouble)
        assert not found.stale
        assert found.reads > 200 and found.writes > 30
        assert found.unanswered <= 6  # of those that met the kills
        hits = sum(p.labelled("shardproxy_cache_reads_total", outcome="hit") for p in (one, two))
        assert hits > found.reads / 20  # there was a cache


def test_nothing_is_stale_while_rows_move(cluster: LocalCluster) -> None:
    with two_proxies(cluster, "nothing", STRICT, "moving") as (one, two):

        def moves(found: Hunt) -> None:
            for weights in ("shard1=1,shard2=20", "shard1=20,shard2=1"):
                words = ["rebalance", "run", "main", "--weights", weights, "--auto", "--config", str(one.config)]
                done = CliRunner().invoke(app, words)
                said.append((done.exit_code, done.output))

        said: list[tuple[int, str]] = []
        found = hunt(cluster, (one, two), moves)
        assert [code for code, _ in said] == [0, 0], said
        assert not found.stale
        assert found.reads > 200 and found.writes > 30


@pytest.mark.parametrize("without", ["before", "lease"])
def test_the_hunt_finds_what_is_left_out(
    cluster: LocalCluster,
    without: str,
) -> None:
    with two_proxies(cluster, without, STRICT) as proxies:

        def slow_keepers(found: Hunt) -> None:
            while not found.over.wait(1.0):
                with proxies[0].stopped_keeper(), proxies[1].stopped_keeper():
                    found.over.wait(0.7)

        assert hunt(cluster, proxies, slow_keepers, LONGEST).stale
