"""Whether source and target hold the same moving rows, at one position, chunk by chunk.

Each server makes a checksum of a chunk from the texts that would be copied (every bit of a value is in them). A chunk
whose checksums differ is read row by row, and the rows that differ are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from shardproxy.errors import RowsDiffer
from shardproxy.protocol.mysql.text import parse_text_row
from shardproxy.reshard.columns import ColumnShape, TableShape
from shardproxy.reshard.copier import primary_of
from shardproxy.reshard.link import Link
from shardproxy.reshard.throttle import FEW_CHANGES, Pace, Unlimited
from shardproxy.topology.moving import MovingKeys

CHUNK_ROWS = 5000
_CHEAPER, _FEWEST = 4, 200  # than writing a row is comparing it; rows of a chunk
MOST_SHOWN = 10

_LONG = frozenset({
    "tinyblob", "blob", "mediumblob", "longblob", "tinytext", "text", "mediumtext", "longtext", "json", "geometry",
    "varchar", "varbinary", "vector", "point", "linestring", "polygon", "multipoint", "multilinestring",
    "multipolygon", "geometrycollection", "geomcollection",
})  # fmt: skip


@dataclass(slots=True)
class Verified:
    """What was compared. differences: a line each, at most MOST_SHOWN."""

    rows: int = 0
    chunks: int = 0
    differences: list[str] = field(default_factory=list)

    def raise_if_different(self) -> None:
        """Raises RowsDiffer with the rows."""
        if self.differences:
            raise RowsDiffer("source and target differ; nothing is switched. " + "; ".join(self.differences))


async def verify_table(
    source: Link, target: Link, table: TableShape, moving: MovingKeys, done: Verified,
    pace: Pace | None = None, chunk: int = CHUNK_ROWS,
) -> None:  # fmt: skip
    """Compare one table; `done` is added to, and it stops at MOST_SHOWN differences.

    source, target: each in a transaction that shows the rows at the same position, with the session of
    `snapshot.SESSION`. Raises SqlError, BackendLost.
    """
    pace = pace or Unlimited()
    after: tuple[bytes, ...] | None = None
    while len(done.differences) < MOST_SHOWN:
        most = min(chunk, max(_FEWEST, min(pace.at_once, FEW_CHANGES) * _CHEAPER)) if pace.at_once else chunk
        end = await _end_of_chunk(source, table, moving, after, most)
        where = _between(table, moving, after, end)
        rows, equal = await compare(source, target, table, where)
        if not equal:
            await show(source, target, table, where, done)
        done.rows += rows
        done.chunks += 1
        if end is None:
            return
        after = end
        await pace.wait(rows // _CHEAPER)


async def _end_of_chunk(
    link: Link, table: TableShape, moving: MovingKeys, after: Sequence[bytes] | None, rows: int
) -> tuple[bytes, ...] | None:
    """The primary key of the last row of the next chunk; None when it has no full number of rows: it is the last."""
    sql = b"SELECT %s FROM %s FORCE INDEX (PRIMARY) WHERE %s ORDER BY %s LIMIT 1 OFFSET %d" % (
        b",".join(table.columns[i].select for i in table.primary),
        table.quoted,
        _between(table, moving, after, None),
        b", ".join(table.primary_names),
        rows - 1,
    )
    found = (await link.query(sql, 600.0)).values()
    return tuple(value or b"" for value in found[0]) if found else None


def _between(
    table: TableShape, moving: MovingKeys, after: Sequence[bytes] | None, end: Sequence[bytes] | None
) -> bytes:
    """Moving rows behind `after`, up to and with `end`."""
    parts = [table.condition(moving)]
    if after is not None:
        parts.append(b"(" + table.behind(after) + b")")
    if end is not None:
        parts.append(b"NOT (" + table.behind(end) + b")")
    return b" AND ".join(parts)


def hashed(column: ColumnShape) -> bytes:
    """A column as a short text, never NULL: long values by their hash, so that no row is too long to be joined."""
    value = column.select
    if column.data_type == "json":
        value = b"CAST(%s AS CHAR CHARACTER SET utf8mb4)" % value
    if column.data_type in _LONG:
        value = b"SHA2(CAST(%s AS BINARY), 256)" % value
    else:
        value = b"HEX(CAST(%s AS BINARY))" % value
    return b"IFNULL(%s, '-')" % value


def row_hash(table: TableShape) -> bytes:
    """64 bits of all copied columns of a row, as a number."""
    joined = b"CONCAT_WS(',', " + b", ".join(hashed(table.columns[i]) for i in table.written) + b")"
    return b"CAST(CONV(LEFT(SHA2(%s, 256), 16), 16, 10) AS UNSIGNED)" % joined


async def compare(
    source: Link, target: Link, table: TableShape, where: bytes, locking: bool = False
) -> tuple[int, bool]:
    """How many rows the source has under a condition, and whether both sides have the same.

    locking: wait for transactions that have changed such rows and are not visible yet.
    """
    # The exclusive or alone would not see two equal rows; the count does, and a primary key lets none be equal.
    rows = b"SELECT %s AS h FROM %s FORCE INDEX (PRIMARY) WHERE %s" % (row_hash(table), table.quoted, where)
    if locking:
        rows += b" LOCK IN SHARE MODE"
    text = b"SELECT COUNT(*), BIT_XOR(h), SUM(h IS NULL) FROM (" + rows + b") AS hashed_rows"
    ours, theirs = await asyncio.gather(source.query(text, 600.0), target.query(text, 600.0))
    counts = ours.one()
    return int(counts[0] or 0), counts == theirs.one()


async def _rows(link: Link, table: TableShape, where: bytes) -> AsyncIterator[tuple[tuple[bytes, ...], bytes]]:
    sql = b"SELECT %s FROM %s FORCE INDEX (PRIMARY) WHERE %s ORDER BY %s" % (
        table.select_list, table.quoted, where, b", ".join(table.primary_names),
    )  # fmt: skip
    async for batch in link.stream(sql, 600.0):
        for row in batch:
            yield primary_of(table, row), row


async def show(source: Link, target: Link, table: TableShape, where: bytes, done: Verified) -> None:
    """Add the rows under a condition that differ."""
    ours = {key: row async for key, row in _rows(source, table, where)}
    theirs = {key: row async for key, row in _rows(target, table, where)}
    before = len(done.differences)
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        here, there = ours.get(key), theirs.get(key)
        if here != there and len(done.differences) < MOST_SHOWN:
            what = "only on the source" if there is None else "only on the target" if here is None else "different"
            shown = b", ".join(key).decode("utf-8", "backslashreplace")
            columns = "" if here is None or there is None else _columns(table, here, there)
            done.differences.append(f"{table.name} ({shown}): {what}{columns}")
    if len(done.differences) == before:
        done.differences.append(f"{table.name}: checksums differ, and no row does: look at both sides by hand")


def _columns(table: TableShape, here: bytes, there: bytes) -> str:
    count = len(table.written)
    found = []
    pairs = zip(table.written, parse_text_row(here, count), parse_text_row(there, count), strict=True)
    for place, left, right in pairs:
        if left != right:
            found.append(f"{table.columns[place].name} {_value(left)} and {_value(right)}")
    return " in " + ", ".join(found)


def _value(value: bytes | None) -> str:
    if value is None:
        return "NULL"
    shown = value[:40].decode("utf-8", "backslashreplace")
    return f"'{shown}'" + (f"… ({len(value)} bytes)" if len(value) > 40 else "")
