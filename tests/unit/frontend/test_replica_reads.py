"""Which commands go to a replica, and to which one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from shardproxy.backend.redis.link import CONNECTING, DOWN, UP
from shardproxy.backend.redis.node import LinkSettings, RedisNode
from shardproxy.backend.redis.slot import Turn
from shardproxy.frontend.redis.replica_reads import ReplicaReads
from shardproxy.planner.redis.spec import CommandSpec, find_spec


def with_replicas(use: Callable[[RedisNode, RedisNode], None]) -> None:
    """Call with two replicas of one node, which seem to be connected and complete."""

    async def run() -> None:
        turn = Turn(asyncio.get_running_loop())
        replicas = [RedisNode(f"r1/replica{n}", "127.0.0.1", 1, LinkSettings(), turn) for n in (1, 2)]
        for replica in replicas:
            replica.complete_until = monotonic()
            for links in replica.links:
                links[0].state = UP
        use(replicas[0], replicas[1])

    asyncio.run(run())


def spec(text: str) -> CommandSpec:
    found = find_spec(text.encode().split())
    assert found is not None
    return found


def test_only_reads_by_key() -> None:
    def use(first: RedisNode, second: RedisNode) -> None:
        reads = ReplicaReads([[first, second]], 5.0, False, 0)
        for text in ("GET", "get", "MGET", "EXISTS", "HGETALL", "TTL", "XREAD STREAMS", "SORT_RO", "BITFIELD_RO"):
            assert reads.link(spec(text), 0, False, 0.0) is first.links[False][0], text
        for text in ("SET", "GETEX", "GETDEL", "EVAL", "EVAL_RO", "FCALL_RO", "SORT", "PFADD", "PUBLISH", "GEORADIUS"):
            assert reads.link(spec(text), 0, False, 0.0) is None, text
        assert first.reads == 9

    with_replicas(use)


def test_a_client_stays_on_a_replica_that_is_fit() -> None:
    def use(first: RedisNode, second: RedisNode) -> None:
        reads = ReplicaReads([[], [first, second]], 5.0, False, 7)
        assert reads.link(spec("GET"), 0, False, 0.0) is None  # that node has no replicas
        assert [reads.link(spec("GET"), 1, True, 0.0) for _ in range(3)] == [second.links[True][0]] * 3
        for unfit in (None, monotonic() - 6.0):
            second.complete_until = unfit
            assert reads.link(spec("GET"), 1, True, 0.0) is first.links[True][0]
        first.links[True][0].full = True
        assert reads.link(spec("GET"), 1, True, 0.0) is None
        second.complete_until = monotonic()
        assert reads.link(spec("GET"), 1, True, 0.0) is second.links[True][0]
        second.links[True][0].state = DOWN
        assert reads.link(spec("GET"), 1, True, 0.0) is None
        assert second.links[True][0].state == CONNECTING

    with_replicas(use)


def test_a_replica_that_is_older_than_the_last_move_does_not_have_its_keys() -> None:
    def use(first: RedisNode, second: RedisNode) -> None:
        reads = ReplicaReads([[first, second]], 5.0, False, 0)
        moved = monotonic()
        assert reads.link(spec("GET"), 0, False, moved) is None
        second.complete_until = monotonic()
        assert reads.link(spec("GET"), 0, False, moved) is second.links[False][0]

    with_replicas(use)


def test_own_writes() -> None:
    def use(first: RedisNode, second: RedisNode) -> None:
        own, other = (ReplicaReads([[first, second]], 5.0, own_writes, 0) for own_writes in (True, False))
        assert own.link(spec("GET"), 0, False, 0.0) is None  # it may have written under another name
        own.settled()
        for text in ("SET", "FLUSHALL", "EXEC", "EVAL"):
            for reads in (own, other):
                first.complete_until = second.complete_until = monotonic()
                reads.note(spec(text))
                assert (reads.link(spec("GET"), 0, False, 0.0) is None) == (reads is own), text
            own.settled()
            assert own.link(spec("GET"), 0, False, 0.0) is None, text  # what the replicas have is older
            second.complete_until = monotonic()
            assert own.link(spec("GET"), 0, False, 0.0) is second.links[False][0], text
        own.note(spec("GET"))
        assert own.link(spec("GET"), 0, False, 0.0) is not None

    with_replicas(use)
