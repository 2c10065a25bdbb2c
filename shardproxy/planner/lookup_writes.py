"""Writes to tables with lookup indexes: which entries change with the rows, or why the statement is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from shardproxy.planner.blocks import Facts, Source
from shardproxy.planner.calls import UNKNOWN
from shardproxy.planner.draft import Draft, literal_value, refuse
from shardproxy.planner.lookup_index import indexes_of, parts_of
from shardproxy.planner.lookup_plan import ChangedRows, EnteredRows, Index, Part
from shardproxy.planner.plan import Plan, StatementKind, Value
from shardproxy.planner.template import Template, template
from shardproxy.planner.unseen import Hidden, conditioned, unseen
from shardproxy.sql.functions import CLOCK, RANDOM
from shardproxy.sql.tokens import Token, TokenKind
from shardproxy.topology.lookup import index_name
from shardproxy.topology.model import Keyspace, Table

if TYPE_CHECKING:
    from shardproxy.planner.insert import Insert


# ── INSERT ──


def enter(draft: Draft, parts: Insert, plan: Plan) -> Plan:
    """The plan of an INSERT, with the entries of its rows."""
    indexes = indexes_of(draft, parts.keyspace, parts.table)
    if not indexes:
        return plan
    names = ", ".join(index.name for index in indexes)
    table = parts.table.name
    odd = _odd_insert(draft, parts)
    if odd:
        raise refuse(f"{odd} {table} is not supported: it has lookup indexes ({names})")
    schema = draft.context.catalog.get(parts.keyspace.name, table)
    assert schema is not None
    columns = parts.columns if parts.columns is not None else [c.name.lower() for c in schema.columns]
    rows = []
    for row in parts.rows:
        given = dict(zip(columns, row, strict=False))
        rows.append(tuple(_value(index, given, draft) for index in indexes))
    return replace(plan, entries=EnteredRows(indexes, tuple(rows)))


def _odd_insert(draft: Draft, parts: Insert) -> str:
    if draft.pins:
        return f"a statement that pins the session ({', '.join(pin.value for pin in draft.pins)}) and writes to"
    if draft.kind is StatementKind.REPLACE:
        return "REPLACE into"
    if parts.select:
        return "INSERT … SELECT into"
    if parts.updates:
        return "INSERT … ON DUPLICATE KEY UPDATE into"
    if parts.ignores:
        return "INSERT IGNORE into"
    return "INSERT … RETURNING into" if draft.has("RETURNING") else ""


def _value(index: Index, given: dict[str, tuple[Token, ...]], draft: Draft) -> tuple[Value, ...] | None:
    """One row's value of an index, None when it is NULL. Raises for one that is not known from the text."""
    schema = draft.context.catalog.get(index.schema, index.table)
    assert schema is not None
    values: list[Value] = []
    null = False
    for part in index.parts:
        tokens = given.get(part.column.lower(), ())
        column = schema.column(part.column)
        words = [token.upper for token in tokens]
        if not tokens or words == ["DEFAULT"]:
            if column is None or column.default not in (None, "NULL") or not part.nullable:
                raise refuse(f"column {part.column} is in lookup index {index.name}: give its value, not its default")
            null = True
        elif words == ["NULL"]:
            null = True
        else:
            value = literal_value(tokens)
            if value is None:
                raise refuse(
                    f"column {part.column} is in lookup index {index.name}: its value must be a plain one, not an "
                    "expression"
                )
            values.append(value)
    return None if null else tuple(values)


# ── UPDATE, DELETE ──


def change_entries(draft: Draft, tree: exp.Update | exp.Delete, facts: Facts, plan: Plan) -> Plan:
    """The plan of an UPDATE or DELETE, with the entries that change with its rows."""
    block = facts.root
    sources = [s for s in (block.sources if block is not None else ()) if s.table is not None and s.table.lookups]
    if not sources or plan.error:
        return plan
    updated = _assigned(tree) if isinstance(tree, exp.Update) else None
    targets = _deleted(tree, sources) if isinstance(tree, exp.Delete) else sources
    touched: list[tuple[Source, tuple[Index, ...]]] = []
    for source in targets:
        assert source.keyspace is not None
        assert source.table is not None
        indexes = indexes_of(draft, source.keyspace, source.table)
        if updated is not None and (source.table.key or "").lower() not in updated:
            indexes = tuple(i for i in indexes if updated & {p.column.lower() for p in i.parts})
        if indexes:
            touched.append((source, indexes))
    if not touched:
        return plan
    [source, indexes] = touched[0]
    _check(draft, facts, source, indexes, updated)
    fixed_time = plan.fixed_time or bool(draft.functions & CLOCK)
    hidden = None if plan.text is None else unseen(draft, facts, plan.groups)
    entries = _changed(draft, source, indexes, updated, None if isinstance(hidden, str) else hidden)
    return replace(plan, entries=entries, key_index=-1, fixed_time=fixed_time)


def _assigned(tree: exp.Update) -> set[str]:
    """Names of the columns that are assigned, of whichever table."""
    return {
        a.this.name.lower() for a in tree.expressions if isinstance(a, exp.EQ) and isinstance(a.this, exp.Column)
    }  # fmt: skip


def _deleted(tree: exp.Delete, sources: list[Source]) -> list[Source]:
    named = tree.args.get("tables") or []
    return [s for s in sources if not named or any(s.name.lower() == table.name.lower() for table in named)]


