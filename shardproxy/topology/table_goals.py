"""Goals of one table: it gets a key, or another one, and its rows go to where the keyspace's map says by that."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.errors import GoalError
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.model import Keyspace, Snapshot, Table
from shardproxy.topology.moves import Stream
from shardproxy.topology.streams import all_on, closed, streams_from_one, streams_of_all


@dataclass(frozen=True, slots=True)
class ShardTable:
    """A table that is on a single shard gets its rows where the keyspace's map says, by its column `key`."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """A sharded table gets its rows where the keyspace's map says by another column."""

    name: str
    key: str


def sharded(snapshot: Snapshot, keyspace: Keyspace, table: Table, goal: ShardTable) -> tuple[Stream, ...]:
    """The streams of a single table that gets a key. Raises GoalError."""
    if table.shard is None:
        what = f"sharded by {table.key} already" if table.key else "a reference table: each shard has all its rows"
        raise GoalError(f"table {goal.name} is {what}; --shard-table takes one that is on a single shard")
    home = snapshot.shards[table.shard].name
    if table.shard not in keyspace.map.all_shards:
        raise GoalError(f"shard {home}, where {goal.name} is, owns no keys of this keyspace: give it some first")
    missing = closed(all_on(table.shard, keyspace.map), keyspace.map)
    if missing:
        keys = interval_text(missing[0])
        raise GoalError(f"keys {keys} have no shard, and {goal.name} may have rows of them: give them one first")
    streams = streams_from_one(table.shard, keyspace.map, keyspace.key_type)
    if not streams:
        raise GoalError(f"all keys are on {home}, as {goal.name} is: write its key into the file, and nothing moves")
    return streams


def rekeyed(keyspace: Keyspace, table: Table, goal: ChangeKey) -> tuple[Stream, ...]:
    """The streams of a sharded table that gets another key. Raises GoalError."""
    if table.key is None:
        raise GoalError(f"table {goal.name} has no key that could change; a single table gets one by --shard-table")
    if table.key.lower() == goal.key.lower():
        raise GoalError(f"table {goal.name} is sharded by {table.key} already")
    if table.lookups:
        raise GoalError(
            f"table {goal.name} has lookup indexes, whose entries say the key of a row: take them out first"
        )
    missing = closed(all_on(keyspace.map.all_shards[0], keyspace.map), keyspace.map)
    if missing:
        keys = interval_text(missing[0])
        raise GoalError(f"keys {keys} have no shard, and {goal.name}.{goal.key} may have them: give them one first")
    streams = streams_of_all(keyspace.map, keyspace.key_type)
    if not streams:
        raise GoalError(f"all keys are on one shard: write the key of {goal.name} into the file, and nothing moves")
    return streams


def interval_text(keys: tuple[int, int]) -> str:
    """Half-open, for people."""
    start, end = keys
    return f"{'min' if start == INT_MIN else start} to {'max' if end > INT_MAX else end}"
