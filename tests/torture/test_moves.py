"""Moves of rows under everything that goes wrong: every acknowledged write is there once, on the shard that owns it.

One run has three proxies, four shards, an application (traffic.py), and some moves (acts.py), each with crashes of its
orchestrator and nemeses. A short form runs always, and has them at places that a seed chooses. `./dev test torture
--loops N` makes N long runs in its place, over both kinds of servers and map stores, from a seed of its own or
SHARDPROXY_SEED; 20 of them have all places and all nemeses on both kinds of servers (deal.py). A run that fails says
how to have it again; threads and processes are not driven by the seed, so it may take some tries.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial

import pytest

from shardproxy.local.flavors import FlavorName
from tests.proxy import eventually
from tests.torture.acts import Stage
from tests.torture.audit import audit, shown
from tests.torture.deal import Hand, dealt, drawn
from tests.torture.moving_scene import Scene, StoreKind, scene
from tests.torture.nemeses import Nemeses, change_back, change_table, purge
from tests.torture.traffic import LONG_PAUSE, PAUSE, Traffic

ACTS: tuple[str, ...] = ("there", "back", "cancelled", "table changed", "binlogs purged")
KINDS: tuple[tuple[FlavorName, StoreKind], ...] = (
    ("mariadb", "embedded"),
    ("mysql", "etcd"),
    ("mariadb", "etcd"),
    ("mysql", "embedded"),
)
ABSENCE, LONG_ABSENCE = 5.0, 14.0  # seconds that a stopped proxy stays away at most; in long runs
SERVERS = len({flavor for flavor, _ in KINDS})
SHORT: tuple[tuple[str, ...], ...] = (("there", "back"), ("there", "cancelled", "table changed"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    loops = int(metafunc.config.getoption("--loops"))
    seed = os.environ.get("SHARDPROXY_SEED", "1")
    runs: list[tuple[FlavorName, StoreKind, str, tuple[str, ...], int | None]]
    runs = [(*KINDS[n % len(KINDS)], f"{seed}.{n}", ACTS, n // SERVERS) for n in range(loops)]
    if not loops:
        runs = [(*kind, seed, acts, None) for kind, acts in zip(KINDS, SHORT, strict=False)]
    names = [f"{flavor}-{store}-{at}" for flavor, store, at, *_ in runs]
    metafunc.parametrize(("flavor", "store", "seed", "acts", "number"), runs, ids=names)


def act(name: str, stage: Stage, hand: Hand) -> None:
    """Play one act."""
    match name:
        case "there":
            stage.there(hand.there)
        case "back":
            stage.back(hand.forth, hand.back)
        case "cancelled":
            stage.cancelled(hand.cancelled, hand.cancelled_at)
        case "table changed":
            stage.stopped(partial(change_table, stage.scene), partial(change_back, stage.scene))
        case "binlogs purged":
            stage.stopped(partial(purge, stage.scene), lambda _: None)


def play(set_up: Scene, seed: str, dice: random.Random, acted: Callable[[Stage], None], long: bool) -> None:
    """Play acts while the application runs, then look at all rows. long: it is one of many long runs."""
    nemeses = Nemeses(set_up, dice, LONG_ABSENCE if long else ABSENCE)
    with Traffic(set_up.proxies, seed, pause=LONG_PAUSE if long else PAUSE) as traffic:
        stage = Stage(set_up, traffic, nemeses, dice)
        try:
            acted(stage)
        finally:
            nemeses.calm()
            print(stage.log)
        eventually(lambda: bool(traffic.told.wrong) or traffic.goes_on(), "the application goes on everywhere", 60)
    print(f"{traffic.told.done} writes, errors {dict(traffic.told.refused)}")
    wrong = audit(traffic.told, set_up.found())
    assert not wrong, shown(wrong)


def test_moves(
    flavor: FlavorName, store: StoreKind, seed: str, acts: tuple[str, ...], number: int | None
) -> None:  # fmt: skip
    """number: of a long run among those on its kind of servers."""
    again = f"SHARDPROXY_SEED={seed} ./dev test torture -k 'test_moves and {flavor}-{store}'"
    if number is not None:
        base, _, loop = seed.rpartition(".")
        again = f"SHARDPROXY_SEED={base} ./dev test torture --loops {int(loop) + 1} -k '{flavor}-{store}-{seed}'"
    print(f"seed {seed}; to have this run again: {again}")
    dice = random.Random(seed)
    hand = drawn(dice) if number is None else dealt(number, dice)

    def acted(stage: Stage) -> None:
        for name in acts:
            stage.note(name)
            act(name, stage, hand)
            stage.nemeses.calm()

    with scene(flavor, store) as set_up:
        play(set_up, seed, dice, acted, number is not None)
