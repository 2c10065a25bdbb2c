"""What a switch does so that writes wait for it no longer than they must: seen from a proxy's place."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from shardproxy.local import LocalServer
from shardproxy.reshard import orchestrator as leader
from shardproxy.reshard import stream
from shardproxy.reshard.ledger import Ledger
from shardproxy.reshard.link import Link
from shardproxy.reshard.orchestrator import Faults, Orchestrator
from shardproxy.reshard.shard_rows import Fence
from shardproxy.store.interface import ABSENT
from shardproxy.topology.barrier import Acknowledgement, Identity, Standing
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.stages import Stage, Step
from shardproxy.topology.stored import ACKNOWLEDGEMENTS, MAPS, PROXIES
from tests.proxy import eventually, transactions
from tests.reshard.sides import Sides
from tests.reshard.test_orchestrator import Desk, desk, until

ASK = "SELECT epoch FROM _shardproxy.fence WHERE move_id = 1 LOCK IN SHARE MODE"


def ask(server: LocalServer) -> object:
    """The fence's epoch, as a writer reads it; None: no row."""
    with server.connect() as writer, writer.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(ASK)
        row = cursor.fetchone()
        return row and row[0]


@pytest.mark.parametrize("back", [False, True])
def test_writers_that_ask_for_a_fence_before_it_is_armed_do_not_keep_it_from_being(
    sides: Sides, tmp_path: Path, back: bool
) -> None:
    """One asks too early; the next waits behind who arms it. Were there no row, it would get none, at once."""
    giver = sides.target if back else sides.source

    async def work() -> None:
        async with desk(sides, tmp_path) as found:
            led = found.lead(await found.plan(300, 600))
            try:
                if back:
                    await led.run(until(Stage.OPEN))
                    await led.reverse()
                else:
                    await led.run(until(Stage.ARMED))
                await asyncio.to_thread(early, led, asyncio.get_running_loop())
            finally:
                await led.close()

    def early(led: Orchestrator, loop: asyncio.AbstractEventLoop) -> None:
        [shard] = led._shards(led._giver)
        epoch = led.ledger.move.fence
        assert epoch is not None
        with giver.connect() as writer, writer.cursor() as cursor, ThreadPoolExecutor(1) as pool:
            cursor.execute("BEGIN")
            cursor.execute(ASK)
            assert cursor.fetchone()[0] < epoch
            arming = asyncio.run_coroutine_threadsafe(led._arm(shard, epoch), loop)
            waits = partial(transactions, giver, "trx_id", "trx_state = 'LOCK WAIT'")
            eventually(lambda: len(waits()) == 1, "who arms it waits for the first writer")
            asking = pool.submit(ask, giver)
            eventually(lambda: len(waits()) == 2 or asking.done(), "the second writer waits behind it")
            cursor.execute("ROLLBACK")
            arming.result(10)
            assert asking.result(10) == epoch

    sides.source.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20))", database=sides.database)
    asyncio.run(work())


