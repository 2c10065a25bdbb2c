"""A Redis node as the cache sees it: which process it is, and commands whose replies are awaited."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from shardproxy.backend.redis.link import UP, Greeting, Link
from shardproxy.backend.redis.node import RedisNode
from shardproxy.backend.redis.slot import Answer, Slot
from shardproxy.cache.entries import Script
from shardproxy.errors import BackendError, BackendLost
from shardproxy.protocol.redis import encode

_RUN = re.compile(rb"run_id:([0-9a-f]{16})")
_POLICY = re.compile(rb"maxmemory_policy:(\S+)")
# Others throw away what was written last, or what ends first: tombstones.
_POLICIES = (b"noeviction", b"allkeys-lru", b"volatile-lru")


class CacheNode(RedisNode):
    """run: of the process behind the connection, "" while there is none. unfit: why it cannot be a cache."""

    run = ""
    unfit = ""

    @property
    def main(self) -> Link:
        """The connection, RESP2, that the cache uses."""
        return self.link(False, 0)

    @property
    def usable(self) -> bool:
        """What is sent now goes to the process `run`."""
        return self.main.state == UP and not self.unfit and not self.main.full

    async def greeted(self, link: Link) -> None:
        transport = link.transport
        assert transport is not None
        greeting = Greeting(1)
        link.expect_first(greeting.slot)
        transport.write(encode.command([b"INFO", b"everything"]))
        reply = await greeting.future
        run, policy = _RUN.search(reply), _POLICY.search(reply)
        self.run = run[1].decode() if run is not None else ""
        self.unfit = ""
        if run is None:
            self.unfit = f"node {self.name} ({self.address}) does not say its run_id in INFO"
        elif policy is not None and policy[1] not in _POLICIES:
            names = ", ".join(name.decode() for name in _POLICIES)
            self.unfit = (
                f"node {self.name} ({self.address}) has maxmemory-policy {policy[1].decode()}, which throws away "
                f"tombstones: set one of {names}"
            )

    def send(self, command: bytes, told: Callable[[bytes], None]) -> None:
        """Send a command, as wire bytes; its reply, or an error, is given to `told`: see `usable`."""
        link = self.main
        slot = Slot(None, 1)
        slot.joint = Answer(told)
        link.expect(slot)
        link.fresh += 1
        link.out.append(command)
        link.flush()

    async def ask(self, words: Sequence[bytes]) -> bytes:
        """The reply of a command. Raises BackendLost without a usable connection, BackendError for an error reply."""
        if not self.usable:
            raise BackendLost(self.unfit or f"node {self.name} ({self.address}): {self.why_down or 'not connected'}")
        answer: asyncio.Future[bytes] = self.loop.create_future()

        def told(reply: bytes) -> None:
            if not answer.done():
                answer.set_result(reply)

        self.send(encode.command(words), told)
        reply = await answer
        if reply[:1] == b"-":
            raise BackendError(f"node {self.name} ({self.address}): {reply[1:-2].decode(errors='replace')}")
        return reply

    async def run_script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> int:
        """The number that a script returns. Raises as `ask`."""
        try:
            reply = await self.ask(script.words(keys, arguments))
        except BackendError as error:
            if "NOSCRIPT" not in str(error):
                raise
            reply = await self.ask(script.words(keys, arguments, known=False))
        return int(reply[1:-2])
