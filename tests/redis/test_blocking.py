"""Commands that block, and WAIT, through the proxy: nobody else waits, and no element goes to who is gone."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from tests.proxy import eventually
from tests.redis.kinds import Kind, cluster_of
from tests.redis.proxied import RedisProxy, keys_on, node_of, reads, redis_proxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    with redis_proxy(cluster, redis={"timeout": "300ms"}) as running:
        yield running


def blocks(proxy: RedisProxy, count: int = 1) -> None:
    """Return when so many clients have their own connections."""
    eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == count, f"{count} clients block")


def line(sock: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n"):
        found += reads(sock, 1)
    return found


def test_only_the_client_waits_and_its_commands_stay_in_order(proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock:
        sock.sendall(b"RPUSH other 1\r\nBLPOP l 0\r\nRPUSH other 2\r\nBLPOP l 0\r\nLRANGE other 0 -1\r\n")
        blocks(proxy)
        sock.sendall(b"PING\r\n")
        assert client.lrange("other", 0, -1) == [b"1"]
        client.rpush("l", "a", "b")
        wanted = (
            b":1\r\n*2\r\n$1\r\nl\r\n$1\r\na\r\n:2\r\n*2\r\n$1\r\nl\r\n$1\r\nb\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n+PONG\r\n"
        )
        assert reads(sock, len(wanted)) == wanted
    blocks(proxy, 0)


def test_longer_than_the_time_for_replies(proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock, proxy.raw() as endless:
        endless.sendall(b"BLPOP endless 0\r\n")
        sock.sendall(b"BLPOP l 1.2\r\nXREAD BLOCK 1200 STREAMS s $\r\nPING\r\n")
        assert reads(sock, 17) == b"*-1\r\n*-1\r\n+PONG\r\n"
        client.rpush("endless", "x")
        assert line(endless) == b"*2\r\n"


def test_no_element_goes_to_a_client_that_is_gone(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    for half in (False, True):
        sock = proxy.raw()
        sock.sendall(b"GET none\r\nBLPOP l 0\r\nBLPOP l 0\r\n")
        assert line(sock) == b"$-1\r\n"
        blocks(proxy)
        if half:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        sock.close()
        blocks(proxy, 0)
        with node_of(cluster, client, "l2").connect() as direct:
            direct.ping()
        assert client.rpush("l", "a") == 1
        assert client.lpop("l") == b"a"


def test_a_node_that_dies(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    keys = keys_on(cluster, client)
    node = cluster.redis[0]
    client.flushall()
    with proxy.raw() as sock, proxy.raw() as other:
        sock.sendall(f"BLPOP {keys[node.name]} 0\r\nPING\r\n".encode())
        other.sendall(f"BLPOP {keys[cluster.redis[1].name]} 0\r\n".encode())
        blocks(proxy, 2)
        with node.connect() as direct:  # the proxy counts it when it may still be on its way
            eventually(lambda: direct.info("clients")["blocked_clients"] == 1, "it blocks")
        node.kill()
        found = line(sock)
        assert found.startswith(b"-ERR node redis1 (") and b"whether it ran is not known" in found
        assert line(sock) == b"+PONG\r\n"
        sock.sendall(f"BLPOP {keys[node.name]} 0\r\n".encode())
        assert b"cannot connect" in (found := line(sock)) and b"the command was not sent" in found
        client.rpush(keys[cluster.redis[1].name], "x")
        assert line(other) == b"*2\r\n"
        node.restart()
        sock.sendall(f"BLPOP {keys[node.name]} 0.1\r\n".encode())
        while (found := line(sock)) != b"*-1\r\n":  # until the pause between attempts is over
            assert found.startswith(b"-ERR node redis1")
            sock.sendall(f"BLPOP {keys[node.name]} 0.1\r\n".encode())


def test_keys_on_several_nodes(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock:
        sock.sendall(
            f"BLPOP {' '.join(keys_on(cluster, client).values())} 0\r\nBLMPOP 0 x l LEFT\r\nBLPOP l x\r\n".encode()
        )
        assert line(sock).startswith(b"-CROSSSLOT Keys in request don't hash to the same slot: BLPOP needs them on one")
        assert line(sock).startswith(b"-ERR numkeys") and line(sock).startswith(b"-ERR timeout is not a float")


def test_while_it_watches(proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock:
        sock.sendall(b"WATCH {b}k\r\nBLPOP {b}l 0\r\nMULTI\r\nGET {b}k\r\nEXEC\r\n")
        blocks(proxy)
        client.set("{b}k", "changed")
        client.rpush("{b}l", "x")
        wanted = b"+OK\r\n*2\r\n$4\r\n{b}l\r\n$1\r\nx\r\n+OK\r\n+QUEUED\r\n*-1\r\n"
        assert reads(sock, len(wanted)) == wanted


def test_unblock(proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as sock:
        sock.sendall(b"CLIENT ID\r\n")
        number = int(line(sock)[1:])
        assert client.execute_command("CLIENT UNBLOCK", number) == 0 == client.execute_command("CLIENT UNBLOCK", 1)
        for command, reason, wanted in (
            ("BLPOP l 0", "TIMEOUT", b"*-1\r\n"),
            ("XREAD BLOCK 0 STREAMS s $", "ERROR", b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
            ("WAIT 1 0", "TIMEOUT", b":0\r\n"),
        ):
            sock.sendall(f"{command}\r\n".encode())
            ended = 0
            while not select.select([sock], [], [], 0)[0]:  # a command may still be on its way to some node
                ended += client.execute_command("CLIENT UNBLOCK", number, reason)
            assert ended
            assert line(sock) == wanted
        sock.sendall(b"PING\r\n")
        assert line(sock) == b"+PONG\r\n"
        for words, error in (("x", "not an integer"), ("1 FOO", "reason should be"), ("1 ERROR x", "syntax error")):
            sock.sendall(f"CLIENT UNBLOCK {words}\r\n".encode())
            assert error.encode() in line(sock)


def test_connections_are_used_again(cluster: LocalCluster, proxy: RedisProxy, client: Any) -> None:
    with node_of(cluster, client, "l").connect() as direct, proxy.raw() as sock:
        client.delete("l")
        sock.sendall(b"BLPOP l 0.01\r\n")
        assert line(sock) == b"*-1\r\n"
        before = direct.info("stats")["total_connections_received"]
        for _ in range(20):
            sock.sendall(b"BLPOP l 0.01\r\n")
            assert line(sock) == b"*-1\r\n"
        assert direct.info("stats")["total_connections_received"] == before


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_wait_counts_replicas_that_have_the_writes(kind: Kind) -> None:
    """Two nodes with a replica each; one replica stands still for a while."""
    with cluster_of(kind, 4, shards=1) as cluster:
        servers: list[RedisNode] = cluster.redis or cluster.valkey
        follow(servers[2], servers[0])
        follow(servers[3], servers[1])
        nodes = {node.name: node.address for node in servers[:2]}
        with redis_proxy(cluster, nodes=nodes) as proxy, proxy.raw() as sock:
            sock.sendall(b"MSET a 1 b 2 c 3 d 4\r\nWAIT 1 10000\r\n")
            assert (line(sock), line(sock)) == (b"+OK\r\n", b":1\r\n")
            os.kill(servers[3].pid, signal.SIGSTOP)
            try:
                sock.sendall(b"MSET a 1 b 2 c 3 d 4\r\nWAIT 1 300\r\nPING\r\n")
                assert (line(sock), line(sock), line(sock)) == (b"+OK\r\n", b":0\r\n", b"+PONG\r\n")
                sock.sendall(b"WAIT 1 0\r\n")
                assert not select.select([sock], [], [], 0.3)[0]
            finally:
                os.kill(servers[3].pid, signal.SIGCONT)
            assert line(sock) == b":1\r\n"


def follow(replica: RedisNode, primary: RedisNode) -> None:
    with replica.connect() as direct, primary.connect() as other:
        other.config_set("repl-diskless-sync-delay", "0")
        direct.replicaof("127.0.0.1", primary.port)
        eventually(lambda: direct.info("replication")["master_link_status"] == "up", "it follows", 30)
