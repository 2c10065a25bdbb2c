"""`shardctl redis promote` with real servers: nothing is lost that need not be, and proxies follow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from shardproxy.config import Address, load
from shardproxy.config.redis_models import CachedRowsSettings, CacheTableSettings
from shardproxy.local import LocalCluster
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.local.redis_node import RedisNode
from shardproxy.reshard.redis_nodes import NodeControl
from shardproxy.reshard.redis_promotion import PAUSE, Promotion, refusal
from shardproxy.store.opening import open_store
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, keys_on, redis_proxy
from tests.redis.test_sentinels import follows
from tests.stores import Relay

SHARDCTL = "from shardproxy.cli.main import main; main()"


def shardctl(config: Path, *words: str) -> tuple[int, str]:
    """Exit status, and all that it says."""
    command = [sys.executable, "-c", SHARDCTL, *words, "--config", str(config)]
    done = subprocess.run(command, env=proxy_environment(), capture_output=True, text=True, timeout=90)
    return done.returncode, done.stdout + done.stderr


def promote(proxy: RedisProxy, node: str, replica: RedisNode, *options: str) -> tuple[int, str]:
    return shardctl(proxy.config, "redis", "promote", node, "--replica", replica.address, *options)


class Parts:
    """A proxy over two nodes, of which the first has two replicas."""

    def __init__(self, cluster: LocalCluster, proxy: RedisProxy, replicas: list[RedisNode]) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.primary, self.other = cluster.redis[0], cluster.redis[1]
        self.replica, self.second = replicas
        self.node = self.primary.name


@pytest.fixture
def parts() -> Iterator[Parts]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        primary, other = cluster.redis
        with primary.connect() as direct:
            direct.config_set("repl-diskless-sync-delay", 0)
        follow = ["--replicaof", "127.0.0.1", str(primary.port)]
        replicas = [cluster.add_redis(f"replica{n}", follow) for n in (1, 2)]
        for replica in replicas:
            eventually(partial(follows, replica, primary), "it follows", 30)
        nodes: dict[str, dict[str, object]] = {
            primary.name: {"address": primary.address, "replicas": [replica.address for replica in replicas]},
            other.name: {"address": other.address},
        }
        with redis_proxy(cluster, nodes=nodes, redis={"connect_timeout": "500ms"}) as proxy:
            yield Parts(cluster, proxy, replicas)


class Counting:
    """A client that increments a key as fast as it can. counted: increments that were acknowledged."""

    def __init__(self, proxy: RedisProxy, key: str) -> None:
        self.counted = self.failed = 0
        self._proxy = proxy
        self._key = key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Counting:
        self._thread.start()
        eventually(lambda: self.counted > 20, "it counts")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._proxy.connect(protocol=2) as client:
            while not self._stop.wait(0.001):
                try:
                    client.incr(self._key)
                    self.counted += 1
                except redis.ResponseError:
                    self.failed += 1


def value(server: RedisNode | RedisProxy, key: str) -> int:
    with server.connect() as client:
        return int(client.get(key) or 0)


def key_of(parts: Parts) -> str:
    """A key of the first node."""
    with parts.proxy.connect() as client:
        key = f"{{{keys_on(parts.cluster, client)[parts.node]}}}count"
        client.set(key, 0)
    return key


def test_a_primary_that_lives_gives_over_without_a_loss(parts: Parts) -> None:
    key = key_of(parts)
    with Counting(parts.proxy, key) as counting:
        status, said = promote(parts.proxy, parts.node, parts.replica)
        assert status == 0, said
        for line in (
            f"{parts.replica.address} is a primary now",
            f"the former primary {parts.primary.address} is a replica of it now",
            f"the replica {parts.second.address} is a replica of it now",
            "all proxies have followed",
            f'"{parts.primary.address}" → "{parts.replica.address}"',
        ):
            assert line in said, said
        before = counting.counted
        eventually(lambda: counting.counted > before + 20, "it goes on")
    # What failed may have been done: the client was told that this is not known.
    assert counting.counted <= value(parts.replica, key) <= counting.counted + counting.failed
    assert value(parts.proxy, key) == value(parts.replica, key)
    for server in (parts.primary, parts.second):
        eventually(partial(follows, server, parts.replica), "it follows the new one", 30)
    status, said = promote(parts.proxy, parts.node, parts.replica)
    assert status == 0 and "epoch 3" in said, "again is no harm: " + said
    # What starts with the old file goes by the store.
    config = parts.proxy.config.read_text()
    assert parts.primary.address in config
    parts.proxy.process.stop()
    parts.proxy.process.start()
    with parts.proxy.connect() as client:
        client.incr(key)
    assert value(parts.replica, key) == value(parts.proxy, key)
    status, said = shardctl(parts.proxy.config, "topology")
    assert f"{parts.node} was promoted: it is at {parts.replica.address}" in said, said


def test_a_primary_that_is_dead(parts: Parts) -> None:
    key = key_of(parts)
    with Counting(parts.proxy, key) as counting:
        with parts.primary.connect() as direct:
            assert direct.wait(2, 5000) == 2
            replicated = counting.counted
        parts.primary.kill()
        status, said = promote(parts.proxy, parts.node, parts.replica)
        assert status == 0, said
        assert "does not answer" in said and "lost its primary" in said
        before = counting.counted
        eventually(lambda: counting.counted > before + 20, "it goes on")
    assert replicated <= value(parts.replica, key) and counting.failed > 0
    parts.primary.restart()  # with nothing, and nobody asks it
    assert value(parts.proxy, key) == value(parts.replica, key) and value(parts.primary, key) == 0


def test_keys_of_a_promoted_node_can_be_moved(parts: Parts) -> None:
    key = key_of(parts)
    with parts.proxy.connect() as client:
        client.set(key, 5)
    parts.primary.kill()
    assert promote(parts.proxy, parts.node, parts.replica)[0] == 0
    config = parts.proxy.config
    # Moves are refused while replicas are named that are read; here nobody reads them.
    status, said = shardctl(config, "rebalance", "redis", "run", "--weights", f"{parts.other.name}=1")
    assert status == 0, said
    assert value(parts.proxy, key) == value(parts.other, key) == 5 and value(parts.replica, key) == 0


def test_of_two_replicas_the_one_that_has_more(parts: Parts) -> None:
    key = key_of(parts)
    with parts.second.connect() as direct:
        direct.config_set("masterauth", "word")
    os.kill(parts.replica.pid, signal.SIGSTOP)
    try:
        with parts.proxy.connect() as client, parts.primary.connect() as direct:
            client.set(key, 1)  # the proxy's connections are there
            direct.config_set("requirepass", "word")  # so that the stopped one cannot come back
            direct.client_kill_filter(_type="replica")
            eventually(lambda: follows(parts.second, parts.primary), "the second is back", 30)
            client.set(key, 7)
            assert direct.wait(1, 5000) == 1
        parts.primary.kill()
    finally:
        os.kill(parts.replica.pid, signal.SIGCONT)
    eventually(lambda: not follows(parts.replica, parts.primary), "it knows that the primary is gone")
    status, said = promote(parts.proxy, parts.node, parts.replica)
    assert status == 1 and f"the replica {parts.second.address} has" in said and "--force" in said, said
    assert not is_primary(parts.replica)
    status, said = promote(parts.proxy, parts.node, parts.second)
    assert status == 0, said
    assert value(parts.proxy, key) == 7


def test_a_replica_that_lags_behind_a_primary_that_lives(parts: Parts) -> None:
    asyncio.run(a_replica_lags(parts))


async def a_replica_lags(parts: Parts) -> None:
    key = key_of(parts)
    async with Relay(("127.0.0.1", parts.primary.port)) as relay:
        follow = ["--replicaof", "127.0.0.1", relay.address.partition(":")[2]]
        far = await asyncio.to_thread(parts.cluster.add_redis, "far", follow)

        def has(number: int) -> None:
            eventually(lambda: value(far, key) == number, "the replica has it", 30)

        def set_to(number: int) -> None:
            with parts.proxy.connect() as client:
                client.set(key, number)

        await asyncio.to_thread(set_to, 1)
        await asyncio.to_thread(has, 1)
        relay.mode = "mute"
        await asyncio.to_thread(set_to, 2)
        status, said = await asyncio.to_thread(promote, parts.proxy, parts.node, far)
        assert status == 1 and "bytes behind" in said and "nothing was changed" in said, said
        assert not is_primary(far) and is_primary(parts.primary)
        begun = time.monotonic()
        await asyncio.to_thread(set_to, 3)
        assert time.monotonic() - begun < PAUSE / 2000, "the primary takes writes again"
        relay.mode = "pass"
        relay.cut()
        await asyncio.to_thread(has, 3)
        status, said = await asyncio.to_thread(promote, parts.proxy, parts.node, far)
        assert status == 0, said
        assert await asyncio.to_thread(value, parts.proxy, key) == 3 == value(far, key)


def test_what_is_written_just_before_the_replica_takes_over(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(a_write_comes_last(parts, monkeypatch))


async def a_write_comes_last(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica has all, and gets no more: what comes now must not be acknowledged by the former primary."""
    key = key_of(parts)
    config = load(parts.proxy.config, proxy_environment())
    store = await open_store(config)
    ask = NodeControl.ask
    writing: list[asyncio.Task[None]] = []
    acknowledged: list[int] = []

    async def asked(self: NodeControl, words: Sequence[bytes]) -> Any:
        if words == [b"REPLICAOF", b"NO", b"ONE"]:
            relay.mode = "mute"
            writing.append(asyncio.create_task(asyncio.to_thread(increment)))
            arrived = partial(eventually, lambda: writing[0].done() or waiting(parts.primary), "the write is there")
            await asyncio.to_thread(arrived)
        return await ask(self, words)

    def increment() -> None:
        with parts.proxy.connect() as client, contextlib.suppress(redis.ReadOnlyError):  # which says: not done
            acknowledged.append(client.incr(key))

    monkeypatch.setattr(NodeControl, "ask", asked)
    try:
        async with Relay(("127.0.0.1", parts.primary.port)) as relay:
            follow = ["--replicaof", "127.0.0.1", relay.address.partition(":")[2]]
            far = await asyncio.to_thread(parts.cluster.add_redis, "far", follow)
            await asyncio.to_thread(increment)
            await asyncio.to_thread(eventually, lambda: value(far, key) == 1, "the replica has it", 30)
            to = Address("127.0.0.1", far.port)
            await Promotion(config, store, parts.node, to, False, lambda _: None).run()
            [last] = writing
            await last
            assert await asyncio.to_thread(value, parts.proxy, key) == len(acknowledged) == value(far, key)
    finally:
        await store.close()


