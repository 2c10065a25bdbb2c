"""How fast rows may be copied so that an application beside it hardly notices: by how long the servers take to answer.

A server that has more to do than it can answers everybody later, its application too. So small statements are timed,
first without copying and then all the while. A window of time in which one of twenty takes much longer than then
makes the rate smaller by a part; any other makes it larger by a step. Where nobody else sends statements there is
nobody to be gentle with.

One of twenty, not of a hundred: what is measured so differs from second to second less than half as much, and grows
with the rate as the application's own 99th of a hundred does.

Pure: times and counts are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FIRST, LEAST = 2000.0, 1000.0  # rows a second: when traffic is found, and however slow the servers are
CALM = 75  # measured times without copying that tell what is usual
AGAIN = 60.0  # seconds after which copying pauses to learn it anew
PATIENCE = 10.0  # seconds that learning may take; a server that says nothing until then has no say
_TELLS = 10  # times that one window needs to be worth something by itself
_BUSY = 50.0  # statements of others a second on one server, from which on there is an application
_SLOWER, _STEP = 0.7, 200.0  # a part, and rows a second
_TIMES, _MARGIN = 1.5, 0.0001  # what may be usual: so many times, and so many seconds more


class Gentle:
    """rate: rows a second, 0 is no limit. learning: nothing may be copied now. reason: why it is slow, for people."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.reason = ""
        self.learning = True
        self._usual: dict[str, float] = {}  # server → seconds
        self._calm: dict[str, list[list[float]]] = {}  # server → windows
        self._since: float | None = None  # when learning began; None: not yet
        self._learnt_at = 0.0
        self._copied = 0.0

    def copied(self, rows: int) -> None:
        """So many rows are about to be written."""
        self._copied += rows

    def heard(self, times: Mapping[str, Sequence[float]], others: float, seconds: float, now: float) -> None:
        """Take what was measured in the last `seconds`. times: by server; others: statements a second of others, on the
        server that has most of them; now: seconds of any clock."""
        reached, self._copied = self._copied / seconds, 0.0
        if others < _BUSY:
            self.rate, self.reason, self.learning = 0.0, "", False
            self._usual, self._calm, self._since = {}, {}, None
        elif self._since is None and (not self._usual or now - self._learnt_at > AGAIN):
            # What was measured until now may be from beside a copy.
            self.learning, self._since = True, now
        elif self._since is not None:
            self._learn(times, now, self._since)
        else:
            self._judge(times, reached)

    def _learn(self, times: Mapping[str, Sequence[float]], now: float, since: float) -> None:
        for server, found in times.items():
            self._calm.setdefault(server, []).append(list(found))
        enough = self._calm and all(sum(map(len, windows)) >= CALM for windows in self._calm.values())
        if enough or now - since > PATIENCE:
            self._usual = {server: _usual(windows) for server, windows in self._calm.items()}
            self._calm, self._since = {}, None
            self.learning, self._learnt_at = False, now
            self.rate = self.rate or FIRST

    def _judge(self, times: Mapping[str, Sequence[float]], reached: float) -> None:
        self.reason = late = self._late(times)
        if late:
            self.rate = max(LEAST, min(self.rate, reached) * _SLOWER)
        elif reached > self.rate / 2:  # the rate is what holds it
            self.rate += _STEP

    def _late(self, times: Mapping[str, Sequence[float]]) -> str:
        for server, found in times.items():
            usual = self._usual.get(server)
            if found and usual is not None and high(found) > usual * _TIMES + _MARGIN:
                return f"{server} answers in {high(found) * 1e3:.1f} ms, in {usual * 1e3:.1f} ms without copying"
        return ""


def _usual(windows: Sequence[Sequence[float]]) -> float:
    """The quietest window's: a move just begun, or a pause of the machine, is not what is usual."""
    telling = [high(window) for window in windows if len(window) >= _TELLS]
    return min(telling, default=high([seconds for window in windows for seconds in window]))


def high(times: Sequence[float]) -> float:
    """The 95th of a hundred."""
    return sorted(times)[math.ceil(len(times) * 0.95) - 1] if times else 0.0
