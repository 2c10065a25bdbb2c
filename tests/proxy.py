"""A shardproxy of the tests: the real program in front of a local cluster, with tables and users to play with."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pymysql

from shardproxy.admin.migrations import migrate, migrations_folder, read_migrations
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer, Process
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.local.server import plain
from shardproxy.protocol.mysql.auth import make_native_hash, make_sha2_hash
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.moves import Move
from tests import moving

SPLIT = 1000  # keys of `main` below it are on shard1, the others on shard2

KEYSPACES = f"""
[keyspaces.main]
key_type = "int"
map = "range"
[[keyspaces.main.ranges]]
from = "min"
to = {SPLIT}
shard = "shard1"
[[keyspaces.main.ranges]]
from = {SPLIT}
to = "max"
shard = "shard2"
[keyspaces.main.tables]
users = {{ key = "uid" }}
orders = {{ key = "uid" }}
bodies = {{ key = "uid" }}
kinds = {{ key = "uid" }}
people = {{ key = "id" }}
pets = {{ key = "person_id" }}
countries = {{ reference = true }}
settings = {{ single = "shard2" }}

[keyspaces.hashed]
key_type = "text"
map = "hash"
ring = {{ shard1 = 1, shard2 = 1 }}
tables = {{ items = {{ key = "sku" }}, notes = {{ single = "shard1" }} }}
"""

# `people` and `pets` are in the configuration and not created here: tests of DDL do that through the proxy.
TABLES = {
    "main": (
        "CREATE TABLE users (uid BIGINT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL, "
        "balance INT NOT NULL DEFAULT 0, UNIQUE KEY (name, uid))",
        "CREATE TABLE orders (uid BIGINT NOT NULL, oid BIGINT NOT NULL, total DECIMAL(12,2) NOT NULL, "
        "PRIMARY KEY (uid, oid))",
        "CREATE TABLE bodies (uid BIGINT NOT NULL PRIMARY KEY, body LONGBLOB NOT NULL)",
        "CREATE TABLE kinds (uid BIGINT NOT NULL PRIMARY KEY, i8 TINYINT, u8 TINYINT UNSIGNED, i16 SMALLINT, "
        "i24 MEDIUMINT, i32 INT, u64 BIGINT UNSIGNED, f FLOAT, d DOUBLE, n DECIMAL(20,6), b BIT(12), c CHAR(7), "
        "v VARCHAR(90), bin BINARY(6), t TEXT, bl BLOB, e ENUM('one','two','three'), s SET('a','b','c'), j JSON, "
        "da DATE, ti TIME(3), dt DATETIME(6), y YEAR)",
        "CREATE TABLE countries (code CHAR(2) NOT NULL PRIMARY KEY, name VARCHAR(50) NOT NULL)",
        "CREATE TABLE settings (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE, "
        "value VARCHAR(200))",
    ),
    "hashed": (
        "CREATE TABLE items (sku VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, "
        "price DECIMAL(9,2) NOT NULL DEFAULT 0)",
        "CREATE TABLE notes (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, text TEXT)",
    ),
}
CREATED_BY_TESTS = ("pets", "people")
_SINGLE = {"settings": "shard2", "notes": "shard1"}

_STORED: Mapping[str, Mapping[str, object]] = {
    "app": {"password": "app"},
    "native": {"password_hash": make_native_hash(b"native's secret")},
    "sha2": {"password_hash": make_sha2_hash(b"sha2's secret", b"0123456789abcdefghij")},
    "sha2hex": {"password_hash": "0x" + make_sha2_hash(b"hexed", b"ABCDEFGHIJ./01234567").encode().hex()},
    "reader": {"password": "reader", "read_only": True},
    "hashed_only": {"password": "hashed_only", "keyspaces": ["hashed"], "default_keyspace": "hashed"},
}
# One user for each form in which a password can be stored, and for each right. All but `replicas` read from primaries,
# so that tests see what they have just written.
USERS: Mapping[str, Mapping[str, object]] = {
    **{name: {**entries, "reads": "primary"} for name, entries in _STORED.items()},
    "replicas": {"password": "replicas"},
}


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until the condition holds; fail with `what` when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def transactions(server: LocalServer, columns: str, where: str = "TRUE") -> list[tuple[Any, ...]]:
    """InnoDB's list of transactions. It is as it was at the last look, whoever took it, unless that is 0.1 s ago; a
    proxy that looks for deadlocks takes one every 0.11 s."""
    time.sleep(0.3)
    rows = server.rows(f"SELECT {columns} FROM information_schema.innodb_trx WHERE {where}")
    return list(rows)


class ProxyUnderTest:
    """A running proxy. `process` is its supervisor; `cluster` the servers behind it."""

    def __init__(self, cluster: LocalCluster, process: Process, mysql_port: int, admin_port: int) -> None:
        self.cluster = cluster
        self.process = process
        self.port = mysql_port
        self.admin_port = admin_port

    @property
    def mariadb(self) -> bool:
        return self.cluster.flavor == "mariadb"

    def connect(self, **options: Any) -> Any:
        """A new PyMySQL connection: user app, database main, autocommit on unless `options` say otherwise."""
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "app",
            "password": "app",
            "database": "main",
            "autocommit": None,  # PyMySQL would say SET AUTOCOMMIT; a new session is in autocommit mode as it is
            "connect_timeout": 10,
            "read_timeout": 60,
            "ssl_disabled": plain(options),
        }
        return pymysql.connect(**{**settings, **options})

    def primary(self, shard: int) -> LocalServer:
        """The primary of shard 0 or 1."""
        return self.cluster.shards[shard].primary

    def get(self, path: str) -> bytes:
        """What the admin port answers. Raises urllib's errors."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
            found: bytes = answer.read()
            return found

    def status(self) -> dict[str, Any]:
        """What `shardctl status --json` shows."""
        shown: dict[str, Any] = json.loads(self.get("/api/status"))
        return shown

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self.get("/metrics").decode().splitlines():
            series, _, value = line.rpartition(" ")
            family, _, shown = series.partition("{")
            if family == name and all(w in shown for w in wanted):
                total += float(value)
        return total

    def pinned(self) -> dict[str, int]:
        """Sessions pinned now, over all workers: reason → number."""
        found: dict[str, int] = {}
        for worker in self.status()["workers"]:
            for reason, count in worker["sessions_pinned"].items():
                found[reason] = found.get(reason, 0) + count
        return found

    def clients(self) -> int:
        """Logged-in clients over all workers."""
        return sum(worker["clients"] for worker in self.status()["workers"])

    def busy(self) -> int:
        """Server connections that are lent to a session now, over all servers."""
        return sum(server["pool"]["busy"] for server in self.status()["servers"])

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def empty(self) -> None:
        """Empty every table on every shard, behind the proxy's back; give AUTO_INCREMENT its start back."""
        for shard in self.cluster.shards:
            connection = self.cluster.idle_connection(shard.primary)
            _empty_tables(connection, shard.name)
            self.cluster.keep(shard.primary, connection)
        self.cluster.wait_replicated()


