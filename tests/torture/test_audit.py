"""The audit of the torture of moves sees each kind of damage."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.torture.audit import Found, Row, audit
from tests.torture.traffic import KEYS, SEATS, SHARDS, START, WIDTH, Outcome, Told

Tables = dict[str, list[list[Row]]]


def place(table: str, row: Row) -> int:
    return int(row[0]) // WIDTH


def sound() -> tuple[Told, Tables]:
    """A few things that clients were told, and the rows that go with them."""
    told = Told()
    told.transfers = {
        (1, 1): (0, 50, 10, Outcome.ACKNOWLEDGED),
        (1, 2): (50, 100, 5, Outcome.REFUSED),
        (2, 1): (100, 0, 7, Outcome.UNHEARD),
        (2, 2): (150, 1000, 3, Outcome.UNHEARD),
    }
    told.appends = {(1, 1): (0, Outcome.ACKNOWLEDGED), (1, 2): (0, Outcome.ACKNOWLEDGED), (2, 1): (0, Outcome.REFUSED)}
    told.counted.update({0: 2})
    told.maybe.update({0: 1})
    told.seen = [(0, "1.1,")]
    balances = dict.fromkeys(KEYS, START) | {0: START - 10, 50: START + 10, 150: START - 3, 1000: START + 3}
    entries: list[Row] = [(0, 1, 1, -10), (50, 1, 1, 10), (150, 2, 2, -3), (1000, 2, 2, 3)]
    rows: dict[str, list[Row]] = {
        "account": [(key, 3 if key == 0 else 0, balances[key]) for key in KEYS],
        "entry": entries,
        "list": [(key, "1.1,1.2," if key == 0 else "") for key in KEYS],
        "seat": [(key, seat, (seat + key) % SEATS) for key in KEYS for seat in range(SEATS)],
        "token": [(key, number, number) for number, key in enumerate(KEYS)],
    }
    tables = {
        table: [[row for row in all_of_them if place(table, row) == shard] for shard in range(SHARDS)]
        for table, all_of_them in rows.items()
    }
    return told, tables


def test_what_is_sound_passes() -> None:
    told, tables = sound()
    assert audit(told, Found(tables, place)) == []


def lost(table: str, row: int = 0) -> Callable[[Tables], object]:
    return lambda tables: tables[table][0].pop(row)


def put(table: str, *rows: Row, shard: int = 0) -> Callable[[Tables], object]:
    """Rows in place of those that begin alike, or added."""

    def change(tables: Tables) -> None:
        first = {row[0] for row in rows}
        tables[table][shard] = [row for row in tables[table][shard] if row[0] not in first] + list(rows)

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lost("account"), "accounts, not"),
        (lost("entry"), "on one side only"),
        (lost("list"), "lists, not"),
        (lost("seat"), "seats of 0"),
        (lost("token"), "token 0 is there 0 times"),
        (put("token", (1000, 0, 0), shard=1), "token 0 is there 2 times"),
        (put("account", (1000, 0, START + 3)), "belong elsewhere"),
        (put("account", (0, 4, START - 10)), "counter of 0 is 4"),
        (put("account", (0, 1, START - 10)), "counter of 0 is 1"),
        (put("account", (0, 2, START - 9)), "its entries make"),
        (put("entry", (0, 1, 1, -10), (50, 1, 2, -5), (100, 1, 2, 5)), "was refused and is there"),
        (lambda tables: tables["entry"][0].clear(), "on one side only"),
        (put("list", (0, "1.2,1.1,")), "not in the order"),
        (put("list", (0, "1.1,1.1,1.2,")), "came twice"),
        (put("list", (0, "1.1,")), "1.2 was acknowledged and is not there"),
        (put("list", (0, "1.1,1.2,2.1,")), "2.1 was refused and is there"),
        (put("list", (0, "2.1,1.1,1.2,")), "no beginning"),
        (put("seat", (0, 0, 1), (0, 1, 1), (0, 2, 2), (0, 3, 3)), "seats of 0"),
    ],
)
def test_damage_is_found(damage: Callable[[Tables], object], said: str) -> None:
    told, tables = sound()
    broken = copy.deepcopy(tables)
    damage(broken)
    assert any(said in line for line in audit(told, Found(broken, place)))
