"""`shardctl rebalance plan` against real servers of both flavours: right figures, and what is wrong is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shardproxy.cli.main import app
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.reshard.ledger import read_map
from shardproxy.store.interface import ABSENT
from shardproxy.store.opening import open_store
from shardproxy.topology.bootstrap import missing
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.keys import bucket_of
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.map_form import RangeForm
from shardproxy.topology.ring import place_buckets
from shardproxy.topology.stored import MAPS
from tests.proxy import make_bookkeeping

TABLES = (
    "CREATE TABLE users (uid BIGINT NOT NULL PRIMARY KEY, name VARCHAR(40) NOT NULL)",
    "CREATE TABLE orders (uid BIGINT NOT NULL, id INT NOT NULL, total DECIMAL(9,2), PRIMARY KEY (uid, id))",
    "CREATE TABLE countries (code CHAR(2) NOT NULL PRIMARY KEY, name VARCHAR(50))",
)
SHARDED = 'users = { key = "uid" }\norders = { key = "uid" }\n'
ROWS = 2000


def ranged(database: str, more: str = "", shards: tuple[str, str] = ("shard1", "shard2")) -> str:
    return f"""
[keyspaces.{database}]
key_type = "int"
map = "range"
[[keyspaces.{database}.ranges]]
from = "min"
to = 1000
shard = "{shards[0]}"
[[keyspaces.{database}.ranges]]
from = 1000
to = "max"
shard = "{shards[1]}"
[keyspaces.{database}.tables]
{SHARDED}
countries = {{ reference = true }}
{more}
"""


def hashed(database: str, ring: str, more: str = "") -> str:
    return f"""
