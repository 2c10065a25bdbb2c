"""Telling processes on this machine that a file has changed, within a fraction of a millisecond.

Whoever listens has a FIFO in a folder beside the file; whoever has changed the file writes some bytes into each FIFO
there: marks, which say what kind of keys it has changed. At a switch all proxies would look at all that any of them
writes, else. A ring can be missed (its writer was killed before it rang), so listeners look at the file now and then
too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

_BELL = ".bell"
ANY = b"!"  # the mark of whatever kind


def mark(key: str) -> bytes:
    """The mark of a key, or of a prefix of keys: of what stands before its slash. ANY without one; kinds may share a
    mark."""
    kind, slash, _ = key.partition("/")
    return bytes((128 + crc32(kind.encode()) % 128,)) if slash else ANY


def concerns(marks: bytes, mine: bytes) -> bool:
    """Whether a ring with these marks is for who waits for one."""
    return mine == ANY or ANY in marks or mine in marks


class Bell:
    """A FIFO that calls `heard` with marks, in the running event loop, when somebody rings. Raises OSError."""

    def __init__(self, folder: Path, heard: Callable[[bytes], None]) -> None:
        folder.mkdir(exist_ok=True)
        name = os.urandom(8).hex()
        hidden = folder / f"{name}.new"
        os.mkfifo(hidden, folder.stat().st_mode & 0o666)  # who may not write into the folder may not ring
        # Open for both, so that it always has a reader and never comes to an end; then show it: a FIFO that nobody
        # reads counts as left behind by the dead.
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._path = folder / f"{name}{_BELL}"
        hidden.rename(self._path)
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def _readable(self) -> None:
        marks = ANY
        with contextlib.suppress(BlockingIOError):
            marks = os.read(self._descriptor, 4096)
        self._heard(marks)


def ring(folder: Path, marks: bytes) -> None:
    """Ring every bell of the folder; those of dead processes are removed. Never blocks, raises nothing."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(_BELL)]
    except OSError:
        return  # nobody has ever listened
    for name in names:
        try:
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:
                with contextlib.suppress(OSError):
                    os.unlink(folder / name)
            continue
        try:
            with contextlib.suppress(OSError):  # full: it has been rung often enough
                os.write(descriptor, marks)
        finally:
            os.close(descriptor)
