"""Keys placed by ketama move while clients write through two proxies; then they are where twemproxy has them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shardproxy.app.redis_maps import RedisMapWatch
from shardproxy.config import parse
from shardproxy.local import LocalCluster, free_port
from shardproxy.local.redis_node import RedisNode
from shardproxy.store.interface import ABSENT
from shardproxy.store.opening import open_store
from shardproxy.topology.ketama import Server
from shardproxy.topology.redis_map import REDIS_MAP, RedisMap, first_ketama, first_map
from tests.ketama import KEYS, exchange, ketama_ring, run_nutcracker
from tests.redis.moves.load import Load, connect
from tests.redis.moves.test_moves import (
    Proxies,
    fill,
    settled,
    shardctl,
    sound,
    started,
    status,
    until_moving,
    untouched,
)
from tests.redis.proxied import redis_proxy
from tests.unit.config.test_config_load import good

TWO = "redis1=1,redis2=1"
THREE = "redis1=1,redis2=1,redis3=1"
TILTED = "redis1=1,redis2=3"  # everything of redis3 goes, and much of redis1


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3, redis_options=options) as running:
        yield running


def nodes(some: list[RedisNode]) -> Mapping[str, Mapping[str, Any]]:
    return {node.name: {"address": node.address, "ketama_name": f"cache-{node.name}"} for node in some}


@pytest.fixture(scope="module")
def proxies(cluster: LocalCluster) -> Iterator[Proxies]:
    """The first map has two nodes: with a file that names the third the map of the store counts."""
    ketama = {"placement": "ketama", "hash_tag": "{}"}
    with redis_proxy(cluster, "first", store="both", redis=ketama, nodes=nodes(cluster.redis[:2])):
        pass
    known = nodes(cluster.redis)
    with (
        redis_proxy(cluster, "one", store="both", redis=ketama, nodes=known) as one,
        redis_proxy(cluster, "two", store="both", redis=ketama, nodes=known) as two,
    ):
        yield one, two


@pytest.fixture(autouse=True)
def balanced(proxies: Proxies) -> Iterator[None]:
    """Every test begins with keys on three nodes, and ends without any."""
    shardctl(proxies[0], "run", "--weights", THREE)
    settled(proxies)
    yield
    shardctl(proxies[0], "resume")
    settled(proxies)
    with connect(proxies[0].port) as client:
        client.flushdb()


def as_twemproxy(cluster: LocalCluster, weights: str) -> None:
    """Each key is where a twemproxy with these servers has it, and not elsewhere."""
    given = dict(part.split("=") for part in weights.split(","))
    ring = ketama_ring({f"cache-{name}": int(weight) for name, weight in given.items()}, b"{}")
    found = 0
    for node in cluster.redis:
        with node.connect() as client:
            for key in client.scan_iter():
                assert list(given)[ring.node_of(key)] == node.name, key
                found += 1
    assert found


def test_nodes_come_and_go_while_clients_write(cluster: LocalCluster, proxies: Proxies) -> None:
    one, two = proxies
    shardctl(one, "run", "--weights", TWO)
    fill(one.port, 4000)
    fill(one.port, 500, "{tag}")
    with connect(one.port) as client:
        client.set("", "the empty key")
    as_twemproxy(cluster, TWO)
    with Load([one.port, two.port]) as load:
        for weights in (THREE, TILTED, "redis3=5,redis2=2", TWO):
            load.goes_on()
            shardctl(one, "run", "--weights", weights)
            shown = status(two)
            assert (shown["left"], shown["move"], len(shown["servers"])) == (0, None, 1)
    assert not load.errors
    sound(load, proxies)
    untouched(two.port, 4000)
    untouched(two.port, 500, "{tag}")
    with connect(two.port) as client:
        assert client.get("") == b"the empty key"
    as_twemproxy(cluster, TWO)
    assert one.metric("shardproxy_redis_keys_pulled_total") + two.metric("shardproxy_redis_keys_pulled_total") > 0


@pytest.mark.parametrize("weights", [TILTED, "redis3=5,redis2=2", "redis1=4,redis2=1,redis3=2"])
def test_a_twemproxy_with_the_new_servers_finds_every_key(
    cluster: LocalCluster, proxies: Proxies, weights: str, tmp_path: Path
) -> None:
    one, two = proxies
    keys = list(dict.fromkeys(KEYS))
    with connect(one.port) as client:
        client.mset({key: b"v" + key for key in keys})
    shardctl(one, "run", "--weights", weights)
    settled(proxies)
    addresses = {node.name: node.address for node in cluster.redis}
    port = free_port()
    text = f"pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
    text += '  hash_tag: "{}"\n  servers:\n'
    for name, weight in (part.split("=") for part in weights.split(",")):
        text += f"   - {addresses[name]}:{weight} cache-{name}\n"
    process = run_nutcracker(tmp_path, text, port)
    try:
        wanted = b"".join(b"$%d\r\nv%b\r\n" % (len(key) + 1, key) for key in keys)
        assert exchange(port, [[b"GET", key] for key in keys], len(wanted)) == wanted
        wanted = b"+OK\r\n" * len(keys)
        assert exchange(port, [[b"SET", key, b"t" + key] for key in keys], len(wanted)) == wanted
    finally:
        process.kill()
    with connect(two.port) as client:
        assert client.mget(keys) == [b"t" + key for key in keys]


def test_movers_workers_and_nodes_are_killed(cluster: LocalCluster, proxies: Proxies) -> None:
    one, two = proxies
    fill(one.port, 1500)
    with Load([one.port, two.port], seed=2) as load:
        mover = started(one, "run", "--weights", TILTED, "--throttle", "300")
        until_moving(one)
        os.kill(two.worker_pid(), signal.SIGKILL)
        load.goes_on()
        mover.kill()
        mover.wait()
        load.goes_on()  # nobody leads the move: keys are pulled by who wants them
        mover = started(two, "resume", "--throttle", "300")
        for node in (cluster.redis[2], cluster.redis[1]):
            node.kill()
            node.process.start()
            load.goes_on()
        mover.wait(120)  # a node that was away ends it, or not
        shardctl(one, "resume")
        load.goes_on()
    assert status(one)["left"] == 0
    sound(load, proxies)
    untouched(two.port, 1500)
    as_twemproxy(cluster, TILTED)


def test_what_is_cancelled_goes_back(cluster: LocalCluster, proxies: Proxies) -> None:
    one, two = proxies
    before = status(one)
    fill(one.port, 1500)
    with Load([one.port, two.port], seed=3) as load:
        mover = started(one, "run", "--weights", TILTED, "--throttle", "20", "--at-once", "20")
        until_moving(one)
        load.goes_on()
        mover.kill()
        mover.wait()
        assert len(status(one)["servers"]) == 2
        shardctl(two, "cancel")
        load.goes_on()
    after = status(one)
    assert (after["buckets"], after["servers"], after["move"]) == (before["buckets"], before["servers"], None)
    sound(load, proxies)
    untouched(two.port, 1500)
    as_twemproxy(cluster, THREE)


def test_keys_of_other_nodes_are_found(cluster: LocalCluster, proxies: Proxies) -> None:
    one, _ = proxies
    ring = ketama_ring({f"cache-{node.name}": 1 for node in cluster.redis}, b"{}")
    wrong = next(node for n, node in enumerate(cluster.redis) if n != ring.node_of(b"key"))
    with wrong.connect() as direct:
        direct.set("key", "written there directly")
        with pytest.raises(AssertionError, match="keys of other nodes are found by nobody"):
            shardctl(one, "verify")
        direct.delete("key")
    shardctl(one, "verify")


def test_a_file_of_another_placement_serves_nobody(tmp_path: Path) -> None:
    """By it keys would be looked for where they are not."""
    node = {"address": "127.0.0.1:1", "ketama_name": "one"}
    file = parse({**good(), "redis": {"placement": "ketama", "nodes": {"a": node}}}, "f.toml")
    file.remember_origin("f.toml", tmp_path, {})
    taken: list[int] = []

    async def ended() -> None:
        pass

    async def served_by(document: RedisMap) -> str:
        """What keeps the proxy from serving."""
        store = await open_store(file)
        entry = await store.get(REDIS_MAP)
        await store.put(REDIS_MAP, document.document(), ABSENT if entry is None else entry.version)
        await store.close()
        watch = RedisMapWatch(file, lambda number, _: taken.append(number), ended)
        task = asyncio.create_task(watch.run())
        known = watch.problem
        async with asyncio.timeout(20):
            while watch.problem == known:  # noqa: ASYNC110 — nobody tells
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        return watch.problem

    tagged = first_ketama([Server("a", "one", 1)], "{}")
    for document in (tagged, first_map({"a": 1})):
        assert "by which nobody would find them" in asyncio.run(served_by(document))
        assert not taken
    assert asyncio.run(served_by(first_ketama([Server("a", "another", 1)]))) == "" and taken
