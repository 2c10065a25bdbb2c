"""Moves of rows under everything that goes wrong: every acknowledged write is there once, on the shard that owns it.

One run has three proxies, four shards, an application (traffic.py), and a few moves, each with crashes of its
orchestrator and nemeses at places that a seed chooses. A short form runs always; `./dev test torture --loops N` goes on
with other seeds, on both kinds of servers and map stores. A run that fails says how to have it again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from shardproxy.local.flavors import FlavorName
from tests.proxy import eventually
from tests.torture.acts import FORTH, Luck, Stage, places
from tests.torture.audit import audit, shown
from tests.torture.moving_scene import Scene, StoreKind, scene
from tests.torture.nemeses import Nemeses
from tests.torture.traffic import Traffic


def play(set_up: Scene, seed: str) -> None:
    dice = random.Random(seed)
    nemeses = Nemeses(set_up, dice)
    with Traffic(set_up.proxies, seed) as traffic:
        stage = Stage(set_up, traffic, nemeses, dice)
        try:
            stage.note("there")
            stage.there(Luck.draw(dice, [*FORTH, "completing", "done"], nemeses, 3, 2))
        finally:
            nemeses.calm()
            print(stage.log)
        eventually(lambda: bool(traffic.told.wrong) or traffic.goes_on(), "the application goes on everywhere", 60)
        stage.note("calm")
    stage.note("joined")
    print(stage.log)
    print(f"{traffic.told.done} writes, refused {dict(traffic.told.refused)}")
    wrong = audit(traffic.told, set_up.found())
    assert not wrong, shown(wrong)


@pytest.mark.parametrize(("flavor", "store"), [("mariadb", "embedded")])
def test_moves(flavor: FlavorName, store: StoreKind) -> None:
    with scene(flavor, store) as set_up:
        play(set_up, "1")
