"""While rows are on their way: what a shard hides is seen by no statement, and changed by none."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from tests.integration import lookup_sides
from tests.integration.lookup_sides import FAR, Sides, answer, create, drop, ready
from tests.proxy import ProxyUnderTest, start_proxy

KEYSPACES = f"""{lookup_sides.KEYSPACES}
[keyspaces.hi]
key_type = "int"
map = "hash"
ring = {{ shard1 = 1, shard2 = 1 }}
tables = {{ spread = {{ key = "id" }} }}
"""
SPREAD = "CREATE TABLE hi.spread (id INT NOT NULL PRIMARY KEY, v INT NOT NULL)"
OWNER, HIDER = 0, 1  # keys 100 to 199 are shard1's; shard2 has older rows of them
ROWS = (
    "INSERT INTO users VALUES (1, 'one@x', 1, 'n', 5), (100, 'a@x', 1, 'm', 6), (101, 'c@x', 2, 'n', 7), "
    f"(150, NULL, NULL, NULL, 8), ({FAR}, 'b@x', 3, 'n', 9), ({FAR + 1}, 'd@x', 3, 'm', 10)"
)
OLD = [(100, "old@x", 9, "o", 600), (101, "c@x", 2, "n", 700), (151, "gone@x", 9, "p", 800)]


def moves(cluster: LocalCluster, phase: Phase) -> dict[str, Move]:
    """Of both keyspaces. Before the switch shard2 is the target, after it the source."""
    spread = build_snapshot(load(cluster.folder / "moving-plain.toml", {})).keyspaces["hi"].map
    assert isinstance(spread, BucketMap)
    buckets = [bucket for bucket, shard in enumerate(spread.buckets) if shard == OWNER][::2]
    ends = (OWNER, HIDER) if phase is Phase.COPYING else (HIDER, OWNER)
    return {
        "lk": Move(1, phase, 1, (Stream(*ends, MovingKeys(KeyType.INT, [(100, 200)])),)),
        "hi": Move(1, phase, 1, (Stream(*ends, MovingKeys(KeyType.INT, buckets=buckets)),)),
    }


@pytest.fixture(scope="module", params=[Phase.COPYING, Phase.OPEN], ids=["target-hides", "source-hides"])
def running(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[ProxyUnderTest]:
    for shard in cluster.shards:
        drop(shard.primary)
        create(shard.primary)
        shard.primary.rows("DROP DATABASE IF EXISTS hi")
        shard.primary.rows("CREATE DATABASE hi")
        shard.primary.rows(SPREAD)
    cluster.wait_replicated()
    cluster.config_toml(KEYSPACES, users=lookup_sides.USERS, name="moving-plain.toml")
    made = start_proxy(
        cluster, "lookups", keyspaces=KEYSPACES, users=lookup_sides.USERS, backend={"schema_interval": "100ms"},
        proxy={"drain_timeout": "100ms"}, moves=moves(cluster, request.param),
    )  # fmt: skip
    for shard in cluster.shards:
        shard.primary.rows("DELETE FROM _shardproxy.lookup_index")
    ready(made)
    yield made
    made.process.stop()
    for shard in cluster.shards:
        drop(shard.primary)
        shard.primary.rows("DROP DATABASE IF EXISTS hi")


@pytest.fixture
def sides(running: ProxyUnderTest, oracle: LocalServer) -> Iterator[Sides]:
    """A client of the proxy and one of a lone server, with the same rows; and the hidden ones, which must stay."""
    for shard in running.cluster.shards:
        for table in (
            "lk.users",
            "lk.orders",
            "lk.plain",
            "lk.binaries",
            "lh.items",
            "hi.spread",
            "_shardproxy.lookup",
        ):
            shard.primary.rows(f"DELETE FROM {table}")
    drop(oracle)
    create(oracle)
    oracle.rows("DROP DATABASE IF EXISTS hi")
    oracle.rows("CREATE DATABASE hi")
    oracle.rows(SPREAD)
    made = Sides(running, oracle)
    made.both(ROWS)
    hider = running.cluster.shards[HIDER].primary
    for uid, email, tenant, nick, age in OLD:
        hider.rows(f"INSERT INTO lk.users VALUES ({uid}, '{email}', {tenant}, '{nick}', {age})")
    yield made
    made.here.close()
    made.there.close()
    assert hidden(running) == OLD
    drop(oracle)
    oracle.rows("DROP DATABASE hi")


def hidden(proxy: ProxyUnderTest) -> list[tuple[Any, ...]]:
    rows = proxy.cluster.shards[HIDER].primary.rows("SELECT * FROM lk.users WHERE uid BETWEEN 100 AND 199 ORDER BY uid")
    return [tuple(row) for row in rows]


READS = (
    "SELECT * FROM users",
    "SELECT COUNT(*), SUM(age), MAX(age), COUNT(DISTINCT tenant) FROM users",
    "SELECT tenant, COUNT(*) FROM users GROUP BY tenant HAVING COUNT(*) > 0 ORDER BY 1",
    "SELECT DISTINCT nick FROM users ORDER BY nick LIMIT 2",
    "SELECT uid FROM users ORDER BY age DESC LIMIT 3",
    "SELECT uid FROM users WHERE age > 500 OR age IS NULL",
    "SELECT uid FROM users WHERE age > 5 ORDER BY uid LIMIT 1 OFFSET 1 FOR UPDATE",
    "SELECT u.uid, o.oid FROM users u LEFT JOIN orders o ON o.uid = u.uid",
    "SELECT a.uid, b.uid FROM users a JOIN users b ON a.tenant = b.tenant",
    "SELECT uid FROM users WHERE age = (SELECT MAX(age) FROM users)",
    "SELECT uid FROM users UNION SELECT uid FROM orders",
    "WITH u AS (SELECT * FROM users WHERE age > 5) SELECT COUNT(*) FROM u",
    "SELECT uid, RANK() OVER (ORDER BY age) FROM users",
    "(SELECT uid FROM users)",
    "SELECT uid FROM users WHERE uid BETWEEN 50 AND 1500",
    "SELECT uid FROM users WHERE uid = 100",
    "SELECT uid FROM users WHERE uid IN (100, 1000)",
)


def test_reads_over_several_shards(sides: Sides) -> None:
    for sql in READS:
        assert sides.both(sql)[0] < 1000, sql


@pytest.mark.parametrize("sql", [
    "SELECT * FROM users WHERE email = '{}'",
    "SELECT age FROM users WHERE email = '{}' AND age > 3 ORDER BY uid LIMIT 2",
    "SELECT COUNT(*), MAX(age) FROM users WHERE email = '{}'",
    "SELECT * FROM users WHERE email = '{}' FOR UPDATE",
    "SELECT * FROM users WHERE email IN ('{}', 'nobody')",
    "UPDATE users SET age = age + 1 WHERE email = '{}'",
    "UPDATE users SET email = CONCAT(email, '!') WHERE email = '{}'",
    "DELETE FROM users WHERE email = '{}'",
])  # fmt: skip
def test_a_value_that_a_hidden_row_still_has(sides: Sides, sql: str) -> None:
    """An index leads to the shard of the row that has the value now, or to any; there an old row may have it still."""
    for email in ("a@x", "c@x", "old@x", "gone@x", "b@x"):
        for _ in range(2):
            assert sides.both(sql.format(email))[0] < 1000, email
    assert sides.both("SELECT * FROM users")[0] < 1000


def test_writes_over_several_shards(sides: Sides) -> None:
    for sql in (
        "UPDATE users SET age = age + 1",
        "UPDATE users SET age = age + 1 WHERE age > 6 OR nick = 'n'",
        "UPDATE users SET age = 1 WHERE age > 500",
        "UPDATE users SET email = CONCAT('x', email) WHERE tenant = 9 OR tenant = 3",
        "INSERT INTO orders SELECT uid, age FROM users",
        "UPDATE users u JOIN orders o ON o.uid = u.uid SET o.oid = o.oid + 100 WHERE u.age > 3",
        "DELETE o FROM orders o JOIN users u USING (uid) WHERE u.tenant = 3",
        "UPDATE users SET uid = uid + 200 WHERE age = 9",
        "DELETE FROM users WHERE age > 9 ORDER BY uid LIMIT 1",
        "DELETE FROM users WHERE tenant = 9",
        "DELETE FROM users",
    ):
        assert sides.both(sql)[0] < 1000, sql
        for table in ("users", "orders"):
            sides.both(f"SELECT * FROM {table}")


def test_an_update_without_a_key_is_as_unsafe_as_ever(sides: Sides) -> None:
    sides.both("SET sql_safe_updates = 1")
    assert sides.both("UPDATE users SET age = 0")[0] == 1175
    assert sides.both("DELETE FROM users WHERE age = 5")[0] == 1175


def test_a_hidden_row_can_be_a_false_duplicate_and_is_never_changed_for_it(sides: Sides) -> None:
    """A known limit: no row that counts has this value, but the server has one. INSERT is told to try again."""
    assert sides.here_only(f"INSERT INTO users (uid, email) VALUES ({FAR + 5}, 'gone@x')")[0] == 9122
    for sql in (
        f"REPLACE INTO users (uid, email) VALUES ({FAR + 5}, 'gone@x')",
        f"INSERT IGNORE INTO users (uid, email) VALUES ({FAR + 5}, 'gone@x')",
        f"INSERT INTO users (uid, email) VALUES ({FAR + 5}, 'gone@x') ON DUPLICATE KEY UPDATE age = 1",
    ):
        assert sides.here_only(sql)[0] == 1062, sql
    sides.both("SELECT * FROM users")
    for sql in (
        "REPLACE INTO users (uid, email, age) VALUES (5, 'old@x', 3)",
        "INSERT IGNORE INTO users (uid, email, age) VALUES (6, 'old@x', 3), (7, 'b@x', 3)",
        "INSERT INTO users (uid, email) VALUES (8, 'b@x') ON DUPLICATE KEY UPDATE age = 1",
    ):
        assert sides.both(sql)[0] < 1000, sql
        sides.both("SELECT * FROM users")


def test_prepared_statements(sides: Sides) -> None:
    for side in (sides.here, sides.there):
        for sql in (
            "PREPARE p FROM 'SELECT uid FROM users WHERE age > ? OR nick = ?'",
            "PREPARE q FROM 'SELECT uid, age FROM users WHERE age > ? ORDER BY age LIMIT ?'",
            "PREPARE u FROM 'UPDATE users SET age = ? WHERE age > ? OR nick = ?'",
            "SET @a = 6, @n = 'n', @l = 3",
        ):
            answer(side, sql)
    for sql in (
        "EXECUTE p USING @a, @n",
        "EXECUTE q USING @a, @l",
        "EXECUTE u USING @a, @l, @n",
        "SELECT * FROM users",
    ):
        assert sides.both(sql)[0] < 1000, sql


def test_buckets_whatever_the_characters_of_the_connection(sides: Sides) -> None:
    hider = sides.proxy.cluster.shards[HIDER].primary
    sides.both("INSERT INTO hi.spread VALUES " + ", ".join(f"({i}, {i % 7})" for i in range(-50, 150)))
    mine = {row[0] for row in hider.rows("SELECT id FROM hi.spread")}
    move = moves(sides.proxy.cluster, Phase.COPYING)["hi"]
    moving = [i for i in range(-50, 150) if i in move.streams[0].keys]
    assert moving
    assert mine.isdisjoint(moving)
    hider.rows("INSERT INTO hi.spread VALUES " + ", ".join(f"({i}, 99)" for i in moving))
    for sql in (
        "SELECT * FROM hi.spread",
        "SELECT v, COUNT(*) FROM hi.spread GROUP BY v",
        "UPDATE hi.spread SET v = v + 1",
    ):
        sides.both(sql)
    for charset in ("latin1", "utf8mb4"):
        sides.both(f"SET character_set_connection = {charset}")
        assert sides.both("SELECT v, COUNT(*) FROM hi.spread GROUP BY v")[0] == 7
    sides.both("SELECT MAX(v) FROM (SELECT v FROM hi.spread) s")


def test_explained(sides: Sides) -> None:
    with sides.proxy.connect(database="lk") as client, client.cursor() as cursor:
        cursor.execute("EXPLAIN ROUTE SELECT uid FROM users WHERE age = 5")
        rows = [(row[0], row[4].endswith("; without rows that are on their way between shards"), row[6])
                for row in cursor.fetchall()]  # fmt: skip
        assert rows == [
            ("shard1", False, "SELECT uid FROM users WHERE age = 5"),
            (
                "shard2",
                True,
                "SELECT uid FROM users WHERE ((`users`.`uid` BETWEEN 100 AND 199)) IS NOT TRUE AND ( age = 5)",
            ),
        ]
        cursor.execute("EXPLAIN ROUTE SELECT uid FROM users WHERE uid = 1500")
        [row] = cursor.fetchall()
        assert row[6] == "SELECT uid FROM users WHERE uid = 1500"
        cursor.execute("EXPLAIN ROUTE SELECT uid FROM users WHERE email = 'b@x'")
        [row] = cursor.fetchall()
        assert "BETWEEN 100 AND 199" in row[6]
        cursor.execute("EXPLAIN ROUTE SELECT MAX(age) FROM users")
        assert [row[4].endswith("between shards") for row in cursor.fetchall()] == [False, True]
    body = json.dumps({"sql": "SELECT uid FROM users", "schema": "lk", "values": []}).encode()
    url = f"http://127.0.0.1:{sides.proxy.admin_port}/api/explain"
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as told:
        shown = json.loads(told.read())
    assert shown["sql"] is None
    assert shown["sql_by_shard"] == {
        "shard1": "SELECT uid FROM users",
        "shard2": "SELECT uid FROM users WHERE ((`users`.`uid` BETWEEN 100 AND 199)) IS NOT TRUE",
    }
