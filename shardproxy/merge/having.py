"""The condition of HAVING over combined groups: exact numbers compared, in three-valued logic.

Values are integers and decimals, as servers compare these: exactly. Nothing else is compared here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from shardproxy.errors import RemoteProtocolError
from shardproxy.merge.aggregates import parse_decimal, quotient

FALSE = 0
TRUE = 1
UNKNOWN = 2

Exact = tuple[int, int]  # a number without its point, and its digits after the point


def compare(left: Exact, right: Exact) -> int:
    """−1, 0, 1 for less, equal, greater."""
    a, a_scale = left
    b, b_scale = right
    if a_scale < b_scale:
        a *= 10 ** (b_scale - a_scale)
    elif b_scale < a_scale:
        b *= 10 ** (a_scale - b_scale)
    return (a > b) - (a < b)


class Operand:
    """A number that stands in the statement."""

    def __init__(self, number: Exact) -> None:
        self._number = number

    def number(self, values: list[bytes | None]) -> Exact | None:
        """The number for a group; None for NULL."""
        return self._number


class Held(Operand):
    """The value of a column. width: bytes of an integer in a binary row; 0: text."""

    def __init__(self, column: int, width: int, signed: bool) -> None:
        super().__init__((0, 0))
        self._column = column
        self._width = width
        self._sign_bit = signed

    def number(self, values: list[bytes | None]) -> Exact | None:
        """The number for a group; None for NULL."""
        value = values[self._column]
        if value is None:
            return None
        if self._width:
            return int.from_bytes(value, "little", signed=self._sign_bit), 0
        return parse_decimal(value)


class Mean(Operand):
    """An average before it is rounded to be shown: sum and count are in two columns."""

    def __init__(self, partials: int, binary: bool, increment: int) -> None:
        super().__init__((0, 0))
        self._partials = partials
        self._binary = binary
        self._increment = increment

    def number(self, values: list[bytes | None]) -> Exact | None:
        """The number for a group; None for NULL."""
        total, count = values[self._partials], values[self._partials + 1]
        if total is None:
            return None
        if count is None:
            raise RemoteProtocolError("a COUNT that is NULL")
        number = int.from_bytes(count, "little", signed=True) if self._binary else int(count)
        return quotient(total, number, self._increment)


class Condition(ABC):
    """A condition; `holds` says FALSE, TRUE or UNKNOWN of a group's values."""

    @abstractmethod
    def holds(self, values: list[bytes | None]) -> int:
        """For a group."""


class Compares(Condition):
    """left and right compare as one of `wanted` (−1, 0, 1)."""

    def __init__(self, left: Operand, right: Operand, wanted: tuple[int, ...]) -> None:
        self._left = left
        self._right = right
        self._wanted = wanted

    def holds(self, values: list[bytes | None]) -> int:
        """For a group."""
        left = self._left.number(values)
        right = self._right.number(values)
        if left is None or right is None:
            return UNKNOWN
        return TRUE if compare(left, right) in self._wanted else FALSE


class Missing(Condition):
    """The operand is NULL."""

    def __init__(self, operand: Operand) -> None:
        self._operand = operand

    def holds(self, values: list[bytes | None]) -> int:
        """For a group."""
        return TRUE if self._operand.number(values) is None else FALSE


class Not(Condition):
    """The part does not hold."""

    def __init__(self, part: Condition) -> None:
        self._part = part

    def holds(self, values: list[bytes | None]) -> int:
        """For a group."""
        found = self._part.holds(values)
        return found if found == UNKNOWN else TRUE - found


class Joined(Condition):
    """All of the parts hold (`decisive` is FALSE), or any does (TRUE)."""

    def __init__(self, parts: list[Condition], decisive: int) -> None:
        self._parts = parts
        self._decisive = decisive

    def holds(self, values: list[bytes | None]) -> int:
        """For a group."""
        result = TRUE - self._decisive
        for part in self._parts:
            found = part.holds(values)
            if found == self._decisive:
                return found
            if found == UNKNOWN:
                result = UNKNOWN
        return result
