"""Which loop of the torture of moves has what. Places at which the orchestrator is killed, and nemeses, are dealt
round: `ROUND` loops on one kind of servers have all of them. Dice choose only what is left free.

A place is "before" or "after" something that is stored: a step of the move (`before copying next`, `after open
reverse`, `before closing time-out`), its beginning (`begin`), a new leader's `claim`, an `eviction`, and a
`readmission`, of which the next leader must know.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FORTH = ("prepared", "copying", "armed", "closing", "switched", "open", "completing", "done")
BACK = ("reverse_armed", "reverse_closing", "reverse_switched", "reverse_open", "reverse_completing", "reverse_done")
ROUND = 10
NEMESES = ("proxy stopped", "store cut off", "dumps killed", "shard killed", "binlogs rotated")
DUMPS = "dumps killed"  # only while streams run
# A proxy does not see the switch: it is stopped just before, and goes on when it has been stored, or when all writes go
# on, so that it has been shut out.
FROZEN = ("proxy frozen", "first process frozen")
THAWED = "it goes on"
_SHUT_OUT = "after switched next"
ACROSS = tuple((kind, until) for kind in FROZEN for until in ("after closing next", _SHUT_OUT))
_HELD = FORTH.index("closing")
_SWITCHED = FORTH.index("switched")


def around(steps: Iterable[str]) -> tuple[str, ...]:
    """Before and after each of these."""
    return tuple(f"{when} {step}" for step in steps for when in ("before", "after"))


READMISSION = around(["readmission"])  # where the proxy comes back before its move has ended


def on_the_way(stages: Sequence[str]) -> tuple[str, ...]:
    """Before and after each step from one of these stages to the next."""
    return around(f"{stage} next" for stage in stages[:-1])


@dataclass
class Luck:
    """kills: where the orchestrator is killed, once each. strikes: where nemeses strike, once each, and which."""

    kills: list[str] = field(default_factory=list)
    strikes: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def draw(cls, dice: random.Random, stages: Sequence[str], kills: int, strikes: int) -> Luck:
        """By dice alone, on the way through these stages."""
        where = on_the_way(stages)
        killed = dice.sample(where, kills)
        return cls(killed, {place: [dice.choice(NEMESES)] for place in dice.sample(where, strikes)})

    def kill(self, *places: str) -> None:
        self.kills += [place for place in places if place not in self.kills]

    @property
    def left(self) -> list[str]:
        """What has not come, and should have."""
        return [*(place for place in self.kills if place not in READMISSION), *self.strikes]

    def strike(self, place: str, kind: str) -> None:
        self.strikes.setdefault(place, []).append(kind)


@dataclass(frozen=True)
class Hand:
    """What goes wrong in a loop, for each of its moves. cancelled_at: the place at which the third one is given up."""

    there: Luck
    forth: Luck  # of the move that is taken back
    back: Luck
    cancelled: Luck
    cancelled_at: str

    @property
    def lucks(self) -> tuple[Luck, ...]:
        return self.there, self.forth, self.back, self.cancelled


def drawn(dice: random.Random) -> Hand:
    """By dice alone: for short runs."""
    there = Luck.draw(dice, FORTH, 3, 2)
    forth, back = Luck.draw(dice, FORTH[1 : _SWITCHED + 2], 2, 2), Luck.draw(dice, BACK, 2, 1)
    cancelled = Luck.draw(dice, ("cancelling", "cancelled"), 1, 1)
    at = dice.choice(on_the_way(FORTH[: _SWITCHED + 1])[:-1])
    cancelled.kill(at)
    return Hand(there, forth, back, cancelled, at)


def dealt(number: int, dice: random.Random) -> Hand:
    """The hand of a loop; number: of the loop among those on its kind of servers, from 0."""
    turn = number % ROUND
    across, until = ACROSS[turn % len(ACROSS)]
    hand = Hand(_there(turn), _forth(turn, across, until, dice), _back(turn), *_cancelled(turn, dice))
    if until == _SHUT_OUT:
        one = turn % len(ACROSS) // 2
        hand.forth.kill(around(["eviction"])[one])
        hand.back.kill(READMISSION[one])
    _strikes(turn, hand, dice)
    return hand


def _there(turn: int) -> Luck:
    luck = Luck()
    way = (*around(["begin"]), *on_the_way(FORTH))
    luck.kill(*way[turn::ROUND])
    if turn < 2:
        _time_out(luck, FORTH, around(["closing time-out"])[turn])
    return luck


def _time_out(luck: Luck, stages: Sequence[str], place: str) -> None:
    """Whoever takes the lead of a move that holds writes gives the switch up for now: it is killed at that, too."""
    stage = place.split()[1]
    before = next(a for a, b in pairwise(stages) if b == stage)
    luck.kill(f"after {before} next", place)


def _forth(turn: int, across: str, until: str, dice: random.Random) -> Luck:
    """Nobody is killed from the switch on while a proxy must miss it, but where it is shut out."""
    luck = Luck(strikes={"before closing next": [across], until: [THAWED]})
    free = on_the_way(FORTH[1 : _HELD + 1])
    luck.kill(around(["claim"])[turn % 2] if turn % 3 else dice.choice(free))
    return luck


def _back(turn: int) -> Luck:
    luck = Luck()
    way = (*around(["open reverse"]), *on_the_way(BACK))
    luck.kill(way[turn % len(way)], way[(turn + len(way) // 2) % len(way)])
    if turn >= 8:
        _time_out(luck, BACK, around(["reverse_closing time-out"])[turn - 8])
    return luck


def _cancelled(turn: int, dice: random.Random) -> tuple[Luck, str]:
    number = turn % _SWITCHED
    stage = FORTH[number]
    comes = "after begin" if stage == "prepared" else f"after {FORTH[number - 1]} next"
    at = dice.choice((comes, f"before {stage} next"))
    luck = Luck([at])
    luck.kill(*around([f"{stage} cancel"]), around(["cancelling next"])[turn % 2])
    return luck, at


def _strikes(turn: int, hand: Hand, dice: random.Random) -> None:
    """Each nemesis strikes once, each time on another way."""
    ways = [
        (hand.there, on_the_way(FORTH)),
        (hand.back, (*around(["open reverse"]), *on_the_way(BACK))),
        (hand.forth, on_the_way(FORTH[1 : _HELD + 1])),
        (hand.cancelled, around(["cancelling next"])),
        (hand.there, on_the_way(FORTH)),
    ]
    kinds = [NEMESES[(turn + n) % len(NEMESES)] for n in range(len(ways))]
    if kinds[3] == DUMPS:  # no stream runs there
        kinds[3], kinds[0] = kinds[0], kinds[3]
    for kind, (luck, way) in zip(kinds, ways, strict=True):
        luck.strike(dice.choice(_streaming(way) if kind == DUMPS else way), kind)


def _streaming(way: Sequence[str]) -> list[str]:
    """Places on a way at which streams run."""
    over = {*FORTH[_SWITCHED:], *BACK[BACK.index("reverse_switched") :]}
    return [place for place in way if not ({place.split()[1]} & over) and place.split()[1:] != ["prepared", "next"]]
