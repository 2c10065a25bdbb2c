"""Workers, servers and the proxy itself come and go: what clients see, and what they do not."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.local.proxy_environment import proxy_environment
from tests.proxy import USERS, ProxyUnderTest, eventually, start_proxy
from tests.wire import Closed, RawClient, Refused


def server_port(client: RawClient, uid: int = 1, hint: str = "") -> int:
    """The port of the server that answers a read of this key."""
    [[port]] = client.rows(f"SELECT {hint} @@port FROM users WHERE uid = {uid}")
    assert isinstance(port, bytes)
    return int(port)


def ports(client: RawClient, times: int = 12, uid: int = 1) -> Counter[int]:
    return Counter(server_port(client, uid) for _ in range(times))


def replica_reader(proxy: ProxyUnderTest) -> RawClient:
    """A client whose reads go to replicas."""
    return RawClient(proxy.port, "replicas", "replicas")


def fit(proxy: ProxyUnderTest, server: LocalServer) -> bool:
    """Whether the proxy thinks that the server may answer reads."""
    [seen] = [s for s in proxy.status()["servers"] if s["address"] == server.address]
    return bool(seen["up"]) and (seen["role"] == "primary" or seen["lag_s"] is not None)


def fill(proxy: ProxyUnderTest) -> None:
    """A row of `users` on each shard, and on its replicas."""
    proxy.primary(0).rows("INSERT INTO main.users (uid, name) VALUES (1, 'a')")
    proxy.primary(1).rows("INSERT INTO main.users (uid, name) VALUES (1001, 'b')")
    proxy.cluster.wait_replicated()


@contextmanager
def own_proxy(cluster: LocalCluster, name: str, **proxy: str | int) -> Iterator[ProxyUnderTest]:
    """A proxy that a test may harm."""
    made = start_proxy(cluster, name, proxy={"drain_timeout": "100ms", **proxy})
    try:
        made.empty()
        yield made
    finally:
        made.process.stop()


# ── reads and writes ──


@pytest.fixture(scope="module")
def wide(flavor: FlavorName) -> Iterator[ProxyUnderTest]:
    """A proxy in front of one shard with two replicas."""
    keyspaces = """
[keyspaces.main]
key_type = "int"
map = "range"
tables = { users = { key = "uid" } }
[[keyspaces.main.ranges]]
from = "min"
to = "max"
shard = "shard1"
"""
    with LocalCluster(flavor, shards=1, replicas=2) as cluster:
        primary = cluster.shards[0].primary
        primary.rows("CREATE DATABASE main")
        primary.rows("CREATE TABLE main.users (uid BIGINT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL)")
        primary.rows("INSERT INTO main.users VALUES (1, 'a')")
        cluster.wait_replicated()
        made = start_proxy(
            cluster, "wide", proxy={"workers": 1, "drain_timeout": "100ms"}, backend={"max_lag": "2s"},
            keyspaces=keyspaces, users={name: USERS[name] for name in ("app", "replicas")},
        )  # fmt: skip
        yield made
        made.process.stop()


def test_reads_go_round_the_replicas_and_writes_to_the_primary(wide: ProxyUnderTest) -> None:
    shard = wide.cluster.shards[0]
    replicas = {replica.port for replica in shard.replicas}
    eventually(lambda: all(fit(wide, replica) for replica in shard.replicas), "both replicas are fit")
    with replica_reader(wide) as client:
        found = ports(client, 20)
        assert set(found) == replicas
        assert max(found.values()) - min(found.values()) <= 2, found
        assert server_port(client, hint="/*shardproxy: primary*/") == shard.primary.port
        [[port]] = client.rows("SELECT @@port FROM users WHERE uid = 1 FOR UPDATE")
        assert int(str(port, "ascii")) == shard.primary.port  # type: ignore[arg-type]
        client.query("BEGIN")
        assert server_port(client) == shard.primary.port
        client.query("COMMIT")
        assert server_port(client) in replicas
        statement = client.prepare("SELECT @@port FROM users WHERE uid = ?")
        prepared = Counter(str(client.execute(statement, [(8, False, 1)]).rows[0][0]) for _ in range(12))
        assert {int(port) for port in prepared} == replicas
    with RawClient(wide.port) as app:  # reads = "primary"
        assert set(ports(app, 4)) == {shard.primary.port}


@contextmanager
def halted(server: LocalServer) -> Iterator[None]:
    """The replica's replication stands still meanwhile."""
    server.rows("STOP REPLICA")
    try:
        yield
    finally:
        server.rows("START REPLICA")


