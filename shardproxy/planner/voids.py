"""Which rows of cached tables a statement may change: what strict mode makes void before it runs (docs/cache.md).

Always an upper bound. Rows are told only where the statement names all of them by primary key: one table, a WHERE or
VALUES with every column of the key, and no other unique key by which a duplicate could be found. Else it is the table.
What cannot be read here (a procedure, a function that may write, a text under a shard hint) is all cached tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from sqlglot import exp

from shardproxy.errors import SqlError
from shardproxy.planner.conditions import condition, opaque
from shardproxy.planner.draft import Draft, is_name, literal_value
from shardproxy.planner.insert import Insert, insert_parts
from shardproxy.planner.key_values import NoValue
from shardproxy.planner.parse import parse
from shardproxy.planner.plan import AllOf, Condition, KeyIn, PinReason, Plan, Rung, StatementKind, Value
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.schema import TableSchema

ValueReader = Callable[[Value, KeyType], KeyValue | NoValue]
TableName = tuple[str, str]

MOST = 1000  # rows of one statement; with more it is the table
_CHANGES = frozenset((StatementKind.INSERT, StatementKind.REPLACE, StatementKind.UPDATE, StatementKind.DELETE))
_UNKNOWN = frozenset((StatementKind.CALL, StatementKind.OTHER, StatementKind.ADMIN))
_OPAQUE_PINS = frozenset((PinReason.UNKNOWN_FUNCTION, PinReason.PROCEDURE))
_INTEGERS = frozenset(("int", "bigint"))
_LARGEST = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Voids:
    """whole: tables of which any row may change. table: one of which only the rows with these primary keys may;
    columns: of its primary key, lower case; rows: the values in that order; by_group: the key is one column, the shard
    key, and the values are those of the condition of the plan's one group; stored: the values are stored, so that the
    servers could store others in their place."""

    whole: tuple[TableName, ...] = ()
    table: TableName | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    by_group: bool = False
    stored: bool = False

    def keys(self, plan: Plan, read: ValueReader) -> list[tuple[int, ...]] | None:
        """The primary keys of `table`, from the values at hand; None: the values do not say, it is the whole table."""
        rows = self.rows
        if self.by_group:
            listed = _listed(plan.groups[0].condition)
            rows = tuple((value,) for value in listed or ())
        found: list[tuple[int, ...]] = []
        for row in rows:
            key: list[int] = []
            for value in row:
                number = read(value, KeyType.INT)
                if not isinstance(number, int):
                    return None
                if self.stored and not self.by_group and not 0 < number <= _LARGEST:
                    return None  # the server would count, or store its column's limit
                key.append(number)
            found.append(tuple(key))
        return found or None

    def lengthened(self) -> Voids:
        """Of a statement with more rows of the same form than it was planned for."""
        if self.table is None or self.by_group:
            return self
        return Voids((self.table,))


def with_voids(draft: Draft, plan: Plan) -> Plan:
    """The plan, with what it makes void."""
    cached = draft.context.cached
    if not cached or plan.rung is Rung.ERROR or plan.local:
        return plan
    found = _voids(draft, plan, cached)
    return plan if found is None else replace(plan, voids=found)


def _voids(draft: Draft, plan: Plan, cached: frozenset[TableName]) -> Voids | None:
    everything = Voids(tuple(sorted(cached)))
    if plan.kind in _UNKNOWN or not _OPAQUE_PINS.isdisjoint(plan.pins):
        return everything
    if plan.shard_hint is not None:
        runs = plan.kind is StatementKind.EXPLAIN and draft.has("ANALYZE")  # MariaDB's, what it explains
        return None if plan.read and not runs else everything
    if plan.kind not in _CHANGES and plan.kind is not StatementKind.DDL:
        return None
    named = {token.text.lower() for token in draft.tokens if is_name(token)}
    if not named.isdisjoint(view.lower() for view in draft.context.catalog.views) or draft.has("DATABASE", "SCHEMA"):
        return everything
    hit = sorted((database, table) for database, table in cached if table.lower() in named)
    if not hit:
        return None
    if len(hit) == 1 and plan.kind in _CHANGES:
        found = _rows(draft, plan, hit[0])
        if found is not None:
            return found
    return Voids(tuple(hit))


def _rows(draft: Draft, plan: Plan, table: TableName) -> Voids | None:
    """The rows of the table, where the statement names them. None: any."""
    schema = draft.context.catalog.get(*table)
    if schema is None or not schema.primary_key or plan.tables != (table[1],):
        return None
    columns = tuple(name.lower() for name in schema.primary_key)
    if plan.kind in (StatementKind.INSERT, StatementKind.REPLACE):
        return _inserted(draft, plan, table, schema, columns)
    return _changed(draft, plan, table, columns)


def _by_shard_key(draft: Draft, plan: Plan, table: TableName, columns: tuple[str, ...]) -> bool:
    """Whether the primary key is the shard key, an integer, and the plan's condition lists its values."""
    keyspace = draft.context.snapshot.keyspaces.get(table[0])
    key = keyspace.tables[table[1]].key if keyspace is not None and table[1] in keyspace.tables else None
    if keyspace is None or keyspace.key_type is not KeyType.INT or key is None or columns != (key.lower(),):
        return False
    return len(plan.groups) == 1 and _listed(plan.groups[0].condition) is not None