def waiting(server: RedisNode) -> bool:
    """Whether a command waits there for the end of a pause."""
    with server.connect(decode_responses=True) as direct:
        return any("b" in client["flags"] for client in direct.client_list())


def is_primary(server: RedisNode) -> bool:
    with server.connect(decode_responses=True) as direct:
        return bool(direct.info("replication")["role"] == "master")


def test_a_primary_that_hangs_needs_force(parts: Parts) -> None:
    key = key_of(parts)
    os.kill(parts.primary.pid, signal.SIGSTOP)
    try:
        status, said = promote(parts.proxy, parts.node, parts.replica)
        assert status == 1 and "that server lives" in said and "nothing was changed" in said, said
        assert not is_primary(parts.replica)
        status, said = promote(parts.proxy, parts.node, parts.replica, "--force")
        assert status == 0 and "forced, though" in said, said
        with parts.proxy.connect() as client:
            client.set(key, 3)
    finally:
        os.kill(parts.primary.pid, signal.SIGCONT)
    assert value(parts.replica, key) == 3


def test_servers_that_are_no_replica_of_it(parts: Parts) -> None:
    status, said = promote(parts.proxy, parts.node, parts.other)
    assert status == 1 and "is a primary of its own" in said, said
    status, said = promote(parts.proxy, parts.other.name, parts.replica)
    assert status == 1 and f"is no replica of {parts.other.name}" in said, said
    parts.second.kill()
    status, said = promote(parts.proxy, parts.node, parts.second)
    assert status == 1 and "does not answer" in said, said
    assert promote(parts.proxy, "nosuch", parts.replica)[0] == 2
    assert is_primary(parts.primary) and not is_primary(parts.replica)


