"""How new the replicas of a node are: by what primary and replicas say of their offsets, asked again and again.

Whatever the primary has done before it is asked is in the offset that it tells. A replica with that offset or a later
one has all of it. So there is always a moment of which is known that a replica has everything older, by our own clock
only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic

from shardproxy.backend.redis.asking import Asker, Refused
from shardproxy.backend.redis.node import RedisNode
from shardproxy.errors import RemoteProtocolError

POLL = 0.2  # seconds
_KEPT = 600  # offsets: what is further behind than two minutes counts as unknown


class Replication:
    """Of one node: keeps `complete_until` of its replicas, from `start` to `close`."""

    def __init__(self, primary: RedisNode, replicas: Sequence[RedisNode]) -> None:
        self._primary = primary
        self._replicas = list(replicas)
        self._history = History()
        self._askers: dict[RedisNode, tuple[str, Asker]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = self._primary.loop.create_task(self._run())

    def close(self) -> None:
        """For good."""
        if self._task is not None:
            self._task.cancel()
        for node in list(self._askers):
            self._forget(node)

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(POLL)

    async def look(self) -> None:
        """Ask all of them once."""
        await self._ask_primary()
        await asyncio.gather(*(self._ask_replica(replica) for replica in self._replicas))

    async def _ask_primary(self) -> None:
        asked = monotonic()
        told = await self._told(self._primary)
        if told.get("role") == "master" and "master_replid" in told:  # the protocol's own word
            self._history.add(told["master_replid"], int(told["master_repl_offset"]), asked)

    async def _ask_replica(self, replica: RedisNode) -> None:
        failures = replica.failures
        told = await self._told(replica)
        if replica.failures != failures:  # perhaps it was another process that said so
            replica.complete_until = None
        elif told.get("role") == "slave" and told.get("master_link_status") == "up":
            until = self._history.complete_until(told.get("master_replid", ""), int(told.get("slave_repl_offset", -1)))
            replica.complete_until = until
        else:
            replica.complete_until = None

    async def _told(self, node: RedisNode) -> dict[str, str]:
        """What INFO replication says; empty when nobody says it."""
        try:
            async with asyncio.timeout(node.settings.connect_timeout):
                asker = await self._asker(node)
                return fields_of(await asker.ask(b"INFO", b"replication"))
        except (OSError, Refused, RemoteProtocolError):  # a TimeoutError is an OSError
            self._forget(node)
            return {}

    async def _asker(self, node: RedisNode) -> Asker:
        # A connection from before the last failure may lead to a process of before.
        process = f"{node.address} {node.failures}"
        known, asker = self._askers.get(node, ("", None))
        if asker is None or known != process:
            self._forget(node)
            s = node.settings
            asker = await Asker.open(node.host, node.port, s.user, s.password, s.tls)
            self._askers[node] = process, asker
        return asker

    def _forget(self, node: RedisNode) -> None:
        _, asker = self._askers.pop(node, ("", None))
        if asker is not None:
            asker.close()


class History:
    """What offsets a primary had, and when it was asked."""

    def __init__(self) -> None:
        self._ident = ""
        self._offsets: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    def add(self, ident: str, offset: int, asked: float) -> None:
        """ident: of the primary's history; offsets of another one mean nothing here."""
        if ident != self._ident:
            self._ident = ident
            self._offsets.clear()
        self._offsets.append((offset, asked))

    def complete_until(self, ident: str, offset: int) -> float | None:
        """The moment before which all is in a replica with this offset; None when there is none."""
        if ident == self._ident:
            for told, asked in reversed(self._offsets):
                if told <= offset:
                    return asked
        return None


def fields_of(answer: bytes) -> dict[str, str]:
    """The lines name:value of INFO."""
    lines = answer.decode(errors="replace").split("\r\n")
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
