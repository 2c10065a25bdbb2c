"""Nodes that do not answer: given up after some failures, and taken back; in cache mode others have their keys."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from shardproxy.backend.redis.link import CONNECTING, DOWN, UP
from shardproxy.backend.redis.node import LinkSettings
from shardproxy.backend.redis.node import RedisNode as Node
from shardproxy.backend.redis.slot import Turn
from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from shardproxy.protocol.redis.encode import command
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

KEYS = [f"{n}:key" for n in range(300)]  # ketama puts keys that differ only at their end together
QUICK = {"timeout": "300ms", "connect_timeout": "300ms"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3) as running:
        yield running


@contextmanager
def filled(cluster: LocalCluster, mode: str, placement: str = "ring") -> Iterator[tuple[RedisProxy, Any]]:
    """A proxy and a client; each key has its name as its value."""
    nodes: dict[str, dict[str, object]] = {node.name: {"address": node.address} for node in cluster.redis}
    if placement == "ketama":
        for name in nodes:
            nodes[name]["ketama_name"] = name
    entries = {**QUICK, "mode": mode, "placement": placement}
    with redis_proxy(cluster, f"{mode}-{placement}", redis=entries, nodes=nodes) as proxy, proxy.connect() as client:
        client.flushall()
        client.mset({key: key for key in KEYS})
        yield proxy, client


def own_keys(node: RedisNode) -> list[str]:
    with node.connect(decode_responses=True) as direct:
        found: list[str] = direct.keys("*")
    return found


def ejected(proxy: RedisProxy) -> bool:
    return proxy.metric("shardproxy_redis_node_ejected") == 1


def works(client: Any, key: str) -> bool:
    try:
        client.get(key)
    except redis.ResponseError:
        return False
    return True


def test_a_stopped_node_is_given_up_and_taken_back(cluster: LocalCluster) -> None:
    with filled(cluster, "store") as (proxy, client):
        dead = cluster.redis[0]
        theirs = own_keys(dead)
        others = [key for key in KEYS if key not in theirs]
        os.kill(dead.pid, signal.SIGSTOP)
        try:
            eventually(lambda: ejected(proxy), "it is ejected, though nobody asks it for anything")
            begin = time.monotonic()
            for key in theirs[:20]:
                with pytest.raises(redis.ResponseError, match=r"node redis1 \(.*the command was not sent"):
                    client.set(key, "new")
            assert time.monotonic() - begin < 20 * 0.3  # each would wait that long for a connection
            assert client.mget(others) == [key.encode() for key in others]
            with pytest.raises(redis.ResponseError, match="node redis1"):
                client.dbsize()
        finally:
            os.kill(dead.pid, signal.SIGCONT)
        eventually(lambda: works(client, theirs[0]), "it is taken back")
        assert not ejected(proxy)
        assert client.mget(KEYS) == [key.encode() for key in KEYS]
        assert proxy.metric("shardproxy_redis_node_ejections_total") == 1


def test_a_dead_node_is_given_up_and_taken_back(cluster: LocalCluster) -> None:
    with filled(cluster, "store") as (proxy, client):
        dead = cluster.redis[1]
        theirs = own_keys(dead)
        dead.kill()
        eventually(lambda: ejected(proxy), "it is ejected")
        with pytest.raises(redis.ResponseError, match=r"node redis2 \(.*the command was not sent"):
            client.get(theirs[0])
        with proxy.connect(protocol=3) as other, pytest.raises(redis.ResponseError, match="was not sent"):
            other.get(theirs[0])
        dead.restart()
        eventually(lambda: works(client, theirs[0]), "it is taken back")
        assert client.get(theirs[0]) is None  # it kept nothing: that is not for us to mend


@pytest.mark.parametrize("placement", ["ring", "ketama"])
def test_in_cache_mode_others_have_the_keys_of_a_dead_node(cluster: LocalCluster, placement: str) -> None:
    with filled(cluster, "cache", placement) as (proxy, client):
        dead = cluster.redis[2]
        theirs = own_keys(dead)
        others = [key for key in KEYS if key not in theirs]
        assert theirs and others
        dead.kill()
        eventually(lambda: works(client, theirs[0]), "others have its keys")
        assert ejected(proxy)
        assert client.mget(others) == [key.encode() for key in others]  # none of them has moved
        assert client.mget(theirs) == [None] * len(theirs)
        client.mset(dict.fromkeys(theirs, "meanwhile"))
        assert client.mget(theirs) == [b"meanwhile"] * len(theirs)
        assert sorted(own_keys(cluster.redis[0]) + own_keys(cluster.redis[1])) == sorted(KEYS)
        assert set(theirs) & set(own_keys(cluster.redis[0]))
        assert set(theirs) & set(own_keys(cluster.redis[1]))
        dead.restart()
        eventually(lambda: not ejected(proxy), "it is back")
        eventually(lambda: client.get(theirs[0]) is None, "its keys are there again, where nothing is yet")
        assert client.mget(others) == [key.encode() for key in others]


def test_a_node_that_comes_back_to_a_cache_has_old_values(cluster: LocalCluster) -> None:
    """What the documentation warns of."""
    with filled(cluster, "cache") as (_, client):
        stopped = cluster.redis[0]
        key = own_keys(stopped)[0]
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            eventually(lambda: works(client, key), "another has its keys")
            client.set(key, "newer")
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        eventually(lambda: client.get(key) == key.encode(), "the old value is seen again")


def test_who_has_a_connection_of_its_own_to_a_node_that_is_given_up_is_told(cluster: LocalCluster) -> None:
    with filled(cluster, "store") as (proxy, client), proxy.connect() as watcher, proxy.raw() as blocked:
        dead = cluster.redis[0]
        key = own_keys(dead)[0]
        blocked.sendall(command([b"BLPOP", f"{{{key}}}:list".encode(), b"0"]))
        with dead.connect() as direct:
            eventually(lambda: direct.info("clients")["blocked_clients"] == 1, "it blocks")
        watcher.execute_command("WATCH", key)
        os.kill(dead.pid, signal.SIGSTOP)
        try:
            assert blocked.recv(1000).startswith(b"-ERR node redis1 (")
            eventually(lambda: ejected(proxy), "it is ejected")
        finally:
            os.kill(dead.pid, signal.SIGCONT)
        eventually(lambda: works(client, key), "it is taken back")
        assert watcher.execute_command("MULTI") == b"OK"
        watcher.execute_command("SET", key, "behind")
        with pytest.raises(redis.ResponseError, match="what was watched is not any more"):
            watcher.execute_command("EXEC")
        assert client.get(key) == key.encode()


def test_connections_are_made_for_who_uses_them(cluster: LocalCluster) -> None:
    node = cluster.add_redis("lonely")
    with (
        redis_proxy(cluster, "few", nodes={"lonely": {"address": node.address}}) as proxy,
        node.connect(protocol=2, client_name="test") as direct,
    ):

        def pings() -> int:
            return int(direct.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))

        def connections() -> int:
            return sum(client["name"] != "test" for client in direct.client_list())

        eventually(lambda: pings() >= 3, "idle connections are asked whether they live")
        assert connections() == 1
        with proxy.connect(protocol=3) as client:
            client.set("k", "v")
        assert connections() == 2


def test_a_node_that_answers_again_is_asked_at_once_by_all(cluster: LocalCluster) -> None:
    """One connection was refused just before it began to listen, another came a moment later: no pause any more."""
    asyncio.run(one_fails_and_one_comes(cluster.redis[0]))


async def one_fails_and_one_comes(server: RedisNode) -> None:
    node = Node(server.name, server.host, server.port, LinkSettings(), Turn(asyncio.get_running_loop()))
    try:
        [one], [other] = node.links
        node.open(other)
        node._down("refused")
        node.open(one)
        assert one.state == DOWN and not node.up
        await node._tasks[other]
        assert other.state == UP and node.up
        node.open(one)
        assert one.state == CONNECTING
    finally:
        node.close()
