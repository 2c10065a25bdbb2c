"""Twenty loops of the torture of moves leave nothing out, on either kind of servers."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from shardproxy.topology.stages import TRANSITIONS, Stage
from tests.torture.deal import ACROSS, BACK, FORTH, NEMESES, READMISSION, THAWED, Hand, around, dealt
from tests.torture.test_moves import ACTS, KINDS, SERVERS

LOOPS = 20
STEPS = {f"{stage.value} {step.value}" for stage, step in TRANSITIONS}
PLACES = {*around({*STEPS, "begin", "claim", "eviction"}), *READMISSION}


def hands(flavor: str, seed: int) -> list[Hand]:
    """What the loops on one kind of servers have."""
    dice = random.Random(seed)
    return [dealt(n // SERVERS, dice) for n in range(LOOPS) if KINDS[n % len(KINDS)][0] == flavor]


def has_all(wanted: set[str], found: Callable[[Hand], set[str]]) -> None:
    for flavor in {flavor for flavor, _ in KINDS}:
        for seed in range(20):
            left = wanted - set().union(*map(found, hands(flavor, seed)))
            assert not left, f"{flavor}, seed {seed}: never {sorted(left)}"


def test_the_orchestrator_is_killed_before_and_after_all_that_it_stores() -> None:
    has_all(PLACES, lambda hand: {place for luck in hand.lucks for place in luck.kills})


def test_every_nemesis_strikes_in_every_loop() -> None:
    for hand in hands("mariadb", 1):
        struck = {kind for luck in hand.lucks for kinds in luck.strikes.values() for kind in kinds}
        assert struck >= {*NEMESES, THAWED}


def test_a_proxy_misses_the_switch_in_every_way() -> None:
    ways = {" ".join(way) for way in ACROSS}
    assert len(ways) == 4
    has_all(ways, across)


def across(hand: Hand) -> set[str]:
    """How long which proxy is stopped across the switch, in a run that is killed nowhere in between."""
    strikes = hand.forth.strikes
    [until] = [place for place, kinds in strikes.items() if THAWED in kinds]
    assert not {"before closing next", "after closing next", "before switched next"} & set(hand.forth.kills)
    return {f"{kind} {until}" for kind in strikes["before closing next"]}


def test_every_kind_of_servers_has_every_store() -> None:
    assert {KINDS[n % len(KINDS)] for n in range(LOOPS)} == {
        (flavor, store) for flavor in ("mariadb", "mysql") for store in ("embedded", "etcd")
    }
    assert {"table changed", "binlogs purged"} < set(ACTS)


@pytest.mark.parametrize("turn", range(10))
def test_the_places_of_a_move_are_on_its_way(turn: int) -> None:
    """Each kill comes: its stage is passed, or somebody was killed there who held writes."""
    hand = dealt(turn, random.Random(turn))
    for luck, stages in ((hand.there, FORTH), (hand.forth, FORTH), (hand.back, BACK)):
        for place in luck.kills:
            words = place.split()
            if words[2:] == ["time-out"]:
                before = next(a for a, b in pairwise(stages) if b == words[1])
                assert f"after {before} next" in luck.kills
            elif words[2:] == ["next"]:
                assert words[1] in stages
    given_up = {place.split()[1] for place in hand.cancelled.kills if place.endswith("cancel")}
    assert len(given_up) == 1
    assert given_up < {stage.value for stage in Stage}