def test_replicas_that_do_not_follow_are_left_out(wide: ProxyUnderTest) -> None:
    shard = wide.cluster.shards[0]
    one, two = shard.replicas
    with replica_reader(wide) as client:
        with halted(one):
            eventually(lambda: not fit(wide, one), "the health check sees it")
            assert set(ports(client)) == {two.port}
            with halted(two):
                eventually(lambda: not fit(wide, two), "the health check sees it")
                assert set(ports(client)) == {shard.primary.port}
            [seen] = [s for s in wide.status()["servers"] if s["address"] == one.address]
            assert "replication does not run" in seen["reason"]
        eventually(lambda: set(ports(client)) == {one.port, two.port}, "both are back")


def test_a_replica_that_lags_is_left_out(wide: ProxyUnderTest) -> None:
    """A locked table holds its applier up; MySQL and MariaDB then count the seconds."""
    shard = wide.cluster.shards[0]
    slow, other = shard.replicas
    eventually(lambda: fit(wide, slow) and fit(wide, other), "both replicas are fit")
    with slow.connect("main") as lock, lock.cursor() as cursor, replica_reader(wide) as client:
        cursor.execute("LOCK TABLES users READ")
        shard.primary.rows("INSERT INTO main.users VALUES (2, 'late')")
        eventually(lambda: set(ports(client)) == {other.port}, "it is more than two seconds behind", 20)
        cursor.execute("UNLOCK TABLES")
        eventually(lambda: set(ports(client)) == {slow.port, other.port}, "it has caught up", 20)
    shard.primary.rows("DELETE FROM main.users WHERE uid = 2")
    wide.cluster.wait_replicated()  # the next test counts rows on replicas


def test_killed_replicas_cost_no_reader_an_error(wide: ProxyUnderTest) -> None:
    shard = wide.cluster.shards[0]
    one, two = shard.replicas
    stop = threading.Event()
    errors: list[str] = []
    seen: Counter[int] = Counter()

    def read() -> None:
        with replica_reader(wide) as client:
            statement = client.prepare("SELECT @@port FROM users WHERE uid = ?")
            while not stop.is_set():
                try:
                    seen[server_port(client)] += 1
                    [[port]] = client.execute(statement, [(8, False, 1)]).rows
                    seen[int(str(port))] += 1
                    assert client.rows("SELECT uid FROM users") == [[b"1"]]
                except (Refused, Closed) as error:
                    errors.append(str(error))
                    return

    readers = [threading.Thread(target=read) for _ in range(4)]
    try:
        for reader in readers:
            reader.start()
        eventually(lambda: seen[one.port] > 20 and seen[two.port] > 20, "both replicas are read")
        one.kill()
        eventually(lambda: not fit(wide, one), "the health check sees it")
        two.kill()
        eventually(lambda: not fit(wide, two), "the health check sees it")
        at = seen[shard.primary.port]
        eventually(lambda: seen[shard.primary.port] > at + 20, "the primary is read")
        one.start()
        two.start()
        before = seen[one.port]
        eventually(lambda: seen[one.port] > before + 20, "the replica is read again", 20)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        for replica in (one, two):
            if not replica.running:
                replica.start()
    assert errors == []


# ── workers ──


def worker_of(proxy: ProxyUnderTest, client: RawClient) -> int:
    """Pid of the worker that serves the client."""
    [[ident]] = client.rows("SELECT CONNECTION_ID()")
    assert isinstance(ident, bytes)
    [pid] = [w["pid"] for w in proxy.status()["workers"] if int(w["worker"]) == int(ident) >> 24]
    return int(pid)


