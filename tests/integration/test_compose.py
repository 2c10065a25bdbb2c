"""The cluster in containers. Without a container engine: its files fit together, and its servers would work."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
from typer.testing import CliRunner

from shardproxy.admin.metrics import FAMILIES, Kind
from shardproxy.cli.main import app
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.topology.build import build_snapshot

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"
NAMES = {
    "a-primary",
    "a-replica1",
    "b-primary",
    "b-replica1",
    "migrate",
    "proxy",
    "redis1",
    "redis2",
    "redis3",
    "prometheus",
    "grafana",
}


def passwords() -> dict[str, str]:
    lines = (COMPOSE / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def docker_compose(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker-compose", *arguments],
        cwd=COMPOSE,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


# ── the files fit together ──


def test_docker_compose_accepts_the_file() -> None:
    result = docker_compose("config")
    assert (result.returncode, result.stderr) == (0, "")
    listed = docker_compose("config", "--services")
    assert set(listed.stdout.split()) == NAMES


def test_every_mounted_file_exists_and_ports_stay_on_loopback() -> None:
    text = docker_compose("config").stdout
    mounts = re.findall(r"- (/\S+):(/\S+):ro\b", text)
    assert len(mounts) >= 14
    for source, _ in mounts:
        assert Path(source).exists(), source
    published = re.findall(r"^ +ports:\n((?: +- .*\n)+)", text, re.MULTILINE)
    assert published
    for port in "".join(published).split():
        assert port == "-" or port.startswith("127.0.0.1:"), port


def test_a_missing_password_is_told() -> None:
    result = docker_compose("config", environment={"PROXY_PASSWORD": ""})
    assert result.returncode != 0
    assert "set it in .env" in result.stderr


def test_the_proxy_s_file_names_the_services_and_its_passwords_are_there() -> None:
    given = passwords()
    environment = {"SHARDPROXY_BACKEND_PASSWORD": given["PROXY_PASSWORD"], "APP_PASSWORD": given["APP_PASSWORD"]}
    config = load(COMPOSE / "shardproxy.toml", environment)
    assert config.backend_password() == given["PROXY_PASSWORD"]
    assert config.user_secret("app") == given["APP_PASSWORD"]
    hosts = {address.host for s in config.shards.values() for address in (s.primary, *s.replicas)}
    assert hosts == {"a-primary", "a-replica1", "b-primary", "b-replica1"}
    text = docker_compose("config").stdout
    for variable in environment:
        assert f"{variable}: " in text
    assert f"127.0.0.1:{config.listen.mysql.port}:{config.listen.mysql.port}" in text
    assert f"proxy:{config.listen.admin.port}" in (COMPOSE / "prometheus" / "prometheus.yml").read_text()


def test_the_image_copies_what_the_wheel_needs() -> None:
    copied = set(re.findall(r"^COPY (.+) \S+$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE))
    names = {name for line in copied if not line.startswith("--from") for name in line.split()}
    assert names == {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "shardproxy", "migrations"}
    allowed = set(re.findall(r"^!(\S+)$", (COMPOSE / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert allowed == names
    for name in names:
        assert (ROOT / name).exists()


# ── metrics ──


def expressions() -> dict[str, list[str]]:
    """PromQL by where it stands: dashboard panels and variables, recording rules and alerts."""
    board = json.loads((COMPOSE / "grafana" / "dashboards" / "shardproxy.json").read_text())
    found = {f"panel {p['title']}": [t["expr"] for t in p["targets"]] for p in board["panels"]}
    found |= {f"variable {v['name']}": [v["query"]["query"]] for v in board["templating"]["list"]}
    rules = (COMPOSE / "prometheus" / "rules.yml").read_text()
    for name, rest in re.findall(r"- (?:alert|record): (\S+)\n(.*?)(?=\n      - |\Z)", rules, re.DOTALL):
        match = re.search(r"expr: (?:>-\n)?(.*?)(?=\n        \w+:|\n\n|\Z)", rest, re.DOTALL)
        assert match, name
        found[f"rule {name}"] = [match[1]]
    return found


def test_there_are_rules_and_panels() -> None:
    found = expressions()
    assert sum(name.startswith("rule ") for name in found) >= 10
    assert sum(name.startswith("panel ") for name in found) >= 15


@pytest.mark.parametrize("where", sorted(expressions()))
def test_every_metric_and_label_that_is_used_exists(where: str) -> None:
    series = {}
    for family in FAMILIES.values():
        names = [family.name]
        if family.kind is Kind.HISTOGRAM:
            names = [f"{family.name}{end}" for end in ("_bucket", "_sum", "_count")]
        series.update(dict.fromkeys(names, set(family.labels) | {"instance", "job"}))
    for expression in expressions()[where]:
        used = re.findall(r"\b(shardproxy_\w+|up)\b(?:\{([^}]*)\})?", expression)
        assert used, expression
        labels_of_all: set[str] = {"le"}
        for name, selectors in used:
            labels = {"instance", "job"} if name == "up" else series[name]
            labels_of_all |= labels
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selectors)) <= labels, expression
        for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {g.strip() for g in grouped.split(",")} <= labels_of_all, expression


def test_every_metric_is_shown_somewhere() -> None:
    text = " ".join(e for found in expressions().values() for e in found)
    assert [name for name in FAMILIES if name not in text] == []


# ── the servers, as the init scripts make them ──


@pytest.mark.parametrize(
    ("io", "sql", "status", "healthy"),
    [("Yes", "Yes", 0, True), ("Connecting", "Yes", 0, False), ("Yes", "No", 0, False), ("Yes", "Yes", 1, False)],
)
def test_a_replica_is_healthy_when_both_halves_run(
    tmp_path: Path, io: str, sql: str, status: int, healthy: bool
) -> None:
    client = tmp_path / "mysql"
    client.write_text(
        f"#!/bin/sh\nprintf '  Replica_IO_Running: {io}\\n  Replica_SQL_Running: {sql}\\n'\nexit {status}\n"
    )
    client.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MYSQL_ROOT_PASSWORD": "x"}
    script = COMPOSE / "mysql" / "replica-healthy.sh"
    assert (subprocess.run(["sh", str(script)], env=environment, check=False).returncode == 0) is healthy


def statements(script: str, folder: Path, **environment: str) -> list[str]:
    """What an init script would give to the `mysql` client, caught by a client of our own."""
    caught = folder / "caught.sql"
    client = folder / "mysql"
    client.write_text(f'#!/bin/sh\ncat > "{caught}"\n')
    client.chmod(0o755)
    given = {**passwords(), **environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-eu", str(COMPOSE / "mysql" / script)], env=given, check=True)
    return [s.strip() for s in caught.read_text().split(";") if s.strip()]


@pytest.fixture
def servers(flavor: FlavorName) -> Iterator[LocalCluster]:
    """Four lone servers with the options of compose/mysql/server.cnf."""
    options = configparser.ConfigParser()
    options.read(COMPOSE / "mysql" / "server.cnf")
    given = [f"--{name}={value}" for name, value in options["mysqld"].items()]
    with LocalCluster(flavor, shards=4, replicas=0, server_options=given) as cluster:
        yield cluster


@pytest.mark.parametrize("flavor", ["mysql"])
def test_the_scripts_make_servers_that_check_and_migrate_accept(
    servers: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, a_replica, b, b_replica = (shard.primary for shard in servers.shards)
    for primary, replica in ((a, a_replica), (b, b_replica)):
        primary.rows("DROP USER shardproxy")  # the local cluster's own account of that name
        for statement in statements("init-primary.sh", tmp_path):
            primary.rows(statement)
        port = str(primary.port)
        for statement in statements("init-replica.sh", tmp_path, PRIMARY_HOST="127.0.0.1", PRIMARY_PORT=port):
            replica.rows(statement)
        replica.rows("SET GLOBAL read_only = ON")
        replica.rows("START REPLICA")

    text = (COMPOSE / "shardproxy.toml").read_text()
    for name, server in (("a-primary", a), ("a-replica1", a_replica), ("b-primary", b), ("b-replica1", b_replica)):
        text = text.replace(f'"{name}:3306"', f'"{server.address}"')
    path = tmp_path / "shardproxy.toml"
    path.write_text(text)
    given = passwords()
    monkeypatch.setenv("SHARDPROXY_BACKEND_PASSWORD", given["PROXY_PASSWORD"])
    monkeypatch.setenv("APP_PASSWORD", given["APP_PASSWORD"])
    shards = build_snapshot(load(path, {})).keyspaces["main"].map
    uid = next(k for k in range(1, 1000) if shards.lookup(k) == 0)
    a.rows("INSERT INTO main.users VALUES (%s, 'Zoe', 'de')", (uid,))

    migrated = CliRunner().invoke(app, ["migrate", "--config", str(path), "--json"])
    assert migrated.exit_code == 0, migrated.output
    for replica in (a_replica, b_replica):
        wait_for_replica(replica)
    assert a_replica.rows("SELECT name FROM main.users") == [("Zoe",)]
    checked = CliRunner().invoke(app, ["check", "--config", str(path), "--json", "--data"])
    assert json.loads(checked.stdout)["findings"] == []


def wait_for_replica(server: LocalServer) -> None:
    """Until it has applied all that its primary has sent; fails after 30 s."""
    deadline = time.monotonic() + 30
    while True:
        with server.connect() as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute("SHOW REPLICA STATUS")
            row = cursor.fetchone()
        running = row["Replica_IO_Running"] == row["Replica_SQL_Running"] == "Yes"
        if running and row["Seconds_Behind_Source"] == 0 and server.rows("SHOW TABLES FROM _shardproxy LIKE 'lookup'"):
            return
        assert time.monotonic() < deadline, row
        time.sleep(0.05)
