"""Cached rows: what they look like, that they are read through once, and that writes of any kind void them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
import redis

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.local.redis_node import RedisNode
from shardproxy.reshard.position import Position, parse_position
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

KEYSPACES = """
[keyspaces.main]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1 }
[keyspaces.main.tables]
users = { key = "uid" }
orders = { key = "uid" }
kinds = { reference = true }
"""
CACHE = """
[cache]
bound = "1s"
hold_off = "300ms"
lease = "2s"
[cache.rows.users]
key = "users:{uid}"
table = "main.users"
[cache.rows.orders]
key = "orders:{uid}:{no}"
table = "main.orders"
form = "hash"
[cache.rows.kinds]
key = "kinds:{id}"
table = "main.kinds"
absent_ttl = "0s"
"""
PATIENT = CACHE.replace('lease = "2s"', 'lease = "60s"')  # a slow machine takes longer for thousands of reads
TABLES = (
    "CREATE TABLE users (uid BIGINT PRIMARY KEY, name VARCHAR(50), balance DECIMAL(12,2), rate DOUBLE, photo BLOB, "
    "flags BIT(4), born DATE, padded INT(5) ZEROFILL, version INT NOT NULL DEFAULT 0)",
    "CREATE TABLE orders (uid BIGINT, no INT, what VARCHAR(20), note VARCHAR(20), PRIMARY KEY (no, uid))",
    "CREATE TABLE kinds (id INT PRIMARY KEY, name VARCHAR(20))",
)


@contextmanager
def cluster_with(flavor: FlavorName, tables: Sequence[str] = TABLES) -> Iterator[LocalCluster]:
    """Two shards with these tables, and two Redis nodes."""
    with LocalCluster(flavor, shards=2, replicas=0, redis=2) as running:
        for shard in running.shards:
            with shard.primary.connect() as db:
                db.cursor().execute("CREATE DATABASE IF NOT EXISTS main")
                db.select_db("main")
                for text in tables:
                    db.cursor().execute(text)
        yield running


@pytest.fixture(scope="module")
def cluster(flavor: FlavorName) -> Iterator[LocalCluster]:
    with cluster_with(flavor) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster) -> Iterator[RedisProxy]:
    with redis_proxy(cluster, "rows", more=PATIENT, keyspaces=KEYSPACES) as running:
        eventually(lambda: running.metric("shardproxy_cache_fresh") == 2, "both shards are kept", 30)
        yield running


@pytest.fixture
def client(proxy: RedisProxy) -> Iterator[Any]:
    with proxy.connect() as connected:
        yield connected


@pytest.fixture
def sql(proxy: RedisProxy) -> Iterator[Callable[..., Any]]:
    with proxy.mysql() as db, db.cursor() as cursor:

        def run(text: str, *values: object) -> Any:
            cursor.execute(text, values)
            return cursor.fetchall()

        yield run


def kept(proxy: RedisProxy, outcome: str = "hit") -> float:
    return proxy.labelled("shardproxy_cache_reads_total", outcome=outcome)


def read_until(client: Any, key: str, wanted: Callable[..., bool]) -> float:
    """Seconds until the last read began that did not show something. How long reads take is not counted."""
    began = last = time.monotonic()

    def shows() -> bool:
        nonlocal last
        asked = time.monotonic()
        if wanted(client.get(key)):
            return True
        last = asked
        return False

    eventually(shows, f"{key} shows it")
    return last - began


def hits(proxy: RedisProxy, read: Callable[[], object]) -> None:
    """Wait until a read is a hit: a row that was just written is not kept at first."""

    def is_hit() -> bool:
        before = kept(proxy)
        read()
        return kept(proxy) > before

    eventually(is_hit, "a hit", 30)


def read_by_keeper(proxy: RedisProxy) -> None:
    """Wait until a keeper has read what was written: until then a row that is a hit may become void."""
    mariadb = proxy.cluster.flavor == "mariadb"
    ask = "SELECT @@GLOBAL.gtid_binlog_pos" if mariadb else "SELECT @@GLOBAL.gtid_executed"
    for shard in proxy.cluster.shards:
        goal = parse_position(shard.primary.rows(ask)[0][0], mariadb)
        for node in proxy.cluster.redis:

            def noted(node: RedisNode = node, shard: str = shard.name, goal: Position = goal) -> bool:
                with node.connect(decode_responses=True) as direct:
                    found = [
                        direct.get(name) or "" for name in direct.scan_iter(f"_shardproxy:*:place:{shard}", count=1000)
                    ]
                places = [text.partition(" ")[2].partition("|")[0] for text in found]
                return any(parse_position(place, mariadb).covers(goal) for place in places)

            eventually(noted, "the keeper has read what was written", 30)


def test_a_row_is_a_json_document_with_exact_values(client: Any, sql: Callable[..., Any]) -> None:
    sql(
        "INSERT INTO users VALUES (1, %s, 10.10, 0.1, %s, b'101', '2020-02-29', 7, 1), "
        "(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2)",
        'Zoë "\\ \n',
        b"\x00\xff",
    )  # fmt: skip
    assert json.loads(client.get("users:1"), parse_float=Decimal) == {
        "uid": 1,
        "name": 'Zoë "\\ \n',
        "balance": "10.10",
        "rate": Decimal("0.1"),
        "photo": "AP8=",
        "flags": "BQ==",
        "born": "2020-02-29",
        "padded": 7,
        "version": 1,
    }
    assert set(json.loads(client.get("users:2")).values()) == {2, None}
    assert client.get("users:3") is None
    found = client.mget("users:2", "users:3", "users:1")
    assert [value and json.loads(value)["uid"] for value in found] == [2, None, 1]


def test_a_row_is_a_hash(client: Any, sql: Callable[..., Any], proxy: RedisProxy) -> None:
    sql("INSERT INTO orders VALUES (7, 1, 'tea', NULL)")
    sql("INSERT INTO users (uid) VALUES (9)")
    assert client.hgetall("orders:7:1") == {b"uid": b"7", b"no": b"1", b"what": b"tea"}
    assert client.hget("orders:7:1", "what") == b"tea"
    assert client.hmget("orders:7:1", "what", "note", "uid") == [b"tea", None, b"7"]
    assert client.hgetall("orders:1:7") == {}
    with proxy.connect(protocol=3) as newer:
        assert newer.hgetall("orders:7:1") == {b"uid": b"7", b"no": b"1", b"what": b"tea"}
        assert newer.hget("orders:1:7", "what") is None
        assert newer.get("users:33") is None
    assert client.exists("orders:7:1", "orders:7:2", "orders:7:1") == 2
    assert [client.ttl(key) for key in ("orders:7:1", "orders:7:2")] == [-1, -2]
    assert [client.type(key) for key in ("orders:7:1", "orders:7:2", "users:9")] == [b"hash", b"none", b"string"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("SET", "users:1", "x"), "SET of users:1: keys like this are rows of main.users; GET, MGET"),
        (("DEL", "plain", "users:1"), "DEL of users:1"),
        (("MGET", "plain", "users:1"), "rows and other keys in one command"),
        (("GET", "users:01"), "users:01 is no key of a row: it must look like users:{uid}"),
        (("GET", "users:x"), "no key of a row"),
        (("HGETALL", "users:1"), "Operation against a key holding the wrong kind of value"),
        (("GET", "orders:7:1"), "Operation against a key holding the wrong kind of value"),
    ],
)
def test_what_cannot_be_done_with_a_row(client: Any, words: tuple[str, ...], why: str) -> None:
    with pytest.raises(redis.ResponseError) as caught:
        client.execute_command(*words)
    assert why in str(caught.value)


def test_rows_are_not_in_transactions(client: Any, sql: Callable[..., Any]) -> None:
    sql("INSERT INTO users (uid, version) VALUES (25, 5)")
    pipe = client.pipeline(transaction=True)
    pipe.set("user:25", 1)
    pipe.get("users:25")
    with pytest.raises(redis.ResponseError, match=r"users:25 is a row of .*, which no transaction can have"):
        pipe.execute()
    assert client.get("user:25") is None
    with pytest.raises(redis.ResponseError, match="WATCH of users:25"):
        client.execute_command("WATCH", "users:25")
    with pytest.raises(redis.ResponseError, match="BLPOP of users:25"):
        client.execute_command("BLPOP", "users:25", 1)
    assert json.loads(client.get("users:25"))["version"] == 5


def test_other_keys_are_as_ever_and_replies_keep_their_order(client: Any, sql: Callable[..., Any]) -> None:
    sql("INSERT INTO users (uid, version) VALUES (20, 5)")
    pipe = client.pipeline(transaction=False)
    for number in range(50):
        pipe.set(f"user:{number}", number)
        pipe.get("users:20")
        pipe.get(f"user:{number}")
    found = pipe.execute()
    assert [int(value) for value in found[2::3]] == list(range(50))
    assert {json.loads(value)["version"] for value in found[1::3]} == {5}


def test_a_second_read_asks_no_server(client: Any, sql: Callable[..., Any], proxy: RedisProxy) -> None:
    sql("INSERT INTO users (uid, version) VALUES (30, 1)")
    read_by_keeper(proxy)
    hits(proxy, lambda: client.get("users:30"))
    misses, before = kept(proxy, "miss"), kept(proxy)
    for _ in range(20):
        assert json.loads(client.get("users:30"))["version"] == 1
    assert (kept(proxy, "miss"), kept(proxy)) == (misses, before + 20)
    hits(proxy, lambda: client.get("users:31"))  # that there is no row is remembered too
    assert client.get("users:31") is None


@pytest.mark.parametrize("how", ["proxy", "direct"])
def test_a_write_shows_within_the_bound(
    client: Any, sql: Callable[..., Any], proxy: RedisProxy, cluster: LocalCluster, how: str
) -> None:
    key = 40 if how == "proxy" else 41
    sql("INSERT INTO users (uid, version) VALUES (%s, 0)", key)
    hits(proxy, lambda: client.get(f"users:{key}"))
    for version in range(1, 6):
        if how == "proxy":
            sql("UPDATE users SET version = %s WHERE uid BETWEEN %s AND %s", version, key, key)
        else:
            for shard in cluster.shards:
                with shard.primary.connect(database="main", autocommit=True) as db:
                    db.cursor().execute("UPDATE users SET version = %s WHERE uid = %s", (version, key))
        took = read_until(client, f"users:{key}", lambda row, new=version: json.loads(row)["version"] == new)
        assert took < 1.5  # the bound, and our own time
        hits(proxy, lambda: client.get(f"users:{key}"))
        assert json.loads(client.get(f"users:{key}"))["version"] == version
    sql("DELETE FROM users WHERE uid = %s", key)
    assert read_until(client, f"users:{key}", lambda row: row is None) < 1.5


def test_many_readers_of_one_row_load_it_once(client: Any, sql: Callable[..., Any], proxy: RedisProxy) -> None:
    sql("INSERT INTO kinds VALUES (1, 'one')")
    read_by_keeper(proxy)
    eventually(lambda: client.get("kinds:1") is not None, "the row is there")
    hits(proxy, lambda: client.get("kinds:1"))
    forget(proxy, "kinds:1")
    misses = kept(proxy, "miss")
    found: list[Any] = []

    def read() -> None:
        with proxy.connect() as other:
            found.extend(other.get("kinds:1") for _ in range(10))

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {json.loads(row)["name"] for row in found} == {"one"} and len(found) == 200
    assert kept(proxy, "miss") == misses + 1


def test_ten_thousand_reads_of_one_row_that_has_expired_load_it_once(
    client: Any, sql: Callable[..., Any], proxy: RedisProxy
) -> None:
    sql("INSERT INTO users (uid, version) VALUES (80, 8)")
    read_by_keeper(proxy)
    hits(proxy, lambda: client.get("users:80"))
    forget(proxy, "users:80")
    misses = kept(proxy, "miss")
    pipe = client.pipeline(transaction=False)
    for number in range(10_000):
        pipe.get("users:80")
        if number % 1000 == 0:
            pipe.set("user:80", number)
            pipe.get("user:80")
    found = pipe.execute()
    row = client.get("users:80")
    assert [int(value) for value in found if value not in (row, True)] == list(range(0, 10_000, 1000))
    assert found.count(row) == 10_000
    assert kept(proxy, "miss") == misses + 1


def forget(proxy: RedisProxy, key: str) -> None:
    """Drop the entry of a row, as if its time were over."""
    for node in proxy.cluster.redis:
        with node.connect() as direct:
            for name in direct.scan_iter(f"_shardproxy:*:row:{key}"):
                direct.delete(name)


def test_a_changed_table_is_read_anew(client: Any, sql: Callable[..., Any], proxy: RedisProxy) -> None:
    sql("INSERT INTO users (uid, version) VALUES (50, 1)")
    hits(proxy, lambda: client.get("users:50"))
    sql("ALTER TABLE users ADD COLUMN added INT DEFAULT 9")
    eventually(lambda: json.loads(client.get("users:50")).get("added") == 9, "the column is there")
    hits(proxy, lambda: client.get("users:50"))
    assert json.loads(client.get("users:50"))["added"] == 9


def test_a_node_that_forgets_everything(client: Any, sql: Callable[..., Any], proxy: RedisProxy) -> None:
    sql("INSERT INTO users (uid, version) VALUES (60, 1)")
    hits(proxy, lambda: client.get("users:60"))
    for node in proxy.cluster.redis:
        node.kill()
    eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 0, "nothing is kept", 30)
    sql("UPDATE users SET version = 2 WHERE uid = 60")
    assert json.loads(client.get("users:60"))["version"] == 2  # from MySQL
    for node in proxy.cluster.redis:
        node.restart()
    hits(proxy, lambda: client.get("users:60"))
    assert json.loads(client.get("users:60"))["version"] == 2


def test_without_a_keeper_rows_come_from_mysql(client: Any, sql: Callable[..., Any], proxy: RedisProxy) -> None:
    sql("INSERT INTO users (uid, version) VALUES (70, 1)")
    hits(proxy, lambda: client.get("users:70"))
    with proxy.stopped_keeper():
        eventually(lambda: kept_grows(proxy, "bypassed", lambda: client.get("users:70")), "a bypass")
        sql("UPDATE users SET version = 2 WHERE uid = 70")
        assert json.loads(client.get("users:70"))["version"] == 2
    hits(proxy, lambda: client.get("users:70"))
    assert json.loads(client.get("users:70"))["version"] == 2


def kept_grows(proxy: RedisProxy, outcome: str, act: Callable[[], object]) -> bool:
    before = kept(proxy, outcome)
    act()
    return kept(proxy, outcome) > before


@pytest.mark.parametrize(
    ("spoil", "mend", "why"),
    [
        (
            "ALTER TABLE main.orders ADD FOREIGN KEY (uid) REFERENCES main.users (uid) ON DELETE CASCADE",
            "ALTER TABLE main.orders DROP FOREIGN KEY orders_ibfk_1",
            "its foreign key orders_ibfk_1 changes rows by CASCADE",
        ),
        (
            "ALTER TABLE main.kinds DROP PRIMARY KEY, ADD PRIMARY KEY (id, name)",
            "ALTER TABLE main.kinds DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
            "the columns of kinds:{id} must be the primary key of main.kinds, which is (id, name)",
        ),
    ],
)
def test_what_cannot_be_kept_is_read_from_mysql(
    client: Any, proxy: RedisProxy, cluster: LocalCluster, spoil: str, mend: str, why: str
) -> None:
    def everywhere(text: str) -> None:
        for shard in cluster.shards:
            shard.primary.rows(text)

    for shard in cluster.shards:
        shard.primary.rows("DELETE FROM main.orders")
    everywhere(spoil)
    try:
        eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 0, "nothing is kept", 30)
        eventually(lambda: why in proxy.process.log.read_text(), "the log says why")
        assert kept_grows(proxy, "bypassed", lambda: client.get("users:1"))
    finally:
        everywhere(mend)
    eventually(lambda: proxy.metric("shardproxy_cache_fresh") == 2, "all is kept again", 30)


def test_users_read_the_rows_that_their_rules_name(cluster: LocalCluster, sql: Callable[..., Any]) -> None:
    sql("REPLACE INTO users (uid, name) VALUES (71, 'mine'), (81, 'other')")
    users: dict[str, str | dict[str, object]] = {
        "default": "all",
        "some": {"password": "word", "keys": ["users:7*"]},
        "few": {"password": "word", "commands": ["+exists"]},
    }
    with redis_proxy(cluster, "ruled", more=CACHE, keyspaces=KEYSPACES, users=users) as ruled:
        with ruled.connect(username="some", password="word") as some:
            assert json.loads(some.get("users:71"))["name"] == "mine"
            for command in ("GET users:81", "MGET users:71 users:81"):
                with pytest.raises(redis.exceptions.NoPermissionError, match="keys"):
                    some.execute_command(*command.split())
        with ruled.connect(username="few", password="word") as few:
            assert few.exists("users:81") == 1
            with pytest.raises(redis.exceptions.NoPermissionError, match="get"):
                few.get("users:81")
