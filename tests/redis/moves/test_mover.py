"""The mover alone, on real nodes without proxies: it may stop anywhere, and what it cannot move it refuses before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from shardproxy.errors import MoveError, ReshardError
from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from shardproxy.reshard.redis_mover import RedisMover, Wishes, change_map, read_redis_map
from shardproxy.reshard.redis_nodes import NodeControl
from shardproxy.store.interface import ABSENT, MapStore
from shardproxy.topology import redis_map
from shardproxy.topology.redis_map import REDIS_MAP, REDIS_PROXIES, RedisIdentity
from tests.redis.kinds import kinds_of_nodes
from tests.stores import embedded

KEYS = {f"key:{n}": b"v%d" % n for n in range(40)}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisNode]]:
    with kinds_of_nodes("redis", 2) as running:
        yield running


@asynccontextmanager
async def ring(folder: Path, nodes: list[RedisNode]) -> AsyncIterator[tuple[MapStore, dict[str, NodeControl]]]:
    """A store in which the first node, a, has all keys, and shall give them to the second, b."""
    controls = {name: NodeControl(name, n.host, n.port, "", None, 10) for name, n in zip("ab", nodes, strict=True)}
    for node in nodes:
        with node.connect() as client:
            client.flushall()
    with nodes[0].connect() as client:
        client.mset(KEYS)
    async with embedded(folder).store() as store:
        try:
            document = redis_map.want(redis_map.first_map({"a": 1}), ["b"] * 4096)
            await store.put(REDIS_MAP, document.document(), ABSENT)
            yield store, controls
        finally:
            for control in controls.values():
                await control.close()


def there(node: RedisNode) -> dict[str, bytes]:
    with node.connect() as client:
        return {key.decode(): client.get(key) for key in client.scan_iter()}


def folder_of(number: int, parent: Path) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    return folder


@pytest.mark.parametrize("cancel", [False, True])
def test_a_mover_may_stop_between_any_two_steps(tmp_path: Path, nodes: list[RedisNode], cancel: bool) -> None:
    async def stopped_at(number: int, folder: Path) -> bool:
        steps = count()

        def step(_: str) -> None:
            if next(steps) == number:
                raise Stopped

        async with ring(folder, nodes) as (store, controls):
            wishes = Wishes(buckets=2048)
            try:
                await RedisMover(store, controls, wishes, step=step).run()
            except Stopped:
                found = {**there(nodes[0]), **there(nodes[1])}
                assert found == KEYS  # whatever is at both is equal
            else:
                return False
            if cancel and (await read_redis_map(store))[0].wanted is not None:
                await change_map(store, redis_map.turn_back)
            await RedisMover(store, controls, wishes).run()
            document, _ = await read_redis_map(store)
            assert document.move is None and document.wanted is None
            owner = set(document.map.owners)
            assert owner == ({"a"} if cancel else {"b"})
            full, empty = (nodes[0], nodes[1]) if cancel else (nodes[1], nodes[0])
            assert there(full) == KEYS and there(empty) == {}
            return True

    number = 0
    while asyncio.run(stopped_at(number, folder_of(number, tmp_path))):
        number += 1
    assert number > 12


def test_a_big_key_refuses_the_move_before_it_begins(tmp_path: Path, nodes: list[RedisNode]) -> None:
    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            with nodes[0].connect() as client:
                client.set("big", bytes(3 << 20))
            with pytest.raises(MoveError, match=r"key big on node a has 3 MiB"):
                await RedisMover(store, controls, Wishes(buckets=4096, biggest=1 << 20)).run()
            document, _ = await read_redis_map(store)
            assert document.move is None and set(document.map.owners) == {"a"} and "big" in document.problem

    asyncio.run(main())


def test_a_proxy_that_cannot_take_part_refuses_the_move(tmp_path: Path, nodes: list[RedisNode]) -> None:
    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            one = RedisIdentity(id="one", place="elsewhere:1:1", acknowledged=1000, unmovable="it has sentinels")
            version = await store.put(REDIS_PROXIES + one.id, one.document(), ABSENT)
            with pytest.raises(MoveError, match=r"proxy one \(elsewhere:1:1\) cannot take part: it has sentinels"):
                await RedisMover(store, controls, Wishes()).run()
            document, _ = await read_redis_map(store)
            assert document.move is None and there(nodes[0]) == KEYS
            await store.put(REDIS_PROXIES + one.id, one.model_copy(update={"unmovable": ""}).document(), version)
            await RedisMover(store, controls, Wishes()).run()
            assert there(nodes[1]) == KEYS

    asyncio.run(main())


def test_what_lies_at_the_target_is_not_taken_for_keys(tmp_path: Path, nodes: list[RedisNode]) -> None:
    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            with nodes[1].connect() as client:
                client.mset({"key:1": "old", "key:100": "deleted long ago"})
            await RedisMover(store, controls, Wishes()).run()
            assert there(nodes[1]) == KEYS

    asyncio.run(main())


def test_a_key_that_somebody_has_written_to_the_target_is_not_overwritten(
    tmp_path: Path, nodes: list[RedisNode]
) -> None:
    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):

            def step(where: str) -> None:
                if where == "barrier passed":
                    with nodes[1].connect() as client:
                        client.set("key:1", "theirs")

            with pytest.raises(ReshardError, match="no move has put there"):
                await RedisMover(store, controls, Wishes(buckets=4096), step=step).run()
            assert there(nodes[0]) == {"key:1": b"v1"} and there(nodes[1])["key:1"] == b"theirs"
            with nodes[1].connect() as client:
                client.delete("key:1")
            await RedisMover(store, controls, Wishes()).run()
            assert there(nodes[1]) == KEYS

    asyncio.run(main())


def test_a_target_that_does_not_read_the_dumps_refuses_the_move(tmp_path: Path) -> None:
    async def main(old: RedisNode, new: RedisNode) -> None:
        async with ring(tmp_path, [new, old]) as (store, controls):
            with pytest.raises(MoveError, match="node b cannot take over keys of node a"):
                await RedisMover(store, controls, Wishes()).run()
            assert there(new) == KEYS
            assert (await read_redis_map(store))[0].move is None

    with kinds_of_nodes("valkey", 1) as [new], LocalCluster("mariadb", shards=0, replicas=0, redis=1) as cluster:
        asyncio.run(main(cluster.redis[0], new))


def test_a_mover_that_comes_late_does_no_harm(tmp_path: Path, nodes: list[RedisNode]) -> None:
    """One has emptied the target half, another one has moved everything and somebody has written: it finds a higher
    fence, and then the other's map."""

    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            waiting, going = asyncio.Event(), asyncio.Event()
            late = RedisMover(store, {**controls, "b": Late(nodes[1], waiting, going)}, Wishes(buckets=4096))
            task = asyncio.create_task(late.run())
            await waiting.wait()
            await RedisMover(store, controls, Wishes(buckets=4096)).run()
            with nodes[1].connect() as client:
                client.set("key:1", "new")
            going.set()
            await task
            assert there(nodes[1]) == {**KEYS, "key:1": b"new"}
            assert (await read_redis_map(store))[0].move is None

    asyncio.run(main())


class Late(NodeControl):
    """A target of which a mover has seen keys to delete, and then stands still."""

    def __init__(self, node: RedisNode, waiting: asyncio.Event, going: asyncio.Event) -> None:
        super().__init__("b", node.host, node.port, "", None, 10)
        self._waiting, self._going = waiting, going

    async def keys_of(self, buckets: object) -> AsyncIterator[list[bytes]]:
        self._waiting.set()
        await self._going.wait()
        yield [name.encode() for name in KEYS]
        await self.close()
