"""Proxies and the map store: every proxy gets every map, acknowledges it when nothing older is in flight, and comes
back when it was shut out. Real proxies, both kinds of store; maps are written by the test."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest

from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalEtcd
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.reshard.eviction import Evictor
from shardproxy.store.interface import MapStore
from shardproxy.topology.barrier import Standing
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.stages import Stage, Step
from shardproxy.topology.stored import ALIVE, MAPS, PROXIES
from tests.integration.map_desk import Desk
from tests.proxy import ProxyUnderTest, eventually, start_proxy

MOVING, STAYING = 600, 10  # keys of shard1: one that moves, one that does not


@pytest.fixture(scope="module")
def etcd() -> Iterator[LocalEtcd]:
    with LocalEtcd() as cluster:
        yield cluster


@pytest.fixture(params=["embedded", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, object]:
    """Entries of [store] of an empty store of each kind."""
    if request.param == "embedded":
        return {"kind": "embedded", "path": str(tmp_path / "maps")}
    cluster: LocalEtcd = request.getfixturevalue("etcd")
    return {"kind": "etcd", "endpoints": list(cluster.endpoints), "prefix": os.urandom(6).hex() + "/"}


@contextmanager
def proxies(
    cluster: LocalCluster, store: Mapping[str, object], count: int = 1, silence: str = "30s", **options: Any
) -> Iterator[tuple[Desk, list[ProxyUnderTest]]]:
    """So many proxies that share a store; a row of `users` for each key."""
    running: list[ProxyUnderTest] = []
    try:
        for number in range(count):
            own = {"drain_timeout": "200ms", "worker_silence": silence}
            proxy = start_proxy(cluster, f"mapped{number}", proxy=own, store=store, **options)
            running.append(proxy)
        running[0].empty()
        for key in (MOVING, STAYING):
            running[0].primary(0).rows(f"INSERT INTO main.users (uid, name) VALUES ({key}, 'u')")
        cluster.wait_replicated()
        yield Desk(cluster.folder / "mapped0.toml"), running
    finally:
        for proxy in running:
            proxy.process.stop()


class Behind:
    """A statement of a client of its own, in a thread; `error` and `rows` are there when it has ended."""

    def __init__(self, proxy: ProxyUnderTest, *statements: str) -> None:
        self.rows: Any = None
        self.error: pymysql.MySQLError | None = None
        self.client = proxy.connect()
        self._statements = statements
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self.client.cursor() as cursor:
                for statement in self._statements:
                    cursor.execute(statement)
                self.rows = cursor.fetchall()
        except pymysql.MySQLError as error:
            self.error = error

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def end(self) -> None:
        self.thread.join(60)
        assert self.ended
        self.client.close()


def runs(proxy: ProxyUnderTest, text: str, shard: int = 0) -> bool:
    """Whether a server of the shard runs a statement with this text."""
    return any(text in str(row[7]) for row in proxy.primary(shard).rows("SHOW FULL PROCESSLIST") if row[4] != "Sleep")


def broken(cursor: Any) -> bool:
    try:
        cursor.execute(f"SELECT name FROM users WHERE uid = {STAYING}")
    except pymysql.MySQLError:
        return True
    return False


def answers(proxy: ProxyUnderTest, key: int = STAYING) -> bool:
    try:
        with closing(proxy.connect()) as client, client.cursor() as cursor:
            cursor.execute(f"SELECT name FROM users WHERE uid = {key}")
            return cursor.fetchone() is not None
    except pymysql.MySQLError:
        return False


def position(proxy: ProxyUnderTest, shard: int) -> str:
    """Where the binlog of a shard's primary is now."""
    name = "gtid_binlog_pos" if proxy.mariadb else "gtid_executed"
    return str(proxy.primary(shard).rows(f"SELECT @@GLOBAL.{name}")[0][0]).replace("\n", "")


SLOW = "SELECT SLEEP(3) FROM users WHERE uid = 10"


