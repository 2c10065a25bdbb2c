"""plan_statement: the passes in order. A pass returns the plan, or None for the next one; it raises to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shardproxy.errors import SqlError
from shardproxy.planner.bulk import lengthen, shorten
from shardproxy.planner.calls import calls
from shardproxy.planner.classify import classify
from shardproxy.planner.context import PlanContext
from shardproxy.planner.ddl import ddl
from shardproxy.planner.draft import Draft
from shardproxy.planner.explain import explain
from shardproxy.planner.forward import forward
from shardproxy.planner.hints import check_snapshot, hints
from shardproxy.planner.insert import insert
from shardproxy.planner.last_row import last_row
from shardproxy.planner.lex import lex
from shardproxy.planner.local_functions import local_functions
from shardproxy.planner.lock_tables import lock_tables
from shardproxy.planner.lookup_conditions import asked
from shardproxy.planner.plan import Opcode, Plan, Rung, StatementKind
from shardproxy.planner.query import query
from shardproxy.planner.query_cache import with_caching
from shardproxy.planner.scratch_write import or_by_scratch
from shardproxy.planner.session_statements import session_statements
from shardproxy.planner.show import show
from shardproxy.planner.unsupported import unsupported
from shardproxy.planner.view_text import view_text
from shardproxy.planner.voids import with_voids
from shardproxy.sql.digest import scan

Pass = Callable[[Draft], Plan | None]

PASSES: tuple[Pass, ...] = (
    lex,
    hints,
    classify,
    view_text,
    calls,
    last_row,
    session_statements,
    forward,
    show,
    ddl,
    lock_tables,
    local_functions,
    or_by_scratch(insert),
    or_by_scratch(query),
    explain,
    unsupported,
)


def plan_statement(sql: bytes, context: PlanContext) -> Plan:
    """The plan of a statement. Never raises for what a user wrote: errors are plans with Rung.ERROR."""
    digest, literals = scan(sql, context.modes)
    text = digest.decode("utf-8", "replace")
    short = shorten(sql, digest, literals)
    if short is None:
        return _plan(sql, context, text)
    plan = _plan(short.sql, context, text)
    if plan.subqueries is not None or (plan.scratch is not None and plan.scratch.text is not None):
        return _plan(sql, context, text)  # a text put together from all of the statement's literals
    if plan.voids is not None:
        plan = replace(plan, voids=plan.voids.lengthened())
    return lengthen(plan, short, text)


def _plan(sql: bytes, context: PlanContext, digest_text: str) -> Plan:
    draft = Draft(sql, context, digest_text)
    try:
        for step in PASSES:
            plan = step(draft)
            if plan is not None:
                check_snapshot(plan)
                return with_caching(draft, with_voids(draft, _with_lookups(plan)))
        raise AssertionError("the last pass refuses what no other has planned")
    except SqlError as error:
        return error_plan(draft, str(error), error.code)
    except RecursionError:
        return error_plan(draft, "the statement is nested too deeply to be analysed", 9100)


def _with_lookups(plan: Plan) -> Plan:
    """The plan with the lookup indexes that are asked before it is routed. Not for INSERT … SELECT: whether it found a
    row its answer does not show."""
    looked_up = asked(plan.groups)
    if not looked_up or plan.kind in (StatementKind.INSERT, StatementKind.REPLACE):
        return plan
    names = ", ".join(dict.fromkeys(looked.index.name for looked in looked_up))
    reason = f"lookup index {names} names the shard; where it names several, {plan.reason}"
    return replace(plan, lookups=looked_up, reason=reason)


def error_plan(draft: Draft, message: str, code: int) -> Plan:
    """Rung 4: the statement gets this error, whatever its values."""
    return Plan(
        draft.kind, Opcode.NONE, Rung.ERROR, message, digest_text=draft.digest_text, error=message, error_code=code
    )
