"""Making a failing episode as small as it can be, by dropping steps and parts of statements while it still fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.differential.episodes import Episode, step_of
from tests.differential.pieces import simplified, weight

Fails = Callable[[Episode], bool]


def shrink(episode: Episode, fails: Fails, most: int = 400) -> Episode:
    """The smallest episode found with at most `most` runs. `fails` says whether an episode's last step still fails."""
    budget = _Budget(fails, most)
    episode = _fewer_steps(episode, budget)
    if budget.fails(plain := replace(episode, found_rows=False, old_eof=False)):
        episode = plain
    changed = True
    while changed and budget.left > 0:
        episode, changed = _simpler_step(episode, budget)
    return episode


class _Budget:
    def __init__(self, fails: Fails, most: int) -> None:
        self._fails = fails
        self.left = most

    def fails(self, episode: Episode) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        return self._fails(episode)


def _fewer_steps(episode: Episode, budget: _Budget) -> Episode:
    last = episode.steps[-1]
    alone = replace(episode, steps=(last,))
    if budget.fails(alone):
        return alone
    i = 0
    while i < len(episode.steps) - 1:
        fewer = replace(episode, steps=(*episode.steps[:i], *episode.steps[i + 1 :]))
        if budget.fails(fewer):
            episode = fewer
        else:
            i += 1
    return episode


def _simpler_step(episode: Episode, budget: _Budget) -> tuple[Episode, bool]:
    """One simplification of any step that still fails."""
    for i in reversed(range(len(episode.steps))):
        step = episode.steps[i]
        if step.prepared and not step.parameters:
            plain = replace(step, prepared=False, again=False)
            simpler = _with(episode, i, plain)
            if budget.fails(simpler):
                return simpler, True
        if step.again or step.long_data:
            simpler = _with(episode, i, replace(step, again=False, long_data=False))
            if budget.fails(simpler):
                return simpler, True
        if step.tree is None:
            continue
        size = weight(step.tree)
        for tree in simplified(step.tree):
            if weight(tree) < size:
                simpler = _with(episode, i, step_of(step, tree))
                if budget.fails(simpler):
                    return simpler, True
    return episode, False


def _with(episode: Episode, index: int, step: object) -> Episode:
    steps = list(episode.steps)
    steps[index] = step  # type: ignore[call-overload]
    return replace(episode, steps=tuple(steps))
