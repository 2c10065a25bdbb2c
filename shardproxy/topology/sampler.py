"""Which statements of a worker are sampled: about every n-th, n being such that enough are and few.

The gaps vary: an application that repeats a few statements in turn would otherwise show one of them only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mypy_extensions import i64

from shardproxy.topology.keys import KeyValue, bucket_of
from shardproxy.topology.maps import BucketMap, ShardMap
from shardproxy.topology.model import Keyspace

PACE = 512  # samples per second that a worker aims at
MOST = 4096  # samples that it keeps between two reports

Kind = Literal["range", "hash"]


def kind_of(m: ShardMap) -> Kind:
    """What the points of a keyspace with this map are."""
    return "hash" if isinstance(m, BucketMap) else "range"


def point_of(m: ShardMap, key: KeyValue) -> int:
    """Where a key is: itself, or its bucket."""
    return bucket_of(key) if isinstance(m, BucketMap) or not isinstance(key, int) else key


@dataclass(slots=True)
class Batch:
    """What one worker sampled of one keyspace since its last report. Each sample stands for `weight` statements."""

    kind: Kind
    weight: int
    points: list[int] = field(default_factory=list)
    writes: int = 0


class Sampler:
    """left: statements until the next one that is noted. The hot path counts it down and calls `note` below 0."""

    __slots__ = ("_batches", "_seed", "_taken", "left", "stride")

    def __init__(self) -> None:
        self.left: i64 = 0
        self.stride = 1  # mean of the gaps
        self._taken = 0
        self._seed = 1
        self._batches: dict[str, Batch] = {}

    def note(self, keyspace: Keyspace, key: KeyValue, write: bool) -> None:
        """Take the statement with this key into the sample."""
        self.skip()
        if self._taken >= MOST:
            return  # a burst: the rest of this second is not sampled
        batch = self._batches.get(keyspace.name)
        kind = kind_of(keyspace.map)
        if batch is None or batch.kind != kind:
            batch = self._batches[keyspace.name] = Batch(kind, self.stride)
        batch.points.append(point_of(keyspace.map, key))
        if write:
            batch.writes += 1
        self._taken += 1

    def skip(self) -> None:
        """Draw the next gap: 1 to 2 · stride − 1 statements, all as likely."""
        self._seed = (self._seed * 1103515245 + 12345) & 0x7FFFFFFF
        self.left = (self._seed >> 8) % (2 * self.stride - 1)

    def take(self, seconds: float) -> dict[str, Batch]:
        """What was sampled in the last so many seconds, by keyspace; sampling goes on at the pace that fits."""
        found, self._batches = self._batches, {}
        statements = self._taken * self.stride
        self._taken = 0
        stride = max(1, int(statements / max(seconds, 0.1) / PACE))
        if stride != self.stride:
            self.stride = stride
            self.skip()
        return found
