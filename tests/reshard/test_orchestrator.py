"""A move from plan to end on real servers: the phases, the way back, cancelling, an orchestrator that starts anew.

No proxy takes part here: what is looked at is where the rows are, and what the store says.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shardproxy.config import parse
from shardproxy.errors import MoveError, NotOurs, RowsDiffer
from shardproxy.local.flavors import FlavorName
from shardproxy.reshard import leading, ledger, snapshot
from shardproxy.reshard.eviction import Evictor
from shardproxy.reshard.ledger import Ledger
from shardproxy.reshard.orchestrator import Orchestrator, Settings
from shardproxy.reshard.throttle import Throttle, ThrottleLimits
from shardproxy.store.embedded import EmbeddedStore
from shardproxy.store.interface import ABSENT
from shardproxy.topology.bootstrap import first_document
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.map_document import Stream
from shardproxy.topology.map_form import KeySet
from shardproxy.topology.model import Snapshot
from shardproxy.topology.stages import FINAL, Stage, Step
from shardproxy.topology.stored import MAPS
from shardproxy.topology.workflow import Plan
from tests.proxy import eventually
from tests.reshard.sides import LOGIN, Sides

_owners = itertools.count(1)


class Desk:
    """A store with the map of one database on two shards, and orchestrators of moves in it."""

    def __init__(self, sides: Sides, store: EmbeddedStore, snapshot: Snapshot) -> None:
        self.sides, self.store, self.snapshot = sides, store, snapshot

    def lead(self, leading: Ledger, **more: Any) -> Orchestrator:
        primaries = [shard.primary for shard in self.snapshot.shards]
        evictor = Evictor(self.store, primaries, LOGIN.credentials)
        return Orchestrator(leading, self.snapshot, LOGIN, evictor, settings=Settings(hold=5.0, settle=0.0, **more))

    async def plan(self, low: int, high: int) -> Ledger:
        keys = KeySet.model_validate({"ranges": ((low, high),)})
        a, b = (shard.name for shard in self.snapshot.shards)
        plan = Plan(goal="test", streams=(Stream(source=a, target=b, keys=keys),))
        return await ledger.begin(self.store, self.sides.database, f"owner{next(_owners)}", plan, time.time)

    async def claim(self, ident: int) -> Ledger:
        return await Ledger.claim(self.store, ident, f"owner{next(_owners)}", time.time)

    def keys(self) -> tuple[list[int], list[int]]:
        """The keys that each shard has rows of."""
        database = self.sides.database
        found = []
        for server in (self.sides.source, self.sides.target):
            there = server.rows("SHOW TABLES", database=database)
            rows = server.rows("SELECT uid FROM t ORDER BY uid", database=database) if there else ()
            found.append([int(row[0]) for row in rows])
        return found[0], found[1]

    async def owner(self, key: int) -> str:
        document, _ = await ledger.read_map(self.store, self.sides.database)
        return next(r.shard for r in document.map.ranges if r.start <= key < r.end)  # type: ignore[union-attr]


@asynccontextmanager
async def desk(sides: Sides, folder: Path) -> AsyncIterator[Desk]:
    config = parse(
        {
            "backend": {"user": "root", "password": "root"},
            "users": {"app": {"password": "x"}},
            "shards": {
                sides.server(server).shard: {"primary": server.address} for server in (sides.source, sides.target)
            },
            "keyspaces": {
                sides.database: {
                    "key_type": "int",
                    "map": "range",
                    "ranges": [
                        {"from": "min", "to": 1000, "shard": sides.server(sides.source).shard},
                        {"from": 1000, "to": "max", "shard": sides.server(sides.target).shard},
                    ],
                    "tables": {"t": {"key": "uid"}},
                }
            },
        }
    )
    snapshot = build_snapshot(config)
    store = await EmbeddedStore.open(folder / "store.sqlite", 5.0)
    try:
        document = first_document(snapshot, snapshot.keyspaces[sides.database])
        await store.put(MAPS + sides.database, document.document(), ABSENT)
        yield Desk(sides, store, snapshot)
    finally:
        await store.close()


@pytest.fixture
def run(sides: Sides, tmp_path: Path) -> Callable[[Callable[[Desk], Awaitable[None]]], None]:
    sides.source.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20))", database=sides.database)
    sides.source.rows(
        "INSERT INTO t VALUES " + ", ".join(f"({n}, 'v{n}')" for n in range(100, 1000, 100)), database=sides.database
    )

    def go(work: Callable[[Desk], Awaitable[None]]) -> None:
        async def all_of_it() -> None:
            async with desk(sides, tmp_path) as found:
                await work(found)

        asyncio.run(all_of_it())

    return go


Run = Callable[[Callable[[Desk], Awaitable[None]]], None]
ALL = list(range(100, 1000, 100))


def until(phase: Stage) -> Callable[[Stage], bool]:
    return lambda now: now is phase


def test_there_and_done(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.COPYING))
            await orchestrator.copied()
            with pytest.raises(MoveError, match="one move at a time; complete or cancel it first"):
                await desk.plan(500, 700)
            assert desk.keys() == (ALL, [300, 400, 500])
            sides.source.rows("UPDATE t SET v = 'new' WHERE uid = 300", database=sides.database)
            sides.source.rows("INSERT INTO t VALUES (350, 'x')", database=sides.database)
            assert await desk.owner(300) != await desk.owner(1000)
            await orchestrator.run(until(Stage.OPEN))
            assert await desk.owner(300) == await desk.owner(1000)
            assert sides.target.rows("SELECT v FROM t WHERE uid IN (300, 350)", database=sides.database) == [
                ("new",),
                ("x",),
            ]
            assert orchestrator.held < 5
            # The way back is open: what the new owner writes reaches the old one.
            await orchestrator.opened()
            sides.target.rows("UPDATE t SET v = 'later' WHERE uid = 400", database=sides.database)
            deadline = time.monotonic() + 20
            while sides.source.rows("SELECT v FROM t WHERE uid = 400", database=sides.database) != [("later",)]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            await orchestrator.run(until(Stage.DONE), complete=True)
        finally:
            await orchestrator.close()
        assert desk.keys() == ([100, 200, 600, 700, 800, 900], [300, 350, 400, 500])
        document, _ = await ledger.read_map(desk.store, sides.database)
        assert document.move is None and set(document.positions) == {s.name for s in desk.snapshot.shards}
        with pytest.raises(MoveError, match="nothing left"):
            await desk.claim(1)

    run(work)


def test_servers_that_have_other_defaults(run: Run, sides: Sides) -> None:
    """Commits that begin the next transaction, answers that end early: each would leave rows behind."""
    others = {"autocommit": "0", "completion_type": "'CHAIN'", "sql_select_limit": "2", "sql_safe_updates": "1"}

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 800))
        try:
            await orchestrator.run(until(Stage.OPEN))
            await orchestrator.opened()
            await orchestrator.run(until(Stage.DONE), complete=True)
        finally:
            await orchestrator.close()

    servers = (sides.source, sides.target)
    try:
        for server in servers:
            server.rows("SET GLOBAL " + ", ".join(f"{name} = {value}" for name, value in others.items()))
        run(work)
    finally:
        for server in servers:
            server.rows("SET GLOBAL " + ", ".join(f"{name} = DEFAULT" for name in others))
    found = [server.rows("SELECT uid FROM t ORDER BY uid", database=sides.database) for server in servers]
    assert found == [[(100,), (200,), (800,), (900,)], [(300,), (400,), (500,), (600,), (700,)]]


def test_there_and_back(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.OPEN))
            sides.target.rows("UPDATE t SET v = 'b' WHERE uid = 300", database=sides.database)
            sides.target.rows("DELETE FROM t WHERE uid = 400", database=sides.database)
            await orchestrator.reverse()
            await orchestrator.run(until(Stage.REVERSE_DONE))
        finally:
            await orchestrator.close()
        assert desk.keys() == ([n for n in ALL if n != 400], [])
        assert sides.source.rows("SELECT v FROM t WHERE uid = 300", database=sides.database) == [("b",)]
        assert await desk.owner(300) != await desk.owner(1000)

    run(work)


@pytest.mark.parametrize(
    "phase", [Stage.PREPARED, Stage.COPYING, Stage.ARMED, Stage.CLOSING]
)
def test_cancelled(run: Run, sides: Sides, phase: Stage) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(phase))
            await orchestrator.proceed(Step.CANCEL)
            await orchestrator.run(until(Stage.CANCELLED))
        finally:
            await orchestrator.close()
        assert desk.keys() == (ALL, [])
        again = desk.lead(await desk.plan(300, 600))
        try:
            await again.run(until(Stage.DONE), complete=True)
        finally:
            await again.close()
        assert desk.keys() == ([100, 200, 600, 700, 800, 900], [300, 400, 500])

    run(work)


@pytest.mark.parametrize("phase", [p for p in Stage if p not in FINAL and p is not Stage.CANCELLING])
def test_another_orchestrator_goes_on(run: Run, sides: Sides, phase: Stage) -> None:
    """From every phase: what the first had begun is done again or given up, and it cannot do anything any more."""
    back = phase.value.startswith("reverse")
    end = Stage.REVERSE_DONE if back else Stage.DONE

    async def work(desk: Desk) -> None:
        first = desk.lead(await desk.plan(300, 600))
        try:
            await first.run(until(Stage.OPEN if back else phase), complete=not back)
            if back:
                await first.reverse()
                await first.run(until(phase))
            second = desk.lead(await desk.claim(1))
            try:
                await second.run(until(end), complete=not back)
                if second.ledger.stage is Stage.OPEN:  # it had to be given up
                    await second.reverse()
                    await second.run(until(end))
            finally:
                await second.close()
            with pytest.raises(NotOurs):
                await first.ledger.refresh()
        finally:
            await first.close()
        assert desk.keys() == ((ALL, []) if back else ([100, 200, 600, 700, 800, 900], [300, 400, 500]))

    run(work)


def test_a_transaction_that_holds_the_fence_puts_the_switch_off(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        orchestrator._settings = Settings(hold=0.3, settle=0.0)
        try:
            await orchestrator.run(until(Stage.CLOSING))
            with sides.source.connect(sides.database) as writer, writer.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT epoch FROM _shardproxy.fence WHERE move_id = 1 LOCK IN SHARE MODE")
                assert cursor.fetchone()[0] == orchestrator.ledger.move.fence
                cursor.execute("UPDATE t SET v = 'late' WHERE uid = 500")
                await orchestrator.run(until(Stage.COPYING))
                assert "given up" in orchestrator.ledger.workflow.problem
                cursor.execute("COMMIT")
            await orchestrator.run(until(Stage.OPEN))
        finally:
            await orchestrator.close()
        assert sides.target.rows("SELECT v FROM t WHERE uid = 500", database=sides.database) == [("late",)]

    run(work)


def test_a_long_transaction_holds_the_copy_up_and_does_not_end_it(
    run: Run, sides: Sides, flavor: FlavorName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL's tables are locked for a moment: who has them for longer than it is tried is told of, and waited for."""
    monkeypatch.setattr(snapshot, "LOCK_PATIENCE", 0.05)
    monkeypatch.setattr(snapshot, "_TRIES", 2)
    monkeypatch.setattr(leading, "_EVERY", 0.05)

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        heeding = asyncio.create_task(leading._heed(orchestrator, Throttle(ThrottleLimits())))
        try:
            with sides.source.connect(sides.database) as writer, writer.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("UPDATE t SET v = 'late' WHERE uid = 500")
                await orchestrator.run(until(Stage.COPYING))
                copying = asyncio.create_task(orchestrator.copied())
                if flavor == "mysql":
                    told = lambda: "t could not be locked" in orchestrator.ledger.workflow.problem  # noqa: E731
                    await asyncio.to_thread(eventually, told, "it is told of", 30.0)
                    assert not copying.done()
                cursor.execute("COMMIT")
            await copying
            over = lambda: not orchestrator.ledger.workflow.problem  # noqa: E731
            await asyncio.to_thread(eventually, over, "it is told of no more", 30.0)
            await orchestrator.run(until(Stage.OPEN))
        finally:
            heeding.cancel()
            await asyncio.gather(heeding, return_exceptions=True)
            await orchestrator.close()
        assert sides.target.rows("SELECT v FROM t WHERE uid = 500", database=sides.database) == [("late",)]

    run(work)


