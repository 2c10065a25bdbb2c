"""Writers that go to a shard directly while its rows move: found or refused, and what they wrote is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from pymysql.err import OperationalError

from shardproxy.errors import ReshardError
from shardproxy.local import LocalServer
from shardproxy.reshard.orchestrator import Orchestrator
from shardproxy.topology.stages import Stage, Step
from tests.proxy import eventually, transactions
from tests.reshard.sides import Sides
from tests.reshard.test_orchestrator import ALL, Desk, Run, run, until

__all__ = ["run"]
BOTH = "INSERT INTO t VALUES (350, 'x')", "UPDATE t SET uid = 350 WHERE uid = 100", "DELETE FROM t WHERE uid = 500"
STAYS = [100, 200, 600, 700, 800, 900]


def test_a_write_behind_the_marker_gives_the_switch_up(
    run: Run, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def direct(orchestrator: Orchestrator) -> None:
        """The last that is done before the switch is stored: the streams are drained."""
        sides.source.rows("INSERT INTO t VALUES (650, 'stays'), (350, 'direct')", database=sides.database)
        [stream] = orchestrator.streams
        await asyncio.to_thread(eventually, lambda: bool(stream.late), "the stream has seen it")

    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.CLOSING))
            monkeypatch.setattr(orchestrator, "_count_on", partial(direct, orchestrator))
            with pytest.raises(ReshardError, match=r"directly to their shard, past the fence: t 350\. "):
                await orchestrator.run(until(Stage.OPEN))
            await orchestrator.ledger.refresh()
            assert orchestrator.ledger.stage is Stage.COPYING
            monkeypatch.undo()
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


def test_on_the_way_back_the_old_owners_are_not_watched_any_more(run: Run, sides: Sides) -> None:
    async def work(desk: Desk) -> None:
        orchestrator = desk.lead(await desk.plan(300, 600))
        try:
            await orchestrator.run(until(Stage.OPEN))
            await orchestrator.reverse()
            await orchestrator.run(until(Stage.REVERSE_SWITCHED))
            # As proxies write it soon. A watch of the source would have it by the time the target's watch is done.
            sides.source.rows("INSERT INTO t VALUES (350, 'ours')", database=sides.database)
            assert not orchestrator._bypass._watches
            await orchestrator.run(until(Stage.REVERSE_DONE))
        finally:
            await orchestrator.close()
        assert "directly" not in orchestrator.ledger.workflow.problem

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


def _refused(direct: Any) -> list[bool]:
    """Whether writes of moving keys are refused, one by one; the others must not be."""
    found = []
    with direct.cursor() as cursor:
        for sql in BOTH:
            said = ""
            try:
                cursor.execute(sql)
            except OperationalError as error:
                said = str(error)
            assert not said or "(1644, 'shardproxy: rows of t are moving to another shard: write through" in said
            found.append(bool(said))
            direct.rollback()
        cursor.execute("UPDATE t SET v = 'x' WHERE uid = 100")
        direct.rollback()
    return found


@contextmanager
def _client(server: LocalServer, database: str) -> Iterator[Any]:
    """A connection of somebody who is no proxy."""
    server.rows("CREATE USER IF NOT EXISTS direct@'%' IDENTIFIED BY 'direct'")
    server.rows(f"GRANT ALL ON {database}.* TO direct@'%'")
    with server.connect(database, user="direct", password="direct", autocommit=False) as direct:
        yield direct


def test_direct_writes_are_refused(run: Run, sides: Sides) -> None:
    """From just before the switch to the end of the move, at the shard that gives the keys away."""
    triggers = f"SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{sides.database}'"

    async def work(desk: Desk) -> None:
        first = desk.lead(await desk.plan(300, 600), bypass="refuse", guard=0.3)
        with _client(sides.source, sides.database) as source, _client(sides.target, sides.database) as target:
            try:
                await first.run(until(Stage.ARMED))
                assert _refused(source) == [False, False, False]
                with source.cursor() as cursor:
                    cursor.execute("SELECT * FROM t")  # a transaction that is open all the time
                    with pytest.raises(ReshardError, match=r"CREATE TRIGGER .* a transaction has used the table"):
                        await first.run(until(Stage.CLOSING))
                    source.rollback()
                await first.run(until(Stage.CLOSING))
                assert _refused(source) == [True, True, True]
                await first.proceed(Step.TIME_OUT)
            finally:
                await first.close()
            second = desk.lead(await desk.claim(1), bypass="refuse")
            try:
                await second.run(until(Stage.COPYING))
                await second.copied()
                assert _refused(source) == [False, False, False]  # nobody knows for how long it stays so
                await second.run(until(Stage.OPEN))
                await second.opened()
                assert _refused(source) == [True, True, True]
                sides.target.rows("INSERT INTO t VALUES (450, 'back')", database=sides.database)
                back = partial(sides.source.rows, "SELECT 1 FROM t WHERE uid = 450", database=sides.database)
                await asyncio.to_thread(eventually, lambda: bool(back()), "the stream back is let through")
                await second.reverse()
                await second.run(until(Stage.REVERSE_CLOSING))
                assert _refused(source) == [False, False, False]
                with target.cursor() as cursor, pytest.raises(OperationalError, match="through the proxy"):
                    cursor.execute("DELETE FROM t WHERE uid = 500")
                target.rollback()
                await second.run(until(Stage.REVERSE_DONE))
            finally:
                await second.close()
        assert not sides.source.rows(triggers) and not sides.target.rows(triggers)
        third = desk.lead(await desk.plan(300, 600), bypass="refuse")
        try:
            await third.run(until(Stage.CLOSING))
            assert len(sides.source.rows(triggers)) == 3
            await third.proceed(Step.CANCEL)
            await third.run(until(Stage.CANCELLED))
        finally:
            await third.close()
        assert not sides.source.rows(triggers)

    run(work)