def _check(draft: Draft, facts: Facts, source: Source, indexes: tuple[Index, ...], updated: set[str] | None) -> None:
    """Raise for what may find other rows, or change them otherwise, than a SELECT of the same rows says before."""
    assert source.table is not None
    assert facts.root is not None
    why = ""
    if updated is not None and (source.table.key or "").lower() in updated:
        why = f"changes its shard key {source.table.key}"
    elif len(facts.root.sources) != 1 or facts.derived:
        why = "names more than the one table"
    elif draft.has("LIMIT"):
        why = "has a LIMIT"
    elif draft.has("RETURNING"):
        why = "has RETURNING"
    elif draft.has("USING"):
        why = "has USING"
    elif draft.has("IGNORE"):
        why = "has IGNORE"
    elif draft.pins:
        why = f"pins the session ({', '.join(pin.value for pin in draft.pins)})"
    elif draft.functions & RANDOM or UNKNOWN in draft.functions:
        why = "calls a function that may give another value each time"
    elif any(t.kind in (TokenKind.USER_VARIABLE, TokenKind.SYSTEM_VARIABLE) for t in draft.tokens):
        why = "uses a variable"
    if why:
        names = ", ".join(index.name for index in indexes)
        raise refuse(f"{draft.kind.value} of {source.table.name} that {why} is not supported: lookup index {names}")


def _changed(
    draft: Draft,
    source: Source,
    indexes: tuple[Index, ...],
    updated: set[str] | None,
    hidden: tuple[Hidden, bytes] | None,
) -> ChangedRows:
    """hidden: what some shards hide, and the key by which."""

    def found_by(first: int) -> Template:
        """The rest of the text, which says which rows it finds."""
        end = len(draft.tokens)
        return template(draft, first, end) if hidden is None else conditioned(draft, first, end, *hidden)

    if updated is None:
        return ChangedRows(indexes, source.name, found_by(_word(draft, "FROM", 0) + 1))
    begin = 1
    while draft.word(begin) in ("LOW_PRIORITY", "IGNORE"):
        begin += 1
    assignments = _word(draft, "SET", begin)
    rest = min(_word(draft, "WHERE", assignments), _word(draft, "ORDER", assignments))
    rows = template(draft, begin, assignments) + b" " + found_by(rest)
    return ChangedRows(indexes, source.name, rows, _primary(draft, source, indexes, updated))


def _primary(draft: Draft, source: Source, indexes: tuple[Index, ...], updated: set[str]) -> tuple[Part, ...]:
    assert source.keyspace is not None
    assert source.table is not None
    schema = draft.context.catalog.get(source.keyspace.name, source.table.name)
    assert schema is not None
    parts = parts_of(schema, schema.primary_key)
    if isinstance(parts, str) or not parts or updated & {p.column.lower() for p in parts}:
        why = parts if isinstance(parts, str) else "it changes the primary key" if parts else "it has no primary key"
        raise refuse(
            f"UPDATE of {source.table.name} that changes lookup index {indexes[0].name} finds its rows again by their "
            f"primary key, and cannot: {why}"
        )
    return parts


def _word(draft: Draft, word: str, begin: int) -> int:
    """Index of a word outside parentheses; the number of tokens when there is none."""
    depth = 0
    for i in range(begin, len(draft.tokens)):
        depth += {"(": 1, ")": -1}.get(draft.word(i), 0)
        if depth == 0 and draft.word(i) == word:
            return i
    return len(draft.tokens)


# ── DDL ──


_ROWS_GO = frozenset({"CONVERT", "EXCHANGE", "DISCARD", "IMPORT"})
_ONLY_NAMES = frozenset({"COLUMN", "INDEX", "KEY"})


def check_ddl(draft: Draft, tables: list[tuple[Keyspace, Table]]) -> None:
    """Raise when a schema change would leave entries without rows, or rows without entries."""
    verb = draft.word(0)
    for keyspace, table in tables:
        if not table.lookups or verb == "CREATE":
            continue
        why = _loses(draft, verb, keyspace, table)
        if why:
            names = ", ".join(index_name(table.name, lookup.columns) for lookup in table.lookups)
            raise refuse(
                f"{verb} {why} of {table.name} is not supported: it has lookup indexes ({names}). Take `lookups` out "
                "of its entry in shardproxy.toml before"
            )


def emptied_indexes(draft: Draft, tables: list[tuple[Keyspace, Table]]) -> tuple[tuple[str, str], ...]:
    """The lookup indexes of tables whose rows a schema change takes away, as DdlPlan.emptied has them."""
    verb = draft.word(0)
    if verb != "TRUNCATE" and not draft.starts("CREATE", "OR") and not (verb == "DROP" and _drops_tables(draft)):
        return ()
    return tuple(
        (table.name, ",".join(lookup.columns))
        for _, table in tables
        for lookup in table.lookups
    )


def _drops_tables(draft: Draft) -> bool:
    return draft.word(1) in ("TABLE", "TABLES")


def _loses(draft: Draft, verb: str, keyspace: Keyspace, table: Table) -> str:
    """What of the change touches entries; "" when nothing does."""
    if verb == "TRUNCATE" or (verb == "DROP" and _drops_tables(draft)):
        return ""  # the entries go, too
    if verb == "RENAME":
        return "TABLE"
    columns = {column.lower() for lookup in table.lookups for column in lookup.columns}
    schema = draft.context.catalog.get(keyspace.name, table.name)
    names = {name.lower() for name in schema.unique_names} - {"primary"} if schema is not None else set()
    for i, token in enumerate(draft.tokens):
        word = token.upper
        if token.text.lower() in columns | names:
            return f"that names {token.text}"
        if word in _ROWS_GO or (word == "RENAME" and draft.word(i + 1) not in _ONLY_NAMES):
            return word
        if word == "PARTITION" and draft.word(i - 1) in ("DROP", "TRUNCATE"):
            return f"{draft.word(i - 1)} PARTITION"
    return ""
