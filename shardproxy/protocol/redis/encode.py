"""Commands and replies of our own, as wire bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
NULL = b"$-1\r\n"
NULL3 = b"_\r\n"


def command(words: Sequence[bytes]) -> bytes:
    """A command as an array of bulk strings."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(w), w) for w in words]))


def error(text: str) -> bytes:
    """An error reply; `text` begins with its code. Control characters would end the line early."""
    return b"-%b\r\n" % "".join(c if c.isprintable() else "?" for c in text).encode()


def bulk(value: bytes | None, resp3: bool = False) -> bytes:
    if value is None:
        return NULL3 if resp3 else NULL
    return b"$%d\r\n%b\r\n" % (len(value), value)


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def array(elements: Sequence[bytes]) -> bytes:
    """An array of replies that are wire bytes already."""
    return b"*%d\r\n%b" % (len(elements), b"".join(elements))


def pairs(entries: Iterable[tuple[bytes, bytes]], resp3: bool) -> bytes:
    """A map of replies: in RESP2 a flat array."""
    flat = [part for entry in entries for part in entry]
    head = b"%%%d\r\n" % (len(flat) // 2) if resp3 else b"*%d\r\n" % len(flat)
    return head + b"".join(flat)
