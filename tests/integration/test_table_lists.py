"""SHOW TABLES where no shard has all tables of a keyspace, beside one server that has them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardproxy.local import LocalCluster, LocalServer
from tests.proxy import ProxyUnderTest, eventually, start_proxy
from tests.wire import RawClient, Refused

KEYSPACE = """
[keyspaces.listed]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1 }
[keyspaces.listed.tables]
"Zebra" = { key = "id" }
apes = { single = "shard1" }
"Bees" = { single = "shard2" }
_cows = { single = "shard1" }
"dögs" = { single = "shard2" }
"""
ON = {
    "Zebra": ("shard1", "shard2"),
    "apes": ("shard1",),
    "Bees": ("shard2",),
    "_cows": ("shard1",),
    "dögs": ("shard2",),
}
LISTS = (
    "SHOW TABLES",
    "SHOW FULL TABLES FROM listed",
    "SHOW TABLES IN listed LIKE '%e%'",
    "SHOW FULL TABLES WHERE Tables_in_listed > 'a' AND Table_type = 'BASE TABLE'",
    "SHOW TABLES LIKE 'nothing'",
)


@pytest.fixture(scope="module")
def listing(cluster: LocalCluster, oracle: LocalServer) -> Iterator[ProxyUnderTest]:
    """A proxy, and one server, with a keyspace whose single tables are on both shards."""
    servers = [*((shard.name, shard.primary) for shard in cluster.shards), ("", oracle)]
    for name, server in servers:
        server.rows("DROP DATABASE IF EXISTS listed")
        server.rows("CREATE DATABASE listed CHARACTER SET utf8mb4")
        for table, shards in ON.items():
            if not name or name in shards:
                server.rows(f"CREATE TABLE listed.`{table}` (id INT NOT NULL PRIMARY KEY)")
    cluster.wait_replicated()
    running = start_proxy(cluster, "lists", keyspaces=KEYSPACE, users={"app": {"password": "app"}})
    yield running
    running.process.stop()
    for _, server in servers:
        server.rows("DROP DATABASE listed")


@pytest.fixture(params=[True, False], ids=["deprecate_eof", "eof"])
def sides(
    listing: ProxyUnderTest, oracle: LocalServer, request: pytest.FixtureRequest
) -> Iterator[tuple[RawClient, RawClient]]:
    """A session of the proxy, and one of the server."""
    with (
        RawClient(listing.port, "app", "app", "listed", deprecate_eof=request.param) as client,
        RawClient(
            oracle.port, oracle.admin_user, oracle.admin_password, "listed", deprecate_eof=request.param
        ) as server,
    ):
        yield client, server


@pytest.mark.parametrize("sql", LISTS)
def test_tables_of_all_shards_are_listed_once_and_in_order(sides: tuple[RawClient, RawClient], sql: str) -> None:
    client, server = sides
    expected, found = server.query(sql), client.query(sql)
    assert found.rows == expected.rows
    assert [c.name for c in found.columns or ()] == [c.name for c in expected.columns or ()]
    assert client.execute(client.prepare(sql)).rows == server.execute(server.prepare(sql)).rows == expected.rows


def test_lists_are_no_part_of_a_transaction(listing: ProxyUnderTest, sides: tuple[RawClient, RawClient]) -> None:
    client, server = sides
    client.query("BEGIN")
    client.query("INSERT INTO apes VALUES (1)")
    assert client.rows("SHOW TABLES") == server.rows("SHOW TABLES")
    client.query("SAVEPOINT a")
    client.query("ROLLBACK")
    client.query("SELECT GET_LOCK('here', 1)")
    assert client.rows("SHOW TABLES") == server.rows("SHOW TABLES")
    eventually(lambda: listing.busy() == 1, "only the lock's connection is held")


@pytest.mark.parametrize("limit", [0, 2, 4])
def test_lists_are_cut_off_as_rows_are(sides: tuple[RawClient, RawClient], limit: int) -> None:
    for side in sides:
        side.query(f"SET sql_select_limit = {limit}")
    client, server = sides
    assert client.rows("SHOW TABLES") == server.rows("SHOW TABLES")
    assert len(client.rows("SHOW TABLES")) == limit


def test_what_a_server_refuses_is_its_own_error(sides: tuple[RawClient, RawClient]) -> None:
    for side in sides:
        with pytest.raises(Refused) as refused:
            side.query("SHOW TABLES WHERE nothing = 1")
        assert refused.value.code == 1054


def test_a_list_by_a_subquery_is_refused(sides: tuple[RawClient, RawClient]) -> None:
    """Its rows would be those of one shard."""
    client, _ = sides
    with pytest.raises(Refused) as refused:
        client.query("SHOW TABLES WHERE Tables_in_listed IN (SELECT 'apes' FROM apes)")
    assert refused.value.code == 9100
