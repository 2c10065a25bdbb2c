"""Strict mode: who reads after a write was acknowledged, wherever, finds it; whatever the write looks like."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mysql.connector
import pymysql
import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from tests.cache.test_rows import CACHE, KEYSPACES, cluster_with, hits
from tests.cache.test_stale_reads import both_kept
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

STRICT = CACHE.replace('bound = "1s"', 'mode = "strict"\nbound = "3s"\nwrite_wait = "1s"')
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def cluster(flavor: FlavorName) -> Iterator[LocalCluster]:
    with cluster_with(flavor) as running:
        yield running


@pytest.fixture(scope="module")
def proxies(cluster: LocalCluster) -> Iterator[tuple[RedisProxy, RedisProxy]]:
    """Written to by the one, read from the other."""
    options: dict[str, Any] = {"more": STRICT, "keyspaces": KEYSPACES}
    with redis_proxy(cluster, "writer", **options) as one, redis_proxy(cluster, "reader", **options) as two:
        for proxy in (one, two):
            eventually(partial(both_kept, proxy), "both shards are kept", 30)
        yield one, two


@pytest.fixture
def sql(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[Run]:
    with proxies[0].mysql() as db, db.cursor() as cursor:

        def run(text: str, *values: object) -> Any:
            cursor.execute(text, values)
            return cursor.fetchall()

        yield run


@pytest.fixture
def reader(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[Any]:
    with proxies[1].connect() as connected:
        yield connected


def version(reader: Any, key: int) -> Any:
    row = reader.get(f"users:{key}")
    return None if row is None else json.loads(row)["version"]


def fresh(sql: Run, key: int, count: int = 1) -> None:
    """Rows with version 0."""
    sql("DELETE FROM users WHERE uid BETWEEN %s AND %s", key, key + count - 1)
    sql("INSERT INTO users (uid, version) VALUES " + ", ".join(f"({key + i}, 0)" for i in range(count)))


@contextmanager
def stopped_keepers(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[None]:
    """While nobody but writers makes anything void; what is marked is believed for `bound`."""
    with proxies[0].stopped_keeper(), proxies[1].stopped_keeper():
        yield


def hit_count(proxy: RedisProxy) -> float:
    return proxy.labelled("shardproxy_cache_reads_total", outcome="hit")


Write = Callable[[RedisProxy, int, int], None]


def _text(text: str) -> Write:
    def write(proxy: RedisProxy, key: int, new: int) -> None:
        with proxy.mysql() as db:
            db.cursor().execute(text.format(key=key, new=new))

    return write


def _prepared(proxy: RedisProxy, key: int, new: int) -> None:
    db = mysql.connector.connect(
        host="127.0.0.1", port=proxy.mysql_port, user="app", password="app", database="main", autocommit=True
    )
    with db, db.cursor(prepared=True) as cursor:
        cursor.execute("UPDATE users SET version = ? WHERE uid = ?", (new, key))


def _sql_prepared(proxy: RedisProxy, key: int, new: int) -> None:
    with proxy.mysql() as db:
        cursor = db.cursor()
        cursor.execute("PREPARE s FROM 'UPDATE users SET version = ? WHERE uid = ?'")
        cursor.execute(f"SET @new = {new}, @key = {key}")
        cursor.execute("EXECUTE s USING @new, @key")


def _transaction(*ends: str, first: str = "BEGIN") -> Write:
    def write(proxy: RedisProxy, key: int, new: int) -> None:
        with proxy.mysql() as db:
            cursor = db.cursor()
            cursor.execute(first)
            cursor.execute(f"UPDATE users SET version = {new} WHERE uid = {key}")
            # The other shard, too: a commit over both.
            cursor.execute(f"INSERT INTO orders VALUES {', '.join(f'({i}, {new}, 1, 2)' for i in range(900, 910))}")
            for text in ends:
                cursor.execute(text)

    return write


def _one_shard(end: str) -> Write:
    def write(proxy: RedisProxy, key: int, new: int) -> None:
        with proxy.mysql() as db:
            cursor = db.cursor()
            cursor.execute("SET autocommit = 0")
            cursor.execute(f"UPDATE users SET version = {new} WHERE uid = {key}")
            cursor.execute(end)

    return write


WRITES: dict[str, Write] = {
    "update": _text("UPDATE users SET version = {new} WHERE uid = {key}"),
    "range": _text("UPDATE users SET version = {new} WHERE uid BETWEEN {key} AND {key}"),
    "upsert": _text("INSERT INTO users (uid) VALUES ({key}) ON DUPLICATE KEY UPDATE version = {new}"),
    "replace": _text("REPLACE INTO users (uid, version) VALUES ({key}, {new})"),
    "several": _text("UPDATE users SET version = {new} WHERE uid IN ({key}, 5000, 5001, 5002)"),
    "everywhere": _text("UPDATE users SET version = {new} WHERE version < {new} AND name IS NULL"),
    "prepared": _prepared,
    "sql prepared": _sql_prepared,
    "transaction": _transaction("COMMIT"),
    "begin": _transaction("BEGIN"),
    "autocommit": _transaction("SET autocommit = 1", first="SET autocommit = 0"),
    "ddl": _transaction("CREATE TABLE IF NOT EXISTS orders LIKE users"),
    "savepoint": _transaction("SAVEPOINT a", "ROLLBACK TO a", "COMMIT"),
    "one shard": _one_shard("COMMIT"),
    "one shard, begin": _one_shard("START TRANSACTION"),
}


@pytest.mark.parametrize("how", WRITES)
def test_the_other_proxy_reads_what_was_acknowledged(
    proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any, how: str
) -> None:
    key = 100 + list(WRITES).index(how)
    fresh(sql, key)
    for new in range(1, 4):
        sql("DELETE FROM orders WHERE uid BETWEEN 900 AND 909")
        hits(proxies[1], lambda: reader.get(f"users:{key}"))
        assert version(reader, key) == new - 1
        with stopped_keepers(proxies):
            WRITES[how](proxies[0], key, new)
            assert version(reader, key) == new


def test_rows_that_come_and_go(proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any) -> None:
    fresh(sql, 200)
    for text, found in (
        ("DELETE FROM users WHERE uid = 200", None),
        ("INSERT INTO users (uid, version) VALUES (200, 7)", 7),
        ("TRUNCATE TABLE users", None),
        ("INSERT INTO users (uid, version) SELECT 200, 8", 8),
    ):
        hits(proxies[1], lambda: reader.get("users:200"))  # that there is none, too
        with stopped_keepers(proxies):
            sql(text)
            assert version(reader, 200) == found


def test_a_key_of_two_columns_and_a_reference_table(
    proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any
) -> None:
    sql("INSERT INTO orders VALUES (7, 1, 'tea', NULL), (7, 2, 'tea', NULL)")
    sql("REPLACE INTO kinds VALUES (1, 'one')")
    for key in ("orders:7:1", "orders:7:2"):
        hits(proxies[1], partial(reader.hgetall, key))
    hits(proxies[1], lambda: reader.get("kinds:1"))
    with stopped_keepers(proxies):
        sql("UPDATE orders SET what = 'milk' WHERE uid = 7 AND no = 1")
        assert reader.hget("orders:7:1", "what") == b"milk"
        before = hit_count(proxies[1])
        assert reader.hget("orders:7:2", "what") == b"tea"  # the other row of the same shard key is believed
        assert hit_count(proxies[1]) == before + 1
        sql("UPDATE kinds SET name = 'first' WHERE id = 1")
        assert json.loads(reader.get("kinds:1"))["name"] == "first"
        sql("UPDATE orders SET what = 'water' WHERE uid = 7")
        assert [reader.hget(f"orders:7:{no}", "what") for no in (1, 2)] == [b"water"] * 2


def test_other_tables_stay_when_one_is_void(proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any) -> None:
    fresh(sql, 300)
    sql("REPLACE INTO kinds VALUES (3, 'three')")
    hits(proxies[1], lambda: reader.get("users:300"))
    hits(proxies[1], lambda: reader.get("kinds:3"))
    with stopped_keepers(proxies):
        sql("UPDATE kinds SET name = 'third'")
        before = hit_count(proxies[1])
        assert version(reader, 300) == 0
        assert hit_count(proxies[1]) == before + 1
        assert json.loads(reader.get("kinds:3"))["name"] == "third"


def test_what_is_rolled_back_voids_nothing(proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any) -> None:
    fresh(sql, 310)
    hits(proxies[1], lambda: reader.get("users:310"))
    before = voided(proxies[0], "rows")
    sql("BEGIN")
    sql("UPDATE users SET version = 9 WHERE uid = 310")
    sql("ROLLBACK")
    assert version(reader, 310) == 0
    assert voided(proxies[0], "rows") == before


def voided(proxy: RedisProxy, what: str) -> float:
    return proxy.labelled("shardproxy_cache_voided_total", what=what)


def test_writes_of_other_tables_ask_no_node(proxies: tuple[RedisProxy, RedisProxy], sql: Run) -> None:
    sql("CREATE TABLE IF NOT EXISTS aside (uid BIGINT PRIMARY KEY, version INT) /*shardproxy: key=uid*/")
    before = [voided(proxies[0], what) for what in ("rows", "tables")]
    with stopped_nodes(proxies[0].cluster):
        sql("REPLACE INTO aside VALUES (1, 1)")
        sql("UPDATE aside SET version = 2")
    assert [voided(proxies[0], what) for what in ("rows", "tables")] == before


@contextmanager
def stopped_nodes(cluster: LocalCluster) -> Iterator[None]:
    """While the nodes stand still."""
    for node in cluster.redis:
        os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for node in cluster.redis:
            os.kill(node.pid, signal.SIGCONT)


def test_a_commit_that_takes_longer_than_the_hold_off(
    proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any, cluster: LocalCluster
) -> None:
    fresh(sql, 320)
    hits(proxies[1], lambda: reader.get("users:320"))
    before, before_rows = (voided(proxies[0], what) for what in ("again", "rows"))
    holders = [shard.primary.connect("main") for shard in cluster.shards]
    for holder in holders:
        holder.cursor().execute("BEGIN")
        holder.cursor().execute("SELECT * FROM users WHERE uid = 320 FOR UPDATE")
    told = threading.Event()

    def write() -> None:
        sql("UPDATE users SET version = 1 WHERE uid = 320")  # waits for the lock
        told.set()

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: voided(proxies[0], "rows") > before_rows, "the row is void")  # not the hit of before
    hits(proxies[1], lambda: reader.get("users:320"))  # the hold-off is over, and the old row is kept again
    assert not told.is_set() and version(reader, 320) == 0
    with stopped_keepers(proxies):
        for holder in holders:
            holder.rollback()
            holder.close()
        told.wait(10)
        assert version(reader, 320) == 1
    writer.join()
    assert voided(proxies[0], "again") > before  # more than once, if that took long too


def test_a_write_waits_for_a_node_and_is_not_done_without(
    proxies: tuple[RedisProxy, RedisProxy], sql: Run, reader: Any, cluster: LocalCluster
) -> None:
    fresh(sql, 330)
    hits(proxies[1], lambda: reader.get("users:330"))
    with stopped_nodes(cluster):
        with pytest.raises(pymysql.MySQLError) as caught:
            sql("UPDATE users SET version = 1 WHERE uid = 330")
        assert caught.value.args[0] == 9123 and "cannot be made void on a Redis node" in caught.value.args[1]
        assert sql("SELECT version FROM users WHERE uid = 330") == ((0,),)

    def is_written() -> bool:
        try:
            sql("UPDATE users SET version = 2 WHERE uid = 330")
        except pymysql.MySQLError:
            return False
        return True

    eventually(is_written, "a node is there again")
    assert version(reader, 330) == 2


def test_a_transaction_that_cannot_be_committed_stays_open(sql: Run, reader: Any, cluster: LocalCluster) -> None:
    fresh(sql, 340)
    sql("BEGIN")
    sql("UPDATE users SET version = 1 WHERE uid = 340")
    with stopped_nodes(cluster), pytest.raises(pymysql.MySQLError, match="9123"):
        sql("COMMIT")
    assert version(reader, 340) == 0
    sql("COMMIT")
    assert version(reader, 340) == 1


@pytest.mark.parametrize(
    ("spoil", "mend", "why"),
    [
        (
            "CREATE TRIGGER main.spoils AFTER INSERT ON main.orders FOR EACH ROW UPDATE users SET version = 9",
            "DROP TRIGGER main.spoils",
            "trigger main.spoils may change cached rows",
        ),
        (
            "ALTER TABLE main.kinds ENGINE = MyISAM",
            "ALTER TABLE main.kinds ENGINE = InnoDB",
            "its engine is not InnoDB",
        ),
    ],
)
def test_what_cannot_be_kept_strictly_is_read_from_mysql(
    proxies: tuple[RedisProxy, RedisProxy], cluster: LocalCluster, spoil: str, mend: str, why: str
) -> None:
    proxy = proxies[1]
    for shard in cluster.shards:
        shard.primary.rows(spoil)
    try:
        os.kill(proxy.keeper_pid(), signal.SIGKILL)  # it looks when it begins
        eventually(lambda: why in proxy.process.log.read_text(), "the log says why", 60)
    finally:
        for shard in cluster.shards:
            shard.primary.rows(mend)
    eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "all is kept again", 30)
