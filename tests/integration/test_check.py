"""`shardctl check` against real servers of both flavours: nothing wrong is quiet, each thing broken is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardproxy.cli.main import app
from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.store.opening import open_store
from shardproxy.topology.bootstrap import missing
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.map_form import NamedRange, RangeForm, TableForm
from shardproxy.topology.stored import MAPS
from tests.proxy import make_bookkeeping

TABLES = (
    "CREATE TABLE users (uid BIGINT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(40) NOT NULL)",
    "CREATE TABLE orders (uid BIGINT UNSIGNED NOT NULL, id INT NOT NULL, total DECIMAL(9,2), PRIMARY KEY (uid, id))",
    "CREATE TABLE countries (code CHAR(2) NOT NULL PRIMARY KEY, name VARCHAR(50), j JSON, b BIT(5), f DOUBLE)",
)


def keyspace(database: str, more: str = "") -> str:
    return f"""
[keyspaces.{database}]
key_type = "int"
map = "range"
[[keyspaces.{database}.ranges]]
from = "min"
to = 1000
shard = "shard1"
[[keyspaces.{database}.ranges]]
from = 1000
to = "max"
shard = "shard2"
[keyspaces.{database}.tables]
users = {{ key = "uid" }}
orders = {{ key = "uid" }}
countries = {{ reference = true }}
{more}
"""


def check(cluster: LocalCluster, database: str, *arguments: str, more: str = "") -> tuple[int, list[dict[str, str]]]:
    """Exit status and findings, without those of the whole server that tests do not set up."""
    # Small pools: the local servers have few connections.
    path = cluster.config_toml(keyspace(database, more), backend={"pool_size": 8}, name=f"{database}.toml").path
    return check_file(path, *arguments)


def check_file(path: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["check", "--json", "--config", str(path), *arguments])
    assert result.exit_code in (0, 1), result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    assert answer["usable"]
    assert answer["errors"] == sum(f["severity"] == "error" for f in answer["findings"])
    assert (result.exit_code == 1) == (answer["errors"] > 0)
    return result.exit_code, answer["findings"]


def told(findings: list[dict[str, str]], severity: str, where: str, what: str) -> bool:
    return any(f["severity"] == severity and f["where"] == where and what in f["what"] and f["fix"] for f in findings)


@pytest.fixture
def shop(cluster: LocalCluster, database: str) -> str:
    """A database whose tables are in order on all servers."""
    for number, shard in enumerate(cluster.shards):
        for statement in TABLES:
            shard.primary.rows(statement, database=database)
        shard.primary.rows(
            "INSERT INTO countries VALUES ('de', 'Deutschland', '{\"a\": 1}', b'101', 1.5)", database=database
        )
        shard.primary.rows(f"INSERT INTO users VALUES ({5 + 1000 * number}, 'x')", database=database)
    cluster.wait_replicated()
    return database


def test_servers_in_order_give_no_finding(cluster: LocalCluster, shop: str) -> None:
    assert check(cluster, shop, "--data") == (0, [])


def test_what_is_printed_for_people(cluster: LocalCluster, shop: str) -> None:
    path = cluster.config_toml(keyspace(shop, 'settings = { single = "shard1" }'), name=f"{shop}.toml").path
    result = CliRunner().invoke(app, ["check", "--config", str(path)])
    assert result.exit_code == 1
    assert f"error {shop}.settings: it does not exist on shard1" in result.stdout
    assert "  fix: create it, or take it out of the file" in result.stdout


def test_different_and_missing_definitions(cluster: LocalCluster, shop: str) -> None:
    one, two = (shard.primary for shard in cluster.shards)
    two.rows("ALTER TABLE users MODIFY name VARCHAR(41) NULL", database=shop)
    one.rows("ALTER TABLE orders ADD INDEX by_total (total)", database=shop)
    two.rows("DROP TABLE countries", database=shop)
    one.rows("CREATE TABLE forgotten (k INT)", database=shop)
    status, findings = check(cluster, shop)
    assert status == 1
    assert told(findings, "error", f"{shop}.users", "column name differs: varchar(40)")
    assert told(
        findings, "error", f"{shop}.orders", "index by_total differs: BTREE (total) against none (shard1, shard2)"
    )
    assert told(findings, "error", f"{shop}.countries", "it does not exist on shard2")
    assert told(findings, "warning", shop, "nobody registered, so clients cannot use them: forgotten")


def test_tables_registered_through_a_proxy_are_known(cluster: LocalCluster, shop: str) -> None:
    make_bookkeeping(cluster.config_toml(keyspace(shop), backend={"pool_size": 8}, name=f"{shop}.toml").path)
    register = "INSERT INTO _shardproxy.table_config VALUES (%s, %s, %s, %s, %s)"
    for number, shard in enumerate(cluster.shards):
        shard.primary.rows(register, (shop, "late", "sharded", "uid", None))
        shard.primary.rows("CREATE TABLE late (uid BIGINT PRIMARY KEY)", database=shop)
        shard.primary.rows("INSERT INTO late VALUES (%s)", (5 + 1000 * number,), database=shop)
    try:
        assert check(cluster, shop, "--data") == (0, [])
        one, two = (shard.primary for shard in cluster.shards)
        two.rows("INSERT INTO late VALUES (6)", database=shop)
        one.rows(register, (shop, "away", "single", None, "shard9"))
        one.rows(register, (shop, "orders", "reference", None, None))
        _, findings = check(cluster, shop, "--data")
        assert told(findings, "error", f"{shop}.late", "1 rows on shard2 have a key")
        assert told(findings, "warning", f"{shop}.away", "single on shard9, which the file does not have")
        assert told(findings, "warning", f"{shop}.orders", "the file wins")
        assert len(findings) == 3
    finally:
        for shard in cluster.shards:
            shard.primary.rows("DELETE FROM _shardproxy.table_config WHERE keyspace = %s", (shop,))


def test_counters_and_comments_are_no_difference(cluster: LocalCluster, shop: str) -> None:
    for number, shard in enumerate(cluster.shards):
        shard.primary.rows(
            "CREATE TABLE notes (uid BIGINT NOT NULL, id INT NOT NULL AUTO_INCREMENT COMMENT %s, "
            "PRIMARY KEY (uid, id), KEY (id)) COMMENT = %s AUTO_INCREMENT = %s",
            (f"c{number}", f"t{number}", 100 + number),
            database=shop,
        )
    status, findings = check(cluster, shop, more='notes = { key = "uid" }')
    assert (status, [f["what"].split(":")[0] for f in findings]) == (0, ["column id is AUTO_INCREMENT"])


@pytest.mark.parametrize(
    ("column", "severity", "what"),
    [
        ("k VARCHAR(9) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY", "error", 'but the keyspace has key_type = "int"'),
        ("k INT ZEROFILL NOT NULL PRIMARY KEY", "error", "ZEROFILL"),
        ("k DECIMAL(9,0) NOT NULL PRIMARY KEY", "error", 'but the keyspace has key_type = "int"'),
        ("k INT NOT NULL", "warning", "no index begins with the key column k"),
        ("k INT NULL, KEY (k)", "warning", "key column k may be NULL"),
        (
            "a INT NOT NULL, k INT GENERATED ALWAYS AS (a + 1) STORED NOT NULL, KEY (k)",
            "error",
            "key column k is generated",
        ),
        ("a INT, k INT NOT NULL, KEY (k), UNIQUE KEY u (a)", "warning", "unique index u (a) lacks the key column k"),
        ("j INT NOT NULL PRIMARY KEY", "error", "it has no column k"),
    ],
)
def test_columns_that_cannot_or_should_not_be_keys(
    cluster: LocalCluster, database: str, column: str, severity: str, what: str
) -> None:
    if cluster.flavor == "mariadb":
        column = column.replace("STORED NOT NULL", "STORED")  # MariaDB takes no NOT NULL there
    for shard in cluster.shards:
        for statement in (*TABLES, f"CREATE TABLE t ({column})"):
            shard.primary.rows(statement, database=database)
    status, findings = check(cluster, database, more='t = { key = "k" }')
    assert told(findings, severity, f"{database}.t", what), findings
    assert status == (1 if severity == "error" else 0)


def test_text_keys_need_a_binary_collation(cluster: LocalCluster, database: str) -> None:
    for shard in cluster.shards:
        for name, collation in (("good", "utf8mb4_bin"), ("bad", "utf8mb4_general_ci")):
            shard.primary.rows(
                f"CREATE TABLE {name} (k VARCHAR(20) COLLATE {collation} NOT NULL PRIMARY KEY)", database=database
            )
    text = f"""
