"""The open corpus on both sides; collected only where it is present.

SHARDPROXY_OPEN_FILES  runs every N-th file of the suite (default 6, 1 for all)
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from tests.differential import open_corpus
from tests.differential.open_sides import OpenSides
from tests.differential.score import MOST_REFUSED_OPEN, Score
from tests.shown import show

EVERY = int(os.environ.get("SHARDPROXY_OPEN_FILES", "6"))


@pytest.fixture(scope="module")
def open_sides(three_shards: LocalCluster, lone_server: LocalServer) -> Iterator[OpenSides]:
    made = OpenSides(three_shards, lone_server)
    yield made
    made.close()


def test_open_corpus(open_sides: OpenSides) -> None:
    score = Score()
    wrong: list[str] = []
    for name, statements in list(open_corpus.statements().items())[::EVERY]:
        for statement, verdict in open_sides.run(statements):
            score.add(verdict)
            if verdict.mismatch:
                wrong.append(
                    f"{name}:{statement.line}: {statement.step.sql[:600]}\n{verdict.mismatch}:\n{verdict.details}"
                )
    show(f"{open_sides.flavor}, open corpus:", *score.lines())
    assert score.refused_share <= MOST_REFUSED_OPEN, "\n".join(score.lines())
    assert not wrong, f"{len(wrong)} statements\n\n" + "\n\n".join(wrong)
