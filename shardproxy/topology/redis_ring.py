"""From a Redis key to its node: by buckets, as rows are placed, or by ketama, as twemproxy places keys: by arcs.

Every key passes through here. The modules of the hot path, of which this is one, are compiled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from zlib import crc32

from mypy_extensions import i64

from shardproxy.topology.redis_routing import Routing
from shardproxy.topology.ring import place_buckets


def hash_tag(key: bytes) -> bytes:
    """What of a key decides its place: the text in its first {…}, or all of it when there is none or it is empty."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            return key[begin + 1 : end]
    return key


class RedisRing:
    """owners: of each of the buckets the place of its node. example: of a tag, for messages."""

    def __init__(self, owners: Sequence[int]) -> None:
        self.example = b"{tag}"
        self.owners: list[int] = list(owners)
        self.single = len(set(owners)) == 1  # one node has all keys

    def node_of(self, key: bytes) -> int:
        """The place of the node that has a key."""
        begin = key.find(b"{")
        if begin >= 0:
            end = key.find(b"}", begin + 1)
            if end > begin + 1:
                key = key[begin + 1 : end]
        # As topology.keys.bucket_of, without a call.
        return self.owners[crc32(b"%d" % crc32(key)) & 4095]

    def unit_of(self, key: bytes) -> int:
        """The number in `owners` of what has a key, and moves as a whole: its bucket."""
        return crc32(b"%d" % crc32(hash_tag(key))) & 4095

    def tag_of(self, key: bytes) -> bytes:
        """What of a key decides its place; all of it when it has no tag."""
        return hash_tag(key)

    def waits(self, key: bytes) -> bool:
        """Whether a key is on its way to another node, and commands on it have to wait."""
        return False

    def any_moves(self, keys: Iterable[bytes]) -> bool:
        """Whether some key, or channel, is of those that go to another node now."""
        return False

    def home_of(self, channel: bytes) -> int:
        """The place of the node that has a channel: as of a key, but nothing has to be brought there."""
        return self.node_of(channel)

    def without(self, away: frozenset[int], weights: Mapping[str, int]) -> RedisRing:
        """The ring on which keys of nodes that are away are on others; all other keys stay where they are. weights: of
        all nodes, as for `ring_of`. When all are away it is this ring."""
        order = {name: place for place, name in enumerate(weights)}
        rest = {name: weight for name, weight in weights.items() if order[name] not in away}
        if not rest or not away:
            return self
        spare = place_buckets(rest, order)
        return RedisRing([spare[i] if self.owners[i] in away else self.owners[i] for i in range(len(spare))])


class MovingRing(RedisRing):
    """A ring of which some units move: buckets, or arcs. Keys in them are at the place `nowhere`, which is no node's,
    until they are known to be at their target: then they are in `here`."""

    def __init__(self, ring: RedisRing, waiting: Collection[int], target: int, nowhere: int) -> None:
        super().__init__([nowhere if n in waiting else owner for n, owner in enumerate(ring.owners)])
        self.single = False
        self.example = ring.example
        self.here: set[bytes] = set()
        self._ring = ring
        self._target = target
        self._nowhere = nowhere

    def node_of(self, key: bytes) -> int:
        """The place of the node that has a key, or `nowhere`."""
        place = self.owners[self._ring.unit_of(key)]
        return self._target if place == self._nowhere and key in self.here else place

    def unit_of(self, key: bytes) -> int:
        return self._ring.unit_of(key)

    def tag_of(self, key: bytes) -> bytes:
        return self._ring.tag_of(key)

    def waits(self, key: bytes) -> bool:
        return self.node_of(key) == self._nowhere

    def any_moves(self, keys: Iterable[bytes]) -> bool:
        return any(self.owners[self._ring.unit_of(key)] == self._nowhere for key in keys)

    def home_of(self, channel: bytes) -> int:
        place = self.node_of(channel)
        return self._target if place == self._nowhere else place


def ring_of(weights: Mapping[str, int]) -> RedisRing:
    """The ring of named nodes, in the order in which they are given: the same map that shards of this name and weight
    have. Raises ValueError when there are none."""
    return RedisRing(place_buckets(weights, {name: place for place, name in enumerate(weights)}))


def ring_by(routing: Routing) -> RedisRing:
    """The ring of a map, as if nothing of it moved."""
    return KetamaRing(routing.cuts, routing.owners, routing.tag) if routing.cuts else RedisRing(routing.owners)


class KetamaRing(RedisRing):
    """twemproxy's `distribution: ketama` with `hash: fnv1a_64`: each key on the node where twemproxy has it.

    cuts, owners: of the arcs, as topology.ketama has them: owners has at its end the empty key's, too. tag: twemproxy's
    `hash_tag`, two characters, or empty for none. Raises ValueError for other numbers of owners or another tag.
    """

    def __init__(self, cuts: Sequence[int], owners: Sequence[int], tag: bytes = b"") -> None:
        super().__init__(owners)
        if not cuts or len(owners) != len(cuts) + 1:
            raise ValueError("each arc has an owner, and so has the empty key")
        if len(tag) not in (0, 2):
            raise ValueError(f"a hash tag is two characters, not {tag!r}")
        self._opens = tag[:1]
        self._closes = tag[1:]
        self.example = tag[:1] + b"tag" + tag[1:] if tag else b""
        self._tag = tag
        self._first = owners[-1]
        self._values: list[int] = list(cuts)
        # A hash beyond the last cut belongs to the first arc.
        self._places: list[int] = [*owners[:-1], owners[0]]

    def node_of(self, key: bytes) -> int:
        """The place of the node that has a key."""
        if self.single:
            return self._first
        key = self.tag_of(key)
        if not key:
            return self._first
        return self._places[bisect_left(self._values, fnv1a(key))]

    def unit_of(self, key: bytes) -> int:
        """As RedisRing's: its arc, and what is beyond all arcs for the empty key."""
        key = self.tag_of(key)
        if not key:
            return len(self._values)
        arc = bisect_left(self._values, fnv1a(key))
        return arc if arc < len(self._values) else 0

    def tag_of(self, key: bytes) -> bytes:
        """What of a key decides its place; all of it when it has no tag."""
        if self._opens:
            begin = key.find(self._opens)
            if begin >= 0:
                end = key.find(self._closes, begin + 1)
                if end > begin + 1:
                    return key[begin + 1 : end]
        return key

    def without(self, away: frozenset[int], weights: Mapping[str, int]) -> RedisRing:
        """As RedisRing's: without the points of nodes that are away."""
        left = [n for n in range(len(self._values)) if self.owners[n] not in away]
        if not away or not left:
            return self
        owners = [self.owners[n] for n in left]
        first = self._first if self._first not in away else owners[0]
        return KetamaRing([self._values[n] for n in left], [*owners, first], self._tag)


def fnv1a(key: bytes) -> int:
    """twemproxy's fnv1a_64: the lower half of it, and of bytes from 128 as if they were negative numbers."""
    value: i64 = 0x84222325
    size: i64 = len(key)
    at: i64 = 0
    while at < size:
        byte: i64 = key[at]
        if byte >= 128:
            byte |= 0xFFFFFF00
        value = ((value ^ byte) * 0x1B3) & 0xFFFFFFFF
        at += 1
    return int(value)
