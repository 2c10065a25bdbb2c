"""From a plan's HAVING, the values at hand and the shards' column definitions to a condition over combined groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shardproxy.executor.merge_keys import Described, NotMergeable
from shardproxy.executor.request import Request
from shardproxy.merge import having as merging
from shardproxy.merge.aggregates import parse_decimal
from shardproxy.merge.grouped import CellReader
from shardproxy.merge.having import Exact
from shardproxy.merge.stream import width_of
from shardproxy.planner.merge_plan import (
    Combine,
    Compares,
    Connected,
    GroupMerge,
    Having,
    Held,
    IsNull,
    Negated,
    Number,
)
from shardproxy.protocol.mysql.constants import ColumnFlag, FieldType
from shardproxy.protocol.mysql.values import INTEGER_WIDTH
from shardproxy.topology.keys import KeyType

_PLAIN = re.compile(rb"[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18}")  # a number that servers take exactly
_MOST = 10**18
_WANTED = {"=": (0,), "<>": (-1, 1), "<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1)}
_TYPES = "HAVING over several shards compares integers and decimals only"
_ODD = (ColumnFlag.ENUM | ColumnFlag.SET | ColumnFlag.ZEROFILL).value


def numbers(having: Having | None, request: Request) -> dict[Number, Exact]:
    """The numbers of the condition. Raises NotMergeable when one is none that servers compare exactly."""
    match having:
        case Compares(left, _, right):
            return {one: _number(one, request) for one in (left, right) if isinstance(one, Number)}
        case Negated(part):
            return numbers(part, request)
        case Connected(_, parts):
            return {number: exact for part in parts for number, exact in numbers(part, request).items()}
        case _:
            return {}


def _number(number: Number, request: Request) -> Exact:
    value = number.value
    literal = request.literals[value.index]
    if _PLAIN.fullmatch(literal):
        exact = parse_decimal(literal)
        return (-exact[0], exact[1]) if value.negative else exact
    if literal == b"?" and request.execution is not None:
        parameters = request.execution.parameters
        bound = request.read(value, KeyType.INT)
        whole = INTEGER_WIDTH[parameters.types[2 * request.numbers[value.index]]]
        if whole and isinstance(bound, int) and abs(bound) < _MOST:
            return bound, 0
    raise NotMergeable("HAVING over several shards compares with plain numbers only")


def condition(
    having: Having,
    found: Mapping[Number, Exact],
    plan: GroupMerge,
    cells: Sequence[CellReader],
    described: Described,
    first: int,
) -> merging.Condition:
    """The condition for rows of `cells`, whose columns begin at `first` of the definitions; found: see `numbers`.

    Raises NotMergeable.
    """

    def operand(one: Held | Number) -> merging.Operand:
        if isinstance(one, Number):
            return merging.Operand(found[one])
        column = one.column
        if one.cell >= 0:
            cell = cells[one.cell]
            if plan.cells[one.cell].combine is Combine.AVG and not described.mariadb:  # which compares it as shown
                return merging.Mean(cell.partials, described.binary, cell.increment)
            column = cell.column
        definition = described.definitions[first + column]
        if definition.flags & _ODD:
            raise NotMergeable(_TYPES)
        if definition.type == FieldType.NEWDECIMAL.value:
            return merging.Held(column, 0, True)
        if not INTEGER_WIDTH[definition.type] or definition.type == FieldType.YEAR.value:
            raise NotMergeable(_TYPES)
        if definition.type == FieldType.LONGLONG.value and definition.unsigned:
            raise NotMergeable(_TYPES)  # servers compare large ones with signed numbers in several ways
        return merging.Held(column, width_of(definition.type) if described.binary else 0, not definition.unsigned)

    def built(part: Having) -> merging.Condition:
        match part:
            case Compares(left, sign, right):
                return merging.Compares(operand(left), operand(right), _WANTED[sign])
            case IsNull(held):
                return merging.Missing(operand(held))
            case Negated(inner):
                return merging.Not(built(inner))
            case Connected(every, parts):
                decisive = merging.FALSE if every else merging.TRUE
                return merging.Joined([built(inner) for inner in parts], decisive)

    return built(having)
