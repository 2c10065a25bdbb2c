"""Lookup indexes: from the value of a unique key to the shard key of the row that has it.

An index has one *entry* for each row whose columns are not NULL, in `_shardproxy.lookup`, on the shard that the value
hashes to. So one shard judges whether a value is taken, and one shard is asked where a value's row lives.

Entries name shard keys, so they stay as they are when rows move. Where they are follows from the map at first; the
first move of a keyspace with lookup indexes writes it down (`Keyspace.entries`), and from then on only moves that carry
entries change it.

A value is kept in a form in which equal bytes are what the columns' own collations call equal: the weights that a
server gives for a text (WEIGHT_STRING), the digits of an integer, the bytes of a binary string.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from zlib import crc32

from shardproxy.topology.keys import BUCKETS, bucket_of
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.model import Keyspace, Snapshot

LONGEST = 700  # bytes of a value that are kept as they are


def columns_of(entry: str) -> tuple[str, ...]:
    """The columns of an entry of the file's `lookups`: "email", or "tenant, name"."""
    return tuple(part.strip() for part in entry.split(","))


def index_name(table: str, columns: Sequence[str]) -> str:
    """The index's name in the bookkeeping tables, and for people: "users(email)"."""
    return f"{table}({','.join(columns)})"


def blank_stripped(weights: bytes, blank: bytes) -> bytes:
    """The weights of a text without those of the blanks at its end, `blank` each: a collation that pads compares so."""
    end, unit = len(weights), len(blank)
    if unit and end % unit == 0:
        while end and weights[end - unit : end] == blank:
            end -= unit
    return weights[:end]


def entry_value(parts: Sequence[bytes]) -> bytes:
    """The value of an entry, from those of its columns in order. Long ones are kept as a hash with their beginning."""
    if len(parts) == 1:
        value = parts[0]
    else:
        value = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    if len(value) <= LONGEST:
        return value
    return value[: LONGEST - 32] + sha256(value).digest()


def home(keyspace: Keyspace, value: bytes) -> int:
    """Index of the shard that has the entry of this value."""
    if keyspace.entries is not None:
        return keyspace.entries.lookup(value)
    if isinstance(keyspace.map, BucketMap):
        return keyspace.map.lookup(value)
    shards = keyspace.map.all_shards
    return shards[bucket_of(value) % len(shards)]


def homes(keyspace: Keyspace) -> BucketMap:
    """What `home` goes by, as a map of buckets of values."""
    if keyspace.entries is not None:
        return keyspace.entries
    if isinstance(keyspace.map, BucketMap):
        return keyspace.map
    shards = keyspace.map.all_shards
    return BucketMap([shards[bucket % len(shards)] for bucket in range(BUCKETS)])


def same_homes(one: Keyspace, other: Keyspace) -> bool:
    """Whether every value has its entry on the same shard."""
    return (one.map == other.map and one.entries == other.entries) or homes(one) == homes(other)


def placement(snapshot: Snapshot, keyspace: Keyspace) -> str:
    """What `home` goes by, in short: it differs between maps that have entries at different places. Moves that carry
    entries leave it as it is."""
    if keyspace.placement:
        return keyspace.placement
    if isinstance(keyspace.map, BucketMap):
        names = [snapshot.shards[shard].name for shard in keyspace.map.buckets]
        return f"hash:{crc32(' '.join(names).encode()):08x}"
    names = [snapshot.shards[shard].name for shard in keyspace.map.all_shards]
    return f"range:{crc32(' '.join(names).encode()):08x}"
