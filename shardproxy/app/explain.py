"""`shardctl explain`: plan and route a statement without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardproxy.admin.http import ExplainValue
from shardproxy.admin.show.explain import explain_json
from shardproxy.errors import RouteError, SqlError
from shardproxy.executor.explain_route import NOWHERE
from shardproxy.executor.prepared import bound_value, parameter_numbers
from shardproxy.planner.context import PlanContext
from shardproxy.planner.key_values import NoValue, key_value
from shardproxy.planner.plan import Plan, Rung, Value
from shardproxy.planner.statement import plan_statement
from shardproxy.router.route import Route, route
from shardproxy.sql.digest import scan
from shardproxy.topology.keys import KeyType, KeyValue


def explain(sql: str, values: Sequence[ExplainValue], context: PlanContext) -> dict[str, Any]:
    """As admin.show.explain.explain_json. values: for the `?` of the statement, in order."""
    text = sql.encode()
    plan = plan_statement(text, context)
    _, literals = scan(text, context.modes)
    numbers, _ = parameter_numbers(literals)

    def read(value: Value, key_type: KeyType) -> KeyValue | NoValue:
        number = numbers[value.index]
        if number < 0:
            return key_value(literals[value.index], value.negative, key_type, context.modes)
        if number >= len(values):
            raise RouteError(f"the statement has more parameters than the {len(values)} values given: add --values")
        given = values[number]
        bound = given.encode() if isinstance(given, str) else given
        return bound_value(bound, value.negative, key_type, False, context.modes)

    outcome: Route | SqlError | None
    if plan.rung is Rung.ERROR or plan.local or plan.kind in NOWHERE:
        outcome = None
    else:
        try:
            outcome = route(plan, read, context.snapshot)
        except SqlError as error:
            outcome = error
    return explain_json(plan, outcome, context.snapshot, _texts(plan, outcome, sql, literals))


def _texts(plan: Plan, outcome: Route | SqlError | None, sql: str, literals: list[bytes]) -> dict[int, str] | str:
    """The statement; while rows are on their way, as each of several shards gets it."""
    if plan.text is None or not isinstance(outcome, Route) or len(outcome.shards) == 1:
        return sql
    return {shard: plan.text.render(literals, (), 0, shard).text.decode() for shard in outcome.shards}
