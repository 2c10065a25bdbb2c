"""Which answers of queries may be kept, and for how long (docs/cache.md).

Asked for by a hint or a rule, and granted only where the answer follows from the statement, the session's state and the
rows of tables whose writes are seen: no clock, no chance, no variables, no views, no tables but those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from shardproxy.errors import SqlError
from shardproxy.planner.draft import Draft
from shardproxy.planner.parse import parse
from shardproxy.planner.plan import Plan, Rung, StatementKind
from shardproxy.sql.functions import AGGREGATES, PLAIN
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words

TableName = tuple[str, str]

# They make a TIME, which becomes a DATETIME by today's date; DEFAULT may be the clock's.
_DOUBTFUL = words("addtime default maketime sec_to_time str_to_date subtime time timediff")
_SURE = (PLAIN | AGGREGATES) - _DOUBTFUL


@dataclass(frozen=True, slots=True)
class QueryRule:
    """Queries that are kept without a hint. digest: the text with `?` for literals, "" for any; tables: those that it
    may read, none for any; ttl: milliseconds."""

    digest: str
    tables: frozenset[TableName]
    ttl: int


@dataclass(frozen=True, slots=True)
class QueryCaching:
    """tables: whose queries may be kept; rules: the first that fits counts."""

    tables: frozenset[TableName]
    rules: tuple[QueryRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Caching:
    """Of a plan. ttl: milliseconds; tables: all that it reads, sorted."""

    ttl: int
    tables: tuple[TableName, ...]


def with_caching(draft: Draft, plan: Plan) -> Plan:
    """The plan, with how long its answer is kept; or, where it was asked for and cannot be, with the reason."""
    caching = draft.context.caching
    asked = draft.cache_ttl
    if (asked is None and (caching is None or not caching.rules)) or plan.rung is Rung.ERROR or plan.local:
        return plan
    if asked == 0:
        return plan
    tables, why = _tables(draft, plan) if caching is not None else ((), "there is no [cache.queries]")
    if not why and caching is not None:
        unseen = next((table for table in tables if table not in caching.tables), None)
        if unseen is not None:
            why = f"{'.'.join(unseen)} is not in cache.queries.tables"
    if asked is None:
        assert caching is not None
        asked = next((rule.ttl for rule in caching.rules if _fits(rule, draft, tables)), None)
        if asked is None:
            return plan
    if why:
        return replace(plan, reason=f"{plan.reason}; not kept in the cache: {why}")
    reason = f"{plan.reason}; kept in the cache for {asked / 1000:g} s"
    return replace(plan, cached=Caching(asked, tables), primary=True, reason=reason)


def _fits(rule: QueryRule, draft: Draft, tables: tuple[TableName, ...]) -> bool:
    if rule.digest and rule.digest != draft.digest_text.strip():
        return False
    return not rule.tables or (bool(tables) and rule.tables.issuperset(tables))


def _tables(draft: Draft, plan: Plan) -> tuple[tuple[TableName, ...], str]:
    """The tables that a query reads; or why its answer cannot be kept."""
    why = _not_a_plain_read(draft, plan) or _not_of_rows_alone(draft)
    if why:
        return (), why
    try:
        tree = parse(draft, draft.tokens)
    except SqlError:
        return (), "the statement cannot be analysed"
    named = {cte.alias for cte in tree.find_all(exp.CTE)}
    found: set[TableName] = set()
    for node in tree.find_all(exp.Table):
        if not isinstance(node.this, exp.Identifier) or node.args.get("catalog"):
            return (), "a table expression"
        table = (node.db or draft.context.schema or "", node.name)
        known = _known(draft, table)
        if node.name in named and not node.db and not known:
            continue
        if not known:
            return (), f"{'.'.join(table)} is no table of a keyspace"
        schema = draft.context.catalog.get(*table)
        if schema is None or schema.is_view:
            return (), f"{'.'.join(table)} is a view, or its columns are not known"
        if any(column.data_type == "time" for column in schema.columns):
            return (), f"{'.'.join(table)} has a column of type TIME, which today's date may be added to"
        found.add(table)
    return tuple(sorted(found)), "" if found else "it reads no table"


def _known(draft: Draft, table: TableName) -> bool:
    keyspace = draft.context.snapshot.keyspaces.get(table[0])
    return keyspace is not None and table[1] in keyspace.tables


def _not_a_plain_read(draft: Draft, plan: Plan) -> str:
    if plan.kind is not StatementKind.SELECT:
        return f"it is {plan.kind.value}"
    if plan.shard_hint is not None or plan.snapshot:
        return "it has another hint"
    if not plan.read or draft.has("INTO"):
        return "it locks rows, writes, or uses what only one connection has"
    if plan.found_rows or plan.carries_insert_id or draft.has("SQL_NO_CACHE"):
        return "it has SQL_CALC_FOUND_ROWS, LAST_INSERT_ID() or SQL_NO_CACHE"
    if plan.lookups:
        return "a lookup index says where its rows are"
    if draft.expanded:
        return "it reads a view"
    return ""


def _not_of_rows_alone(draft: Draft) -> str:
    if draft.assigns or any(t.kind in (TokenKind.USER_VARIABLE, TokenKind.SYSTEM_VARIABLE) for t in draft.tokens):
        return "it reads or sets a variable"
    doubtful = sorted(draft.functions - _SURE)
    if doubtful:
        return f"the answer of {doubtful[0].upper()} may be another one each time"
    if draft.has("SYSTEM_TIME", "PROCEDURE", "SAMPLE", "SYSDATE"):  # the last is a function without ( ), for ORACLE
        return "it has SYSTEM_TIME, PROCEDURE or SYSDATE"
    if draft.has("TIME"):  # CAST(… AS TIME), CONVERT(…, TIME), RETURNING TIME, a literal; or a column of that name
        return "it may have a value of type TIME, which today's date may be added to"
    return ""