def test_maps_reach_every_proxy_and_are_acknowledged(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store, 2) as (desk, running):
        assert desk.map().epoch == 1
        desk.all_have(1, 2)
        assert {identity.account for identity in desk.identities()} == {"shardproxy"}
        places = {identity.place.split()[2] for identity in desk.identities()}
        assert places == {str(proxy.process.pid) for proxy in running}
        eventually(lambda: len(desk.there(ALIVE)) == 2, "both are shown to be alive")
        for _ in range(2):
            epoch = desk.begin() if desk.map().move is None else desk.step()
            desk.all_have(epoch, 2)
            for proxy in running:
                assert proxy.status()["epoch"] == epoch
                assert proxy.metric("shardproxy_map_epoch") == epoch
                assert proxy.metric("shardproxy_store_up") == 1
        running[0].process.stop()
        assert len(desk.identities()) == 1
        assert len(desk.acknowledged()) == len(desk.there(ALIVE)) == 1


def test_the_stores_map_is_in_force_and_stays_so_after_a_schema_change(
    cluster: LocalCluster, store: Mapping[str, object]
) -> None:
    with proxies(cluster, store) as (desk, [proxy]):
        proxy.primary(1).rows(f"INSERT INTO main.users (uid, name) VALUES ({MOVING}, 'there')")

        def name() -> str:
            with closing(proxy.connect()) as client, client.cursor() as cursor:
                cursor.execute(f"SELECT name FROM users WHERE uid = {MOVING}")
                return str(cursor.fetchone()[0])

        assert name() == "u"
        desk.begin()
        for _ in range(3):
            desk.step()
        epoch = desk.step(shard2=position(proxy, 1))
        desk.all_have(epoch, 1)
        assert name() == "there"
        epoch = desk.step()
        desk.all_have(epoch, 1)
        desk.step()  # COMPLETING
        epoch = desk.step(shard1=position(proxy, 0))  # DONE: schema changes are possible again
        desk.all_have(epoch, 1)
        proxy.primary(0).rows(f"DELETE FROM main.users WHERE uid = {MOVING}")
        with closing(proxy.connect()) as client, client.cursor() as cursor:
            cursor.execute("CREATE TABLE people (id BIGINT PRIMARY KEY)")
            cursor.execute("DROP TABLE people")
        assert name() == "there"
        os.kill(proxy.worker_pids()[0], signal.SIGKILL)
        eventually(lambda: len(proxy.worker_pids()) == 2 and answers(proxy), "the worker is replaced")
        assert [name() for _ in range(8)] == ["there"] * 8


