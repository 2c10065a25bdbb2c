"""Sentinels: they say where the primaries are, also after they have made a replica the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from shardproxy import logs
from shardproxy.backend.redis.asking import Asker, Refused
from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.redis.replies import values_of

log = logs.Log("redis")

ASK_EVERY = 1.0  # seconds; messages are quicker
_AGAIN = 0.5  # seconds until one is tried again


class Sentinels:
    """Moves nodes to where the sentinels say they are, from `start` to `close`.

    nodes: by the names under which the sentinels watch them. Every sentinel is listened to: of what they say, that of
    the highest epoch counts, so that one that was cut off does not lead back to a former primary.
    """

    def __init__(
        self, addresses: Sequence[tuple[str, int]], nodes: Mapping[str, RedisNode], settings: LinkSettings
    ) -> None:
        self._addresses = list(addresses)
        self._nodes = nodes
        self._settings = settings
        self._unknown: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Hold the nodes until a sentinel has told where they are, and begin to listen."""
        for node in self._nodes.values():
            node.hold("no sentinel has told yet where it is")
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(host, port)) for host, port in self._addresses]

    def close(self) -> None:
        """For good."""
        for task in self._tasks:
            task.cancel()

    async def _follow(self, host: str, port: int) -> None:
        told = ""
        while True:
            try:
                await self._listen(host, port)
            except (OSError, Refused, RemoteProtocolError, ValueError, LookupError) as error:
                why = str(error) or "no answer"
                if why != told:
                    told = why
                    log.warning("redis_sentinel_lost", sentinel=f"{host}:{port}", reason=why)
            await asyncio.sleep(_AGAIN)

    async def _listen(self, host: str, port: int) -> None:
        s = self._settings
        async with asyncio.timeout(s.connect_timeout):
            messages = await Asker.open(host, port, "", None, s.tls)
        try:
            async with asyncio.timeout(s.connect_timeout):
                await messages.ask(b"SUBSCRIBE", b"+switch-master")
                asker = await Asker.open(host, port, "", None, s.tls)
            try:
                while True:
                    async with asyncio.timeout(s.connect_timeout):
                        for name in self._nodes:
                            await self._ask(asker, name)
                    try:
                        async with asyncio.timeout(ASK_EVERY):
                            await messages.next()
                    except TimeoutError:
                        pass
            finally:
                asker.close()
        finally:
            messages.close()

    async def _ask(self, asker: Asker, name: str) -> None:
        try:
            flat = values_of(await asker.ask(b"SENTINEL", b"MASTER", name.encode()))
            address = values_of(await asker.ask(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.encode()))
        except Refused as error:
            if name not in self._unknown:
                self._unknown.add(name)
                log.warning("redis_sentinel_does_not_know", name=name, reason=str(error))
            return
        self._unknown.discard(name)
        fields = dict(zip(map(text_of, flat[::2]), map(text_of, flat[1::2]), strict=True))
        self.heard(name, int(fields["config-epoch"]), text_of(address[0]), int(text_of(address[1])))

    def heard(self, name: str, epoch: int, host: str, port: int) -> None:
        """A sentinel says where the primary is. What is not newer than what was heard before counts no more."""
        if epoch > self._epochs.get(name, -1):
            self._epochs[name] = epoch
            self._nodes[name].move(host, port)


def text_of(bulk: bytes) -> str:
    """The text of a bulk string as it is on the wire."""
    return bulk[bulk.index(b"\r\n") + 2 : -2].decode()
