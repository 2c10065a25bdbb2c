"""`shardctl rebalance readmit`: accounts of proxies that a move shut out, and that come back after its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
from typer.testing import CliRunner

from shardproxy.cli.main import app
from shardproxy.reshard import ledger
from shardproxy.reshard.orchestrator import Settings
from shardproxy.store.interface import ABSENT
from shardproxy.topology.barrier import Acknowledgement, Identity
from shardproxy.topology.stages import Stage
from shardproxy.topology.stored import ACKNOWLEDGEMENTS, ALIVE, PROXIES
from tests.reshard.sides import Sides
from tests.reshard.test_orchestrator import Desk, desk

CONFIG = """
[backend]
user = "root"
password = "root"
[users.app]
password = "x"
[store]
path = "store.sqlite"
[shards.{source.name}]
primary = "{source.address}"
[shards.{target.name}]
primary = "{target.address}"
[keyspaces.{database}]
key_type = "int"
map = "hash"
ring = {{ "{source.name}" = 1 }}
"""


async def proxy(desk: Desk, name: str, epoch: int | None = None) -> None:
    """A proxy under the account, whose process may be anywhere; epoch: of the map that it has acknowledged."""
    identity = Identity(id=name, since=time.time(), place="elsewhere", account="lone")
    await desk.store.put(PROXIES + name, identity.document(), ABSENT)
    if epoch is not None:
        answer = Acknowledgement(identity=name, epochs={desk.sides.database: epoch})
        await desk.store.put(ACKNOWLEDGEMENTS + name, answer.document(), ABSENT)


async def forget(desk: Desk, name: str) -> None:
    """What a proxy that comes back does with its earlier identity."""
    entry = await desk.store.get(PROXIES + name)
    assert entry is not None
    await desk.store.delete(entry.key, entry.version)


def locked(sides: Sides) -> list[bool]:
    """Whether each server refuses the account."""
    found = []
    for server in (sides.source, sides.target):
        try:
            server.connect(user="lone", password="lone").close()
        except pymysql.MySQLError as error:
            found.append("locked" in str(error))
        else:
            found.append(False)
    return found


@contextmanager
def lone_account(sides: Sides) -> Iterator[None]:
    """An account on both servers, and rows to move."""
    for server in (sides.source, sides.target):
        server.rows("DROP USER IF EXISTS lone@'%'")
        server.rows("CREATE USER lone@'%' IDENTIFIED BY 'lone'")
        server.rows("CREATE TABLE t (uid BIGINT PRIMARY KEY)", database=sides.database)
    sides.source.rows("INSERT INTO t VALUES (100), (300)", database=sides.database)
    try:
        yield
    finally:
        for server in (sides.source, sides.target):
            server.rows("DROP USER lone@'%'")


def test_a_locked_proxy_that_lives_is_not_waited_for(sides: Sides, tmp_path: Path) -> None:
    """It does nothing at the servers, and cannot prove there what it has to: it would answer never."""

    async def all_of_it() -> None:
        async with desk(sides, tmp_path) as found:
            await proxy(found, "first")
            orchestrator = found.lead(await found.plan(100, 110))
            orchestrator._settings = Settings(hold=5.0, settle=0.0, answer=0.1, back=0.1)
            try:
                await orchestrator.run(lambda stage: stage is Stage.COPYING)
                assert await asyncio.to_thread(locked, sides) == [True, True]
                await forget(found, "first")
                await proxy(found, "second", 0)
                await found.store.put(ALIVE + "second", {"place": "elsewhere"}, ABSENT)
                async with asyncio.timeout(60):
                    await orchestrator.run(lambda stage: stage is Stage.DONE, complete=True)
            finally:
                await orchestrator.close()

    with lone_account(sides):
        asyncio.run(all_of_it())


def test_let_in_when_it_has_come_back_or_somebody_vouches_for_it(sides: Sides, tmp_path: Path) -> None:
    config = tmp_path / "shardproxy.toml"
    config.write_text(CONFIG.format(source=sides.source, target=sides.target, database=sides.database))

    async def readmit(*account: str) -> tuple[int, str]:
        words = ["rebalance", "readmit", *account, "--config", str(config)]
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        return result.exit_code, result.output

    async def shut_out(desk: Desk, low: int) -> None:
        """A move that ends without the proxy."""
        orchestrator = desk.lead(await desk.plan(low, low + 10))
        orchestrator._settings = Settings(hold=5.0, settle=0.0, answer=0.1, back=0.1)
        try:
            await orchestrator.run(lambda stage: stage is Stage.DONE, complete=True)
        finally:
            await orchestrator.close()
        assert "lone; see `shardctl rebalance readmit`" in orchestrator.ledger.workflow.problem
        assert await asyncio.to_thread(locked, sides) == [True, True]

    async def work(desk: Desk) -> None:
        assert await readmit() == (0, "no account is locked\n")
        await proxy(desk, "first")
        await shut_out(desk, 100)
        assert await readmit() == (1, "lone is still locked: its proxy has not come back\n")
        document, _ = await ledger.read_map(desk.store, sides.database)
        await proxy(desk, "second", document.epoch)
        assert (await readmit())[0] == 1, "the process that was shut out may be there yet"
        await forget(desk, "first")
        assert await readmit() == (0, "lone is let in again\n")
        assert await asyncio.to_thread(locked, sides) == [False, False]
        workflow, _ = await ledger.read_move(desk.store, 1)
        assert (workflow.problem, workflow.figures["locked"]) == ("", "")
        assert await readmit() == (0, "no account is locked\n")

        await shut_out(desk, 300)  # "second" does not acknowledge this one's maps
        assert await readmit("other") == (1, "lone is still locked: its proxy has not come back\n")
        assert await readmit("lone") == (0, "lone is let in again\n")
        assert await asyncio.to_thread(locked, sides) == [False, False]

    async def all_of_it() -> None:
        async with desk(sides, tmp_path) as found:
            await work(found)

    with lone_account(sides):
        asyncio.run(all_of_it())
