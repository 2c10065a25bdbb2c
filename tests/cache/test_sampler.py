"""The sampler: what is fresh is the same, what is old for a while differs, and a broken promise is found and mended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from tests.cache.test_rows import CACHE, KEYSPACES, cluster_with, hits, read_by_keeper
from tests.cache.test_stale_reads import FAULTS, Both, both_kept
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

BOUND = 3.0  # a slow machine takes long to write while the keeper stands still
SAMPLED = CACHE.replace('bound = "1s"', 'bound = "3s"\nsample = 1.0')
BLIND = 13  # the key that the keeper does not see


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with cluster_with("mariadb") as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    environment = {"SHARDPROXY_CACHE_WITHOUT": "events"}
    options: dict[str, Any] = {"more": SAMPLED, "keyspaces": KEYSPACES, "environment": environment, "path": FAULTS}
    with redis_proxy(cluster, "sampled", **options) as running:
        eventually(partial(both_kept, running), "both shards are kept", 30)
        yield running


@pytest.fixture
def client(proxy: RedisProxy) -> Iterator[Any]:
    with proxy.connect() as connected:
        yield connected


@pytest.fixture
def behind(cluster: LocalCluster) -> Iterator[Callable[[str], None]]:
    """Writes past the proxy, at the shard that has the row."""
    with Both([shard.primary for shard in cluster.shards]) as both:
        yield lambda text: both.execute(text, ())


def samples(proxy: RedisProxy, outcome: str) -> float:
    return proxy.labelled("shardproxy_cache_samples_total", rows="users", outcome=outcome)


def more_are_the_same(proxy: RedisProxy, than: float) -> bool:
    return samples(proxy, "same") > than


def ages(proxy: RedisProxy) -> tuple[float, float]:
    """How many samples there are, and their seconds."""
    name = "shardproxy_cache_staleness_seconds"
    return proxy.metric(f"{name}_count"), proxy.metric(f"{name}_sum")


def version(client: Any, key: int) -> int:
    found: int = json.loads(client.get(f"users:{key}"))["version"]
    return found


def a_row(proxy: RedisProxy, client: Any, key: int) -> None:
    """Version 1, in the cache."""
    with proxy.mysql() as db:
        db.cursor().execute(f"REPLACE INTO users (uid, version) VALUES ({key}, 1)")
    read_by_keeper(proxy)
    eventually(lambda: version(client, key) == 1, "the row is there")
    hits(proxy, lambda: client.get(f"users:{key}"))


def test_what_is_fresh_is_the_same(proxy: RedisProxy, client: Any) -> None:
    a_row(proxy, client, 1)
    hits(proxy, lambda: client.get("users:2"))  # no such row
    same, beyond, (count, seconds) = samples(proxy, "same"), samples(proxy, "beyond bound"), ages(proxy)
    for _ in range(10):
        client.get("users:1")
        client.get("users:2")
        eventually(partial(more_are_the_same, proxy, same), "a sample")
        same = samples(proxy, "same")
    assert ages(proxy)[0] >= count + 10
    assert (samples(proxy, "differs"), samples(proxy, "beyond bound"), ages(proxy)[1]) == (0, beyond, seconds)


def test_what_is_old_for_a_while_differs(proxy: RedisProxy, client: Any, behind: Callable[[str], None]) -> None:
    a_row(proxy, client, 3)
    differs, beyond, seconds = samples(proxy, "differs"), samples(proxy, "beyond bound"), ages(proxy)[1]
    with proxy.stopped_keeper():  # until the mark ends
        behind("UPDATE users SET version = 2 WHERE uid = 3")
        assert version(client, 3) == 1
        eventually(lambda: samples(proxy, "differs") > differs, "a sample that differs")
    assert 0.2 < ages(proxy)[1] - seconds < BOUND * (samples(proxy, "differs") - differs)
    assert samples(proxy, "beyond bound") == beyond


def test_a_write_that_the_keeper_does_not_see(proxy: RedisProxy, client: Any, behind: Callable[[str], None]) -> None:
    with proxy.mysql() as db:
        db.cursor().execute(f"REPLACE INTO users (uid, version) VALUES ({BLIND}, 1)")
    hits(proxy, lambda: client.get(f"users:{BLIND}"))
    beyond = samples(proxy, "beyond bound")
    behind(f"UPDATE users SET version = 2 WHERE uid = {BLIND}")
    assert version(client, BLIND) == 1  # and for ever, if nobody found it
    eventually(lambda: samples(proxy, "beyond bound") > beyond, "the broken promise is counted", BOUND + 20)
    eventually(lambda: "cache_stale" in proxy.process.log.read_text(), "the log says so")
    eventually(lambda: version(client, BLIND) == 2, "the row is read anew")
