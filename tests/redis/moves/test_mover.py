"""The mover alone, on real nodes without proxies: it may stop anywhere, and what it cannot move it refuses before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from shardproxy.errors import MoveError, ReshardError
from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from shardproxy.protocol.redis import moves
from shardproxy.reshard import redis_pieces
from shardproxy.reshard.redis_mover import RedisMover, Wishes, change_map, read_redis_map
from shardproxy.reshard.redis_nodes import NodeControl
from shardproxy.store.interface import ABSENT, MapStore
from shardproxy.topology import redis_map
from shardproxy.topology.redis_map import REDIS_MAP, REDIS_PROXIES, RedisIdentity
from tests.redis.kinds import kinds_of_nodes
from tests.redis.moves.test_scripts import fill
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
    async with from_a_to_b(folder, controls) as store:
        yield store, controls


@asynccontextmanager
async def from_a_to_b(folder: Path, controls: dict[str, NodeControl]) -> AsyncIterator[MapStore]:
    """A store in which a has all keys, and shall give them to b. Closes the controls."""
    async with embedded(folder).store() as store:
        try:
            document = redis_map.want(redis_map.first_map({"a": 1}), ["b"] * 4096)
            await store.put(REDIS_MAP, document.document(), ABSENT)
            yield store
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


@pytest.mark.parametrize("biggest", [moves.BIG, 0])
@pytest.mark.parametrize("cancel", [False, True])
def test_a_mover_may_stop_between_any_two_steps(
    tmp_path: Path, nodes: list[RedisNode], cancel: bool, biggest: int
) -> None:
    async def stopped_at(number: int, folder: Path) -> bool:
        steps = count()

        def step(_: str) -> None:
            if next(steps) == number:
                raise Stopped

        async with ring(folder, nodes) as (store, controls):
            wishes = Wishes(buckets=2048, biggest=biggest)
            try:
                await RedisMover(store, controls, wishes, step=step).run()
            except Stopped:
                found = {**there(nodes[0]), **there(nodes[1])}
                found = {key: value for key, value in found.items() if not key.startswith("_shardproxy:parts:")}
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


def shown(client: Any, key: bytes) -> Any:
    """All that a client can see of a key, but for times that pass."""
    kind = client.type(key)
    reads: dict[bytes, Callable[[], Any]] = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"hash": lambda: client.hgetall(key),
        b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
        b"stream": lambda: seen_of(client, key),
    }
    return kind, reads[kind](), client.pexpiretime(key)


def seen_of(client: Any, key: bytes) -> Any:
    about = {name: value for name, value in client.xinfo_stream(key).items() if not name.startswith("radix")}
    groups = []
    for group in client.xinfo_groups(key):
        pending = client.xpending_range(key, group["name"], "-", "+", 10_000)
        names = sorted(each["name"] for each in client.xinfo_consumers(key, group["name"]))
        for entry in pending:
            del entry["time_since_delivered"]
        groups.append((group, names, pending))
    return about, client.xrange(key), groups


def test_large_keys_arrive_in_pieces_as_they_were(
    tmp_path: Path, nodes: list[RedisNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_pieces, "PIECE", 200)
    steps: Counter[str] = Counter()

    def step(name: str) -> None:
        steps[name] += 1

    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            with nodes[0].connect() as client, nodes[1].connect() as target:
                fill(client)
                client.sadd("set", *range(3000))
                client.zadd("sorted", {f"m{n}": n / 7 for n in range(1000)})
                client.hset("hash", mapping={f"f{n}": "x" * 100 for n in range(700)})
                for n in range(500):
                    client.xadd("stream", {"n": n, "m": b"\r\n"}, id=f"6-{n + 1}")
                client.xreadgroup("readers", "other", {"stream": ">"}, count=100)
                client.xdel("stream", "6-500", "6-450")
                client.xgroup_create("stream", "idle", "6-3")
                client.xgroup_createconsumer("stream", "idle", "nobody")
                client.pexpireat("hash", 4_000_000_000_123)
                client.xadd("none", {"a": "b"}, id="1-1")
                client.xdel("none", "1-1")
                before = {key: shown(client, key) for key in client.scan_iter()}
                await RedisMover(store, controls, Wishes(buckets=4096, biggest=0), step=step).run()
                assert {key: shown(target, key) for key in target.scan_iter()} == before
                assert client.dbsize() == 0
        assert steps["piece"] > 300 and steps["finished"] == len(before)

    asyncio.run(main())


def test_a_large_key_of_which_parts_are_missing_does_not_take_its_place(tmp_path: Path, nodes: list[RedisNode]) -> None:
    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            with nodes[0].connect() as client, nodes[1].connect() as target:

                def step(name: str) -> None:
                    if name == "piece":
                        for key in target.scan_iter("_shardproxy:parts:*"):
                            target.delete(key)

                client.rpush("big", *range(3000))
                wishes = Wishes(buckets=4096, biggest=5000)
                with pytest.raises(ReshardError, match="of 3000 elements 0 have come"):
                    await RedisMover(store, controls, wishes, step=step).run()
                assert client.llen("big") == 3000 and not target.exists("big")
                await RedisMover(store, controls, wishes).run()
                assert target.llen("big") == 3000 and set(there_names(target)) == {*KEYS, "big"}

    asyncio.run(main())


def there_names(client: Any) -> list[str]:
    return [key.decode() for key in client.scan_iter()]


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


def test_the_target_is_emptied_when_no_proxy_puts_keys_of_others_there(tmp_path: Path, nodes: list[RedisNode]) -> None:
    """One in cache mode that has not acknowledged what is wanted may, when it takes the source for dead."""

    async def main() -> None:
        async with ring(tmp_path, nodes) as (store, controls):
            one = RedisIdentity(id="one", place="elsewhere:1:1", acknowledged=1, cache=True)
            await store.put(REDIS_PROXIES + one.id, one.document(), ABSENT)
            steps: list[str] = []
            await RedisMover(store, controls, Wishes(answer=0.05), step=steps.append).run()
            assert 0 <= steps.index("shut out") < steps.index("empty the target")
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

    async def keys_of(self, ring: object, units: object) -> AsyncIterator[list[bytes]]:
        self._waiting.set()
        await self._going.wait()
        yield [name.encode() for name in KEYS]
        await self.close()
