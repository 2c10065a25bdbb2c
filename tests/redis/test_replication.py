"""Up to when a replica is said to be complete, by questions to real servers that come late, or meet other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

import pytest

from shardproxy.backend.redis.link import UP
from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.replication import Replication
from shardproxy.backend.redis.slot import Turn
from shardproxy.frontend.redis.replica_reads import ReplicaReads
from shardproxy.local import LocalCluster
from shardproxy.planner.redis.table import SPECS
from tests.proxy import eventually
from tests.redis.test_sentinels import follows
from tests.stores import Relay, until, within

MAX_LAG = 60.0


class Servers:
    """A node, a server that is no part of it, and a replica of the node."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.primary, self.stranger = cluster.redis
        for server in cluster.redis:
            with server.connect() as direct:
                direct.config_set("repl-diskless-sync-delay", 0)
                direct.config_set("repl-ping-replica-period", 3600)  # offsets grow by writes only
        self.replica = cluster.add_redis("replica", ["--replicaof", "127.0.0.1", str(self.primary.port)])
        eventually(partial(follows, self.replica, self.primary), "it follows", 30)


@pytest.fixture
def servers() -> Iterator[Servers]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster:
        yield Servers(cluster)


class Asked:
    """The node and its replica as a proxy sees them through relays, which reads from the replica."""

    def __init__(self, primary: Relay, replica: Relay) -> None:
        turn = Turn(asyncio.get_running_loop())
        self.relays = primary, replica
        self.nodes = [_node(name, relay, turn) for name, relay in (("node", primary), ("replica", replica))]
        self.replica = self.nodes[1]
        self.replication = Replication(self.nodes[0], [self.replica])
        self._reads = ReplicaReads([[self.replica]], MAX_LAG, False, 0)

    @property
    def is_read(self) -> bool:
        """Whether a GET goes to the replica now."""
        return self._reads.link(SPECS[b"get"], 0, False, 0.0) is not None

    async def until_read(self) -> None:
        self.replica.start()

        async def read() -> bool:
            await self.replication.look()
            return self.is_read

        await until(read)

    def close(self) -> None:
        self.replication.close()
        for node in self.nodes:
            node.close()


def _node(name: str, relay: Relay, turn: Turn) -> RedisNode:
    host, _, port = relay.address.partition(":")
    return RedisNode(name, host, int(port), LinkSettings(connect_timeout=10.0), turn)


@asynccontextmanager
async def asked(servers: Servers) -> AsyncIterator[Asked]:
    async with (
        Relay(("127.0.0.1", servers.primary.port)) as primary,
        Relay(("127.0.0.1", servers.replica.port)) as replica,
    ):
        found = Asked(primary, replica)
        try:
            await found.until_read()
            yield found
        finally:
            found.close()


def run(servers: Servers, main: Callable[[Asked], Coroutine[Any, Any, None]]) -> None:
    async def with_them() -> None:
        async with asked(servers) as found:
            await main(found)

    within(60, with_them)


async def now(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds)


def test_an_answer_says_nothing_of_what_was_written_while_it_was_on_its_way(servers: Servers) -> None:
    async def main(found: Asked) -> None:
        found.relays[0].mode = "slow"
        begun = monotonic()
        look = asyncio.create_task(found.replication.look())
        await now(lambda: found.relays[0].kept > 0)
        with servers.primary.connect() as direct:
            direct.set("k", "new")
            written = monotonic()
        found.relays[0].mode = "pass"
        await look
        complete = found.replica.complete_until
        assert complete is not None and begun <= complete < written

    run(servers, main)


def test_a_process_that_ended_says_nothing_of_the_next_one(servers: Servers) -> None:
    async def main(found: Asked) -> None:
        failures = found.replica.failures
        found.relays[1].mode = "slow"
        look = asyncio.create_task(found.replication.look())
        await now(lambda: found.relays[1].kept > 0)
        servers.replica.kill()
        await now(lambda: found.replica.failures > failures)
        found.relays[1].mode = "pass"
        await look
        assert found.replica.complete_until is None

    run(servers, main)


def test_the_next_process_is_not_read_before_it_was_asked(servers: Servers) -> None:
    async def main(found: Asked) -> None:
        with servers.primary.connect() as direct:
            direct.config_set("requirepass", "word")  # so that the next process stays without keys
        await asyncio.to_thread(servers.replica.restart)

        def connected() -> bool:
            found.replica.tick()
            return found.replica.link(False, 0).state == UP

        await now(connected)
        assert not found.is_read

    run(servers, main)


def test_a_replica_of_another_server_is_not_read(servers: Servers) -> None:
    async def main(found: Asked) -> None:
        with servers.stranger.connect() as direct, servers.replica.connect() as replica:
            replica.replicaof("127.0.0.1", servers.stranger.port)
            await now(lambda: follows(servers.replica, servers.stranger))
            direct.set("k", "x" * 100_000)  # its offset is far beyond the node's
            assert direct.wait(1, 5000) == 1
        await found.replication.look()
        assert not found.is_read

    run(servers, main)


def test_a_replica_without_a_link_is_not_read(servers: Servers) -> None:
    """It may refuse to answer: replica-serve-stale-data."""

    async def main(found: Asked) -> None:
        with servers.replica.connect() as replica, servers.primary.connect() as direct:
            replica.config_set("masterauth", "wrong")
            direct.config_set("requirepass", "word")
            direct.client_kill_filter(_type="replica")
            await now(lambda: replica.info("replication")["master_link_status"] == "down")
            direct.config_set("requirepass", "")
        await found.replication.look()
        assert not found.is_read

    run(servers, main)
