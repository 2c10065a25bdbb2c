"""What is gathered into scratch tables, and what runs there (rung 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardproxy.planner.plan import Group
    from shardproxy.planner.template import Template


@dataclass(frozen=True, slots=True)
class Copy:
    """One scratch table: the rows of `database`.`table` that its use in the statement can need.

    name     its name, in the same database; the table's own name hides the table
    groups   where these rows are: on the shards of any of them; of a reference table on any one shard of its keyspace
    where    a filter that the rows must pass, over the table under the name `alias`; None for all rows
    dates    indexes of literals in it: where one does not look like a date, all rows are gathered
    columns  lower-case names that the statement mentions: the values of others do not matter; None for all columns
    lock     the locking clause with which they are read
    """

    database: str
    table: str
    name: str
    groups: tuple[Group, ...]
    reference: bool = False
    alias: str = ""
    where: Template | None = None
    dates: tuple[int, ...] = ()
    columns: frozenset[str] | None = None
    lock: Template | None = None


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """copies: the scratch tables; text: the statement over them, None where it runs as the client wrote it;
    stored_json: a function that it calls and that shows how MySQL stores a JSON value, which a copy may change."""

    copies: tuple[Copy, ...]
    text: Template | None = None
    stored_json: str = ""
