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
    the highest epoch counts, so that one that was cut off does not lead back to a former primary. At the start, when
    no epoch is known, a node is held until more than half of them have told where it is and each was tried.
    """

    def __init__(
        self, addresses: Sequence[tuple[str, int]], nodes: Mapping[str, RedisNode], settings: LinkSettings
    ) -> None:
        self._addresses = list(dict.fromkeys(addresses))
        self._nodes = nodes
        self._settings = settings
        self._unknown: set[str] = set()
        self._epochs: dict[str, int] = {}
        # Of nodes that are held: epoch, host and port by who has told them.
        self._first: dict[str, dict[tuple[str, int], tuple[int, str, int]]] = {name: {} for name in nodes}
        self._tried: set[tuple[str, int]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Hold the nodes until sentinels have told where they are, and begin to listen."""
        for name in self._nodes:
            self._hold(name)
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
                self.lost((host, port))
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
                            await self._ask(asker, (host, port), name)
                    self.tried((host, port))
                    try:
                        async with asyncio.timeout(ASK_EVERY):
                            await messages.next()
                    except TimeoutError:
                        pass
            finally:
                asker.close()
        finally:
            messages.close()

    async def _ask(self, asker: Asker, sentinel: tuple[str, int], name: str) -> None:
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
        self.heard(sentinel, name, int(fields["config-epoch"]), text_of(address[0]), int(text_of(address[1])))

    def heard(self, sentinel: tuple[str, int], name: str, epoch: int, host: str, port: int) -> None:
        """A sentinel says where the primary is. What is not newer than what was heard before counts no more."""
        if name in self._first:
            self._first[name][sentinel] = epoch, host, port
            self._decide(name)
        elif epoch > self._epochs[name]:
            self._epochs[name] = epoch
            self._nodes[name].move(host, port)

    def tried(self, sentinel: tuple[str, int]) -> None:
        """A sentinel has told what it knows, or could not be asked."""
        self._tried.add(sentinel)
        for name in list(self._first):
            self._decide(name)

    def lost(self, sentinel: tuple[str, int]) -> None:
        """A sentinel cannot be asked: what it told does not help to make more than half any more."""
        for answers in self._first.values():
            answers.pop(sentinel, None)
        self.tried(sentinel)

    def _decide(self, name: str) -> None:
        """Where a held node is, when enough of them have told. One alone may know nothing of a failover, and the former
        primary may still take writes. Who made the failover is asked too, if it answers: others hear of it later."""
        answers = self._first[name]
        if not self._enough(name) or len(self._tried) < len(self._addresses):
            self._hold(name)
            return
        del self._first[name]
        self._epochs[name], host, port = max(answers.values())
        self._nodes[name].move(host, port)

    def _enough(self, name: str) -> bool:
        return 2 * len(self._first[name]) > len(self._addresses)

    def _hold(self, name: str) -> None:
        told, of = len(self._first[name]), len(self._addresses)
        if not told:
            why = "no sentinel has told yet where it is"
        elif not self._enough(name):
            why = f"{told} of {of} sentinels have told where it is, and more than half must"
        else:
            why = "sentinels are still being asked where it is"
        self._nodes[name].hold(why)


def text_of(bulk: bytes) -> str:
    """The text of a bulk string as it is on the wire."""
    return bulk[bulk.index(b"\r\n") + 2 : -2].decode()
