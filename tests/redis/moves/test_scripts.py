"""The steps by which keys go from node to node, on stock Redis and Valkey: whoever comes late does no harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from shardproxy.protocol.redis import moves
from tests.redis.kinds import Kind, kinds_of_nodes


class Pair:
    """A source and a target under the fence of move 1."""

    def __init__(self, source: Any, target: Any) -> None:
        self.source = source
        self.target = target

    def take(self, key: str, move: int = 1) -> Any:
        return run(self.source, moves.take(move, key.encode()))

    def put(self, key: str, taken: Sequence[Any], move: int = 1) -> Any:
        return run(self.target, moves.put(move, key.encode(), taken[0], taken[1]))

    def drop(self, key: str, move: int = 1) -> Any:
        return run(self.source, moves.drop(moves.opened(move), [key.encode()]))

    def fence(self, height: int) -> None:
        for client in (self.source, self.target):
            run(client, moves.raise_fence(height))


def run(client: Any, words: Sequence[bytes]) -> Any:
    return client.execute_command(*words)


@pytest.fixture(scope="module", params=["redis", "valkey"])
def clients(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    kind: Kind = request.param
    with kinds_of_nodes(kind, 2) as nodes, nodes[0].connect() as source, nodes[1].connect() as target:
        yield source, target


@pytest.fixture
def pair(clients: tuple[Any, Any]) -> Pair:
    for client in clients:
        client.flushall()
    found = Pair(*clients)
    found.fence(moves.opened(1))
    return found


def fill(client: Any) -> list[str]:
    """A key of each type."""
    client.set("string", b"\0\xff\r\n" * 100)
    client.set("number", 41)
    client.rpush("list", *range(1000))
    client.sadd("set", "a")
    client.hset("hash", mapping={str(n): n for n in range(500)})
    client.zadd("sorted", {"a": 1.5, "b": -2})
    client.xadd("stream", {"f": "v"}, id="5-1")
    client.xgroup_create("stream", "readers", "0")
    client.xreadgroup("readers", "me", {"stream": ">"})
    client.pfadd("log", "x", "y")
    client.geoadd("geo", (13.3, 38.1, "there"))
    return ["string", "number", "list", "set", "hash", "sorted", "stream", "log", "geo"]


def test_every_type_arrives_as_it_was(pair: Pair) -> None:
    keys = fill(pair.source)
    before = {key: pair.source.dump(key) for key in keys}
    for key in keys:
        assert pair.put(key, pair.take(key)) == 1
        assert pair.drop(key) == 1
        assert pair.take(key) is None
    assert {key: pair.target.dump(key) for key in keys} == before
    assert sorted(pair.target.keys()) == sorted(key.encode() for key in keys)  # our marks are not among them
    assert pair.source.dbsize() == 0
    pending = pair.target.xpending("stream", "readers")
    assert pending["pending"] == 1


def test_the_time_at_which_a_key_expires_stays(pair: Pair) -> None:
    pair.source.set("k", "v", pxat=4_000_000_000_123)
    pair.put("k", pair.take("k"))
    assert pair.target.pexpiretime("k") == 4_000_000_000_123
    pair.source.set("forever", "v")
    pair.put("forever", pair.take("forever"))
    assert pair.target.pttl("forever") == -1


def test_what_expired_on_its_way_does_not_come_back(pair: Pair) -> None:
    pair.source.set("k", "v", px=60_000)
    dump, _ = pair.take("k")
    pair.put("k", [dump, 1])
    assert not pair.target.exists("k")


def test_a_slow_put_does_not_bring_back_what_was_deleted(pair: Pair) -> None:
    pair.source.set("k", "old")
    slow = pair.take("k")
    pair.put("k", pair.take("k"))
    pair.drop("k")
    pair.target.delete("k")
    assert pair.put("k", slow) == 0
    assert not pair.target.exists("k")


def test_a_slow_put_does_not_bring_an_old_value(pair: Pair) -> None:
    pair.source.set("k", 1)
    slow = pair.take("k")
    pair.put("k", pair.take("k"))
    pair.target.incr("k")
    assert pair.put("k", slow) == 0
    assert pair.target.get("k") == b"2"


def test_a_key_that_is_there_for_another_reason_is_not_overwritten(pair: Pair) -> None:
    pair.source.set("k", "old")
    pair.target.set("k", "new")
    with pytest.raises(redis.ResponseError, match="OCCUPIED"):
        pair.put("k", pair.take("k"))
    assert pair.target.get("k") == b"new"


@pytest.mark.parametrize("height", [moves.closed(1), moves.closed(2), moves.opened(2)])
def test_under_another_fence_nothing_is_done(clients: tuple[Any, Any], height: int) -> None:
    pair = Pair(*clients)
    for client in clients:
        client.flushall()
    pair.source.set("k", "v")
    pair.fence(height)
    with pytest.raises(redis.ResponseError, match="CLOSED"):
        pair.take("k")
    with pytest.raises(redis.ResponseError, match="CLOSED"):
        pair.drop("k")
    with pytest.raises(redis.ResponseError, match="CLOSED"):
        pair.put("k", [b"", -1])
    assert pair.source.get("k") == b"v" and not pair.target.exists("k")


def test_a_fence_only_grows(pair: Pair) -> None:
    assert run(pair.source, moves.raise_fence(9)) == 9
    assert run(pair.source, moves.raise_fence(4)) == 9
    with pytest.raises(redis.ResponseError, match="CLOSED the fence is 9"):
        pair.take("k")
