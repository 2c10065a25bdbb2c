"""admin.show.topology: both kinds of map."""

from __future__ import annotations

import json

from shardproxy.admin.show.topology import topology_json
from shardproxy.config import parse
from shardproxy.topology.build import build_snapshot

CONFIG = {
    "backend": {"user": "proxy", "password": "hunter2"},
    "users": {"app": {"password": "hunter2"}},
    "shards": {"a": {"primary": "10.0.0.1:3306", "replicas": ["10.0.0.2:3306"]}, "b": {"primary": "10.0.0.3:3307"}},
    "keyspaces": {
        "shop": {
            "key_type": "int",
            "map": "range",
            "ranges": [
                {"from": 100, "to": "max", "shard": "b"},
                {"from": "min", "to": 100, "shard": "a"},
            ],
            "tables": {"users": {"key": "uid"}, "countries": {"reference": True}, "settings": {"single": "a"}},
        },
        "logs": {"key_type": "text", "map": "hash", "ring": {"a": 1, "b": 3}, "tables": {}},
    },
}


def test_topology() -> None:
    shown = topology_json(build_snapshot(parse(CONFIG), 5))
    assert shown["epoch"] == 5
    assert shown["shards"] == [
        {"name": "a", "primary": "10.0.0.1:3306", "replicas": ["10.0.0.2:3306"]},
        {"name": "b", "primary": "10.0.0.3:3307", "replicas": []},
    ]
    logs, shop = shown["keyspaces"]
    assert shop == {
        "name": "shop",
        "key_type": "int",
        "home": "a",
        "map": "range",
        "ranges": [{"from": "min", "to": 100, "shard": "a"}, {"from": 100, "to": "max", "shard": "b"}],
        "tables": [
            {"name": "countries", "kind": "reference"},
            {"name": "settings", "kind": "single", "shard": "a"},
            {"name": "users", "kind": "sharded", "key": "uid"},
        ],
    }
    assert (logs["name"], logs["key_type"], logs["map"], logs["buckets"]) == ("logs", "text", "hash", 4096)
    a, b = logs["shares"]
    assert (a["shard"], b["shard"]) == ("a", "b")
    assert a["buckets"] + b["buckets"] == 4096
    assert 0.65 < b["share"] < 0.85
    assert "hunter2" not in json.dumps(shown)
