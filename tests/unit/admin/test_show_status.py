"""admin.show.status: reports and health as people see them."""

from __future__ import annotations

from shardproxy.admin.metrics import Totals, WorkerReport
from shardproxy.admin.show.status import WorkerProcess, status_json
from shardproxy.counters import Counters
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Role, Server, Shard, Snapshot

PRIMARY = Server("a/primary", "10.0.0.1", 3306, Role.PRIMARY, "a")
REPLICA = Server("a/replica1", "10.0.0.2", 3306, Role.REPLICA, "a")
SNAPSHOT = Snapshot(3, (Shard("a", PRIMARY, (REPLICA,)),), {})


def _totals() -> Totals:
    totals = Totals()
    for slot, pid in (("1", 11), ("2", 22), ("3", 33)):
        c = Counters()
        c.add("shardproxy_queries_total", ("SELECT", "In", "a", "replica"), int(slot) * 10)
        c.add("shardproxy_queries_total", ("SELECT", "Range", "a", "replica"), 1)
        c.add("shardproxy_plan_cache_total", ("hit",), 5)
        c.add("shardproxy_plan_cache_total", ("miss",), 1)
        c.add("shardproxy_errors_total", ("1064",), 2)
        c.add("shardproxy_pool_waits_total", ("a/primary",), 3)
        c.set("shardproxy_clients", (slot,), int(slot))
        c.set("shardproxy_pinned_sessions", ("user variable",), 1)
        c.set("shardproxy_pinned_sessions", ("PREPARE statement",), 0)
        c.set("shardproxy_transactions_open", (), 1)
        c.set("shardproxy_plan_cache_entries", (), 4)
        c.set("shardproxy_pool_connections", ("a/primary", "idle"), 2)
        c.set("shardproxy_pool_connections", ("a/primary", "busy"), 1)
        totals.accept(slot, pid, WorkerReport.from_json(c.snapshot()))
    totals.retire("3")
    return totals


def test_status() -> None:
    workers = [WorkerProcess("1", 11, 12.345, 5000), WorkerProcess("2", 22, 1, 6000)]
    health = {"a/primary": ServerHealth(True), "a/replica1": ServerHealth(False, None, "refused")}
    shown = status_json("9.9", SNAPSHOT, workers, health, _totals(), 34)
    assert (shown["version"], shown["epoch"]) == ("9.9", 3)
    assert shown["workers"][0] == {
        "worker": "1",
        "pid": 11,
        "uptime_s": 12.3,
        "clients": 1,
        "sessions_pinned": {"user variable": 1},
        "transactions": 1,
        "queries_total": 11,
        "rss_bytes": 5000,
    }
    assert [w["clients"] for w in shown["workers"]] == [1, 2]
    primary, replica = shown["servers"]
    assert primary == {
        "name": "a/primary",
        "shard": "a",
        "role": "primary",
        "address": "10.0.0.1:3306",
        "up": True,
        "lag_s": None,
        "reason": "",
        "pool": {"idle": 4, "busy": 2, "shared": 0, "limit": 68, "waits": 9, "timeouts": 0},
    }
    assert (replica["up"], replica["reason"]) == (False, "refused")
    assert shown["plan_cache"] == {"entries": 8, "hits": 15, "misses": 3}
    assert shown["totals"]["queries"] == 63, "the dead worker's too"
    assert shown["totals"]["errors"] == {"1064": 6}


def test_status_of_a_proxy_that_has_just_started() -> None:
    shown = status_json("9.9", SNAPSHOT, [WorkerProcess("1", 11, 0, 1)], {}, Totals(), 34)
    assert shown["workers"][0]["clients"] == 0
    assert shown["servers"][0]["up"] is None
    assert shown["servers"][0]["reason"] == "not looked at yet"
