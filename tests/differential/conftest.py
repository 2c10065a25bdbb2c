"""Servers of the differential tests: three shards, so that answers come from more than two, and one lone server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from tests.differential import open_corpus
from tests.differential.sides import Sides

collect_ignore = [] if open_corpus.PATH.exists() else ["test_open_corpus.py"]
# MariaDB keeps answers of subqueries by values that its case-blind collations take for equal: wrong answers of its own.
OPTIONS: dict[str, tuple[str, ...]] = {"mariadb": ("--optimizer-switch=subquery_cache=off",), "mysql": ()}


@pytest.fixture(scope="module")
def three_shards(flavor: FlavorName) -> Iterator[LocalCluster]:
    """Three shards of a primary each."""
    with LocalCluster(flavor, shards=3, replicas=0, server_options=OPTIONS[flavor]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def lone_server(flavor: FlavorName) -> Iterator[LocalServer]:
    """One server of the same flavour."""
    with LocalCluster.single(flavor, server_options=OPTIONS[flavor]) as cluster:
        yield cluster.server


@pytest.fixture(scope="module")
def sides(three_shards: LocalCluster, lone_server: LocalServer) -> Iterator[Sides]:
    """Both sides with base rows."""
    made = Sides(three_shards, lone_server)
    yield made
    made.close()
