"""`shardctl rebalance plan --by-load`, by what a real proxy has measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest
from typer.testing import CliRunner

from shardproxy.cli.main import app
from shardproxy.local import LocalCluster
from shardproxy.topology.keys import bucket_of
from shardproxy.topology.ring import place_buckets
from tests.integration.test_rebalance_plan import empty, fill, hashed, ranged, run
from tests.proxy import ProxyUnderTest, eventually, start_proxy

__all__ = ["empty"]
FIRST_HOT = 2900  # of users 1000 to 2999 on the second shard


@dataclass
class Measuring:
    proxy: ProxyUnderTest
    path: Path
    ranges: str
    buckets: str


@pytest.fixture
def measuring(cluster: LocalCluster, empty: str) -> Iterator[Measuring]:
    """A proxy with a keyspace of ranges, and one with a hash map of the same tables."""
    other = f"{empty}_hash"
    owners = place_buckets({"shard1": 1, "shard2": 1}, {"shard1": 0, "shard2": 1})
    for i, shard in enumerate(cluster.shards):
        shard.primary.rows(f"CREATE DATABASE {other}")
        shard.primary.rows(f"CREATE TABLE {other}.users LIKE {empty}.users")
        shard.primary.rows(f"CREATE TABLE {other}.orders LIKE {empty}.orders")
        fill(shard.primary, empty, list(range(1000) if i == 0 else range(1000, 3000)))
        fill(shard.primary, other, [key for key in range(1000) if owners[bucket_of(key)] == i])
    text = ranged(empty) + hashed(other, "{ shard1 = 1, shard2 = 1 }")
    users = {"app": {"password": "secret", "keyspaces": [empty, other]}}
    proxy = start_proxy(cluster, f"load-{empty}", keyspaces=text, users=users)
    try:
        yield Measuring(proxy, cluster.folder / f"load-{empty}.toml", empty, other)
    finally:
        proxy.process.stop()
        for shard in cluster.shards:
            shard.primary.rows(f"DROP DATABASE {other}")


def traffic(client: pymysql.Connection, keys: list[int]) -> None:
    """A read and a write of each user, the write in a transaction."""
    with client.cursor() as cursor:
        for key in keys:
            cursor.execute("SELECT name FROM users WHERE uid = %s", (key,))
            cursor.execute("BEGIN")
            cursor.execute("UPDATE users SET name = 'y' WHERE uid = %s", (key,))
            cursor.execute("COMMIT")


def test_measured_load_says_what_moves(measuring: Measuring) -> None:
    path, owners = measuring.path, place_buckets({"shard1": 1, "shard2": 1}, {"shard1": 0, "shard2": 1})
    refused = CliRunner().invoke(app, ["rebalance", "plan", measuring.ranges, "--config", str(path), "--by-load"])
    assert refused.exit_code == 2 and "no proxy has stored" in refused.stderr
    hot = [key for key in range(1000) if owners[bucket_of(key)] == 1][:50]  # of the second shard
    with measuring.proxy.connect(user="app", password="secret", database=measuring.ranges) as client:
        with client.cursor() as cursor:  # of two, one might be stored a minute before the other
            cursor.execute("SELECT name FROM users WHERE uid = 1500")

        def few() -> bool:
            shown = CliRunner().invoke(app, ["rebalance", "plan", measuring.ranges, "--config", str(path), "--by-load"])
            return "only 1 statements of this keyspace were sampled, and fewer than 1000" in shown.stderr

        eventually(few, "the first load is stored", 30.0)
        for _ in range(30):
            traffic(client, list(range(FIRST_HOT, 3000)))
            traffic(client, [5, 1500])
            client.select_db(measuring.buckets)
            traffic(client, [*hot, *hot])
            client.select_db(measuring.ranges)
            if measuring.proxy.metric("shardproxy_load_samples_total") >= 2600:
                break

    def measured(keyspace: str) -> bool:
        shown = CliRunner().invoke(app, ["rebalance", "plan", keyspace, "--config", str(path), "--by-load"])
        return shown.exit_code == 0

    eventually(lambda: measured(measuring.ranges) and measured(measuring.buckets), "enough is stored", 30.0)

    _, answer = run(path, measuring.ranges, "--by-load")
    [stream] = answer["streams"]
    assert (stream["source"], stream["target"]) == ("shard2", "shard1")
    [[low, high]] = stream["keys"]["intervals"]
    assert high == "max" and FIRST_HOT + 30 <= low <= FIRST_HOT + 70, "half of the hot users, and no cold one"
    load = answer["load"]
    assert load["samples"] >= 1000 and load["proxies"] == 1 and load["statements"] >= load["samples"]
    assert load["writes"] == pytest.approx(load["statements"] / 2, rel=0.2)
    assert load["shares"]["shard2"]["before"] > 0.95
    assert load["shares"]["shard2"]["after"] == pytest.approx(0.5, abs=0.05)
    assert load["indivisible"] is None

    _, answer = run(path, measuring.buckets, "--by-load")
    [stream] = answer["streams"]
    assert (stream["source"], stream["target"]) == ("shard2", "shard1")
    assert set(stream["keys"]["buckets"]) <= {bucket_of(key) for key in hot} and len(stream["keys"]["buckets"]) >= 15
    assert answer["load"]["shares"]["shard1"] == {"before": 0.0, "after": pytest.approx(0.5, abs=0.05)}
    shown = CliRunner().invoke(app, ["rebalance", "plan", measuring.buckets, "--config", str(path), "--by-load"])
    assert "measured load" in shown.stdout and "by 1 proxy" in shown.stdout, shown.output
    assert measuring.proxy.metric("shardproxy_load_samples_total") >= 2000
