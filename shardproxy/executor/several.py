"""Statements that several shards answer or change together: which executor does it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from shardproxy.errors import UnsupportedError
from shardproxy.executor import changes, scatter
from shardproxy.executor.merge_keys import NotMergeable
from shardproxy.executor.merged import merged
from shardproxy.executor.request import Request
from shardproxy.executor.scratch import scratch
from shardproxy.executor.scratch_write import scratch_write
from shardproxy.executor.subqueries import subqueries_first
from shardproxy.executor.table_lists import table_lists
from shardproxy.planner.plan import Spread
from shardproxy.router.route import Route

Work = Coroutine[Any, Any, None]


async def concatenated(request: Request, found: Route) -> None:
    """Rows one after the other. Raises SqlError before the answer has begun."""

    async def send() -> None:
        ready = None if request.execution is None else request.prepared_on
        await scatter.scatter(request.client, request.plan, found.shards, found.replica, request.wire_on, ready)

    await scatter.twice(request.client, send)


async def _merged(request: Request, found: Route) -> None:
    """By a merge; on the next rung where the values or types at hand forbid it and the plan has that way too."""
    try:
        await merged(request, found)
    except NotMergeable:
        below = EXECUTORS.get(Spread.SCRATCH)
        if request.plan.scratch is None or below is None:
            raise
        await below(request, found)


async def _scratch(request: Request, found: Route) -> None:
    plan = request.plan.scratch
    if request.plan.subqueries is not None and await subqueries_first(request, found):
        return
    await (scratch_write if plan is not None and plan.write is not None else scratch)(request, found)


EXECUTORS: dict[Spread, Callable[[Request, Route], Work]] = {
    Spread.CONCAT: concatenated,
    Spread.MERGE: _merged,
    Spread.SCRATCH: _scratch,
    Spread.EACH: changes.each,
    Spread.WRITE: changes.write,
    Spread.LISTS: table_lists,
}


def run(request: Request, found: Route) -> Work:
    """The rest of the command. Raises SqlError with the client's answer."""
    executor = EXECUTORS.get(request.plan.spread)
    if executor is None:
        raise UnsupportedError(request.plan.spread_error or "this statement over several shards is not supported")
    return executor(request, found)
