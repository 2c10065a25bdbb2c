"""The score of a run: how many statements were equal, refused or wrong, by feature and rung; why they were refused."""

from __future__ import annotations

import re
from collections import Counter

from tests.differential.runs import EQUAL, KINDS, MISMATCH, REFUSED, Verdict

# The most clear errors among the statements that the lone server takes: of our own, and of the open corpus, whose suite
# tests a proxy with other keys and other statements about servers.
MOST_REFUSED = 0.01
MOST_REFUSED_OPEN = 0.03

_VALUES = re.compile(r"'[^']*'|\b\d+\b|\([^()]*\)|`[^`]*`")
_NAMES = re.compile(r"\b[a-z_]\w*\.[a-z_]\w*")


class Score:
    """Counts of verdicts, by the feature that a statement was made for."""

    def __init__(self) -> None:
        self.kinds: dict[str, Counter[str]] = {}
        self.rungs: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, verdict: Verdict) -> None:
        label = verdict.step.label + (" (prepared)" if verdict.step.prepared else "")
        if verdict.kind == REFUSED:
            reason = _NAMES.sub("…", _VALUES.sub("…", verdict.reason))[:110]
            self.reasons[reason] += 1
            shorter = min(self.examples.get(reason, verdict.step.sql), verdict.step.sql, key=len)
            self.examples[reason] = shorter
        if verdict.rung:
            self.rungs[verdict.rung] += 1
        self.kinds.setdefault(label, Counter())[verdict.kind] += 1

    def total(self, kind: str) -> int:
        return sum(counts[kind] for counts in self.kinds.values())

    @property
    def statements(self) -> int:
        return sum(counts.total() for counts in self.kinds.values())

    @property
    def refused_share(self) -> float:
        """Share of clear errors among what the lone server takes; 0.0 when that is nothing."""
        taken = self.total(EQUAL) + self.total(REFUSED) + self.total(MISMATCH)
        return self.total(REFUSED) / taken if taken else 0.0

    def lines(self, most: int = 40) -> list[str]:
        """A table for people, and the `most` frequent reasons of refusals with the shortest example of each."""
        lines = [f"{'':46}" + "".join(f"{name:>10}" for name in KINDS)]
        lines += [
            f"{label:46}" + "".join(f"{self.kinds[label][name]:10}" for name in KINDS) for label in sorted(self.kinds)
        ]
        lines.append(f"{'all':46}" + "".join(f"{self.total(name):10}" for name in KINDS))
        lines.append(f"clear errors: {self.refused_share:.2%} of what the lone server takes")
        asked = self.rungs.total()
        if asked:
            shares = (f"{name} {count / asked:.1%}" for name, count in sorted(self.rungs.items()))
            lines.append(f"equal answers by rung, of {asked} that were explained: " + ", ".join(shares))
        lines.append("")
        for reason, count in self.reasons.most_common(most):
            lines.append(f"{count:6}  {reason}")
            lines.append(f"        {self.examples[reason][:400]!r}")
        return lines
