"""Reads from replicas: how old what they give may be, and what a client sees of its own writes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy


class Line:
    """A TCP relay to a node, on which nothing goes through while it is held."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.let_go()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._node.host, self._node.port))
            except OSError:
                return
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()


class Setup:
    """Two nodes with a replica each, which gets the node's writes through a line, and a proxy."""

    def __init__(self, proxy: RedisProxy, lines: list[Line], replicas: list[RedisNode]) -> None:
        self.proxy = proxy
        self.lines = lines
        self.replicas = replicas

    def connect(self, user: str, **options: Any) -> Any:
        return self.proxy.connect(username=user, password="p", **options)

    def reads(self) -> float:
        return self.proxy.metric("shardproxy_redis_replica_reads_total")

    def until_fit(self, client: Any) -> None:
        """Wait until the client's reads go to both replicas."""

        def fit() -> bool:
            before = self.reads()
            client.mget([f"any:{n}" for n in range(50)])
            return self.proxy.metric("shardproxy_redis_replica_reads_total") - before == 2

        eventually(fit, "reads go to the replicas", 30)


USERS: dict[str, dict[str, object]] = {
    "writer": {"password": "p"},
    "reader": {"password": "p", "reads": "replica", "read_your_writes": False},
    "own": {"password": "p", "reads": "replica"},
}


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        lines, replicas = [], []
        nodes: dict[str, dict[str, object]] = {}
        for node in cluster.redis:
            with node.connect() as direct:
                direct.config_set("repl-diskless-sync-delay", 0)
            line = Line(node)
            replica = cluster.add_redis(f"{node.name}-replica", ["--replicaof", "127.0.0.1", str(line.port)])
            lines.append(line)
            replicas.append(replica)
            nodes[node.name] = {"address": node.address, "replicas": [replica.address]}
        with redis_proxy(cluster, users=USERS, nodes=nodes, redis={"max_replica_lag": "1500ms"}) as proxy:
            yield Setup(proxy, lines, replicas)
        for line in lines:
            line.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_reads_go_to_replicas_and_writes_do_not(setup: Setup, protocol: int) -> None:
    with setup.connect("writer") as writer, setup.connect("reader", protocol=protocol) as reader:
        writer.flushall()
        writer.mset({f"k{n}": n for n in range(100)})
        setup.until_fit(reader)
        eventually(
            lambda: reader.mget([f"k{n}" for n in range(100)]) == [b"%d" % n for n in range(100)], "all is there"
        )
        before = setup.reads()
        assert reader.get("k1") == b"1"
        assert reader.ttl("k1") == -1
        assert setup.reads() == before + 2
        assert reader.set("k1", "new") is True  # a replica would refuse it
        assert reader.incr("k2") == 3
        assert reader.dbsize() == 100
        assert setup.reads() == before + 2
        assert writer.get("k1") == b"new"
        assert setup.reads() == before + 2


def test_a_client_sees_its_own_writes(setup: Setup) -> None:
    with setup.connect("own") as client:
        client.flushall()
        setup.until_fit(client)
        before = setup.reads()
        for number in range(2000):
            client.set(f"k{number % 7}", number)
            assert client.get(f"k{number % 7}") == b"%d" % number
        with client.pipeline(transaction=False) as pipe:
            for _ in range(500):
                pipe.incr("n")
                pipe.get("n")
            assert pipe.execute() == [x for n in range(1, 501) for x in (n, b"%d" % n)]
        eventually(lambda: client.get("n") == b"500" and setup.reads() > before, "after a while replicas give it")
        for line in setup.lines:
            line.hold()
        try:
            client.set("n", "held")
            client.ping()  # and not only just after it
            deadline = time.monotonic() + 1.0  # replicas are within max_replica_lag that long
            while time.monotonic() < deadline:
                assert client.get("n") == b"held"
            with client.pipeline() as pipe:
                assert pipe.set("n", "in a transaction").execute() == [True]
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                assert client.get("n") == b"in a transaction"
        finally:
            for line in setup.lines:
                line.let_go()


