"""What is on the shards, against what clients were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.torture.traffic import KEYS, SEATS, START, Outcome, Told

Row = tuple[int | str, ...]


@dataclass(frozen=True)
class Found:
    """tables: name → the rows of each shard. place: table and row → the shard that must have it, by the newest map."""

    tables: dict[str, list[list[Row]]]
    place: Callable[[str, Row], int]

    def rows(self, table: str) -> list[Row]:
        return [row for rows in self.tables[table] for row in rows]


def audit(told: Told, found: Found) -> list[str]:
    """Everything that is wrong; [] when every acknowledged write is there once, one that was refused not at all, and
    one whose client never heard at most once."""
    wrong = [*told.wrong]
    for check in (_places, _money, _counters, _lists, _seats, _tokens):
        wrong += check(told, found)
    return wrong


def _places(_: Told, found: Found) -> list[str]:
    """No row where its key does not belong: so none is on two shards, and none is left behind."""
    wrong = []
    for table, shards in found.tables.items():
        for shard, rows in enumerate(shards):
            strays = [row for row in rows if found.place(table, row) != shard]
            if strays:
                wrong.append(f"{table}: {len(strays)} rows on shard{shard + 1} that belong elsewhere: {strays[:3]}")
    return wrong


def _money(told: Told, found: Found) -> list[str]:
    wrong = []
    entries = Counter({(int(r[0]), int(r[1]), int(r[2]), int(r[3])): 1 for r in found.rows("entry")})
    left = dict(entries)
    for (writer, no), (a, b, amount, outcome) in told.transfers.items():
        there = [bool(left.pop((account, writer, no, change), 0)) for account, change in ((a, -amount), (b, amount))]
        if there[0] != there[1]:
            wrong.append(f"transfer {writer}.{no} from {a} to {b} happened on one side only: {outcome.value}")
        elif outcome is Outcome.ACKNOWLEDGED and not there[0]:
            wrong.append(f"transfer {writer}.{no} from {a} to {b} was acknowledged and is not there")
        elif outcome is Outcome.REFUSED and there[0]:
            wrong.append(f"transfer {writer}.{no} from {a} to {b} was refused and is there")
    if left:
        wrong.append(f"{len(left)} entries that nobody made: {list(left)[:3]}")
    balances = dict.fromkeys(KEYS, START)
    for account, _, _, amount in entries:
        balances[account] = balances.get(account, 0) + amount
    rows = found.rows("account")
    if len(rows) != len(KEYS):
        wrong.append(f"{len(rows)} accounts, not {len(KEYS)}")
    wrong += [
        f"balance of {row[0]} is {row[2]}, its entries make {balances.get(int(row[0]))}"
        for row in rows
        if row[2] != balances.get(int(row[0]))
    ]
    if sum(int(row[2]) for row in rows) != START * len(KEYS):
        wrong.append("money was made or lost")
    return wrong


def _counters(told: Told, found: Found) -> list[str]:
    wrong = []
    for key, n, _ in found.rows("account"):
        least = told.counted[int(key)]
        most = least + told.maybe[int(key)]
        if not least <= int(n) <= most:
            wrong.append(f"counter of {key} is {n}; {least} additions were acknowledged, {most} at most happened")
    return wrong


def _lists(told: Told, found: Found) -> list[str]:
    wrong = []
    final = {int(row[0]): str(row[1]) for row in found.rows("list")}
    if sorted(final) != list(KEYS):
        wrong.append(f"{len(final)} lists, not {len(KEYS)}")
    there: dict[int, list[str]] = {key: text.split(",")[:-1] for key, text in final.items()}
    for key, values in there.items():
        if len(set(values)) != len(values):
            wrong.append(f"list of {key}: some values came twice")
        last: dict[str, int] = {}
        for value in values:
            client, number = value.split(".")
            if last.get(client, 0) >= int(number):
                wrong.append(f"list of {key}: the values of client {client} are not in the order that it appended them")
            last[client] = int(number)
    sets = {key: set(values) for key, values in there.items()}
    for (writer, no), (key, outcome) in told.appends.items():
        present = f"{writer}.{no}" in sets.get(key, set())
        if outcome is not Outcome.UNHEARD and present != (outcome is Outcome.ACKNOWLEDGED):
            wrong.append(f"list of {key}: {writer}.{no} was {outcome.value} and is {'' if present else 'not '}there")
    torn = {key for key, text in told.seen if not final.get(key, "").startswith(text)}
    if torn:
        wrong.append(f"lists of {sorted(torn)}: readers saw what is no beginning of the last state")
    return wrong


def _seats(_: Told, found: Found) -> list[str]:
    seats: dict[int, list[tuple[int, int]]] = {key: [] for key in KEYS}
    for key, seat, who in found.rows("seat"):
        seats.setdefault(int(key), []).append((int(seat), int(who)))
    all_of_them = list(range(SEATS))
    return [
        f"seats of {key}: {there}"
        for key, there in seats.items()
        if sorted(seat for seat, _ in there) != all_of_them or sorted(who for _, who in there) != all_of_them
    ]


def _tokens(_: Told, found: Found) -> list[str]:
    times = Counter(int(row[2]) for row in found.rows("token"))
    return [f"token {tag} is there {times[tag]} times" for tag in range(len(KEYS)) if times[tag] != 1]


def shown(wrong: Sequence[str], most: int = 12) -> str:
    """For a failing test."""
    return "\n".join([*wrong[:most], *([f"and {len(wrong) - most} more"] if len(wrong) > most else [])])
