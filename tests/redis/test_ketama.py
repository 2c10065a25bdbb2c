"""Our ketama places each key where a real twemproxy does: asked where the key has landed, and through both proxies."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.ports import free_port
from shardproxy.local.redis_node import RedisNode
from tests.ketama import KEYS, exchange, ketama_ring, run_nutcracker
from tests.redis.proxied import redis_proxy

# By weights, hash tag, and whether the servers have names of their own.
_POOLS: list[tuple[tuple[int, ...], bytes, bool]] = [
    ((1, 1, 1, 1), b"", False),
    ((1, 2, 3, 4), b"{}", False),
    ((7, 1, 1, 100), b"{}", True),
    ((3, 5, 11, 13), b"[]", True),
    ((33, 33, 33, 1), b"$$", True),
    ((2, 9), b"{}", True),
    ((5,), b"", True),
]


def weights_of(pool: tuple[tuple[int, ...], bytes, bool], nodes: list[RedisNode]) -> Mapping[str, int]:
    weights, _, named = pool
    return {
        f"cache-{n}" if named else node.address: weight
        for n, (node, weight) in enumerate(zip(nodes, weights, strict=False))
    }


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisNode]]:
    with LocalCluster("mariadb", shards=0, replicas=0, redis=4) as cluster:
        yield cluster.redis


@pytest.fixture(scope="module")
def nutcracker(nodes: list[RedisNode], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """The port of each pool."""
    folder: Path = tmp_path_factory.mktemp("nutcracker")
    ports: list[int] = []
    text = ""
    for pool in _POOLS:
        ports.append(free_port())
        text += f"pool{len(ports)}:\n  listen: 127.0.0.1:{ports[-1]}\n  redis: true\n  hash: fnv1a_64\n"
        text += "  distribution: ketama\n  auto_eject_hosts: false\n"
        if pool[1]:
            text += f'  hash_tag: "{pool[1].decode()}"\n'
        text += "  servers:\n"
        for node, (name, weight) in zip(nodes, weights_of(pool, nodes).items(), strict=False):
            text += f"   - {node.address}:{weight} {name if pool[2] else ''}\n"
    process = run_nutcracker(folder, text, ports[-1])
    yield ports
    process.kill()


@pytest.mark.parametrize("number", range(len(_POOLS)))
def test_each_key_is_on_the_node_where_twemproxy_has_it(
    number: int, nodes: list[RedisNode], nutcracker: list[int]
) -> None:
    for node in nodes:
        with node.connect() as client:
            client.flushall()
    # Without redis-py, whose first commands twemproxy does not know.
    with socket.create_connection(("127.0.0.1", nutcracker[number])) as client, client.makefile("rb") as replies:
        for start in range(0, len(KEYS), 500):
            some = KEYS[start : start + 500]
            client.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$0\r\n\r\n" % (len(key), key) for key in some))
            assert replies.read(5 * len(some)) == b"+OK\r\n" * len(some)
    landed: dict[bytes, int] = {}
    for place, node in enumerate(nodes):
        with node.connect() as client:
            landed |= dict.fromkeys(client.keys("*"), place)
    assert len(landed) == len(set(KEYS))
    ring = ketama_ring(weights_of(_POOLS[number], nodes), _POOLS[number][1])
    wrong = {key: (ring.node_of(key), place) for key, place in landed.items() if ring.node_of(key) != place}
    assert wrong == {}
    assert len(set(landed.values())) == len(_POOLS[number][0])


@pytest.mark.parametrize("named", [False, True])
def test_beside_twemproxy_each_reads_what_the_other_wrote(named: bool, tmp_path: Path) -> None:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3) as cluster:
        names = [f"cache-{n}" if named else node.address for n, node in enumerate(cluster.redis)]
        theirs = free_port()
        text = f"pool:\n  listen: 127.0.0.1:{theirs}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
        text += '  hash_tag: "{}"\n  servers:\n'
        for number, node in enumerate(cluster.redis):
            text += f"   - {node.address}:{number + 1} {names[number] if named else ''}\n"
        nodes = {
            node.name: {"address": node.address, "weight": number + 1, "ketama_name": names[number]}
            for number, node in enumerate(cluster.redis)
        }
        process = run_nutcracker(tmp_path, text, theirs)
        try:
            with redis_proxy(cluster, nodes=nodes, redis={"placement": "ketama", "hash_tag": "{}"}) as proxy:
                keys = list(dict.fromkeys(KEYS))
                for writer, reader, mark in ((theirs, proxy.port, b"t"), (proxy.port, theirs, b"p")):
                    wanted = b"+OK\r\n" * len(keys)
                    assert exchange(writer, [[b"SET", key, mark + key] for key in keys], len(wanted)) == wanted
                    wanted = b"".join(b"$%d\r\n%b\r\n" % (len(key) + 1, mark + key) for key in keys)
                    assert exchange(reader, [[b"GET", key] for key in keys], len(wanted)) == wanted
                with proxy.connect() as client:
                    assert client.dbsize() == len(keys)  # none is twice
                    assert client.mget(keys) == [b"p" + key for key in keys]
        finally:
            process.kill()
