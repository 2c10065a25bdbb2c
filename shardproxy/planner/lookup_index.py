"""From a table's definition to how the entries of its lookup indexes are made; or why they cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.lookup_plan import Index, Part, PartKind
from shardproxy.planner.sort_keys import orders_by_weight
from shardproxy.topology.lookup import index_name
from shardproxy.topology.model import Keyspace, LookupIndex, Table
from shardproxy.topology.schema import Column, TableSchema

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_TEXTS = frozenset({"char", "varchar"})
_BINARIES = frozenset({"binary", "varbinary"})


def indexes_of(draft: Draft, keyspace: Keyspace, table: Table) -> tuple[Index, ...]:
    """All lookup indexes of a table that is written. Raises UnsupportedError for one that cannot be kept.

    Also where the keyspace has one shard only, and nothing is looked up: when another joins, entries must be there.
    """
    if not table.lookups:
        return ()
    schema = draft.context.catalog.get(keyspace.name, table.name)
    if schema is None:
        raise refuse(f"the definition of '{keyspace.name}.{table.name}' could not be read from the servers")
    found = []
    for lookup in table.lookups:
        index = index_of(keyspace, table, lookup, schema)
        if isinstance(index, str):
            raise refuse(f"lookup index {index_name(table.name, lookup.columns)} cannot be kept: {index}")
        found.append(index)
    return tuple(found)


def index_of(keyspace: Keyspace, table: Table, lookup: LookupIndex, schema: TableSchema) -> Index | str:
    """How an index is kept; for people, why it cannot be."""
    wanted = {column.lower() for column in lookup.columns}
    for name in lookup.columns:
        if schema.column(name) is None:
            return f"the table has no column {name}"
    unique = next(
        (i for i, columns in enumerate(schema.unique_keys) if {c.lower() for c in columns} == wanted), -1
    )  # fmt: skip
    if unique < 0:
        return f"the table has no unique key over {', '.join(lookup.columns)} on each shard"
    parts = parts_of(schema, schema.unique_keys[unique])
    if isinstance(parts, str):
        return parts
    assert table.key is not None
    return Index(
        index_name(table.name, lookup.columns),
        keyspace.name,
        table.name,
        schema.unique_names[unique],
        parts,
        table.key,
        keyspace.key_type,
    )


def parts_of(schema: TableSchema, columns: Sequence[str]) -> tuple[Part, ...] | str:
    """The columns as parts; for people, which cannot be one and why."""
    parts = []
    for name in columns:
        column = schema.column(name)
        part = _part(column) if column is not None else f"the table has no column {name}"
        if isinstance(part, str):
            return part
        parts.append(part)
    return tuple(parts)


def _part(column: Column) -> Part | str:
    kind = column.data_type
    if column.generated:
        return f"column {column.name} is generated: it changes with others"
    if kind in _INTEGERS and "zerofill" not in column.column_type.lower():
        return Part(column.name, PartKind.INTEGER, nullable=column.nullable)
    if kind in _BINARIES:
        return Part(column.name, PartKind.BINARY, nullable=column.nullable)
    collation = column.collation or ""
    if kind in _TEXTS and column.charset and orders_by_weight(_full_name(column)):
        return Part(column.name, PartKind.TEXT, column.charset, _full_name(column), column.nullable, kind == "char")
    shown = f"{column.column_type} COLLATE {collation}" if collation else column.column_type
    return (
        f"column {column.name} has type {shown}; it must be an integer, BINARY, VARBINARY, or a CHAR or VARCHAR of "
        "utf8mb4, utf8mb3, latin1 or ascii (of MariaDB's uca1400 collations those without accents and case)"
    )


def _full_name(column: Column) -> str:
    """MariaDB's uca1400 collations have a name without character set, too."""
    collation = column.collation or ""
    return f"{column.charset}_{collation}" if collation.startswith("uca1400") else collation
