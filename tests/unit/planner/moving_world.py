"""The world of world.py while rows are on their way in its keyspaces."""

from __future__ import annotations

from dataclasses import replace

from shardproxy.planner.context import PlanContext
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.model import Keyspace
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from tests.unit.planner.world import SNAPSHOT, context

SOURCE, TARGET = 0, 1  # shard a gives keys to shard b


def moving_keys(keyspace: Keyspace) -> MovingKeys:
    """Keys of shard a: an interval, or three runs of buckets."""
    if not isinstance(keyspace.map, BucketMap):
        return MovingKeys(keyspace.key_type, [(100, 200)])
    owned = [bucket for bucket, shard in enumerate(keyspace.map.buckets) if shard == SOURCE]
    return MovingKeys(keyspace.key_type, buckets=owned[:3])


def moving_context(schema: str | None = "shop", mariadb: bool = False, phase: Phase = Phase.COPYING) -> PlanContext:
    """Keyspaces that have both shards are moving; `lone` is not."""
    keyspaces = {}
    for name, keyspace in SNAPSHOT.keyspaces.items():
        if {SOURCE, TARGET} <= set(keyspace.shards):
            move = Move(1, phase, 1, (Stream(SOURCE, TARGET, moving_keys(keyspace)),))
            keyspace = replace(keyspace, move=move)
        keyspaces[name] = keyspace
    return replace(context(schema, mariadb=mariadb), snapshot=replace(SNAPSHOT, keyspaces=keyspaces))