def test_a_killed_worker_is_replaced_and_the_others_go_on(mariadb_cluster: LocalCluster) -> None:
    with own_proxy(mariadb_cluster, "killed-worker") as proxy, contextlib.ExitStack() as stack:
        fill(proxy)
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(24)]
        for client in clients:
            client.query("SELECT name FROM users WHERE uid = 1")
        homes = {pid: [c for c in clients if worker_of(proxy, c) == pid] for pid in proxy.worker_pids()}
        victim, other = homes
        assert homes[victim] and homes[other], "SO_REUSEPORT spreads clients over the workers"
        for client in homes[other]:
            client.query("BEGIN")
            client.query("UPDATE users SET balance = balance + 1 WHERE uid = 1001")
            client.query("ROLLBACK")
        for client in (homes[victim][0], homes[other][0]):
            client.query("BEGIN")
        homes[victim][0].query("UPDATE users SET balance = 7 WHERE uid = 1")
        homes[other][0].query("UPDATE users SET balance = 8 WHERE uid = 1001")
        queries = proxy.metric("shardproxy_queries_total")
        connections = proxy.metric("shardproxy_connections_total")
        assert queries >= 24
        os.kill(victim, signal.SIGKILL)
        for client in homes[victim]:
            client.expect_closed()
        for client in homes[other][1:]:
            assert client.rows("SELECT name FROM users WHERE uid = 1001") == [[b"b"]]
        homes[other][0].query("COMMIT")
        eventually(lambda: len(proxy.worker_pids()) == 2 and victim not in proxy.worker_pids(), "it is replaced")
        eventually(lambda: b"ok" in proxy.get("/healthz").lower() and ready(proxy), "all are ready", 30)
        assert other in proxy.worker_pids()
        assert proxy.status()["totals"]["worker_restarts"] == 1
        assert proxy.metric("shardproxy_worker_restarts_total") == 1
        assert proxy.metric("shardproxy_queries_total") >= queries
        assert proxy.metric("shardproxy_connections_total") >= connections
        assert proxy.clients() == len(homes[other])
        fresh = [stack.enter_context(RawClient(proxy.port)) for _ in range(24)]
        for client in fresh:
            assert client.rows("SELECT balance FROM users WHERE uid = 1") == [[b"0"]], "its transaction is undone"
            assert client.rows("SELECT balance FROM users WHERE uid = 1001") == [[b"8"]]
        assert {worker_of(proxy, client) for client in fresh} == set(proxy.worker_pids())


def ready(proxy: ProxyUnderTest) -> bool:
    try:
        proxy.get("/readyz")
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def test_a_definition_made_by_one_worker_is_known_to_all(proxy: ProxyUnderTest) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(proxy.port)) for _ in range(16)]
        by_worker: dict[int, RawClient] = {}
        for client in clients:
            by_worker[worker_of(proxy, client)] = client
        assert len(by_worker) == 2
        one, two = by_worker.values()
        with pytest.raises(Refused):
            two.query("INSERT INTO people (id, name) VALUES (1, 'a')")
        try:
            one.query("CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(50))")
            for number, client in enumerate((two, one)):
                client.query(f"INSERT INTO people (id, name) VALUES ({number}, 'a')")
                client.query(f"INSERT INTO people VALUES ({1000 + number}, 'b')")
            two.query("ALTER TABLE people ADD COLUMN age INT NOT NULL DEFAULT 3 FIRST")
            one.query("INSERT INTO people VALUES (4, 1004, 'c')")
            assert sorted(one.rows("SELECT id FROM people")) == [[b"0"], [b"1"], [b"1000"], [b"1001"], [b"1004"]]
            assert proxy.primary(0).rows("SELECT id FROM main.people ORDER BY id") == [(0,), (1,)]
        finally:
            one.query("DROP TABLE IF EXISTS people")
        with pytest.raises(Refused) as gone:
            two.query("INSERT INTO people (id, name) VALUES (1, 'c')")
        assert gone.value.code in (1146, 9100)


# ── the end and the beginning ──


