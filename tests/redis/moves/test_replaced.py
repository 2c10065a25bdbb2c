"""Keys move while replicas are read, and while replicas become nodes: what was acknowledged and replicated stays."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from shardproxy.errors import ReshardError
from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from shardproxy.protocol.redis.encode import command
from shardproxy.reshard import redis_nodes
from shardproxy.reshard.redis_mover import RedisMover, Wishes, change_map, read_redis_map
from shardproxy.reshard.redis_nodes import NodeControl, asked_sentinels
from shardproxy.store.interface import MapStore
from shardproxy.topology import redis_map
from tests.proxy import eventually
from tests.redis.moves.test_mover import from_a_to_b
from tests.redis.moves.test_moves import shardctl, started, status, suspend, until_moving
from tests.redis.proxied import RedisProxy, redis_proxy
from tests.redis.test_replicas import Line

KEYS = {f"key:{n}": b"v%d" % n for n in range(300)}
BOTH, SECOND = "redis1=1,redis2=1", "redis2=1"


def add_replica(cluster: LocalCluster, name: str, primary: RedisNode, port: int = 0) -> RedisNode:
    """A replica of a node, in step with it. port: by which it reaches the node, 0: the node's own."""
    with primary.connect() as direct:
        direct.config_set("repl-diskless-sync-delay", 0)
    replica = cluster.add_redis(name, ["--replicaof", "127.0.0.1", str(port or primary.port)])

    def in_step() -> bool:
        with replica.connect(decode_responses=True) as direct:
            return bool(direct.info("replication").get("master_link_status") == "up")

    eventually(in_step, "it follows", 30)

    def counted() -> bool:
        with primary.connect(decode_responses=True) as direct:
            return "online" in str(direct.info("replication").get("slave0"))

    eventually(counted, "the node knows", 30)
    return replica


def there(node: RedisNode) -> dict[str, bytes]:
    with node.connect() as client:
        return {key.decode(): client.get(key) for key in client.scan_iter()}


# ── the mover alone ──


