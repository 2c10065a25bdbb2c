"""Groups that have rows on several shards: each shard's are sorted by the group's keys, and equal ones become one."""

from __future__ import annotations

from shardproxy.errors import BackendError, RemoteProtocolError
from shardproxy.merge.aggregates import add_decimals, average
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


class CellReader:
    """How one cell is combined.

    column: of the row as it comes out of the streams; partials: column of the first partial value. part: of LEAST and
    GREATEST, how values are compared. scale, increment: of AVERAGE. signed: of integers.
    """

    __slots__ = ("column", "increment", "operation", "part", "partials", "scale", "signed")

    def __init__(self, operation: int, column: int, partials: int) -> None:
        self.operation = operation
        self.column = column
        self.partials = partials
        self.part: KeyPart | None = None
        self.scale = 0
        self.increment = 4
        self.signed = True


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
    sorted. done: no more will come."""

    def __init__(
        self, streams: list[ShardStream], rows: Rows, cells: list[CellReader], final: list[SortReader]
    ) -> None:
        self.streams = streams
        self.done = False
        self._rows = rows
        self._cells = cells
        self._final = final
        self._key = b""
        self._open: list[bytes] = []  # rows of the group whose key is `_key`

    def hungry(self) -> list[ShardStream]:
        """The streams that must be fed before the next round."""
        return [s for s in self.streams if not s.ended and not s.waiting]

    def round(self) -> tuple[list[bytes], list[bytes]]:
        """(keys, rows) of the groups that are whole now; keys are empty where nothing is sorted afterwards."""
        keys, rows = next_run(self.streams)
        found: list[bytes] = []
        sort_keys: list[bytes] = []
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
        rows = self._rows
        if len(self._open) == 1 and not rows.hidden and not self._final:
            found.append(self._open[0])
        else:
            values = rows.values(self._open[0])
            if len(self._open) > 1:
                self._combine(values, [rows.values(row) for row in self._open[1:]])
            if self._final:
                sort_keys.append(b"".join([term.part.encode(values[term.column]) for term in self._final]))
            found.append(rows.row(values))
        self._open = []

    def _combine(self, values: list[bytes | None], others: list[list[bytes | None]]) -> None:
        for cell in self._cells:
            if cell.operation == AVERAGE:
                self._average(cell, values, others)
            elif cell.operation in (LEAST, GREATEST):
                self._extreme(cell, values, others)
            else:
                for other in others:
                    values[cell.column] = self._two(cell, values[cell.column], other[cell.column])

    def _two(self, cell: CellReader, left: bytes | None, right: bytes | None) -> bytes | None:
        if right is None:
            return left
        if left is None:
            return right
        operation = cell.operation
        if operation == ANY:
            return left
        if operation == SUM:
            return add_decimals(left, right)
        a = self._rows.integer(left, cell.signed)
        b = self._rows.integer(right, cell.signed)
        if operation == COUNT:
            total = a + b
            if total >= 1 << 63:
                raise BackendError("a count over several shards is larger than a BIGINT")
            return self._rows.from_integer(total)
        if operation == AND:
            return self._rows.from_integer(a & b)
        if operation == OR:
            return self._rows.from_integer(a | b)
        return self._rows.from_integer(a ^ b)

    def _average(self, cell: CellReader, values: list[bytes | None], others: list[list[bytes | None]]) -> None:
        total: bytes | None = None
        count = 0
        for row in (values, *others):
            part, number = row[cell.partials], row[cell.partials + 1]
            if number is None:
                raise RemoteProtocolError("a COUNT that is NULL")
            if part is not None:
                total = part if total is None else add_decimals(total, part)
                count += self._rows.integer(number, True)
        values[cell.column] = None if total is None else average(total, count, cell.scale, cell.increment)

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
