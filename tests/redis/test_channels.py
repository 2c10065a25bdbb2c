"""SUBSCRIBE and its like, and MONITOR, through the proxy: in order, counted as by one server, never silently deaf."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.protocol.redis.encode import command
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, keys_on, redis_proxy

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=4) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    """Over three nodes; the fourth is the server to compare with."""
    nodes = {node.name: node.address for node in cluster.redis[:3]}
    with redis_proxy(cluster, nodes=nodes, redis={"client_buffer": "4MiB", "max_channels": 1000}) as running:
        yield running


def until(sock: socket.socket, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        data = sock.recv(1 << 16)
        assert data, found
        found += data
    return found


def until_shown(sock: socket.socket, words: bytes) -> None:
    """Read what MONITOR shows until these words: behind them may already be more, such as the proxy's own PING."""
    found = b""
    while words not in found:
        data = sock.recv(1 << 16)
        assert data, found
        found += data


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_session_is_as_with_one_server(cluster: LocalCluster, proxy: RedisProxy, protocol: int) -> None:
    script = [
        "UNSUBSCRIBE",
        "SUBSCRIBE a b c a",
        "PSUBSCRIBE n* m*",
        "SSUBSCRIBE {s}1 {s}2",
        "PING",
        "PING hello",
        "NOSUCH",
        "SUBSCRIBE",
        *(["GET x", "CLIENT GETNAME", "MULTI"] if protocol == 2 else ["GET x", "MULTI", "GET x", "EXEC"]),
        "UNSUBSCRIBE b never",
        "PUNSUBSCRIBE m*",
        "SUNSUBSCRIBE {s}2 {s}1",
        "SUNSUBSCRIBE",
        "UNSUBSCRIBE a c",
        "PUNSUBSCRIBE",
        "GET x",
        "SUBSCRIBE a",
        "RESET",
        "GET x",
        "PING the-end",
    ]
    answers = []
    for port in (proxy.port, cluster.redis[3].port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(f"HELLO {protocol}\r\n".encode())
            until(sock, b"modules\r\n*0\r\n")
            sock.sendall("".join(f"{line}\r\n" for line in script).encode())
            answers.append(until(sock, b"$7\r\nthe-end\r\n"))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_of_all_nodes(cluster: LocalCluster, proxy: RedisProxy, client: Any, protocol: int) -> None:
    names = list(keys_on(cluster, client, 3).values())
    with proxy.connect(protocol=protocol) as reader, proxy.connect() as second:
        channels, patterns = reader.pubsub(), second.pubsub()
        channels.subscribe(*names)
        patterns.psubscribe("on:*")
        for _ in names:
            assert channels.get_message(timeout=10)["type"] == "subscribe"
        assert patterns.get_message(timeout=10)["data"] == 1
        for number in range(300):
            name = names[number % 3]
            assert client.publish(name, number) == 2
        for pubsub in (channels, patterns):
            got: dict[bytes, list[int]] = {}
            for _ in range(300):
                message = pubsub.get_message(timeout=10)
                got.setdefault(message["channel"], []).append(int(message["data"]))
            # Those of one channel are in order.
            assert got == {name.encode(): list(range(at, 300, 3)) for at, name in enumerate(names)}
        assert sorted(client.pubsub_channels()) == sorted(name.encode() for name in names)
        assert client.pubsub_numpat() == 1
    eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == 0, "nobody listens")
    assert client.pubsub_channels() == [] and client.publish(names[0], "x") == 0


def test_big_messages_and_replies_do_not_mix(proxy: RedisProxy, client: Any) -> None:
    """In RESP3 a client goes on working while messages come: also while a reply is passed on in pieces."""
    value = os.urandom(4 * MIB)
    client.set("big", value)
    done = threading.Event()

    def publish() -> None:
        with proxy.connect() as other:
            while not done.is_set():
                other.publish("c", b"m" * 1000)
            other.publish("c", b"m" * MIB)

    with proxy.connect(protocol=3) as reader:
        heard: list[Any] = []
        reader.connection._parser.set_pubsub_push_handler(heard.append)
        reader.connection.send_command("SUBSCRIBE", "c")
        reader.ping()
        assert heard.pop() == [b"subscribe", b"c", 1]
        thread = threading.Thread(target=publish)
        thread.start()
        try:
            gets, enough = 0, monotonic() + 30
            while gets < 20 or (len(heard) <= 20 and monotonic() < enough):
                assert reader.get("big") == value
                gets += 1
        finally:
            done.set()
        thread.join()
        until_heard = monotonic() + 30
        while not heard or len(heard[-1][2]) < MIB:
            assert monotonic() < until_heard, "the last message has not come: was the listener closed?"
            reader.ping()
        assert len(heard) > 20 and {len(message[2]) for message in heard} == {1000, MIB}