[keyspaces.{database}]
key_type = "text"
map = "hash"
ring = {{ shard1 = 1, shard2 = 1 }}
tables = {{ good = {{ key = "k" }}, bad = {{ key = "k" }} }}
"""
    _, findings = check_file(cluster.config_toml(text, backend={"pool_size": 8}, name=f"{database}.toml").path)
    [finding] = findings
    assert (finding["where"], finding["severity"]) == (f"{database}.bad", "error")
    assert "would live on different shards" in finding["what"]


def test_foreign_keys_and_triggers_are_warnings(cluster: LocalCluster, shop: str) -> None:
    for shard in cluster.shards:
        shard.primary.rows(
            "ALTER TABLE orders ADD CONSTRAINT owner FOREIGN KEY (uid) REFERENCES users (uid)", database=shop
        )
        shard.primary.rows(
            "CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW SET NEW.name = UPPER(NEW.name)", database=shop
        )
    status, findings = check(cluster, shop)
    assert status == 0
    assert told(findings, "warning", f"{shop}.orders", "foreign key owner (uid) → users (uid)")
    assert told(findings, "warning", f"{shop}.users", "trigger t BEFORE INSERT")
    cluster.shards[1].primary.rows("DROP TRIGGER t", database=shop)
    assert told(check(cluster, shop)[1], "error", f"{shop}.users", "triggers differ")


def test_rows_are_compared_only_when_asked_for(cluster: LocalCluster, shop: str) -> None:
    one, two = (shard.primary for shard in cluster.shards)
    two.rows("UPDATE countries SET name = 'Germany'", database=shop)
    one.rows("INSERT INTO users VALUES (1000, 'stray'), (999, 'fine')", database=shop)
    two.rows("INSERT INTO orders VALUES (7, 1, 1), (7, 2, 1), (1000, 1, 1)", database=shop)
    assert check(cluster, shop) == (0, [])
    status, findings = check(cluster, shop, "--data")
    assert status == 1
    assert told(
        findings, "error", f"{shop}.countries", "rows differ between shards: 1 rows on shard1; 1 rows on shard2"
    )
    assert told(findings, "error", f"{shop}.users", "1 rows on shard1 have a key that the map looks for elsewhere")
    assert told(findings, "error", f"{shop}.orders", "2 rows on shard2 have a key that the map looks for elsewhere")
    assert len(findings) == 3


def test_hashed_rows_are_looked_for_where_the_proxy_looks(cluster: LocalCluster, database: str) -> None:
    """The statement of --data and the proxy's own buckets agree on every key, also text with spaces at its end."""
    from shardproxy.config import load
    from shardproxy.topology.build import build_snapshot
    from shardproxy.topology.keys import canonical_text

    text = f"""
[keyspaces.{database}]
key_type = "text"
map = "hash"
ring = {{ shard1 = 1, shard2 = 2 }}
tables = {{ t = {{ key = "k" }} }}
"""
    path = cluster.config_toml(text, backend={"pool_size": 8}, name=f"{database}.toml").path
    shards = build_snapshot(load(path, {})).keyspaces[database].map
    keys = [f"key {i}" for i in range(200)] + ["", "ü", "naïve  ", "雪", "a\tb"]
    for number, shard in enumerate(cluster.shards):
        shard.primary.rows("CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY)", database=database)
        mine = [k for k in keys if shards.lookup(canonical_text(k.encode())) == number]
        assert mine
        shard.primary.rows(f"INSERT INTO t VALUES {', '.join(['(%s)'] * len(mine))}", tuple(mine), database=database)
    assert check_file(path, "--data") == (0, [])
    cluster.shards[0].primary.rows("INSERT INTO t SELECT CONCAT('x', k) FROM t", database=database)
    status, [finding] = check_file(path, "--data")
    assert status == 1
    moved = sum(
        shards.lookup(canonical_text(f"x{k}".encode())) != 0
        for k in keys
        if shards.lookup(canonical_text(k.encode())) == 0
    )
    assert f"{moved} rows on shard1" in finding["what"]


