"""Both sides must agree, or the proxy must say that it does not answer.

SHARDPROXY_STATEMENTS  how many statements are made for each kind of server (default 10000)
SHARDPROXY_SEED        which ones (default 1)
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from shardproxy.errors import RemoteProtocolError
from tests.differential import kept
from tests.differential.episodes import Episode, episode
from tests.differential.rungs import Rungs
from tests.differential.runs import Verdict, run
from tests.differential.score import MOST_REFUSED, Score
from tests.differential.shrink import shrink
from tests.differential.sides import Sides
from tests.shown import show
from tests.wire import Closed

STATEMENTS = int(os.environ.get("SHARDPROXY_STATEMENTS", "10000"))
SEED = os.environ.get("SHARDPROXY_SEED", "1")
MOST_FAILURES = 10
LOOKED_UP = 12  # every so many episodes one is about lookup indexes


@pytest.mark.parametrize("path", kept.files(), ids=lambda path: path.stem)
def test_kept_episodes(sides: Sides, path: Path) -> None:
    wrong = _mismatch(run(sides, kept.read(path)))
    assert wrong is None, shown(kept.read(path), wrong)


def test_generated_statements(sides: Sides, capsys: pytest.CaptureFixture[str]) -> None:
    score = Score()
    failures: dict[str, str] = {}  # kept file → what is wrong
    rungs = Rungs(sides.admin_port)
    number = 0
    while score.statements < STATEMENTS and len(failures) < MOST_FAILURES:
        number += 1
        made = episode(f"{SEED}/{number}", sides.mariadb, "uni" if number % LOOKED_UP == 0 else "")
        try:
            verdicts = run(sides, made, rungs.of)
        except Closed as closed:
            pytest.fail(f"a server broke off ({closed}); did it crash?\n{_text(made)}")
        except RemoteProtocolError as broken:
            pytest.fail(f"an answer that is none: {broken}\n{_text(made)}")
        for verdict in verdicts:
            score.add(verdict)
        if _mismatch(verdicts) is not None:
            name, shown = _report(sides, made, verdicts)
            failures[name] = shown
            with capsys.disabled():
                print(f"\n{name}\n{shown}", flush=True)
    rungs.close()
    show(f"{sides.cluster.flavor}, seed {SEED}, {number} episodes:", *score.lines())
    assert not failures, "\n\n".join(failures.values())
    assert score.refused_share <= MOST_REFUSED, "\n".join(score.lines())


def _mismatch(verdicts: list[Verdict]) -> Verdict | None:
    return next((v for v in verdicts if v.mismatch), None)


def _report(sides: Sides, made: Episode, verdicts: list[Verdict]) -> tuple[str, str]:
    """Shrinks a failing episode and keeps it: (file, what is wrong)."""
    wrong = _mismatch(verdicts)
    assert wrong is not None
    at = next(i for i, step in enumerate(made.steps) if step is wrong.step)
    failing = replace(made, steps=made.steps[: at + 1])
    small = shrink(failing, lambda e: (m := _mismatch(run(sides, e))) is not None and m.step is e.steps[-1])
    again = _mismatch(run(sides, small)) or wrong
    path = kept.write(small, f"{again.mismatch} ({sides.cluster.flavor})")
    return path.name, shown(small, again)


def shown(made: Episode, wrong: Verdict | None) -> str:
    """An episode and what is wrong with it."""
    assert wrong is not None
    return "\n".join([_text(made), f"differ in {wrong.mismatch}:", wrong.details])


def _text(made: Episode) -> str:
    lines = [
        f"USE {made.database}"
        + (" (client counts found rows)" if made.found_rows else "")
        + (" (client wants EOF packets)" if made.old_eof else "")
    ]
    for step in made.steps:
        bound = f"  -- prepared with {step.parameters!r}" if step.prepared else ""
        lines.append(f"{step.sql}{bound}" + (" [executed again]" if step.again else ""))
    return "\n".join(lines)
