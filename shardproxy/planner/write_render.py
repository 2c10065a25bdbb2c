"""A WritePlan as text for people."""

from __future__ import annotations

from shardproxy.planner.write_plan import Limited, SplitRows, WritePlan


def render_write(write: WritePlan | None) -> list[str]:
    """What happens when several shards come out, in lines."""
    match write:
        case SplitRows(head, rows, tail) if len(rows) > 1 or write.repeats:
            return [f"several shards: each gets its rows: {head.shown()}…{tail.shown().rstrip()}"]
        case Limited(text):
            return [f"several shards: one after the other, as many rows as are still wanted: {text.shown()}…"]
    return []
