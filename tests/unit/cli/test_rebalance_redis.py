from __future__ import annotations

from collections import Counter

import pytest

from shardproxy.admin.show.redis_map import changes, redis_json
from shardproxy.cli.rebalance_redis import goal
from shardproxy.config.redis_models import RedisSettings
from shardproxy.errors import GoalError
from shardproxy.topology import redis_map
from shardproxy.topology.ketama import Continuum, Server
from shardproxy.topology.redis_map import first_ketama, first_map

NODES = RedisSettings.model_validate({"nodes": {name: {"address": "10.0.0.1:6379"} for name in "abc"}})
FIRST = first_map({"a": 1, "b": 1})


def test_new_weights_move_only_what_must() -> None:
    owners = goal(FIRST, "a=1,b=1,c=1", [], NODES)
    assert owners == first_map({"a": 1, "b": 1, "c": 1}).map.owners
    assert {(source, target) for source, target, _, _ in changes(FIRST, owners)} == {("a", "c"), ("b", "c")}


def test_a_node_without_weight_gives_everything_away() -> None:
    assert goal(FIRST, "b=1", [], NODES) == ["b"] * 4096 == goal(FIRST, "b=1,a=0", [], NODES)


def test_buckets_by_hand() -> None:
    owners = goal(FIRST, "", ["7=c", "4090-4095=c"], NODES)
    assert not isinstance(owners, Continuum)
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


KETAMA = RedisSettings.model_validate(
    {
        "placement": "ketama",
        "nodes": {name: {"address": "10.0.0.1:6379", "ketama_name": name.upper()} for name in "cab"},
    }
)
PLACED = first_ketama([Server("a", "A", 1), Server("b", "B", 1)])


def test_with_ketama_weights_are_servers_in_the_order_of_the_file() -> None:
    wanted = goal(PLACED, "a=1,b=2,c=1", [], KETAMA)
    assert wanted == Continuum(servers=(Server("c", "C", 1), Server("a", "A", 1), Server("b", "B", 2)))
    found = changes(PLACED, wanted)
    assert {target for _, target, _, _ in found} == {"b", "c"} and 0.3 < sum(share for *_, share in found) < 0.5
    assert {source for source, *_ in changes(PLACED, goal(PLACED, "b=1,a=0", [], KETAMA))} == {"a"}


@pytest.mark.parametrize(
    ("weights", "buckets", "told"),
    [
        ("", [], "say what shall be moved"),
        ("a=1,d=1", [], "d: no such node"),
        ("a=0", [], "no node would have any keys"),
        ("", ["7=a"], "there are no buckets"),
        ("a=1", ["7=a"], "there are no buckets"),
    ],
)
def test_goals_that_make_no_sense_with_ketama(weights: str, buckets: list[str], told: str) -> None:
    with pytest.raises(GoalError, match=told):
        goal(PLACED, weights, buckets, KETAMA)


def test_a_goal_needs_a_file_of_the_maps_placement() -> None:
    for document, file in ((PLACED, NODES), (FIRST, KETAMA)):
        with pytest.raises(GoalError, match="by which nobody would find them"):
            goal(document, "a=1", [], file)


def test_what_is_shown_of_ketama() -> None:
    moving = redis_map.next_move(redis_map.want(PLACED, goal(PLACED, "a=1,b=1,c=1", [], KETAMA)), 1000)
    shown = redis_json(moving)
    assert shown["placement"] == "ketama" and sum(shown["shares"].values()) == pytest.approx(1)
    assert [[server["name"] for server in one] for one in shown["servers"]] == [["A", "B"], ["C", "A", "B"]]
    assert shown["servers"][0][0] == {"node": "a", "name": "A", "weight": 1}
    assert shown["left"] == sum(count for *_, count, _ in changes(PLACED, goal(PLACED, "a=1,b=1,c=1", [], KETAMA)))
    assert redis_json(FIRST)["shares"]["a"] == FIRST.map.owners.count("a") / 4096
    assert redis_json(FIRST)["placement"] == "ring" and "servers" not in redis_json(FIRST)
