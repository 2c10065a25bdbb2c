from __future__ import annotations

from binascii import crc_hqx
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from shardproxy.topology.keys import bucket_of
from shardproxy.topology.redis_ring import KetamaRing, fnv1a, hash_tag, ring_of
from shardproxy.topology.ring import place_buckets
from tests.ketama import ketama_ring

KEYS = st.one_of(st.binary(max_size=20), st.text("{}ab", max_size=10).map(str.encode))


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"", b""),
        (b"a", b"a"),
        (b"{a}b", b"a"),
        (b"b{a}", b"a"),
        (b"{}a", b"{}a"),
        (b"{}{a}", b"{}{a}"),
        (b"{{a}}", b"{a"),
        (b"{a}{b}", b"a"),
        (b"}a{b}", b"b"),
        (b"{a", b"{a"),
        (b"a}", b"a}"),
        (b"{\r\n}x", b"\r\n"),
    ],
)
def test_what_places_a_key(key: bytes, tag: bytes) -> None:
    assert hash_tag(key) == tag


@given(KEYS)
def test_hash_tags_are_those_of_redis_cluster(key: bytes) -> None:
    assert key_slot(key) == crc_hqx(hash_tag(key), 0) % 16384


@given(KEYS)
def test_a_key_is_on_the_node_of_its_tags_bucket(key: bytes) -> None:
    weights = {"b": 2, "a": 1, "c": 3}
    owners = place_buckets(weights, {"b": 0, "a": 1, "c": 2})
    assert RING.node_of(key) == owners[bucket_of(hash_tag(key))]


RING = ring_of({"b": 2, "a": 1, "c": 3})


def test_keys_are_spread_by_weight() -> None:
    found = Counter(RING.node_of(b"key:%d" % n) for n in range(60_000))
    assert [round(found[place] / 60_000, 1) for place in range(3)] == [0.3, 0.2, 0.5]


@given(KEYS)
def test_ketama_of_one_node(key: bytes) -> None:
    assert ketama_ring({"a": 7}).node_of(key) == 0


def test_ketama_of_no_nodes_or_of_a_tag_of_one_character() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        ketama_ring({})
    with pytest.raises(ValueError, match="has an owner"):
        KetamaRing([], [0])
    with pytest.raises(ValueError, match="two characters"):
        ketama_ring({"a": 1}, b"{")


def test_ketama_sums_its_bytes_as_signed_numbers() -> None:
    assert fnv1a(b"") == 0x84222325
    assert fnv1a(b"\x80") == ((0x84222325 ^ 0xFFFFFF80) * 0x1B3) & 0xFFFFFFFF


@given(KEYS, st.sets(st.integers(0, 2)))
def test_keys_of_nodes_that_are_away_are_on_others(key: bytes, away: set[int]) -> None:
    for ring, weights in ((RING, {"b": 2, "a": 1, "c": 3}), (KETAMA, {"a": 1, "b": 1, "c": 5})):
        place, meanwhile = ring.node_of(key), WITHOUT[ring, frozenset(away)].node_of(key)
        assert meanwhile == place if place not in away or len(away) == 3 else meanwhile not in away
        assert ring.without(frozenset(), weights) is ring


@given(KEYS)
def test_a_hash_beyond_the_last_point_is_the_firsts(key: bytes) -> None:
    assert KETAMA.node_of(key) in (0, 1, 2)


KETAMA = ketama_ring({"a": 1, "b": 1, "c": 5}, b"{}")
WITHOUT = {
    (ring, frozenset(away)): ring.without(frozenset(away), weights)
    for ring, weights in ((RING, {"b": 2, "a": 1, "c": 3}), (KETAMA, {"a": 1, "b": 1, "c": 5}))
    for count in range(4)
    for away in combinations(range(3), count)
}
