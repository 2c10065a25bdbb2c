"""States of lookup indexes: what fills, verifies and repairs them, and who makes them building again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster
from tests.integration.lookup_sides import (
    FAR,
    KEYSPACES,
    ROWS,
    USERS,
    answer,
    emptied,
    is_ready,
    lookup_proxy,
    shardctl,
    shards_of,
    verified,
)
from tests.proxy import ProxyUnderTest, eventually, start_proxy


@pytest.fixture(scope="module")
def running(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    with lookup_proxy(cluster) as made:
        yield made


@pytest.fixture
def proxy(running: ProxyUnderTest) -> ProxyUnderTest:
    return emptied(running)


def test_a_proxy_without_the_index_makes_it_building(proxy: ProxyUnderTest) -> None:
    """It would change rows without their entries, so nobody may be led by these any more."""
    assert is_ready(proxy, "code")
    other = start_proxy(
        proxy.cluster, "without", keyspaces=KEYSPACES.replace(', lookups = ["code"]', ""), users=USERS,
        proxy={"drain_timeout": "100ms"},
    )  # fmt: skip
    try:
        assert not is_ready(proxy, "code")
        assert is_ready(proxy, "email")
        with proxy.connect(database="lk") as client, client.cursor() as cursor:
            eventually(lambda: shards_of(cursor, "SELECT * FROM plain WHERE code = 1") == 2, "no row is looked up")
    finally:
        other.process.stop()


def test_a_look_that_found_no_home_is_made_again(proxy: ProxyUnderTest) -> None:
    """The index's state was not told while its shard was away: plans go by it again soon after that is back."""
    home, other = proxy.primary(0), proxy.primary(1)
    with proxy.connect(database="lk") as client, client.cursor() as cursor:
        codes = [f"({FAR + n}, 1, {n})" for n in range(20)]
        cursor.execute(f"INSERT INTO plain VALUES {', '.join(codes)}")
        [(code,), *_] = other.rows("SELECT code FROM lk.plain JOIN _shardproxy.lookup ON shard_key = uid")
        sql = f"SELECT * FROM plain WHERE code = {code}"  # row and entry are on the other shard
        home.kill()
        try:
            assert shards_of(cursor, sql) == 1
            other.rows("CREATE TABLE lk.news (id INT PRIMARY KEY)")
            eventually(lambda: shards_of(cursor, sql) == 2, "no row is looked up")
        finally:
            home.start()
        try:
            eventually(lambda: shards_of(cursor, sql) == 1, "rows are looked up again")
        finally:
            other.rows("DROP TABLE lk.news")


def test_backfill_of_rows_that_were_there_before(proxy: ProxyUnderTest) -> None:
    for i, shard in enumerate(proxy.cluster.shards):
        rows = ", ".join(f"({FAR * i + n}, 1, {FAR * i + n})" for n in range(250))
        shard.primary.rows(f"INSERT INTO lk.plain VALUES {rows}")
    lacking = json.loads(shardctl(proxy, "lookup", "verify", "lk.plain", "code", "--json").stdout)
    assert (lacking["missing"], lacking["orphans"], lacking["left"]) == (500, 0, 500)
    filled = json.loads(shardctl(proxy, "lookup", "backfill", "plain", "code", "--batch", "30", "--json").stdout)
    assert filled["rows"] == 500
    assert filled["ready"]
    verified(proxy)
    with proxy.connect(database="lk") as client:
        assert answer(client, f"INSERT INTO plain VALUES (5, 5, {FAR + 7})")[0] == 1062
        assert answer(client, f"SELECT uid FROM plain WHERE code = {FAR + 7}")[3] == [f"({FAR + 7},)"]


def test_backfill_names_values_that_are_not_unique(proxy: ProxyUnderTest) -> None:
    for i, shard in enumerate(proxy.cluster.shards):
        shard.primary.rows(f"INSERT INTO lk.plain VALUES ({FAR * i + 1}, 1, 5), ({FAR * i + 2}, 1, {6 + i})")
    filled = shardctl(proxy, "lookup", "backfill", "plain", "code", "--json")
    assert filled.returncode == 1
    assert len(json.loads(filled.stdout)["conflicts"]) == 1
    assert not is_ready(proxy, "code")
    proxy.primary(1).rows(f"DELETE FROM lk.plain WHERE uid = {FAR + 1}")
    assert shardctl(proxy, "lookup", "backfill", "plain", "code").returncode == 0
    verified(proxy)


def test_repair_both_ways(proxy: ProxyUnderTest) -> None:
    with proxy.connect(database="lk") as client:
        answer(client, ROWS)
    proxy.primary(0).rows("DELETE FROM lk.users WHERE uid = 1")
    for shard in proxy.cluster.shards:
        shard.primary.rows("DELETE FROM _shardproxy.lookup WHERE shard_key = '3'")
        shard.primary.rows(
            "INSERT INTO _shardproxy.lookup (keyspace, index_name, value, shard_key) "
            "VALUES ('lk', 'users(email)', 'no such weight', '1')"
        )
    shown = json.loads(shardctl(proxy, "lookup", "verify", "users", "email", "--json").stdout)
    assert (shown["missing"], shown["orphans"]) == (1, 3)
    repaired = shardctl(proxy, "lookup", "verify", "users", "email", "--repair", "--json")
    assert (repaired.returncode, json.loads(repaired.stdout)["left"]) == (0, 0)
    assert shardctl(proxy, "lookup", "verify", "users", "tenant,nick", "--repair").returncode == 0
    verified(proxy)


def test_check_knows_the_state(proxy: ProxyUnderTest) -> None:
    assert "is not filled" not in shardctl(proxy, "check").stdout
    proxy.primary(0).rows("UPDATE _shardproxy.lookup_index SET state = 'building' WHERE index_name = 'plain(code)'")
    assert "shardctl lookup backfill lk.plain code" in shardctl(proxy, "check").stdout.replace("\n", " ")
