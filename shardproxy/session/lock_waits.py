"""Who waits for whom over all shards, and whose transaction ends a deadlock that no server sees.

Each server knows the lock waits between its own transactions. A transaction over several shards is several of them:
taken as one, they close rings that run over shards. What is here only reasons; `executor.deadlock` asks the servers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shardproxy.session.xid import TransactionId, parse_transaction

Cells = Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Local:
    """A transaction as one server knows it. shard: as `xid.shard_word` writes it; thread: its connection id; number,
    started: the server's own number and begin of it (MariaDB numbers all that have not written yet 0)."""

    shard: str
    thread: int
    number: int
    started: str


@dataclass(frozen=True, slots=True)
class Wait:
    """One server transaction waits for another. lock: the lock and since when: another wait has another."""

    waiter: Local
    holder: Local
    lock: str


@dataclass(frozen=True, slots=True)
class Look:
    """What one server showed at one time. parts: transactions over shards that their proxies have announced there.

    mark: of the server's own picture, which it makes anew only now and then; empty when nobody knows when that was.
    """

    mark: str
    locals: tuple[Local, ...]
    waits: tuple[Wait, ...]
    parts: Mapping[Local, TransactionId]

    def of_thread(self, thread: int) -> Local | None:
        return next((local for local in self.locals if local.thread == thread), None)


def read_look(shard: str, transactions: Iterable[Cells], waits: Iterable[Cells], announced: Iterable[Cells]) -> Look:
    """transactions: number, thread, begin, requested lock, begin of the wait, count of lock structures, mark; waits:
    number and lock of who waits, number of who holds; announced: xid, members.

    Where a number means several transactions and nothing tells them apart, the wait is left out: a deadlock that is
    not seen ends by time-out, one that is not there must not be seen.
    """
    rows: dict[int, list[tuple[Local, str, str, int]]] = {}
    marks = set()
    for number, thread, started, lock, since, locks, mark in transactions:
        if mark is not None:
            marks.add(_text(mark))
        local = Local(shard, int(thread or 0), int(number or 0), _text(started))
        rows.setdefault(local.number, []).append((local, _text(lock), _text(since), int(locks or 0)))
    found = []
    for waiting, lock, holding in waits:
        wanted = _text(lock)
        waiters = [row for row in rows.get(int(waiting or 0), ()) if row[1] == wanted]
        holders = [row for row in rows.get(int(holding or 0), ()) if row[3] > 0]
        if len(waiters) == 1 and len(holders) == 1:
            found.append(Wait(waiters[0][0], holders[0][0], f"{wanted} {waiters[0][2]}"))
    parts: dict[Local, TransactionId] = {}
    for xid, members in announced:
        ident = parse_transaction(_text(xid))
        if ident is not None:
            parts.update(dict.fromkeys(read_members(_text(members)), ident))
    return Look("".join(sorted(marks)), tuple(row[0] for same in rows.values() for row in same), tuple(found), parts)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("ascii", "replace")


def write_members(members: Iterable[Local]) -> str:
    """Members of a transaction over shards, as it is announced. Nothing in it needs quoting in SQL."""
    return "\n".join(f"{m.shard}/{m.thread}/{m.number}/{m.started}" for m in members)


def read_members(text: str) -> list[Local]:
    """The reverse; lines that are not ours are left out."""
    found = []
    for line in text.split("\n"):
        parts = line.split("/")
        if len(parts) == 4 and parts[1].isdecimal() and parts[2].isdecimal():
            found.append(Local(parts[0], int(parts[1]), int(parts[2]), parts[3]))
    return found


def crosses(members: Collection[Local], waits: Iterable[Wait]) -> bool:
    """Whether a ring may enter a transaction on one shard and leave it on another."""
    leaving: set[Local] = set()
    entered: set[Local] = set()
    for wait in waits:
        if wait.waiter in members:
            leaving.add(wait.waiter)
        if wait.holder in members:
            entered.add(wait.holder)
    return any(a is not b and a != b for a in leaving for b in entered)


Name = TransactionId | Local  # of what waits as one


def victims(waits: Collection[Wait], parts: Mapping[Local, TransactionId]) -> dict[TransactionId, tuple[Local, ...]]:
    """Transactions without which no ring is left, and their members that wait in one.

    Of each knot of rings the youngest, and so on with what then is left. Whoever sees the same waits chooses the same.
    """
    chosen: dict[TransactionId, tuple[Local, ...]] = {}
    left = list(waits)
    while True:
        found = _one_of_each_knot(left, parts)
        if not found:
            return chosen
        chosen |= found
        left = [w for w in left if parts.get(w.waiter) not in found and parts.get(w.holder) not in found]


def _one_of_each_knot(
    waits: Collection[Wait], parts: Mapping[Local, TransactionId]
) -> dict[TransactionId, tuple[Local, ...]]:
    after: dict[Name, set[Name]] = {}
    for wait in waits:
        a, b = parts.get(wait.waiter, wait.waiter), parts.get(wait.holder, wait.holder)
        if a != b:
            after.setdefault(a, set()).add(b)
            after.setdefault(b, set())
    chosen: dict[TransactionId, tuple[Local, ...]] = {}
    for knot in knots(after):
        idents = [name for name in knot if isinstance(name, TransactionId)]
        if not idents:
            continue  # all on one server, which sees it
        victim = max(idents, key=_age)
        waiting = {
            wait.waiter
            for wait in waits
            if parts.get(wait.waiter) == victim and parts.get(wait.holder, wait.holder) in knot
        }
        chosen[victim] = tuple(sorted(waiting, key=lambda local: (local.shard, local.thread)))
    return chosen


def _age(ident: TransactionId) -> tuple[int, int, str]:
    return ident.born, ident.number, ident.text


def knots(after: Mapping[Name, Collection[Name]]) -> list[set[Name]]:
    """The strongly connected sets of more than one name: Tarjan's algorithm, without recursion."""
    order: dict[Name, int] = {}
    low: dict[Name, int] = {}
    open_: list[Name] = []
    is_open: set[Name] = set()
    found: list[set[Name]] = []
    for root in after:
        if root in order:
            continue
        path = [(root, iter(after[root]))]
        order[root] = low[root] = len(order)
        open_.append(root)
        is_open.add(root)
        while path:
            name, nexts = path[-1]
            following = next(nexts, None)
            if following is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[name])
                if low[name] == order[name]:
                    knot: set[Name] = set()
                    while not knot or name not in knot:
                        last = open_.pop()
                        is_open.discard(last)
                        knot.add(last)
                    if len(knot) > 1:
                        found.append(knot)
            elif following not in order:
                order[following] = low[following] = len(order)
                open_.append(following)
                is_open.add(following)
                path.append((following, iter(after[following])))
            elif following in is_open:
                low[name] = min(low[name], order[following])
    return found
