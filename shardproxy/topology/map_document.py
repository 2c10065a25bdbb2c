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
from shardproxy.topology.map_form import HashForm, KeySet, MapForm, NamedRange, RangeForm, TableForm
from shardproxy.topology.stages import FINAL, MEANINGS, POSITIONS, Side, Stage, Step, Writes, follow
from shardproxy.topology.stored import Stored
from shardproxy.topology.streams import closed, streams_between, streams_from_one, streams_of_all

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


class TableMove(Stored):
    """One table whose rows go to where the keyspace's map says by its column `key`.

    before: the column by which it was sharded; a stream between any two shards has all keys of its source. None: it was
    on a single shard, the source of all streams.
    """

    name: Name
    key: Name
    before: Name | None = None

    def form(self, owner: Side, home: str) -> TableForm:
        """Where its rows are when this side owns them; home: the source of a stream."""
        if owner is Side.TARGET:
            return TableForm(key=self.key)
        return TableForm(single=home) if self.before is None else TableForm(key=self.before)


class Move(Stored):
    """A move that is under way. Its rows, positions and progress are on the shards; here is what proxies need.

    streams: source and target stay as they were planned on the way back too. fence: epoch of the map in which it was
    armed last, None while writes are free. other: where the keyspace goes over to a map of another kind, the map that
    is not in force: the new one, and after the switch the old one. table: of which alone rows move; the map stays.
    home: where the home shard gives all its keys away for good, the one that is not the home: the next, and after the
    switch the last. opened: keys of a range map that had no shard, and have one from the switch on, for good. keyless:
    the `MapDocument.keyless` that is not in force: the next, and after the switch the last; None: it stays.
    """

    id: MoveId
    stage: Stage
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    fence: int | None = None
    other: MapForm | None = None
    table: TableMove | None = None
    home: Name | None = None
    opened: tuple[NamedRange, ...] = ()
    keyless: tuple[Name, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Move:
        if self.stage in FINAL:
            raise ValueError(f"a move that is {self.stage.value} is not in the map any more")
        if (self.fence is None) != (MEANINGS[self.stage].writes is Writes.FREE):
            raise ValueError("a move has a fence from being armed until writes are free again, and only then")
        if self.table is not None and self.other is not None:
            raise ValueError("when one table moves, the map stays")
        pairs = list(combinations(self.streams, 2))
        if self.rekeys:
            pairs = [(a, b) for a, b in pairs if a.source != b.source]  # each has its source's keys
        if any(a.keys.overlaps(b.keys) for a, b in pairs):
            raise ValueError("two streams have the same keys")
        if self.table is not None and not self.rekeys and len(self.shards(Side.SOURCE)) != 1:
            raise ValueError("the rows of a single table come from one shard")
        return self

    @property
    def rekeys(self) -> bool:
        """Whether a table gets another key."""
        return self.table is not None and self.table.before is not None

    def shards(self, side: Side) -> frozenset[str]:
        """All shards on this side."""
        return frozenset(stream.shard(side) for stream in self.streams)

    def seen(self, key_type: KeyType, order: Mapping[str, int]) -> moves.Move:
        """The move as proxies see it, with places instead of names. Raises KeyError for a shard that has none."""
        source, target = (Side.TARGET, Side.SOURCE) if self.stage.reverse else (Side.SOURCE, Side.TARGET)
        keys = {s.source: s.keys for s in self.streams}
        streams = [
            moves.Stream(
                order[s.shard(source)],
                order[s.shard(target)],
                (keys[s.shard(source)] if self.rekeys else s.keys).moving(key_type),
                None if s.entries is None else s.entries.moving(KeyType.BINARY),
                s.references and not self.stage.reverse,
            )
            for s in self.streams
        ]
        lone = None
        if self.table is not None:
            lone = moves.LoneTable(self.table.name, None if self.rekeys else order[self.streams[0].source])
        return moves.Move(self.id, self.stage.phase, self.fence or 0, tuple(streams), lone)


class Lookups(Stored):
    """Where the entries of a keyspace's lookup indexes are. placement: as the indexes' records have it."""

    placement: Name
    owners: HashForm


class MapDocument(Stored):
    """The newest map of a keyspace. positions: shard → position that a replica there must have applied to be read
    under this map (R8), in the words of the server's kind.

    home: the shard with the keyspace's records; "" in documents of earlier versions: the first one. lookups: None as
    long as the map says where entries are. tables: those that a move of one table has been about: it counts from its
    beginning, and the file's entries no more. keyless: shards that belong to the keyspace though they own no keys: they
    have its reference tables.
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
    tables: dict[Name, TableForm] = Field(default_factory=dict)
    keyless: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> MapDocument:
        ranges = self.map.kind == "range"
        if ranges and self.key_type != KeyType.INT.value:
            raise ValueError("a range map has integer keys")
        if self.move is not None:
            _check_kinds(self.map, self.move)
            if (self.move.fence or 0) > self.epoch:
                raise ValueError("the fence is of a later epoch than the map")
        return self

    @property
    def shards(self) -> frozenset[str]:
        """Every shard that has the keyspace, or gets it."""
        found = {*self.map.shards, *(form.single for form in self.tables.values() if form.single is not None)}
        found |= {self.home, *self.keyless} if self.home else set(self.keyless)
        found |= set(self.lookups.owners.shards) if self.lookups is not None else set()
        if self.move is not None:
            found |= {stream.shard(side) for stream in self.move.streams for side in Side}
            found |= set(self.move.other.shards) if self.move.other is not None else set()
            found |= {self.move.home} if self.move.home is not None else set()
            found |= {r.shard for r in self.move.opened}
            found |= set(self.move.keyless or ())
        return frozenset(found)

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
    if move.home is not None and not any(s.source == document.home and s.target == move.home for s in move.streams):
        raise MoveError(f"{move.home} shall be the home instead of {document.home}, and gets no keys of it")
    _opened(document.map, move.opened)  # raises when a key has a shard
    if move.table is not None:
        if any(stream.entries is not None or stream.references for stream in move.streams):
            raise MoveError("a move of one table carries nothing else")
        _check_table(document, move, move.table)
        form = move.table.form(Side.SOURCE, move.streams[0].source)
        return _next(document, move=move, tables={**document.tables, move.table.name: form})
    if move.other is None:
        _reassigned(document, move, Side.TARGET)  # raises when a key is not on its source
    else:
        _check_between(document, move, move.other)
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
        owner = MEANINGS[stage].owner
        if move.table is not None:
            form = move.table.form(owner, move.streams[0].source)
            changes["tables"] = {**document.tables, move.table.name: form}
        else:
            changes["map"] = _reassigned(document, move, owner)
            changes["lookups"] = _entries_reassigned(document, move, owner)
        if move.opened:
            changes["map"] = _opened(_reassigned(document, move, owner), move.opened)
            move = move.model_copy(update={"opened": ()})
        if move.other is not None:
            move = move.model_copy(update={"other": document.map})
        if move.home is not None:
            changes["home"] = move.home
            move = move.model_copy(update={"home": document.home})
        if move.keyless is not None:
            changes["keyless"] = move.keyless
            move = move.model_copy(update={"keyless": document.keyless})
    fence = move.fence
    if MEANINGS[stage].writes is Writes.FREE:
        fence = None
    elif MEANINGS[stage].writes is Writes.FENCED:
        fence = document.epoch + 1
    return _next(document, move=move.model_copy(update={"stage": stage, "fence": fence}), **changes)


def without_move(
    document: MapDocument,
    ranges: Sequence[NamedRange],
    home: str = "",
    lookups: Lookups | None = None,
    keyless: Sequence[str] | None = None,
) -> MapDocument:
    """The map in which keys that had no shard have one that the keyspace has already, and these shards without keys
    belong to it; home, lookups: see `begin`.

    No row moves. Raises MoveError when some keys have a shard by now, or a move is under way.
    """
    if document.move is not None:
        raise MoveError(f"move {document.move.id} of keyspace {document.keyspace} is under way: end it first")
    changes = {"home": document.home or home, "lookups": document.lookups or lookups}
    kept = document.keyless if keyless is None else tuple(keyless)
    return _next(document, map=_opened(document.map, ranges), keyless=kept, **changes)


def positions_wanted(move: Move, stage: Stage) -> frozenset[str]:
    """The shards whose positions the map must carry from this stage of the move on."""
    return move.shards(POSITIONS[stage]) if stage in POSITIONS else frozenset()


def waits_for_barrier(move: Move, step: Step) -> bool:
    """Whether every proxy must have acknowledged the map, or be evicted, before the move takes this step."""
    return step is Step.NEXT and MEANINGS[move.stage].barrier


def _check_kinds(shard_map: MapForm, move: Move) -> None:
    if move.other is None:  # also of one table
        ranges = shard_map.kind == "range"
        if any((s.keys.ranges is not None, s.keys.buckets is not None) != (ranges, not ranges) for s in move.streams):
            raise ValueError("of a range map ranges move, of a hash map buckets")
    elif move.other.kind == shard_map.kind:
        raise ValueError("a move with another map goes from a map of one kind to one of the other")


def _opened(shard_map: MapForm, ranges: Sequence[NamedRange]) -> MapForm:
    if not ranges:
        return shard_map
    if not isinstance(shard_map, RangeForm):
        raise MoveError("of a hash map every bucket has a shard")
    return shard_map.opened(ranges)


def _reassigned(document: MapDocument, move: Move, owner: Side) -> MapForm:
    if move.other is not None:
        return move.other
    changed = document.map
    for stream in move.streams:
        changed = changed.reassigned(stream.keys, stream.shard(owner.other), stream.shard(owner))
    return changed


def _check_table(document: MapDocument, move: Move, table: TableMove) -> None:
    """Raise MoveError unless the streams have exactly the rows that the map wants elsewhere than on their source."""
    source = move.streams[0].source
    form = document.tables.get(table.name)
    if form is not None and form != table.form(Side.SOURCE, source):
        raise MoveError(f"table {table.name} is elsewhere by now: {form.single or f'key {form.key}'}")
    names = sorted({source, *document.map.shards})
    order = {name: place for place, name in enumerate(names)}
    key_type = KeyType(document.key_type)
    shard_map = document.map.to_map(order)
    wanted = (
        streams_of_all(shard_map, key_type) if move.rekeys else streams_from_one(order[source], shard_map, key_type)
    )
    given = {(s.source, s.target): s.keys.moving(key_type) for s in move.streams}
    if given != {(names[s.source], names[s.target]): s.keys for s in wanted}:
        raise MoveError("the streams are not those that the map wants: make the plan anew")


def _check_between(document: MapDocument, move: Move, after: MapForm) -> None:
    """Raise MoveError unless the streams have exactly what the two maps have at different places."""
    names = sorted({*document.map.shards, *after.shards})
    order = {name: place for place, name in enumerate(names)}
    key_type = KeyType(document.key_type)
    now, then = document.map.to_map(order), after.to_map(order)
    if closed(now, then) or closed(then, now):
        raise MoveError("some keys have a shard in one of the two maps only")
    wanted = streams_between(now, then, key_type)
    given = {(s.source, s.target): s.keys.moving(key_type) for s in move.streams}
    if given != {(names[s.source], names[s.target]): s.keys for s in wanted}:
        raise MoveError("the streams are not those between the two maps: make the plan anew")
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