def test_a_row_that_differs_at_the_switch_stops_it(run: Run, sides: Sides) -> None:
    """What has changed since the rows were compared is compared while writes are held, and they are let go on."""

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.ARMED))
            sides.source.rows("UPDATE t SET v = 'new' WHERE uid = 500", database=sides.database)
            there = "SELECT v FROM t WHERE uid = 500"
            eventual = partial(eventually, lambda: sides.target.rows(there, database=sides.database) == [("new",)])
            await asyncio.to_thread(eventual, "the stream has applied it")
            sides.target.rows("UPDATE t SET v = 'broken' WHERE uid = 500", database=sides.database)
            with pytest.raises(RowsDiffer, match=r"t \(500\): different in v 'new' and 'broken'"):
                await orchestrator.run(until(Stage.OPEN))
            await orchestrator.ledger.refresh()
            assert orchestrator.ledger.stage is Stage.COPYING
        finally:
            await orchestrator.close()

    run(work)


def test_a_marker_may_be_read_before_its_commit_is_answered(run: Run, sides: Sides) -> None:
    """On a busy machine it is. When nothing else is written there it would be missed, and the switch given up."""

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.ARMED))
            [stream] = orchestrator.streams
            with stream.expecting(77):
                sides.source.rows(
                    f"INSERT INTO _shardproxy.marker (move_id, epoch) VALUES ({stream.plan.name.move_id}, 77)"
                )
                await asyncio.to_thread(eventually, stream._reached.is_set, "the marker is found")
                await stream.when_reached()
        finally:
            await orchestrator.close()

    run(work)


