"""`shardctl migrate` against real servers of both flavours."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from typer.testing import CliRunner

from shardproxy.admin import migrations
from shardproxy.admin.migrations import ShardReport, read_migrations
from shardproxy.backend.control import Credentials
from shardproxy.cli.main import app
from shardproxy.config import load
from shardproxy.errors import ShardproxyError
from shardproxy.local import LocalCluster
from shardproxy.topology.build import build_snapshot
from tests import proxy

FOLDER = Path(__file__).parents[2] / "migrations"
KEYSPACE = "[keyspaces.main]\nkey_type = 'int'\nmap = 'hash'\nring = { shard1 = 1, shard2 = 1 }\n"
FILES = sorted(path.stem for path in FOLDER.glob("*.sql"))
TABLES = {
    "ddl",
    "ddl_shard",
    "ddl_table",
    "fence",
    "fence_slot",
    "lock_wait",
    "lookup",
    "lookup_index",
    "marker",
    "migration",
    "move",
    "sequence",
    "stream",
    "stream_table",
    "table_config",
    "xa_decision",
}


@pytest.fixture
def bare(cluster: LocalCluster) -> Iterator[Path]:
    """A file for the cluster, whose servers have no bookkeeping schema before; a complete one afterwards."""
    path = cluster.config_toml(KEYSPACE, name="migrate.toml").path
    _drop(cluster)
    yield path
    _drop(cluster)
    proxy.make_bookkeeping(cluster.config_toml(KEYSPACE, name="migrate-again.toml").path)


def _drop(cluster: LocalCluster) -> None:
    for shard in cluster.shards:
        shard.primary.rows("DROP DATABASE IF EXISTS _shardproxy")


def migrate(path: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, ["migrate", "--json", "--config", str(path), *arguments])
    assert result.stderr == ""
    return result.exit_code, json.loads(result.stdout)["shards"]


def tables(cluster: LocalCluster) -> list[set[str]]:
    sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = '_shardproxy'"
    return [{name for (name,) in shard.primary.rows(sql)} for shard in cluster.shards]


def test_the_schema_is_made_once_and_reported_per_shard(cluster: LocalCluster, bare: Path) -> None:
    status, reports = migrate(bare, "--dry-run")
    assert status == 0
    assert [(r["shard"], r["pending"], r["applied"]) for r in reports] == [
        ("shard1", FILES, []),
        ("shard2", FILES, []),
    ]
    assert tables(cluster) == [set(), set()], "a dry run changes nothing"

    status, reports = migrate(bare)
    assert (status, [r["applied"] for r in reports]) == (0, [FILES] * 2)
    assert tables(cluster) == [TABLES, TABLES]
    recorded = [
        (int(name[:4]), name[5:], hashlib.sha256((FOLDER / f"{name}.sql").read_bytes()).hexdigest()) for name in FILES
    ]
    for shard in cluster.shards:
        assert shard.primary.rows("SELECT number, name, checksum FROM _shardproxy.migration") == recorded

    status, reports = migrate(bare)
    assert status == 0
    assert [(r["applied"], r["present"], r["error"]) for r in reports] == [([], FILES, None)] * 2


def test_what_is_printed_for_people(cluster: LocalCluster, bare: Path) -> None:
    result = CliRunner().invoke(app, ["migrate", "--config", str(bare)])
    words = " ".join(result.stdout.split())
    first, *more = FILES  # a cell that is too wide goes on in the next line
    line = " ".join([first, "0", "fine", *more])
    assert words == f"shard applied there already result shard1 {line} shard2 {line}"


def test_every_statement_may_be_run_again(cluster: LocalCluster, bare: Path) -> None:
    """A run that died before it recorded the file is repaired by the next."""
    assert migrate(bare)[0] == 0
    for shard in cluster.shards:
        shard.primary.rows("DELETE FROM _shardproxy.migration")
        shard.primary.rows("DROP TABLE _shardproxy.lookup")
        shard.primary.rows("INSERT INTO _shardproxy.sequence (keyspace, name, next_value) VALUES ('main', 'users', 42)")
    status, reports = migrate(bare)
    assert (status, [r["applied"] for r in reports]) == (0, [FILES] * 2)
    assert tables(cluster) == [TABLES, TABLES]
    for shard in cluster.shards:
        assert shard.primary.rows("SELECT next_value FROM _shardproxy.sequence") == [(42,)], "what is there stays"


def test_a_changed_file_is_an_error_on_that_shard_only(cluster: LocalCluster, bare: Path) -> None:
    assert migrate(bare)[0] == 0
    cluster.shards[0].primary.rows("UPDATE _shardproxy.migration SET checksum = REPEAT('0', 64)")
    for arguments in ([], ["--dry-run"]):
        status, (one, two) = migrate(bare, *arguments)
        assert status == 1
        assert "an applied file never changes" in one["error"]
        assert "0001_bookkeeping was applied as 'bookkeeping' with checksum 000000000000…" in one["error"]
        assert two["error"] is None


def test_a_shard_that_does_not_answer_does_not_stop_the_others(cluster: LocalCluster, bare: Path) -> None:
    bare.write_text(bare.read_text().replace(cluster.shards[0].primary.address, "127.0.0.1:1"))
    status, (one, two) = migrate(bare)
    assert (status, two["applied"]) == (1, FILES)
    assert "127.0.0.1:1" in one["error"]


def test_an_older_program_leaves_a_newer_schema_alone(cluster: LocalCluster, bare: Path) -> None:
    assert migrate(bare)[0] == 0
    cluster.shards[1].primary.rows(
        "INSERT INTO _shardproxy.migration (number, name, checksum) VALUES (99, 'later', 'x')"
    )
    status, (one, two) = migrate(bare)
    assert (status, one["newer"], two["newer"], two["error"]) == (0, [], [99], None)


def run(path: Path, files: Any, seconds: float = 10.0, dry_run: bool = False) -> list[ShardReport]:
    config = load(path, {})
    return asyncio.run(migrations.migrate(build_snapshot(config), Credentials.of(config), seconds, files, dry_run))


def test_a_failing_statement_names_itself_and_keeps_what_came_before(
    cluster: LocalCluster, bare: Path, tmp_path: Path
) -> None:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE IF NOT EXISTS _shardproxy.one (k INT);\n")
    (tmp_path / "0002_two.sql").write_text(
        "-- a comment; of two\nSELECT 1;\nCREATE TABLE _shardproxy.two (k NONSENSE);\n"
    )
    (tmp_path / "0003_three.sql").write_text("CREATE TABLE _shardproxy.three (k INT);\n")
    for report in run(bare, read_migrations(tmp_path)):
        assert report.applied == ("0001_one",)
        assert report.pending == ("0002_two", "0003_three")
        assert report.error
        assert "0002_two, statement 2: " in report.error
    assert tables(cluster) == [{"migration", "one"}] * 2
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE _shardproxy.two (k INT);\n")
    for report in run(bare, read_migrations(tmp_path)):
        assert (report.present, report.applied, report.error) == (("0001_one",), ("0002_two", "0003_three"), None)


def test_two_runs_do_not_collide(cluster: LocalCluster, bare: Path) -> None:
    files = read_migrations(FOLDER)
    holder = cluster.shards[1].primary.connect()
    with holder, holder.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('shardproxy.migrate', 0)")
        one, two = run(bare, files, seconds=4.0)  # for each statement on the other shard, too
        assert (one.error, two.applied) == (None, ())
        assert two.error is not None
        assert "another `shardctl migrate` has held the lock" in two.error
    assert [r.error for r in run(bare, files)] == [None, None]

    async def both() -> list[list[ShardReport]]:
        config = load(bare, {})
        snapshot, credentials = build_snapshot(config), Credentials.of(config)
        return await asyncio.gather(*(migrations.migrate(snapshot, credentials, 30.0, files) for _ in range(4)))

    _drop(cluster)
    runs = asyncio.run(both())
    assert all(report.error is None for reports in runs for report in reports)
    for shard in range(2):
        assert sum(bool(reports[shard].applied) for reports in runs) == 1, "one of the runs did it"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["1_short.sql"], "expected a name like 0001_what_it_does.sql"),
        (["0001_one.sql", "0003_three.sql"], "expected 0001, 0002, … each once"),
        (["0001_one.sql", "0001_other.sql"], "expected 0001, 0002, … each once"),
    ],
)
def test_a_folder_out_of_order_is_refused(tmp_path: Path, names: list[str], why: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;\n")
    with pytest.raises(ShardproxyError, match=why):
        read_migrations(tmp_path)


def test_the_tables_do_what_the_protocols_need_of_them(cluster: LocalCluster, bare: Path) -> None:
    """Conflicts by key: one outcome for an xid, one position for a stream, one row for a value of a unique index."""
    assert migrate(bare)[0] == 0
    server = cluster.shards[0].primary
    server.rows("USE _shardproxy")
    decision = (
        "INSERT INTO _shardproxy.xa_decision (xid, outcome, coordinator, decided_by) VALUES (x'00ff41', %s, 'p1', %s)"
    )
    server.rows(decision, ("commit", "p1"))
    with pytest.raises(pymysql.err.IntegrityError) as conflict:
        server.rows(decision, ("abort", "p2"))
    assert conflict.value.args[0] == 1062
    assert server.rows("SELECT outcome, decided_by FROM _shardproxy.xa_decision WHERE xid = x'00ff41'") == [
        ("commit", "p1")
    ]
    lookup = (
        "INSERT INTO _shardproxy.lookup (keyspace, index_name, value, distinct_by, shard_key) "
        "VALUES ('main', 'i', %s, %s, %s)"
    )
    server.rows(lookup, (b"a@x", b"", b"1"))
    with pytest.raises(pymysql.err.IntegrityError):
        server.rows(lookup, (b"a@x", b"", b"2"))
    for key in (b"1", b"2"):
        server.rows(lookup, (b"tag", key, key))
    assert len(server.rows("SELECT * FROM _shardproxy.lookup WHERE value = 'tag'")) == 2
    server.rows("INSERT INTO _shardproxy.stream (move_id, direction, source_shard, position, restart_position) "
                "VALUES (1, 'forward', 'a', %s, '')", ("x" * 100_000,))  # fmt: skip
    assert server.rows("SELECT LENGTH(position), applied FROM _shardproxy.stream") == [(100_000, 0)]
