"""The consistent-hash ring: it decides which shard each bucket goes to; routing then reads the stored array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from uhashring import HashRing

from shardproxy.topology.keys import BUCKETS

# Ring points per unit of weight. Measured over 32 growths n → n+1 (n ≤ 8): with 160 points the new shard receives up to
# 1.18/(n+1) of the buckets, with 640 up to 1.10/(n+1). More points gain nothing: chance among 4096 buckets remains.
VNODES = 640


def place_buckets(weights: Mapping[str, int], order: Mapping[str, int]) -> tuple[int, ...]:
    """Bucket array from shard weights.

    weights: shard name → weight ≥ 1 (absent shards get nothing); order: shard name → shard index.
    Raises ValueError when there is no shard. Adding a shard moves only the buckets that it receives.
    """
    if not weights:
        raise ValueError("a ring needs at least one shard")
    return tuple(order[name] for name in _owners(tuple(sorted(weights.items()))))


@lru_cache(maxsize=32)
def _owners(weights: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """Each bucket's shard. Kept: a ring takes 20 ms, and who compares maps asks for the same few again and again."""
    ring = HashRing(nodes={name: {"weight": weight, "vnodes": VNODES} for name, weight in weights})
    return tuple(ring.get_node(f"bucket-{i}") for i in range(BUCKETS))


def likely_weights(buckets: Sequence[int], names: Mapping[int, str], first: Mapping[str, int]) -> dict[str, int]:
    """The weights of the ring that a stored array most likely came from.

    names: shard index → name, of all owners; first: the weights that the file gives, which are right until shards come,
    go or change their weight without the file being told. Of these and of weights as the owners' shares of the buckets
    have them, those whose ring agrees with the array most; buckets that were moved by hand hardly count.
    """
    order = {name: i for i, name in names.items()}
    counts = Counter(names[owner] for owner in buckets)
    candidates = [dict(first)] if first.keys() <= order.keys() and first else []
    candidates.append(dict.fromkeys(sorted(counts), 1))
    for parts in range(1, 6):  # of the smallest share, the others in proportion
        unit = min(counts.values()) / parts
        candidates.append({name: min(100, max(1, round(count / unit))) for name, count in sorted(counts.items())})
    best, most = candidates[0], -1
    for weights in candidates:
        agrees = sum(a == b for a, b in zip(place_buckets(weights, order), buckets, strict=True))
        if agrees > most:
            best, most = weights, agrees
        if agrees == BUCKETS:
            break
    return best
