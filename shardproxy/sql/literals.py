"""The value of a string literal as written."""

from __future__ import annotations

import re

from shardproxy.sql.modes import SqlModes

_ESCAPES = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a", b"%": rb"\%", b"_": rb"\_"}


def string_value(raw: bytes, modes: SqlModes) -> bytes | None:
    """The bytes of a plain '…' or "…" string, escapes undone; None for any other literal (N'…', x'…', a number)."""
    quote = raw[:1]
    if len(raw) < 2 or quote not in (b"'", b'"'):
        return None
    text = raw[1:-1]
    if b"\\" in text and not modes.no_backslash_escapes:
        # A doubled quote may stand next to an escaped one (\''' is two quotes): one pass over both.
        both = re.compile(rb"\\(.)|" + quote + quote, re.DOTALL)
        return both.sub(lambda m: quote if m.group(1) is None else _ESCAPES.get(m.group(1), m.group(1)), text)
    return text.replace(quote * 2, quote)
