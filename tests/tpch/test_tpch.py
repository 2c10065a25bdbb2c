"""TPC-H's 22 queries through the proxy over four shards: the answers are those of one server that holds all rows.

SHARDPROXY_TPCH_SCALE=0.05 python -m pytest tests/tpch      a larger scale than a usual run's
SHARDPROXY_TPCH_STRICT=1 python -m pytest tests/tpch        a refused query fails too
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalServer
from shardproxy.local.flavors import FlavorName
from tests.tpch.queries import Query, queries
from tests.tpch.rows import Scale
from tests.tpch.sides import Sides, both_sides, compare
from tests.wire import Refused

ALL_ANSWERED = True  # True: the proxy must answer all 22; False: it may refuse with a clear error of its own
STRICT = ALL_ANSWERED or os.environ.get("SHARDPROXY_TPCH_STRICT") == "1"
SCALE = Scale(float(os.environ.get("SHARDPROXY_TPCH_SCALE", "0.01")))


@pytest.fixture(scope="module")
def sides(flavor: FlavorName, oracle: LocalServer) -> Iterator[Sides]:
    with both_sides(flavor, oracle, SCALE) as both:
        yield both


@pytest.mark.parametrize("query", queries(SCALE.factor), ids=lambda query: f"q{query.number:02d}")
def test_answer_is_that_of_one_server(sides: Sides, query: Query) -> None:
    wanted = sides.ask_lone(query.sql)
    assert wanted.rows and wanted.rows[0][-1] is not None, "the data have no row for this query: it would prove nothing"
    found = sides.ask_proxy(query.sql)
    if isinstance(found, Refused):
        assert not STRICT, f"query {query.number} is refused: {found}"
        return
    compare(query, wanted, found)


def test_every_row_is_on_one_shard(sides: Sides) -> None:
    # The comparison above would be empty if all rows were on one shard, or a row on two.
    shards = [shard.primary for shard in sides.proxy.cluster.shards]
    for table in ("supplier", "part", "partsupp", "customer", "orders", "lineitem"):
        counts = [int(server.rows(f"SELECT COUNT(*) FROM tpch.{table}")[0][0]) for server in shards]
        [(total,)] = sides.lone.rows(f"SELECT COUNT(*) FROM tpch.{table}")
        assert sum(counts) == total
        assert min(counts) > total / 10, f"{table} is spread unevenly: {counts}"
