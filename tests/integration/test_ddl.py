"""Schema changes over several shards: recorded, resumed, reverted, and true after a crash."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pymysql
import pytest
from typer.testing import CliRunner

from shardproxy.cli.main import app
from shardproxy.local import LocalCluster
from tests.proxy import KEYSPACES, ProxyUnderTest, create_tables, eventually, start_proxy

Rows = tuple[tuple[Any, ...], ...]


@pytest.fixture
def client(proxy: ProxyUnderTest) -> Iterator[Any]:
    """A client. Before, records of other tests are gone; afterwards tables and views that these tests make too."""
    clean(proxy.cluster)
    with closing(proxy.connect()) as connection:
        yield connection
    clean(proxy.cluster)


def clean(cluster: LocalCluster) -> None:
    for shard in cluster.shards:
        primary = shard.primary
        for name in ("pets", "people", "fish"):
            primary.rows(f"DROP TABLE IF EXISTS main.{name}")
        for name in ("rich", "poor", "counts"):
            primary.rows(f"DROP VIEW IF EXISTS main.{name}")
        for name in ("ddl", "ddl_shard", "ddl_table", "table_config"):
            primary.rows(f"DELETE FROM _shardproxy.{name}")


def run(connection: Any, sql: str) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        rows: Rows = cursor.fetchall()
        return rows


def refused(connection: Any, sql: str) -> str:
    with pytest.raises(pymysql.MySQLError) as caught:
        run(connection, sql)
    return str(caught.value.args[1])


def config(proxy: ProxyUnderTest, name: str = "proxy") -> Path:
    return proxy.cluster.folder / f"{name}.toml"


def shardctl(proxy: ProxyUnderTest, *arguments: str, status: int = 0) -> Any:
    """`shardctl ddl …`: what --json prints, or what it says on stderr when it fails."""
    at = 1 if arguments else 0
    words = ["ddl", *arguments[:at], *arguments[at:], "--config", str(config(proxy)), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if status == 0 else result.stderr


def states(record: dict[str, Any]) -> list[str]:
    return [shard["state"] for shard in record["shards"]]


def columns(proxy: ProxyUnderTest, shard: int, table: str) -> list[str]:
    rows = proxy.primary(shard).rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'main' AND table_name = %s "
        "ORDER BY ordinal_position",
        (table,),
    )
    return [name for (name,) in rows]


def test_a_change_is_recorded_and_done(proxy: ProxyUnderTest, client: Any) -> None:
    run(client, "CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(50))")
    run(client, "ALTER TABLE people ADD COLUMN ag\u00e9 INT")
    [newest, older] = shardctl(proxy)["changes"]
    assert newest["statement"] == "ALTER TABLE people ADD COLUMN ag\u00e9 INT"
    assert (newest["state"], states(newest), newest["tables"]) == ("done", ["done", "done"], ["people"])
    assert older["shards"][0]["before"] == {"people": None}
    assert "CREATE TABLE" in newest["shards"][1]["before"]["people"]
    assert proxy.primary(0).rows("SELECT COUNT(*) FROM _shardproxy.ddl_table") == [(0,)]


def test_what_fails_on_the_first_shard_leaves_nothing(proxy: ProxyUnderTest, client: Any) -> None:
    assert "nothere" in refused(client, "ALTER TABLE users DROP COLUMN nothere")
    assert shardctl(proxy)["changes"] == []


def stopped_in_the_middle(proxy: ProxyUnderTest, client: Any, statement: str) -> str:
    """Run a statement that shard2 refuses; the id of the change."""
    message = refused(client, statement)
    [record] = [r for r in shardctl(proxy)["changes"] if r["state"] == "failed"]
    assert f"schema change {record['id']} is not finished" in message
    assert "shards with it: shard1" in message
    assert states(record) == ["done", "failed"]
    ident: str = record["id"]
    return ident


def test_a_failure_in_the_middle_is_resumed(proxy: ProxyUnderTest, client: Any) -> None:
    run(client, "CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(50))")
    proxy.primary(1).rows("INSERT INTO main.people VALUES (2000, 'x'), (2001, 'x')")
    ident = stopped_in_the_middle(proxy, client, "ALTER TABLE people ADD UNIQUE KEY n (name)")
    assert f"schema change {ident} of table 'main.people' is not finished" in refused(
        client, "ALTER TABLE people ADD COLUMN age INT"
    )
    run(client, "ALTER TABLE users COMMENT = 'another table is free'")

    assert "mend it and resume" in shardctl(proxy, "resume", ident, status=1)
    run(client, "DELETE FROM people WHERE id = 2001")
    record = shardctl(proxy, "resume", ident)
    assert (record["state"], states(record)) == ("done", ["done", "done"])
    for shard in (0, 1):
        assert len(proxy.primary(shard).rows("SHOW INDEX FROM main.people WHERE Key_name = 'n'")) == 1
    run(client, "ALTER TABLE people ADD COLUMN age INT")
    assert "nothing left to do" in shardctl(proxy, "resume", ident, status=1)


REVERTED = [
    ("CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY)", "CREATE TABLE main.people (other INT)", "DROP TABLE"),
    ("ALTER TABLE users ADD COLUMN age INT", "ALTER TABLE main.users ADD COLUMN age INT", "DROP COLUMN"),
    ("CREATE INDEX extra ON users (balance)", "CREATE INDEX extra ON main.users (name)", "DROP INDEX"),
]


@pytest.mark.parametrize(("statement", "behind", "back"), REVERTED)
def test_a_failure_in_the_middle_is_reverted(
    proxy: ProxyUnderTest, client: Any, statement: str, behind: str, back: str
) -> None:
    before = proxy.primary(0).rows("SHOW CREATE TABLE main.users")
    proxy.primary(1).rows(behind)
    try:
        ident = stopped_in_the_middle(proxy, client, statement)
        assert back in shardctl(proxy, "show", ident)["reverse"]["statements"][0]
        record = shardctl(proxy, "revert", ident)
        assert (record["state"], states(record)) == ("reverted", ["reverted", "reverted"])
        assert columns(proxy, 0, "people") == []
        assert proxy.primary(0).rows("SHOW CREATE TABLE main.users") == before
    finally:
        for undo in ("DROP COLUMN age", "DROP INDEX extra"):
            with suppress(pymysql.MySQLError):
                proxy.primary(1).rows(f"ALTER TABLE main.users {undo}")


def test_a_new_table_with_rows_is_not_dropped(proxy: ProxyUnderTest, client: Any) -> None:
    proxy.primary(1).rows("CREATE TABLE main.people (other INT)")
    ident = stopped_in_the_middle(proxy, client, "CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY)")
    proxy.primary(0).rows("INSERT INTO main.people VALUES (1)")
    assert "has rows by now" in shardctl(proxy, "revert", ident, status=1)
    assert proxy.primary(0).rows("SELECT id FROM main.people") == [(1,)]


def test_what_cannot_be_reverted_says_so(proxy: ProxyUnderTest, client: Any) -> None:
    run(client, "CREATE TABLE people (id BIGINT NOT NULL PRIMARY KEY, a INT, b INT)")
    proxy.primary(1).rows("ALTER TABLE main.people DROP COLUMN a")
    ident = stopped_in_the_middle(proxy, client, "ALTER TABLE people DROP COLUMN a")
    assert "cannot be reverted" in shardctl(proxy, "revert", ident, status=1)
    record = shardctl(proxy, "resume", ident, "--has", "shard2")
    assert record["state"] == "done"


def test_without_the_bookkeeping_schema_the_error_names_the_command(proxy: ProxyUnderTest, client: Any) -> None:
    for shard in (0, 1):
        proxy.primary(shard).rows("RENAME TABLE _shardproxy.ddl TO _shardproxy.ddl_away")
    try:
        assert "shardctl migrate" in refused(client, "ALTER TABLE users COMMENT = 'z'")
        assert "shardctl migrate" in shardctl(proxy, status=1)
    finally:
        for shard in (0, 1):
            proxy.primary(shard).rows("RENAME TABLE _shardproxy.ddl_away TO _shardproxy.ddl")


def test_a_killed_proxy_leaves_a_true_record(cluster: LocalCluster) -> None:
    """kill -9 while shard2 runs the statement: it waits there for a transaction's metadata lock."""
    for shard in cluster.shards:
        create_tables(shard.primary, shard.name)
    victim = start_proxy(cluster, "victim", keyspaces=KEYSPACES)
    clean(cluster)
    second = victim.primary(1)
    blocker = second.connect(database="main")
    try:
        with blocker.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM users")
        client = victim.connect()
        thread = threading.Thread(target=lambda: _ignored(client, "ALTER TABLE users ADD COLUMN age INT"))
        thread.start()
        waiting = "SELECT id FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE users%'"
        eventually(lambda: bool(second.rows(waiting)), "the statement runs on shard2")
        pids = [*victim.worker_pids(), victim.process.pid]
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        thread.join()
        record = CliRunner().invoke(app, ["ddl", "--config", str(config(victim, "victim")), "--json"])
        [change] = json.loads(record.stdout)["changes"]
        assert (change["state"], states(change)) == ("running", ["done", "running"])
        words = ["ddl", "resume", change["id"], "--config", str(config(victim, "victim")), "--json"]
        if second.rows(waiting):  # a server may notice at once that its client has gone
            busy = CliRunner().invoke(app, words)
            assert busy.exit_code == 1
            assert "still runs the statement" in busy.stderr or not second.rows(waiting)
        with blocker.cursor() as cursor:
            cursor.execute("ROLLBACK")
        eventually(lambda: not second.rows(waiting), "the statement ends on shard2")
        resumed = CliRunner().invoke(app, words)
        assert resumed.exit_code == 0, resumed.output
        assert states(json.loads(resumed.stdout)) == ["done", "done"]
        for index in (0, 1):
            assert "age" in columns(victim, index, "users")
    finally:
        blocker.close()
        victim.process.stop()
        for index in (0, 1):
            if "age" in columns(victim, index, "users"):
                victim.primary(index).rows("ALTER TABLE main.users DROP COLUMN age")
        clean(cluster)


