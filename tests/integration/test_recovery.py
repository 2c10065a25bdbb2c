"""Recovery ends branches whose connections are just ending: what it says it has committed is committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from shardproxy.admin.recovery import Ended, Recovery
from shardproxy.backend.control import Credentials, open_control
from shardproxy.backend.engine_hold import held_transactions
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.local.proxy_environment import proxy_environment
from shardproxy.session.xid import TransactionId, shard_word
from shardproxy.topology.build import build_snapshot
from tests.proxy import KEYSPACES, create_tables, eventually, make_bookkeeping, transactions

COORDINATOR = "00000000beef"
# What a connection has is put away while it ends: after its branch's name is free, before the engine lets go.
VARIABLES = 200_000


@pytest.fixture(scope="module")
def shards(flavor: FlavorName) -> Iterator[LocalCluster]:
    with LocalCluster(flavor, shards=2, replicas=0) as cluster:
        for shard in cluster.shards:
            create_tables(shard.primary, shard.name)
        yield cluster


@pytest.fixture
def recovery(shards: LocalCluster) -> Recovery:
    """One that is not patient, as after the death of a coordinator."""
    config = shards.config_toml(KEYSPACES, name="recovery.toml")
    make_bookkeeping(config.path)
    settings = load(config.path, proxy_environment())
    return Recovery(build_snapshot(settings), Credentials.of(settings), 30, COORDINATOR, 1.0)


def prepare(shards: LocalCluster, number: int, variables: int = 0, thread: int = 0) -> Any:
    """A connection to the second shard with a prepared branch, decided: committed. thread: in the branch's name, if not
    the connection's own."""
    deciding, other = shards.shards
    connection = other.primary.connect("main")
    cursor = connection.cursor()
    for first in range(0, variables, 10_000):  # MySQL's parser takes not many more at once
        cursor.execute("SET " + ",".join(f"@v{n}=1" for n in range(first, first + 10_000)))
    ident = TransactionId(COORDINATOR, int(time.time()), number, 2**31, shard_word(deciding.name))
    branch = ident.branch(thread or connection.thread_id())
    cursor.execute(f"XA START {branch}")
    cursor.execute("INSERT INTO users VALUES (%s, 'prepared', 1)", (number,))
    cursor.execute(f"XA END {branch}")
    cursor.execute(f"XA PREPARE {branch}")
    deciding.primary.rows(
        "INSERT INTO _shardproxy.xa_decision (xid, outcome, coordinator, decided_by) VALUES (%s, 'commit', %s, %s)",
        (ident.text, COORDINATOR, COORDINATOR),
    )
    return connection


def end_all(recovery: Recovery) -> list[Ended]:
    """Rounds until no branch is listed."""

    async def rounds() -> list[Ended]:
        ended: list[Ended] = []
        try:
            while True:
                now, errors = await recovery.round(patient=False)
                assert not errors
                ended += now
                if not recovery.listed:
                    return ended
        finally:
            await recovery.close()

    return asyncio.run(rounds())


def nothing_left(server: LocalServer) -> None:
    """InnoDB lists transactions of its own too, for a moment, such as those that store statistics of tables."""
    eventually(lambda: not transactions(server, "trx_id"), "that the engine holds none")


def test_a_branch_whose_connection_is_ending_is_not_lost(shards: LocalCluster, recovery: Recovery) -> None:
    other = shards.shards[1].primary
    for number in range(5):
        prepare(shards, number, VARIABLES).close()
        assert [(one.committed, one.error) for one in end_all(recovery)] == [(True, "")]
        assert other.rows("SELECT uid FROM main.users WHERE uid = %s", (number,)) == [(number,)]
    nothing_left(other)


def test_a_branch_of_a_living_connection_is_ended_with_it(shards: LocalCluster, recovery: Recovery) -> None:
    with closing(prepare(shards, 100)):
        [ended] = end_all(recovery)
    assert (ended.committed, ended.error) == (True, "")
    other = shards.shards[1].primary
    assert other.rows("SELECT uid FROM main.users WHERE uid = 100") == [(100,)]
    nothing_left(other)


def test_a_branch_may_have_the_number_that_recovery_has_now(shards: LocalCluster, recovery: Recovery) -> None:
    """Numbers begin anew when a server starts again."""
    other = shards.shards[1].primary
    [(now,)] = other.rows("SELECT CONNECTION_ID()")
    last = now + 200
    for n in range(5):
        prepare(shards, 300 + n, thread=last + 1 + n).close()
    eventually(lambda: not transactions(other, "trx_id", "trx_mysql_thread_id > 0"), "that the engine holds none")
    while now < last:
        [(now,)] = other.rows("SELECT CONNECTION_ID()")
    assert [(one.committed, one.error) for one in end_all(recovery)] == [(True, "")] * 5
    assert other.rows("SELECT COUNT(*) FROM main.users WHERE uid BETWEEN 300 AND 304") == [(5,)]


def test_the_engine_says_for_whom_it_holds_transactions(shards: LocalCluster, recovery: Recovery) -> None:
    """MySQL's lets go of a branch with its XA PREPARE."""
    server = recovery.snapshot.shards[1].primary
    credentials = Credentials("root", "root")

    def held() -> dict[int, str]:
        async def ask() -> dict[int, str]:
            async with await open_control(server, credentials, 30) as connection:
                return await held_transactions(connection)

        return asyncio.run(ask())

    connection = prepare(shards, 200)
    thread = connection.thread_id()
    first = held().get(thread)
    assert (first is not None) == (shards.flavor == "mariadb")
    assert held().get(thread) == first
    connection.close()
    eventually(lambda: thread not in held(), "that the engine holds it no more")
    end_all(recovery)