@pytest.fixture
def lone_pair(flavor: Any) -> Iterator[LocalCluster]:
    """A cluster of its own, for tests that change servers."""
    with LocalCluster(flavor, shards=1, replicas=1) as cluster:
        yield cluster


def one_shard(cluster: LocalCluster, shards: str = "") -> Path:
    cluster.shards[0].primary.rows("CREATE DATABASE IF NOT EXISTS solo")
    cluster.shards[0].primary.rows("CREATE TABLE IF NOT EXISTS solo.users (uid INT NOT NULL PRIMARY KEY)")
    cluster.wait_replicated()
    text = """
[keyspaces.solo]
key_type = "int"
map = "hash"
ring = { shard1 = 1 }
tables = { users = { key = "uid" } }
"""
    return cluster.config_toml(text + shards, backend={"pool_size": 8, "max_lag": "2s"}).path


def test_each_broken_server_is_found_and_fine_again_when_repaired(lone_pair: LocalCluster) -> None:
    """One after the other on one cluster, which is costly to start."""
    [shard] = lone_pair.shards
    primary, [replica] = shard.primary, shard.replicas
    path = one_shard(lone_pair)
    assert check_file(path) == (0, [])

    replica.rows("STOP REPLICA SQL_THREAD")
    assert told(check_file(path)[1], "error", "shard1/replica1", "replication is not applying")
    replica.rows("STOP REPLICA")
    assert told(check_file(path)[1], "error", "shard1/replica1", "replication is not receiving and not applying")
    replica.rows("START REPLICA")

    for server, where, variable, bad, severity, what in (
        (replica, "shard1/replica1", "read_only", "OFF", "warning", "read_only is off"),
        (primary, "shard1/primary", "innodb_flush_log_at_trx_commit", "0", "warning", "a crash loses transactions"),
        (primary, "shard1/primary", "binlog_row_image", "'MINIMAL'", "warning", "binlog_row_image is MINIMAL"),
        (primary, "shard1/primary", "max_connections", "15", "warning", "max_connections is 15"),
        (primary, "all servers", "sql_mode", "'STRICT_ALL_TABLES'", "error", "sql_mode differs: STRICT_ALL_TABLES on"),
        (primary, "shard1/primary", "sql_mode", "''", "error", "sql_mode is not strict"),
        (replica, "all servers", "time_zone", "'+03:00'", "error", "time_zone differs"),
    ):
        [(before,)] = server.rows(f"SELECT @@GLOBAL.{variable}")
        server.rows(f"SET GLOBAL {variable} = {bad}")
        findings = check_file(path)[1]
        assert told(findings, severity, where, what), (variable, findings)
        server.rows(f"SET GLOBAL {variable} = %s", (before,))

    replica.stop()
    assert told(check_file(path)[1], "error", "shard1/replica1", "cannot be asked")
    replica.start()

    stranger = path.read_text().replace('password = "shardproxy"', 'password = "wrong"')
    path.write_text(stranger)
    findings = check_file(path)[1]
    assert told(findings, "error", "shard1/primary", "Access denied")
    assert "wrong" not in json.dumps(findings)


