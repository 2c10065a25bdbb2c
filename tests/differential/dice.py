"""Seeded chance, and the situation that a statement is made for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


class Dice:
    """Chance that is the same again for the same seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def one(self, choices: Sequence[_T]) -> _T:
        return self._random.choice(choices)

    def weighted(self, choices: Sequence[tuple[float, _T]]) -> _T:
        """One of (weight, choice)."""
        return self._random.choices([c for _, c in choices], [w for w, _ in choices])[0]

    def some(self, choices: Sequence[_T], least: int, most: int) -> list[_T]:
        """Between `least` and `most` different ones, in chance order."""
        return self._random.sample(choices, min(len(choices), self._random.randint(least, most)))

    def number(self, low: int, high: int) -> int:
        """An integer between both, both included."""
        return self._random.randint(low, high)


@dataclass(slots=True)
class Situation:
    """What the text must fit: default schema, kind of server, sql_mode, character set, and whether it is prepared.

    home: the key that most conditions of a statement name, an integer or text or bytes as the keyspace's keys are.
    """

    dice: Dice
    database: str
    mariadb: bool
    ansi_quotes: bool = False
    no_backslash: bool = False
    pipes_concat: bool = False
    strict: bool = True
    latin1: bool = False
    prepared: bool = False
    home: int | str | bytes = 5
