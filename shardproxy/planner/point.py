"""Is it a point read: at most one small row by a unique key? Such reads may share a server connection."""

from __future__ import annotations

from sqlglot import exp

from shardproxy.planner import conditions
from shardproxy.planner.blocks import Facts, SourceKind
from shardproxy.planner.draft import Draft
from shardproxy.planner.lookup_plan import LookedUp
from shardproxy.planner.parse import literal_index
from shardproxy.planner.plan import Group, KeyIn
from shardproxy.sql.words import words
from shardproxy.topology.schema import Column, TableSchema

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_LARGE = words("""
    tinytext text mediumtext longtext tinyblob blob mediumblob longblob json vector geometry point linestring
    polygon multipoint multilinestring multipolygon geometrycollection geomcollection
""")


def is_point(draft: Draft, tree: exp.Expr, facts: Facts, groups: tuple[Group, ...]) -> bool:
    """True only when proven. The unique key's columns must be integers: a text column may equal a number often. Only a
    lookup index may have others: it is asked for values that equal one.
    """
    if not isinstance(tree, exp.Select) or draft.functions or len(facts.sources) != 1 or facts.nested:
        return False
    source = facts.sources[0]
    match groups[0].condition:
        case KeyIn((_,)) | LookedUp(values=(_,)):
            pass
        case _:
            return False
    if source.kind is not SourceKind.SHARDED or source.table is None or conditions.opaque(draft):
        return False
    schema = draft.context.catalog.get(source.database, source.table.name)
    where = tree.args.get("where")
    if schema is None or where is None or schema.is_view:
        return False
    if isinstance(groups[0].condition, LookedUp):
        return _small(schema, tree)
    fixed = {name for term in conditions.conjuncts(where.this) if (name := _fixed_column(term, source.name))}
    return any(_all_fixed(schema, unique, fixed) for unique in schema.unique_keys) and _small(schema, tree)


def _fixed_column(term: exp.Expr, alias: str) -> str:
    """Lower-case column of `column = literal`, else ""."""
    if not isinstance(term, exp.EQ):
        return ""
    column, literal = term.this, term.expression
    if not isinstance(column, exp.Column):
        column, literal = literal, column
    if not isinstance(column, exp.Column) or literal_index(literal) < 0 or column.table not in ("", alias):
        return ""
    return str(column.name).lower()


def _all_fixed(schema: TableSchema, unique: tuple[str, ...], fixed: set[str]) -> bool:
    columns = [schema.column(name) for name in unique]
    return bool(columns) and all(
        c is not None and c.data_type in _INTEGERS and c.name.lower() in fixed for c in columns
    )


def _of_literals(item: exp.Expr) -> bool:
    """A literal, or an operation on literals ('a' 'b' is one)."""
    parts = [item] if item.is_leaf() else list(item.iter_expressions())
    return all(literal_index(part) >= 0 for part in parts)


def _small(schema: TableSchema, tree: exp.Select) -> bool:
    """No selected column can be large."""
    selected: list[Column | None] = []
    for item in tree.expressions:
        inner = item.unalias()
        if isinstance(inner, exp.Star) or (isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star)):
            selected += schema.columns
        elif isinstance(inner, exp.Column):
            selected.append(schema.column(inner.name))
        elif not _of_literals(inner):
            return False
    return all(column is not None and column.data_type not in _LARGE for column in selected)
