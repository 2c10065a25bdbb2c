"""`shardctl topology`: the map that routes now.

{"epoch": 3,
 "shards": [{"name": "a", "primary": "10.0.0.1:3306", "replicas": ["10.0.0.2:3306"]}],
 "keyspaces": [{"name": "shop", "key_type": "int", "home": "a", "map": "range",
                "ranges": [{"from": "min", "to": 1000000, "shard": "a"}],
                "tables": [{"name": "users", "kind": "sharded", "key": "uid"}]},
               {"name": "logs", "key_type": "text", "home": "a", "map": "hash",
                "buckets": 4096, "shares": [{"shard": "a", "buckets": 2048, "share": 0.5}],
                "tables": [{"name": "settings", "kind": "single", "shard": "a"}]}]}

home: the shard with the keyspace's sequences and records. A keyspace whose keys move has "move" too:
{"id": 1, "phase": "copying", "streams": [{"source": "a", "target": "b"}]}. A proxy with a Redis port has "redis" beside
"keyspaces": see show.redis_map.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, RangeMap
from shardproxy.topology.model import Keyspace, Shard, Snapshot, Table


def topology_json(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as in the module's docstring; keyspaces and tables by name, shards and ranges in their own order."""
    names = [shard.name for shard in snapshot.shards]
    return {
        "epoch": snapshot.epoch,
        "shards": [_shard(shard) for shard in snapshot.shards],
        "keyspaces": [_keyspace(k, names) for _, k in sorted(snapshot.keyspaces.items())],
    }


def _shard(shard: Shard) -> dict[str, Any]:
    primary, replicas = shard.primary, shard.replicas
    return {
        "name": shard.name,
        "primary": f"{primary.host}:{primary.port}",
        "replicas": [f"{r.host}:{r.port}" for r in replicas],
    }


def _keyspace(keyspace: Keyspace, names: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": keyspace.name, "key_type": keyspace.key_type.value, "home": names[keyspace.home]}
    if isinstance(keyspace.map, RangeMap):
        shown |= {"map": "range", "ranges": _ranges(keyspace.map, names)}
    else:
        shown |= {"map": "hash", "buckets": BUCKETS, "shares": _shares(keyspace.map, names)}
    if keyspace.move is not None:
        move = keyspace.move
        streams = [{"source": names[stream.source], "target": names[stream.target]} for stream in move.streams]
        shown["move"] = {"id": move.ident, "phase": move.phase.value, "streams": streams}
    return {**shown, "tables": [_table(t, names) for _, t in sorted(keyspace.tables.items())]}


def _ranges(ranges: RangeMap, names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "from": "min" if r.start == INT_MIN else r.start,
            # A range is half-open, so the one that holds the largest key ends one above it.
            "to": "max" if r.end > INT_MAX else r.end,
            "shard": names[r.shard],
        }
        for r in ranges.ranges
    ]


def _shares(buckets: BucketMap, names: list[str]) -> list[dict[str, Any]]:
    counts = Counter(buckets.buckets)
    return [
        {"shard": names[shard], "buckets": counts[shard], "share": counts[shard] / BUCKETS}
        for shard in buckets.all_shards
    ]


def _table(table: Table, names: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": table.name, "kind": table.kind.value}
    if table.key is not None:
        shown["key"] = table.key
    if table.shard is not None:
        shown["shard"] = names[table.shard]
    return shown
