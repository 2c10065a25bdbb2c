"""Servers of the differential tests: three shards, so that answers come from more than two, and one lone server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from tests.differential.sides import Sides


@pytest.fixture(scope="module")
def three_shards(flavor: FlavorName) -> Iterator[LocalCluster]:
    """Three shards of a primary each."""
    with LocalCluster(flavor, shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def lone_server(flavor: FlavorName) -> Iterator[LocalServer]:
    """One server of the same flavour."""
    with LocalCluster.single(flavor) as cluster:
        yield cluster.server


@pytest.fixture(scope="module")
def sides(three_shards: LocalCluster, lone_server: LocalServer) -> Iterator[Sides]:
    """Both sides with base rows."""
    made = Sides(three_shards, lone_server)
    yield made
    made.close()
