"""Keys on their way from shard to shard, as a map carries them: which, from where to where, and how far they are.

The phases and what proxies do in each are those of the model-checked protocol (docs/resharding.md). A move that goes
back (reverse) is one whose streams have source and target exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from shardproxy.topology.keys import KeyValue
from shardproxy.topology.moving import MovingKeys


class Phase(Enum):
    """How far a move is. Each step from one to another is one compare-and-set in the map store."""

    PREPARED = "prepared"  # the target hides what it will receive; nothing has been copied
    COPYING = "copying"  # rows and changes stream to the target
    ARMED = "armed"  # writes to moving keys take the fence
    CLOSING = "closing"  # writes to moving keys are held; those with the fence go on, until all is at the target
    SWITCHED = "switched"  # reads go to the target; the point of no return. Writes are still held
    OPEN = "open"  # writes go to the target
    COMPLETING = "completing"  # the source's moved rows are being deleted
    DONE = "done"
    CANCELLING = "cancelling"  # the target's rows are being deleted; writes go to the source, unfenced
    CANCELLED = "cancelled"


TARGET_HIDES = frozenset({Phase.PREPARED, Phase.COPYING, Phase.ARMED, Phase.CLOSING, Phase.CANCELLING})
SOURCE_HIDES = frozenset({Phase.SWITCHED, Phase.OPEN, Phase.COMPLETING})
HELD = frozenset({Phase.CLOSING, Phase.SWITCHED})  # new writes to moving keys wait
OVER = frozenset({Phase.DONE, Phase.CANCELLED})


@dataclass(frozen=True)
class Stream:
    """Keys that go from one shard to another; source and target are indexes into Snapshot.shards.

    entries: values whose lookup entries go with them, if any; references: the keyspace's reference tables go too.
    """

    source: int
    target: int
    keys: MovingKeys
    entries: MovingKeys | None = None
    references: bool = False


@dataclass(frozen=True)
class LoneTable:
    """The one table of which rows move, while the keyspace's map stays.

    home: from the shard that had all of them, or back to it: it is a single table on one side of the switch, and a
    sharded one on the other. None: it is sharded by one column, and after the switch by another; then each stream has
    all keys of its source, by the column that counts now.
    """

    name: str
    home: int | None


@dataclass(frozen=True)
class Move:
    """One move of a keyspace's keys. ident: of its rows in `_shardproxy`; epoch: of its fence, which write transactions
    on moving keys must read exactly, from ARMED on (R5). No key is in streams of two sources. table: None for all
    tables."""

    ident: int
    phase: Phase
    epoch: int
    streams: tuple[Stream, ...]
    table: LoneTable | None = None

    @cached_property
    def hidden(self) -> Mapping[int, tuple[MovingKeys, ...]]:
        """Shard index → keys whose rows are there and must not be seen by statements that are not limited to other
        keys (R7).

        Of one table: what its home hides. There it has all rows, and while it is a single table nobody looks elsewhere.
        One whose key changes has rows on each shard that do not belong there, by the key that counts now: those that
        have come before the switch, and those that have gone after it. Other tables have no rows of these keys there.
        """
        found: dict[int, tuple[MovingKeys, ...]] = {}
        for stream in self.streams:
            if self.phase in TARGET_HIDES:
                found[stream.target] = (*found.get(stream.target, ()), stream.keys)
            elif self.phase in SOURCE_HIDES:
                found[stream.source] = (*found.get(stream.source, ()), stream.keys)
        if self.table is not None and self.table.home is None:
            return {} if self.phase in OVER else self._foreign()
        if self.table is not None and self.table.home is not None:
            home = self.table.home
            return {home: found[home]} if home in found else {}
        return found

    def _foreign(self) -> Mapping[int, tuple[MovingKeys, ...]]:
        """Shard index → the keys of all others."""
        keys = {stream.source: stream.keys for stream in self.streams}
        return {shard: tuple(keys[other] for other in sorted(keys) if other != shard) for shard in keys}

    @property
    def fenced(self) -> bool:
        """Write transactions on moving keys take the fence, and new ones begin: they are not held."""
        return self.phase is Phase.ARMED

    @property
    def held(self) -> bool:
        """New write transactions on moving keys wait."""
        return self.phase in HELD

    @property
    def guarded(self) -> bool:
        """Write transactions on moving keys take the fence, or wait."""
        return self.phase is Phase.ARMED or self.phase in HELD

    def same_fence(self, other: Move | None) -> bool:
        """Whether the other is this move under the same fence."""
        return other is not None and (other.ident, other.epoch) == (self.ident, self.epoch)

    def staying(self, lookup: Callable[[KeyValue], int]) -> Callable[[KeyValue], int]:
        """A map's `lookup` that raises LookupError for keys that move."""

        def shard_of(key: KeyValue) -> int:
            if self.source_of(key) is not None:
                raise LookupError("the key moves")
            return lookup(key)

        return shard_of

    def source_of(self, key: KeyValue) -> int | None:
        """The shard from which the key moves; None when it does not move."""
        return next((stream.source for stream in self.streams if key in stream.keys), None)

    @cached_property
    def of_references(self) -> frozenset[int]:
        """Shards from which reference tables are copied: writes to them take the fence there."""
        return frozenset(stream.source for stream in self.streams if stream.references)

    @cached_property
    def carries_entries(self) -> bool:
        """Whether entries of lookup indexes move."""
        return any(stream.entries is not None for stream in self.streams)

    @cached_property
    def sources(self) -> frozenset[int]:
        """Shards that give keys away: those with a fence."""
        return frozenset(stream.source for stream in self.streams)
