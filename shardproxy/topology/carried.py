"""What goes with the keys of a move: entries of lookup indexes, and reference tables onto a shard that joins.

Entries name shard keys, so a move need not touch them. Where the map is by hash they go with the buckets of the same
number, so that each shard has its share; a shard that gives all its keys away gives all its entries away too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardproxy.topology.goals import Change
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.lookup import homes, placement
from shardproxy.topology.map_document import Lookups
from shardproxy.topology.map_form import HashForm
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.model import Keyspace, Snapshot
from shardproxy.topology.moves import Stream
from shardproxy.topology.moving import MovingKeys


def has_lookups(keyspace: Keyspace) -> bool:
    """Whether a table of it has a lookup index."""
    return any(table.lookups for table in keyspace.tables.values())


def carried(keyspace: Keyspace, change: Change) -> Change:
    """The change with all that its streams carry beside rows of their keys. keyspace: before it."""
    joining = set(change.members) - set(keyspace.shards)
    streams: list[Stream] = []
    for stream in change.streams:
        first = stream.target in joining
        joining.discard(stream.target)
        streams.append(replace(stream, references=first))
    if has_lookups(keyspace):
        streams = _with_entries(homes(keyspace), streams, change)
    return replace(change, streams=tuple(streams))


def _with_entries(owners: BucketMap, streams: Sequence[Stream], change: Change) -> list[Stream]:
    going: list[set[int]] = [
        {bucket for bucket in _whole_buckets(stream, change) if owners.buckets[bucket] == stream.source}
        for stream in streams
    ]
    taken = set().union(*going)
    staying = set(change.after.all_shards)
    for bucket in range(BUCKETS):
        owner = owners.buckets[bucket]
        ways = [place for place, stream in enumerate(streams) if stream.source == owner]
        if owner not in staying and bucket not in taken and ways:
            going[ways[bucket % len(ways)]].add(bucket)
    return [
        replace(stream, entries=MovingKeys(KeyType.BINARY, buckets=buckets) if buckets else None)
        for stream, buckets in zip(streams, going, strict=True)
    ]


def _whole_buckets(stream: Stream, change: Change) -> set[int]:
    """Buckets that are the target's afterwards: of a map that becomes one of ranges none is."""
    if not isinstance(change.after, BucketMap):
        return set()
    return {bucket for bucket in stream.keys.buckets or () if change.after.buckets[bucket] == stream.target}


def entries_left(keyspace: Keyspace, change: Change) -> tuple[int, ...]:
    """Shards that leave the keyspace and have entries that no stream of the change carries."""
    if not has_lookups(keyspace):
        return ()
    carried_away = set().union(*(stream.entries.buckets or () for stream in change.streams if stream.entries))
    left = {owner for bucket, owner in enumerate(homes(keyspace).buckets) if bucket not in carried_away}
    return tuple(sorted(left - set(change.members)))


def next_home(keyspace: Keyspace, change: Change) -> int | None:
    """The shard that gets the keyspace's records when its home leaves: one that gets keys of it, rather one that is not
    new. None when the home stays, or gives no keys away with which they could go."""
    if keyspace.home in change.members:
        return None
    takers = [stream.target for stream in change.streams if stream.source == keyspace.home]
    return min(takers, key=lambda shard: (shard not in keyspace.shards, shard), default=None)


def written_down(snapshot: Snapshot, keyspace: Keyspace) -> Lookups | None:
    """Where entries are before a move; None for a keyspace without lookup indexes."""
    if not has_lookups(keyspace):
        return None
    names = [snapshot.shards[shard].name for shard in homes(keyspace).buckets]
    return Lookups(placement=placement(snapshot, keyspace), owners=HashForm.of(names))
