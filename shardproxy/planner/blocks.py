"""The statement as query blocks over table sources, and what ties the sources together.

Every use of a sharded table is a *source*. What must hold between sources for a row of the answer (or of a
subquery's answer) to exist is kept as directed *ties*: `u → v` says that u's relevant rows are NULL-extended or live
where v's row lives. Equality of keys in WHERE or an inner join ties both ways; in the ON of an outer join it ties the
nullable side only; from a subquery it ties the inner source to the outer one, never back.

A *restriction* says that a source's relevant rows satisfy a condition on its key. It is hard when it also rejects
NULL-extended rows of that block (WHERE, inner ON), else it holds for the source alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sqlglot import exp

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Condition
from shardproxy.topology.model import Keyspace, Table, TableKind


class SourceKind(Enum):
    SHARDED = "sharded"
    REFERENCE = "reference"
    SINGLE = "single"
    DERIVED = "derived"  # a subquery in FROM, a CTE, JSON_TABLE: columns unknown
    SYSTEM = "system"  # information_schema and the like


@dataclass(eq=False, slots=True)
class Source:
    """One use of a table in one block. `name`: the alias by which the block knows it; `nullable`: it stands on a side
    of an outer join whose rows may be missing."""

    name: str
    kind: SourceKind
    block: Block
    table: Table | None = None
    keyspace: Keyspace | None = None
    database: str = ""  # of the keyspace, or the system database in lower case
    system_table: str = ""
    nullable: bool = False


@dataclass(eq=False, slots=True)
class Block:
    """One SELECT, UPDATE or DELETE; `outer` is the block that its columns may refer to."""

    outer: Block | None
    sources: list[Source] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)  # lower-case columns made one by USING or NATURAL
    right_join: bool = False
    outer_join: bool = False  # of any side, nested ones too


@dataclass(frozen=True, slots=True)
class Restriction:
    source: Source
    condition: Condition
    hard: bool


@dataclass(slots=True)
class Facts:
    """All that was gathered. `partitioned`: the outermost FROM gives each of its rows on exactly one shard (needed
    for concatenation), with `obstacle` the reason when it does not."""

    sources: list[Source] = field(default_factory=list)
    ties: list[tuple[Source, Source]] = field(default_factory=list)
    restrictions: list[Restriction] = field(default_factory=list)
    root: Block | None = None
    nested: int = 0  # query blocks below the outermost
    set_operation: bool = False
    derived: bool = False
    obstacle: str = ""
    visited_tables: set[int] = field(default_factory=set)
    locked: list[Source] = field(default_factory=list)  # by FOR UPDATE
    locks: int = 0  # locking clauses


SYSTEM_DATABASES = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
_KINDS = {
    TableKind.SHARDED: SourceKind.SHARDED,
    TableKind.REFERENCE: SourceKind.REFERENCE,
    TableKind.SINGLE: SourceKind.SINGLE,
}


def resolve_table(draft: Draft, node: exp.Table, ctes: frozenset[str], block: Block) -> Source | None:
    """The source that a table in FROM stands for; None for DUAL. Raises UnsupportedError for an unknown one."""
    if not isinstance(node.this, exp.Identifier) or node.args.get("catalog"):
        raise refuse("a table expression in this statement is not supported")
    name, database = node.name, node.db
    alias = node.alias or name
    if not database and name in ctes:
        return Source(alias, SourceKind.DERIVED, block)
    if not database and name.upper() == "DUAL" and not node.this.args.get("quoted"):
        return None
    keyspace, table = find_table(draft, database, name)
    if table is None:
        system = (database or draft.context.schema or "").lower()
        return Source(alias, SourceKind.SYSTEM, block, database=system, system_table=name)
    assert keyspace is not None
    refuse_view(draft, keyspace, table)
    return Source(alias, _KINDS[table.kind], block, table, keyspace, keyspace.name)


def find_table(draft: Draft, database: str, name: str) -> tuple[Keyspace | None, Table | None]:
    """Keyspace and table by name; (None, None) for a system database. Raises UnsupportedError with what to do."""
    schema = database or draft.context.schema
    if schema is None:
        raise refuse("No database selected", 1046)
    if schema.lower() in SYSTEM_DATABASES:
        return None, None
    keyspace = draft.context.snapshot.keyspaces.get(schema)
    if keyspace is None:
        raise refuse(unknown_database(draft, schema), 1049)
    table = keyspace.tables.get(name)
    if table is None:
        raise refuse(
            f"table '{schema}.{name}' is not in the configuration: add it under "
            f"[keyspaces.{schema}.tables] in shardproxy.toml (sharded by a key, reference, or single)"
        )
    return keyspace, table


def refuse_view(draft: Draft, keyspace: Keyspace, table: Table) -> None:
    """Raises for a view: it may count, limit or join rows of all shards, and nobody has looked into it."""
    schema = draft.context.catalog.get(keyspace.name, table.name)
    if schema is not None and schema.is_view:
        raise refuse(
            f"'{keyspace.name}.{table.name}' is a view, and what it reads is not known here: name its tables, or send "
            "the statement to one shard as it is with a hint /*shardproxy: shard=NAME*/"
        )


def unknown_database(draft: Draft, name: str) -> str:
    known = ", ".join(sorted(draft.context.snapshot.keyspaces)) or "none"
    return f"database '{name}' is not a keyspace of shardproxy.toml; keyspaces are: {known}"


def find_source(draft: Draft, column: exp.Column, block: Block) -> Source | None:
    """The source whose column this is, None when that is not certain.

    A bare name is looked for in its own block only: outside it could be an alias of the select list.
    """
    if column.args.get("catalog"):
        return None
    if column.table:
        scope: Block | None = block
        while scope is not None:
            found = [s for s in scope.sources if s.name == column.table and (not column.db or s.database == column.db)]
            if found:
                return found[0] if len(found) == 1 else None
            if any(s.name.lower() == column.table.lower() for s in scope.sources):
                return None  # lower_case_table_names would decide
            scope = scope.outer
        return None
    owners = [s for s in block.sources if s.kind is SourceKind.SHARDED and _is_key(s, column.name)]
    if not owners or (len(owners) > 1 and (column.name.lower() not in block.merged or block.right_join)):
        return None
    others = [s for s in block.sources if s not in owners]
    return owners[0] if all(lacks_column(draft, s, column.name) for s in others) else None


def is_key(source: Source, column: exp.Column) -> bool:
    return source.kind is SourceKind.SHARDED and _is_key(source, column.name)


def _is_key(source: Source, name: str) -> bool:
    assert source.table is not None
    return source.table.key is not None and source.table.key.lower() == name.lower()


def lacks_column(draft: Draft, source: Source, name: str) -> bool:
    """Whether the source certainly has no such column."""
    if source.table is None:
        return False
    schema = draft.context.catalog.get(source.database, source.table.name)
    return schema is not None and schema.column(name) is None
