"""The sources of a query block, and how their columns can be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.differential.dice import Dice
from tests.differential.schema import Column, Table


@dataclass(eq=False, slots=True)
class Source:
    """One use of a table or derived table. name: by which the block knows it; key: its shard key's column, "" for none;
    home: database.table when it has no alias of its own; unique: columns that tell a derived table's rows apart."""

    name: str
    columns: tuple[Column, ...]
    table: Table | None = None
    home: str = ""
    unique: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.table.key if self.table is not None else ""


@dataclass(eq=False, slots=True)
class Scope:
    """A block's sources; merged: columns made one by USING or NATURAL; outer: the block around."""

    sources: list[Source] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)
    outer: Scope | None = None

    def owners(self, column: str) -> int:
        return sum(any(c.name == column for c in source.columns) for source in self.sources)

    def ordered_by(self, dice: Dice) -> list[str] | None:
        """Columns that leave no ties between rows; None when some source has no known key."""
        columns = []
        for source in self.sources:
            unique = source.unique if source.table is None else source.table.primary
            if not unique:
                return None
            columns += [f"{quoted_name(source.name)}.{name}" for name in unique]
        return columns or None


def quoted_name(name: str) -> str:
    """A name as the statement must write it: backticks where it is a word that the grammar knows."""
    return f"`{name}`" if name in ("rank", "key", "order", "group", "select", "from") else name


class Columns:
    """Ways to write a column."""

    def __init__(self, dice: Dice, ansi_quotes: bool) -> None:
        self.dice = dice
        self.ansi_quotes = ansi_quotes

    def write(self, scope: Scope, source: Source, column: Column | str) -> str:
        """The column, bare where that is certain, else qualified; with the odd quote, case and blank."""
        name = column if isinstance(column, str) else column.name
        bare = scope.owners(name) == 1 and source in scope.sources
        if bare and self.dice.chance(0.6):
            return self._name(name)
        # MariaDB 10.11 crashes when a merged column is named with its database in a prepared NATURAL RIGHT JOIN.
        if source.home and name not in scope.merged and self.dice.chance(0.15):
            return f"{source.home}.{self._name(name)}"
        dot = " . " if self.dice.chance(0.02) else "."
        return quoted_name(source.name) + dot + self._name(name)

    def _name(self, name: str) -> str:
        if self.dice.chance(0.06):
            return self.dice.one((f"`{name}`", name.upper(), name.capitalize(), f"`{name.upper()}`"))
        if self.ansi_quotes and self.dice.chance(0.1):
            return f'"{name}"'
        return name


def of_kind(source: Source, kinds: Sequence[str], exact: bool = False) -> list[Column]:
    """The source's columns of these kinds."""
    return [c for c in source.columns if c.kind in kinds and (c.exact or not exact)]
