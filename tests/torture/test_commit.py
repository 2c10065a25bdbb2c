"""Crashes of proxy and servers in the middle of commits over shards: money is neither made nor lost.

Clients move amounts between accounts of two shards, and book each transfer on both. Workers, the proxy and the servers
are killed at every step of the protocol and at random. In the end the sum is what it was, no branch is left, a transfer
that was acknowledged is on both shards, one that was refused on none, and one whose client never heard is on both or on
none. Meanwhile a reader looks at snapshots of both shards: in each of them the sum is right.

SHARDPROXY_CRASHES=all  every victim at every step, and more at random (a usual run takes every second one)
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.local.proxy_environment import proxy_environment
from tests.proxy import SPLIT, ProxyUnderTest, eventually, start_proxy, transactions

ACCOUNTS, CLIENTS, START = 8, 4, 1000
TOTAL = 2 * ACCOUNTS * START
FAULTS = Path(__file__).parent / "faults"
_UNHEARD = {0, 2006, 2013, 2014, 9113, 9121}  # the client cannot know what became of its COMMIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def shards(flavor: FlavorName) -> Iterator[LocalCluster]:
    with LocalCluster(flavor, shards=2, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def struck(shards: LocalCluster, folder: Path) -> Iterator[ProxyUnderTest]:
    """A proxy whose workers strike where `folder` says."""
    environment = proxy_environment()
    environment["PYTHONPATH"] = f"{FAULTS}:{environment['PYTHONPATH']}"
    environment["SHARDPROXY_FAULTS"] = str(folder)
    running = start_proxy(
        shards,
        "struck",
        proxy={"drain_timeout": "100ms"},
        backend={"connect_timeout": "2s", "pool_wait": "2s"},
        transactions={"recovery_interval": "300ms"},
        environment=environment,
    )
    yield running
    running.process.stop()


class Bank:
    """The clients, and what they were told."""

    def __init__(self, proxy: ProxyUnderTest, seed: int) -> None:
        self.proxy = proxy
        self.seed = seed
        self.acknowledged: set[int] = set()
        self.moves: dict[int, tuple[int, int, int]] = {}  # transfer → from account, to account, amount
        self.refused: dict[int, str] = {}  # → why
        self.unheard: set[int] = set()
        self.wrong: list[int] = []  # sums that snapshots showed
        self.snapshots = 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(CLIENTS)]
        self._threads.append(threading.Thread(target=self._reader))

    def open(self) -> None:
        self.proxy.empty()
        with self.proxy.connect() as connection, connection.cursor() as cursor:
            for n in range(ACCOUNTS):
                for uid in (n, SPLIT + n):
                    cursor.execute(f"INSERT INTO users VALUES ({uid}, 'a{uid}', {START})")
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        dice = random.Random(f"{self.seed}.{number}")
        transfer = number
        while not self._end.is_set():
            try:
                with closing(self.proxy.connect(read_timeout=90)) as connection:
                    while not self._end.is_set():
                        transfer += CLIENTS
                        self._transfer(connection, dice, transfer)
            except (pymysql.MySQLError, OSError):
                self._end.wait(0.02)

    def _reader(self) -> None:
        while not self._end.is_set():
            try:
                with closing(self.proxy.connect(read_timeout=90)) as connection, connection.cursor() as cursor:
                    while not self._end.wait(0.02):
                        cursor.execute("/*shardproxy: snapshot*/ SELECT SUM(balance) FROM users")
                        total = int(cursor.fetchone()[0])
                        self.snapshots += 1
                        if total != TOTAL:
                            self.wrong.append(total)
            except (pymysql.MySQLError, OSError):
                self._end.wait(0.02)

    def _transfer(self, connection: pymysql.Connection, dice: random.Random, transfer: int) -> None:
        """One transfer. Raises when the connection has to be made anew."""
        a, b, amount = dice.randrange(ACCOUNTS), SPLIT + dice.randrange(ACCOUNTS), dice.randrange(1, 50)
        steps = [
            "BEGIN",
            f"UPDATE users SET balance = balance - {amount} WHERE uid = {a}",
            f"INSERT INTO orders VALUES ({a}, {transfer}, 1)",
            f"UPDATE users SET balance = balance + {amount} WHERE uid = {b}",
            f"INSERT INTO orders VALUES ({b}, {transfer}, 1)",
        ]
        self.moves[transfer] = (a, b, amount)
        if dice.random() < 0.5:
            steps[1:] = [*steps[3:], *steps[1:3]]
        try:
            with connection.cursor() as cursor:
                for step in steps:
                    cursor.execute(step)
        except (pymysql.MySQLError, OSError) as error:
            self.refused[transfer] = f"before COMMIT: {error!r}"
            raise
        try:
            connection.commit()
        except (pymysql.MySQLError, OSError) as error:
            code = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else 0
            if code in _UNHEARD:
                self.unheard.add(transfer)
            else:
                self.refused[transfer] = f"at COMMIT: {error!r}"
            raise
        self.acknowledged.add(transfer)

    def done(self) -> int:
        return len(self.acknowledged)

    def audit(self) -> None:
        """Everything adds up. All clients and servers are at rest."""
        shards = (self.proxy.primary(0), self.proxy.primary(1))
        eventually(lambda: not any(_unfinished(shard) for shard in shards), "no branch and no transaction is left", 30)
        booked, balances = zip(*[_books(shard) for shard in shards], strict=True)
        assert booked[0] == booked[1], "transfers that are on one shard only"
        assert self.acknowledged <= booked[0], "acknowledged transfers that are lost"
        made = {transfer: why for transfer, why in self.refused.items() if transfer in booked[0]}
        assert not made, "refused transfers that were made"
        assert booked[0] <= self.acknowledged | self.unheard
        due = {uid: START for n in range(ACCOUNTS) for uid in (n, SPLIT + n)}
        for a, b, amount in (self.moves[transfer] for transfer in booked[0]):
            due[a] -= amount
            due[b] += amount
        assert balances[0] | balances[1] == due, "accounts that differ from what is booked"
        assert not self.wrong


def _unfinished(shard: LocalServer) -> list[tuple[object, ...]]:
    """Prepared branches, and transactions that have changed something: also those whose client is gone."""
    return [*shard.rows("XA RECOVER"), *transactions(shard, "trx_id", "trx_rows_modified > 0")]


def _books(shard: LocalServer) -> tuple[set[int], dict[int, int]]:
    """Transfers booked on a shard, and its accounts' balances, as of one moment."""
    rows = shard.rows("SELECT 0, oid, 0 FROM main.orders UNION ALL SELECT 1, uid, balance FROM main.users")
    return {int(row[1]) for row in rows if row[0] == 0}, {int(row[1]): int(row[2]) for row in rows if row[0] == 1}


