"""Rows that are loaded anew while they are given: early, and when their time is over; never past a write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from tests.cache.test_rows import CACHE, KEYSPACES, cluster_with, hits
from tests.cache.test_stale_reads import Both, both_kept
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

TTL, STALE_FOR = 400, 60_000  # milliseconds of `orders` and `kinds`
# A slow machine takes longer for 20,000 reads than the usual lease.
LONG = CACHE.replace('lease = "2s"', 'lease = "60s"').replace('bound = "1s"', 'bound = "5s"')
EARLY = LONG.replace('"main.users"', '"main.users"\nttl = "10s"\nrefresh_before = "9700ms"')
REFRESHED = EARLY.replace('form = "hash"', f'form = "hash"\nttl = "{TTL}ms"\nstale_for = "{STALE_FOR}ms"')
REFRESHED = REFRESHED.replace('"main.kinds"', f'"main.kinds"\nttl = "{TTL}ms"\nstale_for = "{STALE_FOR}ms"')
DUE = 0.3  # seconds after which a row of `users` is loaded anew


@pytest.fixture(scope="module")
def cluster(flavor: FlavorName) -> Iterator[LocalCluster]:
    with cluster_with(flavor) as running:
        yield running


@pytest.fixture(scope="module")
def proxies(cluster: LocalCluster) -> Iterator[tuple[RedisProxy, RedisProxy]]:
    options: dict[str, Any] = {"more": REFRESHED, "keyspaces": KEYSPACES}
    with redis_proxy(cluster, "one", **options) as one, redis_proxy(cluster, "two", **options) as two:
        for proxy in (one, two):
            eventually(partial(both_kept, proxy), "both shards are kept", 30)
        yield one, two


@pytest.fixture
def clients(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[tuple[Any, Any]]:
    with proxies[0].connect() as one, proxies[1].connect() as two:
        yield one, two


@pytest.fixture
def behind(cluster: LocalCluster) -> Iterator[Callable[[str], None]]:
    """Statements for both shards, on connections past the proxies."""
    with Both([shard.primary for shard in cluster.shards]) as both:
        yield lambda text: both.execute(text, ())


def total(proxies: tuple[RedisProxy, RedisProxy], outcome: str) -> float:
    return sum(proxy.labelled("shardproxy_cache_reads_total", outcome=outcome) for proxy in proxies)


def made_void(proxy: RedisProxy) -> float:
    return proxy.metric("shardproxy_cache_invalidations_total")


def is_more(proxy: RedisProxy, than: float) -> bool:
    return made_void(proxy) > than


class Entry:
    """A row's, on its node."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name

    @contextmanager
    def _found(self) -> Iterator[tuple[Any, bytes]]:
        for node in self._cluster.redis:
            with node.connect() as direct:
                for name in direct.scan_iter(f"_shardproxy:*:row:{self._name}"):
                    yield direct, name
                    return
        yield None, b""

    def lives(self) -> int:
        """For how many milliseconds."""
        with self._found() as (node, name):
            return int(node.pttl(name)) if node else -2

    def is_void(self) -> bool:
        with self._found() as (node, name):
            return node is None or node.get(name) == b"T"

    def is_value(self) -> bool:
        """Not a tombstone of a keeper that came late."""
        with self._found() as (node, name):
            return node is not None and (node.get(name) or b"")[:1] == b"V"

    def is_over(self) -> bool:
        """Only `stale_for` is left."""
        return self.is_value() and self.lives() <= STALE_FOR


def an_order(proxies: tuple[RedisProxy, RedisProxy], client: Any, behind: Callable[[str], None], uid: int) -> None:
    """A row of `orders` in the cache: uid, number 1, "old"."""
    behind(f"DELETE FROM orders WHERE uid = {uid}")
    with proxies[0].mysql() as db:
        db.cursor().execute(f"INSERT INTO orders VALUES ({uid}, 1, 'old', NULL)")
    eventually(lambda: client.hget(f"orders:{uid}:1", "what") == b"old", "the row is there")
    hits(proxies[0], lambda: client.hget(f"orders:{uid}:1", "what"))


def until_over(client: Any, uid: int, entry: Entry) -> None:
    """Wait until the order's time is over."""

    def is_over() -> bool:
        if not entry.is_value():
            client.hget(f"orders:{uid}:1", "what")
        return entry.is_over()

    eventually(is_over, "its time is over", 30)


