"""Where each of many rows goes."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.plan import KeyIn, Plan, Value
from shardproxy.router.route import ValueReader, evaluate, stored_as_given
from shardproxy.topology.model import Keyspace


def place(plan: Plan, keys: Sequence[Value], keyspace: Keyspace, read: ValueReader) -> list[int]:
    """The shard index of each key of new rows. Raises RouteError for one that cannot be placed."""
    read = stored_as_given(plan, read)
    placed = []
    for key in keys:
        [shard] = evaluate(KeyIn((key,)), keyspace, read, strict=True)
        placed.append(shard)
    return placed
