"""The change source in a process of its own: decoding has its own core, and nothing that it does can stop the engine.

The two talk over a socket pair. The child takes its settings as the first frame and then only sends; it waits when
the parent does not read, so at most a few megabytes lie between them. It ends when the parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import pickle
import signal
import socket
import sys
from typing import Any

from shardproxy.errors import BackendLost, BackendUnavailable, ReshardError, ShardproxyError
from shardproxy.reshard.binlog import Piece
from shardproxy.reshard.change_source import SourceSettings, changes

_AHEAD = 4 << 20  # bytes that the child may have sent and the parent not read, beside the kernel's buffers
_MOST = 2 << 30
_KINDS: dict[str, type[ShardproxyError]] = {
    "ReshardError": ReshardError, "BackendLost": BackendLost, "BackendUnavailable": BackendUnavailable,
}  # fmt: skip


class BinlogProcess:
    """The parent's side. Made by `start`; `read` until `close`."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, settings: SourceSettings) -> BinlogProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shardproxy.reshard.binlog_process", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        found = cls(process, reader, writer)
        data = pickle.dumps(settings)
        writer.write(len(data).to_bytes(4, "little") + data)
        return found

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read(self) -> list[Piece]:
        """The next pieces; waits for them. Raises what ended the stream: ReshardError for good, BackendLost when it may
        be started again at its position."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "little")
            kind, content = marshal.loads(await self._reader.readexactly(size))  # noqa: S302  our own child's
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise BackendLost("the binlog process ended without a word") from error
        if kind != "pieces":
            raise _KINDS.get(kind, ReshardError)(content)
        return [Piece(*piece) for piece in content]

    async def close(self) -> None:
        """End the child."""
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def _child(fd: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
    writer.transport.set_write_buffer_limits(high=_AHEAD)
    size = int.from_bytes(await reader.readexactly(4), "little")
    settings: SourceSettings = pickle.loads(await reader.readexactly(size))  # noqa: S301  our own parent's

    async def end_with_parent() -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        os._exit(0)

    watch = asyncio.create_task(end_with_parent())
    try:
        async for pieces in changes(settings):
            _send(writer, "pieces", [tuple(piece) for piece in pieces])
            await writer.drain()
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


def main() -> None:
    """Entry of the child: the number of its end of the socket pair is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    asyncio.run(_child(int(sys.argv[1])))


if __name__ == "__main__":
    main()
