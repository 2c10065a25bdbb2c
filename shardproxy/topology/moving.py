"""The keys that a move takes from one shard to another: as a decision, and as a condition in SQL.

Both must agree for every value that a key column can hold; the tests compare them on the servers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from shardproxy.topology.keys import BUCKETS, KeyType, KeyValue, bucket_of, canonical_text

_FEW_RUNS = 4  # so many ranges of buckets are cheaper as BETWEEN than as a list
_FEW_KEYS = 64  # that are looked at one by one


class MovingKeys:
    """Keys in half-open integer intervals (range maps), in buckets (bucket maps), or in both, where they go from one
    kind of map to the other. Immutable."""

    __slots__ = ("_ends", "_listed", "_runs", "_starts", "buckets", "intervals", "key_type")

    def __init__(
        self,
        key_type: KeyType,
        intervals: Sequence[tuple[int, int]] | None = None,
        buckets: Iterable[int] | None = None,
    ) -> None:
        if intervals is None and buckets is None:
            raise ValueError("moving keys are those of intervals, of buckets, or of both")
        self.key_type = key_type
        self.intervals = None if intervals is None else tuple(sorted(intervals))
        self.buckets = None if buckets is None else frozenset(buckets)
        self._runs: list[tuple[int, int]] | None = None  # of the buckets, when they have been asked for
        self._listed = b""
        if self.intervals is not None:
            if key_type is not KeyType.INT:
                raise ValueError("only integer keys move by intervals")
            if any(start >= end for start, end in self.intervals):
                raise ValueError("an interval is empty")
            if any(later[0] < earlier[1] for earlier, later in pairwise(self.intervals)):
                raise ValueError("intervals overlap")
            self._starts = [start for start, _ in self.intervals]
            self._ends = [end for _, end in self.intervals]
        if self.buckets is not None and not all(0 <= bucket < BUCKETS for bucket in self.buckets):
            raise ValueError(f"buckets are numbered from 0 to {BUCKETS - 1}")

    def __contains__(self, key: KeyValue) -> bool:
        """Whether the row with this key moves."""
        if self.intervals is not None:
            if not isinstance(key, int):
                raise TypeError("intervals hold integers")
            i = bisect_right(self._starts, key) - 1
            if i < 0 or key >= self._ends[i]:
                return False
        return self.buckets is None or bucket_of(key) in self.buckets

    def meets(self, low: int | None, high: int | None) -> bool:
        """Whether keys of the closed interval [low, high] may be among them; None is unbounded."""
        if low is not None and high is not None and high - low < _FEW_KEYS:
            return any(key in self for key in range(low, high + 1))
        if self.intervals is None:
            return True
        return any((high is None or start <= high) and (low is None or end > low) for start, end in self.intervals)

    def holds_text(self, value: bytes | None) -> bool:
        """The same from what a SELECT of the key column gives as text. A NULL key moves nowhere."""
        if value is None:
            return False
        if self.key_type is KeyType.INT:
            return int(value) in self
        return (canonical_text(value) if self.key_type is KeyType.TEXT else value) in self

    def condition(self, column: str) -> bytes:
        """SQL that is true for the rows that move, in parentheses. column: its name without quotes."""
        return self.condition_on(b"`" + column.replace("`", "``").encode() + b"`")

    def condition_on(self, name: bytes) -> bytes:
        """The same; name: the column as SQL has it, quoted, with its table or without."""
        if self.intervals is None:
            return self._in_buckets(name)
        parts = [b"%s BETWEEN %d AND %d" % (name, start, end - 1) for start, end in self.intervals]
        inside = b"(" + (b" OR ".join(parts) or b"FALSE") + b")"
        return inside if self.buckets is None else b"(%s AND %s)" % (inside, self._in_buckets(name))

    def _in_buckets(self, name: bytes) -> bytes:
        assert self.buckets is not None
        value = b"RTRIM(%s)" % name if self.key_type is KeyType.TEXT else name
        bucket = b"CRC32(CRC32(%s)) %% %d" % (value, BUCKETS)
        if self._runs is None:
            self._runs = _runs(sorted(self.buckets))
            self._listed = b",".join([b"%d" % b for b in sorted(self.buckets)])
        runs = self._runs
        if not runs:
            return b"(FALSE)"
        if runs == [(0, BUCKETS - 1)]:
            return b"(%s IS NOT NULL)" % name
        if len(runs) <= _FEW_RUNS:
            return b"(" + b" OR ".join(b"%s BETWEEN %d AND %d" % (bucket, *run) for run in runs) + b")"
        return b"(%s IN (%s))" % (bucket, self._listed)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MovingKeys)
            and (other.key_type, other.intervals, other.buckets) == (self.key_type, self.intervals, self.buckets)
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.key_type, self.intervals, self.buckets))

    def __reduce__(self) -> tuple[type[MovingKeys], tuple[object, ...]]:
        return MovingKeys, (self.key_type, self.intervals, self.buckets)


def every_key(key_type: KeyType) -> MovingKeys:
    """All keys that are not NULL."""
    return MovingKeys(key_type, buckets=range(BUCKETS))


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as closed ranges."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
