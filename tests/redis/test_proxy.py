"""The Redis port in front of real nodes: order, big values, clients that do not read, nodes that die."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis

from shardproxy.local import LocalCluster
from shardproxy.protocol.redis.encode import command
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, keys_on, node_of, reads, redis_proxy

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    with redis_proxy(cluster, redis={"client_buffer": "4MiB", "client_stall": "500ms"}) as running:
        yield running


def reset_peak(pid: int) -> int:
    """Resident bytes now, from where the peak counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def test_replies_come_in_the_order_of_commands(proxy: RedisProxy, client: Any) -> None:
    dice = random.Random(5)
    sent, due = [], []
    values: dict[bytes, bytes] = {}
    for number in range(3000):
        key = b"k%d" % dice.randrange(50)
        match dice.randrange(6):
            case 0 | 1:
                values[key] = b"v%d" % number
                sent.append(command([b"set", key, values[key]]))
                due.append(b"+OK\r\n")
            case 2 | 3:
                sent.append(command([b"GET", key]))
                due.append(b"$%d\r\n%b\r\n" % (len(values[key]), values[key]) if key in values else b"$-1\r\n")
            case 4:
                sent.append(b"PING p%d\r\n" % number)
                due.append(b"$%d\r\np%d\r\n" % (len(b"p%d" % number), number))
            case 5:
                keys = [b"k%d" % dice.randrange(50) for _ in range(5)]
                sent.append(command([b"EXISTS", *keys]))
                due.append(b":%d\r\n" % sum(key in values for key in keys))
    data, wanted = b"".join(sent), b"".join(due)
    with proxy.raw() as sock:
        at = 0
        while at < len(data):
            size = dice.choice((1, 7, 100, 5000))
            sock.sendall(data[at : at + size])
            at += size
        assert reads(sock, len(wanted)) == wanted


def test_a_slow_node_holds_back_only_what_stands_behind_it(
    cluster: LocalCluster, proxy: RedisProxy, client: Any
) -> None:
    keys = keys_on(cluster, client)
    slow, fast = cluster.redis[0], cluster.redis[1]
    with proxy.raw() as sock, proxy.connect() as other:
        os.kill(slow.pid, signal.SIGSTOP)
        try:
            sock.sendall(command([b"GET", keys[slow.name].encode()]) + command([b"GET", keys[fast.name].encode()]))
            assert other.get(keys[fast.name]) == b"here"
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        finally:
            os.kill(slow.pid, signal.SIGCONT)
        sock.settimeout(30)
        assert reads(sock, 20) == b"$4\r\nhere\r\n" * 2


