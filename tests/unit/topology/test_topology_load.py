"""Measured load: samples stay small and true, age, and say where to cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.keys import BUCKETS, KeyType, bucket_of
from shardproxy.topology.levelling import Piece, level_buckets, level_ranges
from shardproxy.topology.load import GENERATION, STORED, Load, Measured, resampled, together
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap, ShardMap, moved
from shardproxy.topology.model import Keyspace
from shardproxy.topology.sampler import MOST, PACE, Batch, Sampler

TWO = RangeMap([KeyRange(INT_MIN, 1000, 0), KeyRange(1000, INT_MAX + 1, 1)])
HASH = BucketMap([bucket % 2 for bucket in range(BUCKETS)])
samples = st.dictionaries(st.integers(-50, 3000), st.integers(1, 400).map(float), min_size=1, max_size=80)


def keyspace(m: ShardMap) -> Keyspace:
    return Keyspace("k", KeyType.INT, m, {}, (0, 1))


def load_of(points: dict[int, float]) -> Load:
    return Load(kind="range", samples=5, statements=sum(points.values()), writes=0.0, seconds=9.0,
                points=tuple(sorted(points.items())))  # fmt: skip


@given(samples, st.integers(1, 100))
def test_resampled_points_keep_every_part_of_the_keys(points: dict[int, float], most: int) -> None:
    found = resampled(points, most)
    assert len(found) <= most and found.keys() <= points.keys()
    total = sum(points.values())
    assert abs(sum(found.values()) - total) < 1e-6
    for key in points:
        before, after = (sum(w for p, w in some.items() if p <= key) for some in (points, found))
        assert abs(before - after) <= total / most + 1e-6


@given(samples, st.lists(st.integers(1, 4), min_size=3, max_size=3), st.lists(st.integers(0, 50), max_size=60))
def test_levelling_by_load_never_worsens_the_peak(
    points: dict[int, float], weights: list[int], rows: list[int]
) -> None:
    old = RangeMap([KeyRange(-100, 500, 0), KeyRange(500, 1500, 1), KeyRange(1500, 4000, 2)])
    load = together([load_of(points)], keyspace(old))
    costs = [Piece(50 * i, 50 * i + 50, float(n)) for i, n in enumerate(rows)]
    shares = {shard: float(weight) for shard, weight in enumerate(weights)}
    new = level_ranges(old, load.pieces(), shares, costs)
    before, after = load.shares(old), load.shares(new)
    assert abs(sum(before.values()) - 1) < 1e-9 and abs(sum(after.values()) - 1) < 1e-9
    target = {shard: weight / sum(weights) for shard, weight in shares.items()}
    worst = max(before[shard] - target[shard] for shard in shares)
    assert max(after.get(shard, 0.0) - target[shard] for shard in shares) <= max(worst, 0.0) + 1e-9
    assert next((r.start, r.end) for r in new.ranges)[0] == -100 and new.ranges[-1].end == 4000, "no key gets lost"
    assert sum(r.end - r.start for r in new.ranges) == 4100


@given(st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(1, 400).map(float), min_size=1, max_size=80))
def test_buckets_by_load_never_worsen_the_peak(points: dict[int, float]) -> None:
    sizes = [points.get(bucket, 0.0) for bucket in range(BUCKETS)]
    new = level_buckets(HASH.buckets, sizes, {0: 1.0, 1: 1.0})
    before, after = (
        max(sum(sizes[b] for b in range(BUCKETS) if owners[b] == shard) for shard in (0, 1))
        for owners in (HASH.buckets, new)
    )
    assert after <= before + 1e-9
    assert all(points.get(bucket) for bucket, _, _ in moved(HASH, BucketMap(new))), "cold buckets stay"


def test_hot_keys_at_the_end_are_given_away_and_not_the_cold_rows_before_them() -> None:
    points = {**dict.fromkeys(range(1000, 9000, 100), 1.0), **dict.fromkeys(range(9000, 9100), 20.0)}
    rows = [Piece(1000, 9100, 8100.0)]
    new = level_ranges(TWO, together([load_of(points)], keyspace(TWO)).pieces(), {0: 1.0, 1: 1.0}, rows)
    [(start, end, shard)] = moved(TWO, new)
    assert (end, shard) == (INT_MAX + 1, 0) and 9040 <= start <= 9060, "half of the load is in the last fifty keys"
    uphill = [Piece(1000, 9000, 1.0), Piece(9000, 9100, 100.0)]
    new = level_ranges(TWO, together([load_of(points)], keyspace(TWO)).pieces(), {0: 1.0, 1: 1.0}, uphill)
    [(start, end, shard)] = moved(TWO, new)
    assert (start, shard) == (1000, 0) and 9040 <= end <= 9060, "there the other edge costs less"


def test_one_hot_key_is_named() -> None:
    load = together([load_of({5: 1.0, 2000: 97.0, 3000: 2.0})], keyspace(TWO))
    new = level_ranges(TWO, load.pieces(), {0: 1.0, 1: 1.0}, [])
    assert load.indivisible(new, {0: 1.0, 1: 1.0}) == (2000, 0.97)
    even = together([load_of({5: 1.0, 2000: 1.0})], keyspace(TWO))
    assert even.indivisible(TWO, {0: 1.0, 1: 1.0}) is None


def test_load_ages_and_stays_small() -> None:
    measured = Measured("range", 0.0)
    measured.add(Batch("range", 3, list(range(MOST)), writes=10), 1.0)
    measured.add(Batch("range", 3, list(range(MOST, 2 * MOST))), 2.0)
    load = measured.load(10.0)
    assert (load.samples, load.statements, load.writes, load.seconds) == (2 * MOST, 6 * MOST, 30, 10.0)
    assert len(load.points) <= STORED and abs(sum(weight for _, weight in load.points) - 6 * MOST) < 1e-3
    assert Load.read("load/x/k", load.document()) == load
    measured.add(Batch("range", 1, [7]), GENERATION + 1)
    assert measured.samples == 2 * MOST + 1, "the generation before counts too"
    assert dict(measured.load(2 * GENERATION + 2).points) == {7: 1.0}
    assert measured.load(9 * GENERATION).samples == 0


def test_loads_of_a_map_of_another_kind_do_not_count() -> None:
    both = together([load_of({1: 2.0}), load_of({1: 1.0, 2000: 3.0})], keyspace(TWO))
    assert (both.proxies, both.samples, both.points) == (2, 10, {1: 3.0, 2000: 3.0})
    assert both.shares(TWO) == {0: 0.5, 1: 0.5}
    assert together([load_of({1: 2.0})], keyspace(HASH)).proxies == 0


def run(sampler: Sampler, keys: list[int], m: ShardMap) -> None:
    for key in keys:  # as the hot path does
        sampler.left -= 1
        if sampler.left < 0:
            sampler.note(keyspace(m), key, key == 1)


def test_the_sampler_keeps_its_pace_and_shows_what_repeats_in_turn() -> None:
    sampler = Sampler()
    run(sampler, [1, 2] * 8000, HASH)
    assert len(sampler.take(1.0)["k"].points) == MOST, "a burst is cut off"
    stride = sampler.stride
    assert stride == MOST // PACE
    run(sampler, [1, 2] * 8000, HASH)
    batch = sampler.take(1.0)["k"]
    assert batch.weight == stride and batch.kind == "hash"
    assert 0.8 < len(batch.points) * stride / 16000 < 1.2
    for key in (1, 2):
        assert 0.4 < batch.points.count(bucket_of(key)) / len(batch.points) < 0.6
    assert batch.writes == batch.points.count(bucket_of(1))
    assert sampler.take(1.0) == {} and sampler.stride == 1
    run(sampler, [5, 5, 6], TWO)
    assert sampler.take(1.0)["k"].points[-1] == 6
