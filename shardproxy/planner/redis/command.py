"""What is known of one Redis command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Way(Enum):
    """Who answers a command."""

    KEYED = "keyed"  # the node that has all of its keys; -CROSSSLOT when no node has
    SPLIT = "split"  # each key's node; the replies are joined as the spec's `join` says
    EVERY = "every"  # all primaries; the replies are joined as the spec's `join` says
    ANY = "any"  # any one node
    LOCAL = "local"  # the proxy
    OWN = "own"  # a connection that the client has for itself: its state is on the connection, or it waits there
    REFUSED = "refused"  # nobody: the spec's `refusal` says why, and what to do


class Join(Enum):
    """How several nodes' replies become one. An error of any node is the answer, except where said."""

    NONE = "none"  # there is one reply
    SAME = "same"  # all nodes say the same: the first reply
    OK = "ok"  # +OK
    SUM = "sum"  # one number: all added
    MIN = "min"  # one number: the least
    MAX = "max"  # one number: the greatest
    LIST = "list"  # one element for each key, in the order of the keys
    CONCAT = "concat"  # all elements
    UNION = "union"  # all elements, each once
    MIN_LIST = "min list"  # numbers, the least at each place
    SUM_PAIRS = "sum pairs"  # name, number, name, number, …: the numbers added at each place
    FOUND = "found"  # the first reply that is not null
    STOPPED = "stopped"  # the first reply that is no error: one node had what was to be stopped
    INFO = "info"  # INFO's text, summed
    SLOWLOG = "slowlog"  # SLOWLOG GET's entries, the newest first, as many as asked for
    CURSOR = "cursor"  # SCAN: one node after the other; the cursor says which


Finder = Callable[[Sequence[bytes]], list[int]]  # a command's arguments → the places of its keys; 0 is its name


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command, or one subcommand."""

    name: bytes  # upper case; b"CONFIG|GET" for a subcommand
    way: Way
    min_args: int  # as COMMAND has it, the name counts: n > 0: exactly n; n < 0: -n or more
    write: bool = False  # may change data: never for a replica
    first: int = 0  # keys are at first, first + step, … last, as in COMMAND; 0: no keys (or `find` knows)
    last: int = 0  # -1: the last argument, -2: the one before it
    step: int = 0
    find: Finder | None = None  # for commands whose arguments say where the keys are
    join: Join = Join.NONE
    refusal: str = ""  # for REFUSED: why, and what to do
    channels: bool = False  # what the places name are channels: placed as keys are, but no keys
    blocks: bool = False  # its reply may take as long as the client has asked for
