"""Rung 3 for writes: what the shards cannot do by themselves is done over scratch tables, and written back row by row.

The rows that an UPDATE, DELETE, INSERT or REPLACE may change, and those that it reads, are gathered under locks. The
statement runs over them on one server, so what it means is that server's business alone. The rows that differ
afterwards are written to the shards, in the same transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from shardproxy.errors import SqlError
from shardproxy.planner.blocks import Facts, find_table, refuse_view
from shardproxy.planner.bounds import key_bounds
from shardproxy.planner.calls import UNKNOWN
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.groups import groups
from shardproxy.planner.insert import facts_of_rows
from shardproxy.planner.lookup_index import indexes_of
from shardproxy.planner.parse import TooLarge
from shardproxy.planner.plan import Group, InsertId, Opcode, Plan, Rung, Spread, StatementKind
from shardproxy.planner.query import facts_of
from shardproxy.planner.scratch import (
    Named,
    check_functions,
    check_spliced,
    copy_of,
    mentioned,
    names_taken,
    referenced,
)
from shardproxy.planner.scratch_plan import Copy, ScratchPlan, ScratchWrite, Target
from shardproxy.planner.scratch_targets import Written, where_of, written
from shardproxy.planner.scratch_text import splice
from shardproxy.planner.sequence import counting_column
from shardproxy.planner.template import Template, template
from shardproxy.sql.functions import CLOCK, LOCKS, RANDOM, SERVER, SESSION
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words
from shardproxy.topology.model import TableKind
from shardproxy.topology.schema import Column, TableSchema

_INSERTS = frozenset({StatementKind.INSERT, StatementKind.REPLACE})
_CHANGES = frozenset({StatementKind.UPDATE, StatementKind.DELETE})
_FOR_UPDATE, _SHARED = Template((b" FOR UPDATE",)), Template((b" LOCK IN SHARE MODE",))
# The planner's own refusals, and what its parser does not know; other numbers are what a server would say too.
REFUSED = 9100
_RESCUED = frozenset((REFUSED, 1064))
# Values of these types are not compared for what they are, as a row's identity must be.
_TEXTS = words("char varchar tinytext text mediumtext longtext")
_NO_IDENTITY = words("float double real json bit geometry point linestring polygon")


def or_by_scratch(step: Callable[[Draft], Plan | None]) -> Callable[[Draft], Plan | None]:
    """The pass, but writes that it refuses go over scratch tables where that is exact."""

    def planned(draft: Draft) -> Plan | None:
        try:
            plan = step(draft)
        except SqlError as error:
            hopeless = isinstance(error, TooLarge) or draft.shard_hint is not None
            if hopeless or draft.kind not in _INSERTS | _CHANGES or error.code not in _RESCUED:
                raise
            return _unanalysed(draft, error)
        counts = plan is not None and plan.sequence is not None and plan.sequence.open
        if plan is None or plan.shard_hint is not None or counts:
            return plan
        if plan.kind in _INSERTS | _CHANGES and plan.spread is Spread.REFUSE:
            return _several(draft, plan)
        if plan.kind in _INSERTS and plan.spread is Spread.WRITE:
            return _unplaced(draft, plan)
        return plan

    return planned


def _several(draft: Draft, plan: Plan) -> Plan:
    """A plan that is exact on one shard, with scratch tables for several."""
    if all(group.shard is not None for group in plan.groups):
        return plan
    try:
        found = _scratch_write(draft)
    except SqlError:
        return plan
    certain = len(plan.groups) == 1 and plan.opcode in (Opcode.EQUAL_UNIQUE, Opcode.UNSHARDED)
    return replace(
        plan,
        spread=Spread.SCRATCH,
        spread_error="",
        rung=Rung.ONE_SHARD if certain else Rung.SCRATCH,
        reason=plan.reason if certain else _reason(found),
        not_above="" if certain else plan.spread_error,
        scratch=found,
    )


def _unplaced(draft: Draft, plan: Plan) -> Plan:
    """A plan that splits rows by shard, with scratch tables for keys of which only a server knows what it stores."""
    try:
        return replace(plan, scratch=_scratch_write(draft))
    except SqlError:
        return plan


def _unanalysed(draft: Draft, error: SqlError) -> Plan:
    """The plan of a write that is refused otherwise. Raises `error` where scratch tables would not be exact either."""
    try:
        found = _scratch_write(draft)
    except SqlError as problem:
        if problem.code in (1046, 1049):
            raise problem from None
        if problem.code != REFUSED or str(problem) == str(error):
            raise error from None
        raise refuse(f"{error}; nor can scratch tables do it: {problem}", error.code) from None
    return draft.plan(
        Opcode.SCRATCH,
        _reason(found),
        Rung.SCRATCH,
        spread=Spread.SCRATCH,
        not_above=str(error),
        scratch=found,
        tables=tuple(dict.fromkeys(copy.table for copy in found.copies)),
        insert_id=InsertId.ASKED if draft.kind in _INSERTS else InsertId.REPORTED,
    )


def _reason(found: ScratchPlan) -> str:
    names = ", ".join(dict.fromkeys(copy.table for copy in found.copies))
    return f"done over scratch tables and written back: {names}"


def _scratch_write(draft: Draft) -> ScratchPlan:
    """Raises UnsupportedError with what stands in the way."""
    check_functions(draft)
    if draft.has("DELAYED", "PROCEDURE", "SYSTEM_TIME", "AGAINST", "HISTORY"):
        raise refuse("a word that one server understands alone")
    at = written(draft)
    named = referenced(draft, at.tables) | mentioned(draft, at.tables)
    targets = [_table(draft, *name) for name in at.targets]
    found = _groups(draft, at)
    copies: list[Copy] = []
    write: list[Target] = []
    read = {(r.database or draft.context.schema or "", r.name) for r in at.tables.references if r.cte is None}
    for one in targets:
        target = _target(draft, one, at, (one[0].name, one[1].name) in read)
        write.append(target)
        # IGNORE leaves out what another row of any shard stands against.
        whole = draft.kind in _INSERTS or (target.indexes and draft.has("IGNORE"))
        copies.append(copy_of(one, one[1].name, () if whole else found, _FOR_UPDATE))
    if len(targets) == 1 and draft.kind in _CHANGES:
        copies[0] = _filtered(draft, at, copies[0])
    own = frozenset((keyspace.name, table.name) for keyspace, table in targets)
    for key, one in named.items():
        refuse_view(draft, *one)
        if key not in own and draft.context.mariadb:
            copies.append(copy_of(one, one[1].name, found, _SHARED))
    if draft.context.mariadb:
        return ScratchPlan(tuple(copies), write=ScratchWrite(tuple(write)))
    spliced = splice(draft, at.tables, names_taken(draft, at.tables), own, frozenset(at.kept))
    check_spliced(draft, spliced)
    for name, reference in spliced.uses:
        one = named[reference.database or draft.context.schema or "", reference.name]
        copies.append(copy_of(one, name, found, _SHARED))
    used = {(copy.database, copy.table) for copy in copies}
    copies += [copy_of(one, one[1].name, (), _SHARED) for key, one in named.items() if key not in used]
    text = spliced.text if spliced.changed else None
    again = any((copy.database, copy.table) in own for copy in copies[len(targets) :])
    return ScratchPlan(tuple(copies), text, write=ScratchWrite(tuple(write), again))


def _table(draft: Draft, database: str, name: str) -> Named:
    keyspace, table = find_table(draft, database, name)
    if keyspace is None or table is None:
        raise refuse(f"{draft.kind.value} of a system table is not supported")
    refuse_view(draft, keyspace, table)
    return keyspace, table


def _groups(draft: Draft, at: Written) -> tuple[Group, ...]:
    """Where rows are, as far as the statement says and is understood."""
    try:
        facts = facts_of_rows(draft) if draft.kind in _INSERTS else facts_of(draft)
        return groups(facts) if _agree(draft, facts, at) else ()
    except SqlError:
        return ()


def _agree(draft: Draft, facts: Facts, at: Written) -> bool:
    by_tree = Counter((s.database, s.table.name) for s in facts.sources if s.table is not None)
    schema = draft.context.schema or ""
    return by_tree == Counter((r.database or schema, r.name) for r in at.tables.references if r.cte is None)


def _target(draft: Draft, one: Named, at: Written, is_read: bool) -> Target:
    """Raises where its rows cannot be told apart."""
    keyspace, table = one
    schema = draft.context.catalog.get(keyspace.name, table.name)
    if schema is None:
        raise refuse(f"the definition of '{keyspace.name}.{table.name}' could not be read from the servers")
    inserts = draft.kind in _INSERTS
    gathered = (
        not inserts
        or draft.kind is StatementKind.REPLACE
        or draft.has("IGNORE", "DUPLICATE")
        or (is_read and draft.context.mariadb)
    )
    primary_key: tuple[tuple[str, str], ...] = ()
    try:
        primary_key = _identity(schema)
    except SqlError:
        if gathered:
            raise
    key = _key(one, schema)
    others = [column for unique in schema.unique_keys if unique != schema.primary_key for column in unique]
    counted, given, by_server = None, False, False
    if inserts and any(c.auto_increment for c in schema.columns):
        counted = _counted(draft, schema)
        by_server = counting_column(keyspace, table, schema) is None
        given = _names_column(draft, at.body, schema, next(c.name for c in schema.columns if c.auto_increment))
    identity = tuple(dict.fromkeys((*key, *others)))
    indexes = indexes_of(draft, keyspace, table)
    return Target(keyspace, table, primary_key, identity, gathered, counted, given, by_server, indexes)


def _key(one: Named, schema: TableSchema) -> tuple[str, ...]:
    """The shard key, if there is one. Raises where its column is of a type whose values cannot be placed."""
    keyspace, table = one
    if table.kind is not TableKind.SHARDED or table.key is None:
        return ()
    column = schema.column(table.key)
    if column is None or key_bounds(table.name, column, keyspace.key_type) is None:
        raise refuse(f"the key {table.key} of {table.name} is no {keyspace.key_type.value} key")
    return (table.key,)


def _identity(schema: TableSchema) -> tuple[tuple[str, str], ...]:
    """The primary key's columns with their character sets. Raises where rows cannot be told apart by it."""
    found = []
    name = f"{schema.database}.{schema.name}"
    if not schema.primary_key:
        raise refuse(f"table {name} has no primary key, by which its rows could be told apart")
    for part in schema.primary_key:
        column = schema.column(part)
        if column is None or column.data_type in _NO_IDENTITY:
            raise refuse(f"the primary key of {name} has a type that is not compared exactly")
        found.append((column.name, (column.charset or "") if column.data_type in _TEXTS else ""))
    return tuple(found)


