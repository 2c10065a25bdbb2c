"""SELECT, UPDATE and DELETE: parse, gather, group, and decide what may happen when several shards come out."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from shardproxy.errors import SqlError
from shardproxy.planner import routes
from shardproxy.planner.blocks import Facts, SourceKind
from shardproxy.planner.calls import calls
from shardproxy.planner.changes import change
from shardproxy.planner.classify import classify
from shardproxy.planner.context import PlanContext
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.gather import gather
from shardproxy.planner.groups import groups
from shardproxy.planner.lex import lex
from shardproxy.planner.lookup_writes import change_entries
from shardproxy.planner.merge import merge
from shardproxy.planner.merge_union import union
from shardproxy.planner.parse import TooLarge, parse
from shardproxy.planner.plan import Group, Opcode, Plan, Rung, Spread, StatementKind
from shardproxy.planner.point import is_point
from shardproxy.planner.scratch import scratch, scratch_unanalysed
from shardproxy.planner.spread import obstacle
from shardproxy.planner.subqueries import subqueries_first
from shardproxy.planner.system import system_read
from shardproxy.planner.template import Template
from shardproxy.planner.unseen import hides, with_condition
from shardproxy.sql.functions import CLOCK, LOCKS, SEQUENCES
from shardproxy.sql.tokens import Token, TokenKind

_KINDS = frozenset({StatementKind.SELECT, StatementKind.UPDATE, StatementKind.DELETE})
_MODIFIERS = {
    StatementKind.UPDATE: frozenset({"LOW_PRIORITY", "IGNORE"}),
    StatementKind.DELETE: frozenset({"LOW_PRIORITY", "QUICK", "IGNORE"}),
}


def query(draft: Draft) -> Plan | None:
    """The plan of a SELECT, UPDATE or DELETE."""
    if draft.kind not in _KINDS:
        return None
    if draft.functions & SEQUENCES or _next_value(draft):
        raise refuse("sequences count on each shard by themselves: they are not supported")
    if draft.kind is StatementKind.SELECT:
        if draft.word(0) == "VALUES" and not draft.has("SELECT", "FROM", "TABLE"):
            read = not draft.pins and not draft.functions & LOCKS
            return draft.plan(Opcode.NONE, "no table: any shard", spread=Spread.ANY, read=read)
        try:
            tree = parse(draft, _for_analysis(draft))
            return select(draft, tree, gather(draft, tree))
        except TooLarge:
            raise
        except SqlError as error:
            return scratch_unanalysed(draft, error)
    tree = parse(draft, _for_analysis(draft))
    facts = gather(draft, tree)
    if not isinstance(tree, (exp.Update, exp.Delete)):
        raise refuse(f"this form of {draft.kind.value} is not supported")
    return change_entries(draft, tree, facts, change(draft, tree, facts))


def facts_of(draft: Draft) -> Facts:
    """What is known of an UPDATE or DELETE. Raises where it cannot be analysed."""
    return gather(draft, parse(draft, _for_analysis(draft)))


def select(draft: Draft, tree: exp.Expr, facts: Facts) -> Plan:
    """The plan of a query whose facts are gathered."""
    read = not draft.pins and not draft.functions & LOCKS and not _locks(draft)
    system = [s for s in facts.sources if s.kind is SourceKind.SYSTEM]
    if system:
        return system_read(draft, facts, read)
    found = groups(facts)
    tables = routes.tables(facts)
    if not found:
        keyspace = routes.reference_home(facts)
        if keyspace is not None and facts.locked:
            # Whoever locks rows of reference tables does so on one and the same shard.
            found = (Group(tables, keyspace, shard=keyspace.home),)
            return draft.plan(
                Opcode.REFERENCE, f"reference tables only ({', '.join(tables)}): locked on the first shard",
                keyspace=keyspace, groups=found, tables=tables,
            )  # fmt: skip
        if keyspace is None:
            return draft.plan(Opcode.NONE, "no table: any shard", spread=Spread.ANY, read=read)
        return draft.plan(
            Opcode.REFERENCE, f"reference tables only ({', '.join(tables)}): any shard of {keyspace.name}",
            spread=Spread.ANY, read=read, keyspace=keyspace, tables=tables,
        )  # fmt: skip
    routes.check_references(facts, found)
    if any(source.kind is SourceKind.REFERENCE for source in facts.locked):
        raise refuse("FOR UPDATE of rows of reference tables together with others is not supported: lock with OF table")
    why = obstacle(draft, facts, found)
    merged = merge(draft, tree, facts, found) if why else why
    if isinstance(tree, exp.SetOperation):
        merged = union(draft)
        why = merged if isinstance(merged, str) else why
    text = None
    if hides(group.keyspace for group in found) and not (why and isinstance(merged, str)):
        if isinstance(tree, exp.SetOperation):
            why = merged = "a UNION while rows move between shards"
        else:
            made = with_condition(draft, facts, found)
            text = made if isinstance(made, Template) else None
            if isinstance(made, str) and not why:
                why = merged = made
    if draft.context.modes.gathered:
        why = merged = "a session variable (sql_select_limit, max_sort_length, sql_buffer_result)"
    opcode = routes.opcode(found)
    spread = Spread.CONCAT
    if why:
        spread = Spread.REFUSE if isinstance(merged, str) else Spread.MERGE
    certain = opcode in (Opcode.EQUAL_UNIQUE, Opcode.UNSHARDED) and (len(found) == 1 or spread is Spread.REFUSE)
    plan = draft.plan(
        opcode,
        routes.reason(found, draft, spread),
        Rung.ONE_SHARD if certain or spread is Spread.REFUSE else Rung.MERGE,
        read=read,
        keyspace=routes.only_keyspace(found),
        groups=found,
        spread=spread,
        spread_error=routes.several_shards(found, why) if spread is Spread.REFUSE else "",
        point=read and is_point(draft, tree, facts, found),
        fixed_time=spread is not Spread.REFUSE and bool(draft.functions & CLOCK),
        key_index=routes.key_index(found) if not draft.pins else -1,
        tables=tables,
        not_above=merged if isinstance(merged, str) else why,
        text=None if spread is Spread.REFUSE else text,
        merge=None if isinstance(merged, str) else merged,
    )
    return plan if spread is Spread.CONCAT else _with_subqueries(draft, facts, scratch(draft, facts, plan))


def _with_subqueries(draft: Draft, facts: Facts, plan: Plan) -> Plan:
    """The plan with the subqueries that can run first, in place of scratch tables."""
    if plan.spread is not Spread.SCRATCH:
        return plan
    first = subqueries_first(draft, facts, plan.groups, lambda sql: _lexed(sql, draft.context), query)
    if first is None:
        return plan
    if plan.rung is Rung.ONE_SHARD:
        return replace(plan, subqueries=first)
    count = "a subquery" if len(first.first) == 1 else f"{len(first.first)} subqueries"
    reason = f"{count} first, then the rest with what it found: {routes.described(plan.groups)}"
    return replace(plan, subqueries=first, rung=Rung.MERGE, reason=reason)


def _lexed(sql: bytes, context: PlanContext) -> Draft:
    """The draft of a text made from parts of a statement. Raises SqlError."""
    draft = Draft(sql, context, "")
    for step in (lex, classify, calls):
        step(draft)
    return draft


def _for_analysis(draft: Draft) -> tuple[Token, ...]:
    """The tokens without what the parser does not know and what does not change where rows are."""
    tokens = draft.tokens
    if draft.kind is StatementKind.UPDATE:
        tokens = _plain_assignments(tokens)
    if draft.kind is StatementKind.SELECT and draft.has("INTO"):
        return _without_into(draft)
    if draft.kind is StatementKind.DELETE:
        tokens = _without_stars(_using_to_from(draft, tokens))
    modifiers = _MODIFIERS.get(draft.kind, frozenset())
    verb = next((i for i, t in enumerate(tokens) if t.upper == draft.kind.value), 0)
    end = verb + 1
    while end < len(tokens) and tokens[end].upper in modifiers:
        end += 1
    return tokens[: verb + 1] + tokens[end:]


def _plain_assignments(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """SET column := value is SET column = value, which the parser knows."""
    variables = [i > 0 and tokens[i - 1].kind is TokenKind.USER_VARIABLE for i in range(len(tokens))]
    return tuple(
        token._replace(text="=", upper="=") if token.upper == ":=" and not after else token
        for token, after in zip(tokens, variables, strict=True)
    )


def _using_to_from(draft: Draft, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """DELETE FROM a, b USING … is DELETE a, b FROM …"""
    verb = next((i for i, t in enumerate(tokens) if t.upper == "DELETE"), 0)
    begin = next((i for i in range(verb, len(tokens)) if tokens[i].upper == "FROM"), len(tokens))
    depth = 0
    for i in range(begin, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[i].upper, 0)
        if tokens[i].upper in ("WHERE", "JOIN", "ON", "ORDER", "LIMIT"):
            return tokens
        if tokens[i].upper == "USING" and depth == 0:
            return tokens[:begin] + tokens[begin + 1 : i] + (tokens[begin],) + tokens[i + 1 :]
    return tokens


def _without_stars(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """DELETE t.* FROM … is DELETE t FROM …"""
    kept: list[Token] = []
    for i, token in enumerate(tokens):
        if token.upper == "FROM":
            return (*kept, *tokens[i:])
        if token.upper == "." and i + 1 < len(tokens) and tokens[i + 1].text == "*":
            continue
        if token.text == "*" and tokens[i - 1].upper == ".":
            continue
        kept.append(token)
    return tokens


def _locks(draft: Draft) -> bool:
    """FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE; any FOR or LOCK, to be safe."""
    return draft.has("LOCK", "UPDATE", "SHARE")


def _without_into(draft: Draft) -> tuple[Token, ...]:
    """SELECT … INTO @x, @y without that part: the variables pin. Into a file is refused."""
    tokens = draft.tokens
    begin = next(i for i in range(len(tokens)) if draft.word(i) == "INTO")
    end = begin + 1
    while end < len(tokens) and tokens[end].kind is TokenKind.USER_VARIABLE:
        end += 1
        if draft.word(end) != ",":
            return tokens[:begin] + tokens[end:]
        end += 1
    raise refuse("SELECT … INTO writes a file on one server: not supported")


def _next_value(draft: Draft) -> bool:
    """NEXT VALUE FOR and PREVIOUS VALUE FOR."""
    return draft.has("VALUE") and any(
        draft.word(i) in ("NEXT", "PREVIOUS") and draft.word(i + 1) == "VALUE" and draft.word(i + 2) == "FOR"
        for i in range(len(draft.tokens))
    )
