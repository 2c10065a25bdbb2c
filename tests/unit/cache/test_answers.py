"""When a kept answer is believed: as long as all marks and tokens are those that it was read under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from shardproxy.cache.answers import AnswerPlace, Guards
from shardproxy.cache.entries import TOMBSTONE, State, all_values, value
from shardproxy.cache.node import CacheNode
from shardproxy.protocol.redis import encode
from tests.unit.planner.world import SNAPSHOT

TABLES = (("shop", "orders"), ("shop", "users"))


class Node:
    """What a place needs of a node. sent: commands."""

    def __init__(self, usable: bool = True) -> None:
        self.run = "r1"
        self.usable = usable
        self.sent: list[bytes] = []

    def send(self, command: bytes, told: object) -> None:
        self.sent.append(command)


def place(node: Node | None = None, tables: Any = TABLES) -> AnswerPlace:
    return AnswerPlace(Guards(tables, cast(CacheNode, node or Node()), "d", SNAPSHOT), b"k")


def reply(*values: bytes | None) -> bytes:
    return encode.array([b"$-1\r\n" if one is None else encode.bulk(one) for one in values])


GOOD: Sequence[bytes | None] = (b"ga", b"gb", b"t1", b"t2")  # marks of two shards, tokens of two tables


def tagged(answer: bytes, guards: Sequence[bytes | None] = GOOD) -> bytes:
    found = place().found(reply(None, *guards))
    assert found is not None
    return value(found[2], answer)


def test_an_answer_is_asked_for_with_all_its_guards() -> None:
    assert place().words == [
        b"MGET", b"_shardproxy:r1:d:answer:k", b"_shardproxy:r1:d:mark:a", b"_shardproxy:r1:d:mark:b",
        b"_shardproxy:r1:d:queried:shop.orders", b"_shardproxy:r1:d:queried:shop.users",
    ]  # fmt: skip
    only = place(tables=(("shop", "settings"),)).words  # on one shard
    assert only[2:] == [b"_shardproxy:r1:d:mark:a", b"_shardproxy:r1:d:queried:shop.settings"]


def test_under_the_same_guards_it_is_believed() -> None:
    found = place().found(reply(tagged(b"rows"), *GOOD))
    assert found is not None and found[:2] == (State.VALUE, b"rows")


@pytest.mark.parametrize("changed", range(4))
def test_under_another_guard_it_is_not(changed: int) -> None:
    others = list(GOOD)
    others[changed] = b"zz"
    found = place().found(reply(tagged(b"rows"), *others))
    assert found is not None and found[0] is State.NOTHING


@pytest.mark.parametrize("missing", range(2))
def test_without_a_mark_nothing_is_known(missing: int) -> None:
    others = list(GOOD)
    others[missing] = None
    assert place().found(reply(tagged(b"rows"), *others)) is None


@pytest.mark.parametrize("written", range(2, 4))
def test_a_table_that_was_written_holds_off(written: int) -> None:
    others = list(GOOD)
    others[written] = TOMBSTONE
    found = place().found(reply(tagged(b"rows"), *others))
    assert found is not None and found[0] is State.TOMBSTONE


def test_a_table_without_a_token_gets_one_that_nobody_has_had() -> None:
    node = Node()
    for _ in range(2):
        found = place(node).found(reply(tagged(b"rows"), b"ga", b"gb", None, b"t2"))
        assert found is not None and found[0] is State.TOMBSTONE
    one, two = node.sent
    name = b"_shardproxy:r1:d:queried:shop.orders"
    assert name in one and b"NX" in one and one != two
    unusable = Node(usable=False)
    place(unusable).found(reply(None, b"ga", b"gb", None, None))
    assert not unusable.sent


def test_replies_that_are_none() -> None:
    for wrong in (b"-ERR no\r\n", reply(None, b"ga"), reply(None, *GOOD, b"more"), reply(None, *GOOD)[:-3]):
        assert place().found(wrong) is None
    assert all_values(reply(b"a", None), 2) == [b"a", None]
    with pytest.raises(ValueError, match="2 values were due"):
        all_values(reply(b"a"), 2)
