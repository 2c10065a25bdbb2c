"""What a schema change is, beyond where it goes: its tables, how to undo it, what it registers."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.topology.model import Keyspace, Table


@dataclass(frozen=True, slots=True)
class Reverse:
    """statements undo the change on a shard that has it; with none, `why_not` says why there are none and what to do.

    empty: a table that must have no rows for that. warning: what is lost.
    """

    statements: tuple[str, ...] = ()
    empty: str = ""
    warning: str = ""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class DdlPlan:
    """names: tables and views that change, without database.

    repeatable: run again on a shard where no definition has changed, it does no harm: it either had not run, or has
    the same effect once more. drops: afterwards none of the names exists.
    register, unregister: tables that become known to the proxies, or unknown, once all shards have the change.
    emptied: lookup indexes of tables whose rows go, each as (table, "column,column"): their entries go too.
    """

    keyspace: Keyspace
    names: tuple[str, ...]
    repeatable: bool = True
    drops: bool = False
    reverse: Reverse = Reverse()
    register: Table | None = None
    unregister: tuple[str, ...] = ()
    emptied: tuple[tuple[str, str], ...] = ()
