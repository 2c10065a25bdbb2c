"""CPU time that the hypervisor gave to others while we wanted it: what is measured then says nothing of what we run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_STAT = Path("/proc/stat")
_MOST = 0.01  # of the CPUs' time; a second with less is ours


def read_stat(text: str | None = None) -> tuple[int, int]:
    """Stolen ticks and all, of all CPUs since the machine's start (proc_stat(5)).

    text: of the file; None: what it has now. Both are 0 where there is no such file.
    """
    if text is None:
        text = _STAT.read_text() if _STAT.exists() else "cpu 0 0 0 0 0 0 0 0"
    ticks = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)


class Seconds:
    """Seconds since the start, by number, and which of them were not wholly ours. Call `run` in a thread."""

    def __init__(self, read: Callable[[], tuple[int, int]] = read_stat) -> None:
        self.now = 0
        self.stolen: set[int] = set()
        self._read = read
        self._last = read()

    def run(self, over: Callable[[], bool]) -> None:
        due = time.monotonic()
        while not over():
            due += 1.0
            time.sleep(max(0.0, due - time.monotonic()))  # a clock: there is nothing to wait for but time
            self.tick()

    def tick(self) -> None:
        """A second is over."""
        stolen, everything = self._read()
        if stolen - self._last[0] > _MOST * (everything - self._last[1]):
            self.stolen.add(self.now)
        self._last = (stolen, everything)
        self.now += 1
