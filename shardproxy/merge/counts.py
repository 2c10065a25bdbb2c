"""What several servers say about their shares of one write, as one server would say it of the whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

_AT_ROW = re.compile(rb" at row ([0-9]+)\Z")
_NUMBER = re.compile(rb"[0-9]+")
_NOWHERE = 1 << 62


def summed(infos: Sequence[bytes], repeated: int = 0) -> bytes:
    """The sum of infos of one form, "Rows matched: 2  Changed: 1  Warnings: 0"; empty ones do not count. repeated:
    warnings, the last number, of which so many are not counted."""
    told = [info for info in infos if info]
    if not told:
        return b""
    columns = zip(*([int(n) for n in _NUMBER.findall(info)] for info in told), strict=True)
    totals = [sum(column) for column in columns]
    totals[-1] -= repeated
    left = iter(totals)
    return _NUMBER.sub(lambda _: b"%d" % next(left), told[0])


def records(total: int, duplicates: int, warnings: int) -> bytes:
    """The info of an INSERT of several rows."""
    return b"Records: %d  Duplicates: %d  Warnings: %d" % (total, duplicates, warnings)


def duplicates(info: bytes, affected: int, *, ignored: bool) -> int:
    """The duplicates of a share of an INSERT or REPLACE. Of a single row a server does not tell them, info is empty:
    one row stored counts 1, and what was deleted or changed for it counts besides. ignored: INSERT IGNORE."""
    if info:
        return int(_NUMBER.findall(info)[1])
    if ignored:
        return 0 if affected else 1
    return max(0, affected - 1)


def found(info: bytes, affected: int) -> int:
    """The rows that an UPDATE or DELETE found, changed or not: DELETE has no info and changes what it finds."""
    return int(_NUMBER.findall(info)[0]) if info else affected


def renumbered(message: bytes, rows: Sequence[int] | None) -> bytes:
    """A message with the whole statement's row number in place of the share's. rows: for each row of the share its
    number, from 1; None where that is not known: the number is then left out."""
    found = _AT_ROW.search(message)
    if found is None:
        return message
    number = int(found.group(1))
    if rows is None or not 1 <= number <= len(rows):
        return message[: found.start()]
    return message[: found.start()] + b" at row %d" % rows[number - 1]


def row_of(message: bytes) -> int:
    """The row that a message names; for sorting, those that name none come last."""
    found = _AT_ROW.search(message)
    return int(found.group(1)) if found else _NOWHERE
