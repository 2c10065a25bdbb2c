"""MULTI, EXEC and WATCH through the proxy: what one server does, and what happens when nodes or clients go."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from shardproxy.protocol.redis.encode import command
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, keys_on, node_of, reads, redis_proxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=4) as running:
        yield running


@pytest.fixture(scope="module")
def nodes(cluster: LocalCluster) -> list[RedisNode]:
    """Those of the proxy; one more is the server to compare with."""
    return cluster.redis[:3]


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, nodes: list[RedisNode]) -> Iterator[RedisProxy]:
    with redis_proxy(cluster, nodes={node.name: node.address for node in nodes}) as running:
        yield running


def ask(sock: socket.socket, *commands: str) -> bytes:
    """All replies to some commands, sent in one packet."""
    sock.sendall(b"".join(command(text.encode().split()) for text in (*commands, "ECHO the-end")))
    found = b""
    while not found.endswith(b"$7\r\nthe-end\r\n"):
        data = sock.recv(1 << 16)
        assert data, found
        found += data
    return found.removesuffix(b"$7\r\nthe-end\r\n")


def begin(sock: socket.socket, *commands: str) -> bytes:
    """The replies to some commands that end behind MULTI: a line each."""
    sock.sendall(b"".join(command(text.encode().split()) for text in commands))
    found = b""
    while found.count(b"\r\n") < len(commands):
        data = sock.recv(1 << 16)
        assert data, found
        found += data
    return found


_KEYS = st.sampled_from(["{t}a", "{t}b", "{t}c"])
_COMMANDS = st.one_of(
    st.builds("SET {} {}".format, _KEYS, st.integers(0, 99)),
    st.builds("GET {}".format, _KEYS),
    st.builds("INCR {}".format, _KEYS),
    st.builds("RPUSH {} x".format, _KEYS),
    st.builds("BLPOP {} 0.01".format, _KEYS),
    st.builds("MGET {} {}".format, _KEYS, _KEYS),
    st.builds("DEL {} {}".format, _KEYS, _KEYS),
    st.builds("MSET {} 1 {} 2".format, _KEYS, _KEYS),
    st.builds("WATCH {}".format, _KEYS),
    st.sampled_from(
        ["MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "UNWATCH", "PING", "GET", "NOSUCH", "SELECT 0", "ECHO x"]
    ),
)


_TRANSACTIONS = st.builds(
    lambda first, inner, last: [*first, "MULTI", *inner, last],
    st.lists(st.builds("WATCH {}".format, _KEYS) | _COMMANDS, max_size=3),
    st.lists(_COMMANDS, max_size=4),
    st.sampled_from(["EXEC", "EXEC", "EXEC", "DISCARD"]),
)
_SESSIONS = st.lists(_TRANSACTIONS | st.lists(_COMMANDS, max_size=5), max_size=6).map(
    lambda parts: [text for part in parts for text in part]
)


@settings(max_examples=200)
@given(commands=_SESSIONS, protocol=st.sampled_from([2, 3]), data=st.data())
def test_any_commands_are_answered_as_by_one_server(
    cluster: LocalCluster, proxy: RedisProxy, commands: list[str], protocol: int, data: st.DataObject
) -> None:
    hello = b"HELLO %d\r\n" % protocol
    sent = b"".join(command(text.encode().split()) for text in [*commands, "RESET", "FLUSHALL", "ECHO the-end"])
    cut = data.draw(st.integers(0, len(sent)))
    answers = []
    for port in (proxy.port, cluster.redis[3].port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(hello)
            greeting = b""
            while b"modules" not in greeting:
                greeting += sock.recv(4096)
            sock.sendall(sent[:cut])
            sock.sendall(sent[cut:])
            found = b""
            while not found.endswith(b"the-end\r\n"):
                found += sock.recv(1 << 16)
            answers.append(found)
    assert answers[0] == answers[1]


def test_keys_of_another_node_end_a_transaction(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    first, second, _ = keys_on(cluster, client, 3).values()
    with proxy.raw() as sock:
        lines = ask(
            sock, "MULTI", f"SET {first} 1", f"SET {second} 1", f"MGET {first} {second}", "DBSIZE", "EXEC"
        ).split(b"\r\n")
        assert lines[:2] == [b"+OK", b"+QUEUED"]
        assert lines[2].startswith(b"-CROSSSLOT") and b"those of SET are on another node" in lines[2]
        assert lines[3].startswith(b"-CROSSSLOT") and lines[4].startswith(b"-ERR shardproxy does not do DBSIZE")
        assert lines[5:] == [b"-EXECABORT Transaction discarded because of previous errors.", b""]
        assert client.get(first) == b"here"
        assert ask(sock, f"WATCH {first} {second}").startswith(b"-CROSSSLOT")
        assert b"watched already are on another node" in ask(sock, f"WATCH {first}", f"WATCH {second}", "UNWATCH")
        # Watched keys decide the node too.
        assert b"-CROSSSLOT" in ask(sock, f"WATCH {first}", "MULTI", f"GET {second}", "DISCARD")
        assert (
            ask(sock, f"GET {second}", "MULTI", f"GET {second}", "EXEC")
            == b"$4\r\nhere\r\n+OK\r\n+QUEUED\r\n*1\r\n$4\r\nhere\r\n"
        )


def test_what_only_the_node_refuses_is_the_reason_of_the_abort(
    cluster: LocalCluster, proxy: RedisProxy, client: Any
) -> None:
    with node_of(cluster, client, "k").connect() as direct, proxy.raw() as sock:
        direct.config_set("maxmemory", "1")
        try:
            found = ask(sock, "MULTI", "GET k", "SET k 1", "EXEC", "GET k")
        finally:
            direct.config_set("maxmemory", "0")
    assert found.startswith(
        b"+OK\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT Transaction discarded because of: OOM command not"
    )
    assert found.endswith(b"$4\r\nhere\r\n")


def test_a_transaction_has_a_limit(cluster: LocalCluster, nodes: list[RedisNode]) -> None:
    with redis_proxy(cluster, "short", redis={"max_command": "1KiB"}) as short, short.raw() as sock:
        found = ask(sock, "MULTI", *[f"SET k {'v' * 100}"] * 10, "EXEC")
        assert found.count(b"+QUEUED") == 5 and b"longer than redis.max_command" in found
        assert found.endswith(b"-EXECABORT Transaction discarded because of previous errors.\r\n")
        found = ask(sock, "MULTI", *["GET k"] * 20, "EXEC")  # small ones cost memory too
        assert found.count(b"+QUEUED") == 12 and b"longer than redis.max_command" in found


def test_a_node_that_refuses_multi_does_nothing_at_all(cluster: LocalCluster) -> None:
    server = cluster.redis[3]
    with server.connect() as direct:
        direct.execute_command("ACL", "SETUSER", "proxy", "on", ">word", "~*", "&*", "+@all", "-multi")
        settings = {"user": "proxy", "password": "word"}
        with (
            redis_proxy(cluster, "strict", nodes={"r": server.address}, redis=settings) as strict,
            strict.raw() as sock,
        ):
            for watch in ("PING", "WATCH k"):
                found = ask(sock, watch, "SET k old", "MULTI", "SET k new", "EXEC", "GET k")
                assert b"-EXECABORT Transaction discarded because of: node r (" in found and b"says NOPERM" in found
                assert found.endswith(b"$3\r\nold\r\n")


def test_increments_under_watch_are_all_there(proxy: RedisProxy, client: Any) -> None:
    """Each thread reads, then writes if nothing has changed; the commands come in one packet as far as possible."""
    wanted, wins = 60, [0] * 4

    def work(number: int) -> None:
        with proxy.raw() as sock:
            while wins[number] < wanted:
                reply = ask(sock, "SET {c}other 1", "WATCH {c}n", "GET {c}n").split(b"\r\n")
                value = int(reply[3]) if reply[2] != b"$-1" else 0
                done = ask(sock, "MULTI", f"SET {{c}}n {value + 1}", "GET {c}other", "EXEC", "GET {c}other")
                assert done.endswith(b"$1\r\n1\r\n")
                wins[number] += b"*2\r\n+OK\r\n$1\r\n1" in done

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(wins))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("{c}n") == b"%d" % (wanted * len(wins))
    assert proxy.metric("shardproxy_redis_own_connections") == 0


def test_own_writes_before_watch_do_not_count(proxy: RedisProxy, client: Any) -> None:
    """They are still on their way on the connection that all share when WATCH could be there already."""
    size = 30_000_000
    with proxy.raw() as sock:
        for _ in range(2):
            found = ask(
                sock, "WATCH k", "UNWATCH", f"SET k {'v' * size}", "WATCH k", "MULTI", "STRLEN k", "EXEC", "DEL k"
            )
            assert found.endswith(b"*1\r\n:%d\r\n:1\r\n" % size)


def test_a_node_that_dies_while_a_transaction_runs(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    node = node_of(cluster, client, "k")
    for watch in ("PING", "WATCH k"):
        with proxy.raw() as sock:
            begin(sock, watch, "MULTI", "APPEND k x")
            os.kill(node.pid, signal.SIGSTOP)
            sock.sendall(b"EXEC\r\n")
            with proxy.connect() as other:
                assert other.ping()  # so the first client's command was done
            node.kill()
            line = reads(sock, 1)
            while not line.endswith(b"\r\n"):
                line += sock.recv(1000)
            assert b"-ERR node " + node.name.encode() in line and b"whether it ran is not known" in line
            node.restart()
            eventually(lambda: not is_error(client, "k"), "the node can be used again")
            assert client.get("k") is None
            assert ask(sock, "MULTI", "APPEND k y", "EXEC", "GET k").endswith(b"*1\r\n:1\r\n$1\r\ny\r\n")
            client.delete("k")


def is_error(client: Any, key: str) -> bool:
    try:
        client.get(key)
    except redis.ResponseError:
        return True
    return False


def test_what_was_watched_on_a_broken_connection_is_not_taken_for_unchanged(
    cluster: LocalCluster, proxy: RedisProxy, client: Any
) -> None:
    node = node_of(cluster, client, "k")
    with proxy.raw() as sock, node.connect() as direct:
        for early in (True, False):
            assert begin(sock, "WATCH k", *([] if early else ["MULTI", "SET k new"])).startswith(b"+OK\r\n")
            direct.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == 0, "the proxy has seen it")
            found = ask(sock, *(["MULTI", "SET k new"] if early else []), "EXEC", "GET k")
            assert b"-EXECABORT Transaction discarded because of: what was watched is not any more: node " in found
            assert found.endswith(b"$4\r\nhere\r\n")
            assert ask(sock, "WATCH k", "MULTI", "GET k", "EXEC").endswith(b"*1\r\n$4\r\nhere\r\n")


def test_a_client_that_goes_leaves_nothing_watched(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock:
        begin(sock, "WATCH k", "MULTI", "SET k 1")
        assert proxy.metric("shardproxy_redis_own_connections") == 1
    eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == 0, "its connection is closed")
    assert client.get("k") is None
    with proxy.raw() as sock:
        assert ask(sock, "WATCH k", "RESET", "SET k 1", "MULTI", "GET k", "EXEC").endswith(b"*1\r\n$1\r\n1\r\n")


def test_connections_of_their_own_have_a_limit(cluster: LocalCluster) -> None:
    with redis_proxy(cluster, "few", redis={"own_connections": 1}) as few, few.raw() as sock, few.raw() as other:
        assert ask(sock, "WATCH k") == b"+OK\r\n"
        assert b"-ERR node " in (found := ask(other, "WATCH k")) and b"raise redis.own_connections" in found
        assert few.metric("shardproxy_redis_own_connections_refused_total") == 1
        assert ask(other, "MULTI", "SET k 1", "EXEC").endswith(b"*1\r\n+OK\r\n")
        assert ask(sock, "MULTI", "EXEC") == b"+OK\r\n*-1\r\n"
        assert ask(other, "WATCH k", "HELLO 3", "UNWATCH", "HELLO 3").count(b"%7\r\n") == 1
        assert ask(other, "WATCH k") == b"+OK\r\n"  # an idle one of the other protocol makes room
