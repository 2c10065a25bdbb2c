"""In cache mode others have the keys of a node that is away, but not while keys are being moved."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import redis

from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.local.redis_node import RedisNode
from shardproxy.reshard.redis_mover import change_map
from shardproxy.store.opening import open_store
from shardproxy.topology import redis_map
from shardproxy.topology.ketama import Continuum, Server
from tests.proxy import eventually
from tests.redis.moves.load import connect
from tests.redis.moves.test_moves import shardctl, started, status, until_moving
from tests.redis.proxied import RedisProxy, redis_proxy
from tests.redis.test_ejection import own_keys

KEYS = [f"{n}:key" for n in range(600)]
THREE, TWO = "redis1=1,redis2=1,redis3=1", "redis1=1,redis2=1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3, redis_options=options) as running:
        yield running


@pytest.fixture
def proxy(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[RedisProxy]:
    """With keys that have their names as values."""
    nodes = {node.name: {"address": node.address, "ketama_name": node.name} for node in cluster.redis}
    entries = {"mode": "cache", "placement": "ketama"}
    with redis_proxy(cluster, request.node.name[:20], redis=entries, nodes=nodes) as running:
        with connect(running.port) as client:
            client.flushall()
            client.mset({key: key for key in KEYS})
        yield running


def value(proxy: RedisProxy, key: str) -> str:
    """What a client gets: the value, "nothing", or "an error"."""
    with connect(proxy.port) as client:
        try:
            found = client.get(key)
        except redis.RedisError:
            return "an error"
    return "nothing" if found is None else found.decode()


def away(proxy: RedisProxy, node: RedisNode) -> list[str]:
    """Kill a node; its keys, which others have now."""
    theirs = own_keys(node)
    node.kill()
    eventually(lambda: value(proxy, theirs[0]) == "nothing", "others have its keys", 30)
    return theirs


def back(proxy: RedisProxy, node: RedisNode, key: str) -> None:
    node.process.start()
    eventually(lambda: value(proxy, key) == key, "the node has its keys again", 30)


async def want(proxy: RedisProxy, names: list[str]) -> None:
    """What `shardctl rebalance redis run` does first."""
    store = await open_store(load(proxy.config, proxy_environment()))
    goal = Continuum(servers=tuple([Server(name, name, 1) for name in names]))
    await change_map(store, lambda now: redis_map.want(now, goal))
    await store.close()


def test_what_others_had_meanwhile_is_not_taken_for_the_keys(cluster: LocalCluster, proxy: RedisProxy) -> None:
    dead = cluster.redis[2]
    theirs = away(proxy, dead)
    with connect(proxy.port) as client:
        for key in theirs:
            client.set(key, "meanwhile")
    with pytest.raises(AssertionError, match="node redis3 does not answer") as refused:
        shardctl(proxy, "run", "--weights", TWO)
    assert "`cancel` takes back" not in str(refused.value)
    assert value(proxy, theirs[0]) == "meanwhile"  # nothing is wanted: others have them still
    back(proxy, dead, theirs[0])
    shardctl(proxy, "run", "--weights", TWO)
    with connect(proxy.port) as client:
        assert client.mget(KEYS) == [key.encode() for key in KEYS]


def test_a_node_that_dies_while_keys_move_costs_errors(cluster: LocalCluster, proxy: RedisProxy) -> None:
    dead = cluster.redis[2]
    theirs = own_keys(dead)
    mover = started(proxy, "run", "--weights", TWO, "--throttle", "50", "--at-once", "20")
    try:
        until_moving(proxy)
        dead.kill()
        mover.wait(60)
        left = [key for key in theirs if value(proxy, key) != key]
        assert left and {value(proxy, key) for key in left} == {"an error"}
        with pytest.raises(AssertionError, match="`cancel` takes back"):
            shardctl(proxy, "resume")
    finally:
        mover.kill()
        mover.wait()
        dead.process.start()
    shardctl(proxy, "resume")
    with connect(proxy.port) as client:
        assert client.mget(KEYS) == [key.encode() for key in KEYS]
    shardctl(proxy, "verify")


def test_keys_of_a_dead_node_come_home_when_a_move_is_wanted(cluster: LocalCluster, proxy: RedisProxy) -> None:
    dead = cluster.redis[2]
    theirs = away(proxy, dead)
    told: list[str] = []

    def block() -> None:
        with connect(proxy.port) as client:
            try:
                told.append(str(client.blpop(theirs[0], timeout=60)))
            except redis.RedisError as error:
                told.append(str(error))

    blocked = threading.Thread(target=block)
    blocked.start()
    eventually(lambda: any("blpop" in str(each) for node in cluster.redis[:2] for each in clients(node)), "it blocks")
    asyncio.run(want(proxy, ["redis1", "redis2"]))
    blocked.join(30)
    assert told and told[0].startswith("UNBLOCKED")
    assert {value(proxy, key) for key in theirs} == {"an error"}
    shardctl(proxy, "cancel")  # nothing has moved: it needs no node
    eventually(lambda: value(proxy, theirs[0]) == "nothing", "others have its keys again")
    assert status(proxy)["move"] is None
    back(proxy, dead, theirs[0])


def clients(node: RedisNode) -> list[str]:
    """The commands that the node's connections are at."""
    with node.connect() as direct:
        return [each["cmd"] for each in direct.client_list() if "b" in each["flags"]]
