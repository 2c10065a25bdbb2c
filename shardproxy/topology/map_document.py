"""The stored map of one keyspace, with the moves that are under way, and what changes it.

The document's epoch is raised by every change, so it names one map for ever: proxies acknowledge it, and the fence of a
move gets the epoch at which the move was armed, which no earlier or later map has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from shardproxy.errors import MoveError
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.map_form import KeySet, MapForm
from shardproxy.topology.phases import FINAL, MEANINGS, POSITIONS, Phase, Side, Step, Writes, follow
from shardproxy.topology.stored import Stored

FIRST_EPOCH = 1
Name = Annotated[str, Field(min_length=1)]


class TableForm(Stored):
    """How one table is spread: `key` of a sharded one, `shard` of a single one, neither of a reference table."""

    kind: Literal["sharded", "reference", "single"]
    key: str | None = None
    shard: str | None = None

    @model_validator(mode="after")
    def _check(self) -> TableForm:
        if (self.key is not None) != (self.kind == "sharded") or (self.shard is not None) != (self.kind == "single"):
            raise ValueError("key belongs to sharded tables, shard to single ones")
        return self


class Layout(Stored):
    """A whole map, for moves that replace it. tables: those that are spread otherwise than the file says."""

    map: MapForm
    tables: dict[str, TableForm] = Field(default_factory=dict)


class Stream(Stored):
    """Keys that go from one shard to another."""

    source: Name
    target: Name
    keys: KeySet

    @model_validator(mode="after")
    def _check(self) -> Stream:
        if self.source == self.target:
            raise ValueError("source and target are the same shard")
        return self

    def shard(self, side: Side) -> str:
        """The name of the shard on this side."""
        return self.source if side is Side.SOURCE else self.target


class WriteRule(NamedTuple):
    """What a write transaction on a key must heed. fence: the epoch to be read on `shard`, where writes are FENCED."""

    writes: Writes
    move: str
    shard: str
    fence: int | None


class Move(Stored):
    """A move that is under way. Its rows, positions and progress are on the shards; here is what proxies need.

    tables: which tables move; empty: all sharded ones of the keyspace. fence: epoch of the map in which it was armed
    last, None while writes are free. replaced_by: for moves that replace the map as a whole, the map that is not in
    force now: the coming one before the switch, the former one after it.
    """

    id: Name
    phase: Phase
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    tables: tuple[str, ...] = ()
    fence: int | None = None
    replaced_by: Layout | None = None

    @model_validator(mode="after")
    def _check(self) -> Move:
        if self.phase in FINAL:
            raise ValueError(f"a move that is {self.phase.value} is not in the map any more")
        if (self.fence is None) != (MEANINGS[self.phase].writes is Writes.FREE):
            raise ValueError("a move has a fence from being armed until writes are free again, and only then")
        return self

    def shards(self, side: Side) -> frozenset[str]:
        """All shards on this side."""
        return frozenset(stream.shard(side) for stream in self.streams)

    def moves_table(self, table: str) -> bool:
        """Whether rows of this table move."""
        return not self.tables or table in self.tables

    def hidden_on(self, shard: str) -> tuple[KeySet, ...]:
        """Keys whose rows on this shard must not be seen (R7)."""
        side = MEANINGS[self.phase].hides
        return tuple(s.keys for s in self.streams if side is not None and s.shard(side) == shard)

    def overlaps(self, other: Move) -> bool:
        """Whether a row may belong to both moves."""
        if self.tables and other.tables and not set(self.tables) & set(other.tables):
            return False
        return any(a.keys.overlaps(b.keys) for a in self.streams for b in other.streams)


class MapDocument(Stored):
    """The newest map of a keyspace. positions: shard → position that a replica there must have applied to be read
    under this map (R8), in the words of the server's kind."""

    format: Literal[1] = 1
    keyspace: Name
    key_type: Literal["int", "text", "binary"]
    epoch: Annotated[int, Field(ge=FIRST_EPOCH)]
    map: MapForm
    tables: dict[str, TableForm] = Field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    positions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> MapDocument:
        if self.map.kind == "range" and self.key_type != KeyType.INT.value:
            raise ValueError("a range map has integer keys")
        if len({move.id for move in self.moves}) != len(self.moves):
            raise ValueError("two moves have one id")
        if any(move.fence is not None and move.fence > self.epoch for move in self.moves):
            raise ValueError("a fence is of a later epoch than the map")
        return self

    def move(self, ident: str) -> Move:
        """A move that is under way. Raises MoveError."""
        for move in self.moves:
            if move.id == ident:
                return move
        raise MoveError(f"keyspace {self.keyspace} has no move {ident} under way")

    def hidden_on(self, shard: str, table: str) -> tuple[KeySet, ...]:
        """Keys of the table whose rows on this shard must not be seen: the predicate of statements on many keys."""
        return tuple(keys for move in self.moves if move.moves_table(table) for keys in move.hidden_on(shard))

    def write_rule(self, table: str, key: KeyValue) -> WriteRule | None:
        """What a write to this key must heed; None: nothing."""
        for move in self.moves:
            meaning = MEANINGS[move.phase]
            if meaning.writes is not Writes.FREE and move.moves_table(table):
                for stream in move.streams:
                    if key in stream.keys:
                        # Held writes are those of the side that had the keys until the switch.
                        switched = move.phase in (Phase.SWITCHED, Phase.REVERSE_SWITCHED)
                        side = meaning.owner.other if switched else meaning.owner
                        return WriteRule(meaning.writes, move.id, stream.shard(side), move.fence)
        return None


