"""A large key moves between real nodes: the mover stays small, and nobody else waits long."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shardproxy.local import LocalCluster
from tests.proxy import eventually
from tests.redis.moves.load import connect
from tests.redis.moves.test_moves import shardctl, started, until_moving
from tests.redis.proxied import RedisProxy, node_of, redis_proxy

pytestmark = pytest.mark.alone
FIELDS, SIZE = 200_000, 1000  # of the hash: 200 MiB and more
STRING = 200 << 20
NOISE = os.urandom(8 << 20)  # a node would compress anything else


@pytest.fixture
def proxy() -> Iterator[RedisProxy]:
    with (
        LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster,
        redis_proxy(cluster, redis={"hold_timeout": "120s"}) as running,
    ):
        yield running


def peak(pid: int) -> int:
    """MiB that a process has had in memory at most; 0 when it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) >> 10 if found else 0


def field(number: int) -> bytes:
    at = number * 37 % (len(NOISE) - SIZE)
    return NOISE[at : at + SIZE]


class Pings:
    """A client that asks for a small key of each node again and again; the longest times that it waited, in s."""

    def __init__(self, proxy: RedisProxy, names: list[str]) -> None:
        self.waited: list[float] = []
        self._proxy = proxy
        self._names = names
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Pings:
        self._thread.start()
        eventually(lambda: len(self.waited) > 10, "it asks")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        with connect(self._proxy.port) as client:
            while not self._stop.is_set():
                for name in self._names:
                    began = time.monotonic()
                    assert client.get(name) == b"here"
                    self.waited.append(time.monotonic() - began)


@pytest.mark.parametrize("kind", ["hash", "string"])
def test_a_large_key_moves_in_pieces(proxy: RedisProxy, kind: str) -> None:
    with connect(proxy.port, 120) as client:
        number = 0
        while node_of(proxy.cluster, client, f"big:{number}").name != "redis1":
            number += 1
        big = f"big:{number}"
        client.delete(big)
        small = [f"small:{n}" for n in range(50)]
        client.mset(dict.fromkeys(small, "here"))
        if kind == "hash":
            for at in range(0, FIELDS, 2000):
                client.hset(big, mapping={f"f{n}": field(n) for n in range(at, at + 2000)})
        else:
            for at in range(0, STRING, 8 << 20):
                client.setrange(big, at, NOISE)
        before = peak(proxy.worker_pid())
        with Pings(proxy, small) as pings:
            mover = started(proxy, "run", "--weights", "redis2=1", "--at-once", "4096")
            mine = 0
            until_moving(proxy)
            if kind == "hash":  # it waits for all of it
                assert client.hincrby(big, "counted", 1) == 1
            else:
                assert client.append(big, "!") == STRING + 1
            while mover.poll() is None:
                mine = max(mine, peak(mover.pid))
                with suppress(subprocess.TimeoutExpired):
                    mover.wait(0.02)
            assert mover.returncode == 0
        waited = sorted(pings.waited)
        print(f"{kind}: mover {mine} MiB, longest {waited[-1]:.3f} s, p99 {waited[len(waited) * 99 // 100]:.4f} s")
        assert 0 < mine < 150
        assert peak(proxy.worker_pid()) - before < 50
        assert waited[-1] < 2 and waited[len(waited) * 99 // 100] < 0.2
        if kind == "hash":
            assert client.hlen(big) == FIELDS + 1
            assert client.hget(big, "f199999") == field(199_999)
        else:
            assert client.strlen(big) == STRING + 1
            at = 184 << 20  # a multiple of 8 MiB
            assert client.getrange(big, at, at + 20) == NOISE[:21]
    shardctl(proxy, "verify")
