"""Rows sorted after they were combined: in memory up to a bound, beyond it in sorted runs on disk."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO

BOUND = 16 << 20  # bytes of keys and rows in memory
_OVERHEAD = 120  # bytes of memory that a row takes beside its own
_BATCH = 512  # rows handed out at once


class Sorter:
    """`add` keys and rows, then `sorted`. A context: its files are gone when it is left.

    most: only so many rows are wanted; the others are dropped as soon as that is certain.
    """

    def __init__(self, most: int, bound: int = BOUND) -> None:
        self._most = most
        self._bound = bound
        self._entries: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._runs: list[IO[bytes]] = []

    def __enter__(self) -> Sorter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in self._runs:
            run.close()

    @property
    def runs(self) -> int:
        """Runs on disk."""
        return len(self._runs)

    def add(self, keys: list[bytes], rows: list[bytes]) -> None:
        """More rows."""
        for key, row in zip(keys, rows, strict=True):
            self._entries.append((key, row))
            self._size += len(key) + len(row) + _OVERHEAD
            if self._size > self._bound:
                self._shrink()

    def _shrink(self) -> None:
        entries = self._entries
        entries.sort()
        del entries[self._most :]
        self._size = sum(len(key) + len(row) + _OVERHEAD for key, row in entries)
        if self._size <= self._bound // 2:
            return
        run = tempfile.TemporaryFile()  # noqa: SIM115 — closed by __exit__
        self._runs.append(run)
        for key, row in entries:
            run.write(len(key).to_bytes(4, "little") + len(row).to_bytes(4, "little") + key + row)
        self._entries = []
        self._size = 0

    def sorted(self) -> Iterator[list[bytes]]:
        """All rows in order of their keys, in batches."""
        self._entries.sort()
        batch: list[bytes] = []
        for _, row in heapq.merge(*map(_read, self._runs), self._entries):
            batch.append(row)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _read(run: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    run.seek(0)
    while head := run.read(8):
        key, row = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
        yield run.read(key), run.read(row)