def test_what_is_in_flight_is_waited_for(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    """A read and a write, planned under the map before; not a transaction between two statements."""
    with proxies(cluster, store) as (desk, [proxy]):
        for statement in (SLOW, "UPDATE users SET balance = SLEEP(3) WHERE uid = 10"):
            with closing(proxy.connect()) as idle, idle.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(f"SELECT name FROM users WHERE uid = {STAYING}")
                before = desk.acknowledged()
                slow = Behind(proxy, statement)
                eventually(lambda: runs(proxy, "SLEEP(3)"), "the statement runs")
                epoch = desk.begin() if desk.map().move is None else desk.step(Step.CANCEL)
                while not slow.ended:
                    found = desk.acknowledged()
                    assert found == before or slow.thread.join(0.1) or slow.ended  # type: ignore[func-returns-value]
                    time.sleep(0.05)
                slow.end()
                assert slow.error is None
                desk.all_have(epoch, 1)  # the idle transaction would last for ever
                cursor.execute("ROLLBACK")


def test_a_stopped_process_acknowledges_nothing(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store, 2) as (desk, running):
        [before] = {*desk.acknowledged().values()}
        stopped = running[1].process.pid
        for pid in (stopped, running[1].worker_pids()[0]):
            os.kill(pid, signal.SIGSTOP)
            try:
                epoch = desk.begin() if desk.map().move is None else desk.step(Step.CANCEL)
                eventually(lambda: epoch in desk.acknowledged().values(), "the other one has acknowledged")  # noqa: B023
                time.sleep(0.5)  # long enough for the stopped one, were it not stopped
                assert sorted(desk.acknowledged().values()) == [before, epoch]
            finally:
                os.kill(pid, signal.SIGCONT)
            desk.all_have(epoch, 2)
            before = epoch
        assert len(desk.identities()) == 2


def test_a_stopped_worker_is_ended_by_its_supervisor(cluster: LocalCluster) -> None:
    """Else nothing would ever be acknowledged, since the proxy lives."""
    with proxies(cluster, {"path": "silent.store"}, silence="3s") as (desk, [proxy]):
        stopped = proxy.worker_pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        epoch = desk.begin()
        desk.all_have(epoch, 1, 30.0)
        eventually(lambda: stopped not in proxy.worker_pids() and len(proxy.worker_pids()) == 2, "it is replaced")
        assert answers(proxy)


def test_a_dead_workers_statement_is_waited_for(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    """Its server goes on with it, and would commit."""
    with proxies(cluster, store) as (desk, [proxy]):
        epoch = desk.begin()
        desk.all_have(epoch, 1)
        slow = Behind(proxy, "UPDATE users SET balance = SLEEP(3) WHERE uid = 600")
        eventually(lambda: runs(proxy, "SLEEP(3)"), "the statement runs")
        for pid in proxy.worker_pids():
            os.kill(pid, signal.SIGKILL)
        slow.end()
        assert slow.error is not None
        later = desk.step(Step.CANCEL)
        eventually(lambda: answers(proxy), "new workers serve")
        while runs(proxy, "SLEEP(3)"):
            assert set(desk.acknowledged().values()) == {epoch} or not runs(proxy, "SLEEP(3)")
        desk.all_have(later, 1)


def test_a_stopped_worker_dies_with_its_supervisor(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    """Its proxy counts as gone then: it must not come back and go on."""
    with proxies(cluster, store) as (_, [proxy]):
        workers = proxy.worker_pids()
        os.kill(workers[0], signal.SIGSTOP)
        os.kill(proxy.process.pid, signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in workers), "all workers are gone")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_vanished_clients_statement_is_waited_for(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store) as (desk, [proxy]):
        server = proxy.primary(0)
        epoch = desk.begin()
        desk.all_have(epoch, 1)
        with server.connect() as lock, lock.cursor() as cursor:
            cursor.execute("LOCK TABLES main.users READ")
            slow = Behind(proxy, f"UPDATE users SET balance = 5 WHERE uid = {MOVING}")
            eventually(lambda: runs(proxy, "balance = 5"), "the statement waits")
            slow.client._sock.shutdown(2)
            later = desk.step(Step.CANCEL)
            desk.all_have(later, 1)
            assert not runs(proxy, "balance = 5")
        slow.end()


@pytest.mark.alone
def test_reads_do_not_keep_a_switch_waiting(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store) as (desk, [proxy]):
        desk.begin()
        for _ in range(3):
            desk.step()
        readers = {
            "one shard": Behind(proxy, f"SELECT {_busy(2)}, name FROM users WHERE uid = 10"),
            "all": Behind(proxy, f"SELECT {_busy(200)}, name FROM users WHERE name = 'u'"),
            "merged": Behind(proxy, f"SELECT {_busy(200)}, name FROM users ORDER BY uid"),
            "transaction": Behind(proxy, "BEGIN", f"SELECT {_busy(200)}, name FROM users WHERE uid = 10"),
            "no table": Behind(proxy, "SELECT SLEEP(5)"),
        }
        eventually(lambda: proxy.primary(0).rows(_BUSY)[0][0] >= 4, "all of them run")
        begun = time.monotonic()
        epoch = desk.step(shard2=position(proxy, 1))
        desk.all_have(epoch, 1)  # the others would last for a minute
        assert not readers["no table"].ended or time.monotonic() - begun < 4.5  # it is not waited for
        for reader in readers.values():
            reader.end()
        assert readers["one shard"].error is None  # it was run again
        assert readers["no table"].error is None
        # 1317, the server's own, when columns have gone out
        for name, codes in {"all": (1213, 1317), "merged": (1213, 1317), "transaction": (1213,)}.items():
            error = readers[name].error
            assert error is not None, name
            assert error.args[0] in codes, (name, error)
        assert answers(proxy)


def test_reads_older_than_the_last_maps_do_not_keep_a_switch_waiting(
    cluster: LocalCluster, store: Mapping[str, object]
) -> None:
    """They are older than the map before the switch too, which itself would wait for them."""
    with proxies(cluster, store) as (desk, [proxy]):
        epoch = desk.begin()
        for _ in range(2):
            epoch = desk.step()
        desk.all_have(epoch, 1)
        reader = Behind(proxy, f"SELECT {_busy(200)}, name FROM users ORDER BY uid")
        eventually(lambda: proxy.primary(0).rows(_BUSY)[0][0] >= 1, "it runs")
        before = desk.step()
        eventually(lambda: proxy.status()["epoch"] == before, "the proxy has the map before the switch")
        assert desk.acknowledged() != dict.fromkeys(desk.acknowledged(), before)
        epoch = desk.step(shard2=position(proxy, 1))
        desk.all_have(epoch, 1)  # the reader would last for a minute
        reader.end()
        assert reader.error is not None


@pytest.mark.parametrize("way", ["text", "transaction", "prepared"])
def test_a_write_to_keys_that_stay_does_not_keep_a_switch_waiting(cluster: LocalCluster, way: str) -> None:
    """It waits for a row's lock, maybe for long. Later maps wait for it again: in the next move its key may be one that
    moves."""
    with proxies(cluster, {"path": f"staying-{way}.store"}) as (desk, [proxy]):
        desk.begin()
        for _ in range(3):
            epoch = desk.step()
        desk.all_have(epoch, 1)
        with proxy.primary(0).connect() as other, other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT * FROM main.users WHERE uid = {STAYING} FOR UPDATE")
            update = f"UPDATE users SET balance = 5 WHERE uid = {STAYING}"
            texts = {
                "text": (update,),
                "transaction": ("BEGIN", f"INSERT INTO users (uid, name) VALUES ({STAYING + 1}, 'new')", update),
                "prepared": ("PREPARE p FROM 'UPDATE users SET balance = 5 WHERE uid = ?'", f"SET @k = {STAYING}",
                             "EXECUTE p USING @k"),
            }  # fmt: skip
            writer = Behind(proxy, *texts[way])
            eventually(lambda: runs(proxy, "UPDATE users"), "the write waits for the row")
            epoch = desk.step(shard2=position(proxy, 1))
            desk.all_have(epoch, 1)
            assert not writer.ended
            opened = desk.step()
            eventually(lambda: proxy.status()["epoch"] == opened, "the proxy has the map after the switch")
            assert desk.acknowledged() == dict.fromkeys(desk.acknowledged(), epoch)
            cursor.execute("ROLLBACK")
        writer.end()
        assert writer.error is None
        desk.all_have(opened, 1)


def _busy(millions: int) -> str:
    """An expression that takes a server about half a second a million, and ends as soon as it is told. (SLEEP
    does not on MariaDB: when several sleep, KILL may take two seconds.)"""
    return f"BENCHMARK({millions}000000, SHA2(name, 256))"


_BUSY = (
    "SELECT COUNT(*) FROM information_schema.processlist "
    "WHERE info LIKE '%BENCHMARK(%' AND info NOT LIKE '%processlist%'"
)


def test_held_writes_go_on_under_the_next_map(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store) as (desk, [proxy]):
        desk.begin()
        for _ in range(3):
            epoch = desk.step()
        desk.all_have(epoch, 1)
        assert desk.map().move.stage is Stage.CLOSING  # type: ignore[union-attr]
        held = Behind(proxy, f"UPDATE users SET balance = 7 WHERE uid = {MOVING}")
        eventually(lambda: proxy.metric("shardproxy_writes_held_now") == 1, "the write waits")
        proxy.primary(1).rows(f"INSERT INTO main.users (uid, name) VALUES ({MOVING}, 'there')")
        epoch = desk.step(shard2=position(proxy, 1))
        desk.all_have(epoch, 1)
        assert not held.ended
        desk.step()
        held.end()
        assert held.error is None
        assert proxy.primary(1).rows(f"SELECT balance FROM main.users WHERE uid = {MOVING}")[0][0] == 7


def test_a_proxy_that_was_shut_out_comes_back(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store) as (desk, [proxy]):
        for standing in (Standing.EVICTING, Standing.EVICTED, None):
            [identity] = desk.identities()
            workers = set(proxy.worker_pids())
            with closing(proxy.connect()) as client, client.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(f"UPDATE users SET balance = 99 WHERE uid = {STAYING}")
                if standing is not None:
                    desk.stand(identity.id, standing)
                else:

                    async def work(store: MapStore) -> None:
                        entry = await store.get(PROXIES + identity.id)  # noqa: B023
                        assert entry is not None
                        await store.delete(entry.key, entry.version)

                    desk.on(work)
                eventually(lambda: broken(cursor), "the client has lost its connection")
            eventually(lambda: [i.id for i in desk.identities()] not in ([], [identity.id]), "it has a new name")  # noqa: B023
            eventually(lambda: len(desk.identities()) == 1, "the old one is gone")
            desk.all_have(desk.map().epoch, 1)
            eventually(lambda: answers(proxy), "it serves")
            assert not workers & set(proxy.worker_pids())
            assert proxy.primary(0).rows(f"SELECT balance FROM main.users WHERE uid = {STAYING}")[0][0] == 0


def test_shut_out_while_nothing_is_in_flight(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    """Its workers have answered for the newest map, and then they end without a proof at the servers, which refuse the
    account: maps that come later are acknowledged all the same."""
    with own_account(cluster, store) as (desk, proxy, evictor):
        desk.all_have(desk.begin(), 1)
        [identity] = desk.identities()
        desk.on(lambda store: evictor(store).evict(identity))
        eventually(lambda: [i.id for i in desk.identities()] not in ([], [identity.id]), "it has a new name")
        for _ in range(3):
            desk.all_have(desk.step(), 1)
        desk.on(lambda store: evictor(store).readmit("own"))
        eventually(lambda: answers(proxy), "it serves again", 30.0)


@contextmanager
def own_account(
    cluster: LocalCluster, store: Mapping[str, object]
) -> Iterator[tuple[Desk, ProxyUnderTest, Callable[[MapStore], Evictor]]]:
    """A proxy with an account of its own, which can be locked."""
    own = {"user": "own", "password": "own"}
    for shard in cluster.shards:
        shard.primary.rows("CREATE USER IF NOT EXISTS own@'%' IDENTIFIED BY 'own'")
        shard.primary.rows("GRANT ALL PRIVILEGES ON *.* TO own@'%'")
        shard.primary.rows("ALTER USER own@'%' ACCOUNT UNLOCK")
    cluster.wait_replicated()
    with proxies(cluster, store, backend=own) as (desk, [proxy]):
        primaries = [shard.primary for shard in build_snapshot(load(desk.config, proxy_environment())).shards]
        yield desk, proxy, lambda store: Evictor(store, primaries, Credentials("root", "root"))


def test_shut_out_at_the_servers_and_let_in_again(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    """By the real Evictor, while the proxy is stopped: when it goes on, nothing of it reaches a server."""
    with own_account(cluster, store) as (desk, proxy, evictor):
        [identity] = desk.identities()
        assert identity.account == "own"
        pids = [proxy.process.pid, *proxy.worker_pids()]
        with closing(proxy.connect()) as client, client.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"UPDATE users SET balance = 99 WHERE uid = {STAYING}")
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            try:
                desk.on(lambda store: evictor(store).evict(identity))
                assert not proxy.primary(0).rows("SELECT id FROM information_schema.processlist WHERE user = 'own'")
                epoch = desk.begin()
            finally:
                for pid in pids:
                    with suppress(ProcessLookupError):  # the first to go on ends the others at once
                        os.kill(pid, signal.SIGCONT)
            assert broken(cursor)
        desk.all_have(epoch, 1)
        eventually(lambda: [i.id for i in desk.identities()] not in ([], [identity.id]), "it has a new name")
        assert not answers(proxy)
        desk.on(lambda store: evictor(store).readmit("own"))
        eventually(lambda: answers(proxy), "it serves again", 30.0)
        assert proxy.primary(0).rows(f"SELECT balance FROM main.users WHERE uid = {STAYING}")[0][0] == 0


def test_the_store_is_cut_off(cluster: LocalCluster) -> None:
    with LocalEtcd() as etcd:
        settings = {"kind": "etcd", "endpoints": list(etcd.endpoints), "timeout": "3s"}
        with proxies(cluster, settings) as (desk, [proxy]):
            etcd.members[0].process.suspend()
            eventually(lambda: proxy.metric("shardproxy_store_up") == 0, "the store is away", 20.0)
            assert answers(proxy)
            shown = proxy.status()["store"]
            assert not shown["up"]
            assert shown["problem"]
            etcd.members[0].process.resume()
            eventually(lambda: proxy.metric("shardproxy_store_up") == 1, "the store is back", 20.0)
            epoch = desk.begin()
            desk.all_have(epoch, 1)
            assert proxy.status()["store"]["up"]


def test_started_while_the_store_is_away(cluster: LocalCluster) -> None:
    with LocalEtcd() as etcd:
        settings = {"kind": "etcd", "endpoints": list(etcd.endpoints), "timeout": "3s"}
        etcd.members[0].process.suspend()
        got: list[ProxyUnderTest] = []
        starting = threading.Thread(
            target=lambda: got.append(start_proxy(cluster, "waiting", store=settings, proxy={"drain_timeout": "200ms"}))
        )
        starting.start()
        try:
            time.sleep(3)
            assert not got
        finally:
            etcd.members[0].process.resume()
        starting.join(60)
        assert got
        assert answers(got[0], 1) in (True, False)
        got[0].process.stop()
        assert Desk(cluster.folder / "waiting.toml").there(PROXIES) == []


def test_two_proxies_that_start_at_once_agree(cluster: LocalCluster, store: Mapping[str, object]) -> None:
    with proxies(cluster, store, 2) as (desk, running):
        assert desk.there(MAPS) == ["map/hashed", "map/main"]
        assert [proxy.status()["epoch"] for proxy in running] == [1, 1]


def test_a_replica_is_not_read_before_it_has_the_position_of_the_map(
    cluster: LocalCluster, store: Mapping[str, object]
) -> None:
    with proxies(cluster, store, backend={"max_lag": "60s"}) as (desk, [proxy]):
        replica = cluster.shards[1].replicas[0]

        def port() -> int:
            with closing(proxy.connect(user="replicas", password="replicas")) as client, client.cursor() as cursor:
                cursor.execute("SELECT @@port, COUNT(*) FROM users WHERE uid = 2000")
                return int(cursor.fetchone()[0])

        eventually(lambda: port() == replica.port, "the replica is read")
        desk.begin()
        for _ in range(3):
            desk.step()
        with replica.connect() as admin, admin.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")  # the applier stands still, and says that it runs
            proxy.primary(1).rows("INSERT INTO main.users (uid, name) VALUES (2000, 'new')")
            epoch = desk.step(shard2=position(proxy, 1))
            desk.all_have(epoch, 1)
            for _ in range(20):
                assert port() == proxy.primary(1).port
            cursor.execute("UNLOCK TABLES")
        eventually(lambda: port() == replica.port, "the replica is read again")
