"""What the servers say about tables: columns, keys. Read once, shared by planner and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    """One column as information_schema.columns has it. `data_type` is lower case ("bigint"), `column_type` whole."""

    name: str
    data_type: str
    column_type: str
    nullable: bool = True
    default: str | None = None
    extra: str = ""
    charset: str | None = None
    collation: str | None = None

    @property
    def auto_increment(self) -> bool:
        return "auto_increment" in self.extra.lower()

    @property
    def generated(self) -> bool:
        return "generated" in self.extra.lower() and "default_generated" not in self.extra.lower()


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Columns in ordinal order; `unique_keys` holds the column names of each unique index, primary key included, and
    `unique_names` the indexes' names in the same order. view_text: a view's definition as information_schema has it,
    "" where it may not be read."""

    database: str
    name: str
    columns: tuple[Column, ...]
    unique_keys: tuple[tuple[str, ...], ...] = ()
    primary_key: tuple[str, ...] = ()
    is_view: bool = False
    view_text: str = ""
    unique_names: tuple[str, ...] = ()
    _by_name: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {c.name.lower(): c for c in self.columns})

    def column(self, name: str) -> Column | None:
        """Column by name, case-insensitive as in MySQL."""
        return self._by_name.get(name.lower())


class Catalog:
    """All known table schemas, by (database, table). `version` grows with each load: plans of another are stale.
    views: names of those that are views."""

    __slots__ = ("tables", "version", "views")

    def __init__(self, tables: Mapping[tuple[str, str], TableSchema], version: int = 1) -> None:
        self.tables = dict(tables)
        self.version = version
        self.views = frozenset(name for (_, name), table in self.tables.items() if table.is_view)

    def get(self, database: str, table: str) -> TableSchema | None:
        return self.tables.get((database, table))
