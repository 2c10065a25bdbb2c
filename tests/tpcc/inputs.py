"""What is asked for, by a seed: the size of the world, its first rows, and an endless mix of transactions.

The world starts without orders, payments and debts, so that every sum in it comes from transactions that ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

NO_ITEM = 999_999  # the number of no item: an order that names it is rolled back
_SYLLABLES = ("BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING")
_REMOTE_LINE = 0.1  # far more than the specification's 1 in 100, so that short runs meet it often
_REMOTE_PAYMENT = 0.3
_ROLLED_BACK = 0.05


@dataclass(frozen=True, slots=True)
class World:
    """Rows at the start: districts in each warehouse, customers in each district."""

    warehouses: int
    districts: int = 3
    customers: int = 12
    items: int = 60


@dataclass(frozen=True, slots=True)
class NewOrder:
    """lines: item, warehouse that supplies it, quantity."""

    warehouse: int
    district: int
    customer: int
    lines: tuple[tuple[int, int, int], ...]
    date: str


@dataclass(frozen=True, slots=True)
class Payment:
    """customer: id, or last name. amount: in cents."""

    warehouse: int
    district: int
    customer_warehouse: int
    customer_district: int
    customer: int | str
    amount: int
    date: str


@dataclass(frozen=True, slots=True)
class OrderStatus:
    warehouse: int
    district: int
    customer: int | str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Of each district's oldest order that is not delivered."""

    warehouse: int
    districts: int
    carrier: int
    date: str


@dataclass(frozen=True, slots=True)
class StockLevel:
    warehouse: int
    district: int
    threshold: int


Transaction = NewOrder | Payment | OrderStatus | Delivery | StockLevel


def last_name(number: int) -> str:
    """The specification's names: three syllables by the digits of a number up to 999."""
    return "".join(_SYLLABLES[number // power % 10] for power in (100, 10, 1))


def transactions(world: World, seed: int, remote: bool) -> Iterator[Transaction]:
    """Transactions without end. remote: orders and payments may touch the rows of other warehouses."""
    dice = Random(seed)
    count = 0
    while True:
        count += 1
        date = f"2024-03-{1 + count // 86_400:02d} {count // 3600 % 24:02d}:{count // 60 % 60:02d}:{count % 60:02d}"
        warehouse, district = dice.randint(1, world.warehouses), dice.randint(1, world.districts)
        kind = dice.random()
        if kind < 0.45:
            yield _new_order(dice, world, warehouse, district, remote, date)
        elif kind < 0.85:
            yield _payment(dice, world, warehouse, district, remote, date)
        elif kind < 0.90:
            yield OrderStatus(warehouse, district, _customer(dice, world))
        elif kind < 0.95:
            yield Delivery(warehouse, world.districts, dice.randint(1, 10), date)
        else:
            yield StockLevel(warehouse, district, dice.randint(40, 70))


def first_rows(world: World, seed: int) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """(table, rows), each list within one warehouse; `item` has none."""
    dice = Random(seed)
    yield "item", [(i, f"item {i}", _price(dice), f"about {i}") for i in range(1, world.items + 1)]
    for w in range(1, world.warehouses + 1):
        yield "warehouse", [(w, f"house {w}", "CA", _rate(dice), "0.00")]
        districts = range(1, world.districts + 1)
        yield "district", [(w, d, f"quarter {d}", _rate(dice), "0.00", 1) for d in districts]
        yield (
            "customer",
            [
                (w, d, c, f"first {dice.randint(1, 99)}", last_name(c % 5), "BC" if dice.random() < 0.3 else "GC",
                 _rate(dice), "0.00", "0.00", 0, 0, f"customer {c} of {d} in {w}")
                for d in districts for c in range(1, world.customers + 1)
            ],
        )  # fmt: skip
        yield (
            "stock",
            [(w, i, dice.randint(10, 100), f"info {w} {i}", 0, 0, 0, "data") for i in range(1, world.items + 1)],
        )


def _new_order(dice: Random, world: World, warehouse: int, district: int, remote: bool, date: str) -> NewOrder:
    lines = []
    for item in dice.sample(range(1, world.items + 1), dice.randint(3, 8)):
        far = remote and dice.random() < _REMOTE_LINE
        lines.append((item, _other(dice, world, warehouse) if far else warehouse, dice.randint(1, 10)))
    if dice.random() < _ROLLED_BACK:
        lines[-1] = (NO_ITEM, *lines[-1][1:])
    return NewOrder(warehouse, district, dice.randint(1, world.customers), tuple(lines), date)


def _payment(dice: Random, world: World, warehouse: int, district: int, remote: bool, date: str) -> Payment:
    far = remote and dice.random() < _REMOTE_PAYMENT
    theirs = (_other(dice, world, warehouse), dice.randint(1, world.districts)) if far else (warehouse, district)
    return Payment(warehouse, district, *theirs, _customer(dice, world), dice.randint(100, 500_000), date)


def _customer(dice: Random, world: World) -> int | str:
    return last_name(dice.randint(0, 4)) if dice.random() < 0.6 else dice.randint(1, world.customers)


def _other(dice: Random, world: World, warehouse: int) -> int:
    return (warehouse - 1 + dice.randint(1, world.warehouses - 1)) % world.warehouses + 1


def _rate(dice: Random) -> str:
    return f"0.{dice.randint(0, 2000):04d}"


def _price(dice: Random) -> str:
    return f"{dice.randint(1, 100)}.{dice.randint(0, 99):02d}"
