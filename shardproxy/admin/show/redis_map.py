"""The map of the Redis port, in `shardctl topology` and `shardctl rebalance redis status`.

{"epoch": 7, "buckets": {"a": 2048, "b": 2048}, "left": 0, "move": null, "problem": "",
 "addresses": {"a": "10.0.0.2:6379"}}

left: buckets that are not where they shall be. move: {"id": 1, "phase": "moving", "source": "a", "target": "b",
"buckets": 256}. addresses: of nodes whose replica was promoted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from shardproxy.topology.redis_map import RedisMap


def redis_json(document: RedisMap) -> dict[str, Any]:
    """As in the module's docstring."""
    move = document.move
    return {
        "epoch": document.epoch,
        "buckets": dict(sorted(Counter(document.map.owners).items())),
        "left": 0 if document.wanted is None else sum(n for _, _, n in changes(document, document.wanted.owners)),
        "move": None
        if move is None
        else {
            "id": move.id,
            "phase": move.phase.value,
            "source": move.source,
            "target": move.target,
            "buckets": len(move.numbers),
        },
        "problem": document.problem,
        "addresses": dict(sorted(document.addresses.items())),
    }


def changes(document: RedisMap, owners: Sequence[str]) -> list[tuple[str, str, int]]:
    """What differs from these owners: (source, target, how many buckets)."""
    pairs = Counter((a, b) for a, b in zip(document.map.owners, owners, strict=True) if a != b)
    return [(source, target, count) for (source, target), count in sorted(pairs.items())]
