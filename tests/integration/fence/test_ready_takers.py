"""The shard that keys come to has connections before they do: a new one has none, and all would be made at once."""

from __future__ import annotations

from contextlib import ExitStack, closing

from shardproxy.backend.gateway import ShardPools
from shardproxy.local import LocalCluster
from shardproxy.protocol.mysql.response import IN_TRANS
from shardproxy.topology.moves import Phase
from tests.in_process import WorkerHere
from tests.integration.fence.scene import STAYING, arm
from tests.proxy import eventually


def test_connections_to_the_taker_are_there_before_the_switch(cluster: LocalCluster) -> None:
    with WorkerHere(cluster) as here:
        giver, taker = here.worker.front.gateway.shards[:2]
        with closing(here.connect()) as connection, connection.cursor() as cursor:

            def ask() -> bool:
                cursor.execute(f"SELECT balance FROM users WHERE uid = {STAYING}")
                cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")
                return all(shared_of(giver)) and bool(giver.primary.idle)

            eventually(ask, "the giver has connections of both kinds")
            arm(here, Phase.COPYING)
            assert not taker.primary.connections and not taker.primary.dialing, "rows may be copied for days"
            arm(here)
            eventually(lambda: all(shared_of(taker)) and bool(taker.primary.idle), "the taker has them too")
            assert set(taker.primary.idle) <= set(giver.primary.idle)


def test_connections_that_the_giver_got_by_then_are_there_too(cluster: LocalCluster) -> None:
    with WorkerHere(cluster) as here:
        giver, taker = here.worker.front.gateway.shards[:2]
        arm(here)
        with ExitStack() as stack:
            for _ in range(3):
                connection = stack.enter_context(closing(here.connect()))
                with connection.cursor() as cursor:  # a transaction keeps its connection
                    cursor.execute("BEGIN")
                    cursor.execute(f"SELECT balance FROM users WHERE uid = {STAYING}")
            assert len(giver.primary.connections) >= 3
            assert not taker.primary.idle
            arm(here, Phase.CLOSING)
            eventually(lambda: sum(map(len, taker.primary.idle.values())) >= 3, "the taker has as many")


def test_no_transaction_is_left_open_on_them(cluster: LocalCluster) -> None:
    """Where a server's completion_type says so, a plain ROLLBACK begins the next one: what is read in it is old."""
    server = cluster.shards[1].primary
    server.rows("SET GLOBAL completion_type = 'CHAIN'")
    try:
        with WorkerHere(cluster) as here, closing(here.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {STAYING}")
            taker = here.worker.front.gateway.shards[1].primary
            arm(here)
            eventually(lambda: bool(taker.idle), "the taker has one")
            made = [one for stack in taker.idle.values() for one in stack]
            assert not any(one.scanner.status & IN_TRANS for one in made)
    finally:
        server.rows("SET GLOBAL completion_type = DEFAULT")


def shared_of(shard: ShardPools) -> list[int]:
    """How many shared connections each of its servers that answer reads has."""
    return [sum(map(len, list(pool.shared.values()))) for pool in shard.readers]