def test_a_big_value_passes_through(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    node = node_of(cluster, client, "big")
    value = os.urandom(MIB) * 100
    with node.connect() as direct:
        direct.set("big", value)
    pid = proxy.worker_pid()
    before = reset_peak(pid)
    assert client.get("big") == value
    assert peak(pid) - before < 40 * MIB
    assert client.set("big2", value) is True  # kept until it is whole: twice, while its pieces become one
    assert client.strlen("big2") == len(value)
    client.delete("big", "big2")


def test_a_client_that_does_not_read_ends_alone(proxy: RedisProxy, client: Any) -> None:
    client.set("mib", bytes(MIB))
    closed = proxy.metric("shardproxy_redis_slow_clients_closed_total")
    pid = proxy.worker_pid()
    before = reset_peak(pid)
    with proxy.raw(small=True) as sock:
        sock.sendall(command([b"GET", b"mib"]) * 300)
        for _ in range(20):
            assert client.get("mib") == bytes(MIB)
        eventually(lambda: proxy.metric("shardproxy_redis_slow_clients_closed_total") > closed, "it is closed")
        assert client.get("mib") == bytes(MIB)
    assert peak(pid) - before < 60 * MIB


def test_a_client_that_only_writes_is_not_read(proxy: RedisProxy, client: Any) -> None:
    """Small replies: the proxy stops reading it, and nobody else notices."""
    with proxy.raw(small=True) as sock:
        sock.setblocking(False)
        data = command([b"SET", b"k", b"v" * 100]) * 1000
        sent = 0
        full = False
        while not full:
            assert sent < 500 * MIB
            try:
                sent += sock.send(data[sent % len(data) :])
            except BlockingIOError:
                full = not select.select([], [sock], [], 1)[1]
        assert client.get("k") == b"v" * 100


def test_a_node_that_dies(cluster: LocalCluster, client: Any, proxy: RedisProxy) -> None:
    keys = keys_on(cluster, client)
    dead, other = cluster.redis[0], cluster.redis[1]
    key = keys[dead.name].encode()
    with proxy.raw() as sock:
        os.kill(dead.pid, signal.SIGSTOP)
        sock.sendall(command([b"APPEND", key, b"x"]) + b"PING\r\n" + command([b"DEL", key, keys[other.name].encode()]))
        with proxy.connect() as second:
            assert second.set(keys[other.name], "1")  # so the first's commands have gone to their nodes
        dead.kill()
        reply = reads(sock, 1)
        while not reply.endswith(b"\r\n") or reply.count(b"\r\n") < 3:
            reply += sock.recv(1000)
        lines = reply.split(b"\r\n")
        assert lines[0].startswith(b"-ERR node redis1 (" + dead.address.encode() + b")")
        assert lines[0].endswith(b"whether it ran is not known")
        assert lines[1] == b"+PONG"
        assert lines[2].startswith(b"-ERR node redis1")
    with pytest.raises(redis.ResponseError, match=r"node redis1 \(.*the command was not sent"):
        client.get(key)
    assert client.set(keys[other.name], "2") is True
    dead.restart()

    def back() -> bool:
        try:
            return bool(client.set(key, "3"))
        except redis.ResponseError:
            return False

    eventually(back, "the node's keys can be used again")


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(proxy: RedisProxy, client: Any, protocol: int) -> None:
    with proxy.connect(protocol=protocol, decode_responses=True, client_name="tester") as connected:
        assert connected.client_getname() == "tester"
        connected.hset("h", mapping={"a": "1", "b": "2"})
        assert connected.hgetall("h") == {"a": "1", "b": "2"}
        assert connected.execute_command("HGETALL", "h") == {"a": "1", "b": "2"}
        connected.zadd("z", {"a": 1.5})
        assert connected.zscore("z", "a") == 1.5
        keys = {f"k{i}": str(i) for i in range(100)}
        assert connected.mset(keys) is True
        assert connected.mget([*keys, "none", "k1"]) == [*keys.values(), None, "1"]
        assert connected.exists(*keys, "k1", "none") == 101
        assert connected.dbsize() >= 102
        assert connected.delete(*keys) == 100
        with connected.pipeline(transaction=False) as pipe:
            for i in range(200):
                pipe.incr(f"n{i % 7}")
            assert pipe.execute() == [i // 7 + 1 for i in range(200)]
        with pytest.raises(redis.ResponseError, match="hash to the same slot"):
            connected.sinter(*(f"s{i}" for i in range(50)))
        with pytest.raises(redis.ResponseError, match="unknown command"):
            connected.execute_command("NOSUCH", "c")


def test_hello_changes_the_protocol_in_its_turn(proxy: RedisProxy, client: Any) -> None:
    client.hset("h", mapping={"a": "1"})
    with proxy.raw() as sock:
        sock.sendall(b"HGETALL h\r\nHELLO 3\r\nHGETALL h\r\nHELLO 2\r\nHGETALL h\r\nQUIT\r\nPING\r\n")
        found = reads(sock, 10_000)
    flat, pair = b"*2\r\n$1\r\na\r\n$1\r\n1\r\n", b"%1\r\n$1\r\na\r\n$1\r\n1\r\n"
    first, _, rest = found.partition(b"%7\r\n")
    second, _, third = rest.partition(pair)
    assert first == flat
    assert b"$5\r\nproto\r\n:3\r\n" in second
    assert b"$5\r\nproto\r\n:2\r\n" in third and third.endswith(flat + b"+OK\r\n")


def test_redis_cli(proxy: RedisProxy, client: Any) -> None:
    for place in (["-p", str(proxy.port)], ["-s", str(proxy.unix)], ["-3", "-p", str(proxy.port)]):
        shown = subprocess.run(
            ["redis-cli", *place],
            input="set k v\nget k\nmget k none k\nping\n",
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert shown.stdout.split("\n") == ["OK", "v", "v", "", "v", "PONG", ""]


def test_garbage(proxy: RedisProxy, client: Any) -> None:
    for data, error in (
        (b"*1\r\n$536870913\r\n", b"invalid bulk length"),
        (b"*2000000\r\n", b"invalid multibulk length"),
        (b"*1\r\nx", b"expected '$', got 'x'"),
        (b"get 'a\r\n", b"unbalanced quotes in request"),
    ):
        with proxy.raw() as sock:
            sock.sendall(b"PING\r\n" + data)
            assert reads(sock, 1000) == b"+PONG\r\n-ERR Protocol error: " + error + b"\r\n"
    with proxy.raw() as sock:
        sock.sendall(b"*2\r\n$3\r\nGET\r\n$536870912\r\n")
        assert client.ping() is True


def test_a_million_keys(proxy: RedisProxy, client: Any) -> None:
    client.set("m7", "seven")
    with proxy.connect(socket_timeout=60) as patient:  # it takes seconds on a machine that does other work too
        values = patient.execute_command("MGET", *[f"m{i}" for i in range(1_000_000)])
    assert len(values) == 1_000_000
    assert values[7] == b"seven" and values.count(None) == 999_999


def test_many_keys_are_each_in_their_place(proxy: RedisProxy, client: Any) -> None:
    """Commands that are done in slices, with keys that are missing, and that come twice."""
    count = 30_000
    with proxy.raw() as sock:
        pairs = [word for n in range(count) for word in (b"many%d" % n, b"v%d" % n)]
        sock.sendall(command([b"mset", *pairs]) + b"PING\r\n" + command([b"MSET", *pairs, b"odd"]))
        assert reads(sock, 12) == b"+OK\r\n+PONG\r\n"
        assert b"wrong number" in sock.recv(1000)
    asked = [n * 7919 % (count + 5000) for n in range(count)] * 2
    values = client.execute_command("MGET", *[f"many{n}" for n in asked])
    assert values == [b"v%d" % n if n < count else None for n in asked]
    assert client.execute_command("EXISTS", *[f"many{n}" for n in asked]) == sum(n < count for n in asked)
    assert client.execute_command("DEL", *[f"many{n}" for n in range(count)]) == count


def test_a_million_keys_keep_nobody_waiting(proxy: RedisProxy) -> None:
    """Nor do those of a client that goes away in the middle of them."""
    asked = command([b"MGET", *(b"m%d" % n for n in range(1_000_000))])
    with proxy.raw() as other:
        waits = Waits(other)
        with proxy.raw() as sock:
            sock.sendall(asked)
        with proxy.raw() as sock, waits:
            begun = monotonic()
            sock.sendall(asked)
            left = len(b"*1000000\r\n") + 1_000_000 * len(b"$-1\r\n")
            while left:
                left -= len(sock.recv(1 << 20))
            took = monotonic() - begun
    print(f"{took:.1f} s, the longest wait {waits.longest:.3f} s")
    assert waits.longest < took / 4  # at once it is more than half of it


class Waits:
    """How long another client waits for a reply at most, while it is entered."""

    def __init__(self, sock: socket.socket) -> None:
        self.longest = 0.0
        self._sock = sock
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._end.is_set():
            begun = monotonic()
            self._sock.sendall(b"PING\r\n")
            reads(self._sock, 7)
            self.longest = max(self.longest, monotonic() - begun)
            self._end.wait(0.002)


def test_users(cluster: LocalCluster) -> None:
    with redis_proxy(cluster, "guarded", users={"default": "word", "app": "other"}) as guarded:
        for protocol in (2, 3):
            with pytest.raises(redis.AuthenticationError):
                guarded.connect(protocol=protocol).get("k")
            with pytest.raises(redis.AuthenticationError):
                guarded.connect(password="wrong", protocol=protocol).get("k")
        for protocol in (2, 3):
            with guarded.connect(password="word", protocol=protocol) as connected:
                assert connected.set("k", "v") is True
            with guarded.connect(username="app", password="other", protocol=protocol) as connected:
                assert connected.get("k") == b"v"
                assert connected.execute_command("ACL", "WHOAMI") in (b"app", "app")
        with guarded.raw() as sock:
            sock.sendall(b"*2\r\n$4\r\nAUTH\r\n$20000\r\n")
            assert b"unauthenticated bulk length" in reads(sock, 1000)


def test_nodes_with_a_password(cluster: LocalCluster) -> None:
    for node in cluster.redis:
        with node.connect() as direct:
            direct.config_set("requirepass", "secret")
    try:
        with redis_proxy(cluster, "inside", redis={"password": "secret"}) as inside:
            for protocol in (2, 3):
                with inside.connect(protocol=protocol) as connected:
                    assert connected.mset({f"p{i}": i for i in range(20)}) is True
        with (
            redis_proxy(cluster, "outside", redis={"password": "wrong"}) as outside,
            outside.connect() as connected,
            pytest.raises(redis.ResponseError, match="WRONGPASS"),
        ):
            connected.get("p1")
    finally:
        for node in cluster.redis:
            with node.connect(password="secret") as direct:
                direct.config_set("requirepass", "")


def test_settings_that_would_cut_the_proxy_off_from_its_nodes_are_refused(
    cluster: LocalCluster, proxy: RedisProxy, client: Any
) -> None:
    def settings() -> list[Any]:
        found = []
        for node in cluster.redis:
            with node.connect() as direct:
                found.append(direct.config_get("*"))
        return found

    before = settings()
    refused = {"requirepass": "x", "MASTERAUTH": "x", "maxclients": "1", "timeout": "1", "bind": "::1", "port": "0"}
    refused |= {"slave-announce-ip": "10.0.0.1", "client-output-buffer-limit": "normal 1 1 1", "dir": "/tmp"}
    for name, value in refused.items():
        with pytest.raises(redis.ResponseError, match=f"does not do this CONFIG SET: {name.lower()}: .*node"):
            client.execute_command("CONFIG", "SET", "slowlog-max-len", "5", name, value)
    assert settings() == before
    assert client.config_set("slowlog-max-len", 5) is True
    assert {each["slowlog-max-len"] for each in settings()} == {"5"}
    client.config_set("slowlog-max-len", before[0]["slowlog-max-len"])
    with proxy.connect() as other, other.pubsub() as listener:  # which needs new connections to nodes
        listener.subscribe("news")
        assert listener.get_message(timeout=10)["type"] == "subscribe" and other.blpop("none", timeout=0.01) is None