def test_sigterm_drains(mariadb_cluster: LocalCluster) -> None:
    with own_proxy(mariadb_cluster, "draining", drain_timeout="20s") as proxy, contextlib.ExitStack() as stack:
        fill(proxy)
        pids = [proxy.process.pid, *proxy.worker_pids()]
        idle = [stack.enter_context(RawClient(proxy.port)) for _ in range(24)]  # some of each worker
        for client in idle:
            client.query("SELECT 1")
        busy = stack.enter_context(RawClient(proxy.port))
        busy.send(b"\x03SELECT SLEEP(0.7), name FROM users WHERE uid = 1")
        open_one = stack.enter_context(RawClient(proxy.port))
        open_one.query("BEGIN")
        open_one.query("UPDATE users SET balance = 5 WHERE uid = 1001")
        os.kill(proxy.process.pid, signal.SIGTERM)
        for client in idle:
            client.expect_closed()
        with pytest.raises((ConnectionError, Closed, Refused)):
            RawClient(proxy.port)
        with pytest.raises(urllib.error.HTTPError) as unready:
            proxy.get("/readyz")
        assert unready.value.code == 503
        assert busy.result().rows == [[b"0", b"a"]], "a statement under way ends in order"
        busy.expect_closed()
        open_one.query("UPDATE users SET name = 'drained' WHERE uid = 1001")
        assert proxy.process.running
        open_one.query("COMMIT")
        open_one.expect_closed()
        eventually(lambda: not proxy.process.running, "it has ended")
        assert proxy.process._popen is not None
        assert proxy.process._popen.returncode == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert proxy.primary(1).rows("SELECT name, balance FROM main.users") == [("drained", 5)]


def test_a_drain_has_an_end(mariadb_cluster: LocalCluster) -> None:
    with own_proxy(mariadb_cluster, "drained-late", drain_timeout="300ms") as proxy, RawClient(proxy.port) as client:
        pids = proxy.worker_pids()
        client.query("BEGIN")
        client.query("INSERT INTO users (uid, name) VALUES (1, 'never')")
        os.kill(proxy.process.pid, signal.SIGTERM)
        client.expect_closed()
        eventually(lambda: not proxy.process.running, "it has ended")
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        eventually(lambda: proxy.primary(0).rows("SELECT * FROM main.users") == [], "nothing is left of it")


def test_workers_end_with_their_supervisor(mariadb_cluster: LocalCluster) -> None:
    with own_proxy(mariadb_cluster, "killed-supervisor") as proxy, RawClient(proxy.port) as client:
        pids = proxy.worker_pids()
        os.kill(proxy.process.pid, signal.SIGKILL)
        client.expect_closed()
        eventually(lambda: not [pid for pid in pids if running(pid)], "the workers have ended")


def running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ── primaries ──


def test_a_primary_that_is_killed_and_comes_back(cluster: LocalCluster) -> None:
    with own_proxy(cluster, "killed-primary") as proxy, contextlib.ExitStack() as stack:
        fill(proxy)
        primary = proxy.primary(0)
        proxy.primary(1).rows("INSERT INTO main.countries VALUES ('de', 'Germany')")
        primary.rows("INSERT INTO main.countries VALUES ('de', 'Germany')")
        client, other = stack.enter_context(RawClient(proxy.port)), stack.enter_context(RawClient(proxy.port))
        other.query("SELECT name FROM users WHERE uid = 1")
        client.query("BEGIN")
        client.query("UPDATE users SET balance = 99 WHERE uid = 1")
        try:
            primary.kill()
            told = outcome(lambda: client.query("UPDATE users SET balance = 100 WHERE uid = 1"))
            assert told in ("closed", "9113"), told
            client.expect_closed()
            eventually(lambda: not ready(proxy), "not ready without a primary")
            assert other.rows("SELECT name FROM users WHERE uid = 1001") == [[b"b"]], "the other shard goes on"
            for statement in (
                "SELECT name FROM users WHERE uid = 1",
                "SELECT name FROM users",
                "UPDATE users SET balance = 1 WHERE uid = 1",
                "INSERT INTO countries VALUES ('fr', 'France')",
                "UPDATE countries SET name = 'x'",
                "CREATE TABLE pets (person_id BIGINT NOT NULL PRIMARY KEY)",
            ):
                with pytest.raises(Refused) as refused:
                    other.query(statement)
                assert refused.value.code in (9112, 9113), statement
                assert "shard1/primary" in str(refused.value), statement
            assert proxy.primary(1).rows("SELECT * FROM main.countries") == [("de", "Germany")]
            assert proxy.primary(1).rows("SHOW TABLES FROM main LIKE 'pets'") == []
        finally:
            primary.start()
        eventually(lambda: ready(proxy), "ready again")
        assert other.rows("SELECT balance FROM users WHERE uid = 1") == [[b"0"]]
        with RawClient(proxy.port) as fresh:
            assert fresh.query("UPDATE users SET balance = 3 WHERE uid = 1").ok.affected == 1
            assert fresh.query("INSERT INTO countries VALUES ('fr', 'France')").ok.affected == 1
            assert sorted(fresh.rows("SELECT uid FROM users")) == [[b"1"], [b"1001"]]
        cluster.wait_replicated()


