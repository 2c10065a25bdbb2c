"""The measured load in a plan of `--by-load`."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from shardproxy.admin.rebalance.plan import Plan
from shardproxy.cli.terminal import stdout, table
from shardproxy.topology.load import MeasuredLoad


def load_json(found: Plan, load: MeasuredLoad) -> dict[str, Any]:
    """As `--json` prints it. shares: of the measured statements, 0 to 1; indivisible: the key, or bucket, that keeps a
    shard above its share, and its own."""
    change = found.change
    names = [shard.name for shard in change.shards]
    before, after = load.shares(change.before), load.shares(change.after)
    alone = load.indivisible(change.after, _weights(found))
    return {
        "proxies": load.proxies,
        "samples": load.samples,
        "statements": round(load.statements),
        "writes": round(load.writes),
        "seconds": round(load.seconds),
        "shares": {
            names[shard]: {"before": round(before.get(shard, 0.0), 4), "after": round(after.get(shard, 0.0), 4)}
            for shard in sorted({*before, *after})
        },
        "indivisible": None if alone is None else {load_kind(load): alone[0], "share": round(alone[1], 4)},
    }


def show_load(found: Plan, load: MeasuredLoad) -> None:
    """For people."""
    out, change = stdout(), found.change
    names = [shard.name for shard in change.shards]
    before, after = load.shares(change.before), load.shares(change.after)
    rows = table("shard", "load now", "afterwards", title="measured load")
    for shard in sorted({*before, *after}):
        rows.add_row(Text(names[shard]), f"{before.get(shard, 0.0):.1%}", f"{after.get(shard, 0.0):.1%}")
    out.print()
    out.print(rows)
    proxies = "1 proxy" if load.proxies == 1 else f"{load.proxies} proxies"
    writes = load.writes / load.statements if load.statements else 0.0
    out.print(
        f"about {load.statements:,.0f} statements ({load.samples:,} sampled, {writes:.0%} writes) in "
        f"{load.seconds:,.0f} s, by {proxies}"
    )
    alone = load.indivisible(change.after, _weights(found))
    if alone is not None:
        what = f"{load_kind(load)} {alone[0]} alone has {alone[1]:.1%} of the load, and cannot be split"
        out.print(Text(what, "yellow"))


def load_kind(load: MeasuredLoad) -> str:
    """What a point of it is called."""
    return "bucket" if load.kind == "hash" else "key"


def _weights(found: Plan) -> dict[int, float]:
    shards = {shard.name: i for i, shard in enumerate(found.change.shards)}
    return {shards[name]: float(weight) for name, weight in found.change.weights.items()}
