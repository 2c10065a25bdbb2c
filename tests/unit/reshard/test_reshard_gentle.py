"""The rate of copying beside an application, and what the copier makes of it."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.reshard.gentle import AGAIN, CALM, FIRST, LEAST, PATIENCE, Gentle, high
from shardproxy.reshard.throttle import Throttle, ThrottleLimits

USUAL, LATE = 0.001, 0.01
TRAFFIC = 1000.0


def taught() -> Gentle:
    """One that has found an application, and knows what is usual."""
    gentle = Gentle()
    gentle.heard({}, TRAFFIC, 0.3, 0.0)
    gentle.heard({"a": [USUAL] * CALM, "b": [USUAL] * CALM}, TRAFFIC, 1.0, 1.0)
    assert not gentle.learning
    return gentle


def step(gentle: Gentle, seconds: float, others: float = TRAFFIC, now: float = 2.0) -> None:
    """Copy as fast as allowed, and hear that every statement took so long."""
    gentle.copied(int(gentle.rate))
    gentle.heard({"a": [USUAL] * 100, "b": [seconds] * 100}, others, 1.0, now)


def test_beside_an_application_it_learns_before_anything_is_copied() -> None:
    gentle = Gentle()
    assert gentle.learning
    gentle.heard({"a": [LATE] * CALM, "b": [LATE] * CALM}, TRAFFIC, 0.3, 0.0)
    assert gentle.learning  # whatever ran until now
    gentle.heard({"a": [USUAL] * CALM, "b": [USUAL]}, TRAFFIC, 0.3, 1.0)
    assert gentle.learning  # of b too little is known
    gentle.heard({"b": [USUAL] * CALM}, TRAFFIC, 0.3, 2.0)
    assert not gentle.learning
    assert gentle.rate == FIRST
    step(gentle, LATE)
    assert gentle.rate < FIRST


def test_without_an_application_nothing_is_learnt_and_there_is_no_limit() -> None:
    gentle = Gentle()
    gentle.heard({}, 3.0, 0.3, 0.0)
    assert (gentle.rate, gentle.reason, gentle.learning) == (0.0, "", False)
    step(gentle, LATE, others=3.0, now=2 * AGAIN)
    assert (gentle.rate, gentle.learning) == (0.0, False)
    step(gentle, LATE, now=3 * AGAIN)
    assert gentle.learning  # an application has come
    step(gentle, LATE, others=3.0, now=3 * AGAIN + 1)
    assert (gentle.rate, gentle.learning) == (0.0, False)


def test_who_does_not_answer_does_not_hold_it_for_ever() -> None:
    gentle = Gentle()
    gentle.heard({}, TRAFFIC, 0.3, 0.0)
    gentle.heard({}, TRAFFIC, 1.0, PATIENCE)
    assert gentle.learning
    gentle.heard({}, TRAFFIC, 1.0, PATIENCE + 1)
    assert (gentle.rate, gentle.learning) == (FIRST, False)


def test_where_servers_are_late_it_goes_slower_but_it_goes() -> None:
    gentle = taught()
    step(gentle, LATE)
    assert LEAST < gentle.rate < FIRST
    assert gentle.reason == "b answers in 10.0 ms, in 1.0 ms without copying"
    for _ in range(50):
        step(gentle, LATE)
    assert gentle.rate == LEAST
    for _ in range(20):
        step(gentle, USUAL)
    assert gentle.rate > 2 * LEAST
    assert gentle.reason == ""


def test_half_as_long_again_is_not_late_and_twice_as_long_is() -> None:
    gentle = taught()
    step(gentle, 1.5 * USUAL)
    assert gentle.rate > FIRST
    step(gentle, 2 * USUAL)
    assert gentle.rate < FIRST


def test_the_quietest_second_tells_what_is_usual() -> None:
    gentle = Gentle()
    gentle.heard({}, TRAFFIC, 0.3, 0.0)
    for now, seconds in enumerate((LATE, USUAL, LATE), 1):
        assert gentle.learning
        gentle.heard({"b": [seconds] * (CALM // 3)}, TRAFFIC, 1.0, float(now))
    assert not gentle.learning
    step(gentle, 0.9 * LATE)
    assert gentle.reason == "b answers in 9.0 ms, in 1.0 ms without copying"


def test_where_seconds_have_few_answers_all_of_them_tell_what_is_usual() -> None:
    gentle = Gentle()
    gentle.heard({}, TRAFFIC, 0.3, 0.0)
    now = 0
    while gentle.learning:
        now += 1
        gentle.heard({"b": [USUAL, LATE]}, TRAFFIC, 1.0, float(now))
    assert now == PATIENCE + 1
    step(gentle, 1.5 * LATE)
    assert gentle.rate > FIRST


def test_five_late_answers_of_a_hundred_are_not_late() -> None:
    gentle = taught()
    gentle.copied(int(FIRST))
    gentle.heard({"a": [*([USUAL] * 95), *([LATE] * 5)]}, TRAFFIC, 1.0, 2.0)
    assert gentle.rate > FIRST
    gentle.heard({"a": [*([USUAL] * 94), *([LATE] * 6)]}, TRAFFIC, 1.0, 2.0)
    assert gentle.rate < FIRST


def test_high_is_the_95th_of_a_hundred() -> None:
    assert high([float(i) for i in range(100, 0, -1)]) == 95.0
    assert high([1.0, 3.0, 2.0]) == 3.0
    assert high([]) == 0.0


def test_a_rate_that_is_not_used_does_not_grow() -> None:
    gentle = taught()
    for _ in range(20):
        gentle.copied(10)  # the source has no more rows a second
        gentle.heard({"a": [USUAL] * 10}, TRAFFIC, 1.0, 2.0)
    assert gentle.rate == FIRST


def test_what_is_usual_is_learnt_anew() -> None:
    gentle = taught()
    step(gentle, LATE)
    step(gentle, LATE, now=2.0 + AGAIN)
    assert gentle.learning
    gentle.heard({"a": [LATE] * CALM, "b": [LATE] * CALM}, TRAFFIC, 1.0, 3.0 + AGAIN)
    assert not gentle.learning
    rate = gentle.rate
    step(gentle, LATE, now=4.0 + AGAIN)
    assert gentle.rate > rate


@given(st.lists(st.floats(0, 10), max_size=30), st.floats(0, 1e6))
def test_the_rate_is_never_less_than_the_least(times: list[float], others: float) -> None:
    gentle = taught()
    for now in range(2, 10):
        gentle.heard({"a": times}, others, 1.0, float(now))
        assert gentle.rate == 0 or gentle.rate >= LEAST


def test_the_operators_rate_is_the_upper_limit() -> None:
    throttle = Throttle(ThrottleLimits(rate=1500))
    assert throttle.rate == 1500
    throttle.gentle = taught()
    assert throttle.rate == 1500
    for _ in range(50):
        step(throttle.gentle, LATE)
    assert throttle.rate == LEAST
    throttle.limits = ThrottleLimits()
    assert throttle.rate == LEAST


def test_a_transaction_is_as_small_as_the_rate_but_not_smaller_than_is_worth_it() -> None:
    assert Throttle(ThrottleLimits()).at_once == 0
    sizes = {rate: Throttle(ThrottleLimits(rate=rate)).at_once for rate in (1, 100, 200, 1000, 4000, 20000, 90000)}
    assert sizes == {1: 20, 100: 50, 200: 100, 1000: 500, 4000: 500, 20000: 500, 90000: 900}


def test_rows_are_not_read_ahead_while_it_learns() -> None:
    throttle = Throttle(ThrottleLimits())
    throttle.gentle = gentle = Gentle()
    assert throttle.at_once == 500
    gentle.heard({}, 0.0, 0.3, 1.0)
    assert throttle.at_once == 0


def test_nothing_is_written_while_it_learns() -> None:
    throttle = Throttle(ThrottleLimits())
    throttle.gentle = gentle = Gentle()

    async def run() -> None:
        waiting = asyncio.create_task(throttle.wait(10))
        await asyncio.sleep(0)
        assert not waiting.done()
        gentle.heard({}, 0.0, 0.3, 1.0)
        await waiting

    asyncio.run(run())
