"""The stored map of one keyspace, with the move that is under way, and what changes it.

The document's epoch is raised by every change, so it names one map for ever: proxies acknowledge it, and the fence of a
move gets the epoch at which the move was armed, which no earlier or later map has.

A keyspace has one move at a time: more were not model-checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shardproxy.errors import MoveError
from shardproxy.topology import moves
from shardproxy.topology.keys import KeyType
from shardproxy.topology.map_form import HashForm, KeySet, MapForm
from shardproxy.topology.stages import FINAL, MEANINGS, POSITIONS, Side, Stage, Step, Writes, follow
from shardproxy.topology.stored import Stored

FIRST_EPOCH = 1
Name = Annotated[str, Field(min_length=1)]
MoveId = Annotated[int, Field(ge=1, lt=2**64)]  # of its rows in `_shardproxy`; never used twice


class Stream(Stored):
    """Keys that go from one shard to another.

    entries: buckets of values whose lookup entries go with them. references: the target joins the keyspace, and gets
    its reference tables by this stream.
    """

    source: Name
    target: Name
    keys: KeySet
    entries: KeySet | None = None
    references: bool = False

    @model_validator(mode="after")
    def _check(self) -> Stream:
        if self.source == self.target:
            raise ValueError("source and target are the same shard")
        if self.entries is not None and self.entries.buckets is None:
            raise ValueError("entries of lookup indexes are named by buckets of values")
        return self

    @classmethod
    def of(cls, stream: moves.Stream, names: Sequence[str]) -> Stream:
        """A stream between places as a document; names: of the shards in the order of their places."""
        return cls(
            source=names[stream.source],
            target=names[stream.target],
            keys=KeySet.of(stream.keys),
            entries=None if stream.entries is None else KeySet.of(stream.entries),
            references=stream.references,
        )

    def shard(self, side: Side) -> str:
        """The name of the shard on this side."""
        return self.source if side is Side.SOURCE else self.target


class Move(Stored):
    """A move that is under way. Its rows, positions and progress are on the shards; here is what proxies need.

    streams: source and target stay as they were planned on the way back too. fence: epoch of the map in which it was
    armed last, None while writes are free.
    """

    id: MoveId
    stage: Stage
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    fence: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Move:
        if self.stage in FINAL:
            raise ValueError(f"a move that is {self.stage.value} is not in the map any more")
        if (self.fence is None) != (MEANINGS[self.stage].writes is Writes.FREE):
            raise ValueError("a move has a fence from being armed until writes are free again, and only then")
        if any(a.keys.overlaps(b.keys) for a, b in combinations(self.streams, 2)):
            raise ValueError("two streams have the same keys")
        return self

    def shards(self, side: Side) -> frozenset[str]:
        """All shards on this side."""
        return frozenset(stream.shard(side) for stream in self.streams)

    def seen(self, key_type: KeyType, order: Mapping[str, int]) -> moves.Move:
        """The move as proxies see it, with places instead of names. Raises KeyError for a shard that has none."""
        source, target = (Side.TARGET, Side.SOURCE) if self.stage.reverse else (Side.SOURCE, Side.TARGET)
        streams = [
            moves.Stream(
                order[s.shard(source)],
                order[s.shard(target)],
                s.keys.moving(key_type),
                None if s.entries is None else s.entries.moving(KeyType.BINARY),
                s.references and not self.stage.reverse,
            )
            for s in self.streams
        ]
        return moves.Move(self.id, self.stage.phase, self.fence or 0, tuple(streams))


class Lookups(Stored):
    """Where the entries of a keyspace's lookup indexes are. placement: as the indexes' records have it."""

    placement: Name
    owners: HashForm


class MapDocument(Stored):
    """The newest map of a keyspace. positions: shard → position that a replica there must have applied to be read
    under this map (R8), in the words of the server's kind.

    home: the shard with the keyspace's records; "" in documents of earlier versions: the first one. lookups: None as
    long as the map says where entries are.
    """

    format: Literal[1] = 1
    keyspace: Name
    key_type: Literal["int", "text", "binary"]
    epoch: Annotated[int, Field(ge=FIRST_EPOCH)]
    map: MapForm
    move: Move | None = None
    positions: dict[str, str] = Field(default_factory=dict)
    home: str = ""
    lookups: Lookups | None = None

    @model_validator(mode="after")
    def _check(self) -> MapDocument:
        ranges = self.map.kind == "range"
        if ranges and self.key_type != KeyType.INT.value:
            raise ValueError("a range map has integer keys")
        if self.move is not None:
            if any((stream.keys.ranges is not None) != ranges for stream in self.move.streams):
                raise ValueError("of a range map ranges move, of a hash map buckets")
            if (self.move.fence or 0) > self.epoch:
                raise ValueError("the fence is of a later epoch than the map")
        return self

    @property
    def shards(self) -> frozenset[str]:
        """Every shard that has the keyspace, or gets it."""
        moving = self.move.streams if self.move is not None else ()
        entries = self.lookups.owners.shards if self.lookups is not None else ()
        own = (self.home,) if self.home else ()
        return frozenset((*own, *entries, *self.map.shards, *(s.shard(side) for s in moving for side in Side)))

    @property
    def joining(self) -> frozenset[str]:
        """Those that do not have all reference tables yet: no statement may read or write them there."""
        move = self.move
        if move is None or MEANINGS[move.stage].owner is Side.TARGET or move.stage.reverse:
            return frozenset()
        return frozenset(stream.target for stream in move.streams if stream.references)


# ── changes: each gives the next document ──


def begin(document: MapDocument, move: Move, home: str = "", lookups: Lookups | None = None) -> MapDocument:
    """The map with a new move, which must be PREPARED. Raises MoveError when it does not fit, or another is under way.

    Every target must have the keyspace's reference tables, filled, before, or get them by a stream. home, lookups: what
    is written down where the document says nothing of it.
    """
    if move.stage is not Stage.PREPARED:
        raise MoveError(f"a new move is {Stage.PREPARED.value}, not {move.stage.value}")
    if document.move is not None:
        raise MoveError(
            f"move {document.move.id} of keyspace {document.keyspace} is {document.move.stage.value}: "
            "a keyspace has one move at a time; complete or cancel it first"
        )
    document = document.model_copy(update={"home": document.home or home, "lookups": document.lookups or lookups})
    _reassigned(document, move, Side.TARGET)  # raises when a key is not on its source
    _entries_reassigned(document, move, Side.TARGET)
    return _next(document, move=move)


def advance(document: MapDocument, step: Step, positions: Mapping[str, str] | None = None) -> MapDocument:
    """The map after a step of its move.

    positions: what R8 wants of this step, for exactly the shards of `positions_wanted`. A barrier that must pass before
    is the caller's work (see `waits_for_barrier`). Raises MoveError.
    """
    move = document.move
    if move is None:
        raise MoveError(f"keyspace {document.keyspace} has no move under way")
    stage = follow(move.stage, step)
    given = dict(positions or {})
    wanted = positions_wanted(move, stage)
    if given.keys() != wanted or not all(given.values()):
        raise MoveError(f"{stage.value} takes positions of {sorted(wanted) or 'no shard'}, not of {sorted(given)}")
    changes: dict[str, object] = {"positions": {**document.positions, **given}}
    if stage in FINAL:
        return _next(document, move=None, **changes)
    if stage in (Stage.SWITCHED, Stage.REVERSE_SWITCHED):
        changes["map"] = _reassigned(document, move, MEANINGS[stage].owner)
        changes["lookups"] = _entries_reassigned(document, move, MEANINGS[stage].owner)
    fence = move.fence
    if MEANINGS[stage].writes is Writes.FREE:
        fence = None
    elif MEANINGS[stage].writes is Writes.FENCED:
        fence = document.epoch + 1
    return _next(document, move=move.model_copy(update={"stage": stage, "fence": fence}), **changes)


def positions_wanted(move: Move, stage: Stage) -> frozenset[str]:
    """The shards whose positions the map must carry from this stage of the move on."""
    return move.shards(POSITIONS[stage]) if stage in POSITIONS else frozenset()


def waits_for_barrier(move: Move, step: Step) -> bool:
    """Whether every proxy must have acknowledged the map, or be evicted, before the move takes this step."""
    return step is Step.NEXT and MEANINGS[move.stage].barrier


def _reassigned(document: MapDocument, move: Move, owner: Side) -> MapForm:
    changed = document.map
    for stream in move.streams:
        changed = changed.reassigned(stream.keys, stream.shard(owner.other), stream.shard(owner))
    return changed


def _entries_reassigned(document: MapDocument, move: Move, owner: Side) -> Lookups | None:
    lookups = document.lookups
    if lookups is None:
        if any(stream.entries is not None for stream in move.streams):
            raise MoveError("entries of lookup indexes move only where the map says where they are")
        return None
    owners = lookups.owners
    for stream in move.streams:
        if stream.entries is not None:
            owners = owners.reassigned(stream.entries, stream.shard(owner.other), stream.shard(owner))
    return lookups.model_copy(update={"owners": owners})


def _next(document: MapDocument, **changes: object) -> MapDocument:
    """Checked anew as a whole: model_copy alone does not look."""
    values = {name: getattr(document, name) for name in MapDocument.model_fields}
    return MapDocument.model_validate({**values, **changes, "epoch": document.epoch + 1})
