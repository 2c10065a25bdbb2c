"""The stages of a move of rows between shards, which may follow which, and what each means.

Proxies know fewer: a stage of the way back is to them the phase of that name (`moves.Phase`) of a move with source and
target exchanged.

    PREPARED → COPYING → ARMED → CLOSING → SWITCHED → OPEN → COMPLETING → DONE
                  ↑                 └ time-out
    up to CLOSING: cancel → CANCELLING → CANCELLED
    from OPEN: reverse → REVERSE_ARMED → … → REVERSE_SWITCHED → REVERSE_OPEN → REVERSE_COMPLETING → REVERSE_DONE
                         (a time-out of REVERSE_CLOSING leads back to OPEN)

SWITCHED and REVERSE_SWITCHED are points of no return: from there on only forward. The protocol was model-checked with
exactly these, except for the time-outs of the reverse half, which follow by exchanging source and target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from shardproxy.errors import MoveError
from shardproxy.topology.moves import Phase

_BACK = "reverse_"


class Stage(Enum):
    """Where a move stands."""

    PREPARED = "prepared"  # target hides the moving keys; tables, fence rows made
    COPYING = "copying"  # snapshot cycles and the forward stream run
    ARMED = "armed"  # writes to the moving keys read the fence
    CLOSING = "closing"  # new writes to them wait; the fence is raised, until all that was written is in the target
    SWITCHED = "switched"  # the target owns the keys; writes still wait
    OPEN = "open"  # writes go to the target; the reverse stream runs
    COMPLETING = "completing"  # the source's rows are being deleted
    DONE = "done"
    CANCELLING = "cancelling"  # the target's rows are being deleted
    CANCELLED = "cancelled"
    REVERSE_ARMED = "reverse_armed"
    REVERSE_CLOSING = "reverse_closing"
    REVERSE_SWITCHED = "reverse_switched"  # the source owns the keys again; writes still wait
    REVERSE_OPEN = "reverse_open"
    REVERSE_COMPLETING = "reverse_completing"  # the target's rows are being deleted
    REVERSE_DONE = "reverse_done"

    @property
    def reverse(self) -> bool:
        """Whether it is on the way back."""
        return self.value.startswith(_BACK)

    @property
    def phase(self) -> Phase:
        """As which proxies see it; on the way back, with source and target exchanged."""
        return Phase(self.value.removeprefix(_BACK))


class Step(Enum):
    """Why a stage is left."""

    NEXT = "next"  # its work is done
    TIME_OUT = "time-out"  # writes have waited for too long
    CANCEL = "cancel"
    REVERSE = "reverse"


class Side(Enum):
    """Of a stream: the shard that had the keys before the move, or the one that gets them."""

    SOURCE = "source"
    TARGET = "target"

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.TARGET if self is Side.SOURCE else Side.SOURCE


class Writes(Enum):
    """What write transactions on the moving keys do."""

    FREE = "free"  # as without a move
    FENCED = "fenced"  # each reads the fence, and commits only after reading the epoch of its map
    HELD = "held"  # those that have not begun wait for the next map; who holds the fence goes on


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a stage means to a proxy.

    owner: the side that has the keys, for reads and writes. hides: the side whose rows of them must not be seen, if
    any. barrier: the stage is left by NEXT only when every proxy has acknowledged its map or is evicted.
    """

    owner: Side
    hides: Side | None
    writes: Writes
    barrier: bool = False


_S, _T = Side.SOURCE, Side.TARGET

MEANINGS: Mapping[Stage, Meaning] = MappingProxyType(
    {
        Stage.PREPARED: Meaning(_S, _T, Writes.FREE, barrier=True),
        Stage.COPYING: Meaning(_S, _T, Writes.FREE),
        Stage.ARMED: Meaning(_S, _T, Writes.FENCED, barrier=True),
        Stage.CLOSING: Meaning(_S, _T, Writes.HELD),
        Stage.SWITCHED: Meaning(_T, _S, Writes.HELD, barrier=True),
        Stage.OPEN: Meaning(_T, _S, Writes.FREE),
        Stage.COMPLETING: Meaning(_T, _S, Writes.FREE),
        Stage.DONE: Meaning(_T, None, Writes.FREE),
        Stage.CANCELLING: Meaning(_S, _T, Writes.FREE),
        Stage.CANCELLED: Meaning(_S, None, Writes.FREE),
        Stage.REVERSE_ARMED: Meaning(_T, _S, Writes.FENCED, barrier=True),
        Stage.REVERSE_CLOSING: Meaning(_T, _S, Writes.HELD),
        Stage.REVERSE_SWITCHED: Meaning(_S, _T, Writes.HELD, barrier=True),
        Stage.REVERSE_OPEN: Meaning(_S, _T, Writes.FREE),
        Stage.REVERSE_COMPLETING: Meaning(_S, _T, Writes.FREE),
        Stage.REVERSE_DONE: Meaning(_S, None, Writes.FREE),
    }
)

_FORWARD = (
    Stage.PREPARED,
    Stage.COPYING,
    Stage.ARMED,
    Stage.CLOSING,
    Stage.SWITCHED,
    Stage.OPEN,
    Stage.COMPLETING,
    Stage.DONE,
)
_REVERSE = (
    Stage.REVERSE_ARMED,
    Stage.REVERSE_CLOSING,
    Stage.REVERSE_SWITCHED,
    Stage.REVERSE_OPEN,
    Stage.REVERSE_COMPLETING,
    Stage.REVERSE_DONE,
)
FINAL = frozenset((Stage.DONE, Stage.CANCELLED, Stage.REVERSE_DONE))  # the move has left the map

TRANSITIONS: Mapping[tuple[Stage, Step], Stage] = MappingProxyType(
    {
        **{(stage, Step.NEXT): _FORWARD[i + 1] for i, stage in enumerate(_FORWARD[:-1])},
        **{(stage, Step.NEXT): _REVERSE[i + 1] for i, stage in enumerate(_REVERSE[:-1])},
        (Stage.CANCELLING, Step.NEXT): Stage.CANCELLED,
        (Stage.CLOSING, Step.TIME_OUT): Stage.COPYING,
        (Stage.REVERSE_CLOSING, Step.TIME_OUT): Stage.OPEN,
        **{(stage, Step.CANCEL): Stage.CANCELLING for stage in _FORWARD[: _FORWARD.index(Stage.SWITCHED)]},
        (Stage.OPEN, Step.REVERSE): Stage.REVERSE_ARMED,
    }
)

# Positions that the map must carry from a stage on (R8): of the servers of which side, so that a replica that has not
# applied them yet is not read.
POSITIONS: Mapping[Stage, Side] = MappingProxyType(
    {
        Stage.SWITCHED: _T,  # it has all rows
        Stage.DONE: _S,  # it has deleted them
        Stage.CANCELLED: _T,
        Stage.REVERSE_SWITCHED: _S,
        Stage.REVERSE_DONE: _T,
    }
)


def follow(stage: Stage, step: Step) -> Stage:
    """The stage to which a step leads. Raises MoveError when it leads nowhere."""
    found = TRANSITIONS.get((stage, step))
    if found is None:
        allowed = ", ".join(other.value for at, other in TRANSITIONS if at is stage) or "nothing: the move has ended"
        raise MoveError(f"a move that is {stage.value} cannot take the step {step.value!r}; it can take: {allowed}")
    return found
