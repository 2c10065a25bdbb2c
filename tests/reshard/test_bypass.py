"""Writers that go to a shard directly while its rows move: found or refused, and what they wrote is never lost."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from shardproxy.errors import ReshardError
from shardproxy.topology.stages import Stage
from tests.proxy import eventually, transactions
from tests.reshard.sides import Sides
from tests.reshard.test_orchestrator import ALL, Desk, Run, run, until

__all__ = ["run"]
STAYS = [100, 200, 600, 700, 800, 900]


def test_a_write_behind_the_marker_gives_the_switch_up(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.DRAINED))
            sides.source.rows("INSERT INTO t VALUES (650, 'stays'), (350, 'direct')", database=sides.database)
            [stream] = orchestrator.streams
            await asyncio.to_thread(eventually, lambda: bool(stream.late), "the stream has seen it")
            with pytest.raises(ReshardError, match=r"directly to their shard, past the fence: t 350\. "):
                await orchestrator.run(until(Stage.OPEN))
            await orchestrator.ledger.refresh()
            assert orchestrator.ledger.stage is Stage.COPYING
            await orchestrator.run(until(Stage.DONE), complete=True)
        finally:
            await orchestrator.close()
        assert desk.keys() == (sorted([*STAYS, 650]), [300, 350, 400, 500])

    run(work)


@pytest.mark.parametrize("sql", ["INSERT INTO t VALUES (350, 'x')", "UPDATE t SET v = 'x' WHERE uid = 400"])
def test_a_write_after_the_switch_stops_complete(run: Run, sides: Sides, sql: str) -> None:
    async def work(desk: Desk) -> None:
        first = desk.lead(await desk.plan(300, 600))
        try:
            await first.run(until(Stage.OPEN))
            sides.target.rows("UPDATE t SET v = 'ours' WHERE uid = 500", database=sides.database)  # comes back, marked
            sides.source.rows("UPDATE t SET v = 'stays' WHERE uid = 600", database=sides.database)
        finally:
            await first.close()
        sides.source.rows(sql, database=sides.database)  # while nobody leads the move
        before = desk.keys()[0]
        second = desk.lead(await desk.claim(1))
        try:
            for _ in range(2):  # the second time by a watch that begins anew
                with pytest.raises(ReshardError, match=r"directly, where nobody sees them: t (350|400)\. "):
                    await second.run(until(Stage.DONE), complete=True)
                await second._bypass.close()
        finally:
            await second.close()
        assert second.ledger.stage is Stage.OPEN
        assert "directly" in second.ledger.workflow.problem
        assert desk.keys()[0] == before
        third = desk.lead(await desk.claim(1), despite=True)
        try:
            await third.run(until(Stage.DONE), complete=True)
        finally:
            await third.close()
        assert desk.keys() == (STAYS, [300, 400, 500])

    run(work)


def test_a_write_while_the_rows_are_deleted_is_kept(run: Run, sides: Sides) -> None:
    """A row that is changed between the last look and its deletion: the lock is waited for, then it is known."""

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.COMPLETING), complete=True)
            with sides.source.connect(sides.database, autocommit=False) as writer, writer.cursor() as cursor:
                cursor.execute("UPDATE t SET v = 'direct' WHERE uid = 500")
                running = asyncio.create_task(orchestrator.run(until(Stage.DONE)))
                waits = partial(transactions, sides.source, "trx_id", "trx_state = 'LOCK WAIT'")
                await asyncio.to_thread(eventually, lambda: bool(waits()), "the deletion waits")
                writer.commit()
            with pytest.raises(ReshardError, match="t 500"):
                await running
            assert desk.keys()[0] == ALL
            assert orchestrator.ledger.stage is Stage.COMPLETING
        finally:
            await orchestrator.close()

    run(work)


def test_a_write_after_the_way_back_stops_its_end(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.OPEN))
            await orchestrator.reverse()
            await orchestrator.run(until(Stage.REVERSE_OPEN))
            sides.target.rows("INSERT INTO t VALUES (350, 'direct')", database=sides.database)
            with pytest.raises(ReshardError, match="where nobody sees them: t 350"):
                await orchestrator.run(until(Stage.REVERSE_DONE))
            assert desk.keys() == (ALL, [300, 350, 400, 500])
        finally:
            await orchestrator.close()

    run(work)


def test_what_cannot_be_known_stops_complete(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.OPEN))
            sides.target.rows("DELETE FROM _shardproxy.stream WHERE direction = 'forward'")
            with pytest.raises(ReshardError, match="cannot be known: the place"):
                await orchestrator.run(until(Stage.DONE), complete=True)
        finally:
            await orchestrator.close()
        assert desk.keys()[0] == ALL

    run(work)
