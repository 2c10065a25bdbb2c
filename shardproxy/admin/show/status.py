"""`shardctl status`: how the proxy and its servers are right now.

{"version": "0.1.0", "epoch": 3,
 "workers": [{"worker": "1", "pid": 4711, "uptime_s": 12.5, "clients": 3, "sessions_pinned": {"user variable": 1},
              "transactions": 0, "queries_total": 1234, "rss_bytes": 61000000}],
 "servers": [{"name": "a/primary", "shard": "a", "role": "primary", "address": "10.0.0.1:3306", "up": true,
              "lag_s": null, "reason": "", "pool": {"idle": 2, "busy": 1, "shared": 2, "limit": 64, "waits": 0,
                                                    "timeouts": 0}}],
 "plan_cache": {"entries": 12, "hits": 1200, "misses": 12},
 "totals": {"queries": 1234, "errors": {"1064": 2}, "connections": 5, "worker_restarts": 0}}

`pool` is over all workers: `limit` is what they may open together. A server not looked at yet has `up` null.
`totals` include workers that are dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardproxy.admin.metrics import Totals, WorkerReport
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Server, Snapshot

POOL_STATES = ("idle", "busy", "shared")


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """What the supervisor knows of a living worker. `slot` as in Totals, `uptime` in seconds, `rss` in bytes."""

    slot: str
    pid: int
    uptime: float
    rss: int


def status_json(
    version: str,
    snapshot: Snapshot,
    workers: Sequence[WorkerProcess],
    health: Mapping[str, ServerHealth],
    totals: Totals,
    pool_limit: int,
) -> dict[str, Any]:
    """The status as in the module's docstring.

    health: by server name. pool_limit: connections that one worker may have to one server, shared ones included.
    """
    total = totals.sum()
    servers = [server for shard in snapshot.shards for server in shard.servers]
    cache = total.by_label("shardproxy_plan_cache_total", "result")
    errors = total.by_label("shardproxy_errors_total", "code")
    return {
        "version": version,
        "epoch": snapshot.epoch,
        "workers": [_worker(w, totals.report_of(w.slot)) for w in workers],
        "servers": [_server(s, health.get(s.name), total, pool_limit * len(workers)) for s in servers],
        "plan_cache": {
            "entries": int(total.total("shardproxy_plan_cache_entries")),
            "hits": int(cache.get("hit", 0)),
            "misses": int(cache.get("miss", 0)),
        },
        "totals": {
            "queries": int(total.total("shardproxy_queries_total")),
            "errors": {code: int(n) for code, n in sorted(errors.items())},
            "connections": int(total.total("shardproxy_connections_total")),
            "worker_restarts": int(total.total("shardproxy_worker_restarts_total")),
        },
    }


def _worker(worker: WorkerProcess, report: WorkerReport) -> dict[str, Any]:
    pinned = report.by_label("shardproxy_pinned_sessions", "reason")
    return {
        "worker": worker.slot,
        "pid": worker.pid,
        "uptime_s": round(worker.uptime, 1),
        "clients": int(report.total("shardproxy_clients")),
        "sessions_pinned": {reason: int(n) for reason, n in sorted(pinned.items()) if n},
        "transactions": int(report.total("shardproxy_transactions_open")),
        "queries_total": int(report.total("shardproxy_queries_total")),
        "rss_bytes": worker.rss,
    }


def _server(server: Server, health: ServerHealth | None, total: WorkerReport, limit: int) -> dict[str, Any]:
    def count(family: str, *labels: str) -> int:
        values = total.gauges if family == "shardproxy_pool_connections" else total.counters
        return int(values.get((family, (server.name, *labels)), 0))

    return {
        "name": server.name,
        "shard": server.shard,
        "role": server.role.value,
        "address": f"{server.host}:{server.port}",
        "up": health.up if health else None,
        "lag_s": health.lag if health else None,
        "reason": health.reason if health else "not looked at yet",
        "pool": {
            **{state: count("shardproxy_pool_connections", state) for state in POOL_STATES},
            "limit": limit,
            "waits": count("shardproxy_pool_waits_total"),
            "timeouts": count("shardproxy_pool_timeouts_total"),
        },
    }