def _ignored(connection: Any, sql: str) -> None:
    with pytest.raises(pymysql.MySQLError):
        run(connection, sql)


def test_a_table_registers_itself_for_all_workers_and_for_the_next_start(proxy: ProxyUnderTest, client: Any) -> None:
    assert "not in the configuration" in refused(client, "CREATE TABLE fish (uid BIGINT NOT NULL PRIMARY KEY)")
    run(client, "CREATE TABLE fish (uid BIGINT NOT NULL PRIMARY KEY, n INT) /*shardproxy: key=uid keyspace=main*/")
    connections = [proxy.connect() for _ in range(8)]  # some on each worker
    try:
        for number, connection in enumerate(connections):
            run(connection, f"INSERT INTO fish VALUES ({number * 250}, {number})")
        assert proxy.primary(0).rows("SELECT COUNT(*) FROM main.fish") == [(4,)]
        assert proxy.primary(1).rows("SELECT COUNT(*) FROM main.fish") == [(4,)]
    finally:
        for connection in connections:
            connection.close()
    later = start_proxy(proxy.cluster, "later", keyspaces=KEYSPACES)
    try:
        with closing(later.connect()) as connection:
            assert run(connection, "SELECT n FROM fish WHERE uid = 1750") == ((7,),)
    finally:
        later.process.stop()
    run(client, "DROP TABLE fish")
    assert "not in the configuration" in refused(client, "SELECT * FROM fish WHERE uid = 1")
    for shard in (0, 1):
        assert proxy.primary(shard).rows("SELECT COUNT(*) FROM _shardproxy.table_config") == [(0,)]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("CREATE TABLE fish (uid VARCHAR(9)) /*shardproxy: key=uid*/", "is VARCHAR"),
        ("CREATE TABLE fish (id BIGINT) /*shardproxy: key=uid*/", "has no column uid"),
        ("CREATE TABLE fish (uid BIGINT) /*shardproxy: key=uid keyspace=hashed*/", "keyspace=hashed"),
        ("CREATE TABLE fish (uid BIGINT) /*shardproxy: single=nowhere*/", "single=nowhere"),
        ("CREATE TABLE fish (uid BIGINT) /*shardproxy: key=uid reference*/", "exactly one of"),
        ("CREATE TABLE users (uid BIGINT) /*shardproxy: reference*/", "configured already"),
        ("SELECT 1 /*shardproxy: key=uid*/", "CREATE TABLE only"),
    ],
)
def test_registrations_that_are_refused(proxy: ProxyUnderTest, client: Any, statement: str, why: str) -> None:
    assert why in refused(client, statement)


def test_a_change_behind_the_proxy_is_noticed(proxy: ProxyUnderTest) -> None:
    run_by = start_proxy(proxy.cluster, "watcher", keyspaces=KEYSPACES, backend={"schema_interval": "50ms"})
    try:
        with closing(run_by.connect()) as connection:
            for shard in (0, 1):
                proxy.primary(shard).rows("CREATE TABLE main.people (a INT, id BIGINT NOT NULL PRIMARY KEY)")

            def routed() -> bool:
                with suppress(pymysql.MySQLError):
                    run(connection, "INSERT INTO people VALUES (5, 2000)")
                    return True
                return False

            eventually(routed, "the position of the key is known")
            assert proxy.primary(1).rows("SELECT a, id FROM main.people") == [(5, 2000)]
    finally:
        run_by.process.stop()
        clean(proxy.cluster)
