"""What plans keep of lookup indexes: which columns entries are of, and where a statement's values of them stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from shardproxy.topology.keys import KeyType

if TYPE_CHECKING:
    from shardproxy.planner.plan import Value
    from shardproxy.planner.template import Template


class PartKind(Enum):
    """How a column's values are made comparable as bytes."""

    INTEGER = "integer"  # decimal digits
    TEXT = "text"  # the weights of its collation
    BINARY = "binary"  # as they are


@dataclass(frozen=True, slots=True)
class Part:
    """A column of an index, or of a primary key. charset, collation: of a text, else ""; fixed: a CHAR."""

    column: str
    kind: PartKind
    charset: str = ""
    collation: str = ""
    nullable: bool = True
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """A lookup index as servers must be asked for its values.

    name: in the bookkeeping tables, "users(email)"; unique: the table's own unique key over the same columns; parts: in
    that key's order; key: the shard key; schema, table: where the rows are.
    """

    name: str
    schema: str
    table: str
    unique: str
    parts: tuple[Part, ...]
    key: str
    key_type: KeyType


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A condition: the row that has one of these values of an index. Each value has one literal for each part.

    Where the index is not asked, such a row may be anywhere.
    """

    index: Index
    values: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class EnteredRows:
    """INSERT: the rows' values of the indexes, for each row and index one literal a part; None: some part is NULL.

    width, repeats: as in SplitRows.
    """

    indexes: tuple[Index, ...]
    rows: tuple[tuple[tuple[Value, ...] | None, ...], ...]
    width: int = 0
    repeats: int = 0

    def each(self) -> Iterator[tuple[tuple[tuple[Value, ...] | None, ...], int]]:
        """Each row of the statement, and by how much its literals are shifted."""
        for repeat in range(self.repeats + 1):
            yield self.rows[0], repeat * self.width
        for row in self.rows[1:]:
            yield row, self.width * self.repeats


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """UPDATE, DELETE: the entries of the rows that it finds change.

    indexes: those that it may change; source: what its rows are called there; rows: the text from its table on, with
    its conditions; primary: the columns by which an updated row is found again, () for DELETE.
    """

    indexes: tuple[Index, ...]
    source: str
    rows: Template
    primary: tuple[Part, ...] = ()


Entries = EnteredRows | ChangedRows
