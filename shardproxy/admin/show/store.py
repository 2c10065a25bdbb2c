"""The map store in `shardctl status`: what this proxy knows of it.

{"kind": "embedded", "up": true, "problem": "", "identity": "5f0c…",
 "maps": [{"keyspace": "shop", "epoch": 7, "acknowledged": 7,
           "move": {"id": 1, "stage": "copying", "streams": [{"source": "a", "target": "b"}]}}]}

`problem`: why the store does not answer, or why its newest maps cannot be served by. `epoch` is of the map that is
served by; `acknowledged` is behind it while something planned under an older one is in flight. `move` may be null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardproxy.topology.map_document import MapDocument, Move


def store_json(
    kind: str,
    up: bool,
    problem: str,
    identity: str,
    documents: Mapping[str, MapDocument],
    acknowledged: Mapping[str, int],
) -> dict[str, Any]:
    """As in the module's docstring. acknowledged: keyspace → epoch."""
    return {
        "kind": kind,
        "up": up,
        "problem": problem,
        "identity": identity,
        "maps": [
            {
                "keyspace": name,
                "epoch": document.epoch,
                "acknowledged": acknowledged.get(name, 0),
                "move": move_json(document.move),
            }
            for name, document in sorted(documents.items())
        ],
    }


def move_json(move: Move | None) -> dict[str, Any] | None:
    """A move under way."""
    if move is None:
        return None
    streams = [{"source": stream.source, "target": stream.target} for stream in move.streams]
    return {"id": move.id, "stage": move.stage.value, "streams": streams}