class Followed:
    """Two nodes, the second one with a replica that gets its writes through a line, and may become the node."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.source, self.target = cluster.redis
        self.line = Line(self.target)
        self.replica = add_replica(cluster, "replica", self.target, self.line.port)
        self.node = self.target

    def promote(self) -> None:
        """The target dies, and its replica is the node; it has a replica of its own."""
        self.target.kill()
        with self.replica.connect() as direct:
            direct.replicaof("no", "one")
        add_replica(self.cluster, "other", self.replica)
        self.node = self.replica

    async def where(self) -> tuple[str, int]:
        return self.node.host, self.node.port


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    monkeypatch.setattr(redis_nodes, "_WAIT", 0.5)
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        found = Followed(cluster)
        yield found
        found.line.close()


@asynccontextmanager
async def moving(folder: Path, parts: Followed) -> AsyncIterator[tuple[MapStore, dict[str, NodeControl]]]:
    """A store in which a has all keys, and shall give them to b, and the nodes."""
    controls = {
        "a": NodeControl("a", parts.source.host, parts.source.port, "", None, 10),
        "b": NodeControl("b", "", 0, "", None, 10, where=parts.where),
    }
    with parts.source.connect() as client:
        client.mset(KEYS)
    async with from_a_to_b(folder, controls) as store:
        yield store, controls


@pytest.mark.parametrize("back", [False, True])
def test_a_key_is_not_dropped_before_the_replica_has_it(
    tmp_path: Path, followed: Followed, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    monkeypatch.setattr("shardproxy.reshard.redis_mover.FAILOVER", 1.0)

    async def main() -> None:
        async with moving(tmp_path, followed) as (store, controls):

            def step(where: str) -> None:
                if where == "taken":
                    followed.line.hold()

            wishes = Wishes(buckets=4096)
            with pytest.raises(ReshardError, match="0 of 1 replicas"):
                await RedisMover(store, controls, wishes, step=step).run()
            assert there(followed.source) == KEYS
            assert there(followed.target)  # some had come
            if back:
                await change_map(store, redis_map.turn_back)
                with pytest.raises(ReshardError, match="0 of 1 replicas"):
                    await RedisMover(store, controls, wishes).run()
                assert there(followed.source) == KEYS
            followed.promote()
            assert not there(followed.replica)
            await RedisMover(store, controls, wishes).run()
            full, empty = followed.replica, followed.source
            if back:
                full, empty = empty, full
            assert there(full) == KEYS and there(empty) == {}
            assert (await read_redis_map(store))[0].wanted is None

    asyncio.run(main())


def test_a_node_that_may_be_replaced_must_have_a_replica(tmp_path: Path, followed: Followed) -> None:
    followed.replica.kill()

    def alone() -> bool:
        with followed.target.connect() as direct:
            return bool(direct.info("replication")["connected_slaves"] == 0)

    eventually(alone, "the node knows")

    async def main() -> None:
        async with moving(tmp_path, followed) as (store, controls):
            with pytest.raises(ReshardError, match="node b has no replica that is online"):
                await RedisMover(store, controls, Wishes()).run()
            assert there(followed.source) == KEYS

    asyncio.run(main())


def test_sentinels_of_whom_few_answer_lead_nowhere() -> None:
    nobody = [("127.0.0.1", 1), ("127.0.0.1", 2)]

    async def main() -> None:
        with pytest.raises(ReshardError, match="0 of 2 sentinels say where main is"):
            await asked_sentinels(nobody, "main", 1.0, None)()

    asyncio.run(main())


# ── with proxies ──


@contextmanager
def reading(proxy: RedisProxy, **login: str) -> Iterator[list[str]]:
    """A client that reads all keys again and again; what was wrong. Errors are not."""
    wrong: list[str] = []
    passes = [0]
    stop = threading.Event()

    def work() -> None:
        client: Any = None
        while not stop.is_set():
            try:
                client = client or proxy.connect(**login)
                for key, value in KEYS.items():
                    found = client.get(key)
                    if found != value:
                        wrong.append(f"{key} is {found}")
                passes[0] += 1
            except redis.ResponseError:
                stop.wait(0.01)
            except redis.RedisError:
                client = None
                stop.wait(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: passes[0] > 1, "it reads", 60)
        yield wrong
        goal = passes[0] + 2
        eventually(lambda: passes[0] > goal, "it reads", 60)
    finally:
        stop.set()
        thread.join(60)


def test_a_replica_becomes_the_node_while_keys_move() -> None:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        replicas = [add_replica(cluster, f"{node.name}-replica", node) for node in cluster.redis]
        sentinels = watched(cluster, list(cluster.redis))
        with redis_proxy(cluster, redis={"sentinels": sentinels, "connect_timeout": "500ms"}) as proxy:
            with proxy.connect() as client:
                eventually(lambda: wrote(client), "it serves", 30)
            with reading(proxy) as wrong:
                mover = started(proxy, "run", "--weights", SECOND, "--throttle", "50", "--at-once", "4096")
                until_moving(proxy)
                eventually(lambda: len(there(cluster.redis[0])) < 100, "some have come", 30)
                cluster.redis[1].kill()
                eventually(lambda: is_primary(replicas[1]), "the replica is the node", 30)
                add_replica(cluster, "other", replicas[1])
                assert mover.wait(60) == 0
            assert not wrong
            assert there(cluster.redis[0]) == {} and there(replicas[1]) == KEYS
            shardctl(proxy, "verify")
            # And the source too: what has gone does not come back.
            cluster.redis[0].kill()
            eventually(lambda: is_primary(replicas[0]), "the replica is the node", 30)
            assert there(replicas[0]) == {}
            assert status(proxy)["move"] is None


def watched(cluster: LocalCluster, primaries: list[RedisNode]) -> list[str]:
    """Addresses of sentinels that watch nodes, each with a replica, by the nodes' names."""
    addresses = cluster.add_sentinels(primaries[0].name, primaries[0])
    asked = [redis.Redis(port=int(address.partition(":")[2]), decode_responses=True) for address in addresses]
    for primary in primaries[1:]:
        for sentinel in asked:
            sentinel.sentinel_monitor(primary.name, primary.host, primary.port, 2)
            sentinel.sentinel_set(primary.name, "down-after-milliseconds", 500)
            sentinel.sentinel_set(primary.name, "failover-timeout", 2000)

    def know() -> bool:
        told: list[Any] = [sentinel.sentinel_master(primary.name) for sentinel in asked for primary in primaries]
        return all(each["num-other-sentinels"] == 2 and each["num-slaves"] == 1 for each in told)

    eventually(know, "the sentinels know of each other", 30)
    for sentinel in asked:
        sentinel.close()
    return addresses


def is_primary(node: RedisNode) -> bool:
    with node.connect() as direct:
        return bool(direct.info("replication")["role"] == "master")


def wrote(client: Any) -> bool:
    try:
        return bool(client.mset(KEYS))
    except redis.ResponseError:
        return False


def test_wait_asks_the_new_node_too() -> None:
    """Its replica does not get the write to a key that was brought there."""
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        source, target = cluster.redis
        line = Line(target)
        add_replica(cluster, "first", source)
        add_replica(cluster, "second", target, line.port)
        with redis_proxy(cluster) as proxy, proxy.connect() as client:
            client.mset(KEYS)
            mover = started(proxy, "run", "--weights", SECOND, "--throttle", "1", "--at-once", "4096")
            until_moving(proxy)
            name = next(iter(there(source)))
            assert client.append(name, "!") and name in there(target) and name not in there(source)
            assert client.wait(1, 10_000) == 1
            line.hold()
            assert client.append(name, "?")
            assert client.wait(1, 200) == 0
            line.let_go()
            assert client.wait(1, 10_000) == 1
            mover.kill()
            mover.wait()
        line.close()


READERS: dict[str, dict[str, object]] = {
    "default": {"password": "p"},
    "reader": {"password": "p", "reads": "replica", "read_your_writes": False},
}
LAG = {"max_replica_lag": "60s"}  # replicas stay fit for who stands still


