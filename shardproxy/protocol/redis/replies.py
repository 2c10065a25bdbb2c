"""Finds the ends of replies in a node's byte stream, in RESP2 and RESP3, without building objects.

Nesting costs nothing: an aggregate only adds its elements to the number that is still due.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from shardproxy.errors import RemoteProtocolError

MAX_LINE: Final = 64 << 10  # of a header; lines of text (errors, simple strings, numbers) too
MAX_ELEMENTS: Final = 1 << 40
PUSH: Final = 62  # >


class ReplyScanner:
    """Scan one reply after the other.

    `begin` before each; `scan` says where it ends, or -1 when more bytes are needed: then data[pos:at] belongs to it
    and is done with, and the next bytes to scan are data[at:] with whatever comes after them.
    kind: the type byte of the reply as a whole, behind attributes; 0 before it was seen.
    """

    def __init__(self) -> None:
        self.due: i64 = 1  # values still to come
        self.skip: i64 = 0  # bytes of the present bulk, with its CRLF, still to come
        self.kind: i64 = 0
        self.at: i64 = 0

    def begin(self) -> None:
        """A new reply."""
        self.due = 1
        self.kind = 0

    def scan(self, data: bytes, pos: i64) -> i64:
        """End of the reply whose next byte is data[pos]; -1: see `at`. Raises RemoteProtocolError."""
        size: i64 = len(data)
        due = self.due
        at = pos
        if self.skip:
            if size - at < self.skip:
                self.skip -= size - at
                self.at = size
                return -1
            at += self.skip
            self.skip = 0
            due -= 1
        while due:
            if at >= size:
                break
            kind: i64 = data[at]
            if kind == 36 or kind == 61 or kind == 33:  # $ = !
                # Most values are shorter than 10 bytes, or than 100.
                if at + 4 <= size and data[at + 2] == 13:
                    length: i64 = data[at + 1] - 48
                    after = at + 4
                    if length < 0 or length > 9 or data[at + 3] != 10:
                        raise RemoteProtocolError("a reply with an invalid length")
                else:
                    length = self._number(data, at + 1, size)
                    if length == -2:
                        break
                    after = self.at
                if not self.kind:
                    self.kind = kind
                if length < 0:
                    at = after
                    due -= 1
                    continue
                if after + length + 2 > size:
                    self.skip = after + length + 2 - size
                    at = size
                    break
                at = after + length + 2
                due -= 1
            elif kind == 42 or kind == 37 or kind == 126 or kind == 62 or kind == 124:  # * % ~ > |
                length = self._number(data, at + 1, size)
                if length == -2:
                    break
                at = self.at
                if length > MAX_ELEMENTS or due > MAX_ELEMENTS:
                    raise RemoteProtocolError("a reply with too many elements")
                if kind == 124:  # attributes come before their value
                    due += 2 * length
                    continue
                if not self.kind:
                    self.kind = kind
                if length > 0:
                    due += length * 2 if kind == 37 else length
                due -= 1
            elif kind == 43 or kind == 45 or kind == 58 or kind == 95 or kind == 44 or kind == 35 or kind == 40:
                # + - : _ , # (
                if at + 5 <= size and data[at + 3] == 13:  # +OK
                    after = at + 5
                else:
                    end: i64 = data.find(b"\n", at)
                    if end < 0:
                        if size - at > MAX_LINE:
                            raise RemoteProtocolError("a reply with a line that does not end")
                        break
                    after = end + 1
                if not self.kind:
                    self.kind = kind
                at = after
                due -= 1
            else:
                raise RemoteProtocolError(f"a reply that begins with byte {int(kind)}")
        self.due = due
        self.at = at
        return -1 if due else at

    def _number(self, data: bytes, at: i64, size: i64) -> i64:
        """The length on a line: -1 for none, -2 when the line is not whole. Leaves `at` behind it."""
        begin = at
        minus = at < size and data[at] == 45
        if minus:
            at += 1
        value: i64 = 0
        while at < size:
            c: i64 = data[at]
            if c < 48 or c > 57:
                break
            value = value * 10 + c - 48
            at += 1
            if at - begin > 18:
                raise RemoteProtocolError("a reply with an invalid length")
        if at >= size:
            return -2
        if data[at] != 13 or at - begin == (1 if minus else 0) or (minus and value != 1):
            raise RemoteProtocolError("a reply with an invalid length")
        if at + 1 >= size:
            return -2
        if data[at + 1] != 10:
            raise RemoteProtocolError("a reply with an invalid length")
        self.at = at + 2
        return -1 if minus else value


class ArrayReader:
    """Takes the elements out of a whole array. left: those that were not taken. Raises RemoteProtocolError when it is
    none, or broken."""

    def __init__(self, reply: bytes) -> None:
        size: i64 = len(reply)
        if size < 4 or reply[0] != 42:
            raise RemoteProtocolError("an array was due")
        self._reply = reply
        self._scanner = ReplyScanner()
        self.left: i64 = self._scanner._number(reply, 1, size)
        self._at = self._scanner.at

    def take(self, found: list[bytes], most: i64) -> None:
        """Append the next ones to `found`, as wire bytes."""
        reply = self._reply
        scanner = self._scanner
        at = self._at
        count = self.left if self.left < most else most
        self.left -= count
        while count > 0:
            scanner.due = 1
            end = scanner.scan(reply, at)
            if end < 0:
                raise RemoteProtocolError("an array that is not whole")
            found.append(reply[at:end])
            at = end
            count -= 1
        self._at = at
        if self.left <= 0 and at != len(reply):
            raise RemoteProtocolError("an array with more than its elements")


def values_of(reply: bytes) -> list[bytes]:
    """The elements of a whole array, as wire bytes. Raises RemoteProtocolError when it is none, or broken."""
    size: i64 = len(reply)
    if size < 4 or reply[0] != 42:
        raise RemoteProtocolError("an array was due")
    scanner = ReplyScanner()
    count = scanner._number(reply, 1, size)
    at = scanner.at
    found: list[bytes] = []
    while count > 0:
        scanner.due = 1
        end = scanner.scan(reply, at)
        if end < 0:
            raise RemoteProtocolError("an array that is not whole")
        found.append(reply[at:end])
        at = end
        count -= 1
    if at != size:
        raise RemoteProtocolError("an array with more than its elements")
    return found
