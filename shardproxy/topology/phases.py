"""The phases of a move of rows between shards, which may follow which, and what each means to a proxy.

    PREPARED → COPYING → ARMED → CLOSING → DRAINED → READY → SWITCHED → OPEN → COMPLETING → DONE
                  ↑                 └─────────┴───────┘ time-out
    up to READY: cancel → CANCELLING → CANCELLED
    from OPEN: reverse → REVERSE_ARMED → … → REVERSE_SWITCHED → REVERSE_OPEN → REVERSE_COMPLETING → REVERSE_DONE
                         (a time-out of REVERSE_CLOSING, REVERSE_DRAINED or REVERSE_READY leads back to OPEN)

SWITCHED and REVERSE_SWITCHED are points of no return: from there on only forward. The protocol was model-checked with
exactly these, except for the time-outs of the reverse half, which follow by exchanging source and target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from shardproxy.errors import MoveError


class Phase(Enum):
    """Where a move stands."""

    PREPARED = "prepared"  # target hides the moving keys; tables, fence rows made
    COPYING = "copying"  # snapshot cycles and the forward stream run
    ARMED = "armed"  # writes to the moving keys read the fence
    CLOSING = "closing"  # new writes to them wait; the fence is raised
    DRAINED = "drained"  # all that was written is in the target; dirty keys are verified
    READY = "ready"  # the reverse stream has its position
    SWITCHED = "switched"  # the target owns the keys; writes still wait
    OPEN = "open"  # writes go to the target; the reverse stream runs
    COMPLETING = "completing"  # the source's rows are being deleted
    DONE = "done"
    CANCELLING = "cancelling"  # the target's rows are being deleted
    CANCELLED = "cancelled"
    REVERSE_ARMED = "reverse_armed"
    REVERSE_CLOSING = "reverse_closing"
    REVERSE_DRAINED = "reverse_drained"
    REVERSE_READY = "reverse_ready"
    REVERSE_SWITCHED = "reverse_switched"  # the source owns the keys again; writes still wait
    REVERSE_OPEN = "reverse_open"
    REVERSE_COMPLETING = "reverse_completing"  # the target's rows are being deleted
    REVERSE_DONE = "reverse_done"


class Step(Enum):
    """Why a phase is left."""

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
    """What a phase means to a proxy.

    owner: the side that has the keys, for reads and writes. hides: the side whose rows of them must not be seen, if
    any. barrier: the phase is left by NEXT only when every proxy has acknowledged its map or is evicted.
    """

    owner: Side
    hides: Side | None
    writes: Writes
    barrier: bool = False


_S, _T = Side.SOURCE, Side.TARGET

MEANINGS: Mapping[Phase, Meaning] = MappingProxyType(
    {
        Phase.PREPARED: Meaning(_S, _T, Writes.FREE, barrier=True),
        Phase.COPYING: Meaning(_S, _T, Writes.FREE),
        Phase.ARMED: Meaning(_S, _T, Writes.FENCED, barrier=True),
        Phase.CLOSING: Meaning(_S, _T, Writes.HELD),
        Phase.DRAINED: Meaning(_S, _T, Writes.HELD),
        Phase.READY: Meaning(_S, _T, Writes.HELD),
        Phase.SWITCHED: Meaning(_T, _S, Writes.HELD, barrier=True),
        Phase.OPEN: Meaning(_T, _S, Writes.FREE),
        Phase.COMPLETING: Meaning(_T, _S, Writes.FREE),
        Phase.DONE: Meaning(_T, None, Writes.FREE),
        Phase.CANCELLING: Meaning(_S, _T, Writes.FREE),
        Phase.CANCELLED: Meaning(_S, None, Writes.FREE),
        Phase.REVERSE_ARMED: Meaning(_T, _S, Writes.FENCED, barrier=True),
        Phase.REVERSE_CLOSING: Meaning(_T, _S, Writes.HELD),
        Phase.REVERSE_DRAINED: Meaning(_T, _S, Writes.HELD),
        Phase.REVERSE_READY: Meaning(_T, _S, Writes.HELD),
        Phase.REVERSE_SWITCHED: Meaning(_S, _T, Writes.HELD, barrier=True),
        Phase.REVERSE_OPEN: Meaning(_S, _T, Writes.FREE),
        Phase.REVERSE_COMPLETING: Meaning(_S, _T, Writes.FREE),
        Phase.REVERSE_DONE: Meaning(_S, None, Writes.FREE),
    }
)

_FORWARD = (
    Phase.PREPARED,
    Phase.COPYING,
    Phase.ARMED,
    Phase.CLOSING,
    Phase.DRAINED,
    Phase.READY,
    Phase.SWITCHED,
    Phase.OPEN,
    Phase.COMPLETING,
    Phase.DONE,
)
_REVERSE = (
    Phase.REVERSE_ARMED,
    Phase.REVERSE_CLOSING,
    Phase.REVERSE_DRAINED,
    Phase.REVERSE_READY,
    Phase.REVERSE_SWITCHED,
    Phase.REVERSE_OPEN,
    Phase.REVERSE_COMPLETING,
    Phase.REVERSE_DONE,
)
FINAL = frozenset((Phase.DONE, Phase.CANCELLED, Phase.REVERSE_DONE))  # the move has left the map

TRANSITIONS: Mapping[tuple[Phase, Step], Phase] = MappingProxyType(
    {
        **{(phase, Step.NEXT): _FORWARD[i + 1] for i, phase in enumerate(_FORWARD[:-1])},
        **{(phase, Step.NEXT): _REVERSE[i + 1] for i, phase in enumerate(_REVERSE[:-1])},
        (Phase.CANCELLING, Step.NEXT): Phase.CANCELLED,
        **{(phase, Step.TIME_OUT): Phase.COPYING for phase in (Phase.CLOSING, Phase.DRAINED, Phase.READY)},
        **{(phase, Step.TIME_OUT): Phase.OPEN for phase in _REVERSE[1:4]},
        **{(phase, Step.CANCEL): Phase.CANCELLING for phase in _FORWARD[: _FORWARD.index(Phase.SWITCHED)]},
        (Phase.OPEN, Step.REVERSE): Phase.REVERSE_ARMED,
    }
)

# Positions that the map must carry from a phase on (R8): of the servers of which side, so that a replica that has not
# applied them yet is not read.
POSITIONS: Mapping[Phase, Side] = MappingProxyType(
    {
        Phase.SWITCHED: _T,  # it has all rows, since READY
        Phase.DONE: _S,  # it has deleted them
        Phase.CANCELLED: _T,
        Phase.REVERSE_SWITCHED: _S,
        Phase.REVERSE_DONE: _T,
    }
)


def follow(phase: Phase, step: Step) -> Phase:
    """The phase to which a step leads. Raises MoveError when it leads nowhere."""
    found = TRANSITIONS.get((phase, step))
    if found is None:
        allowed = ", ".join(other.value for at, other in TRANSITIONS if at is phase) or "nothing: the move has ended"
        raise MoveError(f"a move that is {phase.value} cannot take the step {step.value!r}; it can take: {allowed}")
    return found