def outcome(call: Callable[[], object]) -> str:
    """ "answered", "closed", or the number of the error."""
    try:
        call()
    except Refused as refused:
        return str(refused.code)
    except Closed:
        return "closed"
    return "answered"


def test_a_reference_write_with_one_shard_down_is_written_nowhere(cluster: LocalCluster) -> None:
    """The server dies while the write waits for it: the other shard's part is undone."""
    with own_proxy(cluster, "reference") as proxy, RawClient(proxy.port) as client:
        for shard in (0, 1):
            proxy.primary(shard).rows("INSERT INTO main.countries VALUES ('de', 'Germany')")
        for down in (0, 1):
            server, alive = proxy.primary(down), proxy.primary(1 - down)
            before = alive.rows("SELECT name FROM main.countries")
            try:
                with server.connect("main", autocommit=False) as lock, lock.cursor() as cursor:
                    cursor.execute("UPDATE countries SET name = 'locked' WHERE code = 'de'")
                    client.send(b"\x03UPDATE countries SET name = 'half' WHERE code = 'de'")
                    eventually(partial(waiting, server), "it waits for the lock")
                    server.kill()
                assert outcome(client.result) == "9113"
                eventually(lambda: proxy.busy() == 0, "its connections are back")
                assert alive.rows("SELECT name FROM main.countries") == before
            finally:
                if not server.running:
                    server.start()
            assert server.rows("SELECT name FROM main.countries") == before
            eventually(lambda: ready(proxy), "ready again")
            assert client.query(f"UPDATE countries SET name = 'whole{down}' WHERE code = 'de'").ok.affected == 1
            assert server.rows("SELECT name FROM main.countries") == alive.rows("SELECT name FROM main.countries")
            cluster.wait_replicated()


def waiting(server: LocalServer) -> bool:
    """Whether the proxy's UPDATE runs on the server."""
    listed = server.rows("SELECT INFO FROM information_schema.PROCESSLIST WHERE COMMAND <> 'Sleep'")
    return any("'half'" in str(info) for (info,) in listed)


def test_not_ready_until_the_servers_answer(mariadb_cluster: LocalCluster) -> None:
    """A proxy started while a primary is down waits for it, says so, and then serves."""
    with own_proxy(mariadb_cluster, "late") as model:
        fill(model)
        command = list(model.process.command)
        admin = model
    primary = mariadb_cluster.shards[0].primary
    primary.kill()
    late = mariadb_cluster.program("late-again", command, port=admin.admin_port, environment=proxy_environment())
    try:
        late.start()
        eventually(lambda: b"shard1/primary" in why_not_ready(admin), "it says what it waits for")
        assert admin.get("/healthz")
        primary.start()
        eventually(lambda: ready(admin), "ready", 20)
        with RawClient(admin.port) as client:
            assert client.rows("SELECT name FROM users WHERE uid = 1") == [[b"a"]]
    finally:
        late.stop()
        if not primary.running:
            primary.start()
    mariadb_cluster.wait_replicated()


def why_not_ready(proxy: ProxyUnderTest) -> bytes:
    """What /readyz answers with its 503."""
    with pytest.raises(urllib.error.HTTPError) as unready:
        proxy.get("/readyz")
    assert unready.value.code == 503
    return unready.value.read()


def test_all_workers_killed_at_once_come_back(mariadb_cluster: LocalCluster) -> None:
    with own_proxy(mariadb_cluster, "reconnect") as proxy:
        connection = proxy.connect()
        for pid in proxy.worker_pids():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(pymysql.err.OperationalError):
            connection.cursor().execute("SELECT 1")

        def back() -> bool:
            try:
                connection.connect()
            except pymysql.err.OperationalError:
                return False
            return True

        eventually(back, "it is served again")
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == ((1,),)
        connection.close()