def ready(proxy: ProxyUnderTest) -> None:
    def good() -> bool:
        try:
            proxy.get("/readyz")
            with proxy.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM countries")
        except (OSError, pymysql.MySQLError):
            return False
        return True

    eventually(good, "the proxy is ready", 60)


def progress(bank: Bank, more: int = 10) -> None:
    """Wait for some transfers that are acknowledged from now on."""
    goal = bank.done() + more
    eventually(lambda: bank.done() >= goal, "transfers go on", 60)
    seen = bank.snapshots
    eventually(lambda: bank.snapshots > seen, "snapshots are read", 60)


def strike(proxy: ProxyUnderTest, folder: Path, step: int, victim: str) -> None:
    """Kill the victim at the next commit's step, and bring it back."""
    who = {"worker": "die", "proxy": f"{proxy.process.pid} die", "soon worker": "soon die"}.get(victim)
    if who is None:
        soon = "soon " if victim.startswith("soon") else ""
        who = f"{soon}{proxy.primary(int(victim[-1]) - 1).pid}"
    armed = folder / "new"
    armed.write_text(who)
    armed.rename(folder / str(step))
    taken = folder / f"{step}.taken"
    eventually(taken.exists, f"step {step} is reached", 60)
    taken.unlink()
    if victim == "proxy":
        eventually(lambda: not proxy.process.running, "the proxy is dead", 20)
        proxy.process.start()
    elif "shard" in victim:
        server = proxy.primary(int(victim[-1]) - 1)
        eventually(lambda: not server.running, "the server is dead", 20)
        server.start()
    ready(proxy)


VICTIMS = ("worker", "soon worker", "proxy", "shard 1", "soon shard 1", "shard 2", "soon shard 2")
# A usual run strikes every second victim, by turns: each dies at two of the steps.
ALL = os.environ.get("SHARDPROXY_CRASHES") == "all"


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_crashes_at_a_step(struck: ProxyUnderTest, folder: Path, step: int) -> None:
    bank = Bank(struck, step)
    bank.open()
    try:
        for victim in VICTIMS if ALL else VICTIMS[step % 2 :: 2]:
            progress(bank)
            strike(struck, folder, step, victim)
        progress(bank)
    finally:
        bank.close()
    bank.audit()


def test_crashes_at_random(struck: ProxyUnderTest) -> None:
    dice = random.Random(6)
    bank = Bank(struck, 99)
    bank.open()
    try:
        for _ in range(20 if ALL else 5):
            progress(bank, dice.randrange(5, 60))
            shard = dice.randrange(3)
            if shard == 2:
                os.kill(dice.choice(struck.worker_pids()), signal.SIGKILL)
            else:
                struck.primary(shard).kill()
                struck.primary(shard).start()
            ready(struck)
        progress(bank)
    finally:
        bank.close()
    bank.audit()


def test_connections_cut_at_random(struck: ProxyUnderTest) -> None:
    """A server closes one of the proxy's connections every few milliseconds: in the midst of statements, of commits and
    between them, also when the client's next statement is just coming."""
    dice = random.Random(7)
    pace = threading.Event()  # never set
    bank = Bank(struck, 101)
    bank.open()
    try:
        with closing(struck.primary(0).connect()) as first, closing(struck.primary(1).connect()) as second:
            left, cut = 40 if ALL else 6, False
            while left > 0 or not cut:  # the faster transfers are, the fewer of them are cut
                left -= 1
                assert left > -100, "commits are cut, and statements before them"
                goal = bank.done() + 100
                until = time.monotonic() + 60
                while bank.done() < goal and time.monotonic() < until:
                    _cut_one(dice.choice((first, second)), dice)
                    begun = len(bank.moves)  # no more cuts than transfers, or on a fast machine hardly one is ever done
                    while len(bank.moves) == begun and time.monotonic() < until:
                        pace.wait(dice.random() * 0.006)
                assert bank.done() >= goal, "transfers go on"
                cut = len(bank.unheard) > 20 and len(bank.refused) > 100
    finally:
        bank.close()
    bank.audit()


def _cut_one(connection: pymysql.Connection, dice: random.Random) -> None:
    """KILL one connection of the proxy's clients."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'shardproxy' AND db = 'main'")
        idents = [int(row[0]) for row in cursor.fetchall()]
        if idents:
            with suppress(pymysql.MySQLError):
                cursor.execute(f"KILL {dice.choice(idents)}")
