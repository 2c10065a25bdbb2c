"""Maps as documents: with names of shards, since places in a file's order change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from struct import pack, unpack
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, PlainSerializer, WrapValidator, model_validator

from shardproxy.errors import MoveError
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.maps import BucketMap, KeyRange, RangeMap, ShardMap
from shardproxy.topology.model import Table, TableKind
from shardproxy.topology.moving import MovingKeys
from shardproxy.topology.stored import Stored


class Interval(NamedTuple):
    """Half-open [start, end)."""

    start: int
    end: int


class NamedRange(NamedTuple):
    """Keys in [start, end) are on `shard`."""

    start: int
    end: int
    shard: str


def _in_order(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
    if any(i.start >= i.end for i in intervals) or any(a.end > b.start for a, b in pairwise(intervals)):
        raise ValueError("intervals must not be empty, must be sorted, and must not overlap")
    return intervals


Intervals = Annotated[tuple[Interval, ...], AfterValidator(_in_order)]

# Buckets stand in documents as one text: as numbers they are 50 kB of a hash map, and every proxy reads them again at
# every step of a move, while writes are held. Each text is read once. Earlier versions wrote numbers: both are read.
_KEPT = 64  # texts that were read, and written, last


@lru_cache(_KEPT)
def _owners_of(text: str) -> tuple[int, ...]:
    """Two hexadecimal digits a bucket, or four. Raises ValueError."""
    data = bytes.fromhex(text)
    if len(data) not in (BUCKETS, 2 * BUCKETS):
        raise ValueError(f"{BUCKETS} buckets have two or four hexadecimal digits each, not {len(text)} in all")
    return tuple(data) if len(data) == BUCKETS else unpack(f">{BUCKETS}H", data)


@lru_cache(_KEPT)
def _owners_text(owners: tuple[int, ...]) -> str:
    return (bytes(owners) if max(owners) < 256 else pack(f">{BUCKETS}H", *owners)).hex()


@lru_cache(_KEPT)
def _arc_owners_of(text: str) -> tuple[int, ...]:
    """Four hexadecimal digits an arc. Raises ValueError."""
    data = bytes.fromhex(text)
    if len(data) % 2:
        raise ValueError(f"arcs have four hexadecimal digits each, not {len(text)} in all")
    return unpack(f">{len(data) // 2}H", data)


@lru_cache(_KEPT)
def _arc_owners_text(owners: tuple[int, ...]) -> str:
    return pack(f">{len(owners)}H", *owners).hex()


@lru_cache(_KEPT)
def _buckets_of(text: str) -> tuple[Interval, ...]:
    """Numbers and runs of them: "3,5-7". Raises ValueError."""
    runs = [part.partition("-") for part in text.split(",")]
    return _in_order(tuple(Interval(int(first), int(last or first) + 1) for first, _, last in runs))


@lru_cache(_KEPT)
def _buckets_text(buckets: tuple[Interval, ...]) -> str:
    return ",".join([str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in buckets])


Otherwise = Callable[[object], object]


def _read_owners(value: object, otherwise: Otherwise) -> object:
    return _owners_of(value) if isinstance(value, str) else otherwise(_tuples(value))


def _read_arc_owners(value: object, otherwise: Otherwise) -> object:
    return _arc_owners_of(value) if isinstance(value, str) else otherwise(value)


def _read_buckets(value: object, otherwise: Otherwise) -> object:
    return _buckets_of(value) if isinstance(value, str) else otherwise(_tuples(value))


def _tuples(value: object) -> object:
    """JSON's arrays as tuples: behind a validator of ours pydantic does not know any more that it reads JSON."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


Owners = Annotated[
    tuple[int, ...],
    Field(min_length=BUCKETS, max_length=BUCKETS),
    WrapValidator(_read_owners),
    PlainSerializer(_owners_text, return_type=str, when_used="json"),
]
ArcOwners = Annotated[
    tuple[int, ...],
    WrapValidator(_read_arc_owners),
    PlainSerializer(_arc_owners_text, return_type=str, when_used="json"),
]
Buckets = Annotated[
    Intervals, WrapValidator(_read_buckets), PlainSerializer(_buckets_text, return_type=str, when_used="json")
]