def test_nobody_logs_in_while_writers_wait_for_a_fence_to_be_armed(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the map that says so until it is: on a busy machine each login takes as long as all the rest."""
    sides.source.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20))", database=sides.database)
    counts: list[int] = []

    def logins() -> int:
        """On both servers, these two among them."""
        text = "SHOW GLOBAL STATUS LIKE 'Connections'"
        return sum(int(server.rows(text)[0][1]) for server in (sides.source, sides.target))

    async def step(where: str) -> None:
        if where in ("after copying next", "after open reverse"):
            counts.append(logins())

    async def arm(self: Fence, link: Link, epoch: int) -> None:
        counts.append(logins())
        await arms(self, link, epoch)

    arms = Fence.arm
    monkeypatch.setattr(Fence, "arm", arm)

    async def work() -> None:
        async with desk(sides, tmp_path) as found:
            led = found.lead(await found.plan(300, 600))
            led._faults = Faults(step=step)
            try:
                await led.run(until(Stage.ARMED))
                await led.run(until(Stage.OPEN))
                await led.reverse()
                await led.run(until(Stage.REVERSE_OPEN))
            finally:
                await led.close()

    asyncio.run(work())
    asked, armed, asked_back, armed_back = counts
    assert (armed - asked, armed_back - asked_back) == (2, 2), "more logins than those of this test"


def test_a_marker_is_applied_at_once_though_changes_keep_coming(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides.source.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20))", database=sides.database)

    async def more(self: stream.Stream) -> bool:
        return True

    async def work() -> None:
        async with desk(sides, tmp_path) as found:
            led = found.lead(await found.plan(300, 600))
            try:
                await led.run(until(Stage.ARMED))
                monkeypatch.setattr(stream.Stream, "_ready", more)
                monkeypatch.setattr(stream, "_GATHER", 3600.0)
                await led.run(lambda stage: stage in (Stage.OPEN, Stage.COPYING))
                assert led.ledger.stage is Stage.OPEN, led.ledger.workflow.problem
            finally:
                await led.close()

    asyncio.run(work())


async def registered(desk: Desk) -> None:
    await desk.store.put(PROXIES + "p", Identity(id="p", since=0.0, account="p").document(), ABSENT)


async def acknowledge(desk: Desk, led: Orchestrator, over: asyncio.Event) -> None:
    """A proxy that acknowledges each map; the one that lets writes go on only when the switch counts as over."""
    key, version = ACKNOWLEDGEMENTS + "p", ABSENT
    async with aclosing(desk.store.watch(MAPS, 0)) as watched:
        async for seen in watched:
            for change in seen.changes:
                assert change.value is not None
                document = MapDocument.read(change.key, change.value)
                if led.ledger.stage is Stage.OPEN:
                    await over.wait()
                told = Acknowledgement(identity="p", epochs={document.keyspace: document.epoch})
                version = await desk.store.put(key, told.document(), version)


def test_other_work_begins_when_proxies_have_let_writes_go(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "_NOTICE", 30.0)
    sides.source.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20))", database=sides.database)

    async def work() -> None:
        async with desk(sides, tmp_path) as found:
            await registered(found)
            led = found.lead(await found.plan(300, 600))
            over = asyncio.Event()
            noticed = led._proxies.noticed

            async def wait(seconds: float) -> None:
                over.set()
                await noticed(seconds)

            monkeypatch.setattr(led._proxies, "noticed", wait)
            proxy = asyncio.create_task(acknowledge(found, led, over))
            try:
                await led.run(until(Stage.OPEN))
                assert await led.ledger.waited_for() == []
            finally:
                proxy.cancel()
                await asyncio.gather(proxy, return_exceptions=True)
                await led.close()

    asyncio.run(work())


def test_only_a_stage_to_which_there_is_one_way_need_not_last(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLOSING must: the fence's row goes on from its epoch. SWITCHED must: there is no way back from it. OPEN is what
    comes next, whoever leads."""
    sides.source.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY, v VARCHAR(20))", database=sides.database)
    short: list[Stage] = []
    proceed = Ledger.proceed

    async def noted(
        self: Ledger, step: Step, positions: Mapping[str, str] | None = None, what: str = "", lasting: bool = True
    ) -> None:
        await proceed(self, step, positions, what, lasting)
        if not lasting:
            short.append(self.stage)

    monkeypatch.setattr(Ledger, "proceed", noted)

    async def work() -> None:
        async with desk(sides, tmp_path) as found:
            led = found.lead(await found.plan(300, 600))
            try:
                await led.run(until(Stage.OPEN))
                await led.reverse()
                await led.run(until(Stage.REVERSE_DONE))
            finally:
                await led.close()

    asyncio.run(work())
    assert short == [Stage.OPEN, Stage.REVERSE_OPEN]


def test_a_proxy_that_does_not_notice_keeps_nobody_waiting(sides: Sides, tmp_path: Path) -> None:
    async def work() -> None:
        async with desk(sides, tmp_path) as found:
            led = found.lead(await found.plan(300, 600))
            await registered(found)
            await led._proxies.noticed(0.05)
            [left] = await led.ledger.waited_for()
            assert left.standing is Standing.ACTIVE

    asyncio.run(work())
