"""Finds the commands in a client's byte stream, however it is cut, without copying what they say.

A command is handed on as the client sent it, so the scanner tells offsets into its buffer: where the command begins and
ends, and where its first two arguments are (its name and, for nearly all commands, its key). Who needs all arguments
asks for them. What Redis accepts and we do not: lines that end otherwise than by CRLF where Redis does not look, so
that no node can ever take our bytes for other commands than we did.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from shardproxy.protocol.redis.encode import command
from shardproxy.protocol.redis.words import Unbalanced, split_words

MORE: Final = 0
FOUND: Final = 1
BROKEN: Final = 2  # `error` says why, as Redis words it; there is nothing after it

MAX_ARGUMENTS: Final = 1 << 20
MAX_BULK: Final = 512 << 20
MAX_INLINE: Final = 64 << 10
# Of a client that has not logged in, as Redis has them.
STRANGER_ARGUMENTS: Final = 10
STRANGER_BULK: Final = 16 << 10

_INCOMPLETE: Final = -1
_INVALID: Final = -2
_NUMBER_ENDS: Final = 20  # digits that a number may have
_LONG: Final = (
    64 << 10
)  # bytes of whole arguments from which they are not copied with each piece that comes behind them


class CommandScanner:
    """Feed it bytes, then ask `next` until it says MORE.

    After FOUND: data[start:end] is the command; `count` its arguments (1 or more); data[name:name_end] the first of
    them and data[key:key_end] the second (when count > 1). They hold until the next call of `feed`.
    max_bytes: a command longer than this is BROKEN. trusted: whether the client has logged in.
    """

    def __init__(self, max_bytes: int, trusted: bool = True) -> None:
        self.data = b""
        self.size: i64 = 0
        self.start: i64 = 0
        self.end: i64 = 0
        self.count: i64 = 0
        self.name: i64 = 0
        self.name_end: i64 = 0
        self.key: i64 = 0
        self.key_end: i64 = 0
        self.error = ""
        self.trusted = trusted
        self.max_bytes: i64 = max_bytes
        self._at: i64 = 0  # where reading goes on: `end` of the last command, or within one that is not whole
        self._left: i64 = 0  # arguments of the command begun that have not been seen
        self._wanted: i64 = 0  # size of the buffer below which there is nothing to see
        self._pieces: list[bytes] = []  # received while less than `_wanted` was there
        self._pieces_size: i64 = 0
        self._next_header: i64 = 0  # where `some_arguments` goes on
        self._after: i64 = 0  # what _number found: the place behind its line
        self._ahead: list[bytes] = []  # whole arguments of a long command begun: they stand before `data`
        self._ahead_size: i64 = 0
        self._behind = b""  # what was received behind the lines that `data` has as arrays …
        self._behind_at: i64 = 0  # … from this place on

    @property
    def waiting(self) -> int:
        """Bytes that are kept because their command is not whole."""
        return self.size - self.end + self._pieces_size + self._ahead_size + (len(self._behind) - self._behind_at)

    def feed(self, data: bytes) -> None:
        """More bytes, when `next` has said MORE. What was told about the last command is void."""
        rest = self.size - self.end
        if rest == 0:
            self.data = data
            self.size = len(data)
            self._move(self.end)
            return
        size: i64 = len(data)
        if rest + self._pieces_size + size < self._wanted:
            self._pieces.append(data)
            self._pieces_size += size
            return
        kept = self.data[self.end :] if self.end else self.data
        if self._pieces:
            self.data = b"".join([kept, *self._pieces, data])
            self._pieces = []
            self._pieces_size = 0
        else:
            self.data = kept + data
        self.size = len(self.data)
        self._move(self.end)

    def _move(self, by: i64) -> None:
        """The buffer begins `by` bytes later than before."""
        self._at -= by
        self._wanted = 0
        self.start = 0
        self.end = 0
        self.name -= by
        self.name_end -= by
        self.key -= by
        self.key_end -= by

    def next(self) -> int:
        """MORE, FOUND or BROKEN."""
        data = self.data
        size = self.size
        if self.error:
            return BROKEN
        if self._pieces_size:
            return MORE
        at = self._at
        left = self._left
        ahead = self._ahead_size
        while left == 0:
            if at >= size:
                if not self._behind:
                    return MORE
                data = self._behind
                size = len(data)
                at = self._behind_at
                self._behind = b""
                self._behind_at = 0
                self.data = data
                self.size = size
                self.start = at
                self.end = at
                self._at = at
                continue
            self.start = at
            c: i64 = data[at]
            if c != 42:  # *
                outcome = self._inline()
                if outcome != FOUND:
                    return outcome
                data = self.data
                size = self.size
                at = self._at
                continue
            left = self._number(at + 1, 1)
            if left == _INCOMPLETE:
                return MORE
            if left > (MAX_ARGUMENTS if self.trusted else STRANGER_ARGUMENTS):
                if not self.trusted and left <= MAX_ARGUMENTS:
                    return self._broken("unauthenticated multibulk length")
                left = _INVALID
            if left < 0:
                return self._broken("invalid multibulk length")
            at = self._after
            self.count = left
            if left == 0:  # *0 and *-1 ask for nothing, and get nothing
                self.end = at
                self._at = at
        most = MAX_BULK if self.trusted else STRANGER_BULK
        while left:
            if at >= size:
                break
            c = data[at]
            if c != 36:  # $
                return self._broken("expected '$', got '" + (chr(int(c)) if 32 <= c < 127 else "?") + "'")
            length: i64 = 0
            # Nearly all lengths have one or two digits.
            if at + 4 <= size and data[at + 2] == 13 and data[at + 3] == 10 and 48 <= data[at + 1] <= 57:
                length = data[at + 1] - 48
                begin = at + 4
            else:
                length = self._number(at + 1, 0)
                if length == _INCOMPLETE:
                    break
                begin = self._after
                if length > most:
                    if not self.trusted and length <= MAX_BULK:
                        return self._broken("unauthenticated bulk length")
                    length = _INVALID
                if length < 0:
                    return self._broken("invalid bulk length")
            stop = begin + length
            if ahead + stop + 2 - self.start > self.max_bytes:
                return self._broken("the command is longer than the proxy takes")
            if stop + 2 > size:
                self._wanted = stop + 2 - self.start
                break
            if data[stop] != 13 or data[stop + 1] != 10:
                return self._broken("expected CRLF after an argument")
            seen = self.count - left
            if seen == 0:
                self.name = ahead + begin
                self.name_end = ahead + stop
            elif seen == 1:
                self.key = ahead + begin
                self.key_end = ahead + stop
            at = stop + 2
            left -= 1
        self._at = at
        self._left = left
        if left:
            if ahead + size - self.start > self.max_bytes:
                return self._broken("the command is longer than the proxy takes")
            self.end = self.start
            if at - self.start >= _LONG:
                self._set_apart()
            return MORE
        self.end = at
        if ahead:
            self._put_together()
        return FOUND

    def _set_apart(self) -> None:
        """Take the whole arguments of the command begun out of the buffer. Else each piece that is received would copy
        all before it, and a command of many arguments would cost the square of its size."""
        start = self.start
        at = self._at
        self._ahead.append(self.data[start:at])
        self._ahead_size += at - start
        self.data = self.data[at:]
        self.size -= at
        if self._wanted:
            self._wanted -= at - start
        self.name -= start
        self.name_end -= start
        self.key -= start
        self.key_end -= start
        self.start = 0
        self.end = 0
        self._at = 0

    def _put_together(self) -> None:
        """The command is whole: it shall stand in one piece."""
        ahead = self._ahead_size
        self.data = b"".join([*self._ahead, self.data])
        self.size += ahead
        self.end += ahead
        self._at = self.end
        self._ahead = []
        self._ahead_size = 0

    def arguments(self) -> list[bytes]:
        """All arguments of the command that was found."""
        data = self.data
        found: list[bytes] = []
        at = self._first_header()
        end = self.end
        while at < end:
            length = self._number(at + 1, 0)
            begin = self._after
            at = begin + length + 2
            found.append(data[begin : at - 2])
        return found

    def pieces(self) -> list[bytes]:
        """The arguments as they are on the wire, each with its length before it and its CRLF."""
        data = self.data
        found: list[bytes] = []
        at = self._first_header()
        end = self.end
        while at < end:
            begin = at
            length = self._number(at + 1, 0)
            at = self._after + length + 2
            found.append(data[begin:at])
        return found

    def some_arguments(self, args: list[bytes], pieces: list[bytes], most: i64) -> bool:
        """Of the command that was found the next arguments behind those that these lists have: as `arguments` and
        `pieces` have them. Whether that was all. To be called again until it is, and nothing else meanwhile."""
        data = self.data
        at = self._next_header if args else self._first_header()
        end = self.end
        while at < end and most > 0:
            begin = at
            length = self._number(at + 1, 0)
            value = self._after
            at = value + length + 2
            args.append(data[value : at - 2])
            pieces.append(data[begin:at])
            most -= 1
        self._next_header = at
        return at >= end

    def _first_header(self) -> i64:
        self._number(self.start + 1, 1)
        return self._after

    def _number(self, at: i64, negative: i64) -> i64:
        """The decimal number on the line at `at`. negative: numbers below 0 count as 0. Leaves `_after`."""
        data = self.data
        size = self.size
        first = at
        minus = negative != 0 and at < size and data[at] == 45
        if minus:
            at += 1
        begin = at
        value: i64 = 0
        while at < size:
            c: i64 = data[at]
            if c < 48 or c > 57:
                break
            value = value * 10 + c - 48
            at += 1
            if at - begin > 18:
                return _INVALID
        if at >= size:
            return _INVALID if at - first > _NUMBER_ENDS else _INCOMPLETE
        digits = at - begin
        if data[at] != 13 or digits == 0 or (digits > 1 and data[begin] == 48):
            return _INVALID
        if at + 1 >= size:
            return _INCOMPLETE
        if data[at + 1] != 10:
            return _INVALID
        self._after = at + 2
        return 0 if minus else value

    def _inline(self) -> int:
        """Lines of words: those that are whole become the buffer, as arrays. FOUND: read on at `_at`."""
        data = self.data
        start = self.start
        arrays: list[bytes] = []
        at = start
        while at < self.size and data[at] != 42:
            stop: i64 = data.find(b"\n", at)
            if (stop < 0 and self.size - at > MAX_INLINE) or stop - at > MAX_INLINE:
                if not arrays:
                    return self._broken("too big inline request")
                break
            if stop < 0:
                break
            try:
                words = split_words(data[at:stop])
            except Unbalanced:
                if not arrays:
                    return self._broken("unbalanced quotes in request")
                break  # what stands before it is done first
            if words:
                arrays.append(command(words))
            at = stop + 1
        if not arrays:
            self.start = at
            self.end = at
            self._at = at
            return MORE if at < self.size and data[at] != 42 else FOUND
        if at < self.size:  # not copied: arrays and lines in turn would cost the square of their number
            self._behind = data
            self._behind_at = at
        self.data = b"".join(arrays)
        self.size = len(self.data)
        self.start = 0
        self.end = 0
        self._at = 0
        return FOUND

    def _broken(self, why: str) -> int:
        self.error = why
        self.data = b""
        self.size = 0
        self.start = 0
        self.end = 0
        self._pieces = []
        self._pieces_size = 0
        self._ahead = []
        self._ahead_size = 0
        self._behind = b""
        self._behind_at = 0
        return BROKEN
