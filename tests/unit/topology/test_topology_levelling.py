"""Levelling: everybody ends at a share, only the surplus moves, and nobody gives and takes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.levelling import SLACK, Piece, level_buckets, level_ranges
from shardproxy.topology.maps import INT_MAX, INT_MIN, KeyRange, RangeMap, moved


def sums(owners: list[int] | tuple[int, ...], sizes: list[float]) -> dict[int, float]:
    found: dict[int, float] = {}
    for owner, size in zip(owners, sizes, strict=True):
        found[owner] = found.get(owner, 0.0) + size
    return found


@st.composite
def bucket_cases(draw: st.DrawFn) -> tuple[list[int], list[float], dict[int, float]]:
    count = draw(st.integers(1, 60))
    shards = draw(st.integers(1, 5))
    owners = draw(st.lists(st.integers(0, shards - 1), min_size=count, max_size=count))
    size = st.one_of(st.integers(0, 20), st.sampled_from([0, 0, 500])).map(float)
    sizes = draw(st.lists(size, min_size=count, max_size=count))
    shares = {shard: float(draw(st.integers(0, 4))) for shard in range(shards + draw(st.integers(0, 1)))}
    if not sum(shares.values()):
        shares[0] = 1.0
    return owners, sizes, shares


@given(bucket_cases())
def test_buckets_end_near_their_shares_and_only_the_surplus_moves(
    case: tuple[list[int], list[float], dict[int, float]],
) -> None:
    owners, sizes, shares = case
    new = level_buckets(owners, sizes, shares)
    assert len(new) == len(owners)
    assert set(new) <= {shard for shard, share in shares.items() if share}
    total, whole = sum(sizes), sum(shares.values())
    before, after = sums(owners, sizes), sums(new, sizes)
    target = {shard: total * share / whole for shard, share in shares.items()}
    largest = max(sizes)
    slack = SLACK * total / sum(1 for share in shares.values() if share)
    gave = {owner for owner, now in zip(owners, new, strict=True) if owner != now}
    took = {now for owner, now in zip(owners, new, strict=True) if owner != now}
    assert not gave & took, "nobody gives and takes"
    for shard in gave:
        assert not shares[shard] or before.get(shard, 0) > target[shard], "only who has too much gives"
    surplus = sum(max(0.0, before.get(shard, 0.0) - target[shard]) for shard in target)
    went = sum(size for owner, now, size in zip(owners, new, sizes, strict=True) if owner != now)
    assert went <= surplus + largest * len(shares) + 1e-6
    for shard, share in shares.items():
        if share and before.get(shard, 0.0) > target[shard] + slack:
            assert after.get(shard, 0.0) <= max(target[shard] + slack, target[shard] + largest) + 1e-6
    for owner, now, size in zip(owners, new, sizes, strict=True):
        assert size or owner == now or not shares[owner], "empty buckets stay"


def test_what_is_level_within_the_slack_stays() -> None:
    owners = [0] * 50 + [1] * 50
    assert level_buckets(owners, [1.01] * 50 + [1.0] * 50, {0: 1, 1: 1}) == tuple(owners)
    m = RangeMap([KeyRange(0, 50, 0), KeyRange(50, 100, 1)])
    assert level_ranges(m, [Piece(0, 50, 101.0), Piece(50, 100, 100.0)], {0: 1, 1: 1}) == m


def test_equal_buckets_are_levelled_within_the_slack() -> None:
    new = level_buckets([0] * 300 + [1] * 100, [7.0] * 400, {0: 1, 1: 1, 2: 2})
    assert [new.count(shard) for shard in range(3)] == pytest.approx([100, 100, 200], abs=SLACK * 400 / 3)
    assert new[300:] == (1,) * 100


def test_a_hot_bucket_that_is_more_than_a_share_does_not_wander() -> None:
    """It would only make another shard the hot one."""
    sizes = [100.0, 1.0, 1.0, 1.0]
    assert level_buckets([0, 1, 1, 1], sizes, {0: 1, 1: 1}) == (0, 1, 1, 1)
    assert level_buckets([0, 0, 0, 1], sizes, {0: 1, 1: 1}) == (0, 1, 1, 1)


@st.composite
def range_cases(draw: st.DrawFn) -> tuple[RangeMap, list[Piece], dict[int, float]]:
    cuts = sorted(draw(st.sets(st.integers(-200, 200), min_size=2, max_size=8)))
    ranges = [KeyRange(a, b, draw(st.integers(0, 3))) for a, b in pairwise(cuts)]
    kept = [r for r in ranges if draw(st.integers(0, 4))] or ranges[:1]
    edges = sorted(draw(st.sets(st.integers(-220, 220), max_size=12)))
    pieces = [Piece(a, b, float(draw(st.integers(0, 50)))) for a, b in pairwise(edges)]
    shares = {shard: float(draw(st.integers(0, 3))) for shard in range(5)}
    if not sum(shares.values()):
        shares[4] = 1.0
    return RangeMap(kept), pieces, shares


def weight_of(m: RangeMap, pieces: list[Piece], shard: int) -> float:
    return sum(
        piece.size * max(0, min(piece.end, r.end) - max(piece.start, r.start)) / (piece.end - piece.start)
        for r in m.ranges
        if r.shard == shard
        for piece in pieces
    )


@given(range_cases())
def test_ranges_end_at_their_shares_and_keep_every_key(case: tuple[RangeMap, list[Piece], dict[int, float]]) -> None:
    old, pieces, shares = case
    new = level_ranges(old, pieces, shares)
    for key in range(-201, 201):
        has = [any(r.start <= key < r.end for r in m.ranges) for m in (old, new)]
        assert has[0] == has[1]
    assert set(new.all_shards) <= {shard for shard, share in shares.items() if share}
    total = sum(weight_of(old, pieces, shard) for shard in old.all_shards)
    whole = sum(shares.values())
    slack = SLACK * total / sum(1 for share in shares.values() if share)
    densest = max((piece.size / (piece.end - piece.start) for piece in pieces), default=0.0)
    went = 0.0
    gave, took = set(), set()
    for start, end, shard in moved(old, new):
        gave.add(old.lookup(start))
        took.add(shard)
        went += weight_of(RangeMap([KeyRange(start, end, 9)]), pieces, 9)
    assert not gave & took
    surplus = sum(
        max(0.0, weight_of(old, pieces, shard) - total * shares.get(shard, 0) / whole) for shard in old.all_shards
    )
    assert went <= surplus + 5 * densest + 1e-6
    for shard, share in shares.items():
        if share and weight_of(old, pieces, shard) > total * share / whole:
            assert weight_of(new, pieces, shard) <= total * share / whole + slack + 5 * densest + 1e-6


def test_a_new_shard_gets_one_run_of_keys_from_each() -> None:
    old = RangeMap([KeyRange(INT_MIN, 1000, 0), KeyRange(1000, INT_MAX + 1, 1)])
    new = level_ranges(old, [Piece(0, 1000, 900.0), Piece(1000, 2000, 900.0)], {0: 1, 1: 1, 2: 1})
    assert new == RangeMap([
        KeyRange(INT_MIN, 333, 2), KeyRange(333, 1000, 0), KeyRange(1000, 1333, 2), KeyRange(1333, INT_MAX + 1, 1),
    ])  # fmt: skip


def test_a_neighbour_takes_at_the_common_boundary() -> None:
    old = RangeMap([KeyRange(0, 1000, 0), KeyRange(1000, INT_MAX + 1, 1)])
    new = level_ranges(old, [Piece(0, 1000, 100.0), Piece(1000, 2000, 300.0)], {0: 1, 1: 1})
    assert new == RangeMap([KeyRange(0, 1333, 0), KeyRange(1333, INT_MAX + 1, 1)])


def test_without_shares_there_is_nothing_to_level_by() -> None:
    with pytest.raises(ValueError, match="share"):
        level_buckets([0], [1.0], {0: 0.0})
