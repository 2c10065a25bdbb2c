"""Which hits are compared."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from shardproxy.cache.patterns import CacheSettings
from shardproxy.cache.sampler import Sampler

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
