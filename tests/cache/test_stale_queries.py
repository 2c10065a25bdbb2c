"""The hunts for stale rows, of kept answers: writers through a proxy and past it, readers at two proxies, trouble.

Strict: no reader finds less than what was acknowledged before it asked. Bounded: nor less than what was written longer
than the bound ago. With a guard left out both find something.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import pymysql
import pytest
import redis

from shardproxy.local import LocalCluster
from tests.cache import test_stale_reads, test_stale_strict
from tests.cache.test_queries import HINT, QUERIES
from tests.cache.test_stale_reads import KEYS, LONGEST, SECONDS, SLACK, Both, cluster, run_all, two_proxies
from tests.redis.proxied import RedisProxy

__all__ = ["cluster"]  # the fixture

BOUND = 0.5
BOUNDED = QUERIES.replace('bound = "1s"', 'bound = "500ms"')
STRICT = QUERIES.replace('bound = "1s"', 'mode = "strict"\nbound = "1s"\nwrite_wait = "2s"')
PAUSE = 1.1  # between two writes of the table: longer than BOUND + SLACK, for each makes all answers void


def read_version(cursor: Any, key: int) -> int:
    cursor.execute(f"{HINT}SELECT version FROM users WHERE uid = {key}")
    return int(cursor.fetchall()[0][0])


def evict(cluster: LocalCluster) -> None:
    """Nodes throw answers away, so that they are read anew during the next write. Tombstones and leases stay."""
    script = "if string.sub(redis.call('GET', KEYS[1]) or '', 1, 1) == 'V' then redis.call('DEL', KEYS[1]) end"
    for node in cluster.redis:
        with contextlib.suppress(redis.RedisError), node.connect() as direct:
            for name in direct.scan_iter("_shardproxy:*:answer:*", count=1000):
                direct.eval(script, 1, name)


class Hunt(test_stale_reads.Hunt):
    def is_enough(self) -> bool:
        return self.reads > 200

    def write_both_ways(self, through: RedisProxy, past: Both, cluster: LocalCluster) -> None:
        """Through the proxy and past it, in turn."""
        version = 0
        with through.mysql() as db, db.cursor() as cursor, past:
            while not self.over.wait(PAUSE):
                version += 1
                key = version % (2 * KEYS)
                evict(cluster)
                way = past if version % 2 else cursor
                way.execute("UPDATE users SET version = %s WHERE uid = %s", (version, key))
                self.written[key].append((time.monotonic(), version))

    def read(self, proxy: RedisProxy, keys: list[int]) -> None:
        with proxy.mysql() as db, db.cursor() as cursor:
            while not self.over.is_set():
                for key in keys:
                    began = time.monotonic()
                    due = max((v for at, v in list(self.written[key]) if at < began - BOUND - SLACK), default=0)
                    found = read_version(cursor, key)
                    self.reads += 1
                    if found < due:
                        self.stale.append(f"{key}: {found} where {due} was written {BOUND + SLACK} s before")


class StrictHunt(test_stale_strict.Hunt):
    def is_enough(self) -> bool:
        return self.reads > 200

    def write(self, proxy: RedisProxy, first: int, cluster: LocalCluster) -> None:
        version = 0
        while not self.over.is_set():
            with contextlib.suppress(pymysql.MySQLError), proxy.mysql() as db, db.cursor() as cursor:
                while not self.over.wait(2 * PAUSE):
                    version += 1
                    key = first + version % KEYS
                    evict(cluster)
                    for text in test_stale_strict._texts(version, key):
                        cursor.execute(text)
                    self.acknowledged[key] = version
                    self.writes += 1

    def read(self, proxy: RedisProxy, keys: list[int]) -> None:
        while not self.over.is_set():
            with contextlib.suppress(pymysql.MySQLError), proxy.mysql() as db, db.cursor() as cursor:
                while not self.over.is_set():
                    for key in keys:
                        due = self.acknowledged[key]
                        found = read_version(cursor, key)
                        self.reads += 1
                        if found < due:
                            self.stale.append(f"{key}: {found} where {due} was acknowledged before")


def new_rows(proxy: RedisProxy) -> None:
    with proxy.mysql() as db, db.cursor() as cursor:
        cursor.execute("DELETE FROM users WHERE uid < 100")
        for key in (*range(2 * KEYS), *range(50, 56)):
            cursor.execute("INSERT INTO users (uid, version) VALUES (%s, 0)", (key,))


def bounded(cluster: LocalCluster, one: RedisProxy, two: RedisProxy, trouble: Any, seconds: float = SECONDS) -> Hunt:
    found = Hunt()
    new_rows(one)
    keys = list(range(2 * KEYS))
    found.written = {key: [] for key in keys}
    servers = [shard.primary for shard in cluster.shards]
    work: list[Any] = [
        (found.write_both_ways, (one, Both(servers), cluster)),
        *((found.read, (proxy, keys)) for proxy in (one, two)),
        (found.widen, (servers,)),
        (trouble, (found,)),
    ]
    run_all(work, found, seconds)
    return found


def strict(
    cluster: LocalCluster, one: RedisProxy, two: RedisProxy, trouble: Any, seconds: float = SECONDS
) -> StrictHunt:
    found = StrictHunt()
    new_rows(one)
    keys = list(range(2 * KEYS))
    found.acknowledged = dict.fromkeys(keys, 0)
    work: list[Any] = [
        *((found.write, (proxy, number * KEYS, cluster)) for number, proxy in enumerate((one, two))),
        *((found.read, (proxy, keys)) for proxy in (one, two)),
        (found.widen, ([shard.primary for shard in cluster.shards],)),
        (trouble, (found,)),
    ]
    run_all(work, found, seconds)
    return found


def kept(*proxies: RedisProxy) -> float:
    return sum(p.labelled("shardproxy_cache_queries_total", outcome="hit") for p in proxies)


@pytest.mark.parametrize("mode", ["bounded", "strict"])
def test_nothing_is_stale(cluster: LocalCluster, mode: str) -> None:
    with two_proxies(cluster, "nothing", BOUNDED if mode == "bounded" else STRICT) as (one, two):

        def trouble(found: Any) -> None:
            for act in (stop_keeper, kill_keepers, restart_node):
                if not found.over.wait(2.5):
                    act(found)

        def stop_keeper(found: Any) -> None:
            with two.stopped_keeper():
                found.over.wait(2.0)

        def kill_keepers(found: Any) -> None:
            for proxy in (one, two):
                os.kill(proxy.keeper_pid(), signal.SIGKILL)

        def restart_node(found: Any) -> None:
            cluster.redis[0].kill()
            found.over.wait(0.5)
            cluster.redis[0].restart()

        found = (bounded if mode == "bounded" else strict)(cluster, one, two, trouble)
        assert not found.stale
        assert found.reads > 200
        assert kept(one, two) > found.reads / 20  # there was a cache


@pytest.mark.parametrize("without", ["hold_off", "tokens"])
def test_the_hunt_finds_what_is_left_out(cluster: LocalCluster, without: str) -> None:
    with two_proxies(cluster, without, BOUNDED) as (one, two):
        assert bounded(cluster, one, two, test_stale_reads.nothing, LONGEST).stale


def test_the_strict_hunt_finds_writers_that_void_nothing(cluster: LocalCluster) -> None:
    with two_proxies(cluster, "before", STRICT) as proxies:

        def slow_keepers(found: StrictHunt) -> None:
            while not found.over.wait(1.0):
                with proxies[0].stopped_keeper(), proxies[1].stopped_keeper():
                    found.over.wait(0.7)

        assert strict(cluster, *proxies, slow_keepers, LONGEST).stale
