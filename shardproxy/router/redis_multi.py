"""Which node a command of a transaction needs. All commands of a transaction are done by one node, in one piece."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.redis.spec import CommandSpec, Way, refusal_error
from shardproxy.router.redis import APART, NOWHERE, apart_error, apart_line, hindrance, place_of
from shardproxy.topology.redis_ring import RedisRing

# What the proxy answers itself otherwise, and any node can as well.
_SAME_EVERYWHERE = (b"PING", b"ECHO")


def place_in_transaction(spec: CommandSpec, args: Sequence[bytes], ring: RedisRing, before: int) -> tuple[int, bytes]:
    """The place of the node that does a command between MULTI and EXEC, and NOWHERE if any may; and the error line for
    the client when none can, empty when one can. before: the place that the transaction has by now."""
    way = spec.way
    if way is Way.REFUSED:
        return before, refusal_error(spec)
    if way is Way.KEYED or way is Way.SPLIT or (way is Way.OWN and spec.blocks):
        place = place_of(spec, args, ring)
        if place == APART:
            return before, apart_error(spec, ring)
        if before != NOWHERE and place not in (NOWHERE, before):
            return before, _elsewhere(spec, ring)
        why = hindrance(spec, args, ring)
        return (before, _cannot(spec, why)) if why else (before if place == NOWHERE else place, b"")
    if way is Way.ANY or spec.name in _SAME_EVERYWHERE or spec.name == b"UNWATCH":
        return before, b""
    if spec.name == b"SELECT":
        return before, b"" if args[1] == b"0" else _cannot(spec, "there is one database, 0")
    if way is Way.EVERY:
        if ring.single and not spec.blocks:
            why = hindrance(spec, args, ring)
            return before, _cannot(spec, why) if why else b""
        return before, _cannot(spec, "it goes to all nodes, and a transaction is of one")
    return before, _cannot(spec, "it is about the connection to the proxy: send it before MULTI, or after EXEC")


def _elsewhere(spec: CommandSpec, ring: RedisRing) -> bytes:
    name = spec.name.replace(b"|", b" ")
    return apart_line(b"those of %s are on another node than those before it in the transaction" % name, ring)


def _cannot(spec: CommandSpec, why: str) -> bytes:
    name = spec.name.replace(b"|", b" ")
    return b"-ERR shardproxy does not do %s in a transaction: %s\r\n" % (name, why.encode())
