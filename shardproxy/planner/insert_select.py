"""INSERT … SELECT: allowed where reading and writing provably stay on one shard."""

from __future__ import annotations

from sqlglot import exp

from shardproxy.planner import routes
from shardproxy.planner.blocks import Facts, Source, SourceKind, find_source, is_key
from shardproxy.planner.bounds import KeyBounds
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.gather import gather
from shardproxy.planner.groups import groups
from shardproxy.planner.parse import literal_index, parse
from shardproxy.planner.plan import Group, Plan, Spread, StatementKind, Value
from shardproxy.sql.tokens import Token
from shardproxy.topology.model import Keyspace
from shardproxy.topology.schema import TableSchema


def select_into(draft: Draft, home: Group | None, facts: Facts, bounds: KeyBounds | None) -> Plan:
    """The plan of an INSERT … SELECT. home: where the new rows go when that is known apart from the query."""
    if any(s.kind is SourceKind.SYSTEM for s in facts.sources):
        raise refuse(f"{draft.kind.value} … SELECT from system tables is not supported")
    found = groups(facts)
    if home is not None and home not in found:
        found = (home, *found)
    routes.check_references(facts, found)
    return draft.plan(
        routes.opcode(found),
        routes.reason(found, draft, Spread.REFUSE),
        keyspace=routes.only_keyspace(found),
        groups=found,
        spread=Spread.REFUSE,
        spread_error=f"{draft.kind.value} … SELECT over several shards is not supported: restrict it to one shard by "
        f"{routes.advice(found)}",
        tables=routes.tables(facts),
        key_bounds=bounds,
    )


def key_of_select(
    draft: Draft,
    tree: exp.Expr,
    facts: Facts,
    keyspace: Keyspace,
    schema: TableSchema,
    columns: list[str],
    key: str,
    counting: str | None,
) -> Value | Source:
    """What the query gives for the target's key: a literal, or the key of a source, whose row is on the shard already.

    Raises for anything else. counting: an AUTO_INCREMENT column that must be given, or None.
    """
    unclear = refuse(
        f"the query of this {draft.kind.value} must give the shard key {schema.name}.{key} as it is in a table of "
        "the same keyspace, or as a plain value"
    )
    if not isinstance(tree, exp.Select) or facts.root is None or key.lower() not in columns:
        raise unclear
    items = _items(draft, tree, facts)
    if items is None or len(items) != len(columns):
        raise unclear
    if counting is not None and (counting not in columns or not _counted(draft, facts, items[columns.index(counting)])):
        raise refuse(
            f"{schema.name}.{counting} is AUTO_INCREMENT, and each shard would count by itself: take it from an "
            "AUTO_INCREMENT column"
        )
    item = items[columns.index(key.lower())]
    value = _literal(draft, item)
    if value is not None:
        return value
    if not isinstance(item, exp.Column):
        raise unclear
    source = find_source(draft, item, facts.root)
    outer_joins = any(join.side for join in tree.find_all(exp.Join))
    if source is None or not is_key(source, item) or source.keyspace is not keyspace or outer_joins:
        raise unclear
    theirs = draft.context.catalog.get(source.database, source.table.name) if source.table else None
    mine, other = schema.column(key), theirs.column(item.name) if theirs else None
    if mine is None or other is None or mine.column_type != other.column_type or mine.collation != other.collation:
        raise refuse(f"the shard keys of {schema.name} and {source.name} are not known to have the same type")
    return source


def _items(draft: Draft, tree: exp.Select, facts: Facts) -> list[exp.Expr] | None:
    """The select list with a * written out; None when that is not possible."""
    assert facts.root is not None
    items: list[exp.Expr] = []
    for node in tree.expressions:
        item = node.unalias()
        if not isinstance(item, exp.Star):
            if isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
                return None
            items.append(item)
            continue
        if len(facts.root.sources) != 1:
            return None
        source = facts.root.sources[0]
        schema = draft.context.catalog.get(source.database, source.table.name) if source.table else None
        if schema is None:
            return None
        items += [
            exp.column(c.name, table=source.name, quoted=True)
            for c in schema.columns
            if "invisible" not in c.extra.lower()
        ]
    return items


def _literal(draft: Draft, item: exp.Expr) -> Value | None:
    negative = isinstance(item, exp.Neg)
    index = literal_index(item.this if isinstance(item, exp.Neg) else item)
    at = draft.positions.get(index, -1)
    if at < 0 or (negative and draft.word(at - 1) != "-"):
        return None
    alone = draft.word(at - 1 - negative) in (",", "SELECT", "ALL") and draft.word(at + 1) in (",", "FROM", "AS", "")
    return Value(index, negative) if alone else None


def _counted(draft: Draft, facts: Facts, item: exp.Expr) -> bool:
    """The item is an AUTO_INCREMENT column: never 0 or NULL."""
    if not isinstance(item, exp.Column) or facts.root is None:
        return False
    owners = [s for s in facts.root.sources if not item.table or s.name == item.table]
    if len(owners) != 1 or owners[0].table is None:
        return False
    schema = draft.context.catalog.get(owners[0].database, owners[0].table.name)
    column = schema.column(item.name) if schema is not None else None
    return column is not None and column.auto_increment


def reference_select(draft: Draft, select: tuple[Token, ...], keyspace: Keyspace, updates: bool) -> list[str]:
    """Checks the query of an INSERT … SELECT into a reference table; gives the tables that it reads."""
    if updates or draft.kind is StatementKind.REPLACE or draft.has("IGNORE", "LIMIT"):
        raise refuse(
            "INSERT … SELECT into a reference table may not use REPLACE, IGNORE, ON DUPLICATE KEY UPDATE or LIMIT: the "
            "order of rows could decide"
        )
    facts = gather(draft, parse(draft, select))
    for source in facts.sources:
        if source.kind is not SourceKind.REFERENCE or source.keyspace is not keyspace:
            raise refuse("INSERT … SELECT into a reference table may read reference tables of its keyspace only")
    return [s.table.name for s in facts.sources if s.table is not None]
