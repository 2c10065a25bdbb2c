"""The local cluster itself: replication, death and return of servers, and that nothing is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest

from shardproxy.errors import LocalError
from shardproxy.local import LocalCluster, LocalEtcd, LocalServer, ensure_tree, free_port, in_tree, inside
from shardproxy.local.flavors import FlavorName
from shardproxy.local.folders import records_folder
from shardproxy.local.records import clean_stale, processes_of


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def record_path(cluster_id: str) -> Path:
    return records_folder() / f"{cluster_id}.json"


def test_rows_reach_the_replicas_and_stay_in_their_shard(cluster: LocalCluster, database: str) -> None:
    for number, shard in enumerate(cluster.shards):
        shard.primary.rows(f"CREATE TABLE {database}.t (id INT PRIMARY KEY)")
        shard.primary.rows(f"INSERT INTO {database}.t VALUES (%s)", (number,))
    cluster.wait_replicated()
    for number, shard in enumerate(cluster.shards):
        for server in shard.servers:
            assert server.rows(f"SELECT id FROM {database}.t") == [(number,)], server.name


def test_settings_that_resharding_needs(cluster: LocalCluster, flavor: FlavorName) -> None:
    own = {
        "mariadb": "@@log_slave_updates, @@gtid_strict_mode",
        "mysql": "@@log_replica_updates, @@gtid_mode = 'ON' AND @@enforce_gtid_consistency = 'ON'",
    }
    settings = f"@@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, {own[flavor]}"
    for server in cluster.servers:
        assert server.rows(f"SELECT {settings}") == [(1, "ROW", "FULL", "FULL", 1, 1)], server.name
    ids = [server.rows("SELECT @@server_id") for server in cluster.servers]
    assert len(set(map(str, ids))) == len(cluster.servers)


def test_version_is_the_flavours(oracle: LocalServer, flavor: FlavorName) -> None:
    [(version,)] = oracle.rows("SELECT VERSION()")
    assert ("MariaDB" in version) if flavor == "mariadb" else version.startswith("9.")


def test_the_proxys_account_cannot_write_to_a_replica(cluster: LocalCluster, database: str) -> None:
    replica = cluster.shards[0].replicas[0]
    with (
        replica.connect(database, user="shardproxy", password="shardproxy") as connection,
        connection.cursor() as cursor,
        pytest.raises(pymysql.err.MySQLError) as caught,
    ):
        cursor.execute("CREATE TABLE stray (id INT)")
    assert caught.value.args[0] == 1290  # ER_OPTION_PREVENTS_STATEMENT


def test_an_account_is_created_on_every_server(cluster: LocalCluster) -> None:
    cluster.create_account("o'brien", "it's % secret")
    try:
        for server in cluster.servers:
            with (
                server.connect(user="o'brien", password="it's % secret") as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute("SELECT CURRENT_USER()")
                assert cursor.fetchone() == ("o'brien@%",), server.name
    finally:
        for shard in cluster.shards:
            shard.primary.rows("DROP USER \"o'brien\"@'%'")


def test_commits_survive_kill_9_and_replication_goes_on(flavor: FlavorName) -> None:
    with LocalCluster(flavor, shards=1) as cluster:
        [shard] = cluster.shards
        shard.primary.rows("CREATE DATABASE d")
        shard.primary.rows("CREATE TABLE d.t (id INT PRIMARY KEY)")
        for number, victim in enumerate(shard.servers):
            shard.primary.rows("INSERT INTO d.t VALUES (%s)", (number,))
            pid, port = victim.pid, victim.port
            victim.kill()
            assert not alive(pid)
            assert not victim.running
            with pytest.raises(pymysql.err.OperationalError):
                victim.connect()
            victim.restart()
            assert victim.pid != pid
            assert victim.port == port
        cluster.wait_replicated()
        for server in shard.servers:
            assert server.rows("SELECT id FROM d.t ORDER BY id") == [(0,), (1,)], server.name


def test_a_replica_that_stopped_applying_is_named_with_its_error(flavor: FlavorName) -> None:
    with LocalCluster(flavor, shards=1) as cluster:
        [shard] = cluster.shards
        [replica] = shard.replicas
        shard.primary.rows("CREATE DATABASE d")
        shard.primary.rows("CREATE TABLE d.t (id INT PRIMARY KEY)")
        cluster.wait_replicated()
        replica.rows("SET GLOBAL read_only = OFF")
        with replica.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_log_bin = OFF")
            cursor.execute("INSERT INTO d.t VALUES (1)")
        shard.primary.rows("INSERT INTO d.t VALUES (1)")
        wait_for(lambda: applier_error(replica) == 1062, "the replica stops at the duplicate key")
        with pytest.raises(LocalError, match=r"shard1-replica1 .*Last_SQL_Error="):
            cluster.wait_replicated(timeout=0.5)


def applier_error(replica: LocalServer) -> int:
    with replica.connect() as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute("SHOW REPLICA STATUS")
        return int(cursor.fetchone()["Last_SQL_Errno"])


def test_stop_leaves_no_process_and_no_file(flavor: FlavorName, tmp_path: Path) -> None:
    cluster = LocalCluster(flavor, shards=1, replicas=1, redis=1, root=tmp_path)
    cluster.start()
    pids = [server.pid for server in cluster.servers] + [node.pid for node in cluster.redis]
    datadirs = [server.datadir for server in cluster.servers]
    assert all(map(alive, pids))
    assert sorted(processes_of(cluster.id)) == sorted(pids)
    assert cluster.redis[0].connect().ping() is True
    cluster.stop()
    assert not any(map(alive, pids))
    assert not any(datadir.exists() for datadir in datadirs)
    assert list(tmp_path.iterdir()) == []
    assert not record_path(cluster.id).exists()


def test_a_failed_start_leaves_nothing_and_shows_the_servers_words(flavor: FlavorName, tmp_path: Path) -> None:
    cluster = LocalCluster(flavor, shards=1, replicas=0, root=tmp_path, server_options=["--no-such-option"])
    with pytest.raises(LocalError, match=r"(?s)shard1-primary: .* exit status .*no-such-option"):
        cluster.start()
    assert processes_of(cluster.id) == []
    assert list(tmp_path.iterdir()) == []
    assert not record_path(cluster.id).exists()


def test_a_program_of_the_tree_runs_beside_a_mariadb_cluster_and_goes_with_it(mysql_oracle: LocalServer) -> None:
    # The fixture only says that this test needs MySQL 9.
    with LocalCluster("mariadb", shards=1, replicas=0) as cluster:
        port, folder, tree = free_port(), cluster.tree_folder(), ensure_tree()
        settings = folder / "router.conf"
        settings.write_text(
            f"[DEFAULT]\nuser=root\nlogging_folder=\nruntime_folder={inside(tree, folder)}\n"
            f"data_folder={inside(tree, folder)}\n"
            f"[routing:all]\nbind_address=127.0.0.1\nbind_port={port}\nrouting_strategy=first-available\n"
            f"destinations={cluster.servers[0].address}\nprotocol=classic\n"
        )
        router = cluster.program(
            "mysqlrouter", in_tree(tree, "mysqlrouter", "--config", inside(tree, settings)), port=port
        )
        router.start()
        with cluster.servers[0].connect(port=port) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@port")
            assert cursor.fetchone() == (cluster.servers[0].port,)
    assert not alive(router.pid)
    assert not folder.exists()


OWNER = """
import sys
from shardproxy.local import LocalCluster
cluster = LocalCluster(sys.argv[1], shards=1, replicas=1, redis=1)
cluster.start()
print(cluster.id, cluster.folder, *[server.datadir for server in cluster.servers], flush=True)
sys.stdin.read()
"""


@pytest.mark.alone
def test_servers_die_with_a_killed_owner_and_the_next_start_removes_its_files(flavor: FlavorName) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, flavor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        cluster_id, *folders = owner.stdout.readline().split()
        pids = processes_of(cluster_id)
        assert len(pids) == 3
        clean_stale()
        assert all(map(alive, pids)), "a living owner's servers were taken for stale"
        owner.kill()
    wait_for(lambda: not any(map(alive, pids)), "the kernel ends the servers with their owner")
    assert all(Path(folder).exists() for folder in folders)
    with LocalCluster(shards=0):
        assert not any(Path(folder).exists() for folder in folders)
        assert not record_path(cluster_id).exists()


# As on a machine without setpriv: nothing ties the servers' lives to their owner's.
UNBOUND = """
from shardproxy.local import process
process.die_with_parent = lambda: []
"""


@pytest.mark.alone
def test_servers_that_outlived_their_owner_are_ended(flavor: FlavorName) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", UNBOUND + OWNER, flavor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        cluster_id = owner.stdout.readline().split()[0]
        pids = processes_of(cluster_id)
        owner.send_signal(signal.SIGKILL)
    assert len(pids) == 3
    assert all(map(alive, pids))
    assert cluster_id in clean_stale()
    assert not any(map(alive, pids))


ETCD_OWNER = """
import sys
from shardproxy.local import LocalEtcd
cluster = LocalEtcd(3)
cluster.start()
print(cluster.folder.name, cluster.folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.alone
def test_an_etcd_that_outlived_its_owner_is_ended() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", UNBOUND + ETCD_OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        cluster_id, folder = owner.stdout.readline().split()
        pids = processes_of(cluster_id)
        owner.kill()
    assert len(pids) == 3
    assert all(map(alive, pids))
    assert Path(folder).exists()
    with LocalEtcd():
        assert not any(map(alive, pids))
        assert not Path(folder).exists()
        assert not record_path(cluster_id).exists()
