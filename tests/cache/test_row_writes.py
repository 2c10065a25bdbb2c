"""Rows written as Redis keys: what comes back, what MySQL has, what is refused; and that who has written reads it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from tests.cache.test_rows import CACHE, KEYSPACES, TABLES, cluster_with, hits
from tests.cache.test_stale_reads import both_kept
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, redis_proxy

WRITES = CACHE.replace("[cache]", '[cache]\nmode = "strict"', 1).replace('"main.users"', '"main.users"\nwrite = true')
WRITES = WRITES.replace('"main.orders"', '"main.orders"\nwrite = true')
NAMED = "CREATE TABLE named (uid BIGINT PRIMARY KEY, name VARCHAR(20) UNIQUE, data JSON, twice INT AS (uid * 2))"
WRITES += """
[cache.rows.named]
key = "named:{uid}"
table = "main.named"
write = true
"""
SPACES = KEYSPACES.replace('users = { key = "uid" }', 'users = { key = "uid" }\nnamed = { key = "uid" }')


WRITERS = 40  # at once


@pytest.fixture(scope="module")
def cluster(flavor: FlavorName) -> Iterator[LocalCluster]:
    with cluster_with(flavor, (*TABLES, NAMED)) as running:
        yield running


@pytest.fixture(scope="module")
def proxies(cluster: LocalCluster) -> Iterator[tuple[RedisProxy, RedisProxy]]:
    options: dict[str, Any] = {"more": WRITES, "keyspaces": SPACES}
    with redis_proxy(cluster, "one", **options) as one, redis_proxy(cluster, "two", **options) as two:
        for proxy in (one, two):
            eventually(partial(both_kept, proxy), "both shards are kept", 30)
        yield one, two


@pytest.fixture
def client(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[Any]:
    with proxies[0].connect() as connected:
        yield connected


@pytest.fixture
def other(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[Any]:
    with proxies[1].connect() as connected:
        yield connected


@pytest.fixture
def sql(proxies: tuple[RedisProxy, RedisProxy]) -> Iterator[Callable[..., Any]]:
    with proxies[0].mysql() as db, db.cursor() as cursor:

        def run(text: str, *values: object) -> Any:
            cursor.execute(text, values or None)
            return cursor.fetchall()

        yield run


def test_a_document_comes_back_as_it_was_written(client: Any, other: Any, sql: Callable[..., Any]) -> None:
    document = {
        "uid": 1, "name": 'Zoë "\\ \n \' 😀', "balance": "10.10", "rate": 0.1, "photo": "AP8n", "flags": "BQ==",
        "born": "2020-02-29", "padded": 7, "version": 1,
    }  # fmt: skip
    assert other.get("users:1") is None
    assert client.set("users:1", json.dumps(document)) is True
    assert json.loads(client.get("users:1")) == json.loads(other.get("users:1")) == document
    assert sql("SELECT name, balance, photo, flags + 0 FROM users WHERE uid = 1")[0][2:] == (b"\x00\xff'", 5)
    empty = {**dict.fromkeys(document), "uid": 1, "version": 2}
    assert client.set("users:1", json.dumps(empty)) is True
    assert json.loads(other.get("users:1")) == empty
    assert client.set("users:1", other.get("users:1")) is True  # what GET gives
    assert (client.delete("users:1", "users:2"), other.get("users:1")) == (1, None)
    assert sql("SELECT * FROM users WHERE uid = 1") == ()


def test_json_columns_and_generated_ones(client: Any, other: Any, cluster: LocalCluster) -> None:
    data: Any = {"a": [1, 2.5, None, True, "x"], "ü": {}}
    document = {"uid": 3, "name": "three", "data": data if cluster.flavor == "mysql" else json.dumps(data)}
    assert client.set("named:3", json.dumps(document)) is True
    assert json.loads(other.get("named:3")) == {**document, "twice": 6}
    assert client.set("named:3", other.get("named:3")) is True


def test_fields_of_a_hash(client: Any, other: Any, sql: Callable[..., Any]) -> None:
    assert client.hset("orders:7:1", "what", "tea") == 1
    assert other.hgetall("orders:7:1") == {b"uid": b"7", b"no": b"1", b"what": b"tea"}
    assert client.hset("orders:7:1", mapping={"what": "milk", "note": "cold", "no": "1"}) == 1
    assert client.hset("orders:7:1", mapping={"what": "milk", "note": "warm"}) == 0
    assert other.hget("orders:7:1", "note") == b"warm"
    assert client.execute_command("HMSET", "orders:7:1", "note", "Grüße") in (True, b"OK")
    assert other.hget("orders:7:1", "note") == "Grüße".encode()
    assert sql("SELECT * FROM orders WHERE uid = 7") == ((7, 1, "milk", "Grüße"),)
    assert client.unlink("orders:7:1") == 1
    assert other.exists("orders:7:1") == 0


FULL = (
    '{"uid": 5, "name": "x", "balance": "1", "rate": 1, "photo": "", "flags": "", "born": null, "padded": 1, '
    '"version": 1}'
)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("SET", "users:5", "x"), "main.users: the value is no JSON document"),
        (("SET", "users:5", "[1]"), "the value is no JSON object"),
        (("SET", "users:5", '{"uid": 5}'), "SET writes whole rows, and the document has no name, balance, rate"),
        (("SET", "users:5", FULL.replace('"uid": 5', '"uid": 6')), "uid is a part of the key, which says another"),
        (("SET", "users:5", FULL.replace('"name"', '"nick": 1, "name"')), "main.users has no column nick"),
        (("SET", "users:5", FULL.replace('"x"', "1")), "name is varchar: it takes a string, and got 1"),
        (("SET", "users:5", FULL.replace('"version": 1', '"version": "1"')), "version is int: it takes a number"),
        (("SET", "users:5", FULL.replace('"version": 1', '"version": 1.5')), "version is int: it takes a number"),
        (("SET", "users:5", FULL.replace('"version": 1', '"version": true')), "it takes a number, and got true"),
        (("SET", "users:5", FULL.replace('"1"', '"one"')), "balance is decimal: it takes a string of digits"),
        (("SET", "users:5", FULL.replace('"photo": ""', '"photo": "?"')), "photo is blob: it takes base64"),
        (("SET", "users:5", FULL.replace('"born": null', '"born": "x"')), "(1292)"),
        (("SET", "users:5", FULL.replace('"version": 1', '"version": null')), "(1048)"),
        (("SET", "users:5", FULL, "EX", "5"), "SET of a row takes no options"),
        (("HSET", "users:5", "name", "x"), "WRONGTYPE"),
        (("SET", "orders:5:1", "x"), "WRONGTYPE"),
        (("HSET", "orders:5:1", "where", "x"), "main.orders has no column where"),
        (("HSET", "orders:5:1", "uid", "6"), "uid is a part of the key"),
        (("HSET", "orders:5:1", "what", b"\xff"), "what is varchar: it takes UTF-8"),
        (("HSET", "orders:5:1", "what", "x" * 21), "(1406)"),
        (("SET", "kinds:1", '{"id": 1, "name": "one"}'), "or this command does with cache.rows.NAME.write = true"),
        (("DEL", "users:5", "kinds:1"), "rows of main.kinds are read only here"),
        (("DEL", "users:5", "plain"), "rows and other keys in one command"),
        (("DEL", "users:05"), "users:05 is no key of a row"),
        (("APPEND", "users:5", "x"), "APPEND of users:5: keys like this are rows of main.users"),
    ],
)  # fmt: skip
def test_what_is_refused_and_not_done(client: Any, sql: Callable[..., Any], words: tuple[Any, ...], why: str) -> None:
    with pytest.raises(redis.ResponseError) as caught:
        client.execute_command(*words)
    assert why in str(caught.value)
    assert sql("SELECT * FROM users WHERE uid = 5") == sql("SELECT * FROM orders WHERE uid = 5") == ()


def test_another_unique_key_means_no_other_row(client: Any, sql: Callable[..., Any]) -> None:
    for key in (10, 11):
        client.set(f"named:{key}", json.dumps({"uid": key, "name": None, "data": None}))
    taken = next(key for key in range(12, 100) if _home(sql, key) == _home(sql, 10))
    client.set("named:10", json.dumps({"uid": 10, "name": "taken", "data": None}))
    with pytest.raises(redis.ResponseError, match="1062"):
        client.set(f"named:{taken}", json.dumps({"uid": taken, "name": "taken", "data": None}))
    assert sql("SELECT uid FROM named WHERE name = 'taken'") == ((10,),)


def _home(sql: Callable[..., Any], key: int) -> Any:
    return sql(f"SELECT @@port, uid FROM named WHERE uid = {key} UNION ALL SELECT @@port, {key}")[0][0]


def test_a_pipeline_is_done_in_its_order(client: Any) -> None:
    pipe = client.pipeline(transaction=False)
    for version in range(30):
        pipe.get("orders-of:8")
        pipe.hget("orders:8:1", "what")
        pipe.hset("orders:8:1", "what", str(version))
        pipe.hget("orders:8:1", "what")
        pipe.set("aside", version)
    found = pipe.execute()
    assert [int(value) for value in found[3::5]] == list(range(30))
    assert [value and int(value) for value in found[1::5]] == [None, *range(29)]
    assert client.get("aside") == b"29"


def test_many_write_one_row_and_read_what_they_have_written(proxies: tuple[RedisProxy, RedisProxy]) -> None:
    lost: list[str] = []

    def work(number: int) -> None:
        with proxies[number % 2].connect() as mine, proxies[(number + 1) % 2].connect() as there:
            for version in range(10):
                mine.hset(f"orders:9:{number}", "what", str(version))
                hot = mine.hset("orders:9:99", "note", f"{number}.{version}")
                if hot not in (0, 1):
                    lost.append(f"HSET said {hot}")
                lost.extend(
                    f"{number}: {found} where {version} was written"
                    for found in (one.hget(f"orders:9:{number}", "what") for one in (mine, there))
                    if found != b"%d" % version
                )

    at_once(work, 8)
    assert not lost


def at_once(work: Callable[[int], None], count: int) -> None:
    """So many threads, numbered from 0. None of them fails."""
    with ThreadPoolExecutor(count) as pool:
        failures = [done.exception() for done in [pool.submit(work, number) for number in range(count)]]
    assert failures == [None] * count


def test_many_insert_rows_into_one_gap_of_the_index(
    proxies: tuple[RedisProxy, RedisProxy], sql: Callable[..., Any]
) -> None:
    """Each locks the gap before it inserts, and none gets on but all others are the deadlock's victims."""
    ready = threading.Barrier(WRITERS)

    def work(number: int) -> None:
        # redis-py would send again what has no reply within 5 s, and the second one adds no field.
        with proxies[number % 2].connect(socket_timeout=60) as mine:
            for turn in range(3):
                ready.wait(60)
                assert mine.hset(f"orders:{number}:{1000 + turn}", "what", "new") == 1

    at_once(work, WRITERS)
    assert sql("SELECT COUNT(*) FROM orders WHERE no >= 1000") == ((3 * WRITERS,),)


def test_a_row_that_is_cached_is_void_when_it_is_written(
    proxies: tuple[RedisProxy, RedisProxy], client: Any, other: Any
) -> None:
    client.hset("orders:12:1", "what", "0")
    for version in range(1, 4):
        hits(proxies[1], lambda: other.hgetall("orders:12:1"))
        with proxies[0].stopped_keeper(), proxies[1].stopped_keeper():
            client.hset("orders:12:1", "what", str(version))
            assert other.hget("orders:12:1", "what") == b"%d" % version
