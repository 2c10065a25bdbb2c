"""A session of the MySQL port without a client: statements of the proxy's own that take the way of all others.

What a client's statement gets it gets too: planning, moves, transactions over shards, the strict cache.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shardproxy.backend.connection import Reply, reply_from
from shardproxy.errors import BackendError, BackendLost
from shardproxy.frontend.mysql.connection import ClientConnection
from shardproxy.frontend.mysql.front import Front, Rights
from shardproxy.frontend.mysql.login import new_session
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.response import QUERY, ResponseScanner
from shardproxy.session.profile import UTF8MB4_GENERAL_CI

_RIGHTS = Rights(None, "", True, False, 0)
_CAPABILITIES = int(Cap.DEPRECATE_EOF | Cap.PROTOCOL_41 | Cap.TRANSACTIONS)


class InnerSession:
    """One statement at a time. user: what it is called among clients. It is the client's transport, too."""

    def __init__(self, front: Front, user: str) -> None:
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._scanner = ResponseScanner(True)
        self._data = b""
        self._answer: asyncio.Future[Reply] | None = None
        session = new_session(front, front.new_ident(), user, _RIGHTS, _CAPABILITIES, UTF8MB4_GENERAL_CI, None)
        transport: Any = self  # by its methods
        self._client = ClientConnection(front, transport, session, _RIGHTS, _CAPABILITIES, "")

    async def run(self, text: bytes) -> Reply:
        """The answer to a statement. Raises the error that a client gets as BackendError; BackendLost when it is not
        known what became of it: the session is closed then."""
        if self.closed:
            raise BackendLost("the session has ended")
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._answer = answer
        self._scanner.start(QUERY)
        self._data = b""
        self._client.data_received(packet(b"\x03" + text, 0))
        reply = await answer
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        return reply

    def write(self, data: bytes) -> None:
        begin = len(self._data)
        self._data += data
        end = self._scanner.scan(self._data, begin)
        if end >= 0 and self._answer is not None and not self._answer.done():
            self._answer.set_result(reply_from(self._data[:end], self._scanner))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BackendLost("the answer was lost: whether it was done is not known"))
        self._loop.call_soon(self._client.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        """It asks no faster than it is answered."""

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default
