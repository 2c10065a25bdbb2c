"""How fast rows may be copied so that an application beside it does not notice: by how long the servers take to answer.

A server that has more to do than it can answers everybody later, its application too. So small statements are timed
all the while, without copying first. Where they take much longer than then, the rate goes down by a part; else it goes
up by a smaller one. Where nobody else sends statements there is nobody to be gentle with.

Pure: times and counts are passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FIRST, LEAST = 4000.0, 1000.0  # rows a second: when traffic is found, and however slow the servers are
CALM = 20  # measured times without copying that tell what is usual
AGAIN = 60.0  # seconds after which copying pauses to learn it anew
_BUSY = 50.0  # statements of others a second on one server, from which on there is an application
_SLOWER, _FASTER = 0.7, 1.1
_TIMES, _MARGIN = 1.5, 0.0002  # what may be usual: so many times, and so many seconds more


class Gentle:
    """rate: rows a second, 0 is no limit. learning: nothing may be copied now. reason: why the rate is low, for people.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self.reason = ""
        self._usual: dict[str, float] = {}  # server → seconds
        self._calm: dict[str, list[float]] = {}
        self._learnt_at = 0.0
        self._copied = 0.0
        self.learning = True

    def copied(self, rows: int) -> None:
        """So many rows are about to be written."""
        self._copied += rows

    def heard(self, times: Mapping[str, Sequence[float]], others: float, seconds: float, now: float) -> None:
        """Take what was measured in the last `seconds`. times: by server; others: statements a second of others, on the
        server that has most of them; now: seconds of any clock."""
        reached, self._copied = self._copied / seconds, 0.0
        if self.learning:
            self._learn(times, now)
            return
        if others < _BUSY:
            self.rate, self.reason = 0.0, ""
            return
        late = self._late(times)
        if not self.rate:
            self.rate = FIRST
        elif late:
            self.rate = max(LEAST, min(self.rate, max(reached, LEAST)) * _SLOWER)
        elif reached > self.rate / 2:  # the rate is what holds it
            self.rate *= _FASTER
        self.reason = late
        if now - self._learnt_at > AGAIN:
            self.learning = True

    def _learn(self, times: Mapping[str, Sequence[float]], now: float) -> None:
        for server, found in times.items():
            self._calm.setdefault(server, []).extend(found)
        if self._calm and all(len(found) >= CALM for found in self._calm.values()):
            self._usual = {server: high(found) for server, found in self._calm.items()}
            self._calm = {}
            self.learning, self._learnt_at = False, now

    def _late(self, times: Mapping[str, Sequence[float]]) -> str:
        for server, found in times.items():
            usual = self._usual.get(server)
            if found and usual is not None and high(found) > usual * _TIMES + _MARGIN:
                return f"{server} answers in {high(found) * 1e3:.1f} ms, in {usual * 1e3:.1f} ms without copying"
        return ""


def high(times: Sequence[float]) -> float:
    """The 90th of a hundred."""
    ordered = sorted(times)
    return ordered[int(len(ordered) * 0.9)] if ordered else 0.0
