"""The kinds of servers that speak Redis's protocol, for tests."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode

Kind = Literal["redis", "valkey"]
# As tests/conftest.py looks for in reasons: Valkey runs from the same tree.
_LEFT_OUT = "NOT TESTED on MySQL 9: Valkey runs from MySQL 9's tree, which needs root"


@contextmanager
def cluster_of(kind: Kind, count: int, shards: int = 0) -> Iterator[LocalCluster]:
    """A cluster with so many empty servers of a kind; leaves the test out, loudly, where Valkey cannot run."""
    if kind == "valkey" and os.geteuid() != 0:
        warnings.warn(_LEFT_OUT, stacklevel=2)
        pytest.skip(_LEFT_OUT)
    redis, valkey = (count, 0) if kind == "redis" else (0, count)
    with LocalCluster("mariadb", shards=shards, replicas=0, redis=redis, valkey=valkey) as cluster:
        yield cluster


@contextmanager
def kinds_of_nodes(kind: Kind, count: int) -> Iterator[list[RedisNode]]:
    """The servers of `cluster_of`."""
    with cluster_of(kind, count) as cluster:
        yield cluster.redis or cluster.valkey
