"""Our own statements by feature: both sides agree, or the proxy refuses; and servers take what we have written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential import corpus
from tests.differential.runs import EQUAL, MISMATCH, REFUSED, run
from tests.differential.score import MOST_REFUSED, Score
from tests.differential.sides import Sides
from tests.differential.test_differential import shown
from tests.shown import show


@pytest.fixture(scope="module")
def score(sides: Sides) -> Iterator[Score]:
    """Counts over all files; shown at the end."""
    made = Score()
    yield made
    show(f"{sides.cluster.flavor}, corpus:", *made.lines())
    assert made.refused_share <= MOST_REFUSED


@pytest.mark.parametrize("path", corpus.files(), ids=lambda path: path.stem)
def test_corpus(sides: Sides, score: Score, path: Path) -> None:
    wrong: list[str] = []
    for entry in corpus.entries(path):
        if entry.only not in ("", sides.cluster.flavor):
            continue
        verdicts = run(sides, entry.episode)
        for verdict in verdicts:
            score.add(verdict)
            if verdict.mismatch:
                wrong.append(shown(entry.episode, verdict))
        single = len({verdict.step.sql for verdict in verdicts}) == 1
        taken = all(verdict.kind in (EQUAL, REFUSED, MISMATCH) for verdict in verdicts)
        if single and taken == entry.error:
            does = "takes" if taken else "refuses"
            wrong.append(f"{path.name}:{entry.line}: {sides.cluster.flavor} {does} {verdicts[0].step.sql}")
    assert not wrong, "\n\n".join(wrong)
