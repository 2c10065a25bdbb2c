"""What a rebalance shall reach: from the present map of a keyspace and goals to the new map, with the least movement.

A ring is redrawn by its weights: only the buckets change hands whose place on the ring does, so those that were moved
by hand stay where they are. Levelling needs measured sizes (`Piece`); everything else follows from the map alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shardproxy.errors import GoalError
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.levelling import Piece, level_buckets, level_ranges, redrawn
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, ShardMap
from shardproxy.topology.model import Keyspace, Shard, Snapshot
from shardproxy.topology.moves import Stream
from shardproxy.topology.ring import place_buckets
from shardproxy.topology.streams import closed, opened, streams_between
from shardproxy.topology.table_goals import ChangeKey, ShardTable, interval_text, rekeyed, sharded

MOST_GROWTH = 1.15  # a shard that joins a ring of n gets at most so many of its (n+1)th part of the buckets


@dataclass(frozen=True, slots=True)
class AddShard:
    """The shard begins to own keys. shard: None for one that the file names already. On a range map it gets keys by
    another goal."""

    name: str
    shard: Shard | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class EmptyShard:
    """The shard gives all its keys away. stays: the keyspace goes on knowing it, with its reference tables."""

    name: str
    stays: bool = False


@dataclass(frozen=True, slots=True)
class SetWeights:
    """New weights of some shards: on the ring, and for levelling."""

    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MoveBuckets:
    """Buckets first to last, both included, go to a shard."""

    first: int
    last: int
    shard: str


@dataclass(frozen=True, slots=True)
class MoveRange:
    """Keys from start (included) to end (not included) go to a shard."""

    start: int
    end: int
    shard: str


@dataclass(frozen=True, slots=True)
class SplitRange:
    """The range that holds the key becomes two; the upper one, which begins with the key, goes to the shard, if any."""

    at: int
    shard: str | None = None


@dataclass(frozen=True, slots=True)
class MergeRanges:
    """The two ranges that meet at the key become one, on the shard. at None: all neighbours that share a shard."""

    at: int | None = None
    shard: str | None = None


@dataclass(frozen=True, slots=True)
class ShiftBoundary:
    """The boundary between two ranges goes from one key to another."""

    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Level:
    """Each shard gets its share, by weight, of what was measured. by: "bytes" or "queries", for messages."""

    by: str = "bytes"


@dataclass(frozen=True, slots=True)
class ToHash:
    """A keyspace with ranges gets a hash map: a ring of the shards that own keys, by SetWeights or all alike."""


@dataclass(frozen=True, slots=True)
class ToRanges:
    """A keyspace with a hash map of integer keys gets ranges, which must hold every key."""

    ranges: tuple[MoveRange, ...]


ToMap = ToHash | ToRanges
Goal = (
    AddShard | EmptyShard | SetWeights | MoveBuckets | MoveRange | SplitRange | MergeRanges | ShiftBoundary | Level
    | ToHash | ToRanges | ShardTable | ChangeKey
)  # fmt: skip
_EXPLICIT = (MoveBuckets, MoveRange, SplitRange, MergeRanges, ShiftBoundary)


@dataclass(frozen=True, slots=True)
class Change:
    """A new map and how to get there.

    shards: Snapshot.shards with those that were added at the end; members: Keyspace.shards then; weights: by shard
    name, of the new ring, or of the shards that own ranges; opened: ranges of keys that had no owner before; table: of
    which alone rows move, while the map stays; left: shards that were members.
    """

    keyspace: str
    shards: tuple[Shard, ...]
    members: tuple[int, ...]
    weights: Mapping[str, int]
    before: ShardMap
    after: ShardMap
    streams: tuple[Stream, ...]
    opened: tuple[KeyRange, ...]
    table: ShardTable | ChangeKey | None = None
    left: tuple[int, ...] = ()

    @property
    def keyless(self) -> tuple[int, ...]:
        """Members that own no keys after the move."""
        return tuple(shard for shard in self.members if shard not in self.after.all_shards)

    @property
    def other_kind(self) -> bool:
        """Whether the new map is of another kind."""
        return isinstance(self.before, BucketMap) is not isinstance(self.after, BucketMap)

    @property
    def added(self) -> tuple[int, ...]:
        """Shards that own keys after the move but not before it."""
        return tuple(shard for shard in self.after.all_shards if shard not in self.before.all_shards)


@dataclass(slots=True)
class _Draft:
    shards: list[Shard]
    members: set[int]
    weights: dict[str, int]
    old: ShardMap
    map: ShardMap
    leaving: set[int] = field(default_factory=set)

    def index(self, name: str) -> int:
        for i, shard in enumerate(self.shards):
            if shard.name == name:
                return i
        raise GoalError(f"there is no shard {name}; known are {', '.join(shard.name for shard in self.shards)}")

    def taker(self, name: str) -> int:
        """Index of a shard that keys may go to."""
        shard = self.index(name)
        if shard not in self.members:
            raise GoalError(f"shard {name} is not in this keyspace: add it with --add-shard {name}")
        if shard in self.leaving:
            raise GoalError(f"shard {name} cannot give all its keys away and get some")
        return shard


def needs_sizes(goals: Iterable[Goal], keyspace: Keyspace) -> bool:
    """Whether `reach` needs pieces."""
    goals = list(goals)
    if any(isinstance(goal, ToMap) for goal in goals):
        return False
    return any(
        isinstance(goal, Level) or (isinstance(goal, EmptyShard) and isinstance(keyspace.map, RangeMap))
        for goal in goals
    )


def reach(
    snapshot: Snapshot,
    keyspace: Keyspace,
    weights: Mapping[str, int],
    goals: Sequence[Goal],
    pieces: Sequence[Piece] = (),
    costs: Sequence[Piece] | None = None,
) -> Change:
    """The new map and its streams. weights: of the ring that the present map came from (none: all equal); ignored for
    ranges.

    pieces: what was measured, of the present map's keys or buckets; costs: see level_ranges. Raises GoalError for goals
    that make no sense here.
    """
    if not goals:
        raise GoalError("no goal is given: what shall the move reach?")
    if keyspace.move is not None:
        raise GoalError(f"keyspace {keyspace.name} has an unfinished move: end it first (shardctl rebalance status)")
    if any(isinstance(goal, ShardTable | ChangeKey) for goal in goals):
        return _one_table(snapshot, keyspace, weights, goals)
    old = keyspace.map
    is_hash = isinstance(old, BucketMap)
    before = dict(weights) if is_hash and weights else {snapshot.shards[shard].name: 1 for shard in old.all_shards}
    draft = _Draft(list(snapshot.shards), set(keyspace.shards), dict(before), old, old)
    level = [goal for goal in goals if isinstance(goal, Level)]
    another = [goal for goal in goals if isinstance(goal, ToMap)]
    if another:
        _check_another(goals, keyspace)
    else:
        check_together(goals, is_hash)
    for goal in goals:
        if isinstance(goal, AddShard):
            _add(draft, goal)
    for goal in goals:
        if isinstance(goal, SetWeights):
            _weigh(draft, goal)
        elif isinstance(goal, EmptyShard):
            _leave(draft, goal)
    if another:
        draft.map = _another(draft, another[0])
        return _finish(keyspace, draft, goals)
    if is_hash and not level:
        draft.map = _redraw(draft, old, before)
    for goal in goals:
        _explicit(draft, goal)
    if level:
        draft.map = _level(draft, pieces, level[0], costs)
    elif isinstance(draft.map, RangeMap) and draft.leaving:
        draft.map = _empty_ranges(draft, draft.map, pieces)
    return _finish(keyspace, draft, goals)


def check_together(goals: Sequence[Goal], is_hash: bool) -> None:
    """Raises GoalError for goals that do not go together, or not with this kind of map. Not for goals of another map or
    of one table."""
    level = [goal for goal in goals if isinstance(goal, Level)]
    if len(level) > 1:
        raise GoalError("--even and --by-load are two goals: give one of them")
    if level and any(isinstance(goal, _EXPLICIT) for goal in goals):
        raise GoalError(f"levelling by {level[0].by} finds itself what moves: leave --move-…, --split-range, "
                        "--merge-ranges and --shift away")  # fmt: skip
    for goal in goals:
        if is_hash and isinstance(goal, MoveRange | SplitRange | MergeRanges | ShiftBoundary):
            raise GoalError("this keyspace has a hash map, which has buckets and no ranges: --move-bucket, --weights")
        if not is_hash and isinstance(goal, MoveBuckets):
            raise GoalError("this keyspace has a range map, which has no buckets: --move-range, --split-range, --shift")
        if not is_hash and isinstance(goal, SetWeights) and not level:
            raise GoalError("on a range map weights say how to level: give --even, or --by-load, too")
    adds, explicit = (any(isinstance(goal, kind) for goal in goals) for kind in (AddShard, _EXPLICIT))
    if adds and not (is_hash or level or explicit):
        raise GoalError("on a range map a new shard gets keys by --even, --by-load, --split-range AT=SHARD or "
                        "--move-range")  # fmt: skip


def _check_another(goals: Sequence[Goal], keyspace: Keyspace) -> None:
    [goal, *more] = [goal for goal in goals if isinstance(goal, ToMap)]
    with_it = AddShard | EmptyShard | SetWeights if isinstance(goal, ToHash) else AddShard | EmptyShard
    if more or not all(isinstance(other, with_it) for other in goals if other is not goal):
        raise GoalError("--map makes a new map of the whole keyspace: with it go --add-shard, --remove-shard, "
                        "--evacuate, and with `--map hash` --weights")  # fmt: skip
    if isinstance(goal, ToHash) and isinstance(keyspace.map, BucketMap):
        raise GoalError("this keyspace has a hash map already: see --weights, --move-bucket")
    if isinstance(goal, ToRanges) and isinstance(keyspace.map, RangeMap):
        raise GoalError("this keyspace has a range map already: see --move-range, --split-range, --shift")
    if isinstance(goal, ToRanges) and keyspace.key_type is not KeyType.INT:
        raise GoalError(f"ranges are of integer keys, and this keyspace has {keyspace.key_type.value} keys")


def _another(draft: _Draft, goal: ToHash | ToRanges) -> ShardMap:
    """The map of another kind."""
    if isinstance(goal, ToHash):
        made = BucketMap(place_buckets(draft.weights, {shard.name: i for i, shard in enumerate(draft.shards)}))
        missing = closed(made, draft.old)
        if missing:
            raise GoalError(
                f"--map hash: keys {interval_text(missing[0])} have no shard now, and rows that came to them would be "
                "lost by a `reverse`: write one into the file before the map is stored, or leave no gap by --move-range"
            )
        return made
    try:
        ranges = RangeMap([KeyRange(r.start, r.end, draft.taker(r.shard)) for r in goal.ranges])
    except ValueError as error:
        raise GoalError(f"--map range: {error}") from None
    missing = closed(draft.old, ranges)
    if missing:
        raise GoalError(
            f"--map range: every key may be there now, and keys {interval_text(missing[0])} would have no shard: begin "
            "with min, end with max, and leave no gap"
        )
    return ranges


def _add(draft: _Draft, goal: AddShard) -> None:
    known = [shard.name for shard in draft.shards]
    if goal.shard is not None:
        if goal.name in known:
            raise GoalError(f"shard {goal.name} is known already: --add-shard {goal.name} without addresses")
        taken = {(server.host, server.port): server.name for shard in draft.shards for server in shard.servers}
        for server in goal.shard.servers:
            other = taken.get((server.host, server.port))
            if other is not None:
                raise GoalError(f"{server.host}:{server.port} is {other} already: a shard needs a server of its own")
            taken[server.host, server.port] = server.name
        draft.shards.append(goal.shard)
    elif goal.name not in known:
        raise GoalError(f"shard {goal.name} is new: say where it is, --add-shard {goal.name}=host:port")
    index = draft.index(goal.name)
    if index in draft.old.all_shards:
        raise GoalError(f"shard {goal.name} owns keys of this keyspace already: see --weights, --even, --move-…")
    _check_weight(goal.name, goal.weight)
    draft.members.add(index)
    draft.weights[goal.name] = goal.weight


def _weigh(draft: _Draft, goal: SetWeights) -> None:
    for name, weight in goal.weights.items():
        shard = draft.taker(name)
        if name not in draft.weights:
            raise GoalError(f"shard {draft.shards[shard].name} owns no keys: add it with --add-shard {name}")
        _check_weight(name, weight)
        draft.weights[name] = weight


def _check_weight(name: str, weight: int) -> None:
    if not 1 <= weight <= 100:
        raise GoalError(f"the weight of {name} is {weight}; expected 1 to 100 (--evacuate gives all keys away)")


def _leave(draft: _Draft, goal: EmptyShard) -> None:
    shard = draft.taker(goal.name)
    if shard not in draft.old.all_shards and goal.stays:
        raise GoalError(f"shard {goal.name} owns no keys of this keyspace")
    draft.leaving.add(shard)
    draft.weights.pop(goal.name, None)
    if not draft.weights:
        raise GoalError("no shard would be left that owns keys")
    if not goal.stays:
        draft.members.discard(shard)


def _redraw(draft: _Draft, old: ShardMap, before: Mapping[str, int]) -> ShardMap:
    """The bucket map after its ring has changed."""
    assert isinstance(old, BucketMap)
    if before == draft.weights:
        return old
    order = {shard.name: i for i, shard in enumerate(draft.shards)}
    was, will = place_buckets(before, order), place_buckets(draft.weights, order)
    new = [
        there if there != then or owner in draft.leaving else owner
        for owner, then, there in zip(old.buckets, was, will, strict=True)
    ]
    for name in draft.weights.keys() - before.keys():
        _trim(draft, old, new, order[name], MOST_GROWTH * draft.weights[name] / sum(draft.weights.values()))
    return BucketMap(new)


def _trim(draft: _Draft, old: BucketMap, new: list[int], added: int, share: float) -> None:
    """Let buckets stay where they were beyond a share of all: chance puts more than that on some rings of many
    shards. Those stay whose owners have least."""
    gained = [bucket for bucket, owner in enumerate(new) if owner == added and old.buckets[bucket] not in draft.leaving]
    for _ in range(len(gained) - int(share * BUCKETS)):
        counts = {owner: new.count(owner) for owner in {old.buckets[bucket] for bucket in gained}}
        back = min(gained, key=lambda bucket: (counts[old.buckets[bucket]], bucket))
        gained.remove(back)
        new[back] = old.buckets[back]


def _explicit(draft: _Draft, goal: Goal) -> None:
    if isinstance(goal, MoveBuckets):
        if not 0 <= goal.first <= goal.last < BUCKETS:
            raise GoalError(f"buckets {goal.first}-{goal.last}: they are numbered from 0 to {BUCKETS - 1}")
        assert isinstance(draft.map, BucketMap)
        buckets = list(draft.map.buckets)
        buckets[goal.first : goal.last + 1] = [draft.taker(goal.shard)] * (goal.last + 1 - goal.first)
        draft.map = BucketMap(buckets)
        return
    if not isinstance(draft.map, RangeMap):
        return
    if isinstance(goal, MoveRange):
        if not INT_MIN <= goal.start < goal.end <= INT_MAX + 1:
            raise GoalError(f"{goal.start}:{goal.end} holds no key; expected FROM:TO, TO not included")
        draft.map = _assigned(draft.map, goal.start, goal.end, draft.taker(goal.shard))
    elif isinstance(goal, SplitRange):
        draft.map = _split(draft, draft.map, goal)
    elif isinstance(goal, MergeRanges):
        draft.map = _merged(draft, draft.map, goal)
    elif isinstance(goal, ShiftBoundary):
        draft.map = _shifted(draft.map, goal)


def _assigned(m: RangeMap, start: int, end: int, shard: int) -> RangeMap:
    """The map with these keys on a shard; keys that are there already stay in their ranges."""
    parts = []
    for r in m.ranges:
        if r.shard == shard:
            parts.append(r)
            continue
        if r.start < start:
            parts.append(KeyRange(r.start, min(r.end, start), r.shard))
        if end < r.end:
            parts.append(KeyRange(max(r.start, end), r.end, r.shard))
    taken = sorted((r.start, r.end) for r in m.ranges if r.shard == shard)
    at = start
    for low, high in [*taken, (end, end)]:
        if at < min(low, end):
            parts.append(KeyRange(at, min(low, end), shard))
        at = max(at, high)
    return redrawn(m, parts)


def _split(draft: _Draft, m: RangeMap, goal: SplitRange) -> RangeMap:
    for r in m.ranges:
        if r.start < goal.at < r.end:
            upper = r.shard if goal.shard is None else draft.taker(goal.shard)
            halves = [KeyRange(r.start, goal.at, r.shard), KeyRange(goal.at, r.end, upper)]
            return RangeMap([other for other in m.ranges if other != r] + halves)
        if r.start == goal.at:
            raise GoalError(f"a range begins at {goal.at} already: --move-range moves it")
    raise GoalError(f"no range holds the key {goal.at}")


def _merged(draft: _Draft, m: RangeMap, goal: MergeRanges) -> RangeMap:
    if goal.at is None:
        joined: list[KeyRange] = []
        for r in m.ranges:
            if joined and joined[-1].end == r.start and joined[-1].shard == r.shard:
                joined[-1] = KeyRange(joined[-1].start, r.end, r.shard)
            else:
                joined.append(r)
        return RangeMap(joined)
    lower, upper = _meeting(m, goal.at)
    if goal.shard is None and lower.shard != upper.shard:
        names = [draft.shards[r.shard].name for r in (lower, upper)]
        raise GoalError(f"the ranges that meet at {goal.at} are on {names[0]} and {names[1]}: say on which shard the "
                        f"one shall be, --merge-ranges {goal.at}={names[0]}")  # fmt: skip
    shard = lower.shard if goal.shard is None else draft.taker(goal.shard)
    rest = [r for r in m.ranges if r not in (lower, upper)]
    return RangeMap([*rest, KeyRange(lower.start, upper.end, shard)])


def _shifted(m: RangeMap, goal: ShiftBoundary) -> RangeMap:
    lower, upper = _meeting(m, goal.old)
    if not lower.start < goal.new < upper.end:
        raise GoalError(f"the boundary at {goal.old} can be shifted to keys between {lower.start} and {upper.end}")
    rest = [r for r in m.ranges if r not in (lower, upper)]
    return RangeMap([*rest, lower._replace(end=goal.new), upper._replace(start=goal.new)])


def _meeting(m: RangeMap, at: int) -> tuple[KeyRange, KeyRange]:
    for lower, upper in zip(m.ranges, m.ranges[1:], strict=False):
        if lower.end == upper.start == at:
            return lower, upper
    edges = [str(a.end) for a, b in zip(m.ranges, m.ranges[1:], strict=False) if a.end == b.start]
    raise GoalError(f"no two ranges meet at {at}; they meet at {', '.join(edges) or 'no key'}")


def _shares(draft: _Draft) -> dict[int, float]:
    return {draft.index(name): float(weight) for name, weight in draft.weights.items()}


def _level(draft: _Draft, pieces: Sequence[Piece], goal: Level, costs: Sequence[Piece] | None) -> ShardMap:
    if not sum(piece.size for piece in pieces):
        raise GoalError(f"there is nothing to level: the {goal.by} of all keys are 0")
    if isinstance(draft.map, RangeMap):
        return level_ranges(draft.map, pieces, _shares(draft), costs)
    sizes = [0.0] * BUCKETS
    for piece in pieces:
        for bucket in range(piece.start, piece.end):
            sizes[bucket] += piece.size / (piece.end - piece.start)
    return BucketMap(level_buckets(draft.map.buckets, sizes, _shares(draft)))


def _empty_ranges(draft: _Draft, m: RangeMap, pieces: Sequence[Piece]) -> RangeMap:
    """Whole ranges of the shards that leave go, the largest first, to whoever has least for its weight then; among
    equals to a neighbour."""
    shares = _shares(draft)
    sizes = {r: sum(_inside(piece, r) for piece in pieces) for r in m.ranges}
    has = {shard: sum(sizes[r] for r in m.ranges if r.shard == shard) for shard in shares}
    new = {r: r.shard for r in m.ranges}
    for r in sorted((r for r in m.ranges if r.shard in draft.leaving), key=lambda r: (-sizes[r], r.start)):
        touching = {new[other] for other in m.ranges if other.end == r.start or other.start == r.end}
        new[r] = min(shares, key=lambda shard: ((has[shard] + sizes[r]) / shares[shard], shard not in touching, shard))
        has[new[r]] += sizes[r]
    return redrawn(m, [r._replace(shard=shard) for r, shard in new.items()])


def _inside(piece: Piece, r: KeyRange) -> float:
    common = min(piece.end, r.end) - max(piece.start, r.start)
    return piece.size * common / (piece.end - piece.start) if common > 0 else 0.0


def _finish(keyspace: Keyspace, draft: _Draft, goals: Sequence[Goal]) -> Change:
    new = draft.map
    lost = closed(keyspace.map, new)
    if lost or draft.leaving & set(new.all_shards):
        raise AssertionError(f"keys {lost} would have no owner, or stay on a shard that leaves")
    if keyspace.home not in draft.members and keyspace.home not in keyspace.map.all_shards:
        name = draft.shards[keyspace.home].name
        raise GoalError(
            f"shard {name} is the home: the keyspace's sequences and records go to another shard with its keys, but it "
            "has none. Move some to it first (--move-bucket, --move-range), then remove it"
        )
    streams = streams_between(keyspace.map, new, keyspace.key_type)
    had_no_shard = opened(keyspace.map, new)
    for r in had_no_shard:
        if r.shard not in keyspace.shards and all(stream.target != r.shard for stream in streams):
            raise GoalError(
                f"shard {draft.shards[r.shard].name} would get keys that no shard has, and none that another has: it "
                "gets its tables with those. Give it some of another shard too"
            )
    for goal in goals:
        if isinstance(goal, AddShard) and draft.index(goal.name) not in new.all_shards:
            raise GoalError(
                f"shard {goal.name} is added but gets no keys: give it some by --split-range AT={goal.name}, "
                "--move-range, or --even"
            )
    weights = draft.weights
    if isinstance(new, RangeMap):
        weights = {name: draft.weights.get(name, 1) for name in (draft.shards[shard].name for shard in new.all_shards)}
    return Change(
        keyspace=keyspace.name,
        shards=tuple(draft.shards),
        members=tuple(sorted(draft.members)),
        weights=weights,
        before=keyspace.map,
        after=new,
        streams=streams,
        opened=had_no_shard,
        left=tuple(sorted({*keyspace.shards} - draft.members)),
    )


def _one_table(snapshot: Snapshot, keyspace: Keyspace, weights: Mapping[str, int], goals: Sequence[Goal]) -> Change:
    [goal, *more] = goals
    if more or not isinstance(goal, ShardTable | ChangeKey):
        raise GoalError("--shard-table and --change-key move the rows of one table, and go with no other goal")
    table = keyspace.tables.get(goal.name)
    if table is None:
        raise GoalError(f"keyspace {keyspace.name} has no table {goal.name}; it has {', '.join(keyspace.tables)}")
    if isinstance(goal, ShardTable):
        streams = sharded(snapshot, keyspace, table, goal)
    else:
        streams = rekeyed(keyspace, table, goal)
    return Change(
        keyspace.name, snapshot.shards, keyspace.shards, dict(weights), keyspace.map, keyspace.map, streams, (), goal
    )


def applied(snapshot: Snapshot, change: Change) -> Snapshot:
    """The snapshot after the move; epoch as it is."""
    keyspaces = dict(snapshot.keyspaces)
    keyspaces[change.keyspace] = replace(keyspaces[change.keyspace], map=change.after, shards=change.members)
    return replace(snapshot, shards=change.shards, keyspaces=keyspaces)
