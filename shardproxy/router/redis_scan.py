"""SCAN over several nodes: one after the other, each from its beginning to its end.

A cursor of ours is a node's own cursor, a stamp and the node's place. It is 0 only at the beginning and at the end, as
Redis wants it. A key that is there all the time is found, as one server promises it: it is on one node all the time, or
it goes from one to another while a pass looks at the first before the second. A pass that has begun while keys moved
otherwise than now begins anew: its cursor has another stamp. So a pass may give keys again, but leaves none out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

_NODES: Final = 4096  # there are no more nodes than buckets
_STAMPS: Final = 256
_MOST: Final = (1 << 64) - 1  # what Redis and its clients take for a cursor


class ScanWay(NamedTuple):
    """The places of all nodes in the order of a pass. stamp: tells how keys move during it from how they move before
    and after."""

    order: Sequence[int]
    stamp: int


def scan_way(nodes: int, last_move: int, source: int | None = None, target: int | None = None) -> ScanWay:
    """last_move: the number of the newest move that has begun to move keys; source, target: of one that does now."""
    if source is None or target is None:
        return ScanWay(range(nodes), 2 * last_move % _STAMPS)
    rest = [place for place in range(nodes) if place not in (source, target)]
    return ScanWay([source, *rest, target], (2 * last_move - 1) % _STAMPS)


def scan_target(args: Sequence[bytes], way: ScanWay) -> tuple[int, list[bytes]] | None:
    """The place of the node that a SCAN goes on with, and what to ask it; None for a cursor that is none."""
    text = args[1]
    if not text.isdigit() or len(text) > 20 or int(text) > _MOST:
        return None
    rest, node = divmod(int(text), _NODES)
    cursor, stamp = divmod(rest, _STAMPS)
    if node >= len(way.order):
        return None
    if int(text) == 0 or stamp != way.stamp:
        node, cursor = way.order[0], 0
    return node, [args[0], b"%d" % cursor, *args[2:]]


def scan_reply(reply: bytes, node: int, way: ScanWay) -> bytes:
    """A node's reply with the cursor that goes on where it ends; an error as it is. Raises ValueError if broken."""
    if not reply.startswith(b"*2\r\n$"):
        return reply
    line = reply.index(b"\r\n", 5)
    size = int(reply[5:line])
    begin = line + 2
    cursor = int(reply[begin : begin + size])
    place = way.order.index(node)
    ours = 0
    if cursor or place + 1 < len(way.order):
        after = node if cursor else way.order[place + 1]
        ours = (cursor * _STAMPS + way.stamp) * _NODES + after
        if ours > _MOST:
            raise ValueError(f"node {node} has so many keys that its cursor {cursor} cannot be told apart from others'")
    text = b"%d" % ours
    return b"*2\r\n$%d\r\n%b%b" % (len(text), text, reply[begin + size :])