@contextmanager
def standing_still(setup: Setup, *clients: Any) -> Iterator[None]:
    """The replicas get nothing, have "old" of a key, and these clients read it there."""

    def all_have_it() -> bool:
        return all(client.get("k") == b"old" for client in clients)

    clients[0].set("k", "old")
    for client in clients:
        setup.until_fit(client)
    eventually(all_have_it, "it is there")
    for line in setup.lines:
        line.hold()
    try:
        yield
    finally:
        for line in setup.lines:
            line.let_go()


def test_what_is_read_behind_a_write_in_one_pipeline(setup: Setup) -> None:
    with setup.connect("own") as own, setup.connect("reader") as reader, standing_still(setup, own, reader):
        connection = own.connection  # redis-py's pipelines have another one
        connection.send_packed_command(connection.pack_commands([("SET", "k", "new"), ("GET", "k")]))
        assert [connection.read_response() for _ in range(2)] == [b"OK", b"new"]
        assert reader.get("k") == b"old"  # else the test shows nothing


def test_what_is_read_after_a_transaction_that_was_begun_long_ago(setup: Setup) -> None:
    with setup.connect("own") as own, setup.connect("own") as another, setup.connect("reader") as reader:
        own.set("k", "before")
        own.execute_command("MULTI")
        own.execute_command("SET", "k", "new")
        # Replicas that have what comes after it are new enough for all that it has written so far.
        with standing_still(setup, another, reader):
            assert own.execute_command("EXEC") == [b"OK"]
            assert own.get("k") == b"new"
            assert reader.get("k") == b"old"  # else the test shows nothing


@contextmanager
def an_old_value(setup: Setup, writer: Any, reader: Any) -> Iterator[float]:
    """The replicas stand still, and have "old" of a key that is "new"; when that was written."""
    writer.set("k", "old")
    setup.until_fit(reader)
    eventually(lambda: reader.get("k") == b"old", "it is there")
    for line in setup.lines:
        line.hold()
    try:
        writer.set("k", "new")
        written = time.monotonic()
        assert reader.get("k") == b"old"  # else the test shows nothing
        yield written
    finally:
        for line in setup.lines:
            line.let_go()


def test_what_is_read_while_keys_are_watched_is_as_new_as_they_are(setup: Setup) -> None:
    with (
        setup.connect("writer") as writer,
        setup.connect("reader") as reader,
        an_old_value(setup, writer, reader),
        reader.pipeline() as pipe,
    ):
        pipe.watch("k")
        assert pipe.get("k") == b"new"
        pipe.multi()
        assert pipe.set("k", "newest").execute() == [True]


def test_what_a_replica_gives_is_not_older_than_allowed(setup: Setup) -> None:
    with setup.connect("writer") as writer, setup.connect("reader") as reader:
        with an_old_value(setup, writer, reader) as written:
            while time.monotonic() < written + 1.5:
                assert reader.get("k") in (b"old", b"new")
            assert reader.get("k") == b"new"
            before = setup.reads()
            assert reader.get("k") == b"new"
            assert setup.reads() == before
        setup.until_fit(reader)
        assert reader.get("k") == b"new"


def test_a_replica_that_dies(setup: Setup) -> None:
    with setup.connect("writer") as writer, setup.connect("reader") as reader:
        keys = {f"k{n}": b"%d" % n for n in range(50)}
        writer.mset(keys)
        setup.until_fit(reader)
        for replica in setup.replicas:
            replica.kill()

        def all_there() -> bool:
            try:
                return bool(reader.mget(list(keys)) == list(keys.values()))
            except redis.ResponseError:  # it died with this read
                return False

        eventually(all_there, "the nodes give them")
        before = setup.reads()
        assert all_there()
        assert setup.reads() == before
        for replica in setup.replicas:
            replica.restart()
        setup.until_fit(reader)
        assert all_there()