# ── changes: each gives the next document ──


def begin(document: MapDocument, move: Move) -> MapDocument:
    """The map with a new move, which must be PREPARED. Raises MoveError when it does not fit the map or other moves.

    Every target must have the keyspace's reference tables, filled, before: writes to them go there from now on.
    """
    if move.phase is not Phase.PREPARED:
        raise MoveError(f"a new move is {Phase.PREPARED.value}, not {move.phase.value}")
    for other in document.moves:
        if other.id == move.id:
            raise MoveError(f"move {move.id} is under way already")
        if move.replaced_by is not None or other.replaced_by is not None or other.overlaps(move):
            raise MoveError(f"move {other.id} is under way and has keys of this one: end it first")
    if move.replaced_by is None:
        if move.tables:
            raise MoveError("single tables of a keyspace move only together with the map that they follow then")
        if any(a.keys.overlaps(b.keys) for a, b in combinations(move.streams, 2)):
            raise MoveError("two streams of the move have the same keys")
        _reassigned(document, move, Side.TARGET)  # raises when a key is not on its source
    return _next(document, moves=(*document.moves, move))


def advance(document: MapDocument, ident: str, step: Step, positions: Mapping[str, str] | None = None) -> MapDocument:
    """The map after a step of a move.

    positions: what R8 wants of this step, for exactly the shards of `positions_wanted`. A barrier that must pass before
    is the caller's work (see `phases.MEANINGS`). Raises MoveError.
    """
    move = document.move(ident)
    phase = follow(move.phase, step)
    given = dict(positions or {})
    wanted = positions_wanted(move, phase)
    if given.keys() != wanted or not all(given.values()):
        raise MoveError(f"{phase.value} takes positions of {sorted(wanted) or 'no shard'}, not of {sorted(given)}")
    others = tuple(other for other in document.moves if other is not move)
    if phase in FINAL:
        return _next(document, moves=others, positions={**document.positions, **given})
    fence = move.fence
    if MEANINGS[phase].writes is Writes.FREE:
        fence = None
    elif MEANINGS[phase].writes is Writes.FENCED:
        fence = document.epoch + 1
    changes: dict[str, object] = {"positions": {**document.positions, **given}}
    replaced_by = move.replaced_by
    if phase in (Phase.SWITCHED, Phase.REVERSE_SWITCHED):
        if replaced_by is None:
            changes["map"] = _reassigned(document, move, MEANINGS[phase].owner)
        else:
            changes |= {"map": replaced_by.map, "tables": replaced_by.tables}
            replaced_by = Layout(map=document.map, tables=document.tables)
    moved = move.model_copy(update={"phase": phase, "fence": fence, "replaced_by": replaced_by})
    at = document.moves.index(move)
    changes["moves"] = (*document.moves[:at], moved, *document.moves[at + 1 :])
    return _next(document, **changes)


def positions_wanted(move: Move, phase: Phase) -> frozenset[str]:
    """The shards whose positions the map must carry from this phase of the move on."""
    return move.shards(POSITIONS[phase]) if phase in POSITIONS else frozenset()


def waits_for_barrier(move: Move, step: Step) -> bool:
    """Whether every proxy must have acknowledged the map, or be evicted, before the move takes this step."""
    return step is Step.NEXT and MEANINGS[move.phase].barrier


def _reassigned(document: MapDocument, move: Move, owner: Side) -> MapForm:
    changed = document.map
    for stream in move.streams:
        changed = changed.reassigned(stream.keys, stream.shard(owner.other), stream.shard(owner))
    return changed


def _next(document: MapDocument, **changes: object) -> MapDocument:
    """Checked anew as a whole: model_copy alone does not look."""
    return MapDocument.model_validate(
        {**{name: getattr(document, name) for name in MapDocument.model_fields}, **changes, "epoch": document.epoch + 1}
    )


def names_in(documents: Sequence[MapDocument]) -> frozenset[str]:
    """Every shard that a map or a move names."""
    found: set[str] = set()
    for document in documents:
        layouts = [Layout(map=document.map, tables=document.tables)]
        for move in document.moves:
            found |= move.shards(Side.SOURCE) | move.shards(Side.TARGET)
            layouts += [move.replaced_by] if move.replaced_by is not None else []
        for layout in layouts:
            found.update(layout.map.shards)
            found.update(table.shard for table in layout.tables.values() if table.shard is not None)
    return frozenset(found)
