"""The words of `shardctl rebalance`: what they mean, and what is said about those that mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shardproxy.cli import rebalance_goals as words
from shardproxy.errors import GoalError
from shardproxy.topology.goals import (
    AddShard,
    MergeRanges,
    MoveBuckets,
    MoveRange,
    SetWeights,
    ShiftBoundary,
    SplitRange,
    ToHash,
    ToRanges,
)
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.model import Role
from shardproxy.topology.table_goals import ChangeKey, ShardTable

Parse = Callable[[str], Any]


@pytest.mark.parametrize(
    ("parse", "word", "goal"),
    [
        (words.weights, "a=2, b=1", SetWeights({"a": 2, "b": 1})),
        (words.move_bucket, "17=b", MoveBuckets(17, 17, "b")),
        (words.move_bucket, "17-40=b.c-1", MoveBuckets(17, 40, "b.c-1")),
        (words.move_range, "1000:2000=b", MoveRange(1000, 2000, "b")),
        (words.move_range, "min:-5=b", MoveRange(INT_MIN, -5, "b")),
        (words.move_range, "-5:max=b", MoveRange(-5, INT_MAX + 1, "b")),
        (words.split_range, "5000", SplitRange(5000)),
        (words.split_range, "-1=c", SplitRange(-1, "c")),
        (words.merge_ranges, "all", MergeRanges()),
        (words.merge_ranges, "1000", MergeRanges(1000)),
        (words.merge_ranges, "1000=b", MergeRanges(1000, "b")),
        (words.shift, "-1000:1200", ShiftBoundary(-1000, 1200)),
        (words.to_map, "hash", ToHash()),
        (
            words.to_map,
            "range:min:5=a, 5:max=b",
            ToRanges((MoveRange(INT_MIN, 5, "a"), MoveRange(5, INT_MAX + 1, "b"))),
        ),
        (words.shard_table, "t=k", ShardTable("t", "k")),
        (words.change_key, "t=k", ChangeKey("t", "k")),
        (words.rows_a_second, "20000", 20000),
        (words.rows_a_second, "20k/s", 20000),
    ],
)
def test_words_and_goals(parse: Parse, word: str, goal: object) -> None:
    assert parse(word) == goal


@pytest.mark.parametrize(
    ("parse", "word"),
    [
        *((words.weights, word) for word in ("", "a", "a=", "a=x", "a=-1", "a=1,a=2", "a=1,", "a=²")),
        *((words.move_bucket, word) for word in ("", "5", "5=", "x=b", "-5=b", "5-=b", "5:6=b")),
        *((words.move_range, word) for word in ("", "5", "5:6", "5:6=", "5=b", "a:6=b", "max:min=b", ":6=b", "5:=b")),
        *((words.split_range, word) for word in ("", "x", "5.0", f"{2**64}", f"{-(2**63) - 1}")),
        *((words.merge_ranges, word) for word in ("", "x", "all=b")),
        *((words.shift, word) for word in ("", "5", "5:", ":5", "a:b")),
        *((words.shard_table, word) for word in ("", "t", "t=", "=k")),
        *((words.to_map, word) for word in ("", "hash:", "hash:a=1", "range", "range:", "range:5=a", "ranges:min:5=a")),
        *((words.rows_a_second, word) for word in ("", "0", "0k/s", "-5", "1.5k", "5m")),
    ],
)
def test_words_that_mean_nothing_say_what_is_expected(parse: Parse, word: str) -> None:
    with pytest.raises(GoalError, match=r"expected|no key that BIGINT"):
        parse(word)


def test_a_shard_with_its_servers() -> None:
    assert words.add_shard("d", 3) == AddShard("d", None, 3)
    goal = words.add_shard("d=10.0.0.9:3306,[::1]:3307", 1)
    assert goal.shard is not None and goal.shard.name == "d"
    assert [(s.name, s.host, s.port, s.role) for s in goal.shard.servers] == [
        ("d/primary", "10.0.0.9", 3306, Role.PRIMARY),
        ("d/replica1", "::1", 3307, Role.REPLICA),
    ]


@pytest.mark.parametrize("word", ["", "=h:1", "a b=h:1", "d=", "d=host", "d=h:1,", "d=h:99999", "-d=h:1"])
def test_a_shard_that_cannot_be(word: str) -> None:
    with pytest.raises(GoalError, match="expected"):
        words.add_shard(word, 1)
