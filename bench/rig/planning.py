"""How long the planner takes for statements that it sees for the first time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from shardproxy.backend.catalog import load_catalog
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.planner.context import PlanContext
from shardproxy.planner.plan import Rung
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.build import build_snapshot

_TIMES = 5


def planning_context(config: Path, schema: str, mariadb: bool = True) -> PlanContext:
    """What the proxy of this configuration plans against; table definitions are read from its servers."""
    settings = load(config, {})
    snapshot = build_snapshot(settings)
    loaded = asyncio.run(load_catalog(snapshot, Credentials.of(settings), 30.0))
    return PlanContext(snapshot, loaded.catalog, schema, SqlModes.parse(""), mariadb)


def planning_ms(statements: Sequence[str], context: PlanContext) -> list[float]:
    """Milliseconds for each: the median of several plans. The planner keeps nothing, so each is a first one."""
    plan_statement(b"SELECT 1 + 1", context)  # what is loaded once in a process is no statement's own
    found = []
    for statement in statements:
        text = statement.encode()
        times = []
        for _ in range(_TIMES):
            start = time.perf_counter()
            plan_statement(text, context)
            times.append((time.perf_counter() - start) * 1e3)
        found.append(median(times))
    return found


def refused(statements: Sequence[str], context: PlanContext) -> int:
    """How many of them the planner refuses whatever their values: a refusal may be quicker than a plan."""
    return sum(plan_statement(statement.encode(), context).rung is Rung.ERROR for statement in statements)
