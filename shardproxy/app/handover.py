"""Which map nothing older than is in flight of, over all workers of this proxy (R3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping


class Handover:
    """Maps have numbers, in the order in which this proxy got them; each stands for one epoch of every keyspace.

    Whoever may have something in flight is in it: a worker from its start until it is proved that its server
    connections are over, which is later than its end. changed: set whenever `epochs` may have.
    """

    def __init__(self) -> None:
        self.number = 0  # of the newest map
        self.changed = asyncio.Event()
        self._epochs: dict[int, Mapping[str, int]] = {0: {}}
        self._answered: dict[int, int] = {}  # process → the map older than which it has nothing in flight

    def new_map(self, epochs: Mapping[str, int]) -> int:
        """There is a new map. Returns its number."""
        self.number += 1
        self._epochs[self.number] = dict(epochs)
        self.changed.set()
        return self.number

    def joined(self, pid: int) -> None:
        """A worker has started with the newest map."""
        self._answered[pid] = self.number

    def answered(self, pid: int, number: int) -> None:
        """Nothing that was planned under a map before this one is in flight on the worker."""
        if pid in self._answered:
            self._answered[pid] = max(self._answered[pid], number)
            self.changed.set()

    def left(self, pid: int) -> None:
        """Nothing of the worker, which has ended, is in flight any more."""
        if self._answered.pop(pid, None) is not None:
            self.changed.set()

    async def nobody(self) -> None:
        """Wait until all have left."""
        while self._answered:
            self.changed.clear()
            await self.changed.wait()

    @property
    def whole(self) -> bool:
        """All have answered for the newest map."""
        return min(self._answered.values(), default=self.number) == self.number

    @property
    def epochs(self) -> Mapping[str, int]:
        """Keyspace → epoch that all have answered for: to be acknowledged."""
        reached = min(self._answered.values(), default=self.number)
        for number in [n for n in self._epochs if n < reached]:
            del self._epochs[number]
        return self._epochs[reached]
