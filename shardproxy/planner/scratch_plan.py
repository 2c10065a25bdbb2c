"""What is gathered into scratch tables, and what runs there (rung 3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from shardproxy.planner.lookup_plan import Index
from shardproxy.topology.model import Keyspace, Table
from shardproxy.topology.schema import Column

if TYPE_CHECKING:
    from shardproxy.planner.plan import Group
    from shardproxy.planner.template import Template


class Kind(Enum):
    """What values are compared as, each without being converted in a way that could warn."""

    NUMBER = "number"
    TEXT = "text"
    MOMENT = "date, with a time or without"


@dataclass(frozen=True, slots=True)
class Copy:
    """One scratch table: the rows of `database`.`table` that its use in the statement can need.

    name     its name, in the same database; the table's own name hides the table
    groups   where these rows are: on the shards of any of them; of a reference table on any one shard of its keyspace
    where    a filter that the rows must pass, over the table under the name `alias`; None for all rows
    literals indexes of literals in it, and their kinds: where one is of another kind, all rows are gathered
    keys     columns whose values must be among those of another scratch table: its place in the plan, and its column
    columns  lower-case names that the statement mentions: the values of others do not matter; None for all columns
    lock     what ends the statement that gathers: the locks that are taken on what is read
    """

    database: str
    table: str
    name: str
    groups: tuple[Group, ...]
    reference: bool = False
    alias: str = ""
    where: Template | None = None
    literals: tuple[tuple[int, Kind], ...] = ()
    keys: tuple[tuple[str, int, str], ...] = ()
    columns: frozenset[str] | None = None
    lock: Template | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A table that a write over scratch tables changes.

    primary_key: its columns, each with its character set ("" where it is no text); rows cannot be told apart
    without. identity: columns of the shard key and of all other unique keys: a row where one of them changes is
    deleted and inserted anew, for it may go to another shard, or take a value that another row of the statement gives
    up. gathered: its rows are needed; else it starts empty, for an INSERT that only adds rows. counted: its
    AUTO_INCREMENT column, when this is an INSERT; given: the statement may give that column a value; by_server: the
    one server that has the table counts, else the proxy.
    """

    keyspace: Keyspace
    table: Table
    primary_key: tuple[tuple[str, str], ...]
    identity: tuple[str, ...]
    gathered: bool
    counted: Column | None = None
    given: bool = False
    by_server: bool = False
    indexes: tuple[Index, ...] = ()


@dataclass(frozen=True, slots=True)
class ScratchWrite:
    """What a write over scratch tables has changed there is then written to the shards.

    targets: what it changes; ScratchPlan.copies begins with theirs, in the same order. checked: the servers must first
    be asked whether they accept the statement over the tables themselves: scratch tables have other names.
    """

    targets: tuple[Target, ...]
    checked: bool = False


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """copies: the scratch tables; text: the statement over them, None where it runs as the client wrote it;
    stored_json: a function that it calls and that shows how MySQL stores a JSON value, which a copy may change;
    write: of a write, what follows; into: the answer is no rows, but goes into user variables."""

    copies: tuple[Copy, ...]
    text: Template | None = None
    stored_json: str = ""
    write: ScratchWrite | None = None
    into: bool = False
