"""Two servers for the tests of the moving engine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from tests.reshard.sides import Sides


@pytest.fixture(scope="module")
def pair(flavor: FlavorName) -> Iterator[LocalCluster]:
    """Two primaries."""
    with LocalCluster(flavor, shards=2, replicas=0) as cluster:
        yield cluster


@pytest.fixture
def sides(pair: LocalCluster) -> Iterator[Sides]:
    """They with empty bookkeeping and an empty database of their own."""
    made = Sides.of(pair, "m" + os.urandom(5).hex())
    yield made
    made.end()
    for server in (made.source, made.target):
        server.rows(f"DROP DATABASE IF EXISTS {made.database}")
