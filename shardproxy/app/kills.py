"""KILL of a client that another worker has: the supervisor passes the request on, and the answer back.

A client's number says which worker has it. One that dies meanwhile has no client any more.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.app.worker_handle import WorkerHandle


class Kills:
    """workers: all of them, once they are there, each at its index."""

    def __init__(self, workers: Sequence[WorkerHandle]) -> None:
        self._workers = workers
        self._asked: dict[tuple[int, int], WorkerHandle] = {}  # worker that has the client, request → who asks

    def ask(self, asker: WorkerHandle, request: int, ident: int, query_only: bool, user: str) -> None:
        """A worker asks for a client that it does not have."""
        target = next((w for w in self._workers if w.index == ident >> 24), None)
        if target is None or target.channel is None or not target.ready:
            if asker.channel is not None:
                asker.channel.send("killed", request, False)
            return
        key = request << 8 | asker.index
        self._asked[target.index, key] = asker
        target.channel.send("kill", key, ident, query_only, user)

    def answered(self, target: WorkerHandle, request: int, done: bool) -> None:
        """The worker that was asked has killed it, or has none such."""
        asker = self._asked.pop((target.index, request), None)
        if asker is not None and asker.channel is not None:
            asker.channel.send("killed", request >> 8, done)

    def died(self, worker: WorkerHandle) -> None:
        """Whoever waits for it to KILL a client of its is told that there is none."""
        for target, request in [key for key in self._asked if key[0] == worker.index]:
            asker = self._asked.pop((target, request))
            if asker.channel is not None:
                asker.channel.send("killed", request >> 8, False)
