"""The map of the Redis port as commands show it."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from shardproxy.cli.terminal import stdout, table
from shardproxy.topology.keys import BUCKETS


def show(shown: dict[str, Any]) -> None:
    """The map for people."""
    out = stdout()
    rows = table("node", "buckets", "share")
    for name, count in shown["buckets"].items():
        rows.add_row(Text(name), str(count), f"{count / BUCKETS:.1%}")
    out.print(rows)
    if move := shown["move"]:
        what = f"move {move['id']}: {move['buckets']} buckets {move['source']} → {move['target']}, {move['phase']}"
        out.print(Text(what, "yellow"))
    if shown["left"]:
        out.print(Text(f"{shown['left']} buckets are not where they shall be: `resume` goes on", "yellow"))
    for name, address in shown["addresses"].items():
        out.print(Text(f"{name} was promoted: it is at {address}, whatever the file says", "yellow"))
    if shown["problem"]:
        out.print(Text(shown["problem"], "bold red"))
