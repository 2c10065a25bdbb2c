"""What stands against running a write on several shards at once, each with its own rows."""

from __future__ import annotations

from shardproxy.planner.blocks import Facts
from shardproxy.planner.calls import UNKNOWN
from shardproxy.planner.draft import Draft
from shardproxy.planner.plan import Group
from shardproxy.planner.reference_writes import CLOCK_DEFAULTS
from shardproxy.planner.spread import obstacle
from shardproxy.sql.functions import CLOCK, LOCKS, SERVER, SESSION
from shardproxy.topology.schema import TableSchema


def each_obstacle(draft: Draft, facts: Facts, groups: tuple[Group, ...]) -> str:
    """Why an UPDATE or DELETE may not run on each shard by itself; "" when it may."""
    if draft.has("RETURNING"):
        return "RETURNING"
    return obstacle(draft, facts, groups)


def rows_obstacle(draft: Draft) -> str:
    """Why the rows of an INSERT may not be stored by several servers; "" when they may."""
    if draft.has("RETURNING"):
        return "RETURNING"
    if UNKNOWN in draft.functions:
        return "a function that is not built in"
    odd = sorted(draft.functions & (LOCKS | SERVER | SESSION))
    if odd:
        return f"{odd[0].upper()}()"
    if draft.has_variables:
        return "a variable"
    return ""


def reads_clock(draft: Draft, schemas: list[TableSchema]) -> bool:
    """Whether what is stored may hold the time: by the text, or by a default (one too many costs little)."""
    if draft.functions & CLOCK:
        return True
    texts = [f"{c.default or ''} {c.extra}".lower() for schema in schemas for c in schema.columns]
    return any(word in text for text in texts for word in (*CLOCK_DEFAULTS, "on update"))