def test_a_marker_that_comes_after_the_switch_was_given_up_means_nothing(run: Run, sides: Sides) -> None:
    """Writes go on then: rows that differ when it is passed are no finding."""

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.ARMED))
            [stream] = orchestrator.streams
            with stream.expecting(77):
                pass
            sides.source.rows("UPDATE t SET v = 'new' WHERE uid = 500", database=sides.database)
            there = "SELECT v FROM t WHERE uid = 500"
            eventual = partial(eventually, lambda: sides.target.rows(there, database=sides.database) == [("new",)])
            await asyncio.to_thread(eventual, "the stream has applied it")
            sides.target.rows("UPDATE t SET v = 'newer' WHERE uid = 500", database=sides.database)
            marker = f"INSERT INTO _shardproxy.marker (move_id, epoch) VALUES ({stream.plan.name.move_id}, 77)"
            sides.source.rows(marker)
            applied = stream.applied
            await asyncio.to_thread(eventually, lambda: stream.applied > applied, "the marker is passed")
            await stream.sweep()
            assert stream.failure is None
        finally:
            await orchestrator.close()

    run(work)


def test_a_leader_that_is_stopped_lets_writes_go_on(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        orchestrator._settings = Settings(hold=60.0, settle=0.0)
        try:
            await orchestrator.run(until(Stage.CLOSING))
            with sides.source.connect(sides.database) as writer, writer.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT epoch FROM _shardproxy.fence WHERE move_id = 1 LOCK IN SHARE MODE")
                running = asyncio.create_task(orchestrator.run(until(Stage.OPEN)))
                await asyncio.wait((running,), timeout=0.3)
                assert not running.done()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                assert running.cancelled()
            assert (await desk.claim(1)).stage is Stage.COPYING
        finally:
            await orchestrator.close()

    run(work)
