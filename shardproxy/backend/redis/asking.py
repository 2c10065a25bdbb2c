"""A connection to a node, or to a sentinel, for the proxy's own questions."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.replies import ReplyScanner

_MOST = 1 << 20  # bytes of an answer


class Refused(Exception):
    """An error is the answer."""


class Asker:
    """One question at a time. Its methods raise OSError, Refused and RemoteProtocolError; the caller bounds how long
    they wait. Close it, or use it as an async context manager."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._data = b""  # not asked for yet, or not whole

    @classmethod
    async def open(cls, host: str, port: int, user: str, password: bytes | None, tls: ssl.SSLContext | None) -> Asker:
        """Connect and log in. password None: no login; user empty: by the password alone."""
        asker = cls(*await asyncio.open_connection(host, port, ssl=tls))
        if password is not None:
            try:
                await asker.ask(b"AUTH", *([user.encode()] if user else []), password)
            except BaseException:
                asker.close()
                raise
        return asker

    async def ask(self, *words: bytes) -> bytes:
        """The answer, as it is on the wire."""
        self._writer.write(encode.command(list(words)))
        answer = await self.next()
        if answer.startswith(b"-"):
            raise Refused(answer[1:-2].decode(errors="replace"))
        return answer

    async def next(self) -> bytes:
        """The next answer, or message."""
        while (end := ReplyScanner().scan(self._data, 0) if self._data else -1) < 0:
            more = await self._reader.read(65536)
            if not more:
                raise OSError("it closed the connection")
            self._data += more  # kept, also when the caller waits no longer
            if len(self._data) > _MOST:
                raise RemoteProtocolError("an answer that does not end")
        answer, self._data = self._data[:end], self._data[end:]
        return answer

    def close(self) -> None:
        """For good."""
        self._writer.close()

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
