"""The integer that a statement ends with: where it starts, and its value, without looking at the text before it.

Most statements of applications that are about one row end like this, `… WHERE id = 4711`. When the digest that such a
text would have with this one literal is that of a plan already (`CachedPlan.key_last`), then the text has that digest:
what comes before the number stands in the digest as it is, so there it has no literal here either. So the pattern of
`sql.digest`, which costs more than all else that is done with such a text, need not be run.
"""

from __future__ import annotations

import re
from typing import Final

from mypy_extensions import i64

from shardproxy.sql.digest import NAME_BYTES

MOST: Final = 18  # digits: an i64 holds them
# By byte: whether it makes a number that it stands before a part of something else, as in `sql.digest`.
_GLUES: Final = bytes(bool(re.match(rb"[NAME.@]".replace(b"NAME", NAME_BYTES), bytes((b,)))) for b in range(256))


def last_integer(wire: bytes) -> tuple[i64, i64]:
    """Start and value of the plain integer that `wire`, one packet of COM_QUERY, ends with; (0, 0) when it ends
    otherwise, or is glued to a name, or long."""
    end: i64 = len(wire)
    at = end
    value: i64 = 0
    unit: i64 = 1
    while at > 5:
        byte: i64 = wire[at - 1]
        if byte < 48 or byte > 57:
            glues: i64 = _GLUES[byte]
            if at == end or end - at > MOST or glues:
                break
            return at, value
        if end - at < MOST:
            value += (byte - 48) * unit
            unit *= 10
        at -= 1
    return 0, 0
