"""Failover by real sentinels: the proxy follows, and does not go back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shardproxy.backend.redis.link import UP
from shardproxy.backend.redis.node import LinkSettings
from shardproxy.backend.redis.node import RedisNode as Node
from shardproxy.backend.redis.slot import Turn
from shardproxy.local import LocalCluster
from shardproxy.local.ports import free_port
from shardproxy.local.redis_node import RedisNode
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy
from tests.stores import until, within


def start_sentinels(cluster: LocalCluster, primary: RedisNode) -> list[str]:
    """Addresses of three sentinels of which two decide, when they know of each other and of the replica."""
    addresses = cluster.add_sentinels("main", primary)
    for address in addresses:
        with redis.Redis(port=int(address.partition(":")[2]), decode_responses=True) as sentinel:

            def knows(asked: Any = sentinel) -> bool:
                told = asked.sentinel_master("main")
                return bool(told["num-other-sentinels"] == 2 and told["num-slaves"] == 1)

            eventually(knows, "the sentinels know of each other", 30)
    return addresses


def follows(replica: RedisNode, primary: RedisNode) -> bool:
    with replica.connect(decode_responses=True) as direct:
        told = direct.info("replication")
    return (told["role"], told.get("master_port"), told.get("master_link_status")) == ("slave", primary.port, "up")


@pytest.fixture
def parts() -> Iterator[tuple[LocalCluster, RedisNode, RedisNode, list[str]]]:
    """A cluster, a primary, its replica, and sentinels."""
    with LocalCluster("mariadb", shards=1, replicas=0, redis=1) as cluster:
        [primary] = cluster.redis
        with primary.connect() as direct:
            direct.config_set("repl-diskless-sync-delay", 0)
        replica = cluster.add_redis("replica", ["--replicaof", "127.0.0.1", str(primary.port)])
        eventually(lambda: follows(replica, primary), "it follows", 30)
        yield cluster, primary, replica, start_sentinels(cluster, primary)


def sets(client: Any, value: str) -> bool:
    try:
        return bool(client.set("k", value))
    except redis.ResponseError:
        return False


def value_at(node: RedisNode) -> bytes | None:
    with node.connect() as direct:
        found: bytes | None = direct.get("k")
    return found


def start_proxy(cluster: LocalCluster, name: str, address: str, sentinels: list[str], timeout: str = "10s") -> Any:
    nodes: dict[str, dict[str, object]] = {"r1": {"address": address, "sentinel_name": "main"}}
    settings = {"sentinels": sentinels, "connect_timeout": "500ms", "timeout": timeout}
    return redis_proxy(cluster, name, nodes=nodes, redis=settings)


def test_the_proxy_follows_a_failover(parts: tuple[LocalCluster, RedisNode, RedisNode, list[str]]) -> None:
    cluster, first, second, sentinels = parts
    proxy: RedisProxy
    with start_proxy(cluster, "before", first.address, sentinels) as proxy, proxy.connect() as client:
        eventually(lambda: sets(client, "one"), "a sentinel has told where the node is")
        assert value_at(first) == b"one"
        first.kill()
        with pytest.raises(redis.ResponseError, match="node r1"):
            client.set("k", "lost")
        eventually(lambda: sets(client, "two"), "the replica is the node now", 30)
        assert value_at(second) == b"two"
        first.restart()  # as a primary: it does not know better yet
        assert sets(client, "three")
        assert value_at(second) == b"three"
        # A proxy whose file names the former primary asks the sentinels first.
        with start_proxy(cluster, "after", first.address, sentinels) as late, late.connect() as other:
            eventually(lambda: sets(other, "four"), "it knows where the node is")
            assert value_at(second) == b"four"
        # Sentinels see at a round of INFO, 10 s apart, that it calls itself a primary, and act at the next.
        eventually(lambda: follows(first, second), "the former primary is a replica", 90)
        assert sets(client, "five")
        assert value_at(second) == b"five"


def told_by(sentinel: str) -> int:
    """The port at which a sentinel says the primary is."""
    with redis.Redis(port=int(sentinel.partition(":")[2]), decode_responses=True) as asked:
        return int(asked.sentinel_get_master_addr_by_name("main")[1])


def test_a_sentinel_that_knows_less_than_others_leads_nowhere(
    parts: tuple[LocalCluster, RedisNode, RedisNode, list[str]],
) -> None:
    cluster, first, second, sentinels = parts
    proxy: RedisProxy
    with start_proxy(cluster, "one-knows-less", first.address, sentinels) as proxy, proxy.connect() as client:
        eventually(lambda: sets(client, "one"), "a sentinel has told where the node is")
        first.kill()
        eventually(lambda: sets(client, "two"), "the replica is the node now", 30)
        first.restart()
        with redis.Redis(port=int(sentinels[1].partition(":")[2])) as late:
            times = 0
            deadline = time.monotonic() + 60
            while times < 3:
                assert time.monotonic() < deadline, "it knows less for so short a time that this shows nothing"
                late.sentinel_remove("main")
                late.sentinel_monitor("main", first.host, first.port, 2)
                # Until it hears from the others, who speak each two seconds: that may be at once. It is asked each
                # second.
                begun = time.monotonic()
                while told_by(sentinels[1]) == first.port:
                    assert sets(client, f"{times}")
                    assert value_at(second) == b"%d" % times
                times += time.monotonic() - begun > 1
        assert proxy.process.log.read_text().count("redis_node_moved") == 1


def test_without_an_answer_of_more_than_half_of_the_sentinels_nothing_is_sent(cluster_of_one: LocalCluster) -> None:
    [node] = cluster_of_one.redis
    ports = [free_port() for _ in range(3)]
    sentinels = [f"127.0.0.1:{port}" for port in ports]
    with start_proxy(cluster_of_one, "alone", node.address, sentinels) as proxy, proxy.connect() as client:

        def refused(why: str) -> bool:
            with pytest.raises(redis.ResponseError, match="; the command was not sent") as caught:
                client.set("k", "v")
            return why in str(caught.value)

        assert refused("no sentinel has told yet where it is")
        cluster_of_one.add_sentinel("main", node, ports[1], 2)
        eventually(lambda: refused("1 of 3 sentinels have told where it is, and more than half must"), "one tells")
        assert value_at(node) is None
        cluster_of_one.add_sentinel("main", node, ports[2], 2)
        eventually(lambda: sets(client, "v"), "two tell")
        assert value_at(node) == b"v"


def test_connections_to_a_former_primary_that_lives_are_given_up(
    parts: tuple[LocalCluster, RedisNode, RedisNode, list[str]],
) -> None:
    """It stands still for as long as the failover lasts; what it would take then is lost."""
    cluster, first, second, sentinels = parts
    proxy: RedisProxy
    with (
        start_proxy(cluster, "stopped", first.address, sentinels, "60s") as proxy,
        proxy.connect() as client,
        proxy.connect() as another,
    ):
        eventually(lambda: sets(client, "one"), "sentinels have told where the node is")
        another.execute_command("WATCH", "k")  # so that it has a connection of its own
        another.execute_command("MULTI")
        another.execute_command("SET", "k", "in a transaction")
        os.kill(first.pid, signal.SIGSTOP)
        try:
            eventually(lambda: "redis_node_moved" in proxy.process.log.read_text(), "the replica is the node", 30)
        finally:
            os.kill(first.pid, signal.SIGCONT)
        with pytest.raises(redis.ResponseError, match="is not the primary any more"):
            another.execute_command("EXEC")
        eventually(lambda: sets(client, "two"), "it is written")
        assert value_at(second) == b"two"


def test_a_node_that_was_given_up_is_asked_at_once_at_another_address(cluster_of_one: LocalCluster) -> None:
    [server] = cluster_of_one.redis

    async def main() -> None:
        dead = free_port()
        settings = LinkSettings(eject_after=2)
        node = Node("r1", "127.0.0.1", dead, settings, Turn(asyncio.get_running_loop()))

        async def ejected() -> bool:
            node.tick()
            return node.ejected

        async def failed() -> bool:
            return node.failures > before

        async def up() -> bool:
            return node.link(False, 0).state == UP

        await until(ejected)
        before = node.failures
        node.move("127.0.0.1", free_port())
        assert not node.ejected
        await until(failed)
        assert not node.ejected, "another server has its own failures"
        await until(ejected)
        node.move(server.host, server.port)
        await until(up)  # though nobody ticks
        node.close()

    within(60, main)


@pytest.fixture
def cluster_of_one() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=1) as cluster:
        yield cluster
