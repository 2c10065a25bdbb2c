from __future__ import annotations

from collections import Counter

import pytest

from shardproxy.admin.show.redis_map import changes, redis_json
from shardproxy.cli.rebalance_redis import goal
from shardproxy.errors import GoalError
from shardproxy.topology import redis_map
from shardproxy.topology.redis_map import first_map

NODES = {"a": 0, "b": 0, "c": 0}
FIRST = first_map({"a": 1, "b": 1})


def test_new_weights_move_only_what_must() -> None:
    owners = goal(FIRST, "a=1,b=1,c=1", [], NODES)
    assert owners == first_map({"a": 1, "b": 1, "c": 1}).map.owners
    assert {(source, target) for source, target, _ in changes(FIRST, owners)} == {("a", "c"), ("b", "c")}


def test_a_node_without_weight_gives_everything_away() -> None:
    assert set(goal(FIRST, "b=1", [], NODES)) == {"b"} == set(goal(FIRST, "b=1,a=0", [], NODES))


def test_buckets_by_hand() -> None:
    owners = goal(FIRST, "", ["7=c", "4090-4095=c"], NODES)
    assert Counter(owners)["c"] == 7 and owners[7] == owners[4095] == "c"


@pytest.mark.parametrize(
    ("weights", "buckets"),
    [("", []), ("d=1", []), ("a=0", []), ("a", []), ("", ["4096=a"]), ("", ["9-8=a"]), ("", ["1=x"]), ("", ["a"])],
)
def test_goals_that_make_no_sense(weights: str, buckets: list[str]) -> None:
    with pytest.raises(GoalError):
        goal(FIRST, weights, buckets, NODES)


def test_what_is_shown() -> None:
    assert redis_json(FIRST)["left"] == 0 and redis_json(FIRST)["move"] is None
    assert sum(redis_json(FIRST)["buckets"].values()) == 4096
    moving = redis_map.next_move(redis_map.want(FIRST, ["b"] * 4096), 100)
    shown = redis_json(redis_map.noted(moving, "a node is away"))
    assert shown["left"] == FIRST.map.owners.count("a") and shown["problem"] == "a node is away"
    assert shown["move"] == {"id": 1, "phase": "prepared", "source": "a", "target": "b", "buckets": 100}
