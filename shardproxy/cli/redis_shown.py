"""The map of the Redis port as commands show it."""

from __future__ import annotations

from typing import Any, Final

from rich.text import Text

from shardproxy.cli.terminal import stdout, table

PARTS: Final = {"ring": "buckets", "ketama": "arcs"}  # what moves as a whole, by placement


def show(shown: dict[str, Any]) -> None:
    """The map for people."""
    out = stdout()
    what = PARTS[shown["placement"]]
    rows = table("node", what, "share")
    for name, count in shown["buckets"].items():
        rows.add_row(Text(name), str(count), f"{shown['shares'][name]:.1%}")
    out.print(rows)
    if move := shown["move"]:
        way = f"move {move['id']}: {move['buckets']} {what} {move['source']} → {move['target']}, {move['phase']}"
        out.print(Text(way, "yellow"))
    if shown["left"]:
        out.print(Text(f"{shown['left']} {what} are not where they shall be: `resume` goes on", "yellow"))
    for name, address in shown["addresses"].items():
        out.print(Text(f"{name} was promoted: it is at {address}, whatever the file says", "yellow"))
    if shown["problem"]:
        out.print(Text(shown["problem"], "bold red"))