def test_a_row_that_is_read_on_is_loaded_early_and_by_one(
    proxies: tuple[RedisProxy, RedisProxy], clients: tuple[Any, Any]
) -> None:
    before = [made_void(proxy) for proxy in proxies]
    with proxies[0].mysql() as db:
        db.cursor().execute("REPLACE INTO users (uid, version) VALUES (1, 1)")
    for proxy, count in zip(proxies, before, strict=True):
        eventually(partial(is_more, proxy, count), "its keeper has seen it", 30)
    hits(proxies[0], lambda: clients[0].get("users:1"))
    hits(proxies[1], lambda: clients[1].get("users:1"))
    misses, refreshed, began = total(proxies, "miss"), total(proxies, "refreshed"), time.monotonic()
    loads = 0.0
    while loads < 4:
        for client in clients:
            assert b'"version":1' in client.get("users:1")
        loads = total(proxies, "refreshed") - refreshed
        assert time.monotonic() - began < 20
    assert loads <= (time.monotonic() - began) / DUE + 1
    assert total(proxies, "miss") == misses


def test_what_is_over_is_given_while_one_loads(
    proxies: tuple[RedisProxy, RedisProxy],
    clients: tuple[Any, Any],
    behind: Callable[[str], None],
    cluster: LocalCluster,
) -> None:
    an_order(proxies, clients[0], behind, 2)
    entry = Entry(cluster, "orders:2:1")
    assert entry.lives() <= TTL + STALE_FOR
    until_over(clients[0], 2, entry)
    misses, loads = total(proxies, "miss"), total(proxies, "refreshed")
    behind("LOCK TABLES orders WRITE")  # who loads it waits
    try:
        for client in clients:
            pipe = client.pipeline(transaction=False)
            for _ in range(10_000):
                pipe.hget("orders:2:1", "what")
            assert set(pipe.execute()) == {b"old"}
        assert entry.is_over()
        assert total(proxies, "refreshed") == loads + 1
    finally:
        behind("UNLOCK TABLES")
    eventually(lambda: not entry.is_over(), "it was loaded anew")
    assert (total(proxies, "refreshed"), total(proxies, "miss")) == (loads + 1, misses)
    assert clients[1].hgetall("orders:2:1") == {b"uid": b"2", b"no": b"1", b"what": b"old"}


def test_what_was_written_is_not_given(
    proxies: tuple[RedisProxy, RedisProxy],
    clients: tuple[Any, Any],
    behind: Callable[[str], None],
    cluster: LocalCluster,
) -> None:
    an_order(proxies, clients[0], behind, 3)
    entry = Entry(cluster, "orders:3:1")
    until_over(clients[0], 3, entry)
    refused, begun = total(proxies, "fill refused"), total(proxies, "refreshed")
    behind("LOCK TABLES orders WRITE")
    try:
        assert clients[0].hget("orders:3:1", "what") == b"old"
        eventually(lambda: total(proxies, "refreshed") > begun, "somebody loads it")
        behind("UPDATE orders SET what = 'new' WHERE uid = 3")
        eventually(entry.is_void, "the keeper has seen it")
    finally:
        behind("UNLOCK TABLES")
    assert [client.hget("orders:3:1", "what") for client in clients] == [b"new"] * 2
    eventually(lambda: total(proxies, "fill refused") > refused, "what was loaded is not kept")


def test_a_row_that_went_without_a_trace_in_the_binlog(
    proxies: tuple[RedisProxy, RedisProxy],
    clients: tuple[Any, Any],
    behind: Callable[[str], None],
    cluster: LocalCluster,
) -> None:
    an_order(proxies, clients[0], behind, 4)
    with proxies[0].mysql() as db:
        db.cursor().execute("REPLACE INTO kinds VALUES (4, 'four')")
    hits(proxies[0], lambda: clients[0].get("kinds:4"))
    behind("SET sql_log_bin = 0")
    behind("DELETE FROM orders WHERE uid = 4")
    behind("DELETE FROM kinds WHERE id = 4")
    eventually(lambda: clients[0].hgetall("orders:4:1") == {}, "it was loaded anew")
    assert 0 < Entry(cluster, "orders:4:1").lives() <= 30_000  # absent_ttl
    eventually(lambda: clients[0].get("kinds:4") is None, "it was loaded anew")
