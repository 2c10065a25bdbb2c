"""The steps that are one step on a node, on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy.cache.entries import FILL, INVALIDATE, MARK, TAKE_LEASE, TOMBSTONE, Script, State, read, tag, value
from shardproxy.local.redis_node import RedisNode
from tests.redis.kinds import kinds_of_nodes

OLD, NEW = tag(b"aaaaaaaa", 1), tag(b"aaaaaaaa", 2)
KEY, MARK_KEY, PLACE = b"entry", b"mark", b"place"


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisNode]:
    with kinds_of_nodes(request.param, 1) as [running]:
        yield running


@pytest.fixture
def node(server: RedisNode) -> Iterator[Any]:
    with server.connect() as client:
        client.flushall()
        yield client


def run(node: Any, script: Script, keys: list[bytes], *arguments: object) -> int:
    found: int = node.eval(script.text, len(keys), *keys, *arguments)
    assert script.name in node.script_load(script.text).encode()
    return found


def lease(node: Any, token: str, wanted: bytes = OLD) -> bool:
    return bool(run(node, TAKE_LEASE, [KEY], token, 1000, wanted))


def fill(node: Any, token: str, payload: bytes | None = b"row", lives: int = 1000) -> bool:
    return bool(run(node, FILL, [KEY], token, value(OLD, payload), lives))


def test_one_loads_and_the_others_find_it(node: Any) -> None:
    assert lease(node, "one")
    assert not lease(node, "two")
    assert read(node.get(KEY), OLD)[0] is State.LEASE
    assert 0 < node.pttl(KEY) <= 1000
    assert fill(node, "one")
    assert read(node.get(KEY), OLD) == (State.VALUE, b"row")
    assert 0 < node.pttl(KEY) <= 1000
    assert not lease(node, "two")


def test_a_late_fill_is_refused(node: Any) -> None:
    assert lease(node, "one")
    assert run(node, INVALIDATE, [KEY, b"other"], 1000) == 2
    assert not fill(node, "one")
    assert node.get(KEY) == TOMBSTONE == node.get(b"other")
    node.delete(KEY)  # its lease has ended, and another has it
    assert lease(node, "two")
    assert not fill(node, "one")
    assert fill(node, "two")
    assert not fill(node, "two")


def test_nothing_is_filled_until_the_hold_off_is_over(node: Any) -> None:
    assert lease(node, "one") and fill(node, "one")
    run(node, INVALIDATE, [KEY], 1000)
    assert 0 < node.pttl(KEY) <= 1000
    assert not lease(node, "two")
    assert not lease(node, "two", NEW)


def test_what_was_loaded_under_another_tag_is_loaded_anew(node: Any) -> None:
    assert lease(node, "one") and fill(node, "one", None)
    assert read(node.get(KEY), OLD)[0] is State.ABSENT
    assert not lease(node, "two", OLD)
    assert lease(node, "two", NEW)


def test_a_lease_is_given_back(node: Any) -> None:
    assert lease(node, "one") and fill(node, "one", b"", 0)
    assert not node.exists(KEY)


def now(node: Any) -> int:
    seconds, micros = node.time()
    return int(seconds) * 1000 + int(micros) // 1000


def mark(node: Any, generation: str, until: int, place: str, fresh: bool = False) -> bool:
    return bool(run(node, MARK, [MARK_KEY, PLACE], generation, until, place, int(fresh)))


def test_a_generation_begins_once_and_goes_on(node: Any) -> None:
    later = now(node) + 60_000
    assert not mark(node, "aaaaaaaa", later, "0-1-1|")  # the node knows of none
    assert mark(node, "aaaaaaaa", later, "0-1-1|", fresh=True)
    assert not mark(node, "bbbbbbbb", later, "0-1-1|", fresh=True)  # another keeper's
    assert not mark(node, "bbbbbbbb", later, "0-1-1|")
    assert not mark(node, "aaaaaaa", later, "0-1-1|")
    assert mark(node, "aaaaaaaa", later, "0-1-2|0-1-1")
    assert (node.get(MARK_KEY), node.get(PLACE)) == (b"aaaaaaaa", b"aaaaaaaa 0-1-2|0-1-1")


def test_a_mark_ends_when_it_was_told_to_and_is_never_shortened(node: Any) -> None:
    later = now(node) + 60_000
    mark(node, "aaaaaaaa", later, "0-1-1|", fresh=True)
    assert mark(node, "aaaaaaaa", later - 30_000, "0-1-1|")
    assert node.pexpiretime(MARK_KEY) == later
    node.delete(MARK_KEY)
    assert mark(node, "aaaaaaaa", now(node) - 1, "0-1-1|")  # said too late
    assert not node.exists(MARK_KEY)
    assert node.ttl(PLACE) == -1
