"""A move under way on the servers of the differential tests: keys of which two shards have rows.

One shard owns a moving key; the other has rows of it, too, older ones, and hides them. Until the switch that is the
target of the move; afterwards it is the source.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardproxy.topology.maps import BucketMap, RangeMap
from shardproxy.topology.model import Keyspace, Snapshot
from shardproxy.topology.moves import SOURCE_HIDES, Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from tests.differential.schema import Cell, Table, base_rows

# Intervals of `rng` that move, with the shard that owns them and the one that hides its rows of them.
_INTERVALS = ((5, 100, 2, 0), (2000, 5000, 1, 2), (-100, 0, 0, 2))


def moves_of(snapshot: Snapshot, phase: Phase) -> dict[str, Move]:
    """A move of each keyspace in this phase, by its name. The snapshot's maps say who owns keys now."""
    return {name: _move(keyspace, phase) for name, keyspace in snapshot.keyspaces.items()}


def _move(keyspace: Keyspace, phase: Phase) -> Move:
    streams = []
    for keys, owner, hider in _moving(keyspace):
        source, target = (hider, owner) if phase in SOURCE_HIDES else (owner, hider)
        streams.append(Stream(source, target, keys))
    return Move(1, phase, 1, tuple(streams))


def _moving(keyspace: Keyspace) -> Iterator[tuple[MovingKeys, int, int]]:
    """Keys, the shard that owns them, and the one that hides its rows of them."""
    if isinstance(keyspace.map, RangeMap):
        for start, end, owner, hider in _INTERVALS:
            assert any(r.shard == owner and r.start <= start and end <= r.end for r in keyspace.map.ranges)
            yield MovingKeys(keyspace.key_type, [(start, end)]), owner, hider
        return
    assert isinstance(keyspace.map, BucketMap)
    for owner in range(3):
        owned = [bucket for bucket, shard in enumerate(keyspace.map.buckets) if shard == owner]
        if keyspace.name == "hsh":  # every shard gives and takes
            yield MovingKeys(keyspace.key_type, buckets=owned[::3]), owner, (owner + 1) % 3
        elif owner == 0 or keyspace.name == "bin":  # a shard gives all that it has; in `bin` to two others
            for part, hider in enumerate((1, 2) if owner == 0 and keyspace.name == "bin" else ((owner + 1) % 3,)):
                buckets = owned[part::2] if owner == 0 and keyspace.name == "bin" else owned[:700]
                yield MovingKeys(keyspace.key_type, buckets=buckets), owner, hider


def old_rows(table: Table) -> Iterator[tuple[Cell, ...]]:
    """For each base row another one with the same primary key, and values of another row in its other columns; NULL
    where these are unique without the shard key, for a hidden row would be a false duplicate."""
    rows = list(base_rows(table))
    kept = [column.name in (*table.primary, table.key) for column in table.columns]
    unique = [any(column.name in index for index in table.looked_up) for column in table.columns]
    for i, row in enumerate(rows):
        other = (None if alone else cell for alone, cell in zip(unique, rows[(i + 1) % len(rows)], strict=True))
        yield tuple(mine if keep else theirs for keep, mine, theirs in zip(kept, row, other, strict=True))
