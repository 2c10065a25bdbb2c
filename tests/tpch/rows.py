"""Rows of TPC-H, our own generator: the same rows for the same scale and seed, on any machine and Python.

Numbers of rows, value domains and what depends on what follow the public specification as far as its queries look:
prices come from part keys, a line's supplier is one of the four of its part, flags and states come from dates, one
customer in three never orders, order keys are sparse. Texts are words of our own pools. What at scale 1 is rare and
would vanish at small scales is made on purpose at a fixed rate: large orders (query 18), suppliers with complaints
(16), orders with "special … requests" (13).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests.tpch.words import (
    COLOURS,
    CONTAINERS,
    INSTRUCTIONS,
    MODES,
    NATIONS,
    PRIORITIES,
    REGIONS,
    SEGMENTS,
    TYPES,
    WORDS,
)

Row = tuple[int | str, ...]

_START = datetime.date(1992, 1, 1)
_DAYS = [(_START + datetime.timedelta(n)).isoformat() for n in range(2557)]  # to 1998-12-31
_LAST_ORDER = len(_DAYS) - 151
_TODAY = (datetime.date(1995, 6, 17) - _START).days
_LARGE_ORDER = 2500  # one order in so many has seven large lines …
_LARGE_QUANTITY = 44  # … of at least so many pieces: more than 300 together
_COMPLAINT = 50  # one supplier in so many
_SPECIAL = 90  # one order in so many


@dataclass(frozen=True, slots=True)
class Scale:
    """How many rows; `factor` 1 is the specification's size (6 million lines)."""

    factor: float

    def of(self, rows: int) -> int:
        """What `rows` at factor 1 are here; at least one."""
        return max(1, round(rows * self.factor))

    @property
    def suppliers(self) -> int:
        return self.of(10_000)

    @property
    def parts(self) -> int:
        return self.of(200_000)

    @property
    def customers(self) -> int:
        return self.of(150_000)

    @property
    def orders(self) -> int:
        return self.of(1_500_000)


def money(cents: int) -> str:
    """Cents as a decimal: -5 is "-0.05"."""
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    return f"{sign}{whole}.{rest:02d}"


def retail_price(part: int) -> int:
    """p_retailprice in cents."""
    return 90_000 + part // 10 % 20_001 + 100 * (part % 1000)


