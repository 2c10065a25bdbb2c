"""Commands on keys that are on their way to another node: they wait until their keys are at the target.

A key is pulled in three steps, each of which may be done again by anybody (protocol.redis.moves): take its dump at the
source, put it on the target, drop it at the source. Where a step fails the key is whole on one of the two, and the next
command on it begins anew. It is dropped only when the target's replicas have it; when they are slow, by the mover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.backend.redis.link import Link, Waiter, ask
from shardproxy.backend.redis.node import RedisNode
from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.redis import encode, moves
from shardproxy.protocol.redis.replies import values_of
from shardproxy.topology.redis_ring import MovingRing
from shardproxy.topology.redis_routing import Routing

MOST_HERE = 200_000  # keys that are known to have arrived; more are looked up again
REPLICAS_WAIT = 500  # milliseconds that a pull waits for the target's replicas
BIG_AGAIN = 0.1  # seconds until it is looked whether the mover has brought a large key
AGAIN = 0.02  # seconds until a node that has another fence than we is asked again
LATE = encode.error(
    "TRYAGAIN the key is being moved to another node, and the move did not go on in time, or it is large and takes "
    "longer; the command was not sent"
)


class Puller:
    """For one map of a ring with a move. hold: seconds that a command waits at most.

    pulled: keys that were found at the source and brought to the target.
    """

    def __init__(self, ring: MovingRing, routing: Routing, nodes: Sequence[RedisNode], hold: float) -> None:
        self.pulled = 0
        self.held = 0  # commands that had to wait
        self._ring = ring
        self._routing = routing
        self._source = nodes[routing.source]
        self._target = nodes[routing.target]
        self._hold = hold
        self._loop = self._source.loop
        self._waiting: dict[Waiter, float] = {}  # → since when
        self._pulls: dict[bytes, list[Waiter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._losses = 0  # of connections to the target
        if routing.pulls:
            self._target.when_lost = self._forget

    @property
    def moves(self) -> bool:
        """Whether keys go now, so that no look over several nodes is one moment's."""
        return self._routing.pulls

    def wait(self, waiter: Waiter) -> None:
        """Someone has a command on keys that are on their way. It goes on when they have come, or under another map."""
        self.held += 1
        self._waiting[waiter] = self._loop.time()
        if not self._routing.pulls:
            return
        keys = waiter.wanted_keys()
        if not keys:
            self._loop.call_soon(self._go_on, waiter)
        for key in keys:
            waiters = self._pulls.get(key)
            if waiters is None:
                waiters = self._pulls[key] = []
                task = self._loop.create_task(self._bring(key))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if key is keys[-1]:  # when others are still missing then, it comes again
                waiters.append(waiter)

    def retire(self) -> None:
        """There is another map. Steps that were sent are harmless; everybody looks again."""
        if self._target.when_lost == self._forget:
            self._target.when_lost = None
        for task in self._tasks:
            task.cancel()
        self._pulls.clear()
        for waiter in list(self._waiting):
            self._go_on(waiter)

    def _forget(self) -> None:
        """The next connection to the target may find another process, which lacks keys that had come."""
        self._losses += 1
        self._ring.here.clear()

    def tick(self) -> None:
        """To be called a few times a second: nobody waits for ever."""
        late = self._loop.time() - self._hold
        for waiter in [waiter for waiter, since in self._waiting.items() if since < late]:
            del self._waiting[waiter]
            waiter.refuse(LATE)

    def _go_on(self, waiter: Waiter) -> None:
        if self._waiting.pop(waiter, None) is not None:
            waiter.go_on()

    async def _bring(self, key: bytes) -> None:
        while True:
            losses = self._losses
            error = await self._pull(key)
            if error or losses == self._losses:
                break
        waiters = self._pulls.pop(key, [])
        if not error:
            if len(self._ring.here) >= MOST_HERE:
                self._ring.here.clear()
            self._ring.here.add(key)
        for waiter in waiters:
            if not error:
                self._go_on(waiter)
            elif self._waiting.pop(waiter, None) is not None:
                waiter.refuse(error)

    async def _pull(self, key: bytes) -> bytes:
        """Pull a key. Returns an error for who waits for it; empty when it is not at the source any more."""
        if key.startswith(moves.STAYS):
            return b""
        ident = self._routing.move
        occupied = False
        while True:
            reply = await self._ask(self._source, moves.take(ident, key))
            if reply.startswith(moves.CLOSED):
                await asyncio.sleep(AGAIN)  # another map is on its way
                continue
            if reply.startswith(moves.TOO_BIG):
                await asyncio.sleep(BIG_AGAIN)
                if not any(waiter in self._waiting for waiter in self._pulls.get(key, ())):
                    return LATE
                continue
            if reply[:1] == b"-":
                return _not_brought(self._source, reply)
            if reply[:1] != b"*" or reply[1:2] == b"-":
                return b""
            if occupied:
                return _not_brought(self._target, b"-ERR the node has a key of this name that nobody has moved there")
            dump, expires = _taken(reply)
            reply, safe = await self._put(moves.put(ident, key, dump, expires))
            # It may have expired at the source meanwhile, and have been made anew at the target: look again.
            occupied = reply.startswith(moves.OCCUPIED)
            if occupied or reply.startswith(moves.CLOSED):
                await asyncio.sleep(AGAIN)
                continue
            if reply[:1] == b"-":
                return _not_brought(self._target, reply)
            if not safe:
                self.pulled += 1
                return b""
            reply = await self._ask(self._source, moves.drop(moves.opened(ident), [key]))
            if reply.startswith(moves.CLOSED):
                await asyncio.sleep(AGAIN)
                continue
            if reply[:1] == b"-":
                return _not_brought(self._source, reply)
            self.pulled += 1
            return b""

    async def _put(self, words: Sequence[bytes]) -> tuple[bytes, bool]:
        """The reply to a put, and whether all replicas of the target that must have the key have it."""
        count = self._routing.replicas
        own = self._target.own
        link = own.borrow(False) if count and self._target.up else None
        if link is None:
            return await self._ask(self._target, words), not count
        try:
            # WAIT blocks the connection, and is about what this connection has done.
            asked = [words, *moves.wait_for(count, REPLICAS_WAIT)]
            reply, _, waited = await asyncio.gather(*[ask(link, each) for each in asked])
        finally:
            own.give_back(link)
        return reply, waited[:1] == b":" and int(waited[1:-2]) >= count

    async def _ask(self, node: RedisNode, words: Sequence[bytes]) -> bytes:
        link: Link = node.link(False, 0)
        return await ask(link, words)


def _taken(reply: bytes) -> tuple[bytes, int]:
    """Of what `moves.take` answers. Raises RemoteProtocolError."""
    values = values_of(reply)
    if len(values) != 2 or values[0][:1] != b"$" or values[1][:1] != b":":
        raise RemoteProtocolError("a node answers a question about a key with something else than its dump")
    begin = values[0].index(b"\r\n") + 2
    return values[0][begin:-2], int(values[1][1:-2])


def _not_brought(node: RedisNode, reply: bytes) -> bytes:
    why = reply[1:-2].decode(errors="replace")
    return encode.error(
        f"ERR the key is being moved, and could not be brought to its node (node {node.name}: {why}); "
        "the command was not sent, send it again"
    )
