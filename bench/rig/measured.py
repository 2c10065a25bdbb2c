"""One figure of a bench: what was measured, or why it was not, and whether it is what is needed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median, quantiles
from typing import Any

MEASURED, REFUSED, FAILED = "measured", "refused", "not measured"
_LISTED = re.compile(r" \(it would touch shards [^)]*\)")
_OWN_ERRORS = range(9100, 9200)  # numbers with which the proxy says that it does not answer


@dataclass(frozen=True, slots=True)
class Figure:
    """needed: the largest value that will do, the smallest where `at_least`; None when nothing is asked of it. value:
    None unless measured.

    state: "measured"; "refused": the proxy said that it does not answer; "not measured": something else, see `note`.
    detail: further numbers for the JSON file.
    """

    figure: str
    unit: str
    value: float | None = None
    needed: float | None = None
    shards: int | None = None
    state: str = MEASURED
    note: str = ""
    detail: Mapping[str, float] = field(default_factory=dict)
    at_least: bool = False

    def failed(self, code: int, text: str) -> Figure:
        """The same without value: the server answered with this error."""
        return replace(self, value=None, state=REFUSED if code in _OWN_ERRORS else FAILED, note=f"error {code}: {text}")

    @property
    def met(self) -> bool | None:
        """None when nothing is needed. What was not measured does not meet a need."""
        if self.needed is None:
            return None
        if self.value is None:
            return False
        return self.value >= self.needed if self.at_least else self.value <= self.needed

    def as_json(self) -> dict[str, Any]:
        """An object of the JSON file."""
        return {
            "figure": self.figure,
            "shards": self.shards,
            "value": None if self.value is None else round(self.value, 4),
            "unit": self.unit,
            "needed": self.needed,
            "met": self.met,
            "state": self.state,
            "note": self.note,
            **{name: round(value, 6) for name, value in self.detail.items()},
        }


def median_ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the quotients of pairs that were measured next to each other."""
    found = [a / b for a, b in pairs]
    return median(found), min(found), max(found)


def uncertainty(values: Sequence[float]) -> float:
    """By how much the median of these is likely to be off, as far as their spread tells: the distance of the quartiles
    over the root of how many there are. 0 for a single one: nothing is known."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / math.sqrt(len(values))


def notes(figures: Sequence[Figure]) -> list[str]:
    """What is to be said about figures, each thing once: after all that it holds for (figures, shards in parentheses).
    Shards that an error lists are left out."""
    found: dict[str, list[str]] = {}
    for f in figures:
        if f.note:
            found.setdefault(_LISTED.sub("", f.note), []).append(f"{f.figure} ({f.shards})" if f.shards else f.figure)
    return [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in found.items()]


def verdict(figures: Sequence[Figure]) -> str:
    """One line: how many needs are met, not met, and could not be looked at."""
    needs = [f for f in figures if f.needed is not None]
    met = sum(f.met is True for f in needs)
    open_ones = sum(f.value is None for f in needs)
    text = f"{met} of {len(needs)} needed figures are met"
    missed = len(needs) - met - open_ones
    if missed:
        text += f", {missed} NOT met"
    if open_ones:
        text += f", {open_ones} could not be measured"
    return text