def test_a_listener_that_does_not_read_is_closed(proxy: RedisProxy, client: Any) -> None:
    closed = proxy.metric("shardproxy_redis_slow_clients_closed_total")
    with proxy.raw(small=True) as sock:
        sock.sendall(b"SUBSCRIBE c\r\n")
        until(sock, b":1\r\n")
        sent = 0
        while client.publish("c", bytes(100_000)):
            sent += 1
            assert sent < 1000
        eventually(lambda: proxy.metric("shardproxy_redis_slow_clients_closed_total") == closed + 1, "it is closed")
    assert sent > 30


def test_a_node_that_dies_closes_its_listeners(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    names = keys_on(cluster, client, 3)
    dead, other = cluster.redis[0], cluster.redis[1]
    with proxy.raw() as sock, proxy.raw() as monitor, proxy.raw() as elsewhere:
        sock.sendall(f"SUBSCRIBE {names[dead.name]} {names[other.name]}\r\n".encode())
        until(sock, b":2\r\n")
        elsewhere.sendall(f"SUBSCRIBE {names[other.name]}\r\n".encode())
        until(elsewhere, b":1\r\n")
        monitor.sendall(b"MONITOR\r\n")
        until_shown(monitor, b"+OK\r\n")
        dead.kill()
        for each in (sock, monitor):
            found = b""
            while data := each.recv(4096):
                found += data
            last = found.split(b"\r\n")[-2]
            assert last.startswith(b"-ERR shardproxy closes this connection: node redis1 ("), found
        client.publish(names[other.name], "still")
        until(elsewhere, b"$5\r\nstill\r\n")
        with proxy.raw() as late:
            late.sendall(f"SUBSCRIBE {names[dead.name]}\r\n".encode())
            found = b""
            while data := late.recv(4096):
                found += data
            assert found.startswith(b"-ERR shardproxy closes this connection: node redis1 (")
        dead.restart()

        def hears() -> bool:
            with proxy.raw() as again:
                again.sendall(f"SUBSCRIBE {names[dead.name]}\r\n".encode())
                return again.recv(4096).startswith(b"*3")

        eventually(hears, "the node's channels can be heard again")


def test_what_nodes_tell_of_their_keys_is_heard_from_all(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    for node in cluster.redis[:3]:
        with node.connect() as direct:
            direct.config_set("notify-keyspace-events", "Kx$E")
    with proxy.raw() as sock:
        sock.sendall(b"SUBSCRIBE __keyevent@0__:set\r\n")
        until(sock, b":1\r\n")
        for key in keys_on(cluster, client, 3).values():
            client.set(key, "x")
            until(sock, f"\r\n{key}\r\n".encode())
        sock.sendall(b"UNSUBSCRIBE\r\n")
        until(sock, b":0\r\n")


def test_monitor_shows_all_nodes(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock:
        sock.sendall(b"MONITOR\r\n")
        until_shown(sock, b"+OK\r\n")
        for key in keys_on(cluster, client, 3).values():
            client.get(key)
            until_shown(sock, f'"GET" "{key}"\r\n'.encode())
        sock.sendall(b"RESET\r\nPING\r\n")
        until(sock, b"+RESET\r\n+PONG\r\n")
    eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == 0, "nobody looks")


def test_one_client_listens_to_so_many_channels_at_most(proxy: RedisProxy) -> None:
    """Of all kinds together; what it listens to already, or names twice, counts once."""
    with proxy.raw() as sock:
        sock.sendall(command([b"SUBSCRIBE", *(b"c%d" % n for n in range(998))]))
        until(sock, b":998\r\n")
        sock.sendall(b"SUBSCRIBE c1 c2 c1 more more\r\n")
        until(sock, b"$4\r\nmore\r\n:999\r\n")
        sock.sendall(b"SSUBSCRIBE s\r\n")
        until(sock, b":1\r\n")
        for words in ("SUBSCRIBE c1 c999", "PSUBSCRIBE p*", "SSUBSCRIBE t"):
            sock.sendall(f"{words}\r\nPING\r\n".encode())
            said = until(sock, b"pong\r\n$0\r\n\r\n")
            assert said.startswith(b"-ERR shardproxy lets one client listen to 1000 channels"), said
        sock.sendall(b"UNSUBSCRIBE c1\r\nPSUBSCRIBE p*\r\n")
        until(sock, b"$2\r\np*\r\n:999\r\n")


def test_names_of_channels_have_so_many_bytes_at_most(proxy: RedisProxy) -> None:
    """What is given back may be used again."""
    with proxy.raw() as sock:
        for _ in range(3):
            for number in range(3):
                sock.sendall(command([b"SUBSCRIBE", b"x" * MIB + b"%d" % number]))
                until(sock, b":%d\r\n" % (number + 1))
            sock.sendall(command([b"SUBSCRIBE", b"y" * MIB]))
            said = until(sock, b"connection\r\n")
            assert said.startswith(b"-ERR") and b"4194304 bytes at most (redis.client_buffer)" in said
            sock.sendall(b"UNSUBSCRIBE\r\n")
            until(sock, b":0\r\n")
