"""From the file to the snapshot."""

from __future__ import annotations

import pickle
from typing import Any

from shardproxy.config import parse
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.keys import KeyType, bucket_of
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap
from shardproxy.topology.model import Role, Server, TableKind


def config_data() -> dict[str, Any]:
    return {
        "backend": {"user": "proxy", "password": "x"},
        "users": {"app": {"password": "x"}},
        "shards": {
            "z": {"primary": "10.0.0.1:3306", "replicas": ["10.0.0.2:3306", "10.0.0.3:3307"]},
            "a": {"primary": "10.0.1.1:3306"},
            "lone": {"primary": "10.0.2.1:3306"},
        },
        "keyspaces": {
            "ranged": {
                "key_type": "int",
                "map": "range",
                "ranges": [
                    {"from": 100, "to": "max", "shard": "a"},
                    {"from": "min", "to": 100, "shard": "z"},
                ],
                "tables": {
                    "users": {"key": "uid"},
                    "countries": {"reference": True},
                    "settings": {"single": "lone"},
                },
            },
            "hashed": {"key_type": "text", "map": "hash", "ring": {"a": 1, "z": 3}},
        },
    }


def test_servers_are_named_after_shard_and_role() -> None:
    snapshot = build_snapshot(parse(config_data()), epoch=7)
    assert snapshot.epoch == 7
    assert [s.name for s in snapshot.shards] == ["z", "a", "lone"]
    assert snapshot.shards[0].servers == (
        Server("z/primary", "10.0.0.1", 3306, Role.PRIMARY, "z"),
        Server("z/replica1", "10.0.0.2", 3306, Role.REPLICA, "z"),
        Server("z/replica2", "10.0.0.3", 3307, Role.REPLICA, "z"),
    )


def test_a_range_map_covers_every_integer_with_min_and_max() -> None:
    keyspace = build_snapshot(parse(config_data())).keyspaces["ranged"]
    assert keyspace.map == RangeMap([KeyRange(INT_MIN, 100, 0), KeyRange(100, INT_MAX + 1, 1)])
    assert keyspace.map.lookup(INT_MIN) == 0
    assert keyspace.map.lookup(99) == 0
    assert keyspace.map.lookup(100) == 1
    assert keyspace.map.lookup(INT_MAX) == 1


def test_tables_and_shards_of_a_keyspace() -> None:
    keyspace = build_snapshot(parse(config_data())).keyspaces["ranged"]
    users, countries, settings = (keyspace.tables[n] for n in ("users", "countries", "settings"))
    assert (users.kind, users.key) == (TableKind.SHARDED, "uid")
    assert countries.kind is TableKind.REFERENCE
    assert (settings.kind, settings.shard) == (TableKind.SINGLE, 2)
    assert keyspace.shards == (0, 1, 2), "the single table's shard holds the database too"
    assert keyspace.key_type is KeyType.INT


def test_a_hash_map_follows_the_weights() -> None:
    keyspace = build_snapshot(parse(config_data())).keyspaces["hashed"]
    assert isinstance(keyspace.map, BucketMap)
    assert keyspace.shards == (0, 1)
    share = keyspace.map.buckets.count(0) / 4096
    assert 0.70 < share < 0.80, "weight 3 of 4"
    assert keyspace.map.lookup(b"zoe") == keyspace.map.buckets[bucket_of(b"zoe")]


def test_a_snapshot_travels_between_processes_and_is_the_same_each_time() -> None:
    one, two = (build_snapshot(parse(config_data())) for _ in range(2))
    copied = pickle.loads(pickle.dumps(one))
    for name in ("ranged", "hashed"):
        assert one.keyspaces[name].map == two.keyspaces[name].map == copied.keyspaces[name].map
    assert copied.shards == one.shards
