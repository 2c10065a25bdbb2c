"""The score of a run: how many statements were equal, refused or wrong, by kind, and why they were refused."""

from __future__ import annotations

import re
from collections import Counter

from tests.differential.runs import EQUAL, REFUSED, Verdict

_VALUES = re.compile(r"'[^']*'|\b\d+\b|\([^()]*\)|`[^`]*`")


class Score:
    """Counts of verdicts. invalid: refused statements that the lone server does not accept either."""

    def __init__(self) -> None:
        self.kinds: dict[str, Counter[str]] = {}
        self.reasons: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, verdict: Verdict) -> None:
        label = verdict.step.label + (" (prepared)" if verdict.step.prepared else "")
        kind = verdict.kind
        if kind == REFUSED:
            if not verdict.reason:
                kind = "invalid"
            else:
                reason = _VALUES.sub("…", verdict.reason)[:110]
                self.reasons[reason] += 1
                self.examples.setdefault(reason, verdict.step.sql)
        self.kinds.setdefault(label, Counter())[kind] += 1

    def total(self, kind: str) -> int:
        return sum(counts[kind] for counts in self.kinds.values())

    @property
    def statements(self) -> int:
        return sum(counts.total() for counts in self.kinds.values())

    @property
    def equal_share(self) -> float:
        """Share of equal answers among valid statements."""
        valid = self.statements - self.total("invalid")
        return self.total(EQUAL) / valid if valid else 0.0

    def lines(self) -> list[str]:
        """A table for people."""
        head = ("equal", "refused", "invalid", "mismatch")
        lines = [f"{'':34}" + "".join(f"{name:>10}" for name in head)]
        lines += [
            f"{label:34}" + "".join(f"{self.kinds[label][name]:10}" for name in head) for label in sorted(self.kinds)
        ]
        lines.append(f"{'all':34}" + "".join(f"{self.total(name):10}" for name in head))
        lines.append("")
        for reason, count in self.reasons.most_common(40):
            lines.append(f"{count:6}  {reason}")
            lines.append(f"        {self.examples[reason]!r}")
        return lines
