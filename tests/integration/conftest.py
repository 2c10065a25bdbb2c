"""Fixtures of the integration tests; the servers themselves are in tests/conftest.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from tests.integration.merging import Both
from tests.proxy import ProxyUnderTest, create_tables, empty_tables, start_proxy
from tests.wire import RawClient


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


@pytest.fixture(scope="module")
def narrow_process(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    """A proxy with one worker and one connection a server, so that every client gets what the last one left."""
    running = start_proxy(
        cluster,
        "narrow-proxy",
        proxy={"workers": 1, "drain_timeout": "100ms"},
        backend={"pool_size": 1, "shared_connections": 0, "pool_wait": "10s"},
    )
    yield running
    running.process.stop()


@pytest.fixture
def narrow(narrow_process: ProxyUnderTest) -> ProxyUnderTest:
    narrow_process.empty()
    return narrow_process


@pytest.fixture
def client(proxy: ProxyUnderTest) -> Iterator[RawClient]:
    with RawClient(proxy.port) as made:
        yield made


@pytest.fixture
def other(proxy: ProxyUnderTest) -> Iterator[RawClient]:
    with RawClient(proxy.port) as made:
        yield made


@pytest.fixture(scope="module")
def both(cluster: LocalCluster, oracle: LocalServer) -> Iterator[Both]:
    made = Both(cluster, oracle)
    yield made
    made.close()
