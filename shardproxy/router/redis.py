"""From a Redis command to its node, or to its parts for several nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mypy_extensions import i64

from shardproxy.planner.redis.node_settings import refused_setting
from shardproxy.planner.redis.spec import CommandSpec, key_indexes
from shardproxy.topology.redis_ring import RedisRing

NOWHERE: Final = -1  # no keys: any node may answer
APART: Final = -2  # the keys are on different nodes
# A command of more arguments, and a reply of more values, is worked on in slices of the event loop, of so many each: a
# million at once would keep all other clients waiting for seconds.
MANY: Final = 10_000
SLICE: Final = 2_000


def place_of(spec: CommandSpec, args: Sequence[bytes], ring: RedisRing) -> int:
    """The place of the node that has all keys (or channels) of a command, or NOWHERE or APART."""
    found = NOWHERE
    for index in key_indexes(spec, args):
        place = ring.node_of(args[index])
        if found != place:
            if found != NOWHERE:
                return APART
            found = place
    return found


def split(
    spec: CommandSpec, args: list[bytes], pieces: list[bytes], ring: RedisRing
) -> tuple[list[int], list[list[bytes]], list[list[int]]]:
    """The parts of a SPLIT command, by their first keys. For each: its node's place; of `pieces`, which are the
    arguments as they shall be sent, those that it gets, in order; and which of the command's keys these are, 0 is the
    first. A key that comes twice is twice in its part. All empty when something is missing behind the last key.
    """
    step: i64 = spec.step
    first: i64 = spec.first
    size: i64 = len(args)
    nodes: list[int] = []
    words: list[list[bytes]] = []
    keys: list[list[int]] = []
    if (size - first) % step:
        return nodes, words, keys
    _deal(ring, args, pieces, first, step, first, size, nodes, words, keys, {})
    return nodes, words, keys


def _deal(
    ring: RedisRing, args: list[bytes], pieces: list[bytes], first: i64, step: i64, at: i64, stop: i64,
    nodes: list[int], words: list[list[bytes]], keys: list[list[int]], place_in: dict[int, int],
) -> None:  # fmt: skip
    """Give the keys from `at` to `stop` to their parts. place_in: node → its part."""
    number = (at - first) // step
    while at < stop:
        node = ring.node_of(args[at])
        place = place_in.get(node, -1)
        if place < 0:
            place = len(nodes)
            place_in[node] = place
            nodes.append(node)
            words.append(pieces[:first])
            keys.append([])
        words[place].append(pieces[at])
        if step == 2:
            words[place].append(pieces[at + 1])
        keys[place].append(number)
        number += 1
        at += step


class Parts:
    """The parts of a SPLIT command of very many keys, as `split` has them, which makes no such object for the usual
    few. They come by `place`."""

    def __init__(self, spec: CommandSpec, args: list[bytes], pieces: list[bytes]) -> None:
        self.nodes: list[int] = []
        self.words: list[list[bytes]] = []
        self.keys: list[list[int]] = []
        self._args = args
        self._pieces = pieces
        self._step: i64 = spec.step
        self._first: i64 = spec.first
        self._at: i64 = spec.first
        self._place_in: dict[int, int] = {}

    def place(self, ring: RedisRing, most: i64) -> bool:
        """Some more keys, of about so many arguments. Whether that was all."""
        step, first, at = self._step, self._first, self._at
        size: i64 = len(self._args)
        if (size - first) % step:
            return True
        stop = at + (most + step - 1) // step * step
        if stop > size:
            stop = size
        _deal(
            ring, self._args, self._pieces, first, step, at, stop, self.nodes, self.words, self.keys, self._place_in
        )
        self._at = stop
        return stop >= size


def apart_error(spec: CommandSpec, ring: RedisRing) -> bytes:
    """The error line for a command whose keys are APART."""
    return apart_line(b"%s needs them on one node" % spec.name.replace(b"|", b" "), ring)


def apart_line(why: bytes, ring: RedisRing) -> bytes:
    """The error line for keys of several nodes, with what to do."""
    todo = _one_tag(ring, "them").encode()
    return b"-CROSSSLOT Keys in request don't hash to the same slot: %s, %s\r\n" % (why, todo)


def _one_tag(ring: RedisRing, what: str) -> str:
    if ring.example:
        return f"give {what} one {ring.example.decode()}"
    return f"which redis.hash_tag = '{{}}' lets you choose by giving {what} one {{tag}}"


def hindrance(spec: CommandSpec, args: Sequence[bytes], ring: RedisRing) -> str:
    """Why a command must not go to the node of its keys, with what to do: it would look there for keys of other nodes,
    or put them where nobody finds them; or to all nodes: it would cut them off. Empty when nothing hinders. Cheap for
    most commands: a look at the name."""
    check = _CHECKS.get(spec.name)
    return "" if check is None else check(args, ring)


def _sort(args: Sequence[bytes], ring: RedisRing) -> str:
    place = 2
    while place < len(args) - 1:
        word = args[place].upper()
        if word == b"BY" or word == b"GET":
            pattern = args[place + 1]
            # Whatever * stands for, these keys have the pattern's tag; a pattern without * names no keys.
            tag = ring.tag_of(pattern)
            tagged = tag != pattern and b"*" not in tag
            if b"*" in pattern and not (tagged and ring.node_of(pattern) == ring.node_of(args[1])) and not ring.single:
                why = f"the keys of {word.decode()} may be on other nodes"
                return f"{why}: {_one_tag(ring, 'the list and the pattern')}"
            place += 1
        elif word == b"LIMIT":
            place += 2
        elif word == b"STORE":
            place += 1
        place += 1
    return ""


def _copy(args: Sequence[bytes], ring: RedisRing) -> str:
    for place in range(3, len(args) - 1):
        if args[place].upper() == b"DB" and args[place + 1] != b"0":
            return "there is one database, 0"
    return ""


def _script(args: Sequence[bytes], ring: RedisRing) -> str:
    # Its keys are not known; only a script that calls nothing needs none.
    if len(args) < 3 or args[2] != b"0" or ring.single:
        return ""
    if args[0].upper() in (b"EVAL", b"EVAL_RO") and b"call" not in args[1]:
        return ""
    return "a script without keys may need any node: name the keys that it uses"


def _setting(args: Sequence[bytes], ring: RedisRing) -> str:
    return refused_setting(args)


_CHECKS: Final[Mapping[bytes, Callable[[Sequence[bytes], RedisRing], str]]] = {
    b"SORT": _sort,
    b"SORT_RO": _sort,
    b"COPY": _copy,
    b"EVAL": _script,
    b"EVAL_RO": _script,
    b"EVALSHA": _script,
    b"EVALSHA_RO": _script,
    b"FCALL": _script,
    b"FCALL_RO": _script,
    b"CONFIG|SET": _setting,
}

CHECKED: Final = frozenset(_CHECKS)  # commands that something may hinder
