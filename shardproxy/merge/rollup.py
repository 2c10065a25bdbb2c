"""WITH ROLLUP: behind the groups that have the first columns in common, one of them all; at the end one of all."""

from __future__ import annotations

from shardproxy.merge.grouped import CellReader, Grouped, Rows
from shardproxy.merge.having import TRUE, Condition
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.stream import ShardStream


class RolledUp(Grouped):
    """Groups with their super-aggregate groups, each behind those that it is made of.

    parts: of the group's keys, one for each level. columns: for each of them where the rows have its value, −1 where
    nowhere: super-aggregate groups show NULL there. total: there is a grand total even when there is no row.
    """

    def __init__(
        self,
        streams: list[ShardStream],
        rows: Rows,
        cells: list[CellReader],
        having: Condition | None,
        parts: list[KeyPart],
        columns: list[int],
        total: bool,
    ) -> None:
        super().__init__(streams, rows, cells, [], having)
        self._as_is = False
        self._levels = parts
        self._columns = columns
        self._total = total
        # For each level, of so many columns, the values of its open super-aggregate group; [] where none is.
        self._sums: list[list[bytes | None]] = [[] for _ in parts]
        self._several = [False for _ in parts]  # it is of more than one group
        self._first = b""  # key of the group handed out last
        self._ends: list[int] = []  # where its levels end in it

    def round(self) -> tuple[list[bytes], list[bytes]]:
        """(keys, rows) of the groups that are whole now; keys are empty."""
        keys, found = super().round()
        if self.done:
            if self._total and not self._sums[-1]:
                self._sums[0] = self._nothing()
                self._emit(0, found)
            else:
                self._up(0, found)
        return keys, found

    def _hand_out(self, values: list[bytes | None], sort_keys: list[bytes], found: list[bytes]) -> None:
        key = self._key
        last = len(self._levels) - 1
        if last and not (self._ends and key.startswith(self._first[: self._ends[last - 1]])):
            level = last
            while level and not (self._ends and key.startswith(self._first[: self._ends[level - 1]])):
                level -= 1
            self._up(level + 1, found)
            self._ends = []
            at = 0
            for part in self._levels:
                at = part.end(key, at)
                self._ends.append(at)
            self._first = key
        self._add_to(last, values)
        self._show(values, found)

    def _show(self, values: list[bytes | None], found: list[bytes]) -> None:
        having = self._having
        if having is None or having.holds(values) == TRUE:
            found.append(self._rows.row(values))

    def _add_to(self, level: int, values: list[bytes | None]) -> None:
        if self._sums[level]:
            self._combine(self._cells, self._sums[level], [values])
            self._several[level] = True
        else:
            self._sums[level] = list(values)

    def _up(self, least: int, found: list[bytes]) -> None:
        """Close the open super-aggregate groups of `least` columns and more, those of most columns first."""
        for level in range(len(self._levels) - 1, least - 1, -1):
            if self._sums[level]:
                self._emit(level, found)

    def _emit(self, level: int, found: list[bytes]) -> None:
        values = self._sums[level]
        self._sums[level] = []
        if self._several[level]:
            self._finish(values)
        if level:
            self._add_to(level - 1, values)
        self._several[level] = False
        for column in self._columns[level:]:
            if column >= 0:
                values[column] = None
        self._show(values, found)