def test_a_server_under_two_names_and_a_replica_of_another_primary(cluster: LocalCluster) -> None:
    one, two = cluster.shards
    path = cluster.config_toml(
        "[keyspaces.none]\nkey_type = 'int'\nmap = 'hash'\nring = { shard1 = 1, shard2 = 1 }", name="twisted.toml"
    ).path
    text = path.read_text()
    crossed = text.replace(one.replicas[0].address, "@").replace(two.replicas[0].address, one.replicas[0].address)
    path.write_text(crossed.replace("@", two.replicas[0].address))
    findings = check_file(path)[1]
    assert told(findings, "error", "shard1/replica1", "it replicates from another server")
    assert told(findings, "error", "shard2/replica1", "it replicates from another server")
    path.write_text(text.replace(two.primary.address, one.primary.address.replace("127.0.0.1", "localhost")))
    assert told(check_file(path)[1], "error", "shard2/primary", "it is the same server as shard1/primary")
    assert told(check_file(path)[1], "error", "shard1/primary", "the database none does not exist")


def test_maps_of_the_store_beside_the_files(cluster: LocalCluster, shop: str, tmp_path: Path) -> None:
    more = f'[store]\npath = "{tmp_path / "maps"}"\n'
    assert not [f for f in check(cluster, shop, more=more)[1] if "store" in f["what"]]
    assert not (tmp_path / "maps").exists()  # nothing is changed anywhere
    config = load(cluster.folder / f"{shop}.toml", proxy_environment())

    async def put(epoch: int, shard: str, tables: dict[str, TableForm] | None = None) -> None:
        store = await open_store(config)
        [document] = missing(build_snapshot(config), {})
        ranges = [NamedRange(r.start, r.end, shard) for r in document.map.ranges]  # type: ignore[union-attr]
        found = await store.get(MAPS + shop)
        changed = document.model_copy(update={"epoch": epoch, "map": RangeForm.of(ranges), "tables": tables or {}})
        await store.put(MAPS + shop, changed.document(), found.version if found else 0)
        await store.close()

    asyncio.run(put(7, "shard1"))
    findings = check(cluster, shop, more=more)[1]
    assert told(findings, "warning", f"keyspace {shop}", "the store's ranges are not the file's")
    topology = CliRunner().invoke(app, ["topology", "--json", "--config", str(cluster.folder / f"{shop}.toml")])
    [shown] = json.loads(topology.stdout)["keyspaces"]
    assert {r["shard"] for r in shown["ranges"]} == {"shard1"} and "the map store say" in topology.stderr
    asyncio.run(put(8, "shard1", {"orders": TableForm(key="id"), "users": TableForm(single="shard2")}))
    findings = check(cluster, shop, more=more)[1]
    assert told(findings, "warning", f"keyspace {shop}", 'the store\'s table orders is { key = "id" }')
    assert told(findings, "warning", f"{shop}.orders", "no index begins with the key column id"), "it is looked at so"
    assert told(findings, "warning", f"{shop}.users", "it is single on shard2 but exists on shard1 too")
    asyncio.run(put(9, "elsewhere"))
    findings = check(cluster, shop, more=more)[1]
    assert told(findings, "error", f"keyspace {shop}", "names shards that the file does not have: elsewhere")
    (tmp_path / "maps").write_text("no store")
    where = f"store {tmp_path / 'maps'}"
    assert [f for f in check(cluster, shop, more=more)[1] if f["where"] == where and f["severity"] == "error"]
