"""The steps that are one step on a node, on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy.cache.entries import (
    FILL,
    FILL_STAMPED,
    INVALIDATE,
    MARK,
    REFILL,
    STAMP,
    TAKE_LEASE,
    TAKE_REFRESH,
    TOMBSTONE,
    Script,
    State,
    due_at,
    read,
    stamp_token,
    tag,
    value,
)
from shardproxy.local.redis_node import RedisNode
from tests.redis.kinds import kinds_of_nodes

OLD, NEW = tag(b"aaaaaaaa", 1), tag(b"aaaaaaaa", 2)
HEAD = value(OLD, b"")
KEY, MARK_KEY, PLACE = b"entry", b"mark", b"place"
LONG = 60_000  # milliseconds: no test takes as long


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
    return bool(run(node, TAKE_LEASE, [KEY], token, LONG, wanted))


def fill(node: Any, token: str, payload: bytes | None = b"row", lives: int = LONG) -> bool:
    return bool(run(node, FILL, [KEY], token, value(OLD, payload), lives))


def test_one_loads_and_the_others_find_it(node: Any) -> None:
    assert lease(node, "one")
    assert not lease(node, "two")
    assert read(node.get(KEY), OLD)[0] is State.LEASE
    assert 0 < node.pttl(KEY) <= LONG
    assert fill(node, "one")
    assert read(node.get(KEY), OLD) == (State.VALUE, b"row")
    assert 0 < node.pttl(KEY) <= LONG
    assert not lease(node, "two")


def test_a_late_fill_is_refused(node: Any) -> None:
    assert lease(node, "one")
    assert run(node, INVALIDATE, [KEY, b"other"], LONG) == 2
    assert not fill(node, "one")
    assert node.get(KEY) == TOMBSTONE == node.get(b"other")
    node.delete(KEY)  # its lease has ended, and another has it
    assert lease(node, "two")
    assert not fill(node, "one")
    assert fill(node, "two")
    assert not fill(node, "two")


def test_nothing_is_filled_until_the_hold_off_is_over(node: Any) -> None:
    assert lease(node, "one") and fill(node, "one")
    run(node, INVALIDATE, [KEY], LONG)
    assert 0 < node.pttl(KEY) <= LONG
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


def stamped(node: Any) -> bytes:
    """The value's stamp and payload."""
    state, payload = read(node.get(KEY), OLD)
    assert state is State.VALUE
    return payload


def fill_stamped(node: Any, token: str, due: int, lives: int = LONG) -> bytes:
    """The stamp of what was filled."""
    assert run(node, FILL_STAMPED, [KEY], token, HEAD, stamp_token(), b"row", lives, due)
    return stamped(node)[:STAMP]


def take(node: Any, stamp: bytes, token: bytes, holds: int = LONG) -> bool:
    return bool(run(node, TAKE_REFRESH, [KEY], HEAD + stamp, token, holds))


def refill(node: Any, token: bytes, payload: bytes | None = b"newer", lives: int = LONG, due: int = 500) -> bool:
    words = [value(OLD, None), b"", lives, -1] if payload is None else [HEAD, payload, lives, due]
    return bool(run(node, REFILL, [KEY], HEAD, token, *words))


ONE, TWO = b"1" * 16, b"2" * 16


def test_a_value_is_loaded_anew_by_one_when_it_is_due(node: Any) -> None:
    assert lease(node, "one")
    stamp = fill_stamped(node, "one", due=60_000, lives=90_000)
    assert due_at(stamp) == pytest.approx(now(node) + 60_000, abs=5000)
    assert 80_000 < node.pttl(KEY) <= 90_000
    assert not take(node, stamp, ONE)  # not due
    node.delete(KEY)
    assert lease(node, "one")
    stamp = fill_stamped(node, "one", due=0, lives=90_000)
    before = now(node)
    assert take(node, stamp, ONE)
    assert not take(node, stamp, TWO)  # no more as it was seen
    assert before + LONG <= due_at(stamped(node)) <= now(node) + LONG
    assert stamped(node)[STAMP:] == b"row"  # which is given meanwhile
    assert 80_000 < node.pttl(KEY) <= 90_000
    assert refill(node, ONE)
    assert stamped(node)[STAMP:] == b"newer"
    assert 0 < node.pttl(KEY) <= LONG
    assert not lease(node, "two")


def test_a_load_whose_lease_is_over_is_refused(node: Any) -> None:
    assert lease(node, "one")
    assert take(node, fill_stamped(node, "one", due=0), ONE, holds=0)
    assert take(node, stamped(node)[:STAMP], TWO)
    assert not refill(node, ONE)
    assert refill(node, TWO)


@pytest.mark.parametrize("after", ["tombstone", "lease", "the same value again"])
def test_what_makes_a_value_void_makes_its_load_void(node: Any, after: str) -> None:
    assert lease(node, "one")
    stamp = fill_stamped(node, "one", due=0)
    assert take(node, stamp, ONE)
    run(node, INVALIDATE, [KEY], LONG)
    if after != "tombstone":
        node.delete(KEY)  # the hold-off is over
        assert lease(node, "two")
    if after == "the same value again":
        fill_stamped(node, "two", due=0)
    before = node.get(KEY)
    assert not refill(node, ONE)
    assert not take(node, stamp, TWO)
    assert node.get(KEY) == before


def test_a_row_that_is_gone_when_it_is_loaded_anew(node: Any) -> None:
    assert lease(node, "one")
    assert take(node, fill_stamped(node, "one", due=0), ONE)
    assert refill(node, ONE, None)
    assert read(node.get(KEY), OLD) == (State.ABSENT, b"")
    node.delete(KEY)
    assert lease(node, "one")
    assert take(node, fill_stamped(node, "one", due=0), ONE)
    assert refill(node, ONE, None, lives=0)
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
