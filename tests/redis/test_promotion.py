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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from shardproxy.config import Address, load
from shardproxy.config.redis_models import CachedQueriesSettings, CachedRowsSettings, CacheTableSettings
from shardproxy.local import LocalCluster
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.local.redis_node import RedisNode
from shardproxy.reshard.redis_mover import change_map
from shardproxy.reshard.redis_nodes import NodeControl
from shardproxy.reshard.redis_promotion import PAUSE, Promotion, read_replication, refusal
from shardproxy.store.opening import open_store
from shardproxy.topology.redis_map import want
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
        replicated = counting.counted
        with parts.primary.connect() as direct:
            assert direct.wait(2, 5000) == 2
        parts.primary.kill()
        taken = parts.replica
        status, said = promote(parts.proxy, parts.node, taken)
        if status == 1 and f"Promote {parts.second.address}" in said:
            # The kill came between the two sends of one increment.
            taken = parts.second
            status, said = promote(parts.proxy, parts.node, taken)
        assert status == 0, said
        assert "does not answer" in said and "lost its primary" in said
        before = counting.counted
        eventually(lambda: counting.counted > before + 20, "it goes on")
    assert replicated <= value(taken, key) and counting.failed > 0
    parts.primary.restart()  # with nothing, and nobody asks it
    assert value(parts.proxy, key) == value(taken, key) and value(parts.primary, key) == 0


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
    assert status == 1 and f"Promote {parts.second.address}" in said and "--force" in said, said
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


