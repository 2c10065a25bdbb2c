"""Rules about the key column of sharded tables: it must be able to say where a row lives.

Two values that MySQL calls equal must have the same key bytes, and the stored value must be the one that the row was
routed by; types for which that cannot be promised are refused (DESIGN 13 d).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shardproxy.admin.check.facts import ServerFacts, TableFacts
from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.admin.check.tables import primaries_by_shard
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Snapshot, Table, TableKind
from shardproxy.topology.schema import Column

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_BINARIES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_TEXT_CHARSETS = frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii"})
_FAMILY = {KeyType.INT: "an integer", KeyType.TEXT: "CHAR, VARCHAR or TEXT", KeyType.BINARY: "VARBINARY or BLOB"}


def key_findings(snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """All findings about shard keys, judged by the first shard that has the table (the others must equal it)."""
    by_shard = primaries_by_shard(snapshot, facts)
    for keyspace in snapshot.keyspaces.values():
        for table in keyspace.tables.values():
            if table.kind is not TableKind.SHARDED:
                continue
            definitions = [
                by_shard[i].tables[keyspace.name, table.name]
                for i in keyspace.map.all_shards
                if i in by_shard and (keyspace.name, table.name) in by_shard[i].tables
            ]
            if definitions:
                yield from sharded_table(f"{keyspace.name}.{table.name}", table, keyspace.key_type, definitions[0])


def sharded_table(where: str, table: Table, key_type: KeyType, facts: TableFacts) -> Iterator[Finding]:
    """Findings about one sharded table."""
    name = table.key or ""
    column = facts.schema.column(name)
    if column is None:
        known = ", ".join(c.name for c in facts.schema.columns)
        yield error(where, f"it has no column {name} (its columns: {known})", "name its key column in the file")
        return
    yield from _type(where, column, key_type)
    yield from _values(where, column)
    if facts.schema.is_view:
        return
    if not any(i.columns and _same(i.columns[0], name) and i.kind != "FULLTEXT" for i in facts.indexes):
        yield warning(
            where,
            f"no index begins with the key column {name}: each read by key scans the whole shard",
            f"ALTER TABLE {table.name} ADD INDEX ({name})",
        )
    covered = {frozenset(column.lower() for column in lookup.columns) for lookup in table.lookups}
    for index in facts.indexes:
        if frozenset((column or "").lower() for column in index.columns) in covered:
            continue
        if index.unique and not any(_same(c, name) for c in index.columns):
            yield warning(
                where,
                f"unique index {index.name} ({', '.join(index.parts)}) lacks the key column {name}: "
                "it is unique within each shard only",
                f'keep it unique over all shards: lookups = ["{_listed(index.columns)}"] in the table\'s entry; or '
                f"add {name} to it, or make its values unique by other means",
            )
    for other in facts.schema.columns:
        if other.auto_increment:
            yield warning(
                where,
                f"column {other.name} is AUTO_INCREMENT: the proxy counts it over all shards, and a server for itself "
                "where rows are inserted behind the proxy",
                "insert through the proxy only, or give the value",
            )


def _type(where: str, column: Column, key_type: KeyType) -> Iterator[Finding]:
    what = f"key column {column.name} is {column.column_type}" + (f" {column.collation}" if column.collation else "")
    family = _INTEGERS if key_type is KeyType.INT else _TEXTS if key_type is KeyType.TEXT else _BINARIES
    if column.data_type not in family:
        yield error(
            where,
            f'{what}, but the keyspace has key_type = "{key_type.value}"',
            f"change the column to {_FAMILY[key_type]}, or name another key column or key_type",
        )
    elif "zerofill" in column.column_type.lower():
        yield error(
            where,
            f"{what}: ZEROFILL changes the text of a key, and with it its bucket",
            "ALTER the column to the same type without ZEROFILL",
        )
    elif key_type is KeyType.TEXT and not _canonical_text(column):
        yield error(
            where,
            f"{what}: values that this collation calls equal would live on different shards",
            "ALTER the column to utf8mb4 COLLATE utf8mb4_bin, or another _bin collation over utf8mb4, utf8mb3, ascii",
        )
    elif column.data_type == "binary":
        yield warning(
            where,
            f"{what}: the server pads shorter values with NUL bytes, the proxy does not",
            f"always write all {column.column_type.partition('(')[2].rstrip(')')} bytes, or use VARBINARY",
        )


def _canonical_text(column: Column) -> bool:
    charset, collation = column.charset or "", column.collation or ""
    return charset in _TEXT_CHARSETS and collation.startswith(charset) and collation.endswith("_bin")


def _values(where: str, column: Column) -> Iterator[Finding]:
    if column.generated:
        yield error(
            where,
            f"key column {column.name} is generated: statements do not give its value, so a row's shard is unknown",
            "use a plain column as key",
        )
    if column.nullable:
        yield warning(
            where,
            f"key column {column.name} may be NULL, but a row without key has no shard and is refused",
            f"ALTER the column to {column.column_type} NOT NULL",
        )


def _same(a: str | None, b: str) -> bool:
    return a is not None and a.lower() == b.lower()


def _listed(columns: Sequence[str | None]) -> str:
    return ", ".join(column or "…" for column in columns)
