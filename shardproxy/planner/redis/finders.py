"""Where the keys are in commands whose other arguments say it: a number of keys, options, streams.

Each answers as COMMAND GETKEYS does, and with nothing where that has an error: then a node's error is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shardproxy.planner.redis.command import Finder

_NUMBER = re.compile(rb"\s*([+-]?\d{1,9})(?!\d)")


def counted(at: int, step: int = 1, before: Sequence[int] = ()) -> Finder:
    """Keys that follow their number, which is argument `at`: each `step`-th; `before`: keys that come earlier."""

    def find(args: Sequence[bytes]) -> list[int]:
        if len(args) <= at:
            return []
        text = args[at]
        if not text.isdigit() or len(text) > 9:
            # No command takes such a number, but COMMAND GETKEYS does.
            begins = _NUMBER.match(text)
            if begins is None:
                return []
            text = begins[1]
        count = int(text)
        if count < 0 or at + 1 + (count - 1) * step >= len(args):  # the last key is there
            return []
        return [*before, *range(at + 1, at + 1 + count * step, step)]

    return find


def stream_options(args: Sequence[bytes]) -> tuple[int, int]:
    """Of XREAD and XREADGROUP: the places of STREAMS and of BLOCK before it; 0: there is none."""
    block = 0
    place = 1
    while place < len(args):
        word = args[place].upper()
        if word == b"STREAMS":
            return place, block
        if word == b"BLOCK":
            block = place
            place += 1
        elif word == b"COUNT":
            place += 1
        elif word == b"GROUP":
            place += 2
        elif word != b"NOACK":
            break
        place += 1
    return 0, block


def streams(args: Sequence[bytes]) -> list[int]:
    """XREAD, XREADGROUP: after STREAMS, the first half of what follows."""
    place, _ = stream_options(args)
    count = len(args) - place - 1
    if place == 0 or count == 0 or count % 2:
        return []
    return list(range(place + 1, place + 1 + count // 2))


# Options of SORT that are not STORE, and how many arguments each has.
_SORT_OPTIONS = {b"LIMIT": 2, b"GET": 1, b"BY": 1}


def sort(args: Sequence[bytes]) -> list[int]:
    """SORT: the list, and the key to store in; of several STORE the last counts."""
    if len(args) < 2:
        return []
    stored = 0
    place = 2
    while place < len(args):
        word = args[place].upper()
        if word == b"STORE" and place + 1 < len(args):
            stored = place + 1
            place += 1
        else:
            place += _SORT_OPTIONS.get(word, 0)
        place += 1
    return [1, stored] if stored else [1]


def radius(args: Sequence[bytes]) -> list[int]:
    """GEORADIUS, GEORADIUSBYMEMBER: the set, and all keys to store in, though the last of several counts."""
    if len(args) < 2:
        return []
    found = [1]
    place = 5
    while place < len(args):
        if args[place].upper() in (b"STORE", b"STOREDIST") and place + 1 < len(args):
            found.append(place + 1)
            place += 1
        place += 1
    return found
