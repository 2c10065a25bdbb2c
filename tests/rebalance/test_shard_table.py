"""A table on a single shard becomes a sharded one end to end, and back, while clients insert rows that its server, then
the proxies, number."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.reshard.orchestrator import Orchestrator
from shardproxy.topology.keys import KeyType
from shardproxy.topology.map_document import Stream, TableMove
from shardproxy.topology.maps import INT_MAX, INT_MIN, KeyRange, RangeMap
from shardproxy.topology.stages import Stage
from shardproxy.topology.streams import streams_from_one
from shardproxy.topology.workflow import Plan
from tests.clients import Clients
from tests.proxy import ProxyUnderTest, eventually
from tests.rebalance.test_move import KEYSPACES, RETRIABLE, Scene, running, until

NAMES = ("shard1", "shard2", "shard3")
MAP = RangeMap([KeyRange(INT_MIN, 1000, 0), KeyRange(1000, 2000, 1), KeyRange(2000, INT_MAX + 1, 2)])
SINGLE = KEYSPACES.replace("entry = {", 'note = { single = "shard2" }, entry = {')
NOTE = (
    "CREATE TABLE note (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, account BIGINT NOT NULL, writer INT NOT NULL, "
    "no INT NOT NULL, changed INT NOT NULL DEFAULT 0, KEY (account))"
)
PLAN = Plan(
    goal="test",
    streams=tuple(Stream.of(stream, NAMES) for stream in streams_from_one(1, MAP, KeyType.INT)),
    table=TableMove(name="note", key="account"),
)
RETRIABLE_READ = RETRIABLE | {1317}  # the server's own: keys have moved when the answer had begun
HOLD = 10.0  # the machine may be busy


class Notes(Clients):
    """Clients that write notes, change them, and look whether all are there, but for so many that are `between`."""

    between = 0

    def __init__(self, proxies: list[ProxyUnderTest]) -> None:
        super().__init__()
        self.told: dict[int, tuple[int, ...]] = {}  # id → account, writer, number
        self.changed: dict[int, int] = {}
        self.done = 0
        self._proxies = proxies
        self._threads = [threading.Thread(target=self._run, args=(self._write, n)) for n in range(2)]
        self._threads.append(threading.Thread(target=self._run, args=(self._read, 1)))

    def _run(self, work: Any, number: int) -> None:
        try:
            with self._proxies[number].connect() as client, client.cursor() as cursor:
                step = 0
                while not self._end.is_set():
                    step += 1
                    try:
                        work(cursor, number, step)
                    except pymysql.MySQLError as error:
                        if error.args[0] not in (RETRIABLE if work == self._write else RETRIABLE_READ):
                            raise
                        cursor.execute("ROLLBACK")
        except BaseException as error:
            self.errors.append(error)

    def _write(self, cursor: Any, number: int, step: int) -> None:
        account = step * 37 % 3000 // 25 * 25
        if step % 3 == 0:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE account SET n = n + 1 WHERE id = %s", (account,))
        cursor.execute("INSERT INTO note (account, writer, no) VALUES (%s, %s, %s)", (account, number, step))
        ident = cursor.lastrowid
        if step % 3 == 0:
            cursor.execute("COMMIT")
        assert ident not in self.told
        self.told[ident] = (account, number, step)
        if step % 2:
            cursor.execute("UPDATE note SET changed = changed + 1 WHERE id = %s", (ident,))
            assert cursor.rowcount == 1
            self.changed[ident] = 1
        self.done += 1

    def _read(self, cursor: Any, number: int, step: int) -> None:
        told = len(self.told)
        cursor.execute("SELECT COUNT(*), COUNT(DISTINCT id), COUNT(DISTINCT writer, no) FROM note")
        rows, ids, notes = cursor.fetchone()
        assert ids == notes >= told - self.between
        assert rows <= ids + self.between


def goes_on(notes: Notes) -> None:
    before = notes.done
    eventually(lambda: notes.done > before + 30 or bool(notes.errors), "clients write notes", 30.0)


def check(scene: Scene, notes: Notes, sharded: bool) -> None:
    """Each note that a client was told of once, on the shard where it belongs."""
    assert not notes.errors, notes.errors
    found = {}
    for place, rows in enumerate(scene.on_shards("SELECT id, account, writer, no, changed FROM note")):
        for ident, account, writer, no, changed in rows:
            assert ident not in found
            assert place == (MAP.lookup(account) if sharded else 1)
            assert changed == notes.changed.get(ident, 0)
            found[ident] = (account, writer, no)
    assert found == notes.told


@pytest.fixture
def scene(flavor: FlavorName) -> Iterator[Scene]:
    with LocalCluster(flavor, shards=3) as cluster, running(cluster, SINGLE, {1: NOTE}) as proxies:
        yield Scene(cluster, proxies, cluster.folder / "left.toml")


def there_and_back_and_for_good(scene: Scene, notes: Notes, plan: Plan) -> None:
    """Two moves of a table while clients write notes: one that is taken back after its switch, and one to the end."""

    async def there_and_back(orchestrator: Orchestrator) -> None:
        await until(orchestrator, Stage.COPYING)
        await orchestrator.copied()
        await asyncio.to_thread(goes_on, notes)
        await until(orchestrator, Stage.OPEN)
        print(f"held {orchestrator.held * 1000:.0f} ms")
        await asyncio.to_thread(goes_on, notes)
        while orchestrator.ledger.stage is Stage.OPEN:  # again, when a switch was given up for a moment
            await orchestrator.reverse()
            await orchestrator.run(lambda stage: False)
        assert orchestrator.ledger.stage is Stage.REVERSE_DONE

    async def for_good(orchestrator: Orchestrator) -> None:
        await until(orchestrator, Stage.OPEN)
        await asyncio.to_thread(goes_on, notes)
        await until(orchestrator, Stage.DONE)
        await asyncio.to_thread(goes_on, notes)

    goes_on(notes)
    scene.lead(there_and_back, plan, HOLD)
    goes_on(notes)
    scene.lead(for_good, plan, HOLD)


def test_a_single_table_becomes_a_sharded_one_goes_back_and_goes_again(scene: Scene) -> None:
    with Notes(scene.proxies) as notes:
        there_and_back_and_for_good(scene, notes, PLAN)
    print(f"{notes.done} notes")
    check(scene, notes, sharded=True)
