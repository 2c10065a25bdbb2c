"""Which server of a shard answers a read: round robin over the replicas that are fit, else the primary."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.topology.model import Server, Shard


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """The last look at one server. `lag` in seconds, None when replication does not run or it is a primary. `applied`:
    of the positions that maps ask for, those that a replica has applied."""

    up: bool
    lag: float | None = None
    reason: str = ""
    applied: frozenset[str] = frozenset()


def readers(
    shard: Shard, health: dict[str, ServerHealth], max_lag: float, positions: frozenset[str] = frozenset()
) -> tuple[Server, ...]:
    """Servers that may answer reads now: replicas that are up, at most `max_lag` seconds behind, and have applied all
    `positions` of the map; without one, the primary, because a slower answer is better than none. A server never looked
    at does not count as up."""
    fit = []
    for server in shard.replicas:
        seen = health.get(server.name)
        if seen is not None and seen.up and seen.lag is not None and seen.lag <= max_lag and positions <= seen.applied:
            fit.append(server)
    return tuple(fit) or (shard.primary,)
