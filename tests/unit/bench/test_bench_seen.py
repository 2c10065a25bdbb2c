"""What an application saw of a move, and the figures made of it."""

from __future__ import annotations

import pytest

from bench.rig.measured import FAILED
from bench.rig.seen import BESIDE, READS, STILL, UPDATES, Seen, copy_beside, whole_copy


def seen(*parts: tuple[str, float, float], calm: int = 1000) -> Seen:
    """Of each part its name and the p99 of updates and reads; calm: statements in seconds without stolen CPU."""
    made = [[name, *([[p99] * n for n in (1000, calm) for p99 in (update, read)])] for name, update, read in parts]
    return Seen({"errors": [], "acknowledged": 0, "parts": made})


def test_rounds_are_told_by_the_median_of_their_ratios() -> None:
    """A machine that is slow now and then is so in rounds without copying too."""
    found = seen(
        ("warming up", 50, 50), (STILL, 1, 1), ("begin", 9, 9), (BESIDE, 2, 1), (STILL, 8, 2), (BESIDE, 4, 5),
        (STILL, 2, 4), (BESIDE, 90, 6),
    )  # fmt: skip
    updates, reads = (copy_beside(found, "x", index, calm=False) for index in (UPDATES, READS))
    assert (updates.value, reads.value) == (2.0, 1.5)
    assert (updates.needed, updates.met, reads.met) == (2.0, True, True)
    assert updates.detail == {
        "rounds": 3, "least": 0.5, "most": 45, "before_ms": 2, "before_least_ms": 1, "before_most_ms": 8,
        "copying_ms": 4, "copying_least_ms": 2, "copying_most_ms": 90,
    }  # fmt: skip


def test_more_than_twice_is_not_met() -> None:
    found = seen((STILL, 1, 1), (BESIDE, 2.1, 2))
    assert [copy_beside(found, "x", index, calm=False).met for index in (UPDATES, READS)] == [False, True]


@pytest.mark.parametrize(("calm", "met"), [(999, False), (1000, True)])
def test_a_round_without_enough_statements_does_not_count(calm: int, met: bool) -> None:
    figure = copy_beside(seen((STILL, 1, 1), (BESIDE, 1, 1), calm=calm), "x", UPDATES, calm=True)
    assert figure.met is met
    assert (figure.state == FAILED) is not met


def test_the_whole_copy_is_only_shown() -> None:
    figure = whole_copy(seen(("before", 1, 1), ("copy", 3, 3), ("after", 4, 4), ("rest", 1, 1)), "x", READS, calm=True)
    assert (figure.value, figure.needed, figure.met) == (3.0, None, None)
    assert figure.detail["after_ms"] == 4
