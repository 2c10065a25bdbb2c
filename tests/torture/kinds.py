"""Kinds of moves: what each asks `shardctl rebalance run` for, by the map that there is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.map_form import HashForm, RangeForm
from tests.torture.layout import name, number, owner, ranges
from tests.torture.traffic import KEY_COLUMNS, KEYS, SHARDS, WIDTH


@dataclass(frozen=True)
class Goals:
    """words: for the command. moving: keys that move; empty: all may. concerned: numbers of shards that take part.
    hold: seconds that writes may wait; with a stream for each pair of shards a switch takes longer."""

    words: list[str]
    moving: list[int] = field(default_factory=list)
    concerned: list[int] = field(default_factory=lambda: [*range(SHARDS)])
    hold: float = 5.0


Kind = Callable[[MapDocument, random.Random], Goals]


def some_ranges(document: MapDocument, dice: random.Random) -> Goals:
    """One or two ranges get other owners."""
    words, moving, concerned = [], set[int](), set[int]()
    for low in dice.sample(range(0, SHARDS * WIDTH, 500), dice.choice((1, 2))):
        high = low + dice.choice((150, 300, 500))
        source = owner(document, low)
        target = dice.choice([shard for shard in range(SHARDS) if shard != source])
        words.append(f"--move-range={low}:{high}={name(target)}")
        moving |= set(range(low, high))
        concerned |= {source, target}
    return Goals(words, [key for key in KEYS if key in moving], sorted(concerned), 1.0)


def another_ring(document: MapDocument, dice: random.Random) -> Goals:
    """A shard comes, goes, or gets another weight."""
    assert isinstance(document.map, HashForm)
    here = sorted(map(number, document.map.shards))
    away = [shard for shard in range(SHARDS) if shard not in here]
    ways = ["weigh"] + ["add"] * bool(away) + ["remove"] * (len(here) > 2)
    match dice.choice(ways):
        case "add":
            return Goals([f"--add-shard={name(away[0])}"])
        case "remove":
            return Goals([f"--remove-shard={name(dice.choice(here))}"])
    few = [document.map.owners.count(name(shard)) for shard in here]
    weights = dict.fromkeys(here, 1) | {here[few.index(min(few))]: 3}
    return Goals([f"--weights={','.join(f'{name(shard)}={weight}' for shard, weight in weights.items())}"])


def the_other_map(document: MapDocument, dice: random.Random) -> Goals:
    """Ranges become a ring, a ring ranges."""
    if isinstance(document.map, RangeForm):
        return Goals(["--map=hash"])
    return Goals([f"--map=range:{','.join(f'{start}:{end}={shard}' for start, end, shard in ranges())}"])


def list_sharded(document: MapDocument, dice: random.Random) -> Goals:
    """The table of lists, which is on one shard, goes to all."""
    return Goals([f"--shard-table=list={KEY_COLUMNS['list']}"])


def token_rekeyed(document: MapDocument, dice: random.Random) -> Goals:
    """Tokens are sharded by their number, or by their holder again; clients change both."""
    form = document.tables.get("token")
    by_number = form is not None and form.key == "no"
    return Goals([f"--change-key=token={'holder' if by_number else 'no'}"])
