"""How much load there is on which keys, from a sample of the statements that go to one shard by their key.

A *point* is where a statement goes: on a range map its integer key, on a hash map the number of its bucket. A sample is
point → statements that it stands for. It stays small by resampling: of n points that stand for equal parts of all, each
place between two keys is right to within an n-th of the load, wherever the load is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from shardproxy.topology.levelling import SLACK, Piece
from shardproxy.topology.maps import RangeMap, ShardMap, UnmappedKey
from shardproxy.topology.model import Keyspace
from shardproxy.topology.sampler import Batch, Kind, kind_of
from shardproxy.topology.stored import Stored

ENOUGH = 1000  # samples; fewer say too little
KEPT = 2048  # points that a proxy keeps of a keyspace and a generation
STORED = 1024  # points that it stores
GENERATION = 900.0  # seconds; what counts is the newest generation and the one before

Points = dict[int, float]


def resampled(points: Mapping[int, float], most: int) -> Points:
    """At most so many points with the same sum. Each part of the keys keeps its sum to within a `most`-th of all."""
    if len(points) <= most:
        return dict(points)
    step = sum(points.values()) / most
    found: Points = {}
    passed, taken = 0.0, 0
    for point in sorted(points):
        passed += points[point]
        due = min(most, int(passed / step + 0.5))
        if due > taken:
            found[point] = step * (due - taken)
            taken = due
    return found


@dataclass(slots=True)
class _Generation:
    since: float
    samples: int = 0
    statements: float = 0.0
    writes: float = 0.0
    points: Points = field(default_factory=dict)


class Load(Stored):
    """What one proxy measured of one keyspace, as it is stored. samples: taken; statements, writes: that they stand
    for; seconds: over which; points: point and statements that it stands for, in order."""

    kind: Kind
    samples: Annotated[int, Field(ge=0)]
    statements: float
    writes: float
    seconds: Annotated[float, Field(ge=0)]
    points: tuple[tuple[int, float], ...]


class Measured:
    """The sample of one proxy and keyspace, which ages: it is of the last 15 to 30 minutes. Times: of any clock."""

    def __init__(self, kind: Kind, now: float) -> None:
        self.kind = kind
        self._generations = [_Generation(now)]

    @property
    def samples(self) -> int:
        return sum(generation.samples for generation in self._generations)

    def add(self, batch: Batch, now: float) -> None:
        """Take a worker's batch of our kind."""
        newest = self._age(now)
        newest.samples += len(batch.points)
        newest.statements += len(batch.points) * batch.weight
        newest.writes += batch.writes * batch.weight
        for point in batch.points:
            newest.points[point] = newest.points.get(point, 0.0) + batch.weight
        if len(newest.points) > 2 * KEPT:
            newest.points = resampled(newest.points, KEPT)

    def load(self, now: float) -> Load:
        """What there is now."""
        self._age(now)
        points: Points = {}
        for generation in self._generations:
            for point, weight in generation.points.items():
                points[point] = points.get(point, 0.0) + weight
        return Load(
            kind=self.kind,
            samples=self.samples,
            statements=sum(generation.statements for generation in self._generations),
            writes=sum(generation.writes for generation in self._generations),
            seconds=max(0.0, now - self._generations[0].since),
            points=tuple(sorted(resampled(points, STORED).items())),
        )

    def _age(self, now: float) -> _Generation:
        newest = self._generations[-1]
        if now - newest.since >= GENERATION:
            old = [] if now - newest.since >= 2 * GENERATION else [newest]
            newest = _Generation(now)
            self._generations = [*old, newest]
        return newest


@dataclass(frozen=True, slots=True)
class MeasuredLoad:
    """All proxies' samples of a keyspace together. seconds: of the one that has measured for longest."""

    kind: Kind
    proxies: int
    samples: int
    statements: float
    writes: float
    seconds: float
    points: Mapping[int, float]

    def pieces(self) -> list[Piece]:
        """For levelling: each point is a key, or a bucket, of its own."""
        return [Piece(point, point + 1, weight) for point, weight in sorted(self.points.items())]

    def shares(self, m: ShardMap) -> dict[int, float]:
        """Shard → its part of the load under a map, 0 to 1. Keys that have no shard do not count."""
        found = dict.fromkeys(m.all_shards, 0.0)
        for point, weight in self.points.items():
            shard = _owner(m, point)
            if shard is not None:
                found[shard] += weight
        total = sum(found.values())
        return {shard: weight / total for shard, weight in found.items()} if total else found

    def indivisible(self, m: ShardMap, weights: Mapping[int, float]) -> tuple[int, float] | None:
        """The point that keeps a shard above its share by weight under this map, and the point's part of the load:
        without it the shard would be below. None: it is not that."""
        shares, whole = self.shares(m), sum(weights.values())
        total = sum(self.points.values())
        found: tuple[int, float] | None = None
        for point, weight in self.points.items():
            shard = _owner(m, point)
            if shard is None or shard not in weights:
                continue
            target, part = weights[shard] / whole, weight / total
            alone = shares[shard] > target + SLACK / len(weights) and shares[shard] - part <= target
            if alone and (found is None or part > found[1]):
                found = (point, part)
        return found


def together(loads: Iterable[Load], keyspace: Keyspace) -> MeasuredLoad:
    """The loads of all proxies as one; those of another kind of map are older than the map, and left out."""
    mine: Sequence[Load] = [load for load in loads if load.kind == kind_of(keyspace.map)]
    points: Points = {}
    for load in mine:
        for point, weight in load.points:
            points[point] = points.get(point, 0.0) + weight
    return MeasuredLoad(
        kind=kind_of(keyspace.map),
        proxies=len(mine),
        samples=sum(load.samples for load in mine),
        statements=sum(load.statements for load in mine),
        writes=sum(load.writes for load in mine),
        seconds=max((load.seconds for load in mine), default=0.0),
        points=points,
    )


def _owner(m: ShardMap, point: int) -> int | None:
    if isinstance(m, RangeMap):
        try:
            return m.lookup(point)
        except UnmappedKey:
            return None
    return m.buckets[point]