def supplier_of(part: int, number: int, suppliers: int) -> int:
    """The supplier `number` (0 to 3) of a part."""
    return (part + number * (suppliers // 4 + (part - 1) // suppliers)) % suppliers + 1


def order_key(number: int) -> int:
    """Key of the order `number` (from 0): the first eight of each 32 numbers are used."""
    return number // 8 * 32 + number % 8 + 1


class Dice(Random):
    """Seeded by table, so that a table's rows do not depend on whether another's were made."""

    def __init__(self, seed: int, table: str) -> None:
        super().__init__(f"{seed} {table}")

    def between(self, low: int, high: int) -> int:
        """A whole number, ends included. Quicker than randint, and the same on every Python."""
        return low + int(self.random() * (high - low + 1))

    def one(self, words: tuple[str, ...]) -> str:
        return words[int(self.random() * len(words))]

    def text(self, low: int, high: int) -> str:
        """A piece of _POOL, at most low to high characters."""
        at = int(self.random() * _STARTS)
        return _POOL[at : at + self.between(low, high)].strip()


def _pool() -> str:
    dice = Dice(0, "pool")
    return " ".join(dice.one(WORDS) for _ in range(_POOL_WORDS))


_POOL_WORDS = 20_000
_POOL = _pool()
_STARTS = len(_POOL) - 200


def regions(scale: Scale, seed: int) -> Iterator[Row]:
    dice = Dice(seed, "region")
    for key, name in enumerate(REGIONS):
        yield key, name, dice.text(31, 115)


def nations(scale: Scale, seed: int) -> Iterator[Row]:
    dice = Dice(seed, "nation")
    for key, (name, region) in enumerate(NATIONS):
        yield key, name, region, dice.text(31, 114)


def suppliers(scale: Scale, seed: int) -> Iterator[Row]:
    dice = Dice(seed, "supplier")
    for key in range(1, scale.suppliers + 1):
        nation = dice.between(0, 24)
        comment = dice.text(25, 70)
        if key % _COMPLAINT == 7:
            comment = f"Customer {dice.one(WORDS)} Complaints {comment}"[:100]
        yield (
            key,
            f"Supplier#{key:09d}",
            dice.text(10, 40),
            nation,
            _phone(dice, nation),
            money(dice.between(-99_999, 999_999)),
            comment,
        )


def parts(scale: Scale, seed: int) -> Iterator[Row]:
    dice = Dice(seed, "part")
    for key in range(1, scale.parts + 1):
        maker = dice.between(1, 5)
        brand = maker * 10 + dice.between(1, 5)
        yield (
            key,
            " ".join(_different(dice, COLOURS, 5)),
            f"Manufacturer#{maker}",
            f"Brand#{brand}",
            " ".join(dice.one(syllable) for syllable in TYPES),
            dice.between(1, 50),
            " ".join(dice.one(syllable) for syllable in CONTAINERS),
            money(retail_price(key)),
            dice.text(5, 22),
        )


def partsupps(scale: Scale, seed: int) -> Iterator[Row]:
    dice = Dice(seed, "partsupp")
    for part in range(1, scale.parts + 1):
        # Fewer than four suppliers, or a wheel that comes round: each pair once.
        for supplier in dict.fromkeys(supplier_of(part, n, scale.suppliers) for n in range(4)):
            yield part, supplier, dice.between(1, 9999), money(dice.between(100, 100_000)), dice.text(49, 120)


def customers(scale: Scale, seed: int) -> Iterator[Row]:
    dice = Dice(seed, "customer")
    for key in range(1, scale.customers + 1):
        nation = dice.between(0, 24)
        yield (
            key,
            f"Customer#{key:09d}",
            dice.text(10, 40),
            nation,
            _phone(dice, nation),
            money(dice.between(-99_999, 999_999)),
            dice.one(SEGMENTS),
            dice.text(29, 80),
        )


def orders_and_lines(scale: Scale, seed: int) -> Iterator[tuple[Row, list[Row]]]:
    """Each order with its lines: the order's price and state come from them."""
    dice = Dice(seed, "orders")
    between, one, days = dice.between, dice.one, _DAYS
    parts, suppliers, buyers, clerks = scale.parts, scale.suppliers, scale.customers, scale.of(1000)
    for number in range(scale.orders):
        key = order_key(number)
        day = between(0, _LAST_ORDER - 1)
        large = number % _LARGE_ORDER == 1234
        total = shipped = 0
        lines: list[Row] = []
        for line in range(1, 8 if large else between(1, 7) + 1):
            part = between(1, parts)
            quantity = between(_LARGE_QUANTITY if large else 1, 50)
            price = quantity * retail_price(part)
            discount, tax = between(0, 10), between(0, 8)
            ship = day + between(1, 121)
            receipt = ship + between(1, 30)
            total += price * (100 - discount) * (100 + tax)
            shipped += ship <= _TODAY
            lines.append((
                key,
                part,
                supplier_of(part, between(0, 3), suppliers),
                line,
                quantity,
                money(price),
                f"0.{discount:02d}",
                f"0.{tax:02d}",
                one(("R", "A")) if receipt <= _TODAY else "N",
                "F" if ship <= _TODAY else "O",
                days[ship],
                days[day + between(30, 90)],
                days[receipt],
                one(INSTRUCTIONS),
                one(MODES),
                dice.text(10, 40),
            ))  # fmt: skip
        comment = dice.text(19, 60)
        if number % _SPECIAL == 17:
            comment = f"{one(WORDS)} special {one(WORDS)} requests {comment}"[:78].rstrip()
        state = "F" if shipped == len(lines) else "P" if shipped else "O"
        yield (
            (
                key,
                _buyer(between(1, buyers), buyers),
                state,
                money((total + 5000) // 10_000),
                days[day],
                one(PRIORITIES),
                f"Clerk#{between(1, clerks):09d}",
                0,
                comment,
            ),
            lines,
        )


GENERATORS: dict[str, Callable[[Scale, int], Iterator[Row]]] = {
    "region": regions,
    "nation": nations,
    "supplier": suppliers,
    "part": parts,
    "partsupp": partsupps,
    "customer": customers,
}  # orders and lineitem come together: orders_and_lines


def _buyer(customer: int, customers: int) -> int:
    """One customer in three, whose key is a multiple of 3, has no orders."""
    if customer % 3:
        return customer
    return customer + 1 if customer < customers else max(1, customer - 1)


def _phone(dice: Dice, nation: int) -> str:
    return f"{nation + 10}-{dice.between(100, 999)}-{dice.between(100, 999)}-{dice.between(1000, 9999)}"


def _different(dice: Dice, words: tuple[str, ...], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[dice.one(words)] = None
    return list(found)
