"""What was asked of a replica before keys began to move is not answered from what it has when they are gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.protocol.redis.encode import command
from tests.proxy import eventually
from tests.redis.moves.test_moves import shardctl
from tests.redis.proxied import RedisProxy, redis_proxy
from tests.redis.test_replicas import USERS, Line

KEYS = [f"key:{n}" for n in range(200)]


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    """From the proxy to the replicas."""
    return []


@pytest.fixture(scope="module")
def proxy(lines: list[Line]) -> Iterator[RedisProxy]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        nodes: dict[str, dict[str, object]] = {}
        for node in cluster.redis:
            with node.connect() as direct:
                direct.config_set("repl-diskless-sync-delay", 0)
            replica = cluster.add_redis(f"{node.name}-replica", ["--replicaof", node.host, str(node.port)])
            lines.append(Line(replica))
            nodes[node.name] = {"address": node.address, "replicas": [f"127.0.0.1:{lines[-1].port}"]}
        redis = {"timeout": "100s", "max_replica_lag": "1500ms"}
        with redis_proxy(cluster, users=USERS, nodes=nodes, redis=redis) as running:
            yield running
        for line in lines:
            line.close()


def test_a_read_that_a_replica_got_before_keys_moved(proxy: RedisProxy, lines: list[Line]) -> None:
    with proxy.connect(username="writer", password="p") as writer:
        writer.mset({key: key for key in KEYS})

        def reads() -> float:
            return proxy.metric("shardproxy_redis_replica_reads_total")

        with proxy.raw() as reader:
            file = reader.makefile("rb")
            reader.sendall(command([b"AUTH", b"reader", b"p"]))
            assert file.readline() == b"+OK\r\n"

            def go_to_replicas() -> bool:
                before = reads()
                reader.sendall(b"".join(command([b"GET", key.encode()]) for key in KEYS))
                got = [_reply(file) for _ in KEYS]
                return got == [key.encode() for key in KEYS] and reads() == before + len(KEYS)

            eventually(go_to_replicas, "all reads go to the replicas", 30)
            before = reads()
            for line in lines:
                line.hold()
            try:
                reader.sendall(b"".join(command([b"GET", key.encode()]) for key in KEYS))
                eventually(lambda: reads() == before + len(KEYS), "they are on their way")
                shardctl(proxy, "run", "--weights", "redis1=1,redis2=3")
            finally:
                for line in lines:
                    line.let_go()
            got = [_reply(file) for _ in KEYS]
        assert not [key for key, value in zip(KEYS, got, strict=True) if value not in (key.encode(), ERROR)]
        assert writer.mget(KEYS) == [key.encode() for key in KEYS]


ERROR = b"-"


def _reply(file: Any) -> bytes | None:
    """A bulk string, None for none; ERROR."""
    line: bytes = file.readline()
    if line.startswith(b"-"):
        return ERROR
    assert line.startswith(b"$"), line
    if line == b"$-1\r\n":
        return None
    data: bytes = file.read(int(line[1:]) + 2)
    return data[:-2]
