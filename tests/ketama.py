"""Rings by ketama whose nodes are called by the names by which twemproxy knows them."""

from __future__ import annotations

from collections.abc import Mapping

from shardproxy.topology.ketama import Continuum, Server, cuts_of, owners_of
from shardproxy.topology.redis_ring import KetamaRing


def continuum(weights: Mapping[str, int]) -> Continuum:
    return Continuum(servers=tuple([Server(name, name, weight) for name, weight in weights.items()]))


def ketama_ring(weights: Mapping[str, int], tag: bytes = b"") -> KetamaRing:
    """The place of a node is that in `weights`."""
    one = continuum(weights)
    cuts, order = cuts_of([one]), {name: n for n, name in enumerate(weights)}
    return KetamaRing(cuts, [order[name] for name in owners_of(one, cuts)], tag)