@pytest.fixture
def with_readers() -> Iterator[tuple[LocalCluster, list[RedisNode], RedisProxy, RedisProxy]]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        replicas = [add_replica(cluster, f"{node.name}-replica", node) for node in cluster.redis]
        nodes: dict[str, dict[str, object]] = {
            node.name: {"address": node.address, "replicas": [replica.address]}
            for node, replica in zip(cluster.redis, replicas, strict=True)
        }
        with (
            redis_proxy(cluster, "one", users=READERS, nodes=nodes, redis=LAG, store="both") as one,
            redis_proxy(cluster, "two", users=READERS, nodes=nodes, redis=LAG, store="both") as two,
        ):
            yield cluster, replicas, one, two


Readers = tuple[LocalCluster, list[RedisNode], RedisProxy, RedisProxy]


def until_read(proxy: RedisProxy, replica: str) -> None:
    """Wait until the replica gets reads."""

    def read() -> bool:
        before = proxy.labelled("shardproxy_redis_replica_reads_total", node=replica)
        with proxy.connect(username="reader", password="p") as client:
            client.mget(list(KEYS))
        return proxy.labelled("shardproxy_redis_replica_reads_total", node=replica) > before

    eventually(read, "it is read", 30)


def test_who_reads_from_replicas_finds_keys_that_move(with_readers: Readers) -> None:
    _, _, one, two = with_readers
    with one.connect(password="p") as client:
        assert client.mset(KEYS)
    for name in ("redis1/replica1", "redis2/replica1"):
        until_read(one, name)
    with reading(one, username="reader", password="p") as wrong, reading(two, username="reader", password="p") as other:
        shardctl(one, "run", "--weights", SECOND, "--throttle", "400", "--at-once", "1000")
        shardctl(two, "run", "--weights", BOTH, "--throttle", "400", "--at-once", "1000")
    assert not wrong and not other
    until_read(one, "redis1/replica1")


def test_what_has_come_is_not_read_from_a_replica_that_lacks_it() -> None:
    """Neither while keys move nor afterwards. No move waits for this replica: it had not begun to follow in time."""
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        source, target = cluster.redis
        line = Line(target)
        replica = cluster.add_redis("late", [])
        nodes: dict[str, dict[str, object]] = {
            source.name: {"address": source.address},
            target.name: {"address": target.address, "replicas": [replica.address]},
        }
        with (
            redis_proxy(cluster, "lacks", users=READERS, nodes=nodes, redis=LAG) as proxy,
            proxy.connect(password="p") as writer,
            proxy.connect(username="reader", password="p") as reader,
        ):
            writer.mset(KEYS)
            stay = list(there(target))
            with target.connect() as direct:
                direct.config_set("repl-diskless-sync-delay", 0)
            mover = started(proxy, "run", "--weights", SECOND, "--throttle", "10", "--at-once", "4096")
            until_moving(proxy)
            with replica.connect() as direct:
                direct.replicaof("127.0.0.1", line.port)

            def is_read() -> bool:
                before = proxy.metric("shardproxy_redis_replica_reads_total")
                assert reader.mget(stay) == [KEYS[key] for key in stay]
                return proxy.metric("shardproxy_redis_replica_reads_total") > before

            eventually(is_read, "the replica is read", 30)
            line.hold()
            assert is_read()  # it is within max_replica_lag
            due = list(there(source))
            assert len(due) > 20  # else this test shows nothing
            for key in due:
                assert reader.get(key) == KEYS[key]
            assert mover.wait(60) == 0
            shardctl(proxy, "verify")  # takes longer than the proxy needs to know it
            for key in due:
                assert reader.get(key) == KEYS[key]
            line.let_go()
            eventually(is_read, "the replica is read again", 30)
        line.close()


def test_a_proxy_that_stood_still_reads_no_more_from_the_old_replica(with_readers: Readers) -> None:
    _, replicas, one, two = with_readers
    with one.connect(password="p") as client:
        assert client.mset(KEYS)
    until_read(two, "redis1/replica1")
    old = list(there(replicas[0]))
    with two.raw() as stopped:
        stopped.sendall(command([b"AUTH", b"reader", b"p"]) + command([b"GET", old[0].encode()]))
        stopped.recv(1 << 16)
        supervisor, worker = two.process.pid, two.worker_pid()
        suspend(two)
        os.kill(worker, signal.SIGSTOP)
        try:
            stopped.sendall(b"".join(command([b"GET", name.encode()]) for name in old))
            shardctl(one, "run", "--weights", SECOND, "--answer", "0.5", "--at-once", "4096")
            assert not there(replicas[0])
            os.kill(worker, signal.SIGCONT)  # alone, so that nobody ends it
            data = b""
            while data.count(b"\r\n") < len(old):
                more = stopped.recv(1 << 16)
                if not more:
                    break
                data += more
        finally:
            os.kill(worker, signal.SIGCONT)
            os.kill(supervisor, signal.SIGCONT)
        assert data and b"$-1" not in data, data[:200]
