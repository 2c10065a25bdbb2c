"""The highest resident memory of some processes while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bench.rig.process_usage import rss

_SAMPLING = 0.02  # seconds


class Peak:
    """Context manager that watches from a thread. `before` is taken when it is made; bytes."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.highest = rss(pids)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLING):
            self.highest = max(self.highest, rss(self._pids))
