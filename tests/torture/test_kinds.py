"""Moves of other kinds than ranges under everything that goes wrong, by the scene of test_moves.py: a ring that
changes, a map of the other kind, a table from one shard to all, a table with another key.

A short form runs always; it leaves out maps of the other kind, whose streams between all shards take long. `./dev test
torture --loops N` makes N long runs in its place, each of one kind: a move that has its end, one that is taken back,
and one that is given up before its switch. The hands are those of test_moves.py.
"""

from __future__ import annotations

import os
import random

import pytest

from shardproxy.local.flavors import FlavorName
from tests.torture import kinds
from tests.torture.acts import Stage
from tests.torture.deal import dealt, drawn
from tests.torture.layout import Layout
from tests.torture.moving_scene import StoreKind, scene
from tests.torture.test_moves import KINDS, SERVERS, act, play

ALL: dict[str, tuple[kinds.Kind, Layout]] = {
    "ring": (kinds.another_ring, Layout(ring=(0, 1, 2))),
    "list": (kinds.list_sharded, Layout(single="list")),
    "map": (kinds.the_other_map, Layout()),
    "token": (kinds.token_rekeyed, Layout(ring=(0, 1, 2, 3))),
}
LONG = ("cancelled", "back", "there")  # the list can be sharded once
# Words of one act: a kind, and what becomes of the move.
Acts = tuple[tuple[str, str], ...]
SHORT: tuple[tuple[Layout, Acts], ...] = (
    (Layout(ring=(0, 1, 2), single="list"), (("list", "there"), ("ring", "there"))),
    (Layout(ring=(0, 1, 2, 3)), (("token", "back"),)),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    loops = int(metafunc.config.getoption("--loops"))
    seed = os.environ.get("SHARDPROXY_SEED", "1")
    runs: list[tuple[FlavorName, StoreKind, Layout, str, Acts, int | None]] = []
    for n in range(loops):
        kind = list(ALL)[n // SERVERS % len(ALL)]
        acts = tuple((kind, end) for end in LONG)
        runs.append((*KINDS[n % len(KINDS)], ALL[kind][1], f"{seed}.{n}", acts, n // SERVERS))
    if not loops:
        runs = [(*kind, layout, seed, acts, None) for kind, (layout, acts) in zip(KINDS, SHORT, strict=False)]
    names = [f"{flavor}-{store}-{at}-{'-'.join(dict(acts))}" for flavor, store, _, at, acts, _ in runs]
    metafunc.parametrize(("flavor", "store", "layout", "seed", "acts", "number"), runs, ids=names)


def test_kinds(
    flavor: FlavorName, store: StoreKind, layout: Layout, seed: str, acts: Acts, number: int | None
) -> None:  # fmt: skip
    """number: of a long run among those on its kind of servers."""
    dice = random.Random(seed)
    hand = None if number is None else dealt(number, dice)

    def acted(stage: Stage) -> None:
        for kind, end in acts:
            stage.note(f"{kind} {end}")
            stage.kind, _ = ALL[kind]
            act(end, stage, hand or drawn(dice))
            stage.nemeses.calm()

    with scene(flavor, store, layout) as set_up:
        play(set_up, seed, dice, acted, number is not None)
