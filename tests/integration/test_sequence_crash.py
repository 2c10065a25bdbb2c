"""No number is given twice: many clients, two workers, kill -9 of a worker and of the shard that holds the sequence."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial

import pymysql
import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from tests.proxy import ProxyUnderTest, eventually, start_proxy

KEYSPACES = """
[keyspaces.counted]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1 }
tables = { notes = { key = "uid" } }
"""
# The number is no key here: the servers would store one twice.
TABLE = (
    "CREATE TABLE counted.notes (uid BIGINT NOT NULL, id BIGINT NOT NULL AUTO_INCREMENT, own INT NOT NULL DEFAULT 0, "
    "KEY (id), KEY (uid))"
)


@pytest.fixture
def counted(flavor: FlavorName) -> Iterator[ProxyUnderTest]:
    """Servers of the test's own, to be killed, and a proxy with two workers that take few numbers at once."""
    with LocalCluster(flavor, shards=2) as cluster:
        for shard in cluster.shards:
            shard.primary.rows("CREATE DATABASE counted CHARACTER SET utf8mb4")
            shard.primary.rows(TABLE)
        users = {"app": {"password": "app", "reads": "primary"}}
        running = start_proxy(cluster, "counted-crash", keyspaces=KEYSPACES, users=users)
        yield running
        running.process.stop()


class Writers:
    """Clients that insert until told to stop, and connect again when their connection or statement fails."""

    def __init__(self, proxy: ProxyUnderTest, count: int) -> None:
        self.proxy = proxy
        self.told: list[int] = []  # numbers that clients were told
        self.failures = 0
        self.wrong: list[BaseException] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        uid = number
        while not self._stop.is_set():
            try:
                connection = self.proxy.connect(database="counted")
                with connection.cursor() as cursor:
                    while not self._stop.is_set():
                        uid += 8
                        cursor.execute("INSERT INTO notes (uid) VALUES (%s)", (uid,))
                        with self._lock:
                            self.told.append(cursor.lastrowid)
            except (pymysql.MySQLError, OSError):
                with self._lock:
                    self.failures += 1
            except BaseException as error:
                self.wrong.append(error)
                raise

    def progress(self, by: int) -> None:
        """Wait until clients were told so many more numbers."""
        wanted = len(self.told) + by
        eventually(lambda: len(self.told) >= wanted, "inserts go on", 60)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.wrong


def stored(proxy: ProxyUnderTest) -> list[int]:
    return [int(n) for shard in (0, 1) for (n,) in proxy.primary(shard).rows("SELECT id FROM counted.notes")]


def check(proxy: ProxyUnderTest, writers: Writers) -> None:
    found = stored(proxy)
    assert len(found) == len(set(found)), "a number was given twice"
    assert len(writers.told) == len(set(writers.told)), "two clients were told the same number"
    assert set(writers.told) <= set(found), "a row that a client was told of is gone"


def _replaced(proxy: ProxyUnderTest, victim: int) -> bool:
    pids = proxy.worker_pids()
    return len(pids) == 2 and victim not in pids


def _failed(writers: Writers, before: int) -> bool:
    return writers.failures > before


def test_a_killed_worker(counted: ProxyUnderTest) -> None:
    writers = Writers(counted, 8)
    for n in range(3):
        writers.progress(150)
        victim = counted.worker_pids()[n % 2]  # in turn: the kernel may have given all clients to one of them
        os.kill(victim, signal.SIGKILL)
        eventually(partial(_replaced, counted, victim), "the worker is replaced")
    writers.progress(150)
    writers.stop()
    assert writers.failures, "nobody was connected to the workers that died"
    check(counted, writers)


def test_the_shard_that_holds_the_sequence_is_killed(counted: ProxyUnderTest) -> None:
    writers = Writers(counted, 6)
    for _ in range(2):
        writers.progress(100)
        counted.primary(0).kill()
        eventually(partial(_failed, writers, writers.failures), "clients see that the shard is gone")
        counted.primary(0).restart()
    writers.progress(100)
    writers.stop()
    check(counted, writers)


def test_rows_that_bring_their_own_numbers(counted: ProxyUnderTest) -> None:
    """Each is stored, and no number that is made later is the same: above all numbers, and among those in use."""
    writers = Writers(counted, 4)
    writers.progress(50)
    own = []
    with counted.connect(database="counted") as connection, connection.cursor() as cursor:
        for jump in (500, 3, 150, 100_000, 7):
            value = max(stored(counted)) + jump
            before = set(stored(counted))
            cursor.execute("INSERT INTO notes (uid, id, own) VALUES (%s, %s, 1)", (value, value))
            if value not in before:
                own.append(value)
            writers.progress(20)
    writers.progress(700)
    writers.stop()
    found = stored(counted)
    rows = [row for shard in (0, 1) for row in counted.primary(shard).rows("SELECT id, own FROM counted.notes")]
    made = [int(n) for n, mine in rows if not mine]
    assert len(made) == len(set(made))
    # A number made before its twin was brought is what one server would have stored as well: nothing is unique here.
    late = writers.told[-700:]
    assert not set(own) & set(late)
    assert set(own) <= set(found)