def test_not_where_others_decide(parts: Parts) -> None:
    config = load(parts.proxy.config, proxy_environment())
    assert refusal(config, parts.node) == ""
    assert config.redis is not None
    watched = config.redis.model_copy(update={"sentinels": (Address("10.0.0.8", 26379),)})
    assert f"SENTINEL FAILOVER {parts.node}" in refusal(config.model_copy(update={"redis": watched}), parts.node)
    rows = CachedRowsSettings(key="users:{uid}", table="main.users")
    cache = CacheTableSettings(rows={"users": rows})
    assert "newest invalidations" in refusal(config.model_copy(update={"cache": cache}), parts.node)
    assert "no [redis]" in refusal(config.model_copy(update={"redis": None}), parts.node)


def test_with_ketama_proxies_follow_too() -> None:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=1) as cluster:
        [primary] = cluster.redis
        replica = cluster.add_redis("replica", ["--replicaof", "127.0.0.1", str(primary.port)])
        eventually(lambda: follows(replica, primary), "it follows", 30)
        nodes = {primary.name: {"address": primary.address, "ketama_name": "one"}}
        with redis_proxy(cluster, nodes=nodes, redis={"placement": "ketama"}) as proxy, proxy.connect() as client:
            client.set("key", "before")
            status, said = promote(proxy, primary.name, replica)
            assert status == 0 and "all proxies have followed" in said, said
            assert client.get("key") == b"before" and client.set("key", "after")
        assert is_primary(replica)
        with replica.connect() as direct:
            assert direct.get("key") == b"after"
