"""KILL, clients that vanish, server connections that are lost: what runs ends, what is held is given back."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from shardproxy.protocol.mysql.constants import Com
from tests.integration.process_list import kill_servers_clients, wait_gone, wait_running
from tests.proxy import SPLIT, ProxyUnderTest, eventually, transactions
from tests.wire import Closed, RawClient, Refused, code_of

# ── KILL ──


def ident_of(client: RawClient) -> int:
    assert client.auth.greeting is not None
    return client.auth.greeting.connection_id


@pytest.fixture
def on_two_workers(proxy: ProxyUnderTest) -> Iterator[tuple[RawClient, RawClient]]:
    """Two clients that different workers serve."""
    clients = [RawClient(proxy.port)]
    while len({ident_of(client) >> 24 for client in clients}) < 2:
        clients.append(RawClient(proxy.port))
        assert len(clients) < 200
    yield clients[0], clients[-1]
    for client in clients:
        client.close()


SLOW = "SELECT SLEEP(61)"


def test_kill_query_on_the_same_worker(proxy: ProxyUnderTest) -> None:
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(RawClient(proxy.port))
        killer = stack.enter_context(RawClient(proxy.port))
        while ident_of(killer) >> 24 != ident_of(victim) >> 24:
            killer = stack.enter_context(RawClient(proxy.port))
        victim.send(bytes((Com.QUERY,)) + SLOW.encode())
        wait_running(proxy.primary(0), SLOW)
        killer.query(f"KILL QUERY {ident_of(victim)}")
        wait_gone(proxy.primary(0), SLOW)
        with contextlib.suppress(Refused):  # MySQL's SLEEP gives 1, MariaDB's an error
            assert victim.result().rows == [[b"1"]]
        assert victim.rows("SELECT 1") == [[b"1"]]


@contextlib.contextmanager
def locked_users(proxy: ProxyUnderTest) -> Iterator[None]:
    """While it lasts, every statement on `users` waits, on both shards."""
    with contextlib.ExitStack() as stack:
        for shard in (0, 1):
            connection = stack.enter_context(proxy.primary(shard).connect("main"))
            connection.cursor().execute("LOCK TABLES users WRITE")
        yield


@pytest.mark.parametrize("sql", [SLOW, "SELECT /* waits */ name FROM users"], ids=["one shard", "scattered"])
@pytest.mark.parametrize("query_only", [False, True], ids=["connection", "query"])
def test_kill_ends_statements_everywhere(
    proxy: ProxyUnderTest, on_two_workers: tuple[RawClient, RawClient], sql: str, query_only: bool
) -> None:
    victim, killer = on_two_workers
    shards = (0, 1) if "users" in sql else (0,)
    with locked_users(proxy):
        victim.send(bytes((Com.QUERY,)) + sql.encode())
        for shard in shards:
            wait_running(proxy.primary(shard), sql)
        killer.query(f"KILL {'QUERY' if query_only else ''} {ident_of(victim)}")
        for shard in shards:
            wait_gone(proxy.primary(shard), sql)
        if query_only:
            with contextlib.suppress(Refused):
                victim.result()
            assert victim.rows("SELECT 1") == [[b"1"]]
        else:
            with contextlib.suppress(Refused, Closed):
                victim.result()
            victim.expect_closed()
            assert code_of(killer, f"KILL {ident_of(victim)}") == 1094


def test_kill_of_nobody_and_of_others(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client, RawClient(proxy.port, "native", "native's secret") as other:
        for ident in {0, 1, 999, 0xFF000001, ident_of(other)} - {ident_of(client)}:
            assert code_of(client, f"KILL {ident}") in (1094, 1095)
        assert other.rows("SELECT 1") == [[b"1"]]
        server_thread = proxy.primary(0).rows("SELECT MAX(id) FROM information_schema.processlist")[0][0]
        assert code_of(client, f"KILL {server_thread}") == 1094  # ids of servers mean other clients


def test_kill_of_oneself(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        with contextlib.suppress(Refused, Closed):
            client.query(f"KILL {ident_of(client)}")
        client.expect_closed()


def test_kill_query_never_hits_the_next_client(narrow: ProxyUnderTest) -> None:
    """The statement may be over when the KILL arrives, and its connection with somebody else."""
    stop = threading.Event()
    broken: list[Exception] = []

    def quick() -> None:
        with RawClient(narrow.port) as client:
            while not stop.is_set():
                try:
                    client.query("SELECT name FROM users WHERE uid = 1")
                except Exception as error:
                    broken.append(error)
                    return

    bystander = threading.Thread(target=quick)
    with RawClient(narrow.port) as victim, RawClient(narrow.port) as killer:
        bystander.start()
        try:
            for _ in range(150):
                victim.send(bytes((Com.QUERY,)) + b"SELECT balance FROM users WHERE uid = 1")
                killer.query(f"KILL QUERY {ident_of(victim)}")
                with contextlib.suppress(Refused):
                    victim.result()
        finally:
            stop.set()
            bystander.join()
    assert not broken


# ── clients that vanish ──


@pytest.mark.parametrize("abruptly", [False, True], ids=["fin", "reset"])
def test_a_vanished_client_unlocks_its_rows(proxy: ProxyUnderTest, other: RawClient, abruptly: bool) -> None:
    import socket
    import struct

    other.query("INSERT INTO users VALUES (1, 'a', 1)")
    client = RawClient(proxy.port)
    client.query("BEGIN")
    client.query("UPDATE users SET balance = 100 WHERE uid = 1")
    if abruptly:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    started = time.monotonic()
    other.query("UPDATE users SET balance = balance + 1 WHERE uid = 1")
    assert time.monotonic() - started < 5
    assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"2"]]
    eventually(lambda: proxy.busy() == 0, "no connection is held any more")


@pytest.mark.parametrize("begin", [False, True], ids=["", "in a transaction"])
@pytest.mark.parametrize(
    "sql",
    [
        SLOW,
        "SELECT /* waits */ name FROM users",
        "UPDATE /* waits */ users SET balance = 7 WHERE uid = 1",
        "SELECT /* waits */ name FROM users WHERE uid = 1",
    ],
    ids=["sleep", "scatter", "update", "point"],
)
def test_a_vanished_client_ends_its_statement(proxy: ProxyUnderTest, sql: str, begin: bool) -> None:
    for shard in (0, 1):
        proxy.primary(shard).rows(f"INSERT INTO main.users VALUES ({shard * SPLIT + 1}, 'a', 1)")
    scattered = "uid" not in sql and "users" in sql
    client = RawClient(proxy.port)
    if begin and not scattered:
        client.query("BEGIN")
    with locked_users(proxy):
        client.send(bytes((Com.QUERY,)) + sql.encode())
        for shard in (0, 1) if scattered else (0,):
            wait_running(proxy.primary(shard), sql)
        client.close()
        for shard in (0, 1):
            wait_gone(proxy.primary(shard), sql)
    eventually(lambda: proxy.busy() == 0, "no connection is held any more")
    assert proxy.primary(0).rows("SELECT balance FROM main.users WHERE uid = 1") == [(1,)]


def test_a_lost_server_connection_ends_a_transaction_loudly(proxy: ProxyUnderTest, client: RawClient) -> None:
    """The client must not go on as if its transaction still were."""
    client.query("BEGIN")
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    kill_servers_clients(proxy.primary(0))
    with pytest.raises((Refused, Exception)) as lost:
        client.query("INSERT INTO users VALUES (2, 'b', 1)")
    assert lost.type.__name__ in ("Closed", "Refused", "BrokenPipeError")
    assert proxy.primary(0).rows("SELECT * FROM main.users") == []
    with RawClient(proxy.port) as fresh:
        fresh.query("INSERT INTO users VALUES (3, 'c', 1)")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE /* waits */ users SET balance = balance + 1",
        "SELECT /* waits */ balance FROM users FOR UPDATE",
        "DELETE /* waits */ FROM users",
    ],
    ids=["update", "locking read", "delete"],
)
def test_a_lost_server_connection_ends_a_statement_on_the_other_shards(proxy: ProxyUnderTest, sql: str) -> None:
    """The statement is over on shard1, whose connection is lost while shard2 is at work on it: nobody may find rows
    locked for a client that has been answered long ago."""
    rows = f"(1, 'a', 0), ({SPLIT + 1}, 'b', 0)"
    here, there = proxy.primary(0), proxy.primary(1)
    with RawClient(proxy.port) as client:
        client.query(f"INSERT INTO users VALUES {rows}")
        with there.connect("main") as holder, holder.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM users FOR UPDATE")
            client.send(bytes((Com.QUERY,)) + sql.encode())
            wait_running(there, sql)
            kill_servers_clients(here)
            cursor.execute("ROLLBACK")
        told = contextlib.nullcontext() if sql.startswith("SELECT") else pytest.raises(Refused)
        with told:
            client.result()
        assert sorted(client.rows("SELECT uid, balance FROM users FOR UPDATE")) == sorted(
            [[b"1", b"0"], [b"%d" % (SPLIT + 1), b"0"]]
        )
    eventually(lambda: proxy.busy() == 0, "nothing is held")


@contextlib.contextmanager
def standing_still(pids: list[int]) -> Iterator[None]:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("begin", ["BEGIN", "SET autocommit = 0"])
@pytest.mark.parametrize("uids", ["1", f"1, {SPLIT + 1}"], ids=["one shard", "both shards"])
@pytest.mark.parametrize("loss_first", [False, True], ids=["statement first", "loss first"])
def test_a_statement_for_another_shard_ends_with_its_transaction(
    proxy: ProxyUnderTest, client: RawClient, begin: str, uids: str, loss_first: bool
) -> None:
    """A worker sees in one turn that the transaction's server is lost, and a statement for another server: that must
    not run there as a transaction of its own."""
    client.query(f"INSERT INTO users VALUES (1, 'a', 0), ({SPLIT + 1}, 'b', 0)")
    client.query(begin)
    client.query(f"UPDATE users SET balance = balance + 1 WHERE uid = {SPLIT + 1}")
    with standing_still(proxy.worker_pids()):
        if loss_first:
            kill_servers_clients(proxy.primary(1), seen=False)
        client.send(bytes((Com.QUERY,)) + f"UPDATE users SET balance = balance + 1 WHERE uid IN ({uids})".encode())
        if not loss_first:
            kill_servers_clients(proxy.primary(1), seen=False)
    with pytest.raises((Refused, Closed, OSError)):
        client.result()
    eventually(lambda: proxy.busy() == 0, "nothing is held")
    assert proxy.primary(0).rows("SELECT balance FROM main.users") == [(0,)]
    assert proxy.primary(1).rows("SELECT balance FROM main.users") == [(0,)]


def test_idle_sessions_do_not_notice_lost_connections(proxy: ProxyUnderTest, client: RawClient) -> None:
    client.query("INSERT INTO users VALUES (1, 'a', 1)")
    client.query("SET time_zone = '+06:00'")
    statement = client.prepare("SELECT name FROM users WHERE uid = 1")
    client.execute(statement)
    for _ in range(3):
        kill_servers_clients(proxy.primary(0))
        assert client.execute(statement).rows == [[b"a"]]
        assert client.rows("SELECT @@time_zone, name FROM users WHERE uid = 1") == [[b"+06:00", b"a"]]
        client.query("UPDATE users SET balance = balance + 1 WHERE uid = 1")


def test_nothing_is_left_open(proxy: ProxyUnderTest) -> None:
    """Last of this file: whatever the tests before did, no transaction and no connection is held any more."""
    eventually(lambda: proxy.busy() == 0 and proxy.pinned() == {}, "nothing is held")
    # The proxy's own looks at tables, and its deleting of old decisions, are transactions too, but not for long. What
    # a test has left is still there after these seconds: recovery leaves it alone for longer.
    eventually(
        lambda: all(transactions(proxy.primary(shard), "COUNT(*)") == [(0,)] for shard in (0, 1)),
        "no transaction is left",
        4.0,
    )
