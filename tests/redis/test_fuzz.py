"""What no well-behaved client sends to the Redis port: it gets an error or is closed, in RESP; nobody else notices;
memory stays bounded; nothing leaks."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shardproxy.local import LocalCluster
from shardproxy.protocol.redis.encode import command
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, keys_on, reads, redis_proxy
from tests.redis.test_proxy import MIB, peak, reset_peak

MAX_COMMAND = 32 * MIB
SIGNS = ("internal error", "Fatal error", "Traceback", "never retrieved", "exception")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    limits = {"client_buffer": "4MiB", "client_stall": "500ms", "max_command": "32MiB"}
    with redis_proxy(cluster, redis=limits) as running:
        yield running


class Bystander:
    """A client that does as one should, all the time, and looks at each reply. slowest: seconds of one command."""

    def __init__(self, proxy: RedisProxy, key: str) -> None:
        self.slowest = 0.0
        self.rounds = 0
        self.error: BaseException | None = None
        self._proxy = proxy
        self._key = key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        rounds = self.rounds
        try:
            eventually(lambda: self.rounds > rounds + 1 or self.error is not None, "it is still served")
        finally:
            self._stop.set()
            self._thread.join()
        assert self.error is None, self.error

    def _run(self) -> None:
        try:
            # What is sent again by itself would be counted twice.
            with self._proxy.connect(socket_timeout=60, retry=Retry(NoBackoff(), 0)) as client:
                while not self._stop.is_set():
                    self._round(client)
        except BaseException as error:
            self.error = error

    def _round(self, client: Any) -> None:
        begun = time.monotonic()
        self.rounds += 1
        number = b"%d" % self.rounds
        assert client.set(self._key, number) is True
        assert client.get(self._key) == number
        with client.pipeline() as pipe:
            pipe.incr(self._key)
            pipe.mget(self._key, self._key)
            after = b"%d" % (self.rounds + 1)
            assert pipe.execute() == [self.rounds + 1, [after, after]]
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self._stop.wait(0.005)


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture(autouse=True)
def unharmed(cluster: LocalCluster, proxy: RedisProxy) -> Iterator[Bystander]:
    """During each test another client is served, on the first node; after it everything is as before."""
    pid = proxy.worker_pid()
    logged = proxy.process.log.stat().st_size
    with proxy.connect() as client:
        client.flushall()
        key = f"{{{keys_on(cluster, client)[cluster.redis[0].name]}}}bystander"
        client.flushall()
    eventually(lambda: proxy.metric("shardproxy_redis_clients") == 0, "no client is left of another test")
    opened = files(pid)
    with Bystander(proxy, key) as bystander:
        yield bystander
    eventually(lambda: proxy.metric("shardproxy_redis_clients") == 0, "all clients are gone")
    eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == 0, "and what they had for themselves")
    # Connections to nodes that were kept for the next who needs one: not more than clients had at the same time.
    eventually(lambda: files(pid) <= opened + 40, f"no file is left open: {files(pid)} after {opened}")
    assert proxy.worker_pid() == pid, proxy.process.log_tail()
    with proxy.process.log.open() as log:
        log.seek(logged)
        written = log.read()
    for sign in SIGNS:
        assert sign not in written, written


# ── streams ──

KEYS = [b"k%d" % n for n in range(20)]


def valid(dice: random.Random) -> list[bytes]:
    """A command of any kind that a client might send; none that would end or change other clients."""
    key, other, value = dice.choice(KEYS), dice.choice(KEYS), dice.randbytes(dice.choice((0, 3, 30, 3000)))
    tagged = [b"{t}%d" % dice.randrange(5) for _ in range(3)]
    return dice.choice(
        (
            [b"SET", key, value],
            [b"get", key],
            [b"MGET", *dice.choices(KEYS, k=5)],
            [b"MSET", key, value, other, b"2"],
            [b"DEL", key, other],
            [b"INCR", key],
            [b"LPUSH", tagged[0], value],
            [b"HSET", tagged[1], b"f", value],
            [b"SINTER", *tagged],
            [b"RENAME", key, other],
            [b"EVAL", b"return {KEYS, {ARGV, {{}}}}", b"1", key, value],
            [b"SCAN", b"0"],
            [b"KEYS", b"*"],
            [b"DBSIZE"],
            [b"INFO", b"keyspace"],
            [b"COMMAND", b"DOCS", b"get"],
            [b"CLIENT", b"SETNAME", b"x"],
            [b"CLIENT", b"LIST"],
            [b"HELLO", dice.choice((b"2", b"3", b"4"))],
            [b"RESET"],
            [b"PING"],
            [b"ECHO", value],
            [b"MULTI"],
            [b"MULTI"],
            [b"EXEC"],
            [b"EXEC"],
            [b"DISCARD"],
            [b"WATCH", key],
            [b"UNWATCH"],
            [b"SUBSCRIBE", b"c1", b"c2"],
            [b"UNSUBSCRIBE"],
            [b"PSUBSCRIBE", b"c*"],
            [b"PUNSUBSCRIBE"],
            [b"SSUBSCRIBE", b"s1"],
            [b"PUBLISH", b"c1", value],
            [b"SPUBLISH", b"s1", value],
            [b"MONITOR"],
            [b"BLPOP", tagged[0], b"0.01"],
            [b"BLPOP", b"never", dice.choice((b"0", b"0.05"))],
            [b"XREAD", b"BLOCK", b"1", b"STREAMS", key, b"0"],
            [b"WAIT", b"0", b"1"],
            [b"AUTH", b"word"],
            [b"SELECT", dice.choice((b"0", b"1"))],
            [b"QUIT"],
        )
    )


def broken(dice: random.Random) -> bytes:
    """Something that is no command."""
    data = bytearray(command(valid(dice)))
    match dice.randrange(9):
        case 0 | 1:  # some bytes are others
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.choice((*b"\r\n*$-0123456789", 0, 255))
        case 2:
            del data[dice.randrange(len(data)) :]
        case 3:
            del data[dice.randrange(len(data))]
        case 4:  # a wrong number
            at = dice.choice([i for i in range(len(data)) if data[i] in b"*$"])
            number = dice.choice((b"-1", b"-2", b"0", b"007", b"1e3", b"99999999999999999999", b"", b" 3"))
            data[at + 1 : data.index(b"\r", at) if b"\r" in data[at:] else len(data)] = number
        case 5:
            return b"*1\r\n" * dice.choice((1, 10, 10_000))
        case 6:
            return dice.randbytes(dice.choice((1, 50, 5000)))
        case 7:
            return dice.choice((b"get 'a\r\n", b'set k "\\x4', b"\r\n\r\n", b" \t \r\n", b"ping\n", b"x" * 70_000))
        case 8:
            return dice.choice((b"*1048576\r\n", b"*2\r\n$3\r\nGET\r\n$536870912\r\n", b"*1048577\r\n", b"*-5\r\n"))
    return bytes(data)


def stream(dice: random.Random) -> bytes:
    parts = []
    for _ in range(dice.randrange(1, 40)):
        if dice.random() < 0.06:
            parts.append(broken(dice))
        elif dice.random() < 0.1:
            parts.append(dice.choice((b"PING", b"GET k1", b"MGET k1 k2", b"MULTI")) + b"\r\n")
        else:
            parts.append(command(valid(dice)))
    return b"".join(parts)


def frames(data: bytes) -> int:
    """How many replies these bytes are; the last one may be cut. Raises AssertionError when they are none."""
    at = found = 0
    while at < len(data):
        due = 1
        while due:
            kind, end = data[at : at + 1], data.find(b"\r\n", at)
            assert not kind or kind in b"+-:$*_,#(!=%~>|", data[at - 50 : at + 50]
            if end < 0:
                return found
            number = data[at + 1 : end]
            at = end + 2
            if kind in (b"$", b"=", b"!"):
                if int(number) >= 0:
                    at += int(number) + 2
                    assert at > len(data) or data[at - 2 : at] == b"\r\n", data[at - 50 : at + 50]
            elif kind in (b"*", b"~", b">"):
                due += max(int(number), 0)
            elif kind in (b"%", b"|"):
                due += 2 * int(number) + (kind == b"|")
            due -= 1
        found += 1
    return found


def play(proxy: RedisProxy, seed: int) -> None:
    """One client: it sends a stream as it likes, and goes as it likes."""
    dice = random.Random(seed)
    data = stream(dice)
    end = dice.choice(("half", "half", "half", "reset", "silent", "close"))
    with proxy.raw(small=end == "silent") as sock:
        try:
            at = 0
            while at < len(data):
                size = dice.choice((1, 10, 1000, 100_000))
                sock.sendall(data[at : at + size])
                at += size
            if end == "half":
                sock.shutdown(socket.SHUT_WR)
                received = bytearray()
                while more := sock.recv(1 << 16):
                    received += more
                frames(bytes(received))
            elif end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except TimeoutError as error:
            raise AssertionError(f"seed {seed}: neither a reply nor the end: {data!r}") from error
        except OSError:
            pass  # closed by the proxy, behind an error


def play_many(proxy: RedisProxy, seeds: Sequence[int]) -> None:
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(play, proxy, seed) for seed in seeds]:
            done.result()


@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_streams_of_anything(proxy: RedisProxy, unharmed: Bystander, first: int) -> None:
    pid = proxy.worker_pid()
    before = reset_peak(pid)
    play_many(proxy, range(first, first + 500))
    assert peak(pid) - before < 150 * MIB
    assert unharmed.slowest < 5


def test_nodes_die_meanwhile(cluster: LocalCluster, proxy: RedisProxy) -> None:
    stop = threading.Event()

    def kill() -> None:
        dice = random.Random(1)
        while not stop.wait(0.3):
            node = dice.choice(cluster.redis[1:])
            node.kill()
            node.restart()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        play_many(proxy, range(10_000, 10_400))
    finally:
        stop.set()
        killer.join()
    with proxy.connect() as client:

        def back() -> bool:
            try:
                return bool(client.dbsize() >= 0)
            except redis.RedisError:
                return False

        eventually(back, "all nodes are used again", 30)


# ── memory ──


def test_headers_without_a_body_take_no_memory(proxy: RedisProxy) -> None:
    pid = proxy.worker_pid()
    before = reset_peak(pid)
    with ExitStack() as stack:
        for number in range(200):
            sock = stack.enter_context(proxy.raw())
            sock.sendall((b"*2\r\n$3\r\nGET\r\n$33000000\r\n", b"*1048576\r\n$4\r\nMGET\r\n$1\r\n")[number % 2])
        eventually(lambda: proxy.metric("shardproxy_redis_clients") > 200, "all are there", 30)
    assert peak(pid) - before < 20 * MIB


def test_the_largest_commands(proxy: RedisProxy, unharmed: Bystander) -> None:
    """As many keys as a command may have, and what is longer than a command may be."""
    pid = proxy.worker_pid()
    before = reset_peak(pid)
    with proxy.raw() as sock:
        sock.sendall(command([b"MGET", *[b"k"] * ((1 << 20) - 1)]))
        size = len(b"*1048575\r\n") + len(b"$-1\r\n") * ((1 << 20) - 1)
        assert reads(sock, size).count(b"$-1\r\n") == (1 << 20) - 1
        sock.sendall(command([b"DEL", *[b"%d" % n for n in range((1 << 20) - 1)]]))
        assert reads(sock, 4) == b":0\r\n"
        with suppress(ConnectionError):
            sock.sendall(command([b"LPUSH", b"k", *[bytes(10_000)] * 3400]))
        # Not one byte more: behind the reply comes a reset when there was something left that nobody reads.
        refusal = b"-ERR Protocol error: the command is longer than the proxy takes\r\n"
        assert reads(sock, len(refusal)) == refusal
    assert peak(pid) - before < 400 * MIB


def flood(sock: socket.socket, data: bytes, seconds: float) -> int:
    """Send data again and again, for so long or until nothing is taken any more for a second. Bytes sent."""
    sock.setblocking(False)
    sent = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            sent += sock.send(data[sent % len(data) :])
        except BlockingIOError:
            if not select.select([], [sock], [], 1)[1]:
                break
        except ConnectionError:
            break
    sock.settimeout(30)
    return sent


@pytest.mark.parametrize(
    "line",
    [command([b"PING"]), command([b"GET", b"on:other"]), b"PING\r\n", command([b"ECHO", bytes(1000)]), b"NOSUCH x\r\n"],
    ids=["ping", "get", "inline", "echo", "unknown"],
)
def test_what_stands_behind_a_slow_node_is_bounded(
    cluster: LocalCluster, proxy: RedisProxy, unharmed: Bystander, line: bytes
) -> None:
    with proxy.connect() as client:
        keys = keys_on(cluster, client)
    slow = cluster.redis[2]
    line = line.replace(b"on:other", keys[cluster.redis[1].name].encode())
    pid = proxy.worker_pid()
    with proxy.raw() as sock:
        os.kill(slow.pid, signal.SIGSTOP)
        try:
            sock.sendall(command([b"GET", keys[slow.name].encode()]))
            before = reset_peak(pid)
            flood(sock, line * 1000, 5)
            assert peak(pid) - before < 60 * MIB
        finally:
            os.kill(slow.pid, signal.SIGCONT)
        assert reads(sock, 10) == b"$4\r\nhere\r\n"
    assert unharmed.slowest < 2
