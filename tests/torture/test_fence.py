"""Writers across many switches, forward and back: every acknowledged write is counted exactly once.

The switch is done by hand, with nothing but what a proxy must rely on: the map, a barrier, the fence, its slots. While
the fence is closed the rows are copied; if a write reached the source afterwards it would be lost. Without the fence,
or with COMMIT sent before its answer is read, that happens, and the test says so.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pymysql
import pytest

from shardproxy.executor import fence
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, KeyRange, RangeMap
from shardproxy.topology.model import Snapshot
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from tests.in_process import WorkerHere
from tests.proxy import SPLIT, eventually

WRITERS, KEYS, SWITCHES = 6, 12, 8
FIRST = 500  # the moving keys are FIRST to SPLIT − 1
IDENT = 9
MOVING = MovingKeys(KeyType.INT, intervals=[(FIRST, SPLIT)])
OWNED = (
    RangeMap((KeyRange(INT_MIN, SPLIT, 0), KeyRange(SPLIT, INT_MAX + 1, 1))),
    RangeMap((KeyRange(INT_MIN, FIRST, 0), KeyRange(FIRST, INT_MAX + 1, 1))),
)
_AGAIN = (1213, 1205, 9122)


@pytest.fixture
def here(flavor: FlavorName) -> Iterator[WorkerHere]:
    with LocalCluster(flavor, shards=2, replicas=0) as cluster, WorkerHere(cluster) as here:
        yield here
        fence.mode = fence.Mode.ON


class Writers:
    """acknowledged: how much was added to each key."""

    def __init__(self, here: WorkerHere) -> None:
        self.here = here
        self.acknowledged = dict.fromkeys(range(FIRST, FIRST + KEYS), 0)
        self.refused: dict[int, int] = {}
        self.odd: list[BaseException] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(WRITERS)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        dice = random.Random(number)
        with closing(self.here.connect()) as connection:
            while not self._end.is_set():
                try:
                    self._write(connection, dice)
                except pymysql.MySQLError as error:
                    code = int(error.args[0])
                    with self._lock:
                        self.refused[code] = self.refused.get(code, 0) + 1
                    connection.rollback()
                    if code not in _AGAIN:
                        self.odd.append(error)
                        return

    def _write(self, connection: pymysql.Connection, dice: random.Random) -> None:
        keys = sorted(dice.sample(sorted(self.acknowledged), 2))
        add = "UPDATE users SET balance = balance + 1 WHERE uid = %d"
        shape = dice.randrange(4)
        with connection.cursor() as cursor:
            if shape == 0:  # a transaction by itself
                del keys[1]
                cursor.execute(add % keys[0])
            elif shape == 1:  # on several shards by itself
                cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid IN ({keys[0]}, {keys[1]}, {SPLIT})")
            else:
                cursor.execute("BEGIN")
                if shape == 3:
                    cursor.execute(add % (SPLIT + dice.randrange(3)))
                cursor.execute(add % keys[0])
                self._end.wait(dice.choice((0, 0.002, 0.05)))
                cursor.execute(add % keys[1])
                cursor.execute("COMMIT")
        with self._lock:
            for key in keys:
                self.acknowledged[key] += 1


class Switch:
    """What an orchestrator does between copying and open."""

    def __init__(self, here: WorkerHere) -> None:
        self.here = here
        self.epoch = 0
        self.owner = 0

    def run(self) -> None:
        source, target = self.owner, 1 - self.owner
        server, other = self.here.primary(source), self.here.primary(target)
        self.epoch += 2
        self._hand(Phase.ARMED, source)
        eventually(lambda: self._arm(server), "the fence is armed")
        self._barrier()
        time.sleep(random.random() * 0.05)  # transactions go on meanwhile, and some begin
        stale = self.epoch % 4 == 0  # the proxy is stopped until after the switch, as it were: it has the map of ARMED
        if not stale:
            self._hand(Phase.CLOSING, source)
        with server.connect() as connection, connection.cursor() as cursor:
            if fence.mode is not fence.Mode.OFF:
                self._close(cursor)
                cursor.execute("SELECT * FROM _shardproxy.fence_slot LOCK IN SHARE MODE")
                cursor.execute("COMMIT")
            cursor.execute("SELECT uid, name, balance FROM main.users WHERE uid BETWEEN %s AND %s", (FIRST, SPLIT - 1))
            rows = cursor.fetchall()
        if stale:
            time.sleep(0.1)
        with other.connect() as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO main.users (uid, name, balance) VALUES (%s, %s, %s)", rows)
            connection.commit()
        self.owner = target
        self._hand(Phase.SWITCHED, source)
        self._barrier()
        self._hand(Phase.OPEN, source)
        delete_moving(server)
        self.here.hand(self._map(None))

    def _arm(self, server: LocalServer) -> bool:
        """False when it must be tried again: statements in between may meet it in a deadlock. It does not wait long:
        those behind it would wait too, and the proxy sees no ring over shards that this connection is part of."""
        try:
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SET innodb_lock_wait_timeout = 1")
                cursor.execute(
                    f"INSERT INTO _shardproxy.fence (move_id, epoch) VALUES ({IDENT}, {self.epoch}) "
                    "ON DUPLICATE KEY UPDATE epoch = VALUES(epoch)"
                )
        except pymysql.MySQLError as error:
            if error.args[0] not in (1205, 1213):
                raise
            return False
        return True

    def _close(self, cursor: pymysql.cursors.Cursor) -> None:
        """Without waiting in the lock's queue, where those behind would wait who hold rows that those before it want: a
        ring over shards that no server sees. Only a proxy that goes on with an old map makes it necessary."""
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        for attempt in range(1000):
            cursor.execute("BEGIN")
            try:
                if attempt % 200 != 199:
                    cursor.execute(f"SELECT 1 FROM _shardproxy.fence WHERE move_id = {IDENT} FOR UPDATE NOWAIT")
                cursor.execute(f"UPDATE _shardproxy.fence SET epoch = {self.epoch + 1} WHERE move_id = {IDENT}")
            except pymysql.MySQLError as error:
                if error.args[0] not in (1205, 1213, 3572):
                    raise
                time.sleep(0.002)
            else:
                cursor.execute("COMMIT")
                return
        raise AssertionError("the fence could not be closed")

    def _map(self, move: Move | None) -> Snapshot:
        return self.here.moving(move, "main", map=OWNED[self.owner])

    def _hand(self, phase: Phase, source: int) -> None:
        self.here.hand(self._map(Move(IDENT, phase, self.epoch, (Stream(source, 1 - source, MOVING),))))

    def _barrier(self) -> None:
        """Until no command that came before is under way, but those that wait for a map."""
        clients = self.here.worker.front.clients

        def busy() -> dict[int, float]:
            return {ident: c.started for ident, c in clients.items() if c.busy and c.waiting is None}

        before = self.here.on_loop(busy)
        eventually(lambda: not before.items() & self.here.on_loop(busy).items(), "the barrier", 20)


def delete_moving(server: LocalServer) -> None:
    server.rows(f"DELETE FROM main.users WHERE uid BETWEEN {FIRST} AND {SPLIT - 1}")


def difference(here: WorkerHere, writers: Writers, owner: int) -> int:
    """How much more was acknowledged than is there; 0 when each write is there once."""
    rows = here.primary(owner).rows(f"SELECT uid, balance FROM main.users WHERE uid BETWEEN {FIRST} AND {SPLIT - 1}")
    there = {int(uid): int(balance) for uid, balance in rows}
    return sum(abs(count - there.get(uid, 0)) for uid, count in writers.acknowledged.items())


def go(here: WorkerHere, switches: int) -> tuple[Writers, Switch]:
    for uid in range(FIRST, FIRST + KEYS):
        here.primary(0).rows(f"INSERT INTO main.users VALUES ({uid}, 'm', 0)")
    for uid in range(SPLIT, SPLIT + 3):
        here.primary(1).rows(f"INSERT INTO main.users VALUES ({uid}, 's', 0)")
    switch = Switch(here)
    with Writers(here) as writers:
        for _ in range(switches):
            switch.run()
            time.sleep(0.2)
    return writers, switch


def test_every_acknowledged_write_is_there_once(here: WorkerHere) -> None:
    writers, switch = go(here, SWITCHES)
    held = here.worker.front.gateway.held_writes
    print(f"acknowledged {sum(writers.acknowledged.values())}, refused {writers.refused}, held {held.count}, "
          f"longest {held.longest * 1000:.0f} ms")  # fmt: skip
    assert not writers.odd
    assert held.count > 0
    assert difference(here, writers, switch.owner) == 0


@pytest.mark.parametrize("wrong", [fence.Mode.OFF, fence.Mode.BLIND])
def test_it_turns_red_without_the_fence(here: WorkerHere, wrong: fence.Mode) -> None:
    """In every other respect the switch is the same: the map, the barrier, held writes."""
    fence.mode = wrong
    writers, switch = go(here, SWITCHES)
    assert difference(here, writers, switch.owner) != 0 or writers.odd