@pytest.mark.parametrize("moment", ["it has all", "it takes over", "the former one does not obey"])
def test_what_is_written_when_the_replica_gets_no_more(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    asyncio.run(a_write_comes_last(parts, monkeypatch, moment))


async def a_write_comes_last(parts: Parts, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """The replica has all, and gets no more: what comes now must not be acknowledged by the former primary.

    moment: it has all: the primary's writes are paused before one looks. It takes over: the first pause is over, since
    catching up took its time. The former one does not obey: it becomes no replica, and takes no writes all the same.
    """
    key = key_of(parts)
    config = load(parts.proxy.config, proxy_environment())
    store = await open_store(config)
    ask = NodeControl.ask
    writing: list[asyncio.Task[None]] = []
    acknowledged: list[int] = []
    offsets: list[int] = []  # that the two have told in turn
    over = 0.0  # when the first pause is

    async def asked(self: NodeControl, words: Sequence[bytes]) -> Any:
        nonlocal over
        if moment == "it takes over" and words[1] == b"PAUSE" and not over:
            words, over = [*words[:2], b"200", *words[3:]], time.monotonic() + 0.2
        if moment == "it takes over" and words == [b"REPLICAOF", b"NO", b"ONE"]:
            await write()
        if moment == "the former one does not obey" and words[:2] == [b"REPLICAOF", b"127.0.0.1"] and not writing:
            await asyncio.to_thread(forbid, parts.primary)
            await write()
        answer = await ask(self, words)
        if moment == "it has all" and words[0] == b"INFO":
            offsets.append(read_replication(answer).offset)
            # The first two are told before the pause, of the replica and of the primary.
            if len(offsets) > 2 and len(offsets) % 2 == 0 and offsets[-1] >= offsets[-2] and not writing:
                await write()
        return answer

    async def write() -> None:
        relay.mode = "mute"
        writing.append(asyncio.create_task(asyncio.to_thread(increment)))

        def arrived() -> bool:
            return writing[0].done() or (time.monotonic() > over and waiting(parts.primary))

        await asyncio.to_thread(eventually, arrived, "the write is there")

    def increment() -> None:
        with parts.proxy.connect() as client, contextlib.suppress(redis.ResponseError):
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


def forbid(server: RedisNode) -> None:
    """Let it obey no REPLICAOF any more."""
    with server.connect() as direct:
        direct.acl_setuser("default", enabled=True, commands=["-replicaof"])


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


def test_there_and_back(parts: Parts) -> None:
    """The second promotion goes by the store's address of the node, not by the file's."""
    key = key_of(parts)
    with Counting(parts.proxy, key) as counting:
        for replica, before in ((parts.replica, parts.primary), (parts.primary, parts.replica)):
            status, said = promote(parts.proxy, parts.node, replica)
            assert status == 0 and f"the former primary {before.address} is a replica of it now" in said, said
            eventually(partial(follows, before, replica), "it follows the new one", 30)
        counted = counting.counted
        eventually(lambda: counting.counted > counted + 20, "it goes on")
    assert counting.counted <= value(parts.primary, key) <= counting.counted + counting.failed


def test_a_proxy_that_is_late_is_waited_for_and_named(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = parts.proxy.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    try:
        said: list[str] = []
        with monkeypatch.context() as changed:
            changed.setattr("shardproxy.reshard.redis_promotion.FOLLOW", 0.2)
            asyncio.run(promoted_to(parts, parts.replica, said.append))
        assert any("has not followed yet" in line for line in said) and "all proxies have followed" not in said, said
        eventually(partial(follows, parts.primary, parts.replica), "it follows the new one", 30)
        late = Late(worker)
        asyncio.run(promoted_to(parts, parts.primary, late))
        assert "all proxies have followed" in late.lines, late.lines
    finally:
        os.kill(worker, signal.SIGCONT)


class Late:
    """Goes on with a worker that stands still when the map says that the node has moved, a moment later."""

    def __init__(self, worker: int) -> None:
        self.lines: list[str] = []
        self._worker = worker

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("the map store says"):
            asyncio.get_running_loop().call_later(0.3, os.kill, self._worker, signal.SIGCONT)


async def promoted_to(parts: Parts, replica: RedisNode, say: Callable[[str], None]) -> None:
    config = load(parts.proxy.config, proxy_environment())
    store = await open_store(config)
    try:
        await Promotion(config, store, parts.node, Address(replica.host, replica.port), False, say).run()
    finally:
        await store.close()


def refused(parts: Parts, replica: RedisNode, why: str, *options: str) -> None:
    """It is not done, with this reason."""
    status, said = promote(parts.proxy, parts.node, replica, *options)
    assert status == 1 and why in said, said


def test_not_while_keys_are_moved(parts: Parts) -> None:
    asyncio.run(keys_are_to_be_moved(parts))
    refused(parts, parts.replica, "Redis keys are being moved")
    assert is_primary(parts.primary) and not is_primary(parts.replica)


async def keys_are_to_be_moved(parts: Parts) -> None:
    config = load(parts.proxy.config, proxy_environment())
    store = await open_store(config)
    try:
        await change_map(store, lambda now: want(now, [parts.other.name] * len(now.map.owners)))
    finally:
        await store.close()


def test_a_replica_that_gets_its_first_copy_is_never_taken(parts: Parts) -> None:
    with parts.primary.connect() as direct:
        direct.config_set("rdb-key-save-delay", 1_000_000)  # microseconds
        direct.mset({f"k{n}": n for n in range(100)})
    new = parts.cluster.add_redis("new", ["--replicaof", "127.0.0.1", str(parts.primary.port)])
    with new.connect() as direct:
        eventually(lambda: direct.info("replication")["master_sync_in_progress"] == 1, "it gets its copy", 30)
    os.kill(parts.primary.pid, signal.SIGSTOP)
    try:
        refused(parts, new, "it has a part of the keys only", "--force")
    finally:
        os.kill(parts.primary.pid, signal.SIGCONT)
    assert not is_primary(new)


def test_a_replica_that_was_restarted_without_its_primary(parts: Parts) -> None:
    parts.primary.kill()
    parts.second.kill()  # it cannot tell that it has more
    parts.replica.restart()  # with what its first copy had
    refused(parts, parts.replica, "has had no connection")
    assert not is_primary(parts.replica)


def test_a_replica_without_a_link_stops_no_writes(parts: Parts) -> None:
    with parts.replica.connect() as replica, parts.primary.connect(decode_responses=True) as primary:
        replica.config_set("masterauth", "wrong")
        primary.config_set("requirepass", "word")
        primary.client_kill_filter(_type="replica")
        eventually(lambda: replica.info("replication")["master_link_status"] == "down", "it has lost its link")
        primary.config_set("requirepass", "")
        primary.incr("more")
        refused(parts, parts.replica, f"has no connection to {parts.primary.address}")
        assert "cmdstat_client|pause" not in primary.info("commandstats")
    assert is_primary(parts.primary) and not is_primary(parts.replica)


def send_no_pings(server: RedisNode) -> None:
    """A ping, each 10 s, counts like a write: a server that alone has it needs a whole copy of who was its replica."""
    with server.connect() as direct:
        direct.config_set("repl-ping-replica-period", 3600)


def test_a_promotion_that_was_interrupted_goes_on_with_its_replica_only(parts: Parts) -> None:
    """The former primary is a replica of the new one; what the third one lacks nobody would bring."""
    key = key_of(parts)
    send_no_pings(parts.primary)
    with parts.replica.connect() as direct:
        direct.replicaof("no", "one")
    with parts.primary.connect() as direct:
        direct.replicaof("127.0.0.1", parts.replica.port)
    eventually(partial(follows, parts.primary, parts.replica), "it follows", 30)
    refused(parts, parts.second, f"is itself a replica of {parts.replica.address}", "--force")
    assert not is_primary(parts.second)
    status, said = promote(parts.proxy, parts.node, parts.replica)
    assert status == 0, said
    with parts.proxy.connect() as client:
        client.set(key, 8)
    assert value(parts.replica, key) == 8


def test_a_replica_of_another_node(parts: Parts) -> None:
    foreign = parts.cluster.add_redis("foreign", ["--replicaof", "127.0.0.1", str(parts.other.port)])
    eventually(partial(follows, foreign, parts.other), "it follows", 30)
    parts.primary.kill()
    parts.other.kill()
    eventually(lambda: not follows(foreign, parts.other), "it knows that its primary is gone")
    refused(parts, foreign, f"is a replica of {parts.other.address}, and the node is at {parts.primary.address}")
    assert not is_primary(foreign)


def test_a_primary_of_which_is_not_known_whose_replica_it_was(parts: Parts) -> None:
    parts.primary.kill()
    refused(parts, parts.other, "is a primary already, and whether it was")
    status, said = promote(parts.proxy, parts.node, parts.replica)
    assert status == 0, "the map is as it was: " + said


def test_a_node_that_became_a_replica_of_another_server(parts: Parts) -> None:
    assert promote(parts.proxy, parts.node, parts.replica)[0] == 0
    eventually(partial(follows, parts.second, parts.replica), "it follows the new one", 30)
    send_no_pings(parts.replica)
    with parts.second.connect() as direct:
        direct.replicaof("no", "one")
        direct.set("newer", 1)
    with parts.replica.connect() as direct:
        direct.replicaof("127.0.0.1", parts.second.port)
    refused(parts, parts.replica, f"is {parts.node}'s address already, and a replica of {parts.second.address}")
    assert not is_primary(parts.replica)


def test_a_server_that_went_its_own_way_keeps_what_it_has(parts: Parts) -> None:
    with parts.second.connect() as direct:
        direct.replicaof("no", "one")
        direct.set("its own", 1)
    status, said = promote(parts.proxy, parts.node, parts.replica)
    assert status == 0 and parts.second.address not in said, said
    assert is_primary(parts.second) and value(parts.second, "its own") == 1


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
    queries = CachedQueriesSettings(tables=("main.users",))
    for cache in (CacheTableSettings(rows={"users": rows}), CacheTableSettings(queries=queries)):
        assert "newest invalidations" in refusal(config.model_copy(update={"cache": cache}), parts.node)
    assert refusal(config.model_copy(update={"cache": CacheTableSettings()}), parts.node) == ""
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
