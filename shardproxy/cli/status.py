"""`shardctl status`: how the running proxy and its servers are."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from shardproxy.cli.admin_client import AdminClient
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ends_with_status,
    print_json,
    read_config,
    stdout,
    table,
)


@ends_with_status
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show workers, servers and pools of the running proxy.

    Examples:
      shardctl status
      shardctl status --json | jq '.servers[] | select(.up == false)'
    """
    answer = AdminClient.of(read_config(config)).get("/api/status")
    if as_json:
        print_json(answer)
        return
    out = stdout()
    out.print(_headline(answer), soft_wrap=True)
    for line in _store(answer["store"]):
        out.print(line, soft_wrap=True)
    for part in (_workers(answer), _servers(answer)):
        out.print()
        out.print(part)


def _headline(answer: dict[str, Any]) -> Text:
    totals, cache = answer["totals"], answer["plan_cache"]
    looked_up = cache["hits"] + cache["misses"]
    hits = f"{cache['hits'] / looked_up:.1%} hits" if looked_up else "unused"
    errors = ", ".join(f"{code}: {n}" for code, n in totals["errors"].items()) or "none"
    return Text(
        f"shardproxy {answer['version']}, map epoch {answer['epoch']}, {totals['queries']} queries, "
        f"plan cache {cache['entries']} plans, {hits}; errors {errors}; worker restarts {totals['worker_restarts']}"
    )


def _store(store: dict[str, Any]) -> list[Text]:
    state = "up" if store["up"] else "away: the proxy goes on under the last map"
    lines = [Text(f"map store ({store['kind']}) {state}", "" if store["up"] else "red")]
    if store["problem"]:
        lines.append(Text(f"  {store['problem']}", "red"))
    for found in store["maps"]:
        move = found["move"]
        late = "" if found["acknowledged"] >= found["epoch"] else f", acknowledged {found['acknowledged']}"
        moving = f"; move {move['id']} is {move['stage']}" if move else ""
        lines.append(Text(f"  keyspace {found['keyspace']}: map epoch {found['epoch']}{late}{moving}"))
    return lines


def _workers(answer: dict[str, Any]) -> Any:
    rows = table("worker", "pid", "up", "clients", "transactions", "pinned", "queries", "memory")
    for w in answer["workers"]:
        pinned = ", ".join(f"{n} {reason}" for reason, n in w["sessions_pinned"].items()) or "0"
        rows.add_row(
            str(w["worker"]),
            str(w["pid"]),
            uptime(w["uptime_s"]),
            str(w["clients"]),
            str(w["transactions"]),
            Text(pinned),
            str(w["queries_total"]),
            f"{w['rss_bytes'] / 2**20:.0f} MiB",
        )
    return rows


def _servers(answer: dict[str, Any]) -> Any:
    rows = table("server", "address", "state", "lag", "idle", "busy", "shared", "limit", "waits", "timeouts")
    for s in answer["servers"]:
        pool = s["pool"]
        rows.add_row(
            Text(s["name"]),
            Text(s["address"]),
            _state(s),
            "–" if s["lag_s"] is None else f"{s['lag_s']:g} s",
            *(str(pool[key]) for key in ("idle", "busy", "shared", "limit", "waits", "timeouts")),
        )
    return rows


def _state(server: dict[str, Any]) -> Text:
    reason = f": {server['reason']}" if server["reason"] else ""
    if server["up"] is None:
        return Text(f"unknown{reason}", "yellow")
    return Text(f"up{reason}", "green") if server["up"] else Text(f"down{reason}", "red")


def uptime(seconds: float) -> str:
    """The two largest units: "3d 4h", "5m 12s", "0s"."""
    parts: list[str] = []
    left = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])