def _listed(found: Condition) -> tuple[Value, ...] | None:
    """All values that a condition leaves; None: it does not list them."""
    if isinstance(found, KeyIn):
        return found.values
    if isinstance(found, AllOf):
        return next((part.values for part in found.parts if isinstance(part, KeyIn)), None)
    return None


def _inserted(
    draft: Draft, plan: Plan, table: TableName, schema: TableSchema, columns: tuple[str, ...]
) -> Voids | None:
    try:
        parts = insert_parts(draft)
    except SqlError:
        return None
    replaces = plan.kind is StatementKind.REPLACE or parts.updates
    if parts.select or (replaces and len(schema.unique_keys) > 1) or _assigns(parts.updates, columns):
        return None  # a duplicate by another unique key is another row
    if _by_shard_key(draft, plan, table, columns):
        return Voids(table=table, columns=columns, by_group=True, stored=True)
    rows = tuple(_values_of(parts, schema, columns))
    if len(rows) != len(parts.rows) or not 0 < len(rows) <= MOST:
        return None
    return Voids(table=table, columns=columns, rows=rows, stored=True)


def _values_of(parts: Insert, schema: TableSchema, columns: tuple[str, ...]) -> Iterator[tuple[Value, ...]]:
    """The primary keys of the rows, up to the first that is not written down."""
    names = [name.lower() for name in parts.columns or [column.name for column in schema.columns]]
    types = [schema.column(column) for column in columns]
    if any(c is None or c.data_type not in _INTEGERS for c in types) or not set(columns) <= set(names):
        return
    places = [names.index(column) for column in columns]
    for row in parts.rows:
        values = [literal_value(row[place]) if place < len(row) else None for place in places]
        if any(value is None for value in values):
            return
        yield tuple(value for value in values if value is not None)


def _changed(draft: Draft, plan: Plan, table: TableName, columns: tuple[str, ...]) -> Voids | None:
    try:
        tree = parse(draft, draft.tokens)
    except SqlError:
        return None
    if not isinstance(tree, exp.Update | exp.Delete) or opaque(draft) or len(list(tree.find_all(exp.Table))) != 1:
        return None
    assigned = (
        [item.this.name for item in tree.expressions if isinstance(item, exp.EQ)]
        if isinstance(tree, exp.Update)
        else []
    )
    if _assigns(assigned, columns):
        return None
    if _by_shard_key(draft, plan, table, columns):
        return Voids(table=table, columns=columns, by_group=True)
    where = tree.args.get("where")
    listed: list[tuple[Value, ...]] = []
    for column in columns:

        def is_column(node: exp.Expr, wanted: str = column) -> bool:
            return isinstance(node, exp.Column) and node.name.lower() == wanted

        values = _listed(condition(draft, where.this if where is not None else None, is_column, KeyType.INT))
        if values is None:
            return None
        listed.append(values)
    rows = tuple(product(*listed))
    return Voids(table=table, columns=columns, rows=rows) if 0 < len(rows) <= MOST else None


def _assigns(assigned: list[str], columns: tuple[str, ...]) -> bool:
    return any(name.lower() in columns for name in assigned)
