"""Which server of a shard answers a read: round robin over the replicas that are fit, else the primary."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.topology.model import Server, Shard


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """The last look at one server. `lag` in seconds, None when replication does not run or it is a primary."""

    up: bool
    lag: float | None = None
    reason: str = ""


def readers(shard: Shard, health: dict[str, ServerHealth], max_lag: float) -> tuple[Server, ...]:
    """Servers that may answer reads now: replicas that are up and at most `max_lag` seconds behind; without one,
    the primary, because a slower answer is better than none. A server never looked at does not count as up."""
    fit = []
    for server in shard.replicas:
        seen = health.get(server.name)
        if seen is not None and seen.up and seen.lag is not None and seen.lag <= max_lag:
            fit.append(server)
    return tuple(fit) or (shard.primary,)


