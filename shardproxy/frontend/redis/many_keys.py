"""A command of very many words, read and split in slices of the event loop: other clients go on meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardproxy.planner.redis.spec import CommandSpec, Way, find_spec
from shardproxy.protocol.redis.commands import CommandScanner
from shardproxy.router.redis import SLICE, Parts, split
from shardproxy.topology.redis_ring import RedisRing

if TYPE_CHECKING:
    from shardproxy.frontend.redis.connection import RedisClient


class ManyKeys:
    """The command that a client's scanner has found last, and on which the client stands until it is `ready`: then
    `args` are all its words."""

    def __init__(self, client: RedisClient, scanner: CommandScanner) -> None:
        self.args: list[bytes] = []
        self.ready = False
        self._pieces: list[bytes] = []  # the words as they are on the wire
        self._client = client
        self._scanner = scanner
        self._read = False  # all words are there
        self._ring: RedisRing = client.front.ring  # by which its keys are placed
        self._moving = client.front.puller is not None  # and may be elsewhere at the end
        self._parts: Parts | None = None

    def step(self) -> None:
        """Some more of it; at the end the client goes on."""
        client = self._client
        if client.transport is None:
            return
        parts = self._parts
        if not self._read:
            self._read = self._scanner.some_arguments(self.args, self._pieces, SLICE)
            spec = find_spec(self.args) if self._read else None
            if spec is not None and spec.way is Way.SPLIT and not self._moving:
                self._parts = Parts(spec, self.args, self._pieces)
        elif parts is None or parts.place(self._ring, SLICE):
            self.ready = True
            client.go_on()
            return
        client.turn.loop.call_soon(self.step)

    def split(self, spec: CommandSpec, ring: RedisRing) -> tuple[list[int], list[list[bytes]], list[list[int]]]:
        """As router.redis.split. When keys move, or have begun to meanwhile, all are placed now, at once."""
        parts = self._parts
        if parts is None or ring is not self._ring:
            return split(spec, self.args, self._pieces, ring)
        return parts.nodes, parts.words, parts.keys
