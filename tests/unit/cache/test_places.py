"""Where rows and their entries are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shardproxy.cache.patterns import CachedRows, CacheSettings
from shardproxy.cache.row_cache import Place, RowCache
from shardproxy.errors import SqlError
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import KeyRange, RangeMap
from shardproxy.topology.model import Keyspace, Role, Server, Shard, Snapshot, Table, TableKind
from shardproxy.topology.redis_ring import RedisRing


def rows(table: str, pattern: str) -> CachedRows:
    return CachedRows(table, pattern, "main", table, "json", 1000, 0)


USERS, ORDERS, KINDS = rows("users", "users:{uid}"), rows("orders", "orders:{no}:{uid}"), rows("kinds", "kinds:{id}")
LONE, GONE, ODD = rows("lone", "lone:{id}"), rows("gone", "gone:{id}"), rows("odd", "odd:{id}")


def snapshot() -> Snapshot:
    tables = {
        "users": Table("users", TableKind.SHARDED, "uid"),
        "orders": Table("orders", TableKind.SHARDED, "uid"),
        "odd": Table("odd", TableKind.SHARDED, "uid"),
        "kinds": Table("kinds", TableKind.REFERENCE),
        "lone": Table("lone", TableKind.SINGLE, shard=0),
    }
    ranges = RangeMap([KeyRange(0, 100, 0), KeyRange(100, 200, 1)])
    keyspace = Keyspace("main", KeyType.INT, ranges, tables, (0, 1), first=1)
    shards = tuple(Shard(name, Server(f"{name}/primary", "h", 1, Role.PRIMARY, name)) for name in ("a", "b"))
    return Snapshot(7, shards, {"main": keyspace}, epochs={"main": 3})


class Node:
    run = "r1"


class Gateway:
    def __init__(self) -> None:
        self.snapshot = snapshot()


def cache() -> tuple[RowCache, Any]:
    settings = CacheSettings((USERS, ORDERS, KINDS, LONE, GONE, ODD), 1.0, 1.0, 1.0, 1.0, "")
    gateway: Any = Gateway()
    return RowCache(settings, [], RedisRing([0] * 4096), gateway), gateway


@pytest.mark.parametrize(
    ("which", "parts", "shard"),
    [
        *[(USERS, (99,), 0), (USERS, (100,), 1)],
        *[(ORDERS, (1, 150), 1), (ORDERS, (150, 1), 0)],
        *[(KINDS, (5,), 1), (LONE, (150,), 0)],
    ],
)
def test_a_rows_shard(which: CachedRows, parts: tuple[int, ...], shard: int) -> None:
    assert cache()[0].shard_of(which, parts) == shard


@pytest.mark.parametrize(
    ("which", "why"),
    [(GONE, "main.gone of cache.rows.gone is in no keyspace"), (ODD, "the shard key uid of main.odd"), (USERS, "200")],
)
def test_a_row_that_has_no_shard(which: CachedRows, why: str) -> None:
    with pytest.raises(SqlError, match=why):
        cache()[0].shard_of(which, (200,))


def test_a_new_map_of_the_keyspace_voids_what_was_loaded_also_when_another_keyspaces_is_newer() -> None:
    made, gateway = cache()
    node: Any = Node()
    before = Place(made, USERS, (1,), node).tag(b"generatn")
    gateway.snapshot = replace(gateway.snapshot, epochs={"main": 4})
    assert gateway.snapshot.epoch == 7
    assert Place(made, USERS, (1,), node).tag(b"generatn") != before
    assert Place(made, USERS, (1,), node).tag(b"another.") != Place(made, USERS, (1,), node).tag(b"generatn")
