"""SCAN over several nodes: one after the other, each from its beginning to its end.

A cursor of ours is a node's own cursor and the node's place. It is 0 only at the beginning and at the end, as Redis
wants it. A key that is there all the time is found, as one server promises it: it is on one node all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_NODES: Final = 4096  # there are no more nodes than buckets
_MOST: Final = (1 << 64) - 1  # what Redis and its clients take for a cursor


def scan_target(args: Sequence[bytes], nodes: int) -> tuple[int, list[bytes]] | None:
    """The place of the node that a SCAN goes on with, and what to ask it; None for a cursor that is none.

    nodes: how many there are.
    """
    text = args[1]
    if not text.isdigit() or len(text) > 20 or int(text) > _MOST:
        return None
    cursor, node = divmod(int(text), _NODES)
    return None if node >= nodes else (node, [args[0], b"%d" % cursor, *args[2:]])


def scan_reply(reply: bytes, node: int, nodes: int) -> bytes:
    """A node's reply with the cursor that goes on where it ends; an error as it is. Raises ValueError if broken."""
    if not reply.startswith(b"*2\r\n$"):
        return reply
    line = reply.index(b"\r\n", 5)
    size = int(reply[5:line])
    begin = line + 2
    cursor = int(reply[begin : begin + size])
    if cursor:
        ours = cursor * _NODES + node
        if ours > _MOST:
            raise ValueError(f"node {node} has so many keys that its cursor {cursor} cannot be told apart from others'")
    else:
        ours = 0 if node + 1 >= nodes else node + 1
    text = b"%d" % ours
    return b"*2\r\n$%d\r\n%b%b" % (len(text), text, reply[begin + size :])
