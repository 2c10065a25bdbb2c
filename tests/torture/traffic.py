"""An application that goes on while rows move, and remembers what it was told.

Per key: a balance with one entry for each transfer, a counter, a list to which values are appended, four seats whose
occupants swap, and tokens that change their primary key and their shard key. Some transactions last for seconds. Each
piece of work ends as acknowledged, refused (nothing was done) or unheard (it happened, or it did not).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pymysql

from tests.proxy import ProxyUnderTest

SHARDS, WIDTH = 4, 1000
KEYS = tuple(range(0, SHARDS * WIDTH, 50))
SEATS, START = 4, 100
TABLES = (
    "CREATE TABLE account (id BIGINT NOT NULL PRIMARY KEY, n INT NOT NULL, balance INT NOT NULL)",
    "CREATE TABLE entry (account BIGINT NOT NULL, writer INT NOT NULL, no INT NOT NULL, amount INT NOT NULL, "
    "PRIMARY KEY (account, writer, no))",
    "CREATE TABLE list (id BIGINT NOT NULL PRIMARY KEY, vals MEDIUMTEXT NOT NULL)",
    "CREATE TABLE seat (grp BIGINT NOT NULL, seat INT NOT NULL, who INT NOT NULL, PRIMARY KEY (grp, seat), "
    "UNIQUE KEY (grp, who))",
    "CREATE TABLE token (holder BIGINT NOT NULL, no INT NOT NULL, tag INT NOT NULL, PRIMARY KEY (holder, no))",
)
KEY_COLUMNS = {"account": "id", "entry": "account", "list": "id", "seat": "grp", "token": "holder"}
COLUMNS = {
    "account": ("id", "n", "balance"), "entry": ("account", "writer", "no", "amount"), "list": ("id", "vals"),
    "seat": ("grp", "seat", "who"), "token": ("holder", "no", "tag"),
}  # fmt: skip
NOTHING_DONE = frozenset((1213, 1205, 9122))  # whatever the statement, COMMIT too
# The connection, a server, or an account is away. A write or COMMIT that ends so may have happened.
AWAY = frozenset((0, 2003, 2006, 2013, 2014, 1053, 1317, 1927, 3118, 4151, 1045, 9110, 9111, 9112, 9113, 9120, 9121))
# Seconds between two pieces of work of a client: this is about moves, not about load. A long run has many more moves
# to meet, and some of them share a machine: they must not fill it, or most of their time is spent on work alone.
PAUSE, LONG_PAUSE = 0.02, 0.1
_RECOVERY = 10.0  # seconds within which recovery has ended what the death of a server or a connection left half done


class Outcome(Enum):
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNHEARD = "unheard"


@dataclass
class Told:
    """What clients were told. Transfers and appends are numbered per writer: (writer, number)."""

    transfers: dict[tuple[int, int], tuple[int, int, int, Outcome]] = field(default_factory=dict)  # from, to, amount
    appends: dict[tuple[int, int], tuple[int, Outcome]] = field(default_factory=dict)  # → key
    counted: Counter[int] = field(default_factory=Counter)  # key → acknowledged additions
    maybe: Counter[int] = field(default_factory=Counter)  # key → additions that may have happened
    seen: list[tuple[int, str]] = field(default_factory=list)  # key, its list as a reader saw it
    wrong: list[str] = field(default_factory=list)  # what no application may ever see
    refused: Counter[int] = field(default_factory=Counter)  # error number → times
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def place_rows(
    rows: Callable[[int, str], object], shards: Sequence[int], shard_of: Callable[[str, int], int]
) -> None:  # fmt: skip
    """Create and fill the tables. rows(shard, statement): run it there, in the database. shards: those that have the
    tables. shard_of: table and key → where it is."""
    for shard in shards:
        for statement in TABLES:
            rows(shard, statement)
        rows_of: tuple[tuple[str, Callable[[int], list[str]]], ...] = (
            ("account", lambda key: [f"({key}, 0, {START})"]),
            ("list", lambda key: [f"({key}, '')"]),
            ("seat", lambda key: [f"({key}, {seat}, {seat})" for seat in range(SEATS)]),
            ("token", lambda key: [f"({key}, {key // 50}, {key // 50})"]),  # one token a key
        )
        for table, row in rows_of:
            values = [value for key in KEYS if shard_of(table, key) == shard for value in row(key)]
            if values:
                rows(shard, f"INSERT INTO {table} VALUES {', '.join(values)}")


class _Odd(Exception):
    """An error that nothing excuses."""


class Traffic:
    """Use as a context manager: the application runs inside. `told` is whole after it."""

    def __init__(
        self, proxies: Sequence[ProxyUnderTest], seed: str, favoured: Sequence[int] = (), writers: int = 8,
        readers: int = 3, pause: float = PAUSE,
    ) -> None:  # fmt: skip
        """favoured: keys that get half of the work. writers, readers: clients; one more has transactions that last.
        pause: seconds between two pieces of a client's work."""
        self.told = Told()
        self.favoured = list(favoured)
        self._proxies, self._seed, self._pause = proxies, seed, pause
        self._lock = self.told.lock
        self._end = threading.Event()
        self._writers = writers
        works = [self._write] * writers + [self._long] + [self._read] * readers
        self._threads = [threading.Thread(target=self._live, args=(n, work)) for n, work in enumerate(works)]
        self._heard = dict.fromkeys(range(len(self._threads)), 0.0)  # client → when it last got something done
        self._numbers: Counter[int] = Counter()
        self._lost: set[int] = set()  # tokens of which nobody knows where they are
        self._away = float("-inf")  # when a client last met a server, or a connection, that was away

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(90)
            if thread.is_alive():
                self.told.wrong.append("a client did not end within 90 s")

    def goes_on(self) -> bool:
        """Whether each client has got an answer of late."""
        with self._lock:
            return all(time.monotonic() - self._heard[number] < 3.0 for number in range(len(self._threads)))

    # ── clients ──

    def _live(self, number: int, work: Callable[[int, random.Random, Any], None]) -> None:
        """One client after another, each until its connection fails."""
        dice = random.Random(f"{self._seed}.{number}")
        proxy = self._proxies[number % len(self._proxies)]
        while not self._end.is_set():
            try:
                with proxy.connect(read_timeout=45) as client, client.cursor() as cursor:
                    while not self._end.is_set():
                        try:
                            work(number, dice, cursor)
                            self._heard[number] = time.monotonic()
                        except pymysql.MySQLError as error:
                            self._excuse(error)
                            cursor.execute("ROLLBACK")
                        self._end.wait(self._pause)
            except (pymysql.MySQLError, OSError) as error:
                try:
                    self._excuse(error)
                except _Odd as odd:
                    self.told.wrong.append(f"client {number}: {odd}")
                    return
                self._end.wait(0.05)
            except BaseException as error:
                self.told.wrong.append(f"client {number}: {error!r}")
                return

    def _excuse(self, error: BaseException) -> None:
        code = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else 0
        if code not in NOTHING_DONE and code not in AWAY:
            raise _Odd(repr(error)) from error
        with self._lock:
            self.told.refused[code] += 1
            if code in AWAY:
                self._away = time.monotonic()

    def _number(self, writer: int) -> int:
        self._numbers[writer] += 1
        return self._numbers[writer]

    def _key(self, dice: random.Random) -> int:
        return dice.choice(self.favoured if self.favoured and dice.random() < 0.5 else KEYS)

    def _look(self, cursor: Any, query: str, whole: Callable[[Any], bool]) -> Any:
        """The rows of a query. A COMMIT on two shards is acknowledged when the first has it: where the other one died
        then, it is seen there only when recovery has ended it. So what is not whole is looked at again for a while, but
        only when something was away."""
        while True:
            cursor.execute(query)
            rows = cursor.fetchall()
            if whole(rows) or time.monotonic() - self._away > _RECOVERY:
                return rows
            time.sleep(0.05)  # recovery tells nobody when it has ended a branch: one can only look again

    def _decide(
        self, cursor: Any, statements: Sequence[str | float], deciding: str
    ) -> tuple[Outcome, BaseException | None]:
        """Run statements, each of which changes a row, and wait for seconds; `deciding` makes them happen. The outcome,
        and the error if there was one."""
        try:
            for statement in statements:
                if isinstance(statement, float):
                    self._end.wait(statement)
                elif cursor.execute(statement) != 1 and statement != "BEGIN":
                    raise _Odd(f"{cursor.rowcount} rows: {statement}")
        except (pymysql.MySQLError, OSError) as error:
            return Outcome.REFUSED, error
        try:
            if cursor.execute(deciding) != 1 and deciding != "COMMIT":
                raise _Odd(f"{cursor.rowcount} rows: {deciding}")
        except (pymysql.MySQLError, OSError) as error:
            code = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else 0
            return Outcome.REFUSED if code in NOTHING_DONE else Outcome.UNHEARD, error
        with self._lock:
            self.told.done += 1
        return Outcome.ACKNOWLEDGED, None

    # ── writers ──

    def _write(self, number: int, dice: random.Random, cursor: Any) -> None:
        works = (self._transfer, self._transfer, self._count, self._append, self._swap, self._token)
        dice.choice(works)(number, dice, cursor)

    def _transfer(self, writer: int, dice: random.Random, cursor: Any) -> None:
        a, b, amount, no = self._key(dice), self._key(dice), dice.randrange(1, 20), self._number(writer)
        if a == b:
            return
        changes = sorted(((a, -amount), (b, amount)))
        statements: list[str | float] = ["BEGIN"]
        for account, change in changes:
            statements += [
                f"UPDATE account SET balance = balance + {change} WHERE id = {account}",
                f"INSERT INTO entry (account, writer, no, amount) VALUES ({account}, {writer}, {no}, {change})",
            ]
        outcome, error = self._decide(cursor, statements, "COMMIT")
        with self._lock:
            self.told.transfers[writer, no] = (a, b, amount, outcome)
        if error is not None:
            raise error

    def _count(self, writer: int, dice: random.Random, cursor: Any) -> None:
        key = self._key(dice)
        self._add(cursor, [], [key], f"UPDATE account SET n = n + 1 WHERE id = {key}")

    def _add(self, cursor: Any, statements: Sequence[str | float], keys: Sequence[int], deciding: str) -> None:
        """Add 1 to the counters of these keys."""
        with self._lock:
            self.told.maybe.update(keys)
        outcome, error = self._decide(cursor, statements, deciding)
        with self._lock:
            if outcome is not Outcome.UNHEARD:
                self.told.maybe.subtract(keys)
            if outcome is Outcome.ACKNOWLEDGED:
                self.told.counted.update(keys)
        if error is not None:
            raise error

    def _append(self, writer: int, dice: random.Random, cursor: Any) -> None:
        key, no = self._key(dice), self._number(writer)
        with self._lock:
            self.told.appends[writer, no] = (key, Outcome.UNHEARD)
        text = f"UPDATE list SET vals = CONCAT(vals, '{writer}.{no},') WHERE id = {key}"
        outcome, error = self._decide(cursor, [], text)
        with self._lock:
            self.told.appends[writer, no] = (key, outcome)
        if error is not None:
            raise error

    def _swap(self, writer: int, dice: random.Random, cursor: Any) -> None:
        key = self._key(dice)
        a, b = dice.sample(range(SEATS), 2)
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT seat, who FROM seat WHERE grp = {key} ORDER BY seat FOR UPDATE")
        seats = dict(cursor.fetchall())
        if sorted(seats) != list(range(SEATS)) or sorted(seats.values()) != list(range(SEATS)):
            raise _Odd(f"seats of {key}: {seats}")
        put = f"UPDATE seat SET who = {{}} WHERE grp = {key} AND seat = {{}}"
        _, error = self._decide(cursor, [put.format(-1, a), put.format(seats[a], b), put.format(seats[b], a)], "COMMIT")
        if error is not None:
            raise error

    def _token(self, writer: int, dice: random.Random, cursor: Any) -> None:
        """A token of ours gets another number or holder: both are its primary key, and either may be its shard key."""
        tag = dice.choice([tag for tag in range(len(KEYS)) if tag % self._writers == writer])
        query = f"SELECT holder, no FROM token WHERE tag = {tag}"
        found = self._look(cursor, query, lambda rows: len(rows) == 1 or tag in self._lost)
        if len(found) != 1:
            if tag in self._lost:
                return  # the outcome of a change is not decided yet: it may be half visible
            raise _Odd(f"token {tag} is at {found}")
        self._lost.discard(tag)
        holder, no = found[0]
        # No column has a table's name: a change of the shard key gathers whatever tables it seems to name, with locks.
        change = f"no = {no + len(KEYS)}" if dice.random() < 0.5 else f"holder = {self._other(dice, holder)}"
        text = f"UPDATE token SET {change} WHERE holder = {holder} AND no = {no}"
        outcome, error = self._decide(cursor, [], text)
        if outcome is Outcome.UNHEARD:
            self._lost.add(tag)
        if error is not None:
            raise error

    def _other(self, dice: random.Random, holder: int) -> int:
        key = self._key(dice)
        return key if key != holder else self._other(dice, holder)

    def _long(self, number: int, dice: random.Random, cursor: Any) -> None:
        """A transaction that lasts, so that a switch finds it under way."""
        keys = sorted({self._key(dice), self._key(dice)})
        statements: list[str | float] = ["BEGIN"]
        for key in keys:
            statements += [f"UPDATE account SET n = n + 1 WHERE id = {key}", dice.choice((0.1, 0.4, 1.5))]
        self._add(cursor, statements, keys, "COMMIT")
        self._end.wait(1 + dice.random())  # MySQL's snapshots need a moment without a transaction on their tables

    # ── readers ──

    def _read(self, number: int, dice: random.Random, cursor: Any) -> None:
        """Every row is there, once; and nobody sees less than was acknowledged before the question."""
        cursor.execute("SELECT COUNT(*), COUNT(DISTINCT id) FROM account")
        found = cursor.fetchone()
        if found != (len(KEYS), len(KEYS)):
            raise _Odd(f"a reader sees {found[0]} accounts with {found[1]} keys, not {len(KEYS)}")
        for _ in range(3):
            key = self._key(dice)
            with self._lock:
                least = self.told.counted[key]
            query = f"SELECT n FROM account WHERE id = {key}"
            rows = self._look(cursor, query, lambda rows: len(rows) != 1 or rows[0][0] >= least)  # noqa: B023
            with self._lock:
                most = self.told.counted[key] + self.told.maybe[key]
            if len(rows) != 1 or not least <= rows[0][0] <= most:
                raise _Odd(f"counter of {key}: a reader sees {rows}; {least} were acknowledged before, {most} sent")
            cursor.execute(f"SELECT vals FROM list WHERE id = {key}")
            [(text,)] = cursor.fetchall() or [(None,)]
            if text is None:
                raise _Odd(f"list of {key}: a reader does not see it")
            with self._lock:
                self.told.seen.append((key, text))
                del self.told.seen[:-3000]
