"""A worker in this process, with the file's map, an armed fence and some rows on both shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from shardproxy.executor import commit, fence
from shardproxy.local import LocalCluster, LocalServer
from tests.in_process import WorkerHere
from tests.integration.fence.scene import EPOCH, IDENT, MOVING, OTHER, STAYING
from tests.proxy import eventually


@pytest.fixture(scope="module")
def running(cluster: LocalCluster) -> Iterator[WorkerHere]:
    with WorkerHere(cluster, extra='[transactions]\nhold_timeout = "3s"\n') as here:
        yield here


@pytest.fixture
def here(running: WorkerHere) -> Iterator[WorkerHere]:
    """The worker with the file's map, an armed fence and some rows."""
    running.hand(running.snapshot)
    for number, shard in enumerate(running.cluster.shards):
        _empty(shard.primary, number)
        shard.primary.rows(f"INSERT INTO _shardproxy.fence (move_id, epoch) VALUES ({IDENT}, {EPOCH})")
        keys = (MOVING, MOVING + 1, STAYING) if number == 0 else (OTHER,)
        for key in keys:
            shard.primary.rows(f"INSERT INTO main.users (uid, name, balance) VALUES ({key}, 'u{key}', 100)")
    yield running
    fence.mode = fence.Mode.ON
    commit.at_step = None
    eventually(lambda: running.waiting == 0, "nobody waits for a map")


def _empty(server: LocalServer, shard: int) -> None:
    tables = ["main.users", "main.countries", "hashed.items", "_shardproxy.fence", "_shardproxy.fence_slot"]
    with server.connect() as connection, connection.cursor() as cursor:
        for table in (*tables, "main.settings") if shard == 1 else tables:
            cursor.execute(f"DELETE FROM {table}")


@pytest.fixture
def cursor(here: WorkerHere) -> Iterator[Any]:
    with closing(here.connect()) as connection, connection.cursor() as cursor:
        yield cursor
