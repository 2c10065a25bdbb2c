"""From a Redis key to its node: by buckets, as rows are placed, or by ketama, as twemproxy places keys.

Every key passes through here. The modules of the hot path, of which this is one, are compiled.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import md5
from typing import Final
from zlib import crc32

from mypy_extensions import i64

from shardproxy.topology.ring import place_buckets

# Of ketama: points on the circle for a node whose weight is the average one.
_POINTS: Final = 160


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

    def tag_of(self, key: bytes) -> bytes:
        """What of a key decides its place; all of it when it has no tag."""
        return hash_tag(key)

    def waits(self, key: bytes) -> bool:
        """Whether a key is on its way to another node, and commands on it have to wait."""
        return False

    def any_moves(self, keys: Iterable[bytes]) -> bool:
        """Whether some key, or channel, is in a bucket that goes to another node now."""
        return False

    def home_of(self, channel: bytes) -> int:
        """The place of the node that has a channel: its bucket's, but nothing has to be brought there."""
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
    """A ring of which some buckets move. Keys in them are at the place `nowhere`, which is no node's, until they are
    known to be at their target: then they are in `here`."""

    def __init__(self, owners: Sequence[int], waiting: Collection[int], target: int, nowhere: int) -> None:
        super().__init__([nowhere if n in waiting else owner for n, owner in enumerate(owners)])
        self.single = False
        self.here: set[bytes] = set()
        self._target = target
        self._nowhere = nowhere

    def node_of(self, key: bytes) -> int:
        """The place of the node that has a key, or `nowhere`."""
        place = self.owners[crc32(b"%d" % crc32(hash_tag(key))) & 4095]
        return self._target if place == self._nowhere and key in self.here else place

    def waits(self, key: bytes) -> bool:
        return self.node_of(key) == self._nowhere

    def any_moves(self, keys: Iterable[bytes]) -> bool:
        return any(self.owners[crc32(b"%d" % crc32(hash_tag(key))) & 4095] == self._nowhere for key in keys)

    def home_of(self, channel: bytes) -> int:
        place = self.node_of(channel)
        return self._target if place == self._nowhere else place


def ring_of(weights: Mapping[str, int]) -> RedisRing:
    """The ring of named nodes, in the order in which they are given: the same map that shards of this name and weight
    have. Raises ValueError when there are none."""
    return RedisRing(place_buckets(weights, {name: place for place, name in enumerate(weights)}))


class KetamaRing(RedisRing):
    """twemproxy's `distribution: ketama` with `hash: fnv1a_64`: each key on the node where twemproxy has it.

    weights: name → weight ≥ 1, in twemproxy's order. A name is what twemproxy's file has behind the weight; without one
    it is the address as host:port, or the host alone for port 11211. tag: twemproxy's `hash_tag`, two characters, or
    empty for none. away: places of nodes whose points are left out. Raises ValueError for no nodes or another tag.
    """

    def __init__(self, weights: Mapping[str, int], tag: bytes = b"", away: frozenset[int] = frozenset()) -> None:
        super().__init__(())
        if not weights:
            raise ValueError("a ring needs at least one node")
        if len(tag) not in (0, 2):
            raise ValueError(f"a hash tag is two characters, not {tag!r}")
        self._opens = tag[:1]
        self._closes = tag[1:]
        self.example = tag[:1] + b"tag" + tag[1:] if tag else b""
        circle = [point for point in _circle(weights) if point[1] not in away]
        self._tag = tag
        self._first = min(place for _, place in circle)
        self._values: list[int] = [value for value, _ in circle]
        # A hash beyond the last point belongs to the first.
        self._places: list[int] = [place for _, place in circle] + [circle[0][1]]
        self.single = len(weights) == 1

    def node_of(self, key: bytes) -> int:
        """The place of the node that has a key."""
        if self.single:
            return 0
        key = self.tag_of(key)
        if not key:
            return self._first
        return self._places[bisect_left(self._values, fnv1a(key))]

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
        """As RedisRing's."""
        if not away or len(away) == len(weights):
            return self
        return KetamaRing(weights, self._tag, away)


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


def _circle(weights: Mapping[str, int]) -> list[tuple[int, int]]:
    """Points (hash, place of the node), ascending; of equal ones the earlier node first."""
    total = _single_precision(sum(weights.values()))
    circle: list[tuple[int, int]] = []
    for place, (name, weight) in enumerate(weights.items()):
        # In the numbers that twemproxy computes with: elsewhere some weights would get four points more or less.
        share = _single_precision(_single_precision(weight) / total)
        quarter = _single_precision(_single_precision(share * _POINTS) / 4)
        hashes = int(_single_precision(_single_precision(quarter * len(weights)) + 0.0000000001))
        for number in range(hashes):
            digest = md5(b"%s-%d" % (name.encode(), number), usedforsecurity=False).digest()
            circle += [(value, place) for value in struct.unpack("<4I", digest)]
    if not circle:
        raise ValueError("weights that differ so much that no node has a point on the circle")
    circle.sort(key=_value)
    return circle


def _value(point: tuple[int, int]) -> int:
    return point[0]


def _single_precision(number: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded
