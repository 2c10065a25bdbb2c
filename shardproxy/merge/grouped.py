"""Groups that have rows on several shards: each shard's are sorted by the group's keys, and equal ones become one.

Where an aggregate is of DISTINCT values, the shards' groups are finer, of the group's keys and the values: what comes
from two shards with all keys equal counts once there, and everything with the group's keys equal is one group.
"""

from __future__ import annotations

from shardproxy.errors import BackendError, RemoteProtocolError
from shardproxy.merge.aggregates import add_decimals, average
from shardproxy.merge.having import TRUE, Condition
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.ordered import next_run
from shardproxy.merge.stream import ShardStream, first_values, width_of
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.packets import lenenc_str

# What is done with the values of a cell.
ANY = 0
COUNT = 1
SUM = 2
AVERAGE = 3
LEAST = 4
GREATEST = 5
AND = 6
OR = 7
XOR = 8

_ALL_BITS = (1 << 64) - 1


class CellReader:
    """How one cell is combined.

    column: of the row as it comes out of the streams; partials: column of the first partial value. part: of LEAST and
    GREATEST, how values are compared. scale, increment: of AVERAGE. signed: of integers. distinct: equal values count
    once.
    """

    __slots__ = ("column", "distinct", "increment", "operation", "part", "partials", "scale", "signed")

    def __init__(self, operation: int, column: int, partials: int) -> None:
        self.operation = operation
        self.column = column
        self.partials = partials
        self.part: KeyPart | None = None
        self.scale = 0
        self.increment = 4
        self.signed = True
        self.distinct = False


class SortReader:
    """How one term of the order of combined groups is read: from the value of a column."""

    __slots__ = ("column", "part")

    def __init__(self, column: int, part: KeyPart) -> None:
        self.column = column
        self.part = part


class Rows:
    """Rows taken apart and put together again; the first `hidden` columns are not the client's."""

    def __init__(self, definitions: list[ColumnDefinition], hidden: int, binary: bool) -> None:
        self.definitions = definitions
        self.hidden = hidden
        self.binary = binary
        self._widths = [width_of(d.type) for d in definitions]

    def values(self, row: bytes) -> list[bytes | None]:
        """All values; a binary one without the length before it."""
        return first_values(row, len(self.definitions), self.definitions, self.binary)

    def row(self, values: list[bytes | None]) -> bytes:
        """The client's columns as a row."""
        shown = values[self.hidden :]
        if not self.binary:
            return b"".join([b"\xfb" if value is None else lenenc_str(value) for value in shown])
        nulls = 0
        pieces: list[bytes] = []
        for i in range(len(shown)):
            value = shown[i]
            if value is None:
                nulls |= 1 << (i + 2)
            else:
                pieces.append(value if self._widths[self.hidden + i] else lenenc_str(value))
        return b"\x00" + nulls.to_bytes((len(shown) + 9) >> 3, "little") + b"".join(pieces)

    def integer(self, value: bytes, signed: bool) -> int:
        """An integer value."""
        return int.from_bytes(value, "little", signed=signed) if self.binary else int(value)

    def from_integer(self, value: int) -> bytes:
        """A BIGINT value."""
        if not self.binary:
            return b"%d" % value
        return (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")


class Grouped:
    """Combined groups of the streams, a round at a time: rows for the client, with their sort keys where they are to be
    sorted. done: no more will come.

    having: which groups are wanted. outer: the parts of the group's keys, when DISTINCT values are keys too; None: all
    keys are the group's. always: there is one group even when there is no row.
    """

    def __init__(
        self,
        streams: list[ShardStream],
        rows: Rows,
        cells: list[CellReader],
        final: list[SortReader],
        having: Condition | None = None,
        outer: list[KeyPart] | None = None,
        always: bool = False,
    ) -> None:
        self.streams = streams
        self.done = False
        self._rows = rows
        self._cells = cells
        self._final = final
        self._having = having
        self._outer = outer
        self._always = always
        self._repeated = [cell for cell in cells if not cell.distinct]
        self._key = b""  # of DISTINCT values too
        self._prefix = b""  # of the group alone
        self._open: list[bytes] = []  # rows of the group whose key is `_key`
        self._values: list[bytes | None] = []  # of the group whose key is `_prefix`; combined: of several rows
        self._combined = False
        self._as_is = not rows.hidden and not final and having is None

    def hungry(self) -> list[ShardStream]:
        """The streams that must be fed before the next round."""
        return [s for s in self.streams if not s.ended and not s.waiting]

    def round(self) -> tuple[list[bytes], list[bytes]]:
        """(keys, rows) of the groups that are whole now; keys are empty where nothing is sorted afterwards."""
        keys, rows = next_run(self.streams)
        found: list[bytes] = []
        sort_keys: list[bytes] = []
        if self._outer is not None:
            self._finer(self._outer, keys, rows, sort_keys, found)
            return sort_keys, found
        if not rows:
            self.done = True
            self._close(sort_keys, found)
            return sort_keys, found
        for i in range(len(keys)):
            if keys[i] != self._key or not self._open:
                self._close(sort_keys, found)
                self._key = keys[i]
            self._open.append(rows[i])
        return sort_keys, found

    def _close(self, sort_keys: list[bytes], found: list[bytes]) -> None:
        if not self._open:
            return
        if len(self._open) == 1 and self._as_is:
            found.append(self._open[0])
        else:
            rows = self._rows
            values = rows.values(self._open[0])
            if len(self._open) > 1:
                self._combine(self._cells, values, [rows.values(row) for row in self._open[1:]])
                self._finish(values)
            self._hand_out(values, sort_keys, found)
        self._open = []

    def _hand_out(self, values: list[bytes | None], sort_keys: list[bytes], found: list[bytes]) -> None:
        having = self._having
        if having is not None and having.holds(values) != TRUE:
            return
        if self._final:
            sort_keys.append(b"".join([term.part.encode(values[term.column]) for term in self._final]))
        found.append(self._rows.row(values))

    # ── DISTINCT values ──

    def _finer(
        self, outer: list[KeyPart], keys: list[bytes], rows: list[bytes], sort_keys: list[bytes], found: list[bytes]
    ) -> None:
        fresh: list[list[bytes | None]] = []  # with values that this group has not had
        again: list[list[bytes | None]] = []  # with values that it has had, from another shard
        for i in range(len(keys)):
            key = keys[i]
            if key == self._key and self._values:
                if self._repeated:
                    again.append(self._rows.values(rows[i]))
                continue
            self._key = key
            if self._values and key.startswith(self._prefix):
                fresh.append(self._rows.values(rows[i]))
                continue
            self._add(fresh, again)
            fresh = []
            again = []
            self._close_finer(sort_keys, found)
            self._prefix = key[: length_of(outer, key)]
            self._values = self._rows.values(rows[i])
        self._add(fresh, again)
        if not keys:
            self.done = True
            if not self._values and self._always:
                self._values = self._nothing()
            self._close_finer(sort_keys, found)

    def _add(self, fresh: list[list[bytes | None]], again: list[list[bytes | None]]) -> None:
        if fresh:
            self._combine(self._cells, self._values, fresh)
            self._combined = True
        if again:
            self._combine(self._repeated, self._values, again)
            self._combined = True

    def _close_finer(self, sort_keys: list[bytes], found: list[bytes]) -> None:
        if not self._values:
            return
        if self._combined:
            self._finish(self._values)
        self._hand_out(self._values, sort_keys, found)
        self._values = []
        self._combined = False
        self._always = False

    def _nothing(self) -> list[bytes | None]:
        """The values of aggregates over no row."""
        rows = self._rows
        values: list[bytes | None] = [None] * len(rows.definitions)
        for cell in self._cells:
            if cell.operation in (COUNT, OR, XOR):
                values[cell.column] = rows.from_integer(0)
            elif cell.operation == AND:
                values[cell.column] = rows.from_integer(_ALL_BITS)
        return values

    # ── values of several rows into one ──

    def _combine(self, cells: list[CellReader], values: list[bytes | None], others: list[list[bytes | None]]) -> None:
        """Put the others' values into `values`; of averages their partial values."""
        for cell in cells:
            operation = cell.operation
            column = cell.column
            if operation == AVERAGE:
                self._add_up(values, others, cell.partials)
                self._count(values, others, cell.partials + 1)
            elif operation == COUNT:
                self._count(values, others, column)
            elif operation == SUM:
                self._add_up(values, others, column)
            elif operation in (LEAST, GREATEST):
                self._extreme(cell, values, others)
            elif operation == ANY:
                for other in others:
                    if values[column] is None:
                        values[column] = other[column]
            else:
                self._bits(cell, values, others)

    def _finish(self, values: list[bytes | None]) -> None:
        """Averages, from their sums and counts."""
        for cell in self._cells:
            if cell.operation == AVERAGE:
                total, count = values[cell.partials], values[cell.partials + 1]
                if count is None:
                    raise RemoteProtocolError("a COUNT that is NULL")
                values[cell.column] = (
                    None
                    if total is None
                    else average(total, self._rows.integer(count, True), cell.scale, cell.increment)
                )

    def _count(self, values: list[bytes | None], others: list[list[bytes | None]], column: int) -> None:
        rows = self._rows
        first = values[column]
        if first is None:
            raise RemoteProtocolError("a COUNT that is NULL")
        total = rows.integer(first, True)
        for other in others:
            value = other[column]
            if value is None:
                raise RemoteProtocolError("a COUNT that is NULL")
            total += rows.integer(value, True)
        if total >= 1 << 63:
            raise BackendError("a count over several shards is larger than a BIGINT")
        values[column] = rows.from_integer(total)

    def _add_up(self, values: list[bytes | None], others: list[list[bytes | None]], column: int) -> None:
        total = values[column]
        for other in others:
            value = other[column]
            if value is not None:
                total = value if total is None else add_decimals(total, value)
        values[column] = total

    def _bits(self, cell: CellReader, values: list[bytes | None], others: list[list[bytes | None]]) -> None:
        rows = self._rows
        column = cell.column
        total: int | None = None
        for row in (values, *others):
            value = row[column]
            if value is None:
                continue
            bits = rows.integer(value, cell.signed)
            if total is None:
                total = bits
            elif cell.operation == AND:
                total &= bits
            elif cell.operation == OR:
                total |= bits
            else:
                total ^= bits
        values[column] = None if total is None else rows.from_integer(total)

    def _extreme(self, cell: CellReader, values: list[bytes | None], others: list[list[bytes | None]]) -> None:
        part = cell.part
        assert part is not None
        at = cell.partials + part.used
        best: bytes | None = None
        for other in (values, *others):
            if other[cell.column] is None:
                continue
            key = part.encode(other[at])
            if best is None or (key < best if cell.operation == LEAST else key > best):
                best = key
                values[cell.column] = other[cell.column]
                values[cell.partials : cell.partials + part.columns] = other[
                    cell.partials : cell.partials + part.columns
                ]


def length_of(parts: list[KeyPart], key: bytes) -> int:
    """Bytes at the beginning of a key that are of these parts."""
    at = 0
    for part in parts:
        at = part.end(key, at)
    return at
