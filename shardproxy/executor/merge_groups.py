"""From a plan's cells and the shards' column definitions to how groups are combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardproxy.executor.merge_having import condition
from shardproxy.executor.merge_keys import STRINGS, Described, NotMergeable
from shardproxy.merge import concatenated, keys
from shardproxy.merge import grouped as merging
from shardproxy.merge.concatenated import Concatenated
from shardproxy.merge.grouped import CellReader, Grouped, Rows, SortReader
from shardproxy.merge.having import Exact
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.rollup import RolledUp
from shardproxy.merge.stream import ShardStream
from shardproxy.planner.merge_plan import Cell, Combine, FinalTerm, GroupMerge, Number
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import ColumnFlag, FieldType

_OPERATIONS = {
    Combine.FIRST: merging.ANY,
    Combine.ANY: merging.ANY,
    Combine.COUNT: merging.COUNT,
    Combine.SUM: merging.SUM,
    Combine.AVG: merging.AVERAGE,
    Combine.MIN: merging.LEAST,
    Combine.MAX: merging.GREATEST,
    Combine.BIT_AND: merging.AND,
    Combine.BIT_OR: merging.OR,
    Combine.BIT_XOR: merging.XOR,
    Combine.CONCAT: concatenated.CONCAT,
    Combine.ARRAY: concatenated.ARRAY,
}
_INTEGERS = (Combine.COUNT, Combine.BIT_AND, Combine.BIT_OR, Combine.BIT_XOR)
# Of results in UTF-8, or binary: no text takes fewer bytes than on the server.
_AS_LONG = (33, 45, 46, 63, 83, 224, 255)
_SHOWN = (ColumnFlag.UNSIGNED | ColumnFlag.ZEROFILL).value
_WORD = 9  # digits
_MOST_DECIMALS = 30  # a scale from which on servers cut off


def grouped(
    plan: GroupMerge,
    terms: Sequence[FinalTerm],
    numbers: Mapping[Number, Exact],
    streams: list[ShardStream],
    described: Described,
    parts: Sequence[KeyPart],
) -> Grouped:
    """The merge of groups. terms: `plan.final` without positions; numbers: of HAVING; parts: the streams' keys.

    Raises NotMergeable.
    """
    first = sum(part.columns for part in parts)
    hidden = len(plan.hidden)
    cells = [_cell(cell, described, first, hidden) for cell in plan.cells]
    final: list[SortReader] = []
    for term in terms:
        if term.key is not None:
            part = described.part(term.key, first + term.column, term.descending, False)
            final.append(SortReader(term.column + part.used, part))
            continue
        cell, reader = plan.cells[term.cell], cells[term.cell]
        if cell.key is not None:
            part = described.part(cell.key, first + cell.partials, term.descending, False)
            final.append(SortReader(cell.partials + part.used, part))
        else:
            final.append(SortReader(reader.column, described.by_value(first + reader.column, term.descending)))
    rows = Rows(list(described.definitions[first:]), hidden, described.binary)
    having = None
    if plan.having is not None:
        having = condition(plan.having, numbers, plan, cells, described, first)
    if plan.rollup is not None:
        columns = [hidden + item if item >= 0 else -1 for item in plan.rollup.items]
        return RolledUp(streams, rows, cells, having, list(parts), columns, plan.rollup.always)
    outer = None
    inner: list[KeyPart] = []
    if plan.outer >= 0:
        outer = list(parts[: plan.outer])
        inner = list(parts[plan.outer :])
        _check_distinct(plan, inner)
    if any(cell.operation >= concatenated.CONCAT for cell in cells):
        return Concatenated(streams, rows, cells, final, having, outer, plan.always, inner)
    return Grouped(streams, rows, cells, final, having, outer, plan.always)


def _check_distinct(plan: GroupMerge, values: Sequence[KeyPart]) -> None:
    """DISTINCT values that are equal to us must be the same to a server, whatever aggregate they are for."""
    for part in values:
        if part.kind == keys.DOUBLE:
            raise NotMergeable("DISTINCT floating-point numbers in aggregates over several shards")
        added = any(cell.distinct and cell.combine in (Combine.SUM, Combine.AVG) for cell in plan.cells)
        if added and part.kind not in (keys.INTEGER, keys.DECIMAL, keys.CONSTANT):
            raise NotMergeable("SUM and AVG of DISTINCT values that are no numbers over several shards")


def sorted_payloads(
    plan: GroupMerge, payloads: Sequence[bytes], definitions: Sequence[ColumnDefinition]
) -> list[bytes]:
    """The client's column definitions. A server that sorts groups by something else puts them into a temporary table
    first, whose numbers are not called BINARY; of DISTINCT values the shards need none."""
    found = list(payloads)
    for cell in plan.cells if plan.outer >= 0 and plan.final else ():
        if cell.shown and cell.combine in (Combine.COUNT, Combine.SUM, Combine.AVG):
            definition = definitions[cell.column]
            found[cell.column] = replace(definition, flags=definition.flags & ~ColumnFlag.BINARY.value).build()
    return found


def check_rolled_up(columns: Sequence[ColumnDefinition], rows: Sequence[ColumnDefinition]) -> None:
    """Raise NotMergeable unless rows of these definitions are rows of these columns, those of WITH ROLLUP: there a
    ZEROFILL column, say, is shown without its zeros."""
    if len(columns) != len(rows):
        raise NotMergeable("ROLLUP whose columns are not those of its groups")
    for ours, theirs in zip(rows, columns, strict=True):
        texts = ours.type in STRINGS and theirs.type in STRINGS
        same = ours.type == theirs.type and ours.decimals == theirs.decimals
        bits = theirs.type == FieldType.BIT.value  # whose least one MariaDB writes as a number then
        if not (same or texts) or bits or ours.charset != theirs.charset or (ours.flags ^ theirs.flags) & _SHOWN:
            raise NotMergeable("ROLLUP that gives a column another type")


def _cell(cell: Cell, described: Described, first: int, hidden: int) -> CellReader:
    reader = CellReader(_OPERATIONS[cell.combine], cell.column + (hidden if cell.shown else 0), cell.partials)
    definition = described.definitions[first + reader.column]
    reader.signed = not definition.unsigned
    reader.distinct = cell.distinct
    if cell.key is not None:
        reader.part = described.part(cell.key, first + cell.partials, False, False)
    elif cell.combine in (Combine.CONCAT, Combine.ARRAY):
        separator = described.definitions[first + cell.partials]
        if definition.charset not in _AS_LONG or separator.charset not in _AS_LONG:
            raise NotMergeable("GROUP_CONCAT in a character set whose bytes are not known here")
    elif cell.combine in _INTEGERS:
        if definition.type != FieldType.LONGLONG.value:
            raise NotMergeable(f"{cell.combine.name} of binary strings over several shards")
    elif cell.combine in (Combine.SUM, Combine.AVG) and definition.type != FieldType.NEWDECIMAL.value:
        raise NotMergeable(
            f"{cell.combine.name} of floating-point numbers over several shards: its last digits "
            "depend on the order of the rows"
        )
    if cell.combine is Combine.AVG:
        total = described.definitions[first + cell.partials]
        reader.scale = definition.decimals
        reader.increment = definition.decimals - total.decimals
        if definition.decimals >= _MOST_DECIMALS or reader.increment < 0:
            raise NotMergeable("AVG of so many decimals over several shards")
        if cell.distinct and not described.mariadb:
            reader.increment += _WORD  # MySQL divides on there, and so always rounds
    return reader
