"""TLS in the middle of a plain connection, for both sides.

MySQL starts TLS after a plaintext packet, and the peer's first TLS bytes may arrive in the same read as that packet:
asyncio's start_tls would lose them. So TLS runs here over memory buffers, between a plain transport and a protocol
that sees a transport like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Protocol

_READ = 256 * 1024


class Above(Protocol):
    """What a protocol must have to be told of bytes; asyncio's own base class is not asked for."""

    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class TlsTransport(asyncio.Protocol):
    """A protocol to the transport below, a transport to the protocol above.

    Raises nothing on bad TLS: the connection is aborted and the protocol above gets `connection_lost(error)`.
    """

    def __init__(
        self,
        below: asyncio.Transport,
        above: Above,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self._below = below
        self._above = above
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_hostname)
        self._established = False
        self._pending: list[bytes] = []
        self._closing = False
        self._error: ssl.SSLError | None = None
        below.set_protocol(self)

    def start(self, early: bytes = b"") -> None:
        """Begin the handshake; `early` is what arrived behind the SSLRequest."""
        if early:
            self.data_received(early)
        else:
            self._advance()

    # ── the protocol that the transport below sees ──

    def data_received(self, data: bytes) -> None:
        self._in.write(data)
        self._advance()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._above.connection_lost(exc or self._error)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def _advance(self) -> None:
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
                for data in self._pending:
                    self._tls.write(data)
                self._pending.clear()
            self._flush()
            while not self.is_closing():
                data = self._tls.read(_READ)
                if not data:
                    self.close()
                    return
                self._above.data_received(data)
                self._flush()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self.close()
        except ssl.SSLError as error:
            self._error = error
            self._flush()  # the alert that says why
            self._below.close()

    def _flush(self) -> None:
        data = self._out.read()
        if data and not self._below.is_closing():
            self._below.write(data)

    # ── the transport that the protocol above sees ──

    def write(self, data: bytes) -> None:
        if self.is_closing():
            return
        if not self._established:
            self._pending.append(data)
            return
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if self._established:
                with contextlib.suppress(ssl.SSLError):  # the peer has not answered yet; nobody waits for it
                    self._tls.unwrap()
                self._flush()
            self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        if not self._below.is_closing():
            self._below.resume_reading()

    def set_protocol(self, protocol: Any) -> None:
        self._above = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._below.get_extra_info(name, default)


Transport = asyncio.Transport | TlsTransport


def hand_over(transport: Transport, protocol: Above) -> None:
    """Give a transport to another protocol. Event loops call methods and do not ask for asyncio's base class."""
    set_protocol: Any = transport.set_protocol
    set_protocol(protocol)
