"""twemproxy's `distribution: ketama`: where the servers' points lie on the circle, and the arcs between them.

While keys move from one continuum to another, the circle is cut at the points of both: each of the arcs then has one
node before and one after, and keys of an arc move together.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import md5
from typing import Annotated, Final, NamedTuple

from pydantic import Field, model_validator

from shardproxy.topology.stored import Stored

CIRCLE: Final = 2**32  # hashes are less

# Points for a server whose weight is the average one.
_POINTS: Final = 160
_KEPT: Final = 16  # continua whose points are kept: every proxy reads the map again at every step of a move


class Server(NamedTuple):
    """node: its name here; name: the one by which twemproxy places its points."""

    node: str
    name: str
    weight: int


class Continuum(Stored):
    """Servers in twemproxy's order."""

    servers: Annotated[tuple[Server, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Continuum:
        for names in ([s.node for s in self.servers], [s.name for s in self.servers]):
            if len(set(names)) != len(names) or not all(names):
                raise ValueError("servers of a continuum have names, which differ")
        if any(server.weight < 1 for server in self.servers):
            raise ValueError("a server of a continuum weighs 1 at least")
        _points_of(self.servers)
        return self

    @property
    def weights(self) -> dict[str, int]:
        """Of the nodes."""
        return {server.node: server.weight for server in self.servers}


class Continua(Stored):
    """How keys find their arc. continua: the one by which all keys are placed; while keys move: before, and after.
    tag: twemproxy's `hash_tag`."""

    tag: Annotated[str, Field(pattern=r"^([\x21-\x7e]{2})?$")] = ""
    continua: Annotated[tuple[Continuum, ...], Field(min_length=1, max_length=2)]

    @property
    def cuts(self) -> tuple[int, ...]:
        """As `cuts_of` has them."""
        return cuts_of(self.continua)


def cuts_of(continua: Iterable[Continuum]) -> tuple[int, ...]:
    """Where the circle is cut, ascending: at the points of all of them. Arc n ends with cut n; arc 0 has what is beyond
    the last cut, too."""
    return _cuts_of(tuple([continuum.servers for continuum in continua]))


@lru_cache(_KEPT)
def _cuts_of(continua: tuple[tuple[Server, ...], ...]) -> tuple[int, ...]:
    return tuple(sorted({value for servers in continua for value in _points_of(servers)[0]}))


def owners_of(continuum: Continuum, cuts: Sequence[int]) -> list[str]:
    """The node of each arc, and at the end that of the empty key, for which twemproxy takes the hash 0. cuts: with
    those of the continuum."""
    values, places = _points_of(continuum.servers)
    nodes = [server.node for server in continuum.servers]
    found = [nodes[places[bisect_left(values, cut) % len(values)]] for cut in cuts]
    return [*found, found[0]]


def lengths_of(cuts: Sequence[int]) -> list[int]:
    """How many hashes each arc has; 0 of the empty key, at the end."""
    return [*(cut - cuts[n - 1] if n else cut + CIRCLE - cuts[-1] for n, cut in enumerate(cuts)), 0]


@lru_cache(_KEPT)
def _points_of(servers: tuple[Server, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Hashes, ascending, and of each the place of its server; of equal ones the earlier server's. Raises ValueError
    when there is none."""
    found = circle_of({server.name: server.weight for server in servers})
    first = [n for n in range(len(found)) if not n or found[n - 1][0] != found[n][0]]
    return tuple([found[n][0] for n in first]), tuple([found[n][1] for n in first])


def circle_of(weights: Mapping[str, int]) -> list[tuple[int, int]]:
    """Points (hash, place of the server), ascending; of equal ones the earlier server first. weights: by the names by
    which twemproxy knows the servers, in its order. Raises ValueError when there is none."""
    total = _single_precision(sum(weights.values()))
    circle: list[tuple[int, int]] = []
    for place, (name, weight) in enumerate(weights.items()):
        # In the numbers that twemproxy computes with: elsewhere some weights would get four points more or less.
        share = _single_precision(_single_precision(weight) / total)
        quarter = _single_precision(_single_precision(share * _POINTS) / 4)
        hashes = int(_single_precision(_single_precision(quarter * len(weights)) + 0.0000000001))
        for number in range(hashes):
            digest = md5(b"%s-%d" % (name.encode(), number), usedforsecurity=False).digest()
            circle += [(value, place) for value in struct.unpack("<4I", digest)]
    if not circle:
        raise ValueError("weights that differ so much that no node has a point on the circle")
    circle.sort(key=_value)
    return circle


def _value(point: tuple[int, int]) -> int:
    return point[0]


def _single_precision(number: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded
