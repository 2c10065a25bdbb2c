"""Messages between the supervisor and one worker, over a socket pair: a length of 4 bytes, then a pickled tuple.

Both ends are the same program of the same user; nothing from outside ever gets in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
from collections.abc import Callable
from typing import Any

Message = tuple[Any, ...]


class Channel(asyncio.Protocol):
    """`receive(message)` for each message; `lost()` when the other end is gone."""

    def __init__(self, receive: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def over(cls, end: socket.socket, receive: Callable[[Message], None], lost: Callable[[], None]) -> Channel:
        """A channel over a connected socket."""
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(receive, lost), sock=end)
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "little")
            if len(buffer) < end:
                return
            message = pickle.loads(bytes(buffer[4:end]))  # noqa: S301 — from our own process, see above
            del buffer[:end]
            self._receive(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def send(self, *message: Any) -> None:
        """Send one message; dropped when the other end is gone."""
        if self._transport is not None:
            data = pickle.dumps(message)
            # uvloop raises RuntimeError when the socket has failed and has not said so yet.
            with contextlib.suppress(RuntimeError):
                self._transport.write(len(data).to_bytes(4, "little") + data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
