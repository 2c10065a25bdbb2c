"""The map of the Redis port, in `shardctl topology` and `shardctl rebalance redis status`.

{"epoch": 7, "placement": "ring", "buckets": {"a": 2048, "b": 2048}, "shares": {"a": 0.5, "b": 0.5}, "left": 0,
 "move": null, "problem": "", "addresses": {"a": "10.0.0.2:6379"}}

buckets: with placement "ketama", arcs of its circle; shares: of all hashes. left: buckets that are not where they shall
be. move: {"id": 1, "phase": "moving", "source": "a", "target": "b", "buckets": 256}. addresses: of nodes whose replica
was promoted. With "ketama" there is "servers" too: [[{"node": "a", "name": "10.0.0.1:6379", "weight": 1}]], in
twemproxy's order; while keys move those of before, and those of afterwards.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from shardproxy.topology.ketama import CIRCLE, lengths_of
from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.redis_map import Goal, RedisMap, spread


def redis_json(document: RedisMap) -> dict[str, Any]:
    """As in the module's docstring."""
    move, owners = document.move, document.map.owners
    shown: dict[str, Any] = {
        "epoch": document.epoch,
        "placement": document.placement,
        "buckets": dict(sorted(Counter(owners).items())),
        "shares": _shares(document),
        "left": 0
        if document.wanted is None
        else sum(a != b for a, b in zip(owners, document.wanted.owners, strict=True)),
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
    if document.ketama is not None:
        shown["servers"] = [[each._asdict() for each in one.servers] for one in document.ketama.continua]
    return shown


def _shares(document: RedisMap) -> dict[str, float]:
    owners = document.map.owners
    if document.ketama is None:
        return {name: count / BUCKETS for name, count in sorted(Counter(owners).items())}
    hashes: Counter[str] = Counter()
    for name, length in zip(owners, lengths_of(document.ketama.cuts), strict=True):
        hashes[name] += length
    return {name: count / CIRCLE for name, count in sorted(hashes.items())}


def changes(document: RedisMap, goal: Goal) -> list[tuple[str, str, int, float]]:
    """What would move: (source, target, how many buckets or arcs, their share of all). Raises MoveError for a goal of
    the other placement."""
    counts: Counter[tuple[str, str]] = Counter()
    shares: defaultdict[tuple[str, str], float] = defaultdict(float)
    for source, target, share in zip(*spread(document, goal), strict=True):
        if source != target:
            counts[source, target] += 1
            shares[source, target] += share
    return [(*pair, counts[pair], shares[pair]) for pair in sorted(counts)]
