"""Rows of one scratch table say which rows of others are needed: those that an integer column joins with them.

Small tables are filled first, so that a table of which few rows are joined is not gathered whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardproxy.backend.connection import BackendConnection
from shardproxy.executor.scratch_columns import quoted
from shardproxy.executor.scratch_tables import full_name, result
from shardproxy.planner.scratch_plan import Copy
from shardproxy.planner.template import Template

MOST_KEYS = 1000  # in a list that is sent to the shards
_MOST_ROWS = 50_000  # of a table that is asked for its keys


def next_place(copies: Sequence[Copy], rows: Mapping[int, int]) -> int:
    """Which table to fill now, −1 when all are filled. rows: how many rows those have that are."""
    left = [place for place in range(len(copies)) if place not in rows]
    if not any(copy.keys for copy in copies):
        return min(left, default=-1)

    def cost(place: int) -> tuple[int, int]:
        copy = copies[place]
        known = min((rows[other] for _, other, _ in copy.keys if other in rows), default=_MOST_ROWS + 1)
        if known <= MOST_KEYS:
            return 0, known
        if any((copies[other].database, copies[other].table) == (copy.database, copy.table) for other in rows):
            return 4, place  # perhaps another use of the table needs all rows: then they are copied
        if copy.reference or copy.where is not None:
            return 1, place
        return (2 if known <= _MOST_ROWS else 3), known

    return min(left, key=cost, default=-1)


def whole(copies: Sequence[Copy], place: int, rows: Mapping[int, int]) -> int:
    """Another scratch table that has all rows of the same table, and the same columns; itself when there is none."""
    copy = copies[place]
    alike = replace(copy, name="", alias="", where=None, literals=(), keys=())
    for other in rows:
        if other != place and replace(copies[other], name="", alias="") == alike:
            return other
    return place


async def narrowed(home: BackendConnection, copies: Sequence[Copy], place: int, rows: Mapping[int, int]) -> Copy | None:
    """The copy with a filter by the keys of tables that are filled; None when it needs no row at all.

    Raises BackendError.
    """
    copy = copies[place]
    for ours, other, theirs in copy.keys:
        if rows.get(other, _MOST_ROWS + 1) > _MOST_ROWS:
            continue
        values = await _distinct(home, copies[other], theirs)
        if not values:
            return None
        if len(values) > MOST_KEYS:
            continue
        among = quoted(ours) + b" IN (" + b",".join(values) + b")"
        copy = replace(copy, where=Template((among,)) if copy.where is None else copy.where + b" AND " + among)
    return replace(copy, keys=())


async def _distinct(home: BackendConnection, source: Copy, column: str) -> list[bytes]:
    """Values of a column of a filled table, one more than may be sent at most."""
    name = quoted(column)
    text = b"SELECT DISTINCT %s FROM %s WHERE %s IS NOT NULL LIMIT %d" % (name, full_name(source), name, MOST_KEYS + 1)
    return [row[0] for row in result(await home.query(text), home).rows if row[0] is not None]
