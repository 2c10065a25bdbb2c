"""What a MySQL server remembers of a prepared statement's executions, and how clients are kept apart by it.

MySQL (8.0.22 and later) gives each parameter a type when it is first executed and keeps it: after an execution with
5, the same statement executed with 'y0' selects 0, not 'y0'; after one with '1e9', the text '9007199254740993' is
compared as a DOUBLE. A server statement that several clients share must not show one what another has bound. So there
is one for each *variant*: the types of the parameters, which are NULL, and for texts what kind of number they look
like. Within a variant every execution is answered as by a statement that was never executed before (measured on
9.7.4, over all types and some 40 texts, in comparisons, arithmetic and functions). MariaDB has no such memory.
"""

from __future__ import annotations

import re

from shardproxy.protocol.mysql.binary import ExecuteParameters
from shardproxy.protocol.mysql.constants import FieldType

NUMBERS_AND_TIMES = frozenset((
    FieldType.TINY, FieldType.SHORT, FieldType.LONG, FieldType.INT24, FieldType.LONGLONG, FieldType.YEAR,
    FieldType.FLOAT, FieldType.DOUBLE, FieldType.DECIMAL, FieldType.NEWDECIMAL,
    FieldType.DATE, FieldType.TIME, FieldType.DATETIME, FieldType.TIMESTAMP,
))  # fmt: skip
_LONGEST = 1024  # bytes of a text that are looked at
_NUMBER = re.compile(rb"([ \t\n\v\f\r]*)([+-]?)([0-9]*)(\.[0-9]*)?(?:[eE]([+-]?[0-9]+))?([ \t\n\v\f\r]*)")
_NO_NUMBER = b"t"
_MOST_DIGITS = 18  # an integer with as many fits into 64 bits


def plain(types: bytes) -> bool:
    """Whether executions with these types and without NULLs are all of one variant: `types` itself."""
    return NUMBERS_AND_TIMES.issuperset(types[::2])


def variant(parameters: ExecuteParameters) -> bytes:
    """The execution's variant. Raises RemoteProtocolError when a value cannot be read."""
    types = parameters.types
    bitmap = parameters.null_bitmap
    if plain(types) and not any(bitmap) and not parameters.long_data:
        return types
    looks = []
    for number, value in enumerate(parameters.parameters()):
        if isinstance(value, bytes) and types[2 * number] not in NUMBERS_AND_TIMES:
            looks.append(look(value))
        else:
            looks.append(b"n" if value is None else b"")
    return types + b"|".join(looks)


def look(text: bytes) -> bytes:
    """What kind of number a text is to a server; `t` for none, and for an integer from 0 of 63 bits: both leave no
    trace."""
    if len(text) > _LONGEST:
        return b"long" if _NUMBER.match(text[:_LONGEST]).end() == _LONGEST else _NO_NUMBER  # type: ignore[union-attr]
    found = _NUMBER.fullmatch(text)
    if found is None:
        return _NO_NUMBER
    before, sign, whole, fraction, exponent, after = found.groups(default=b"")
    if not whole and len(fraction) < 2:
        return _NO_NUMBER
    kind = _kind(sign == b"-", whole.lstrip(b"0"), fraction, exponent)
    return kind if kind == _NO_NUMBER else before[:4] + sign + kind + after[:4]


def _kind(negative: bool, whole: bytes, fraction: bytes, exponent: bytes) -> bytes:
    if exponent:
        small = len(exponent) < 3 and len(whole) <= _MOST_DIGITS
        return b"e" if small else b"o"
    if fraction:
        return b"d" if len(whole) <= _MOST_DIGITS else b"o"
    value = int(whole or b"0")
    if negative:
        return b"i" if value <= 1 << 63 else b"h"
    if value < 1 << 63:
        return _NO_NUMBER
    return b"u" if value < 1 << 64 else b"h"
