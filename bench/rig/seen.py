"""What an application saw of a move, and what is to be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from bench.rig.measured import FAILED, Figure

_PAUSE_NEEDED, _LONGEST_PAUSE_NEEDED = 100.0, 250.0  # ms
_READ_NEEDED = 50.0  # ms; a read that waited for a switch would wait as long as a write
_LATENCY_NEEDED = 2.0  # × the p99 before
_TELLS = 1000  # statements of which a p99 says something
STILL, BESIDE = "still", "beside"  # parts of a round: without a move, and while it copies
UPDATES, READS = 0, 1  # places of their times in each part


class Seen:
    """What the application saw: milliseconds, by part of the time."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.errors: list[str] = found["errors"]
        self.acknowledged: int = found["acknowledged"]
        self._parts: list[tuple[str, list[list[float]]]] = [(name, kinds) for name, *kinds in found["parts"]]

    def p99(self, name: str, kind: int, calm: bool = False) -> float:
        """kind: UPDATES or READS; calm: only of seconds without stolen CPU. 0.0 when there is nothing."""
        return _p99(sorted(self._times(name, kind, calm)))

    def count(self, name: str, kind: int, calm: bool = False) -> int:
        """How many there were."""
        return len(self._times(name, kind, calm))

    def each(self, name: str, kind: int, calm: bool = False) -> list[list[float]]:
        """The times of each part of this name, in the parts' order."""
        return [kinds[kind + 2 * calm] for part, kinds in self._parts if part == name]

    def _times(self, name: str, kind: int, calm: bool) -> list[float]:
        return [ms for times in self.each(name, kind, calm) for ms in times]

    def longest(self, name: str, kind: int) -> list[float]:
        """Of each part of this name."""
        return [kinds[kind][-1] for part, kinds in self._parts if part == name and kinds[kind]]


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else sum(values)


def switch_figures(
    seen: Seen, kind: str, held: Sequence[float], took: dict[str, list[float]], given_up: int
) -> list[Figure]:
    """held: ms for which each switch held writes; took: of its stages."""
    pauses, reads = seen.longest("switch", UPDATES), seen.longest("switch", READS)
    detail = {"switches": float(len(pauses)), "median_ms": median(pauses), "held_median_ms": median(held)}
    detail |= {"held_longest_ms": max(held), "given_up": float(given_up)}
    detail |= {stage: median(times) for stage, times in took.items()}
    detail["first_ms"] = pauses[0]  # the only one at which a new shard may still have no connections
    between = {"longest_between_ms": max(seen.longest("between", READS)), "median_ms": median(reads)}
    between["first_ms"] = reads[0]
    write, read = (f"longest {what} of a switch, {kind}" for what in ("write", "read"))
    return [
        Figure(f"{write}, p99", "ms", _p99(sorted(pauses)), _PAUSE_NEEDED, detail=detail),
        Figure(f"{write}, longest", "ms", max(pauses), _LONGEST_PAUSE_NEEDED, detail=detail),
        Figure(f"{read}, p99", "ms", _p99(sorted(reads)), _READ_NEEDED, detail=between),
        Figure(f"{read}, longest", "ms", max(reads), detail=between),
    ]


def compare_figures(seen: Seen, kind: str) -> list[Figure]:
    """What comparing both sides before each switch did."""
    found = (("write", seen.longest("compare", UPDATES)), ("read", seen.longest("compare", READS)))
    return [
        Figure(
            f"longest {what} while comparing, {kind}, p99", "ms", _p99(sorted(times)),
            detail={"longest_ms": max(times), "median_ms": median(times)},
        )
        for what, times in found
    ]  # fmt: skip


def copy_beside(seen: Seen, kind: str, index: int, calm: bool) -> Figure:
    """What copying does to the application: of each round the p99 while rows were copied over that of just before, and
    the median of the rounds. A machine that others use too changes within a minute by more than copying changes it, so
    the two must alternate, quickly and often.

    calm: only by the seconds in which the machine had all its CPU, and the rounds that have enough of them.
    """
    name = f"p99 of {kind} while copying{', no CPU stolen' if calm else ''}"
    pairs = [
        (_p99(sorted(still)), _p99(sorted(beside)))
        for still, beside in zip(seen.each(STILL, index, calm), seen.each(BESIDE, index, calm), strict=True)
        if min(len(still), len(beside)) >= _TELLS
    ]
    if not pairs:
        return Figure(name, "× before", None, _LATENCY_NEEDED, state=FAILED, note="no round has enough statements")
    ratios = sorted(copying / before for before, copying in pairs)
    detail = {"rounds": float(len(pairs)), "least": ratios[0], "most": ratios[-1]}
    for part, p99s in zip(("before", "copying"), zip(*pairs, strict=True), strict=True):
        detail |= {f"{part}_ms": median(p99s), f"{part}_least_ms": min(p99s), f"{part}_most_ms": max(p99s)}
    return Figure(name, "× before", median(ratios), _LATENCY_NEEDED, detail=detail)


def whole_copy(seen: Seen, kind: str, index: int, calm: bool) -> Figure:
    """The p99 of a whole copy over that of the time before it. What the machine did in these many minutes is in it as
    much as what copying does, see `copy_beside`: a figure to be looked at, of which nothing is asked. calm: as there.
    """
    name = f"p99 of {kind} in the whole copy{', no CPU stolen' if calm else ''}"
    detail = {f"{part}_ms": seen.p99(part, index, calm) for part in ("before", "copy", "after", "rest")}
    if not detail["before_ms"] or not detail["copy_ms"]:
        return Figure(name, "× before", state=FAILED, note="CPU was stolen in every second")
    detail["share"] = seen.count("copy", index, calm) / seen.count("copy", index)
    return Figure(name, "× before", detail["copy_ms"] / detail["before_ms"], detail=detail)
