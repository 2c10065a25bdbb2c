"""How the rows of several shards become one answer (rung 2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardproxy.planner.plan import Value
    from shardproxy.planner.template import Template


class KeyKind(Enum):
    """How a sort key is compared; `columns` are what the shards are asked for."""

    VALUE = "by value"  # one column, compared as its definition says: numbers, dates, bytes
    TEXT = "by weight"  # one column of weights, of a known collation
    ANY = "as it turns out"  # four: the value, its weight, its collation, a blank's weight


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key: hidden columns that the shards put before the others. collation: of TEXT."""

    kind: KeyKind
    columns: tuple[Template, ...]
    collation: str = ""


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """A term of ORDER BY: its text, and its key. It may be the position of a select item instead: a literal of the
    statement (`position`, then the key is found at execution), or known (`item`, from 1)."""

    text: Template
    key: SortKey | None
    descending: bool
    position: Value | None = None
    item: int = 0


@dataclass(frozen=True, slots=True)
class GroupTerm:
    """A term of GROUP BY: text, or the position of a select item."""

    text: Template
    position: Value | None = None


class Combine(Enum):
    """How the values of one group, from several shards, become one."""

    FIRST = "any"  # the same on all of them, or undetermined
    ANY = "any that is not NULL"
    COUNT = "summed count"
    SUM = "sum"
    AVG = "sum by count"
    MIN = "least"
    MAX = "greatest"
    BIT_AND = "and"
    BIT_OR = "or"
    BIT_XOR = "xor"
    CONCAT = "one after the other"
    ARRAY = "one array"


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of a group that is combined.

    column: its place in the select list, or among the hidden columns when it is not `shown`. partials: where among
    those the first of its partial values stands: for AVG the sum and the count, for MIN and MAX the columns of `key`,
    by which they are compared, for CONCAT and ARRAY the separator and the most bytes. distinct: of DISTINCT values,
    which are keys of the shards' groups.
    """

    combine: Combine
    column: int
    shown: bool
    partials: int = -1
    key: SortKey | None = None
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class FinalTerm:
    """A term by which combined groups are sorted: a cell's value, or a key whose hidden columns begin at `column`; or
    at execution that of the select item whose number the literal `position` is."""

    descending: bool
    cell: int = -1
    column: int = -1
    key: SortKey | None = None
    position: Value | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A number that stands in HAVING, or a parameter that is to be one."""

    value: Value


@dataclass(frozen=True, slots=True)
class Held:
    """The value of a cell, or of a hidden column."""

    cell: int = -1
    column: int = -1


@dataclass(frozen=True, slots=True)
class Compares:
    """left sign right; sign is one of = <> < <= > >=."""

    left: Held | Number
    sign: str
    right: Held | Number


@dataclass(frozen=True, slots=True)
class IsNull:
    """The value is NULL."""

    operand: Held


@dataclass(frozen=True, slots=True)
class Negated:
    """NOT part."""

    part: Having


@dataclass(frozen=True, slots=True)
class Connected:
    """The parts under AND, or under OR."""

    every: bool
    parts: tuple[Having, ...]


Having = Compares | IsNull | Negated | Connected


@dataclass(frozen=True, slots=True)
class Rollup:
    """WITH ROLLUP: the shards are asked without it, and the proxy makes the super-aggregate groups.

    items: for each term of GROUP BY the select item that is it, −1 for none. always: there is a grand total also when
    there is no row. described: the client's own statement with LIMIT 0, whose columns are the answer's.
    """

    items: tuple[int, ...]
    always: bool
    described: Template


