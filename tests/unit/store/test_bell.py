"""Bells: who listens hears, who is dead is forgotten, who is deaf blocks nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from pathlib import Path

from shardproxy.store.bell import ANY, Bell, concerns, mark, ring


def test_every_bell_is_heard_until_it_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        heard = [asyncio.Event(), asyncio.Event()]
        bells = [Bell(tmp_path / "bells", partial(hear, event)) for event in heard]
        ring(tmp_path / "bells", ANY)
        async with asyncio.timeout(5):
            await asyncio.gather(*(event.wait() for event in heard))
        bells[0].close()
        for event in heard:
            event.clear()
        ring(tmp_path / "bells", ANY)
        async with asyncio.timeout(5):
            await heard[1].wait()
        assert not heard[0].is_set()
        bells[1].close()
        assert list((tmp_path / "bells").iterdir()) == []

    asyncio.run(main())


def test_ringing_where_nobody_ever_listened_does_nothing(tmp_path: Path) -> None:
    ring(tmp_path / "bells", ANY)
    assert not (tmp_path / "bells").exists()


def test_a_bell_without_a_reader_is_removed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dead.bell")
    (tmp_path / "other").touch()
    ring(tmp_path, ANY)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_listener_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        bell = Bell(tmp_path, lambda marks: None)
        fill(tmp_path)
        ring(tmp_path, ANY)
        assert len(os.listdir(tmp_path)) == 1
        bell.close()

    asyncio.run(main())


def test_who_listens_hears_what_concerns_it(tmp_path: Path) -> None:
    """A ring for one kind of keys wakes who watches these, or all; a mark that nobody knows wakes nobody."""
    for watched, changed, heard in (
        ("map/", "map/shop", True), ("map/", "ack/1", False), ("ack/1", "ack/2", True), ("", "ack/1", True),
        ("ma", "map/shop", True), ("map/", "alone", True), ("alone", "map/shop", True),
    ):  # fmt: skip
        assert concerns(mark(changed), mark(watched)) is heard, (watched, changed)
    assert concerns(mark("map/shop") + mark("ack/1"), mark("ack/"))

    async def main() -> None:
        told: asyncio.Queue[bytes] = asyncio.Queue()
        bell = Bell(tmp_path, told.put_nowait)
        ring(tmp_path, mark("map/shop"))
        async with asyncio.timeout(5):
            assert await told.get() == mark("map/")
        bell.close()

    asyncio.run(main())


def hear(event: asyncio.Event, marks: bytes) -> None:
    event.set()


def fill(folder: Path) -> None:
    """Ring the only bell there until no further byte fits in."""
    [path] = folder.iterdir()
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"!" * 4096)
    os.close(descriptor)
