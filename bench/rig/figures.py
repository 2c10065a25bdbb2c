"""From samples to figures: medians, ratios within a round, and whether they are what is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.rig.sysbench import Mode

# Needed: CPU per query of shardproxy over that of the peer.
BOUNDS = {"haproxy": 1.1, "mysqlrouter": 0.65}


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one peer. cpu_us is 0 for "direct": there is no proxy that could use any."""

    round: int
    peer: str
    mode: Mode
    clients: int
    qps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """shardproxy's CPU per query over a peer's: the median over rounds, and the extremes."""

    peer: str
    mode: Mode
    clients: int
    median: float
    low: float
    high: float

    @property
    def bound(self) -> float:
        return BOUNDS[self.peer]

    @property
    def met(self) -> bool:
        return self.median <= self.bound


def summary(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One object for each peer, mode and number of clients, in order of first appearance; medians over the rounds."""
    groups: dict[tuple[str, Mode, int], list[Sample]] = {}
    for s in samples:
        groups.setdefault((s.peer, s.mode, s.clients), []).append(s)
    return [
        {
            "peer": peer,
            "mode": mode,
            "clients": clients,
            "qps": round(median(s.qps for s in group), 1),
            "p50_ms": round(median(s.p50_ms for s in group), 3),
            "p95_ms": round(median(s.p95_ms for s in group), 3),
            "p99_ms": round(median(s.p99_ms for s in group), 3),
            "cpu_us_per_query": round(median(s.cpu_us for s in group), 3),
        }
        for (peer, mode, clients), group in groups.items()
    ]


def ratios(samples: Iterable[Sample]) -> list[Ratio]:
    """Ratios to every peer that has a bound, each round's runs with each other: what the machine does meanwhile
    (other load, clock speed) changes over rounds more than within one."""
    by_run = {(s.mode, s.clients, s.round, s.peer): s.cpu_us for s in samples}
    pairs: dict[tuple[Mode, int, str], list[float]] = {}
    for (mode, clients, number, peer), cpu_us in by_run.items():
        ours = by_run.get((mode, clients, number, "shardproxy"))
        if peer in BOUNDS and ours is not None:
            pairs.setdefault((mode, clients, peer), []).append(ours / cpu_us)
    return [
        Ratio(peer, mode, clients, median(found), min(found), max(found))
        for (mode, clients, peer), found in sorted(pairs.items(), key=lambda item: (item[0][2], item[0][0], item[0][1]))
    ]