def _counted(draft: Draft, schema: TableSchema) -> Column:
    """The AUTO_INCREMENT column. Raises where its numbers are told before they are known."""
    if draft.has("RETURNING"):
        raise refuse("RETURNING of numbers that are counted later")
    return next(column for column in schema.columns if column.auto_increment)


def _names_column(draft: Draft, at: int, schema: TableSchema, column: str) -> bool:
    """Whether an INSERT may give the column a value: it names it, or lists no columns."""
    listed = draft.word(at) == "(" and draft.word(at + 1) not in ("SELECT", "WITH", "(", "TABLE", "VALUES")
    if not listed and draft.word(at) != "SET":
        return True
    return any(t.text.lower() == column.lower() for t in draft.tokens[at:])


def _filtered(draft: Draft, at: Written, copy: Copy) -> Copy:
    """Gather only rows that the statement's own condition takes, where nobody can tell the difference."""
    span = where_of(draft)
    if span is None or at.many or draft.has("IGNORE") or len(at.tables.references) != 1 or at.tables.withs:
        return copy
    odd = draft.functions & (CLOCK | RANDOM | SESSION | SERVER | LOCKS | {UNKNOWN})
    tokens = draft.tokens[span[0] : span[1]]
    if odd or any(t.kind in (TokenKind.USER_VARIABLE, TokenKind.SYSTEM_VARIABLE) for t in tokens):
        return copy
    if any(draft.word(i) == "." and draft.word(i + 2) == "." for i in range(*span)) or not tokens:
        return copy
    if b"/*!" in draft.sql or b"/*M!" in draft.sql:
        return copy
    return replace(copy, where=template(draft, *span), alias=at.tables.references[0].alias)
