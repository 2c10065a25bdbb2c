"""Seconds of which the hypervisor took a part."""

from __future__ import annotations

from bench.rig.stolen import Seconds, read_stat

STAT = "cpu  1611478 515 291325 2836445 8177 0 64761 28849 7 9\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"


def test_stolen_ticks_are_the_eighth_and_guests_are_in_others() -> None:
    assert read_stat(STAT) == (28849, 1611478 + 515 + 291325 + 2836445 + 8177 + 64761 + 28849)
    stolen, everything = read_stat()
    assert 0 <= stolen <= everything


def test_a_second_is_stolen_when_more_than_a_hundredth_is() -> None:
    said = iter([(5, 1000), (5, 1200), (7, 1400), (10, 1600), (10, 1800)])
    seconds = Seconds(lambda: next(said))
    for _ in range(4):
        seconds.tick()
    assert (seconds.now, seconds.stolen) == (4, {2})
