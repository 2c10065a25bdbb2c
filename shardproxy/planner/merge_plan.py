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
class MergePlan:
    """The texts that each shard gets, in parts, and what is done with their rows.

    head        SELECT and its modifiers
    items       the select list (a star has the names of its tables)
    body        FROM … WHERE … GROUP BY … HAVING
    order       terms by which each shard sorts and the streams are merged
    item_keys   for each select item the key that orders by it: positions in ORDER BY mean these; None where unknown
    distinct    rows with equal keys are one; the keys cover all items
    limit, offset  literals of the statement
    """

    head: Template
    items: Template
    body: Template
    order: tuple[OrderTerm, ...] = ()
    item_keys: tuple[SortKey | None, ...] = ()
    distinct: bool = False
    limit: Value | None = None
    offset: Value | None = None

    def described(self) -> str:
        """For people: what is merged and how."""
        parts = []
        if self.order:
            keys = ", ".join(_term(term) for term in self.order)
            parts.append(f"merged by {keys}")
        else:
            parts.append("as they come")
        if self.distinct:
            parts.append("equal ones once")
        if self.limit is not None:
            skipped = f" after the first ?{self.offset.index}" if self.offset is not None else ""
            parts.append(f"at most ?{self.limit.index}{skipped}")
        return "; ".join(parts)


def _term(term: OrderTerm) -> str:
    name = f"item ?{term.position.index}" if term.position is not None else term.text.shown() or f"item {term.item}"
    kind = f" ({term.key.kind.value}{' ' + term.key.collation if term.key.collation else ''})" if term.key else ""
    return f"{name}{' DESC' if term.descending else ''}{kind}"
