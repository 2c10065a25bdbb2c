"""The map of the Redis port as workers have it. They do without the documents' library, which takes much memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Routing(NamedTuple):
    """What a worker routes by. owners: bucket → place of its node. last: number of the newest move that moves keys, or
    has. move: of one under way, 0: none. waiting: its buckets. pulls: they are pulled from `source` to `target`; else
    commands on them wait for the next map. replicas: of the target that must have a key before it is dropped at the
    source. moved: (place, host, port) of nodes that are not where the file says. cuts: of a map by ketama, whose arcs
    are what else are buckets, see redis_ring.KetamaRing; tag: its hash tag.
    at_home: keys of nodes that are away are on no others meanwhile, whatever the file says: they are being moved."""

    epoch: int
    owners: Sequence[int]
    last: int = 0
    move: int = 0
    waiting: frozenset[int] = frozenset()
    source: int = 0
    target: int = 0
    pulls: bool = False
    replicas: int = 0
    moved: Sequence[tuple[int, str, int]] = ()
    cuts: Sequence[int] = ()
    tag: bytes = b""
    at_home: bool = False
