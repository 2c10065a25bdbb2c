"""The same while rows are on their way: two shards have them, and no statement may show it, or touch the hidden ones.

SHARDPROXY_MOVING_STATEMENTS  how many statements are made for each kind of server and phase (default 500)
SHARDPROXY_SEED               which ones (default 3)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.topology.moves import Phase
from tests.differential import corpus, kept
from tests.differential.episodes import Episode, episode
from tests.differential.runs import run
from tests.differential.score import MOST_REFUSED, Score
from tests.differential.sides import Sides
from tests.differential.test_differential import shown
from tests.shown import show

STATEMENTS = int(os.environ.get("SHARDPROXY_MOVING_STATEMENTS", "500"))
SEED = os.environ.get("SHARDPROXY_SEED", "3")
MOST_FAILURES = 10


@pytest.fixture(scope="module", params=[Phase.COPYING, Phase.OPEN], ids=["target-hides", "source-hides"])
def moving(three_shards: LocalCluster, lone_server: LocalServer, request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Both sides, with rows of some keys on two shards."""
    made = Sides(three_shards, lone_server, request.param)
    yield made
    made.close()


def _runs(made: Episode) -> bool:
    """No schema changes: they are refused during a move, and TRUNCATE would empty the hidden rows too."""
    return not any(step.sql.lstrip().upper().startswith(("TRUNCATE", "CREATE", "ALTER", "DROP")) for step in made.steps)


def _wrong(sides: Sides, episodes: Iterator[Episode], statements: int = 0) -> tuple[Score, list[str]]:
    """What differs in the episodes, up to so many statements; 0: in all of them."""
    score = Score()
    wrong: list[str] = []
    for made in episodes:
        if not _runs(made):
            continue
        for verdict in run(sides, made):
            score.add(verdict)
            if verdict.mismatch:
                wrong.append(shown(made, verdict))
        if len(wrong) >= MOST_FAILURES or (statements and score.statements >= statements):
            break
    return score, wrong


def _report(sides: Sides, what: str, score: Score) -> None:
    show(f"{sides.cluster.flavor}, rows on their way, {what}:", *score.lines())


def test_corpus(moving: Sides) -> None:
    flavor = moving.cluster.flavor
    entries = [entry for path in corpus.files() for entry in corpus.entries(path) if entry.only in ("", flavor)]
    score, wrong = _wrong(moving, (entry.episode for entry in entries))
    _report(moving, "corpus", score)
    assert not wrong, "\n\n".join(wrong)


def test_kept_episodes(moving: Sides) -> None:
    _, wrong = _wrong(moving, (kept.read(path) for path in kept.files()))
    assert not wrong, "\n\n".join(wrong)


def test_generated_statements(moving: Sides) -> None:
    made = (episode(f"{SEED}/moving/{number}", moving.mariadb) for number in count(1))
    score, wrong = _wrong(moving, made, STATEMENTS)
    _report(moving, f"seed {SEED}", score)
    assert not wrong, "\n\n".join(wrong)
    assert score.refused_share <= MOST_REFUSED, "\n".join(score.lines())
