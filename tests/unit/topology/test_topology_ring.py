"""The ring places buckets evenly, by weight, and a new shard takes only what it receives."""

from __future__ import annotations

import pytest

from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.maps import BucketMap, moved
from shardproxy.topology.ring import likely_weights, place_buckets


def placed(weights: dict[str, int]) -> BucketMap:
    return BucketMap(place_buckets(weights, {name: i for i, name in enumerate(weights)}))


@pytest.mark.parametrize("shards", range(1, 17))
def test_one_more_shard_moves_little_and_only_to_itself(shards: int) -> None:
    names = [f"shard{i}" for i in range(shards + 1)]
    old, new = placed(dict.fromkeys(names[:-1], 1)), placed(dict.fromkeys(names, 1))
    changes = moved(old, new)
    assert {shard for _, _, shard in changes} == {shards}, "rows move to the new shard only"
    # Beyond 8 shards a share is so few buckets that chance alone (±1/√share) may exceed 15 %.
    limit = 1.15 if shards <= 8 else 1.25
    assert len(changes) <= limit / (shards + 1) * BUCKETS


def test_a_shard_that_leaves_gives_away_only_its_own_buckets() -> None:
    names = {"a": 1, "b": 1, "c": 1}
    order = {"a": 0, "b": 1, "c": 2}
    with_c, without = place_buckets(names, order), place_buckets({"a": 1, "b": 1}, order)
    assert all(before == after for before, after in zip(with_c, without, strict=True) if before != 2)


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 1, "b": 2, "c": 4}, {"a": 3, "b": 3, "c": 1}])
def test_shares_follow_the_weights(weights: dict[str, int]) -> None:
    total = sum(weights.values())
    buckets = placed(weights).buckets
    for i, weight in enumerate(weights.values()):
        assert buckets.count(i) / BUCKETS == pytest.approx(weight / total, rel=0.15)


def test_the_order_of_the_file_does_not_matter() -> None:
    order = {"a": 0, "b": 1, "c": 2}
    assert place_buckets({"a": 1, "b": 2, "c": 1}, order) == place_buckets({"c": 1, "b": 2, "a": 1}, order)


def test_the_placement_never_changes() -> None:
    """Golden: routing of stored rows depends on it, so an update of uhashring must not change it."""
    buckets = placed({"a": 1, "b": 1}).buckets
    assert "".join(map(str, buckets[:32])) == "01011001101111010010000010110100"
    assert buckets.count(0) == 2115


def test_a_ring_without_shards_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        place_buckets({}, {})


@pytest.mark.parametrize(
    "weights", [{"a": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 3}, {"a": 2, "b": 3, "c": 4}]
)
@pytest.mark.parametrize("first", [{}, {"a": 1}, {"a": 1, "b": 1}, {"a": 5, "z": 1}])
def test_the_weights_of_an_array_are_found_again(weights: dict[str, int], first: dict[str, int]) -> None:
    """Whatever the file says, and with buckets that were moved by hand."""
    names = dict(enumerate(weights))
    buckets = list(placed(weights).buckets)
    assert placed_same(likely_weights(buckets, names, first), weights)
    for bucket in range(0, BUCKETS, 40):
        buckets[bucket] = 0
    assert placed_same(likely_weights(buckets, names, first), weights)


def test_the_weights_of_the_file_are_kept_where_they_are_right() -> None:
    weights = {"a": 4, "b": 4}
    assert likely_weights(placed(weights).buckets, {0: "a", 1: "b"}, weights) == weights


def placed_same(one: dict[str, int], two: dict[str, int]) -> bool:
    order = {name: i for i, name in enumerate(two)}
    return place_buckets(one, order) == place_buckets(two, order)