def create_tables(server: LocalServer, shard: str = "") -> None:
    """The tables of TABLES, where they are not yet. shard: without the single tables of other shards."""
    with server.connect() as connection, connection.cursor() as cursor:
        for database, statements in TABLES.items():
            cursor.execute(f"SHOW DATABASES LIKE '{database}'")
            if cursor.fetchone():
                continue
            cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
            cursor.execute(f"USE {database}")
            for statement in statements:
                if not shard or _SINGLE.get(statement.split()[2], shard) == shard:
                    cursor.execute(statement)


def empty_tables(server: LocalServer) -> None:
    """Delete all rows of the tables that create_tables made on a lone server; AUTO_INCREMENT starts anew."""
    with server.connect() as connection:
        _empty_tables(connection)


def _empty_tables(connection: pymysql.Connection, shard: str = "") -> None:
    with connection.cursor() as cursor:
        for database, statements in TABLES.items():
            for statement in statements:
                table = statement.split()[2]
                if not shard or _SINGLE.get(table, shard) == shard:
                    cursor.execute(f"DELETE FROM {database}.{table}")
        # To change a table takes long: only where the counter has moved. MySQL would give what it saw a day ago.
        if "MariaDB" not in connection.get_server_info():
            cursor.execute("SET SESSION information_schema_stats_expiry = 0")
        cursor.execute(
            "SELECT table_schema, table_name "
            "FROM information_schema.tables WHERE auto_increment > 1 AND table_schema IN %s AND table_name IN %s",
            (tuple(TABLES), tuple(_SINGLE)),
        )
        for database, table in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {database}.{table} AUTO_INCREMENT = 1")


def make_bookkeeping(config: Path) -> None:
    """What `shardctl migrate` does."""
    settings = load(config, proxy_environment())
    snapshot, credentials = build_snapshot(settings), Credentials.of(settings)
    files = read_migrations(migrations_folder())
    for report in asyncio.run(migrate(snapshot, credentials, 30, files)):
        assert report.error is None, report.error


def start_proxy(
    cluster: LocalCluster,
    name: str = "proxy",
    *,
    proxy: Mapping[str, str | int] | None = None,
    backend: Mapping[str, str | int] | None = None,
    users: Mapping[str, Mapping[str, object]] = USERS,
    listen: Mapping[str, str | int | bool] | None = None,
    keyspaces: str | None = None,
    transactions: Mapping[str, str | int] | None = None,
    scratch: Mapping[str, str | int] | None = None,
    store: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    moves: Mapping[str, Move] | None = None,
) -> ProxyUnderTest:
    """Create the tables and start a proxy with two workers; returns when it is ready. `process.stop()` ends it.

    proxy, backend, listen, transactions, scratch: further entries of those tables of the file. keyspaces: TOML
    text in place of KEYSPACES; its tables are the caller's to create. store: entries of [store]; default: a file of
    its own. moves: rows are on their way. Raises LocalError.
    """
    if keyspaces is None:
        for shard in cluster.shards:
            create_tables(shard.primary, shard.name)
        cluster.wait_replicated()
    config = cluster.config_toml(
        keyspaces or KEYSPACES,
        proxy={"workers": 2, "log_format": "text", **(proxy or {})},
        backend={"pool_size": 16, "health_interval": "100ms", **(backend or {})},
        users=users,
        listen=listen,
        name=f"{name}.toml",
    )

    for title, entries in (
        ("transactions", transactions),
        ("scratch", scratch),
        ("store", store or {"path": f"{name}-{config.mysql_port}.store"}),
    ):
        if entries:
            lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
            config.path.write_text(f"{config.path.read_text()}\n[{title}]\n{lines}")
    make_bookkeeping(config.path)

    program, variables = ["-m", "shardproxy.cli.proxy"], dict(environment or proxy_environment())
    if moves is not None:
        told = cluster.folder / f"{name}.moves.json"
        moving.write(moves, told)
        program, variables[moving.FILE] = [str(moving.PROGRAM)], str(told)

    def ready() -> bool:
        try:
            running.get("/readyz")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    process = cluster.program(
        name,
        [sys.executable, *program, "run", "--config", str(config.path)],
        ready=ready,
        environment=variables,
    )
    running = ProxyUnderTest(cluster, process, config.mysql_port, config.admin_port)
    process.start()
    return running
