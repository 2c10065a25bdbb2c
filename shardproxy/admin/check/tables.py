"""Rules about tables: they exist where the file says, with the same definition on every shard."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from shardproxy.admin.check.facts import ServerFacts, TableFacts
from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.topology.model import Keyspace, Role, Snapshot, Table, TableKind
from shardproxy.topology.schema import Column

_DISPLAY_WIDTH = re.compile(r"\b(tinyint|smallint|mediumint|int|bigint)\(\d+\)(?! unsigned zerofill| zerofill)")

ByShard = Mapping[int, ServerFacts]


def table_findings(snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """All findings about databases and tables. Shards whose primary could not be asked are left out."""
    by_shard = primaries_by_shard(snapshot, facts)
    for keyspace in snapshot.keyspaces.values():
        holders = {i: by_shard[i] for i in keyspace.shards if i in by_shard}
        yield from _databases(keyspace, holders)
        present = {i: f for i, f in holders.items() if keyspace.name in f.databases}
        for table in keyspace.tables.values():
            yield from _table(snapshot, keyspace, table, present)
        yield from _unlisted(keyspace, present)


def primaries_by_shard(snapshot: Snapshot, facts: Sequence[ServerFacts]) -> dict[int, ServerFacts]:
    """The primaries that answered, by shard index."""
    found = {f.server.shard: f for f in facts if f.server.role is Role.PRIMARY and f.error is None}
    return {i: found[shard.name] for i, shard in enumerate(snapshot.shards) if shard.name in found}


def _databases(keyspace: Keyspace, holders: ByShard) -> Iterator[Finding]:
    for fact in holders.values():
        if keyspace.name not in fact.databases:
            yield error(
                fact.server.name,
                f"the database {keyspace.name} does not exist (or the proxy's account may not see it)",
                f"CREATE DATABASE {keyspace.name} with its tables, or take the shard out of keyspaces.{keyspace.name}",
            )
    collations = {f.databases[keyspace.name] for f in holders.values() if keyspace.name in f.databases}
    if len(collations) > 1:
        yield warning(
            keyspace.name,
            f"the database's default collation differs between shards: {', '.join(sorted(collations))}",
            f"ALTER DATABASE {keyspace.name} COLLATE … to the same one everywhere: new tables take it",
        )


def _table(snapshot: Snapshot, keyspace: Keyspace, table: Table, present: ByShard) -> Iterator[Finding]:
    where = f"{keyspace.name}.{table.name}"
    wanted = _shards_of(keyspace, table)
    found = {
        i: f.tables[keyspace.name, table.name] for i, f in present.items() if (keyspace.name, table.name) in f.tables
    }
    example = next((snapshot.shards[i].name for i in sorted(found)), None)
    for i in wanted:
        if i in present and i not in found:
            yield error(
                where,
                f"it does not exist on {snapshot.shards[i].name}",
                f"create it there as on {example} (SHOW CREATE TABLE)"
                if example
                else "create it, or take it out of the file",
            )
    moves = keyspace.move is not None and keyspace.move.table is not None and keyspace.move.table.name == table.name
    if table.kind is TableKind.SINGLE and not moves:  # else its rows are on their way there, or back
        for i in found.keys() - set(wanted):
            yield warning(
                where,
                f"it is single on {snapshot.shards[wanted[0]].name} but exists on {snapshot.shards[i].name} too: "
                "rows there are never seen",
                "drop it there, or correct the file",
            )
    compared = [(i, found[i]) for i in sorted(found) if i in wanted]
    for i, other in compared[1:]:
        first, facts = compared[0]
        for difference in differences(facts, other):
            yield error(
                where,
                f"{difference} ({snapshot.shards[first].name}, {snapshot.shards[i].name})",
                "ALTER one of them: clients must see one table",
            )
    if compared:
        yield from _habits(where, table, compared[0][1])


def _shards_of(keyspace: Keyspace, table: Table) -> tuple[int, ...]:
    if table.kind is TableKind.SINGLE and table.shard is not None:
        return (table.shard,)
    return keyspace.map.all_shards if table.kind is TableKind.SHARDED else keyspace.shards


def _habits(where: str, table: Table, facts: TableFacts) -> Iterator[Finding]:
    """What is allowed but means something else on many shards than on one server."""
    if facts.engine and facts.engine.lower() != "innodb" and not facts.schema.is_view:
        yield warning(
            where,
            f"its engine is {facts.engine}: no transactions, and rows cannot be moved consistently",
            f"ALTER TABLE {table.name} ENGINE = InnoDB",
        )
    if table.kind is TableKind.SINGLE:
        return
    for key in facts.foreign_keys:
        yield warning(
            where,
            f"foreign key {key} is enforced within each shard only",
            "keep it only if both rows always share a shard (same key, or a reference table); otherwise drop it",
        )
    for trigger in facts.triggers:
        yield warning(
            where,
            f"trigger {trigger.split(':')[0]} runs on each shard and sees only the rows of that shard",
            "make sure that it touches only rows of the same key, or drop it",
        )


def _unlisted(keyspace: Keyspace, present: ByShard) -> Iterator[Finding]:
    tables = {name for f in present.values() for database, name in f.tables if database == keyspace.name}
    unlisted = sorted(tables - set(keyspace.tables))
    if unlisted:
        shown = ", ".join(unlisted[:10]) + (f" and {len(unlisted) - 10} more" if len(unlisted) > 10 else "")
        yield warning(
            keyspace.name,
            f"tables that the file does not list and nobody registered, so clients cannot use them: {shown}",
            f"add them to [keyspaces.{keyspace.name}.tables], or ignore this if that is intended",
        )


def differences(a: TableFacts, b: TableFacts) -> list[str]:
    """How two definitions differ, a phrase each; counters, comments and display widths do not matter."""
    if a.schema.is_view != b.schema.is_view:
        return ["one is a table, the other a view"]
    out: list[str] = []
    names_a, names_b = ([c.name for c in t.schema.columns] for t in (a, b))
    if set(names_a) != set(names_b):
        only_a, only_b = ([n for n in x if n not in y] for x, y in ((names_a, names_b), (names_b, names_a)))
        out.append(f"columns differ: {', '.join(only_a) or 'none'} against {', '.join(only_b) or 'none'}")
    elif names_a != names_b:
        out.append(f"the order of columns differs: {', '.join(names_a)} against {', '.join(names_b)}")
    for column in a.schema.columns:
        other = b.schema.column(column.name)
        if other is not None:
            left, right = _column_text(column, a), _column_text(other, b)
            if left != right:
                out.append(f"column {column.name} differs: {left} against {right}")
    indexes_a, indexes_b = ({i.name: i for i in t.indexes} for t in (a, b))
    for name in sorted(indexes_a.keys() | indexes_b.keys()):
        left, right = (_index_text(x, name) for x in (indexes_a, indexes_b))
        if left != right:
            out.append(f"index {name} differs: {left} against {right}")
    for what, left, right in (("engine", a.engine, b.engine), ("collation", a.collation, b.collation)):
        if left != right:
            out.append(f"{what} differs: {left} against {right}")
    for what, keys_a, keys_b in (
        ("foreign keys", a.foreign_keys, b.foreign_keys),
        ("triggers", a.triggers, b.triggers),
    ):
        if sorted(keys_a) != sorted(keys_b):
            out.append(f"{what} differ: {'; '.join(keys_a) or 'none'} against {'; '.join(keys_b) or 'none'}")
    return out


def _column_text(column: Column, table: TableFacts) -> str:
    parts = [_DISPLAY_WIDTH.sub(r"\1", column.column_type)]
    if column.collation:
        parts.append(column.collation)
    parts.append("NULL" if column.nullable else "NOT NULL")
    if column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    if column.extra:
        parts.append(column.extra)
    if column.name in table.expressions:
        parts.append(f"({table.expressions[column.name]})")
    return " ".join(parts)


def _index_text(indexes: Mapping[str, object], name: str) -> str:
    index = indexes.get(name)
    if index is None:
        return "none"
    kind, unique, parts = (getattr(index, a) for a in ("kind", "unique", "parts"))
    return f"{'UNIQUE ' if unique else ''}{kind} ({', '.join(parts)})"
