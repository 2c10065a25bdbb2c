"""Payloads in a byte stream: a header of 3 bytes length (little-endian) and 1 byte sequence id before each packet.

A payload of MAX_PAYLOAD bytes or more is sent as full packets followed by one shorter packet, which may be empty.
This is for the cold paths (handshake, control); the hot path walks headers in place.
"""

from __future__ import annotations

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD

HEADER_LENGTH = 4


def packet(payload: bytes, seq: int) -> bytes:
    """Wire bytes of one payload whose first packet has sequence id `seq` (taken modulo 256)."""
    length = len(payload)
    if length < MAX_PAYLOAD:
        return length.to_bytes(3, "little") + bytes((seq & 0xFF,)) + payload
    parts = []
    for start in range(0, length + 1, MAX_PAYLOAD):
        part = payload[start : start + MAX_PAYLOAD]
        parts.append(len(part).to_bytes(3, "little") + bytes((seq & 0xFF,)))
        parts.append(part)
        seq += 1
    return b"".join(parts)


def packet_count(length: int) -> int:
    """How many packets (and sequence ids) a payload of `length` bytes takes."""
    return length // MAX_PAYLOAD + 1


class PacketReader:
    """Cuts a byte stream into payloads.

    `limit` bounds one joined payload in bytes. `next_seq` is the sequence id that the next packet must have; whoever
    sends packets in between sets it, and a new command resets it to 0.

    Two ways to use it: `feed(data)` for a stream of packets; or `append(data)`, then `take()` until it returns None,
    where bytes after a packet may not be packets at all: after an SSLRequest `release()` hands over the rest, which
    belongs to the TLS layer and must never be read as plain commands.

    An error is terminal: every later call raises it again.
    """

    __slots__ = ("_buffer", "_error", "_joined", "limit", "next_seq")

    def __init__(self, limit: int, next_seq: int = 0) -> None:
        self.limit = limit
        self.next_seq = next_seq
        self._buffer = bytearray()
        self._joined = bytearray()  # full packets of a payload whose last packet has not come yet
        self._error: RemoteProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes held: not yet taken."""
        return len(self._buffer) + len(self._joined)

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """All payloads that `data` completes, each with the sequence id of its last packet.

        Raises RemoteProtocolError on a wrong sequence id, or once a header announces more than the limit.
        """
        self.append(data)
        taken = []
        while (one := self.take()) is not None:
            taken.append(one)
        return taken

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes without looking at them."""
        if self._error is not None:
            raise self._error
        self._buffer += data

    def take(self) -> tuple[int, bytes] | None:
        """The next whole payload with the sequence id of its last packet, or None while there is none."""
        if self._error is not None:
            raise self._error
        buffer = self._buffer
        while len(buffer) >= HEADER_LENGTH:
            length = int.from_bytes(buffer[:3], "little")
            seq = buffer[3]
            self._check(length, seq)
            end = HEADER_LENGTH + length
            if len(buffer) < end:
                break
            self.next_seq = (seq + 1) & 0xFF
            self._joined += buffer[HEADER_LENGTH:end]
            del buffer[:end]
            if length < MAX_PAYLOAD:
                payload = bytes(self._joined)
                self._joined = bytearray()
                return seq, payload
        return None

    def release(self) -> bytes:
        """Take out every byte that is not part of a taken payload; the reader is empty afterwards."""
        rest = bytes(self._buffer)
        self._buffer = bytearray()
        return rest

    def _check(self, length: int, seq: int) -> None:
        if seq != self.next_seq:
            self._fail(f"packet has sequence id {seq}, expected {self.next_seq}")
        total = len(self._joined) + length
        if total > self.limit:
            self._fail(f"packet of {total} bytes is over the limit of {self.limit}")

    def _fail(self, message: str) -> None:
        self._error = RemoteProtocolError(message)
        self._buffer = bytearray()
        self._joined = bytearray()
        raise self._error
