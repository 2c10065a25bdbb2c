"""Servers, shards, tables, keyspaces, and the immutable snapshot of all of them under one epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import BucketMap, ShardMap
from shardproxy.topology.moves import Move


class Role(Enum):
    PRIMARY = "primary"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class Server:
    """One MySQL server. `name` is unique in the topology, for people: "user1/primary", "user1/replica1"."""

    name: str
    host: str
    port: int
    role: Role
    shard: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A primary and its replicas."""

    name: str
    primary: Server
    replicas: tuple[Server, ...] = ()

    @property
    def servers(self) -> tuple[Server, ...]:
        return (self.primary, *self.replicas)


class TableKind(Enum):
    SHARDED = "sharded"  # rows live where their key column says
    REFERENCE = "reference"  # every shard of the keyspace has all rows
    SINGLE = "single"  # all rows on one shard


@dataclass(frozen=True, slots=True)
class LookupIndex:
    """A unique key of a sharded table that lacks the shard key, kept over all shards (see topology.lookup).

    columns: in the file's order. ready: it has an entry for every row, so that statements may be routed by it; until
    then it is only kept up to date.
    """

    columns: tuple[str, ...]
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """How one table is spread. `key` and `lookups` for SHARDED; `shard` (index into Snapshot.shards) for SINGLE."""

    name: str
    kind: TableKind
    key: str | None = None
    shard: int | None = None
    lookups: tuple[LookupIndex, ...] = ()


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A database whose tables share one key type and one map. Its name is the database's name on every shard.

    `shards`: indexes of all shards that hold it (reference tables live on each). Table names are looked up exactly
    as MySQL on Linux does: case-sensitive. move: keys on their way; `map` says who owns them now (reads), which is the
    source until SWITCHED. first: index of the shard with the keyspace's records, see `home`. entries: where entries of
    lookup indexes are, and placement: that in short; None and "" where `map` says it (see topology.lookup).
    """

    name: str
    key_type: KeyType
    map: ShardMap
    tables: Mapping[str, Table]
    shards: tuple[int, ...]
    move: Move | None = None
    first: int | None = None
    entries: BucketMap | None = None
    placement: str = ""

    @property
    def home(self) -> int:
        """Index of the shard that keeps the keyspace's records: sequences, schema changes, states of lookup indexes.
        Moves do not change it."""
        return self.shards[0] if self.first is None else self.first


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One map of the world. A request holds one from plan to reply.

    positions: shard → positions that a replica there must have applied to be read (R8 of docs/resharding.md).
    epochs: keyspace → epoch of its own map, where the store has one; `epoch` is the newest of them, and says of a
    keyspace whose map changes nothing while another's is newer.
    """

    epoch: int
    shards: tuple[Shard, ...]
    keyspaces: Mapping[str, Keyspace]
    positions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict, compare=False)

    def shard_index(self, name: str) -> int:
        """Index of a shard by name. Raises KeyError."""
        for i, shard in enumerate(self.shards):
            if shard.name == name:
                return i
        raise KeyError(name)
