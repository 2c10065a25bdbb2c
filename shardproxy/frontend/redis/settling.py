"""What clients have for themselves on nodes, when keys of it begin to go to another node.

A command that blocks is ended by CLIENT UNBLOCK, so that it has certainly not run, or has run and its reply comes.
Watched keys are not watched any more, and EXEC says so. Who listens to a channel is told, and closed.
"""

from __future__ import annotations

import asyncio

from shardproxy.backend.redis.link import UP, Link, ask
from shardproxy.frontend.redis.front import RedisFront
from shardproxy.frontend.redis.own import Own
from shardproxy.topology.redis_ring import RedisRing

LOOK = 0.005  # seconds between two looks
PATIENCE = 100  # looks, until a connection is ended instead of the command on it
ROUNDS = 3  # how often what a client sends on is waited for
MOVES = "its keys go to another node"


def end_listeners(front: RedisFront, ring: RedisRing) -> None:
    """Close clients that listen to channels that move: PUBLISH goes to the other node from now on."""
    for client in list(front.clients.values()):
        own = client.own
        if own is not None and own.channels is not None and own.channels.hears_moving(ring):
            client.break_off("a channel that it listens to goes to another node; subscribe again")


async def settle_own(front: RedisFront, ring: RedisRing) -> None:
    """Wait until clients' own connections have nothing in flight on keys that move, and watch none. Connections that
    are closed meanwhile may have: see RedisNode.lay_ghosts."""
    owns = [client.own for client in front.clients.values() if client.own is not None]
    await asyncio.gather(*(_settle(own, ring) for own in owns))


async def _settle(own: Own, ring: RedisRing) -> None:
    if own.blocks_on_moving(ring):
        await asyncio.gather(*(_unblock(own, link) for link in own.lent))
    watching = own.watching
    if watching is None:
        return
    await _drain(own, watching)
    if not own.watches_moving(ring):
        return
    for _ in range(ROUNDS):
        if own.watching is not watching or not watching.pending:
            break
        await _drain(own, watching)
    if own.watching is watching:
        watching.node.give_up(watching, MOVES)


async def _unblock(own: Own, link: Link) -> None:
    node = link.node
    for _ in range(PATIENCE):
        if link not in own.lent or not link.pending:
            return
        if link.state == UP and link.ident:
            link.ended = True
            await ask(node.link(False, 0), [b"CLIENT", b"UNBLOCK", b"%d" % link.ident, b"ERROR"])
        elif link.state == UP:
            break
        await asyncio.sleep(LOOK)
    if link in own.lent and link.pending:
        node.give_up(link, MOVES)


async def _drain(own: Own, link: Link) -> None:
    """Until what has been sent on it has its replies, or it is closed."""
    slot = link.last
    while slot is not None and not slot.done and own.watching is link:  # noqa: ASYNC110 — nobody tells of a closed one
        await asyncio.sleep(LOOK)
