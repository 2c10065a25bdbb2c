"""Where entries of lookup indexes are, and in which form their values are kept."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.build import with_ready
from shardproxy.topology.keys import KeyType
from shardproxy.topology.lookup import (
    LONGEST,
    blank_stripped,
    columns_of,
    entry_value,
    home,
    index_name,
    placement,
)
from shardproxy.topology.maps import BucketMap, KeyRange, RangeMap
from shardproxy.topology.model import Keyspace, LookupIndex, Role, Server, Shard, Snapshot, Table, TableKind
from shardproxy.topology.ring import place_buckets

SHARDS = tuple(Shard(n, Server(f"{n}/primary", "127.0.0.1", 1, Role.PRIMARY, n)) for n in ("a", "b", "c"))
TABLE = Table("users", TableKind.SHARDED, key="uid", lookups=(LookupIndex(("email",)), LookupIndex(("tenant", "name"))))
RANGES = Keyspace(
    "r", KeyType.INT, RangeMap([KeyRange(0, 10, 0), KeyRange(10, 20, 2)]), {"users": TABLE}, (0, 1, 2)
)  # fmt: skip
HASHED = Keyspace(
    "h", KeyType.INT, BucketMap(place_buckets({"a": 1, "b": 2}, {"a": 0, "b": 1})), {"users": TABLE}, (0, 1)
)  # fmt: skip
WORLD = Snapshot(1, SHARDS, {"r": RANGES, "h": HASHED})
BYTES = st.binary(max_size=900)


def test_names() -> None:
    assert columns_of(" tenant ,name") == ("tenant", "name")
    assert index_name("users", ("tenant", "name")) == "users(tenant,name)"


@given(BYTES)
def test_an_entry_is_on_a_shard_that_has_rows(value: bytes) -> None:
    assert home(RANGES, value) in (0, 2)
    assert home(HASHED, value) in (0, 1)
    assert home(HASHED, value) == HASHED.map.lookup(value)


def test_entries_are_spread() -> None:
    homes = [home(RANGES, b"%d@example.org" % i) for i in range(2000)]
    assert 800 < homes.count(0) < 1200
    assert homes.count(1) == 0


@given(st.lists(BYTES, min_size=1, max_size=3), st.lists(BYTES, min_size=1, max_size=3))
def test_different_values_stay_different(one: list[bytes], other: list[bytes]) -> None:
    assert len(entry_value(one)) <= LONGEST
    if len(one) == len(other):
        assert (entry_value(one) == entry_value(other)) == (one == other)


def test_long_values_that_begin_alike_stay_different() -> None:
    assert entry_value([b"x" * 5000 + b"a"]) != entry_value([b"x" * 5000 + b"b"])
    assert entry_value([b"x" * LONGEST]) == b"x" * LONGEST


@given(st.lists(st.binary(min_size=2, max_size=2), max_size=8), st.integers(0, 5))
def test_blanks_at_the_end_do_not_count(weights: list[bytes], blanks: int) -> None:
    blank = b"\x02\x09"
    text = b"".join(weights)
    assert blank_stripped(text + blank * blanks, blank) == blank_stripped(text, blank)
    assert not blank_stripped(text, blank).endswith(blank) or len(text) % 2


def test_blanks_are_whole_weights() -> None:
    assert blank_stripped(b"\x00\x02\x09\x20", b"\x02\x09") == b"\x00\x02\x09\x20"
    assert blank_stripped(b"abc", b"") == b"abc"


def test_the_placement_tells_maps_apart() -> None:
    wider = replace(RANGES, map=RangeMap([KeyRange(0, 10, 0), KeyRange(10, 20, 1)]))
    longer = replace(RANGES, map=RangeMap([KeyRange(0, 10, 0), KeyRange(10, 90, 2)]))
    other = replace(HASHED, map=BucketMap(place_buckets({"a": 1, "b": 1}, {"a": 0, "b": 1})))
    assert placement(WORLD, wider) != placement(WORLD, RANGES)
    assert placement(WORLD, longer) == placement(WORLD, RANGES), "entries go round the shards, not by ranges"
    assert placement(WORLD, other) != placement(WORLD, HASHED)


def test_an_index_is_ready_on_the_map_that_it_was_filled_for() -> None:
    states = {
        ("r", "users(email)"): ("ready", placement(WORLD, RANGES)),
        ("r", "users(tenant,name)"): ("building", placement(WORLD, RANGES)),
        ("h", "users(email)"): ("ready", placement(WORLD, RANGES)),
    }
    found = with_ready(WORLD, states)
    assert [index.ready for index in found.keyspaces["r"].tables["users"].lookups] == [True, False]
    assert [index.ready for index in found.keyspaces["h"].tables["users"].lookups] == [False, False]
    assert with_ready(found, {}) == WORLD
