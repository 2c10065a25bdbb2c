"""The words of an inline command, quoted as Redis takes them (sdssplitargs)."""

from __future__ import annotations

_BLANK = b" \n\r\t\v\f\0"
_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


class Unbalanced(ValueError):
    """A quote is open at the end, or closes within a word."""


def split_words(line: bytes) -> list[bytes]:
    """Words of a line. Raises Unbalanced."""
    found: list[bytes] = []
    at, size = 0, len(line)
    while True:
        while at < size and line[at] in _BLANK:
            at += 1
        if at >= size:
            return found
        word = bytearray()
        while at < size and line[at] not in _BLANK:
            quote = line[at]
            if quote not in b"\"'":
                word.append(quote)
                at += 1
                continue
            at = _quoted(line, at + 1, quote, word)
            if at < size and line[at] not in _BLANK:
                raise Unbalanced
        found.append(bytes(word))


def _quoted(line: bytes, at: int, quote: int, word: bytearray) -> int:
    """Append what stands up to the closing quote; the place behind it."""
    size = len(line)
    while at < size:
        c = line[at]
        if c == quote:
            return at + 1
        if c == 0x5C and at + 1 < size:
            after = line[at + 1]
            if quote == 0x22:
                digits = line[at + 2 : at + 4]
                if after == ord("x") and len(digits) == 2 and all(d in b"0123456789abcdefABCDEF" for d in digits):
                    word.append(int(digits, 16))
                    at += 4
                else:
                    word.append(_ESCAPES.get(after, after))
                    at += 2
                continue
            if after == quote:
                word.append(quote)
                at += 2
                continue
        word.append(c)
        at += 1
    raise Unbalanced
