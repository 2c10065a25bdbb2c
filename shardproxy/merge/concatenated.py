"""GROUP_CONCAT and JSON_ARRAYAGG: pieces of one group from several shards, one after the other.

Where GROUP_CONCAT has an order or is of DISTINCT values, the shards' groups are finer, by these too: so the pieces come
in the wanted order, and those of equal DISTINCT values are left out.
"""

from __future__ import annotations

from shardproxy.errors import RemoteProtocolError, UnsupportedError
from shardproxy.merge.grouped import CellReader, Grouped, Rows, SortReader, length_of
from shardproxy.merge.having import Condition
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.ordered import next_run
from shardproxy.merge.stream import ShardStream

CONCAT = 9  # operations beside those of merge.grouped
ARRAY = 10
_LONGEST_CHARACTER = 4
# Whose texts take at most as many bytes as in UTF-8.
_CHARSETS = (b"utf8mb4", b"utf8mb3", b"utf8", b"latin1", b"ascii", b"binary")


class JoinError(UnsupportedError):
    """What a server makes of these values is not known here: it cuts long ones, and orders by NULL in its own way."""


class Pieces:
    """Those of one cell. cell.partials: column of the separator; behind it those of the most bytes, and of the names of
    the values' character sets."""

    def __init__(self, cell: CellReader) -> None:
        self.cell = cell
        self._found: list[bytes] = []
        self._separator = b""
        self._most = 0
        self._size = 0

    def start(self, values: list[bytes | None], rows: Rows) -> None:
        """The first row of a group. Raises JoinError."""
        separator, most = values[self.cell.partials], values[self.cell.partials + 1]
        if separator is None or most is None:
            raise RemoteProtocolError("a separator that is NULL")
        names = values[self.cell.partials + 2]
        if names and any(name not in _CHARSETS for name in names.split(b",")):
            raise JoinError("texts in a character set whose bytes are not known here")
        if not separator.isascii():
            raise JoinError("a separator whose characters the texts' own character set may not have")
        self._separator = separator
        self._most = rows.integer(most, True)
        self._found = []
        self._size = 0
        self.add(values)

    def add(self, values: list[bytes | None]) -> None:
        """The next row. Raises JoinError."""
        value = values[self.cell.column]
        if value is None:
            return
        if self.cell.operation == ARRAY:
            if value[:1] != b"[" or value[-1:] != b"]":
                raise RemoteProtocolError("a JSON array without brackets")
            value = value[1:-1]
        self._size += len(value) + len(self._separator)
        if self._size + _LONGEST_CHARACTER > self._most:
            raise JoinError(f"a group's values together are longer than {self._most} bytes: servers cut them")
        self._found.append(value)

    def whole(self) -> bytes | None:
        """The group's value."""
        if not self._found:
            return None
        value = self._separator.join(self._found)
        return b"[" + value + b"]" if self.cell.operation == ARRAY else value


class Concatenated(Grouped):
    """Groups some of whose cells are CONCAT or ARRAY; the others are those of Grouped.

    inner: the parts of the keys behind the group's own.
    """

    def __init__(
        self,
        streams: list[ShardStream],
        rows: Rows,
        cells: list[CellReader],
        final: list[SortReader],
        having: Condition | None,
        outer: list[KeyPart] | None,
        always: bool,
        inner: list[KeyPart],
    ) -> None:
        others = [cell for cell in cells if cell.operation < CONCAT]
        super().__init__(streams, rows, others, final, having, outer, always)
        self._inner = inner
        self._pieces = [Pieces(cell) for cell in cells if cell.operation >= CONCAT]

    def round(self) -> tuple[list[bytes], list[bytes]]:
        """(keys, rows) of the groups that are whole now; keys are empty where nothing is sorted afterwards."""
        keys, rows = next_run(self.streams)
        found: list[bytes] = []
        sort_keys: list[bytes] = []
        for i in range(len(keys)):
            key = keys[i]
            values = self._rows.values(rows[i])
            if self._values and key == self._key:
                self._more(values, True)
            elif self._values and self._outer is not None and key.startswith(self._prefix):
                self._more(values, False)
            else:
                self._end_group(sort_keys, found)
                self._prefix = key if self._outer is None else key[: length_of(self._outer, key)]
                self._values = values
                for pieces in self._pieces:
                    pieces.start(values, self._rows)
            self._key = key
            if self._inner:
                self._check_order(key, values)
        if not keys:
            self.done = True
            self._end_group(sort_keys, found)
        return sort_keys, found

    def _more(self, values: list[bytes | None], again: bool) -> None:
        """Another row of the group; again: with the keys of the row before, from another shard."""
        self._combine(self._repeated if again else self._cells, self._values, [values])
        self._combined = True
        for pieces in self._pieces:
            if not again or not pieces.cell.distinct:
                pieces.add(values)

    def _check_order(self, key: bytes, values: list[bytes | None]) -> None:
        at = len(self._prefix)
        for part in self._inner:
            if key[at] == (0xFF if part.descending else 0):
                for pieces in self._pieces:
                    if values[pieces.cell.column] is not None:
                        raise JoinError("GROUP_CONCAT ordered by NULL, which servers take for an empty value")
            at = part.end(key, at)

    def _end_group(self, sort_keys: list[bytes], found: list[bytes]) -> None:
        values = self._values
        if values:
            for pieces in self._pieces:
                values[pieces.cell.column] = pieces.whole()
        elif self._always and self.done:
            self._values = self._nothing()
        self._close_finer(sort_keys, found)
