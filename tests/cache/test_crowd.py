"""Ten thousand clients want the same row at the moment when its time is over: it is read from MySQL once."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from tests.cache.test_rows import CACHE, KEYSPACES, cluster_with, hits
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, reads, redis_proxy
from tests.shown import show

pytestmark = pytest.mark.alone
CLIENTS = 10_000
WORKERS = 2
FILES = CLIENTS + 2000  # that a process must be able to open
SETTINGS = CACHE.replace("[cache]", "[cache]\nsample = 0.0", 1)  # samples are SELECTs too
HASTY = SETTINGS.replace('lease = "2s"', 'lease = "1m"\nwait = "1s"')
PATIENT = HASTY.replace('wait = "1s"', 'wait = "1m"')
GET = b"*2\r\n$3\r\nGET\r\n$8\r\nusers:%d\r\n"  # of two digits


@pytest.fixture(scope="module")
def many_files() -> Iterator[None]:
    """For this process and what it starts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = max(before[1], FILES)  # beyond the limit only root may go
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], hard))


@pytest.fixture(scope="module")
def cluster(flavor: FlavorName, many_files: None) -> Iterator[LocalCluster]:
    with cluster_with(flavor) as running:
        yield running


@contextmanager
def crowd(proxy: RedisProxy) -> Iterator[list[socket.socket]]:
    """So many connections, all of them known to the proxy's workers."""
    with ExitStack() as stack:
        clients = []
        for _ in range(0, CLIENTS, 500):  # no more at once than may wait to be accepted
            new = [stack.enter_context(proxy.raw()) for _ in range(500)]
            for client in new:
                client.sendall(b"PING\r\n")
            assert {reads(client, 7) for client in new} == {b"+PONG\r\n"}
            clients += new
        yield clients


class Selects:
    """How often the servers are asked for a row of `users`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._servers = [shard.primary for shard in cluster.shards]

    def __enter__(self) -> Selects:
        for server in self._servers:
            server.rows("SET GLOBAL log_output = 'TABLE'")
            server.rows("TRUNCATE mysql.general_log")
            server.rows("SET GLOBAL general_log = ON")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.rows("SET GLOBAL general_log = OFF")

    def __len__(self) -> int:
        text = "SELECT count(*) FROM mysql.general_log WHERE argument LIKE 'SELECT * FROM _main_._users_ %'"
        return sum(int(server.rows(text)[0][0]) for server in self._servers)


def expire(proxy: RedisProxy, key: str) -> None:
    """The time of a row that is in the cache is over."""
    expired = 0
    for node in proxy.cluster.redis:
        with node.connect() as direct:
            for name in direct.scan_iter(f"_shardproxy:*:row:{key}"):
                expired += direct.pexpire(name, 1)
                eventually(partial(is_gone, direct, name), "it has expired")
    assert expired == 1


def is_gone(direct: Any, name: bytes) -> bool:
    return not direct.exists(name)


def a_cached_row(proxy: RedisProxy, key: int) -> bytes:
    """What a client gets of it, in RESP2."""
    with proxy.mysql() as db:
        db.cursor().execute(f"REPLACE INTO users (uid, name, version) VALUES ({key}, 'hot', 7)")
    with proxy.connect() as client:
        hits(proxy, lambda: client.get(f"users:{key}"))
        row: bytes = client.get(f"users:{key}")
    assert json.loads(row)["name"] == "hot"
    return b"$%d\r\n%b\r\n" % (len(row), row)


def answers(clients: Sequence[socket.socket], size: int) -> set[bytes]:
    return {reads(client, size) for client in clients}


def test_one_load(cluster: LocalCluster) -> None:
    with redis_proxy(cluster, "crowd", more=SETTINGS, keyspaces=KEYSPACES, workers=WORKERS) as proxy:
        eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)
        wanted = a_cached_row(proxy, 42)
        with crowd(proxy) as clients, Selects(cluster) as selects:
            expire(proxy, "users:42")
            for client in clients:
                client.sendall(GET % 42)
            assert answers(clients, len(wanted)) == {wanted}
            assert len(selects) == 1


@pytest.mark.parametrize(
    ("key", "settings", "most"), [(43, PATIENT, 1), (44, HASTY, 1 + 2 * WORKERS)], ids=["patient", "hasty"]
)
def test_a_load_that_takes_long(cluster: LocalCluster, key: int, settings: str, most: int) -> None:
    """All wait for it, and workers have time for others. Who has waited for `wait` does not go to MySQL alone: it is
    one load a worker for all of those, and one more for those who were told while it ran."""
    with redis_proxy(cluster, f"slow-{key}", more=settings, keyspaces=KEYSPACES, workers=WORKERS) as proxy:
        eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)
        wanted = a_cached_row(proxy, key)
        with crowd(proxy) as clients, Selects(cluster) as selects, ExitStack() as locks, proxy.connect() as other:
            expire(proxy, f"users:{key}")
            for shard in cluster.shards:
                db = locks.enter_context(shard.primary.connect("main"))
                db.cursor().execute("LOCK TABLES users WRITE")
            began = time.monotonic()
            for client in clients:
                client.sendall(GET % key)
            waits = []
            while time.monotonic() < began + 6:
                asked = time.monotonic()
                assert other.get("another:key") is None
                with proxy.connect() as new:  # which greets, and asks who it is
                    assert new.client_id() != other.client_id()
                waits.append(time.monotonic() - asked)
            locks.close()
            assert answers(clients, len(wanted)) == {wanted}
            assert 1 <= len(selects) <= most
            middle, longest = sorted(waits)[len(waits) // 2], max(waits)
            show(f"other clients wait: {middle:.4f} s in the middle, {longest:.3f} s the longest")
            assert longest < 3
