"""`shardctl topology`: which keys live where."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.text import Text

from shardproxy.admin.show.topology import topology_json
from shardproxy.cli.admin_client import AdminClient
from shardproxy.cli.redis_shown import show
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    NoProxy,
    ends_with_status,
    note,
    print_json,
    read_config,
    stdout,
    table,
)
from shardproxy.config import Config
from shardproxy.errors import StoreError
from shardproxy.reshard.leading import stored_maps_of
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot


@ends_with_status
def topology(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show shards, keyspaces, their maps and their tables.

    Asks the running proxy; without one, shows what the file says, and the map store where it has maps.

    Examples:
      shardctl topology
      shardctl topology --json | jq '.keyspaces[].name'
    """
    settings = read_config(config)
    try:
        answer = AdminClient.of(settings).get("/api/topology")
    except NoProxy:
        answer = topology_json(_without_proxy(settings))
    if as_json:
        print_json(answer)
        return
    out = stdout()
    out.print(f"map epoch {answer['epoch']}")
    out.print(_shards(answer))
    for keyspace in answer["keyspaces"]:
        out.print()
        what = f"{keyspace['map']} map over {keyspace['key_type']} keys"
        what += f", home {keyspace['home']}" if "home" in keyspace else ""  # a proxy of an earlier version
        out.print(Text(f"keyspace {keyspace['name']}: {what}", "bold"))
        if move := keyspace.get("move"):
            ways = ", ".join(sorted({f"{s['source']} → {s['target']}" for s in move["streams"]}))
            out.print(Text(f"move {move['id']} ({ways}) is {move['phase']}", "yellow"))
        out.print(_ranges(keyspace) if keyspace["map"] == "range" else _shares(keyspace))
        out.print(_tables(keyspace))
    if "redis" in answer:
        out.print()
        out.print(Text("Redis port", "bold"))
        show(answer["redis"])


def _without_proxy(settings: Config) -> Snapshot:
    """What a proxy would serve by, but for tables that were registered by CREATE TABLE. Raises ConfigError."""
    snapshot = build_snapshot(settings)
    try:
        documents = asyncio.run(stored_maps_of(settings))
    except StoreError as error:
        note(f"no proxy is running, and the map store cannot be read ({error}); this is what {settings.source} says")
        return snapshot
    store = " and the map store say" if documents else " says"
    note(f"no proxy is running; this is what {settings.source}{store}")
    return with_stored(snapshot, documents)


def _shards(answer: dict[str, Any]) -> Any:
    rows = table("shard", "primary", "replicas")
    for shard in answer["shards"]:
        rows.add_row(Text(shard["name"]), Text(shard["primary"]), Text(", ".join(shard["replicas"]) or "–"))
    return rows


def _ranges(keyspace: dict[str, Any]) -> Any:
    rows = table("from", "to (not included)", "shard")
    for r in keyspace["ranges"]:
        rows.add_row(str(r["from"]), str(r["to"]), Text(r["shard"]))
    return rows


def _shares(keyspace: dict[str, Any]) -> Any:
    rows = table("shard", "buckets", "share")
    for share in keyspace["shares"]:
        rows.add_row(Text(share["shard"]), f"{share['buckets']} of {keyspace['buckets']}", f"{share['share']:.1%}")
    return rows


def _tables(keyspace: dict[str, Any]) -> Any:
    rows = table("table", "kind", "where")
    for t in keyspace["tables"]:
        where = {"sharded": f"by {t.get('key')}", "single": f"on {t.get('shard')}"}.get(t["kind"], "on every shard")
        rows.add_row(Text(t["name"]), t["kind"], Text(where))
    return rows
