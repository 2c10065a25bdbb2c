"""Tables with lookup indexes behind a proxy, and the same on one lone server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql

from shardproxy.admin.lookup.backfill import backfill
from shardproxy.admin.lookup.verify import verify
from shardproxy.admin.lookup.work import list_indexes, prepare
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot
from tests.proxy import ProxyUnderTest, eventually, start_proxy

FAR = 1000  # keys from here on are on the second shard
KEYSPACES = f"""
[keyspaces.lk]
key_type = "int"
map = "range"
[[keyspaces.lk.ranges]]
from = "min"
to = {FAR}
shard = "shard1"
[[keyspaces.lk.ranges]]
from = {FAR}
to = "max"
shard = "shard2"
[keyspaces.lk.tables]
users = {{ key = "uid", lookups = ["email", "tenant, nick"] }}
orders = {{ key = "uid" }}
plain = {{ key = "uid", lookups = ["code"] }}
binaries = {{ key = "uid", lookups = ["token"] }}

[keyspaces.lh]
key_type = "text"
map = "hash"
ring = {{ shard1 = 1, shard2 = 1 }}
tables = {{ items = {{ key = "sku", lookups = ["serial"] }} }}
"""
TABLES = {
    "lk": (
        "CREATE TABLE users (uid BIGINT NOT NULL PRIMARY KEY, email VARCHAR(100), tenant INT, "
        "nick VARCHAR(40) CHARACTER SET latin1, age INT, UNIQUE KEY uq_email (email), UNIQUE KEY tn (tenant, nick))",
        "CREATE TABLE orders (uid BIGINT NOT NULL, oid INT NOT NULL, PRIMARY KEY (uid, oid))",
        "CREATE TABLE plain (uid BIGINT NOT NULL, n INT NOT NULL, code INT NOT NULL, PRIMARY KEY (uid, n), "
        "UNIQUE KEY (code))",
        "CREATE TABLE binaries (uid BIGINT NOT NULL PRIMARY KEY, token VARBINARY(300) NOT NULL UNIQUE)",
    ),
    "lh": (
        "CREATE TABLE items (sku VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, "
        "serial VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL UNIQUE)",
    ),
}
INDEXES = (
    ("lk.users", "email"),
    ("lk.users", "nick,tenant"),
    ("lk.plain", "code"),
    ("lk.binaries", "token"),
    ("lh.items", "serial"),
)
USERS = {
    "app": {"password": "app", "reads": "primary", "default_keyspace": "lk"},
    "replicas": {"password": "replicas", "default_keyspace": "lk"},
}


def shardctl(proxy: ProxyUnderTest, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from shardproxy.cli.main import main; main()", *words, "--config",
         str(proxy.cluster.folder / "lookups.toml")],
        env={**os.environ, **proxy_environment()}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def create(server: LocalServer) -> None:
    for database, statements in TABLES.items():
        server.rows(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        for statement in statements:
            server.rows(statement.replace("CREATE TABLE ", f"CREATE TABLE {database}."))


def drop(server: LocalServer) -> None:
    for database in TABLES:
        server.rows(f"DROP DATABASE IF EXISTS {database}")


@contextmanager
def lookup_proxy(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    """A proxy of these keyspaces, whose databases are there as long."""
    for shard in cluster.shards:
        drop(shard.primary)
        create(shard.primary)
    cluster.wait_replicated()
    made = start_proxy(
        cluster, "lookups", keyspaces=KEYSPACES, users=USERS, backend={"schema_interval": "100ms"},
        proxy={"drain_timeout": "100ms"},
    )  # fmt: skip
    for shard in cluster.shards:
        shard.primary.rows("DELETE FROM _shardproxy.lookup_index")
    yield made
    made.process.stop()
    for shard in cluster.shards:
        drop(shard.primary)


def emptied(running: ProxyUnderTest) -> ProxyUnderTest:
    """Tables and entries are empty, and every index is ready."""
    for shard in running.cluster.shards:
        for database, statements in TABLES.items():
            for statement in statements:
                shard.primary.rows(f"DELETE FROM {database}.{statement.split()[2]}")
        shard.primary.rows("DELETE FROM _shardproxy.lookup")
    running.cluster.wait_replicated()
    ready(running)
    return running


def operator(proxy: ProxyUnderTest) -> tuple[Snapshot, Credentials]:
    settings = load(proxy.cluster.folder / "lookups.toml", proxy_environment())
    return build_snapshot(settings), Credentials.of(settings)


def is_ready(proxy: ProxyUnderTest, index: str) -> bool:
    wanted = sorted(index.split(","))
    found = asyncio.run(list_indexes(*operator(proxy), 30))
    return any(
        one.state == "ready" for one in found if sorted(one.name.partition("(")[2].rstrip(")").split(",")) == wanted
    )


def verified(proxy: ProxyUnderTest) -> None:
    """Every index has an entry for each row, and none else."""

    async def look() -> None:
        for table, index in INDEXES:
            told = await verify(await prepare(*operator(proxy), 30, table, index, 1000), False, lambda rows: None)
            assert told.left == 0, (table, index, told)

    asyncio.run(look())


def ready(proxy: ProxyUnderTest) -> None:
    """Fill the indexes that are not, and wait until the proxy routes by them."""

    async def fill(table: str, index: str) -> None:
        done = await backfill(await prepare(*operator(proxy), 30, table, index, 1000), lambda rows: None)
        assert done.ready, done

    for table, index in INDEXES:
        if not is_ready(proxy, index):
            asyncio.run(fill(table, index))
    with proxy.connect(database="lk") as client, client.cursor() as cursor:

        def routed() -> bool:
            texts = ("users WHERE email = 'x'", "users WHERE tenant = 1 AND nick = 'x'", "plain WHERE code = 1",
                     "binaries WHERE token = x'00'", "lh.items WHERE serial = 'x'")  # fmt: skip
            return all(shards_of(cursor, f"SELECT * FROM {text}") == 1 for text in texts)

        eventually(routed, "statements are routed by the indexes")


def shards_of(cursor: Any, sql: str) -> int:
    """How many shards EXPLAIN ROUTE names."""
    cursor.execute(f"EXPLAIN ROUTE {sql}")
    return len(cursor.fetchall())


class Sides:
    """A client of the proxy and one of the lone server, who say the same things."""

    def __init__(self, proxy: ProxyUnderTest, lone: LocalServer, **options: Any) -> None:
        self.proxy = proxy
        self.here = proxy.connect(database="lk", **options)
        self.there = pymysql.connect(
            host="127.0.0.1", port=lone.port, user=lone.admin_user, password=lone.admin_password, database="lk",
            autocommit=None, ssl_disabled=True, **options,
        )  # fmt: skip

    def both(self, sql: str) -> Any:
        """Run it on both; counts, infos, errors with their texts, and rows must be equal. Gives the answer."""
        answers = [answer(side, sql) for side in (self.here, self.there)]
        assert answers[0] == answers[1], sql
        return answers[0]

    def here_only(self, sql: str) -> Any:
        return answer(self.here, sql)

    def compare(self) -> None:
        for table in ("lk.users", "lk.plain", "lk.binaries", "lh.items"):
            assert answer(self.here, f"SELECT * FROM {table}") == answer(self.there, f"SELECT * FROM {table}")


def answer(side: Any, sql: str) -> Any:
    with side.cursor() as cursor:
        try:
            cursor.execute(sql)
        except pymysql.MySQLError as error:
            return error.args
        result = cursor._result
        return (result.affected_rows, result.insert_id, result.message or b"", sorted(map(repr, cursor.fetchall())))


ROWS = (
    f"INSERT INTO users VALUES (1, 'a@x', 1, 'n', 5), ({FAR}, 'b@x', 1, 'm', 6), (2, NULL, 1, NULL, 7), "
    f"({FAR + 1}, NULL, NULL, 'n', 8), (3, 'c@x', 2, 'n', 9), ({FAR + 2}, 'd@x', 3, 'n', 10)"
)
