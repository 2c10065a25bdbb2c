"""Several streams of sorted rows become one, a round at a time.

In each round all rows go out that are certainly smaller than what is still to come: those up to the smallest of the
streams' last keys. They are sorted runs, which Python's sort merges fast.
"""

from __future__ import annotations

from bisect import bisect_right

from shardproxy.errors import BackendError
from shardproxy.merge.stream import ShardStream

NO_LIMIT = 1 << 64


class Window:
    """LIMIT and OFFSET on the way out. full: no more rows are wanted."""

    def __init__(self, limit: int, offset: int) -> None:
        self.full = not limit
        self._skip = offset
        self._left = limit

    def cut(self, rows: list[bytes]) -> list[bytes]:
        """Those of the next rows that are wanted."""
        if self._skip:
            skipped = min(self._skip, len(rows))
            self._skip -= skipped
            rows = rows[skipped:]
        if len(rows) >= self._left:
            rows = rows[: self._left]
            self.full = True
        self._left -= len(rows)
        return rows


class Ordered:
    """Rows of the streams in order: all, or one of each run of equal keys (distinct). done: no more will come."""

    def __init__(self, streams: list[ShardStream], distinct: bool) -> None:
        self.streams = streams
        self.done = False
        self._distinct = distinct
        self._last: bytes | None = None

    def hungry(self) -> list[ShardStream]:
        """The streams that must be fed before the next round."""
        return [s for s in self.streams if not s.ended and not s.waiting]

    def round(self) -> list[bytes]:
        """The next rows; empty at the end, and then `done`. Raises BackendError when a stream is not sorted."""
        keys, rows = next_run(self.streams)
        if not rows:
            self.done = True
            return rows
        if self._distinct:
            rows = self._without_repeats(keys, rows)
        return rows

    def _without_repeats(self, keys: list[bytes], rows: list[bytes]) -> list[bytes]:
        kept: list[bytes] = []
        last = self._last
        for i in range(len(keys)):
            key = keys[i]
            if key != last:
                last = key
                kept.append(rows[i])
        self._last = last
        return kept


def next_run(streams: list[ShardStream]) -> tuple[list[bytes], list[bytes]]:
    """Keys and rows of all streams up to where one of them must be fed again, in order.

    Every stream that has not ended has rows waiting.
    """
    bounds = [s.keys[-1] for s in streams if not s.ended]
    bound = min(bounds) if bounds else None
    keys: list[bytes] = []
    rows: list[bytes] = []
    sources = 0
    for stream in streams:
        if stream.at == len(stream.keys):
            continue
        end = len(stream.keys) if bound is None else bisect_right(stream.keys, bound, stream.at)
        if end > stream.at:
            part = stream.keys[stream.at : end]
            if part[0] < stream.last or part != sorted(part):
                raise BackendError(
                    "a shard's rows are not in the order that their sort keys say: they cannot be merged"
                )
            keys += part
            rows += stream.rows[stream.at : end]
            sources += 1
            stream.take(end)
    if sources > 1:
        order = sorted(range(len(keys)), key=keys.__getitem__)
        keys = [keys[i] for i in order]
        rows = [rows[i] for i in order]
    return keys, rows


def packed(rows: list[bytes], seq: int) -> bytes:
    """The rows as packets, the first with sequence id `seq`; a row of 16 MiB or more takes several."""
    pieces: list[bytes] = []
    for row in rows:
        length = len(row)
        while length >= 0xFFFFFF:
            pieces.append(b"\xff\xff\xff" + bytes((seq & 0xFF,)))
            pieces.append(row[:0xFFFFFF])
            row = row[0xFFFFFF:]
            length = len(row)
            seq += 1
        pieces.append((length | (seq & 0xFF) << 24).to_bytes(4, "little"))
        pieces.append(row)
        seq += 1
    return b"".join(pieces)


def packets_of(rows: list[bytes]) -> int:
    """How many packets they take."""
    return sum([len(row) // 0xFFFFFF + 1 for row in rows])