[keyspaces.{database}]
key_type = "int"
map = "hash"
ring = {ring}
[keyspaces.{database}.tables]
{SHARDED}
{more}
"""


def run(path: Path, database: str, *goals: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["rebalance", "plan", database, "--json", "--config", str(path), *goals])
    assert result.exit_code in (0, 1), result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    assert answer["refused"] == (result.exit_code == 1)
    assert answer["refused"] == any(f["severity"] == "error" for f in answer["findings"])
    return result.exit_code, answer


def file(cluster: LocalCluster, database: str, text: str, **backend: str | int) -> Path:
    path = cluster.config_toml(text, backend={"pool_size": 8, **backend}, name=f"{database}.toml").path
    if not backend:
        make_bookkeeping(path)
    return path


def fill(server: LocalServer, database: str, keys: list[int]) -> None:
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO users VALUES (%s, 'x')", [(key,) for key in keys])
        cursor.executemany("INSERT INTO orders VALUES (%s, %s, 1)", [(key, i) for key in keys for i in (1, 2)])
        cursor.execute("ANALYZE TABLE users, orders")


@pytest.fixture
def empty(cluster: LocalCluster, database: str) -> str:
    """A database with its tables on both shards."""
    for shard in cluster.shards:
        for statement in TABLES:
            shard.primary.rows(statement, database=database)
    return database


@pytest.fixture
def by_range(cluster: LocalCluster, empty: str) -> Path:
    """Keys 0 to 999 on the first shard, 1000 to 2999 on the second; each with one user and two orders."""
    fill(cluster.shards[0].primary, empty, list(range(1000)))
    fill(cluster.shards[1].primary, empty, list(range(1000, 3000)))
    return file(cluster, empty, ranged(empty))


def what(answer: dict[str, Any], severity: str) -> list[str]:
    return [f"{f['where']}: {f['what']}" for f in answer["findings"] if f["severity"] == severity]


def only(answer: dict[str, Any], severity: str, where: str, text: str) -> None:
    """Exactly this finding of the severity, beside those of local servers' settings and of other tests' proxies."""
    usual = ("sync_binlog", "innodb_flush_log", "connections use our account")
    found = [w for w in what(answer, severity) if not any(word in w for word in usual)]
    assert len(found) == 1 and found[0].startswith(where) and text in found[0], found


# ── figures ──


def test_a_range_is_counted_exactly(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    status, answer = run(by_range, empty, "--split-range", "400=shard2", "--throttle", "1k/s")
    assert (status, what(answer, "error")) == (0, [])
    [stream] = answer["streams"]
    assert (stream["source"], stream["target"], stream["keys"]) == ("shard1", "shard2", {"intervals": [[400, 1000]]})
    assert (stream["rows"], stream["exact"]) == (1800, True)
    assert {name: size["rows"] for name, size in stream["tables"].items()} == {"users": 600, "orders": 1200}
    assert stream["bytes"] > 0 and 0.1 < answer["share"] < 0.3
    assert answer["seconds"] == 1.8
    assert [r["to"] for r in answer["ranges"]] == [400, "max"] or [r["to"] for r in answer["ranges"]] == [
        400,
        1000,
        "max",
    ]


def test_buckets_are_counted_exactly(cluster: LocalCluster, empty: str) -> None:
    order = {"shard1": 0, "shard2": 1}
    owners = place_buckets({"shard1": 1, "shard2": 1}, order)
    for index, shard in enumerate(cluster.shards):
        fill(shard.primary, empty, [key for key in range(ROWS) if owners[bucket_of(key)] == index])
    path = file(cluster, empty, hashed(empty, "{ shard1 = 1, shard2 = 1 }"))
    status, answer = run(path, empty, "--weights", "shard2=3")
    assert (status, what(answer, "error")) == (0, [])
    [stream] = answer["streams"]
    moving = set(stream["keys"]["buckets"])
    want = sum(bucket_of(key) in moving for key in range(ROWS))
    assert stream["rows"] == 3 * want and stream["exact"] and want
    assert answer["share_of_buckets"] == pytest.approx(0.25, abs=0.03)
    assert answer["weights"] == {"shard1": 1, "shard2": 3}


@pytest.mark.parametrize("kind", ["range", "hash"])
def test_without_time_to_count_it_is_estimated_and_said(cluster: LocalCluster, empty: str, kind: str) -> None:
    fill(cluster.shards[0].primary, empty, list(range(ROWS)))
    text = ranged(empty) if kind == "range" else hashed(empty, "{ shard1 = 1 }")
    goal = ["--split-range", "500=shard2"] if kind == "range" else ["--add-shard", "shard2"]
    _, answer = run(file(cluster, empty, text), empty, *goal, "--measure-time", "0")
    [stream] = answer["streams"]
    assert not stream["exact"]
    # Half of the keys move. What range and key say for the first shard of the file is only that keys from 500 on do.
    assert stream["rows"] == pytest.approx(3 * ROWS / 2 if kind == "hash" else 3 * 500, rel=0.5)


def test_a_table_that_is_locked_holds_the_plan_up_for_its_time_only(cluster: LocalCluster, empty: str) -> None:
    fill(cluster.shards[0].primary, empty, list(range(ROWS)))
    path = file(cluster, empty, hashed(empty, "{ shard1 = 1 }"))
    with cluster.shards[0].primary.connect(empty) as locker, locker.cursor() as cursor:
        cursor.execute("LOCK TABLES users WRITE")
        status, answer = run(path, empty, "--add-shard", "shard2", "--measure-time", "1")
        assert status == 1 and any("DELETE FROM" in w and "timeout" in w for w in what(answer, "error"))
    [stream] = answer["streams"]
    assert not stream["exact"] and stream["tables"]["users"]["rows"] == pytest.approx(ROWS / 2, rel=0.5)


def test_levelling_cuts_where_the_bytes_are(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    status, answer = run(by_range, empty, "--even")
    assert (status, what(answer, "error")) == (0, [])
    [stream] = answer["streams"]
    assert (stream["source"], stream["target"]) == ("shard2", "shard1")
    [[low, high]] = stream["keys"]["intervals"]
    assert low == 1000 and 1300 <= high <= 1700, "shard2 has twice the rows, next to the boundary"
    assert not answer["levelled_by_estimates"]
    _, guessed = run(by_range, empty, "--even", "--measure-time", "0")
    assert guessed["levelled_by_estimates"] and guessed["streams"]


def test_buckets_are_levelled_by_bytes(cluster: LocalCluster, empty: str) -> None:
    owners = place_buckets({"shard1": 1, "shard2": 1}, {"shard1": 0, "shard2": 1})
    keys = [key for key in range(ROWS) if owners[bucket_of(key)] == 0]
    fill(cluster.shards[0].primary, empty, keys)
    path = file(cluster, empty, hashed(empty, "{ shard1 = 1, shard2 = 1 }"))
    _, answer = run(path, empty, "--even")
    [stream] = answer["streams"]
    assert (stream["source"], stream["target"]) == ("shard1", "shard2")
    assert stream["rows"] == pytest.approx(3 * len(keys) / 2, rel=0.1)


def test_a_new_server_and_what_people_see(
    cluster: LocalCluster, oracle: LocalServer, empty: str, by_range: Path
) -> None:
    oracle.rows(f"CREATE DATABASE {empty}")
    try:
        for statement in TABLES:
            oracle.rows(statement, database=empty)
        goals = ["--add-shard", f"new={oracle.address}", "--split-range", "2000=new"]
        _, answer = run(by_range, empty, *goals)
        assert answer["shards"] == {"added": ["new"], "after": ["shard1", "shard2", "new"]}
        assert [s["rows"] for s in answer["streams"]] == [3000]
        assert any(w.startswith("new/primary: the bookkeeping tables are missing") for w in what(answer, "warning"))
        cluster.shards[0].primary.rows("INSERT INTO countries VALUES ('de', 'x')", database=empty)
        oracle.rows("DROP TABLE countries", database=empty)
        assert run(by_range, empty, *goals)[0] == 0, "the move makes and fills it"
        oracle.rows(TABLES[2], database=empty)
        oracle.rows("INSERT INTO countries VALUES ('de', 'y')", database=empty)
        _, answer = run(by_range, empty, *goals)
        only(answer, "error", f"{empty}.countries", "new has rows of the reference table that may be others")
        shown = CliRunner().invoke(app, ["rebalance", "plan", empty, "--config", str(by_range), *goals])
        assert shown.exit_code == 1
        assert "2000:max" in shown.stdout and "3,000" in shown.stdout and "1 finding refuses the move" in shown.stdout
        assert "  fix: shardctl migrate" in shown.stdout
    finally:
        oracle.rows(f"DROP DATABASE {empty}")


def test_nothing_to_do(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    shown = CliRunner().invoke(app, ["rebalance", "plan", empty, "--config", str(by_range), "--split-range", "7"])
    assert shown.exit_code == 0 and "no row moves: only the map changes" in shown.stdout
    goal = ["--move-range", "5:9=shard1"]
    shown = CliRunner().invoke(app, ["rebalance", "plan", empty, "--config", str(by_range), *goal])
    assert shown.exit_code == 0 and "nothing moves" in shown.stdout


@pytest.mark.parametrize(
    ("goals", "why"),
    [
        ([], "no goal is given"),
        (["--split-range", "1000"], "begins at 1000 already"),
        (["--split-range", "x"], "expected an integer key"),
        (["--weights", "shard1=2"], "--even"),
        (["--move-bucket", "5=shard1"], "no buckets"),
        (["--add-shard", "c=host", "--even"], "expected"),
        (["--by-load"], "no proxy has stored what it measured"),
        (["--by-load", "--even"], "are two goals"),
        (["--shard-table", "t=k"], "has no table t"),
        (["--change-key", "countries=code"], "has no key that could change"),
        (["--map", "range:min:max=shard1"], "has a range map already"),
        (["--map", "hash", "--even"], "makes a new map"),
        (["--split-range", "5=shard2", "--throttle", "fast"], "rows per second"),
    ],
)
def test_what_makes_no_sense_is_status_2(mariadb_cluster: LocalCluster, goals: list[str], why: str) -> None:
    path = mariadb_cluster.config_toml(ranged("nowhere"), name="nowhere.toml").path
    result = CliRunner().invoke(app, ["rebalance", "plan", "nowhere", "--config", str(path), *goals])
    assert result.exit_code == 2 and why in result.stderr, result.output


def test_a_map_of_the_other_kind_is_counted(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    status, answer = run(by_range, empty, "--map", "hash", "--weights", "shard1=2")
    assert (status, what(answer, "error")) == (0, [])
    ring = place_buckets({"shard1": 2, "shard2": 1}, {"shard1": 0, "shard2": 1})
    assert [(s["source"], s["target"], s["exact"]) for s in answer["streams"]] == [
        ("shard1", "shard2", True), ("shard2", "shard1", True),
    ]  # fmt: skip
    first = sum(ring[bucket_of(key)] == 1 for key in range(1000))
    second = sum(ring[bucket_of(key)] == 0 for key in range(1000, 3000))
    assert [s["rows"] for s in answer["streams"]] == [3 * first, 3 * second]
    assert answer["streams"][0]["keys"]["intervals"] == [["min", 1000]]


def test_a_single_table_is_counted_and_must_fit(cluster: LocalCluster, empty: str) -> None:
    path = file(cluster, empty, ranged(empty, 'notes = { single = "shard1" }\nfree = { single = "shard1" }'))
    for number, shard in enumerate(cluster.shards):
        shard.primary.rows("CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, uid BIGINT NOT NULL)", database=empty)
        if not number:
            shard.primary.rows("CREATE TABLE free (id INT NOT NULL PRIMARY KEY, uid BIGINT)", database=empty)
            values = ", ".join(f"({n}, {n * 10})" for n in range(200))
            shard.primary.rows(f"INSERT INTO notes VALUES {values}", database=empty)
    status, answer = run(path, empty, "--shard-table", "notes=uid")
    assert (status, what(answer, "error")) == (0, [])
    assert [(s["source"], s["target"], s["rows"]) for s in answer["streams"]] == [("shard1", "shard2", 100)]
    assert answer["table"] == {"name": "notes", "key": "uid"} and answer["share"] == 0.5
    only(run(path, empty, "--shard-table", "free=uid")[1], "error", f"{empty}.free", "may be NULL")
    cluster.shards[1].primary.rows("INSERT INTO notes VALUES (1, 5)", database=empty)
    only(run(path, empty, "--shard-table", "notes=uid")[1], "error", f"{empty}.notes", "has rows with keys that would")


def test_rows_that_another_key_moves_are_counted(cluster: LocalCluster, empty: str) -> None:
    path = file(cluster, empty, ranged(empty, 'notes = { key = "uid" }'))
    for number, shard in enumerate(cluster.shards):
        statement = "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, uid BIGINT NOT NULL, tenant BIGINT NOT NULL)"
        shard.primary.rows(statement, database=empty)
        values = ", ".join(f"({n}, {number * 1000 + n}, {n * 10})" for n in range(200))
        shard.primary.rows(f"INSERT INTO notes VALUES {values}", database=empty)
    status, answer = run(path, empty, "--change-key", "notes=tenant")
    assert (status, what(answer, "error")) == (0, [])
    assert [(s["source"], s["target"], s["rows"]) for s in answer["streams"]] == [
        ("shard1", "shard2", 100), ("shard2", "shard1", 100),
    ]  # fmt: skip
    cluster.shards[1].primary.rows("INSERT INTO notes VALUES (900, 5, 5000)", database=empty)
    only(
        run(path, empty, "--change-key", "notes=tenant")[1], "error", f"{empty}.notes", "has rows with keys that would"
    )


def test_keys_without_a_shard_get_one_in_the_stored_map(cluster: LocalCluster, empty: str, tmp_path: Path) -> None:
    """No row moves, and no move is needed."""
    text = ranged(empty).replace('to = "max"', "to = 2000") + f'[store]\npath = "{tmp_path / "maps"}"\n'
    path = file(cluster, empty, text)
    settings = load(path, proxy_environment())

    async def stored(first: bool = False) -> MapDocument:
        store = await open_store(settings)
        try:
            if first:
                [document] = missing(build_snapshot(settings), {})
                await store.put(MAPS + empty, document.document(), ABSENT)
            return (await read_map(store, empty))[0]
        finally:
            await store.close()

    before = asyncio.run(stored(first=True))
    cluster.shards[1].primary.rows("INSERT INTO users VALUES (2500, 'stray')", database=empty)
    goal = ["--move-range", "2000:3000=shard2"]
    only(run(path, empty, *goal)[1], "error", f"{empty}.users", "shard2 has rows with keys that would come to it")
    cluster.shards[1].primary.rows("DELETE FROM users", database=empty)
    result = CliRunner().invoke(app, ["rebalance", "run", empty, "--config", str(path), *goal])
    assert result.exit_code == 0 and "the map is changed" in result.stdout, result.output
    after = asyncio.run(stored())
    assert after.epoch == before.epoch + 1 and after.move is None
    assert isinstance(after.map, RangeForm) and after.map.ranges[-1] == (1000, 3000, "shard2")


# ── findings ──

MOVE = ["--split-range", "500=shard2"]


def test_servers_in_order_give_no_error(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    status, answer = run(by_range, empty, *MOVE)
    assert (status, what(answer, "error")) == (0, [])
    warned = what(answer, "warning")
    assert any("sync_binlog is 0" in w for w in warned) and any("flush_log_at_trx_commit is 2" in w for w in warned)


@pytest.mark.parametrize(
    ("statements", "text"),
    [
        (["ALTER TABLE users DROP PRIMARY KEY"], "no primary key"),
        (["ALTER TABLE orders ADD CONSTRAINT f FOREIGN KEY (uid) REFERENCES users (uid)"], "foreign key f"),
        (["CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW SET NEW.name = 'y'"], "trigger t BEFORE INSERT"),
        (["ALTER TABLE users ENGINE = MyISAM"], "its engine is MyISAM"),
    ],
)
def test_tables_that_cannot_move(
    cluster: LocalCluster, empty: str, by_range: Path, statements: list[str], text: str
) -> None:
    for shard in cluster.shards:
        for statement in statements:
            shard.primary.rows(statement, database=empty)
    only(run(by_range, empty, *MOVE)[1], "error", f"{empty}.", text)


def test_a_generated_key(cluster: LocalCluster, empty: str) -> None:
    for shard in cluster.shards:
        shard.primary.rows("CREATE TABLE g (a INT PRIMARY KEY, k INT AS (a + 1) STORED, KEY (k))", database=empty)
    path = file(cluster, empty, ranged(empty, 'g = { key = "k" }'))
    only(run(path, empty, *MOVE)[1], "error", f"{empty}.g", "key column k is generated")


def test_a_unique_key_without_the_shard_key_is_a_warning(cluster: LocalCluster, empty: str) -> None:
    for shard in cluster.shards:
        shard.primary.rows("ALTER TABLE orders ADD UNIQUE KEY u (id, total)", database=empty)
    status, answer = run(file(cluster, empty, ranged(empty)), empty, *MOVE)
    assert status == 0
    only(answer, "warning", f"{empty}.orders", "unique index u lacks the shard key uid")


def test_different_and_missing_definitions(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    two = cluster.shards[1].primary
    two.rows("ALTER TABLE users MODIFY name VARCHAR(41) NOT NULL", database=empty)
    only(run(by_range, empty, *MOVE)[1], "error", f"{empty}.users", "column name differs")
    two.rows("DROP TABLE users", database=empty)
    only(run(by_range, empty, *MOVE)[1], "error", f"{empty}.users", "does not exist on shard2")


def test_a_target_with_rows_of_the_moving_keys(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    cluster.shards[1].primary.rows("INSERT INTO users VALUES (600, 'stray')", database=empty)
    only(run(by_range, empty, *MOVE)[1], "error", f"{empty}.users", "shard2 has rows with keys that would come to it")
    _, unknown = run(by_range, empty, *MOVE, "--measure-time", "0")
    assert sum("was not found in time" in w for w in what(unknown, "warning")) == 2


def test_reference_tables_that_cannot_be_copied(
    cluster: LocalCluster, oracle: LocalServer, empty: str, by_range: Path
) -> None:
    goals = ["--add-shard", f"new={oracle.address}", "--split-range", "2000=new"]
    cluster.shards[0].primary.rows("CREATE TRIGGER t AFTER INSERT ON countries FOR EACH ROW DO 0", database=empty)
    only(run(by_range, empty, *goals)[1], "error", f"{empty}.countries", "would run again")
    assert run(by_range, empty, *MOVE)[0] == 0, "no shard joins"


def test_entries_of_lookup_indexes_go_with_the_keys(cluster: LocalCluster, empty: str) -> None:
    more = 'mails = { key = "uid", lookups = ["mail"] }'
    for shard in cluster.shards:
        shard.primary.rows(
            "CREATE TABLE mails (uid BIGINT PRIMARY KEY, mail VARCHAR(50) NOT NULL UNIQUE)", database=empty
        )
    path = file(cluster, empty, hashed(empty, "{ shard1 = 1, shard2 = 1 }", more))
    assert run(path, empty, "--weights", "shard2=3")[0] == 0
    path = file(cluster, empty, ranged(empty, more))
    assert run(path, empty, *MOVE)[0] == 0
    assert run(path, empty, "--remove-shard", "shard2")[0] == 0


def test_shards_with_single_tables_do_not_leave(cluster: LocalCluster, empty: str) -> None:
    path = file(cluster, empty, ranged(empty, 'settings = { single = "shard1" }'))
    _, answer = run(path, empty, "--remove-shard", "shard1")
    only(answer, "error", empty, "single tables are on shard1")
    assert run(path, empty, "--evacuate", "shard1")[0] == 0
    assert run(file(cluster, empty, ranged(empty)), empty, "--remove-shard", "shard1")[0] == 0, "the home can leave"


def test_unfinished_moves_and_schema_changes(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    one, two = (shard.primary for shard in cluster.shards)
    two.rows("INSERT INTO _shardproxy.move (move_id, keyspace, generation) VALUES (77001, %s, 1)", (empty,))
    two.rows(
        "INSERT INTO _shardproxy.stream (move_id, direction, source_shard, position, restart_position) "
        "VALUES (77001, 'forward', 'shard1', '', '')"
    )
    one.rows("INSERT INTO _shardproxy.ddl_table VALUES (%s, 'users', 77001)", (empty,))
    try:
        _, answer = run(by_range, empty, *MOVE)
        errors = what(answer, "error")
        assert len(errors) == 2
        assert any("move 77001 has an unfinished stream into shard2" in w for w in errors)
        assert any("schema change of users is unfinished" in w for w in errors)
    finally:
        for server in (one, two):
            for table, column in (("stream", "move_id"), ("move", "move_id"), ("ddl_table", "ddl_id")):
                server.rows(f"DELETE FROM _shardproxy.{table} WHERE {column} = 77001")
    assert run(by_range, empty, *MOVE)[0] == 0


@contextmanager
def setting(server: LocalServer, variable: str, value: str) -> Iterator[None]:
    [(_, old)] = server.rows(f"SHOW GLOBAL VARIABLES LIKE '{variable}'")
    quoted: Callable[[str], str] = lambda text: text if text.isdigit() else f"'{text}'"  # noqa: E731
    server.rows(f"SET GLOBAL {variable} = {quoted(value)}")
    try:
        yield
    finally:
        server.rows(f"SET GLOBAL {variable} = {quoted(str(old))}")


SETTINGS = [
    ("binlog_format", "MIXED", "binlog_format is MIXED", ""),
    ("binlog_row_image", "MINIMAL", "binlog_row_image is MINIMAL", ""),
    ("binlog_row_metadata", "MINIMAL", "binlog_row_metadata is MINIMAL", ""),
    ("log_bin_compress", "ON", "log_bin_compress is ON", "mariadb"),
    ("binlog_transaction_compression", "ON", "binlog_transaction_compression is ON", "mysql"),
    ("binlog_row_value_options", "PARTIAL_JSON", "binlog_row_value_options is PARTIAL_JSON", "mysql"),
    ("binlog_order_commits", "OFF", "binlog_order_commits is OFF", "mysql"),
    ("binlog_expire_logs_seconds", "60", "binlogs may be purged before", ""),
    ("innodb_flush_log_at_trx_commit", "0", "innodb_flush_log_at_trx_commit is 0", ""),
    ("sql_mode", "STRICT_ALL_TABLES", "sql_mode", ""),
    ("read_only", "ON", "read_only is on", ""),
]


@pytest.mark.parametrize(("variable", "value", "text", "only_on"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_settings_of_the_source(
    cluster: LocalCluster, empty: str, by_range: Path, variable: str, value: str, text: str, only_on: str
) -> None:
    if only_on and only_on != cluster.flavor:
        assert cluster.shards[0].primary.rows(f"SHOW GLOBAL VARIABLES LIKE '{variable}'") == []
        return
    with setting(cluster.shards[0].primary, variable, value):
        _, answer = run(by_range, empty, *MOVE)
    assert any(text in w for w in what(answer, "error")), what(answer, "error")
    assert run(by_range, empty, *MOVE)[0] == 0


def test_a_target_that_takes_smaller_packets(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    with setting(cluster.shards[1].primary, "max_allowed_packet", str(64 << 20)):
        only(run(by_range, empty, *MOVE)[1], "error", "shard2/primary", "max_allowed_packet is 67108864")


def test_rights_of_the_account(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    account = "mover"
    for shard in cluster.shards:
        shard.primary.rows(f"CREATE USER {account}@'%' IDENTIFIED BY 'x'")
        shard.primary.rows(f"GRANT SELECT, TRIGGER ON *.* TO {account}@'%'")
    cluster.wait_replicated()
    try:
        keyspaces = ranged(empty) + '\n[rebalance]\nbypass = "refuse"\n'
        path = file(cluster, empty, keyspaces, user=account, password="x")
        _, answer = run(path, empty, *MOVE)
        errors = what(answer, "error")
        wanted = ["REPLICATION SLAVE", "PROCESS", "SUPER: it is needed to refuse writes past the proxies",
                  f"may not do what a move does (DELETE FROM `{empty}`.`users`)",
                  "may not do what a move does (UPDATE _shardproxy.move"]  # fmt: skip
        wanted += (
            ["BINLOG MONITOR", "CONNECTION ADMIN"]
            if cluster.flavor == "mariadb"
            else ["REPLICATION CLIENT", "LOCK TABLES", "XA_RECOVER_ADMIN", "CONNECTION_ADMIN"]
        )
        for shard in cluster.shards:
            for text in wanted:
                assert any(w.startswith(f"{shard.name}/primary") and text in w for w in errors), (text, errors)
    finally:
        for shard in cluster.shards:
            shard.primary.rows(f"DROP USER {account}@'%'")


def test_connections_of_others_under_our_account(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    source = cluster.shards[0].primary
    with source.connect(user="shardproxy", password="shardproxy"):
        _, answer = run(by_range, empty, *MOVE)
    assert any("other connections use our account shardproxy" in w for w in what(answer, "warning"))


def test_a_replica_that_has_stopped(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    replica = cluster.shards[0].replicas[0]
    replica.rows("STOP REPLICA SQL_THREAD")
    try:
        only(run(by_range, empty, *MOVE)[1], "error", "shard1/replica1", "replication is not applying")
    finally:
        replica.rows("START REPLICA SQL_THREAD")
        cluster.wait_replicated()


def test_a_server_that_does_not_answer(cluster: LocalCluster, empty: str, by_range: Path) -> None:
    goals = ["--add-shard", "gone=127.0.0.1:1", "--split-range", "2000=gone"]
    _, answer = run(by_range, empty, *goals)
    only(answer, "error", "gone/primary", "cannot be asked")


def test_a_source_that_does_not_answer_is_status_1(mariadb_cluster: LocalCluster) -> None:
    text = ranged("nowhere").replace("[keyspaces", "[keyspaces", 1)
    path = mariadb_cluster.config_toml(text, backend={"user": "nobody"}, name="nobody.toml").path
    result = CliRunner().invoke(app, ["rebalance", "plan", "nowhere", "--config", str(path), *MOVE])
    assert result.exit_code == 1 and "nobody" in result.stderr
