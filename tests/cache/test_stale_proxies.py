"""The hunts for stale rows with whole proxies killed, replicas that stand still, and rows that are loaded anew while
they are given. What the sampler finds is asserted too."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from tests.cache import test_stale_reads as bounded
from tests.cache import test_stale_strict as strict
from tests.cache.test_rows import CACHE
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy

REFRESHED = CACHE.replace("[cache]", "[cache]\nsample = 0.2", 1)
REFRESHED = REFRESHED.replace('"main.users"', '"main.users"\nttl = "600ms"\nrefresh_before = "300ms"\nstale_for = "5s"')
STRICT = REFRESHED.replace("[cache]", '[cache]\nmode = "strict"\nwrite_wait = "2s"', 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with bounded.slow_to_show(replicas=1) as running:
        yield running


@pytest.fixture
def standing(cluster: LocalCluster) -> Iterator[None]:
    """Replicas that apply nothing."""
    replicas = [replica for shard in cluster.shards for replica in shard.replicas]
    for shard in cluster.shards:  # so that replicas have rows, whichever test comes first
        shard.primary.rows("REPLACE INTO main.users (uid, version) SELECT seq, 0 FROM main.seq_0_to_60")
    cluster.wait_replicated()
    for replica in replicas:
        replica.rows("STOP SLAVE SQL_THREAD")
    yield
    for replica in replicas:
        replica.rows("START SLAVE SQL_THREAD")


def kill_supervisor(proxy: RedisProxy) -> None:
    """The supervisor and its keeper. Workers have a group of their own, and find that they are alone."""
    os.killpg(proxy.process.pid, signal.SIGKILL)
    proxy.process.kill()  # waits


def kill_all(proxy: RedisProxy) -> None:
    """Everything at once: workers that serve, and what would start others."""
    found = subprocess.run(["pgrep", "-P", str(proxy.process.pid)], capture_output=True, check=True).stdout
    os.kill(proxy.process.pid, signal.SIGSTOP)
    for child in found.split():
        os.kill(int(child), signal.SIGKILL)
    kill_supervisor(proxy)


def deaths(one: RedisProxy, two: RedisProxy) -> Callable[[Any], None]:
    """One proxy after the other dies and comes back."""

    def trouble(found: Any) -> None:
        found.troubled = True  # for as long as proxies need to come back, and to have a cache again
        for kill, proxy in ((kill_supervisor, one), (kill_all, two)):
            if not found.over.wait(1.5):
                kill(proxy)
                found.over.wait(0.3)
                proxy.process.start()
        eventually(lambda: found.over.is_set() or there_was_a_cache((one, two)), "there is a cache again", 60)
        found.troubled = False

    return trouble


def there_was_a_cache(proxies: tuple[RedisProxy, RedisProxy]) -> bool:
    """Since the deaths: hits, some of them compared, and rows loaded anew."""
    counted = (("reads", "hit"), ("reads", "refreshed"), ("samples", "same"))
    return all(
        sum(proxy.labelled(f"shardproxy_cache_{what}_total", outcome=outcome) for proxy in proxies) > 0
        for what, outcome in counted
    )


def assert_there_was_a_cache(proxies: tuple[RedisProxy, RedisProxy]) -> None:
    """And nothing that the sampler has compared was given for longer than the bound."""
    assert there_was_a_cache(proxies)
    beyond = [proxy.labelled("shardproxy_cache_samples_total", outcome="beyond bound") for proxy in proxies]
    assert beyond == [0, 0]


@pytest.mark.usefixtures("standing")
def test_nothing_is_staler_than_the_bound(cluster: LocalCluster) -> None:
    with bounded.two_proxies(cluster, "nothing", REFRESHED) as (one, two):
        found = bounded.hunt(cluster, one, two, deaths(one, two))
        assert not found.stale
        assert found.reads > 100
        writes = {key: len(versions) for key, versions in found.written.items()}
        assert min(writes.values()) >= 1, (writes, found.errors[:3])
        assert_there_was_a_cache((one, two))


@pytest.mark.usefixtures("standing")
def test_nothing_is_stale_in_strict_mode(cluster: LocalCluster) -> None:
    with bounded.two_proxies(cluster, "nothing", STRICT) as (one, two):
        found = strict.hunt(cluster, (one, two), deaths(one, two))
        assert not found.stale
        assert found.reads > 100 and found.writes > 10
        assert found.unanswered <= 6  # of those that met the kills
        assert_there_was_a_cache((one, two))


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("without", ["primary", "refresh"])
def test_the_hunt_finds_what_is_left_out(cluster: LocalCluster, without: str) -> None:
    often = STRICT.replace('"300ms"\nstale_for', '"550ms"\nstale_for')  # somebody loads a row nearly always
    with bounded.two_proxies(cluster, without, often) as proxies:
        assert strict.hunt(cluster, proxies, lambda _: None, bounded.LONGEST).stale
