"""In place of the node of keys that are on their way to another one."""

from __future__ import annotations

from collections.abc import Callable

from shardproxy.backend.redis.link import Link, Waiter
from shardproxy.backend.redis.node import RedisNode


class Nowhere(Link):
    """A link that is always full: who has a command for it waits, and looks again for its node. wait: what is done with
    who waits; None: nothing moves, and nobody comes."""

    def __init__(self, node: RedisNode) -> None:
        super().__init__(node, False, 0)
        self.full = True
        self.wait: Callable[[Waiter], None] | None = None

    def when_free(self, waiter: Waiter) -> None:
        if self.wait is not None:
            self.wait(waiter)
