"""Fixtures of the integration tests; the servers themselves are in tests/conftest.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from tests.proxy import create_tables, empty_tables


@pytest.fixture
def database(cluster: LocalCluster) -> Iterator[str]:
    """A new empty database on every server of `cluster`; dropped afterwards."""
    name = "t" + os.urandom(6).hex()
    for shard in cluster.shards:
        shard.primary.rows(f"CREATE DATABASE {name}")
    cluster.wait_replicated()
    yield name
    for shard in cluster.shards:
        shard.primary.rows(f"DROP DATABASE {name}")


@pytest.fixture
def lone(oracle: LocalServer) -> LocalServer:
    """One server with empty tables of the same definitions: what it answers is right."""
    create_tables(oracle)
    empty_tables(oracle)
    return oracle
