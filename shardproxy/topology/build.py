"""From the operator's file to the snapshot that requests are routed by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from shardproxy.config import Config, KeyspaceSettings, ShardSettings, TableSettings
from shardproxy.topology.keys import KeyType
from shardproxy.topology.lookup import columns_of, index_name, placement
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, ShardMap
from shardproxy.topology.model import Keyspace, LookupIndex, Role, Server, Shard, Snapshot, Table, TableKind
from shardproxy.topology.ring import place_buckets


def build_snapshot(config: Config, epoch: int = 1) -> Snapshot:
    """The snapshot that the file describes.

    Shards keep the file's order (their index is their place there). Servers are named "shard/primary" and
    "shard/replica1" and so on. The file has been checked, so nothing is raised.
    """
    shards = tuple(_shard(name, settings) for name, settings in config.shards.items())
    order = {shard.name: i for i, shard in enumerate(shards)}
    keyspaces = {name: _keyspace(name, settings, order) for name, settings in config.keyspaces.items()}
    return Snapshot(epoch=epoch, shards=shards, keyspaces=keyspaces)


def with_tables(snapshot: Snapshot, tables: Iterable[tuple[str, Table]]) -> tuple[Snapshot, list[str]]:
    """The file's snapshot with more tables, (keyspace, table) each; the names that the file has already, in another
    way: the file wins."""
    added: dict[str, dict[str, Table]] = {name: dict(k.tables) for name, k in snapshot.keyspaces.items()}
    shadowed = []
    for keyspace, table in tables:
        known = added.get(keyspace)
        if known is None:
            continue
        if known.setdefault(table.name, table) != table:
            shadowed.append(f"{keyspace}.{table.name}")
    keyspaces = {name: replace(k, tables=added[name]) for name, k in snapshot.keyspaces.items()}
    return replace(snapshot, keyspaces=keyspaces), shadowed


def with_ready(snapshot: Snapshot, states: Mapping[tuple[str, str], tuple[str, str]]) -> Snapshot:
    """The snapshot with its lookup indexes marked as ready, where they are.

    states: (keyspace, index name) → (state, placement) as they are recorded. An index that was filled for another map
    is not ready: its entries are where that map wanted them.
    """
    keyspaces = {}
    for name, keyspace in snapshot.keyspaces.items():
        here = ("ready", placement(snapshot, keyspace))
        tables = dict(keyspace.tables)
        for table in keyspace.tables.values():
            if table.lookups:
                lookups = tuple(
                    replace(index, ready=states.get((name, index_name(table.name, index.columns))) == here)
                    for index in table.lookups
                )
                tables[table.name] = replace(table, lookups=lookups)
        keyspaces[name] = replace(keyspace, tables=tables)
    return replace(snapshot, keyspaces=keyspaces)


def _shard(name: str, settings: ShardSettings) -> Shard:
    primary = Server(f"{name}/primary", settings.primary.host, settings.primary.port, Role.PRIMARY, name)
    replicas = (
        Server(f"{name}/replica{i}", address.host, address.port, Role.REPLICA, name)
        for i, address in enumerate(settings.replicas, 1)
    )
    return Shard(name, primary, tuple(replicas))


def _keyspace(name: str, settings: KeyspaceSettings, order: Mapping[str, int]) -> Keyspace:
    return Keyspace(
        name=name,
        key_type=KeyType(settings.key_type),
        map=_map(settings, order),
        tables={table: _table(table, t, order) for table, t in settings.tables.items()},
        shards=tuple(sorted(order[shard] for shard in settings.shard_names)),
    )


def _map(settings: KeyspaceSettings, order: Mapping[str, int]) -> ShardMap:
    if settings.map == "hash":
        return BucketMap(place_buckets(settings.ring, order))
    return RangeMap(
        [
            KeyRange(
                start=INT_MIN if r.start is None else r.start,
                end=INT_MAX + 1 if r.end is None else r.end,
                shard=order[r.shard],
            )
            for r in settings.ranges
        ]
    )


def _table(name: str, settings: TableSettings, order: Mapping[str, int]) -> Table:
    if settings.key is not None:
        lookups = tuple(LookupIndex(columns_of(entry)) for entry in settings.lookups)
        return Table(name, TableKind.SHARDED, key=settings.key, lookups=lookups)
    if settings.single is not None:
        return Table(name, TableKind.SINGLE, shard=order[settings.single])
    return Table(name, TableKind.REFERENCE)
