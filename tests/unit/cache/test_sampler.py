"""Which hits are compared, and what is said of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from shardproxy.cache.entries import INVALIDATE
from shardproxy.cache.patterns import CacheSettings
from shardproxy.cache.sampler import MOST, Sampler
from shardproxy.errors import BackendError

SETTINGS = CacheSettings((), 1.0, 1.0, 1.0, 1.0, "")


class Place:
    class rows:
        name = "users"


def taken(share: float, count: int) -> list[int]:
    """The numbers of the hits that are taken of so many."""
    unused: Any = None
    some: Any = Place()
    sampler = Sampler(replace(SETTINGS, sample=share), unused, unused, lambda work: work.close())
    found = []
    for number in range(1, count + 1):
        if number == sampler.next:
            found.append(number)
            sampler.hit(number, some, b"")
    return found


def test_none_and_all() -> None:
    assert taken(0.0, 1000) == []
    assert taken(1.0, 1000) == list(range(1, 1001))


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_about_as_many_as_told_and_in_no_rhythm(share: float) -> None:
    found = taken(share, 100_000)
    assert abs(len(found) / 100_000 - share) < 0.1 * share + 0.002
    assert len({b - a for a, b in pairwise(found)}) > 5


def test_proxies_may_differ_in_the_share() -> None:
    assert replace(SETTINGS, sample=0.5).digest == SETTINGS.digest


Given = tuple[bool, bytes | None]


class World:
    """What the primary and the cache say, one after the other, the last for ever; an exception is raised."""

    def __init__(self, loads: Sequence[bytes | Exception | None], given: Sequence[Given]) -> None:
        self._loads = list(loads)
        self._given = list(given)
        self.scripts: list[object] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.sampler = Sampler(replace(SETTINGS, bound=0.05, sample=1.0), self.load, self.give, self.later)

    async def load(self, place: Any) -> bytes | None:
        found = self._loads.pop(0) if len(self._loads) > 1 else self._loads[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def give(self, place: Any) -> Given:
        return self._given.pop(0) if len(self._given) > 1 else self._given[0]

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def run_script(self, script: object, *_: object) -> None:
        self.scripts.append(script)


def judged(world: World, hits: int = 1) -> dict[str, int]:
    """Outcomes of so many hits of the row `old` at once."""

    class There(Place):
        node = world
        entry = b"e"

    async def run() -> None:
        place: Any = There()
        for number in range(1, hits + 1):
            world.sampler.hit(number, place, b"old")
        await asyncio.gather(*world.tasks)

    asyncio.run(run())
    return {outcome: count for (_, outcome), count in world.sampler.counts.items()}


GIVES_OLD = [(True, b"old")]


@pytest.mark.parametrize(
    ("loads", "given", "outcome"),
    [
        ([b"old"], GIVES_OLD, "same"),
        ([b"new"], [(True, b"new")], "differs"),
        ([b"new"], [(True, b"old"), (False, b"old")], "differs"),  # it is not believed any more
        ([b"new"], [(True, b"old"), (True, None)], "differs"),
        ([None], GIVES_OLD, "beyond bound"),
        ([b"new", b"old"], GIVES_OLD, "unknown"),  # it was written back meanwhile
        ([BackendError("away")], GIVES_OLD, "unknown"),
        ([b"new", BackendError("away")], GIVES_OLD, "unknown"),
    ],
)
def test_outcomes(loads: Sequence[bytes | Exception | None], given: Sequence[Given], outcome: str) -> None:
    world = World(loads, given)
    assert judged(world) == {outcome: 1}
    ages = world.sampler.ages.get("users", [])
    if outcome == "beyond bound":
        assert len(ages) == 1 and 0.05 < ages[0] < 5
        assert world.scripts == [INVALIDATE]
    else:
        assert len(ages) == (outcome != "unknown") and all(0 <= age <= 0.05 for age in ages)
        assert not world.scripts


def test_no_more_than_a_few_at_once() -> None:
    world = World([b"old"], GIVES_OLD)
    assert judged(world, MOST + 3) == {"same": MOST, "skipped": 3}
    world.tasks.clear()
    assert judged(world, MOST) == {"same": 2 * MOST, "skipped": 3}
