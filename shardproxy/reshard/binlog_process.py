"""The change source in a process of its own: decoding has its own core, and nothing that it does can stop the engine.

The two talk over a socket pair. The child takes its settings as the first frame, and then bytes that say how eager it
is to be; it waits when the parent does not read, so at most a few megabytes lie between them. It ends when the parent
is gone.

To start Python and import all of this costs a third of a second of CPU, and a move needs two processes a stream just
when writes have been let go at a switch. So it is done once, in a process (the *nursery*) that then forks the children.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import marshal
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from shardproxy.errors import BackendLost, BackendUnavailable, ReshardError, ShardproxyError
from shardproxy.reshard.binlog import Piece
from shardproxy.reshard.change_source import SourceSettings, changes

_AHEAD = 4 << 20  # bytes that the child may have sent and the parent not read, beside the kernel's buffers
_MOST = 2 << 30
_AT_ONCE = 64 << 10  # bytes that the parent takes at once: hundreds of small transactions
_EAGER, _EASY = b"+", b"-"  # the parent waits for what comes, or has no use for it yet
# Seconds between two looks at what has come, when it is easy. To be woken by each transaction costs seven times as much
# as to read it.
_LOOK = 0.1
_PATIENCE = 20.0  # seconds until the nursery counts as dead
_KINDS: dict[str, type[ShardproxyError]] = {
    "ReshardError": ReshardError, "BackendLost": BackendLost, "BackendUnavailable": BackendUnavailable,
}  # fmt: skip


class _Born(NamedTuple):
    """A child of the nursery. handle: of the process, even when its number has been given to another."""

    pid: int
    handle: int


class _Nursery:
    """Forks children. It ends with this process, and is started when the first child is wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, end: socket.socket) -> _Born:
        """A child with this end of a socket pair. Raises BackendLost."""
        with self._lock:
            for _ in range(2):  # once more, should somebody have killed it
                with contextlib.suppress(OSError):
                    return self._ask(end)
                self._end()
        raise BackendLost("no process that reads the binlog could be started")

    def _ask(self, end: socket.socket) -> _Born:
        if self._control is None:
            self._control, theirs = socket.socketpair()
            self._control.settimeout(_PATIENCE)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  our own module
                    [sys.executable, "-m", "shardproxy.reshard.binlog_process", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                )  # fmt: skip
        socket.send_fds(self._control, [b"?"], [end.fileno()])
        data, handles, _, _ = socket.recv_fds(self._control, 8, 1)
        if not handles:
            raise BrokenPipeError
        return _Born(int.from_bytes(data, "little"), handles[0])

    def close(self) -> None:
        """End it; its children end with their parents."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None


_nursery = _Nursery()
atexit.register(_nursery.close)


class BinlogProcess:
    """The parent's side. Made by `start`; `read` until `close`."""

    def __init__(self, born: _Born, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._born = born
        self._reader = reader
        self._writer = writer
        self._data = bytearray()  # not given yet

    @classmethod
    async def start(cls, settings: SourceSettings) -> BinlogProcess:
        """Raises BackendLost."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A thread: the first time it takes as long as Python needs to start.
            forking = asyncio.create_task(asyncio.to_thread(_nursery.fork, theirs))
            try:
                born = await asyncio.shield(forking)
            except BaseException:
                ours.close()  # a child that there will be ends by that
                with contextlib.suppress(BackendLost):
                    os.close((await forking).handle)
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        found = cls(born, reader, writer)
        data = pickle.dumps(settings)
        writer.write(len(data).to_bytes(4, "little") + data)
        return found

    @property
    def pid(self) -> int:
        return self._born.pid

    async def read(self) -> list[Piece]:
        """What has come since the last call, at least one; waits for it. May be cancelled without losing any. Raises
        what ended the stream: ReshardError for good, BackendLost when it may be started again at its position."""
        while not (found := self._whole()):
            try:
                data = await self._reader.read(_AT_ONCE)
            except ConnectionError:
                data = b""
            if not data:
                raise BackendLost("the binlog process ended without a word")
            self._data += data
        return found

    def _whole(self) -> list[Piece]:
        """The pieces of the frames that are there from their begin to their end. An error stays until those before it
        have been given."""
        found: list[Piece] = []
        at = 0
        while len(self._data) >= at + 4:
            end = at + 4 + int.from_bytes(self._data[at : at + 4], "little")
            if len(self._data) < end:
                break
            kind, content = marshal.loads(self._data[at + 4 : end])  # noqa: S302  our own child's
            if kind != "pieces":
                if not found:
                    raise _KINDS.get(kind, ReshardError)(content)
                break
            found += [Piece(*piece) for piece in content]
            at = end
        del self._data[:at]
        return found

    @contextlib.contextmanager
    def left_alone(self) -> Iterator[None]:
        """What the child sends in the block is not taken from the socket, and it looks at the source now and then only:
        each transaction of the source would wake both, and there is no use for it yet. `read` gives what was taken
        before."""
        transport = self._writer.transport
        assert isinstance(transport, asyncio.Transport)  # of a socket: it reads too
        reading = transport.is_reading()
        if reading:
            transport.pause_reading()
        self._tell(_EASY)
        try:
            yield
        finally:
            self._tell(_EAGER)
            # What the reader has paused by itself, for want of room, goes on by itself.
            if reading and not transport.is_closing():
                transport.resume_reading()

    def _tell(self, word: bytes) -> None:
        """Not by the transport: it would forget what a child that has just ended sent before."""
        transport = self._writer.transport
        if not transport.is_closing() and not transport.get_write_buffer_size():
            with contextlib.suppress(OSError):
                os.write(transport.get_extra_info("socket").fileno(), word)

    async def close(self) -> None:
        """End the child."""
        self._writer.close()
        handle = self._born.handle
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(handle, over.set)  # readable when the process has ended
        try:
            await over.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)


async def _child(fd: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    writer.transport.set_write_buffer_limits(high=_AHEAD)
    size = int.from_bytes(await reader.readexactly(4), "little")
    settings: SourceSettings = pickle.loads(await reader.readexactly(size))  # noqa: S301  our own parent's

    easy = False

    async def hear_parent() -> None:
        nonlocal easy
        with contextlib.suppress(ConnectionError):
            while words := await reader.read(64):
                easy = words.endswith(_EASY)
        os._exit(0)

    watch = asyncio.create_task(hear_parent())
    try:
        async for pieces in changes(settings):
            _send(writer, "pieces", [tuple(piece) for piece in pieces])
            await writer.drain()
            if easy:
                select.select([fd], [], [], _LOOK)  # everything stands still but for what the parent says
    except ConnectionError:
        os._exit(0)
    except Exception as error:
        kind = type(error).__name__
        for known in type(error).__mro__:
            if known.__name__ in _KINDS:
                kind = known.__name__
                break
        else:
            kind = "ReshardError" if not isinstance(error, ShardproxyError) else "BackendLost"
        text = str(error) if isinstance(error, ShardproxyError) else f"reading the binlog failed: {error!r}"
        _send(writer, kind, text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    watch.cancel()


def _send(writer: asyncio.StreamWriter, kind: str, content: Any) -> None:
    data = marshal.dumps((kind, content))
    if len(data) > _MOST:
        raise ReshardError(f"a transaction has a part of {len(data)} bytes, which is too large to be moved")
    writer.write(len(data).to_bytes(4, "little") + data)


def _live(end: int) -> NoReturn:
    """The life of a child."""
    status = 1
    try:
        asyncio.run(_child(end))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(control: socket.socket) -> None:
    """The life of the nursery: a child for each socket that comes, until the other end is closed."""
    born: set[int] = set()

    def bury(*_: object) -> None:
        for pid in list(born):
            with contextlib.suppress(ChildProcessError):  # buried just now, when a signal came between
                if not os.waitpid(pid, os.WNOHANG)[0]:
                    continue
            born.discard(pid)

    signal.signal(signal.SIGCHLD, bury)
    gc.collect()
    gc.freeze()  # children share what is there now
    while True:
        data, ends, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        [end] = ends
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            _live(end)
        os.close(end)
        handle = os.pidfd_open(pid)  # before it may be buried: its number is its own as long
        socket.send_fds(control, [pid.to_bytes(8, "little")], [handle])
        os.close(handle)
        born.add(pid)
        bury()


def main() -> None:
    """Entry of the nursery: the number of its end of the socket pair is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with socket.socket(fileno=int(sys.argv[1])) as control:
        _serve(control)


if __name__ == "__main__":
    main()
