"""Connections that read binlogs are cut in the very moment of a switch: what comes after it is the new owner's."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pymysql

from shardproxy.errors import NotOurs
from shardproxy.reshard.orchestrator import Faults, Orchestrator, Settings
from shardproxy.reshard.runner import Running, State
from shardproxy.topology.stages import Stage
from tests.proxy import eventually
from tests.reshard.sides import Sides
from tests.reshard.test_orchestrator import ALL, Desk, Run, run

__all__ = ["run"]  # the fixture
DUMPS = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"


def test_a_stream_that_has_ended_is_not_begun_again(run: Run, sides: Sides) -> None:
    """It is opened again half a second after its connection was cut. By then the target knows it no more, as before its
    begin; and beginning empties the target of all rows that are to come."""

    async def work(desk: Desk) -> None:
        orchestrator: Orchestrator = desk.lead(await desk.plan(300, 600))
        forth: list[Running] = []

        def cut() -> None:
            for (ident,) in sides.source.rows(DUMPS):
                with suppress(pymysql.MySQLError):  # it has ended by itself
                    sides.source.rows(f"KILL {ident}")

        def cut_and_noticed() -> None:
            cut()
            eventually(lambda: all(s.state is State.BROKEN for s in forth), "streams have noticed", 20)

        def tried_again() -> None:
            before = [s.opened for s in forth]

            def over() -> bool:
                cut()  # on a slow machine they may have been opened once more before they were ended
                return all(s.state is State.ENDED or s.opened > n for s, n in zip(forth, before, strict=True))

            eventually(over, "streams have ended, or were opened again", 30)

        async def step(where: str) -> None:
            if where == "before closing next":
                forth.extend(orchestrator.streams)
                await asyncio.to_thread(cut_and_noticed)
            elif where == "before switched next":  # everybody knows the new owner, who takes writes in a moment
                sides.target.rows("INSERT INTO t VALUES (350, 'new')", database=sides.database)
                await asyncio.to_thread(tried_again)

        orchestrator._faults = Faults(step=step)
        orchestrator._settings = Settings(hold=30.0, settle=0.0, bypass="ignore")
        try:
            await orchestrator.run(lambda stage: stage is Stage.DONE, complete=True)
        finally:
            await orchestrator.close()
        assert desk.keys() == ([key for key in ALL if not 300 <= key < 600], [300, 350, 400, 500])
        assert [type(stream.failure) for stream in forth] == [NotOurs]

    run(work)