@dataclass(frozen=True, slots=True)
class GroupMerge:
    """Groups have rows on several shards: each groups its own, sorted by the terms of GROUP BY, and groups with equal
    keys are combined.

    hidden: columns between the keys' and the select list. cells: columns that are more than any value of the group.
    final: how the combined groups are sorted; () when they come in the wanted order. choices: for each select item the
    term that sorts by it, where positions need them. having: which combined groups are wanted. outer: how many of the
    terms by which the shards sort are of GROUP BY: the others are of DISTINCT values; −1 without those. always: there
    is no GROUP BY, and so one group also when there is no row. rollup: there are super-aggregate groups too.
    """

    hidden: tuple[Template, ...]
    cells: tuple[Cell, ...]
    final: tuple[FinalTerm, ...] = ()
    choices: tuple[FinalTerm, ...] = ()
    having: Having | None = None
    outer: int = -1
    always: bool = False
    rollup: Rollup | None = None

    @property
    def whole(self) -> bool:
        """Whether all groups are needed before the first goes out: to sort them, or because one may be too long."""
        return bool(self.final) or any(cell.combine in (Combine.CONCAT, Combine.ARRAY) for cell in self.cells)

    @property
    def limited_late(self) -> bool:
        """Whether LIMIT is about other groups than those that the shards send."""
        return bool(self.final) or self.having is not None or self.outer >= 0 or self.rollup is not None


@dataclass(frozen=True, slots=True)
class Branch:
    """One SELECT of a UNION, in parts as those of MergePlan. keys: for each item the hidden column that is its key."""

    head: Template
    items: Template
    body: Template
    keys: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The texts that each shard gets, in parts, and what is done with their rows.

    head        SELECT and its modifiers
    items       the select list (a star has the names of its tables)
    body        FROM … WHERE
    group       GROUP BY
    having      the condition of HAVING
    order       terms by which each shard sorts and the streams are merged
    item_keys   for each select item the key that orders by it: positions in ORDER BY mean these; None where unknown
    distinct    rows with equal keys are one; the keys cover all items
    groups      see GroupMerge
    limit, offset  literals of the statement
    same        pairs of literals that must be the same: the plan takes expressions for one that they stand in
    lock        FOR UPDATE and its kin
    branches    of a UNION, in place of head, items and body: UNION when `distinct`, else UNION ALL; terms are then
                positions and items only
    """

    head: Template
    items: Template
    body: Template
    group: tuple[GroupTerm, ...] = ()
    having: Template | None = None
    order: tuple[OrderTerm, ...] = ()
    item_keys: tuple[SortKey | None, ...] = ()
    distinct: bool = False
    groups: GroupMerge | None = None
    limit: Value | None = None
    offset: Value | None = None
    lock: Template | None = None
    same: tuple[tuple[int, int], ...] = ()
    branches: tuple[Branch, ...] = ()

    @property
    def limited_late(self) -> bool:
        """Whether LIMIT is about fewer rows than those that the shards send."""
        if self.groups is not None:
            return self.groups.limited_late
        # Texts that are equal but for blanks have different weights: a shard tells them apart.
        keys = [key for key in self.item_keys if key is not None]
        return bool(self.branches) and self.distinct and any(key.kind is KeyKind.TEXT for key in keys)

    def described(self) -> str:
        """For people: what is merged and how."""
        parts = [f"UNION of {len(self.branches)}"] if self.branches else []
        if self.order:
            keys = ", ".join(_term(term) for term in self.order)
            parts.append(f"merged by {keys}")
        elif self.groups is None:
            parts.append("as they come")
        if self.distinct:
            parts.append("equal ones once")
        if self.groups is not None:
            cells = ", ".join(
                cell.combine.value + (" of distinct values" if cell.distinct else "") for cell in self.groups.cells
            )
            parts.append(f"equal groups are one ({cells})" if cells else "equal groups are one")
        if self.groups is not None and self.groups.rollup is not None:
            parts.append("rolled up")
        if self.groups is not None and self.groups.having is not None:
            parts.append("of which HAVING chooses")
        if self.groups is not None and self.groups.final:
            parts.append("sorted afterwards")
        if self.limit is not None:
            skipped = f" after the first ?{self.offset.index}" if self.offset is not None else ""
            parts.append(f"at most ?{self.limit.index}{skipped}")
        return "; ".join(parts)


def _term(term: OrderTerm) -> str:
    name = f"item ?{term.position.index}" if term.position is not None else term.text.shown() or f"item {term.item}"
    kind = f" ({term.key.kind.value}{' ' + term.key.collation if term.key.collation else ''})" if term.key else ""
    return f"{name}{' DESC' if term.descending else ''}{kind}"
