"""What the process that reads a binlog has sent, however the socket cuts it."""

from __future__ import annotations

import asyncio
import marshal
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import BackendLost, ReshardError
from shardproxy.reshard.binlog import Piece
from shardproxy.reshard.binlog_process import BinlogProcess, _Born


def piece(number: int) -> Piece:
    return Piece(("a", number), (1, number), None, [(0, b"(1)", None, b"x")] * (number % 3))


def frame(kind: str, content: Any) -> bytes:
    data = marshal.dumps((kind, content))
    return len(data).to_bytes(4, "little") + data


def pieces(numbers: Sequence[int]) -> bytes:
    return frame("pieces", [tuple(piece(number)) for number in numbers])


async def all_of(parts: Sequence[bytes]) -> tuple[list[Piece], BaseException]:
    """What `read` gives and at last raises, when a socket gives these parts."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    process = BinlogProcess(_Born(0, 0), reader, writer)
    found: list[Piece] = []

    async def send() -> None:
        loop = asyncio.get_running_loop()
        theirs.setblocking(False)
        for part in parts:
            await loop.sock_sendall(theirs, part)
            await asyncio.sleep(0)
        theirs.close()

    sending = asyncio.create_task(send())
    try:
        while True:
            got = await process.read()
            assert got
            found += got
    except (BackendLost, ReshardError) as error:
        return found, error
    finally:
        await sending
        writer.close()


@given(
    st.lists(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=4), max_size=5),
    st.lists(st.integers(0, 400), max_size=12),
    st.booleans(),
)
def test_frames_come_whole_and_in_order(frames: list[list[int]], cuts: list[int], failed: bool) -> None:
    data = b"".join(map(pieces, frames)) + (frame("ReshardError", "it is over") if failed else b"")
    ends = sorted(min(cut, len(data)) for cut in cuts)
    parts = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    found, error = asyncio.run(all_of(parts))
    assert found == [piece(number) for numbers in frames for number in numbers]
    assert isinstance(error, ReshardError if failed else BackendLost)
    assert str(error) == ("it is over" if failed else "the binlog process ended without a word")


def test_frames_come_whole_byte_by_byte() -> None:
    data = pieces([1, 2]) + pieces([3]) + frame("BackendLost", "gone")
    found, error = asyncio.run(all_of([bytes([byte]) for byte in data]))
    assert found == [piece(1), piece(2), piece(3)]
    assert isinstance(error, BackendLost)
    assert str(error) == "gone"


def test_a_frame_larger_than_what_is_taken_at_once_comes_whole() -> None:
    large = Piece(None, (1, 4), None, [(0, b"(1)", None, b"x" * (3 << 20))])
    data = frame("pieces", [tuple(large)])
    found, _ = asyncio.run(all_of([data]))
    assert found == [large]


def test_nothing_is_taken_while_it_is_left_alone() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        process = BinlogProcess(_Born(0, 0), reader, writer)
        reading = asyncio.create_task(process.read())
        with process.left_alone():
            theirs.sendall(pieces([1]))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not reading.done()
            assert theirs.recv(64) == b"-"
        assert theirs.recv(64) == b"+"
        assert await reading == [piece(1)]
        with pytest.raises(ValueError, match="as in the block"), process.left_alone():
            raise ValueError("as in the block")
        theirs.sendall(pieces([2]))
        assert await process.read() == [piece(2)]
        theirs.close()
        writer.close()

    asyncio.run(run())


def test_a_child_that_ends_while_it_is_left_alone_is_noticed_afterwards() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        process = BinlogProcess(_Born(0, 0), reader, writer)
        with process.left_alone():
            theirs.sendall(pieces([1]))
            theirs.close()
        assert await process.read() == [piece(1)]
        with pytest.raises(BackendLost):
            await process.read()
        writer.close()

    asyncio.run(run())