class RangeForm(Stored):
    """A range map. Sorted; neighbours of one shard are one range when it was made by `of`."""

    kind: Literal["range"] = "range"
    ranges: Annotated[tuple[NamedRange, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> RangeForm:
        _in_order(tuple(Interval(r.start, r.end) for r in self.ranges))
        return self

    @classmethod
    def of(cls, ranges: Iterable[NamedRange]) -> RangeForm:
        """From ranges in any order."""
        joined: list[NamedRange] = []
        for r in sorted(ranges):
            if joined and joined[-1].end == r.start and joined[-1].shard == r.shard:
                joined[-1] = NamedRange(joined[-1].start, r.end, r.shard)
            else:
                joined.append(r)
        return cls(ranges=tuple(joined))

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of all shards of the map, sorted."""
        return tuple(sorted({r.shard for r in self.ranges}))

    def intervals_of(self, shard: str) -> tuple[Interval, ...]:
        """Keys that the shard has."""
        return tuple(Interval(r.start, r.end) for r in self.ranges if r.shard == shard)

    def to_map(self, order: Mapping[str, int]) -> RangeMap:
        """With places instead of names. Raises KeyError for a shard that has none."""
        return RangeMap([KeyRange(r.start, r.end, order[r.shard]) for r in self.ranges])

    def reassigned(self, keys: KeySet, source: str, target: str) -> RangeForm:
        """The map in which these keys are the target's. Raises MoveError when they are not all the source's now."""
        if keys.ranges is None or keys.buckets is not None:
            raise MoveError("of a range map only ranges of keys can be moved")
        kept = list(self.ranges)
        for moving in keys.ranges:
            around = next((r for r in kept if r.start <= moving.start and moving.end <= r.end), None)
            if around is None or around.shard != source:
                raise MoveError(f"keys [{moving.start}, {moving.end}) are not all on shard {source}")
            kept.remove(around)
            pieces = (
                NamedRange(around.start, moving.start, source),
                NamedRange(*moving, target),
                NamedRange(moving.end, around.end, source),
            )
            kept += [piece for piece in pieces if piece.start < piece.end]
        return RangeForm.of(kept)

    def opened(self, ranges: Iterable[NamedRange]) -> RangeForm:
        """The map in which keys that had no shard have one. Raises MoveError when some have one already."""
        new = sorted(ranges)
        if _meet(sorted(Interval(r.start, r.end) for r in self.ranges), [Interval(r.start, r.end) for r in new]):
            raise MoveError("some of the keys that shall get a shard have one by now: make the plan anew")
        return RangeForm.of([*self.ranges, *new])


class OwnersForm(Stored):
    """`shards[buckets[n]]` has bucket n. Each shard there has one bucket at least."""

    shards: tuple[str, ...]
    buckets: tuple[int, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.shards) != sorted(set(self.shards)) or set(self.buckets) != set(range(len(self.shards))):
            raise ValueError("shards must be sorted and different, and each must have buckets")
        return self

    @classmethod
    def of(cls, owners: Sequence[str]) -> Self:
        """From the name of each bucket's shard."""
        shards = tuple(sorted(set(owners)))
        place = {name: i for i, name in enumerate(shards)}
        return cls(shards=shards, buckets=tuple(place[name] for name in owners))

    @property
    def owners(self) -> list[str]:
        """The name of each bucket's shard."""
        return [self.shards[i] for i in self.buckets]

    def intervals_of(self, shard: str) -> tuple[Interval, ...]:
        """Buckets that the shard has."""
        return joined(n for n, owner in enumerate(self.owners) if owner == shard)


class HashForm(OwnersForm):
    """A bucket map."""

    kind: Literal["hash"] = "hash"
    buckets: Owners

    def to_map(self, order: Mapping[str, int]) -> BucketMap:
        """With places instead of names. Raises KeyError for a shard that has none."""
        places = [order[name] for name in self.shards]
        return BucketMap([places[i] for i in self.buckets])

    def reassigned(self, keys: KeySet, source: str, target: str) -> HashForm:
        """The map in which these buckets are the target's. Raises MoveError when they are not all the source's now."""
        if keys.buckets is None or keys.ranges is not None:
            raise MoveError("of a hash map only whole buckets can be moved")
        owners = self.owners
        for start, end in keys.buckets:
            if set(owners[start:end]) != {source}:
                raise MoveError(f"buckets [{start}, {end}) are not all on shard {source}")
            owners[start:end] = [target] * (end - start)
        return HashForm.of(owners)


class ArcForm(OwnersForm):
    """As a bucket map, of the arcs of Redis nodes' continua, however many there are: see topology.ketama."""

    kind: Literal["ketama"] = "ketama"
    buckets: ArcOwners


class TableForm(Stored):
    """Where a table's rows are, whatever the file says: where their column `key` says, or all on the shard `single`."""

    key: Annotated[str, Field(min_length=1)] | None = None
    single: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> TableForm:
        if (self.key is None) == (self.single is None):
            raise ValueError("a table has a key, or is on a single shard")
        return self

    def to_table(self, table: Table, order: Mapping[str, int]) -> Table:
        """The table as it is to be seen; table: as the file has it. Raises KeyError for a shard that has no place."""
        if self.single is not None:
            return Table(table.name, TableKind.SINGLE, shard=order[self.single])
        if table.kind is TableKind.SHARDED and table.key == self.key:
            return table  # with its lookup indexes
        return Table(table.name, TableKind.SHARDED, key=self.key)


MapForm = Annotated[RangeForm | HashForm, Field(discriminator="kind")]


def form_of(shard_map: ShardMap, names: Sequence[str]) -> RangeForm | HashForm:
    """A map of places as a document; names: of the shards in the order of their places."""
    if isinstance(shard_map, BucketMap):
        return HashForm.of([names[shard] for shard in shard_map.buckets])
    return RangeForm.of(NamedRange(r.start, r.end, names[r.shard]) for r in shard_map.ranges)


class KeySet(Stored):
    """Keys of a keyspace: those in ranges, those in buckets, or those in both."""

    ranges: Intervals | None = None
    buckets: Buckets | None = None

    @model_validator(mode="after")
    def _check(self) -> KeySet:
        if (self.ranges, self.buckets) == (None, None) or () in (self.ranges, self.buckets):
            raise ValueError("a set of keys names ranges, buckets, or both, and some of each that it names")
        if self.buckets and not 0 <= self.buckets[0].start <= self.buckets[-1].end <= BUCKETS:
            raise ValueError(f"buckets are numbered from 0 to {BUCKETS - 1}")
        return self

    @classmethod
    def of(cls, keys: MovingKeys) -> KeySet:
        """The same keys as a document."""
        return cls(
            ranges=None if keys.intervals is None else tuple(Interval(*interval) for interval in keys.intervals),
            buckets=None if keys.buckets is None else joined(sorted(keys.buckets)),
        )

    def moving(self, key_type: KeyType) -> MovingKeys:
        """The same keys as proxies decide by them."""
        return _moving(key_type, self.ranges, self.buckets)

    def overlaps(self, other: KeySet) -> bool:
        """Whether a key is in both; sets of ranges and sets of buckets count as overlapping."""
        if self.ranges is not None and other.ranges is not None and not _meet(self.ranges, other.ranges):
            return False
        return self.buckets is None or other.buckets is None or _meet(self.buckets, other.buckets)


@lru_cache(_KEPT)
def _moving(key_type: KeyType, ranges: tuple[Interval, ...] | None, buckets: tuple[Interval, ...] | None) -> MovingKeys:
    numbers = None if buckets is None else [n for start, end in buckets for n in range(start, end)]
    return MovingKeys(key_type, ranges, numbers)


def joined(numbers: Iterable[int]) -> tuple[Interval, ...]:
    """Ascending numbers as few intervals."""
    found: list[Interval] = []
    for n in numbers:
        if found and found[-1].end == n:
            found[-1] = Interval(found[-1].start, n + 1)
        else:
            found.append(Interval(n, n + 1))
    return tuple(found)


def _meet(some: Sequence[Interval], others: Sequence[Interval]) -> bool:
    """Both sorted. Every step of a move looks, in every proxy, while writes are held: in one pass."""
    i = j = 0
    while i < len(some) and j < len(others):
        if some[i].end <= others[j].start:
            i += 1
        elif others[j].end <= some[i].start:
            j += 1
        else:
            return True
    return False
