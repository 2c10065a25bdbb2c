"""EXPLAIN of a statement: asked of the one shard that the statement would go to."""

from __future__ import annotations

from dataclasses import replace

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.insert import insert
from shardproxy.planner.plan import Plan, Rung, Spread, StatementKind
from shardproxy.planner.query import query
from shardproxy.planner.template import template

_VERBS = {
    "SELECT": StatementKind.SELECT,
    "WITH": StatementKind.SELECT,
    "VALUES": StatementKind.SELECT,
    "TABLE": StatementKind.SELECT,
    "(": StatementKind.SELECT,
    "INSERT": StatementKind.INSERT,
    "REPLACE": StatementKind.REPLACE,
    "UPDATE": StatementKind.UPDATE,
    "DELETE": StatementKind.DELETE,
}
_SEVERAL = "EXPLAIN asks one shard, and this statement would need several: give the key of one, or a hint shard=NAME"


def explain(draft: Draft) -> Plan | None:
    """The plan of EXPLAIN statement."""
    if draft.kind is not StatementKind.EXPLAIN:
        return None
    start = 0 if draft.word(0) == "ANALYZE" else 1  # MariaDB's ANALYZE statement
    while draft.word(start) in ("EXTENDED", "PARTITIONS", "ANALYZE", "FORMAT", "="):
        start += 2 if draft.word(start) == "=" else 1
    kind = _VERBS.get(draft.word(start))
    if kind is None or (draft.has("ANALYZE") and kind is not StatementKind.SELECT):
        raise refuse("this form of EXPLAIN is not supported; a hint /*shardproxy: shard=NAME*/ sends it to one shard")
    inner = replace(draft, kind=kind).cut(start)
    plan = insert(inner) or query(inner)
    assert plan is not None
    analyzes = any(draft.word(i) == "ANALYZE" for i in range(start))
    if analyzes and plan.scratch is not None and plan.spread in (Spread.SCRATCH, Spread.MERGE):
        return _analyzed(draft, plan, start)
    if plan.spread is Spread.SCRATCH and not plan.groups:
        raise refuse(_SEVERAL)
    several = plan.spread not in (Spread.ANY, Spread.ALL)
    return replace(
        plan,
        kind=StatementKind.EXPLAIN,
        rung=Rung.ONE_SHARD,
        reason=f"explained where it would run: {plan.reason}",
        read=plan.read,
        spread=Spread.REFUSE if several else Spread.ANY,
        spread_error=_SEVERAL if several else "",
        point=False,
        key_index=-1,
        fixed_time=False,
        not_above="",
        text=None,
        subqueries=None,
        merge=None,
        scratch=None,
        sequence=None,
        entries=None,
    )


def _analyzed(draft: Draft, plan: Plan, start: int) -> Plan:
    """The plan of EXPLAIN ANALYZE: what it tells of several shards is told of the scratch tables."""
    made = plan.scratch
    assert made is not None
    text = made.text and template(draft, 0, start) + b" " + made.text
    return replace(
        plan,
        kind=StatementKind.EXPLAIN,
        rung=Rung.SCRATCH,
        reason=f"explained over scratch tables, unless one shard has all rows: {plan.reason}",
        spread=Spread.SCRATCH,
        point=False,
        key_index=-1,
        text=None,
        subqueries=None,
        merge=None,
        scratch=replace(made, text=text),
    )
