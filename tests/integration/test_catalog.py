"""Control connections and the catalog, on real servers of both flavours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from shardproxy.backend.catalog import load_catalog, read_collations
from shardproxy.backend.control import ControlConnection, Credentials, open_control
from shardproxy.config import parse
from shardproxy.errors import BackendLost, BackendUnavailable, SqlError
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from shardproxy.reshard.link import LinkLogin, connect
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Role, Server, Snapshot

T = TypeVar("T")
PROXY = Credentials("shardproxy", "shardproxy")


def server(local: LocalServer) -> Server:
    return Server("x/primary", local.host, local.port, Role.PRIMARY, "x")


def on(local: LocalServer, use: Callable[[ControlConnection], Awaitable[T]], credentials: Credentials = PROXY) -> T:
    async def go() -> T:
        async with await open_control(server(local), credentials, 5.0) as connection:
            return await use(connection)

    return asyncio.run(go())


@pytest.mark.parametrize("trip", [RuntimeError("the handler is closed"), EOFError(), IndexError(), OSError("reset")])
def test_whatever_asyncmy_trips_over_is_a_lost_connection(cluster: LocalCluster, trip: Exception) -> None:
    """A background task of the supervisor that met another exception would end the whole proxy."""

    async def use(c: ControlConnection) -> None:
        with pytest.raises(BackendLost, match="x/primary: "):
            async with c._errors(None):
                raise trip
        with pytest.raises(BackendLost, match="x/primary: "):
            await c.query("SELECT 1")

    on(cluster.shards[0].primary, use)


@pytest.fixture
def chaining(cluster: LocalCluster) -> Iterator[LocalServer]:
    """A server where COMMIT begins the next transaction at once, unless a connection says otherwise."""
    primary = cluster.shards[0].primary
    primary.rows("SET GLOBAL completion_type = 'CHAIN', autocommit = 0")
    primary.rows("CREATE DATABASE chaining")
    primary.rows("CREATE TABLE chaining.t (a INT PRIMARY KEY)")
    try:
        yield primary
    finally:
        primary.rows("SET GLOBAL completion_type = DEFAULT, autocommit = DEFAULT")
        primary.rows("DROP DATABASE chaining")


def test_what_is_written_after_a_commit_is_written(chaining: LocalServer) -> None:
    async def use(c: ControlConnection) -> None:
        for statement in ("BEGIN", "INSERT INTO chaining.t VALUES (1)", "COMMIT", "INSERT INTO chaining.t VALUES (2)"):
            await c.execute(statement)

    on(chaining, use)
    assert chaining.rows("SELECT a FROM chaining.t ORDER BY a") == [(1,), (2,)]


def test_what_a_move_writes_after_a_commit_is_written(chaining: LocalServer) -> None:
    async def go() -> None:
        async with await connect(server(chaining), LinkLogin(PROXY)) as link:
            await link.queries((b"BEGIN", b"INSERT INTO chaining.t VALUES (1)", b"COMMIT"))
            await link.query(b"INSERT INTO chaining.t VALUES (2)")

    asyncio.run(go())
    assert chaining.rows("SELECT a FROM chaining.t ORDER BY a") == [(1,), (2,)]


def test_statements_of_a_move_may_last(chaining: LocalServer, flavor: FlavorName) -> None:
    limit = "max_statement_time = 0.1" if flavor == "mariadb" else "max_execution_time = 100"

    async def go() -> None:
        async with await connect(server(chaining), LinkLogin(PROXY)) as link:
            # Where the server's limit comes first, MySQL says 1, and MariaDB that it was interrupted.
            assert (await link.query(b"SELECT SLEEP(0.5)")).one() == [b"0"]

    chaining.rows(f"SET GLOBAL {limit}")
    try:
        asyncio.run(go())
    finally:
        chaining.rows(f"SET GLOBAL {limit.split()[0]} = DEFAULT")


def snapshot(
    cluster: LocalCluster, database: str, tables: dict[str, Any], addresses: list[str] | None = None
) -> Snapshot:
    addresses = addresses or [shard.primary.address for shard in cluster.shards]
    return build_snapshot(
        parse(
            {
                "backend": {"user": "shardproxy", "password": "shardproxy"},
                "users": {"app": {"password": "x"}},
                "shards": {f"s{i}": {"primary": a} for i, a in enumerate(addresses)},
                "keyspaces": {
                    database: {"key_type": "int", "map": "hash", "ring": {"s0": 1, "s1": 1}, "tables": tables}
                },
            }
        )
    )


def test_rows_errors_and_values(cluster: LocalCluster) -> None:
    local = cluster.shards[0].primary

    async def use(c: ControlConnection) -> None:
        assert await c.query("SELECT 1 AS ONE, %s AS Two", ("a'b\\",)) == [{"one": 1, "two": "a'b\\"}]
        assert c.is_mariadb == (cluster.flavor == "mariadb")
        assert not c.version.startswith("5.5.5")
        with pytest.raises(SqlError, match="x/primary: ") as refused:
            await c.query("SELECT nonsense")
        assert (refused.value.code, refused.value.sqlstate) == (1054, "42S22")
        assert await c.query("SELECT 2 AS n") == [{"n": 2}], "it lives on after an error"

    on(local, use)


def test_a_statement_that_takes_too_long_breaks_the_connection(cluster: LocalCluster) -> None:
    async def use(c: ControlConnection) -> None:
        with pytest.raises(BackendLost, match=r"no answer within 0\.2 s"):
            await c.query("SELECT SLEEP(5)", seconds=0.2)
        with pytest.raises(BackendLost):
            await c.query("SELECT 1")

    on(cluster.shards[0].primary, use)


def test_a_killed_connection_is_lost(cluster: LocalCluster) -> None:
    local = cluster.shards[0].primary

    async def use(c: ControlConnection) -> None:
        [row] = await c.query("SELECT CONNECTION_ID() AS id")
        local.rows(f"KILL {row['id']}")
        with pytest.raises(BackendLost):
            await c.query("SELECT 1")

    on(local, use)


def test_logins_with_every_password_and_an_empty_server_cache(cluster: LocalCluster) -> None:
    """On MySQL: caching_sha2_password without TLS, first with an empty cache (RSA), then from the cache."""
    local = cluster.shards[0].primary
    for number, password in enumerate(("ünïcode €", "x" * 60, "with space and 'quote'")):
        user = f"control{number}"
        local.rows(f"CREATE USER {user} IDENTIFIED BY %s", (password,))
        try:
            for tls in ("off", "off", "preferred"):
                name = on(local, lambda c: c.query("SELECT USER() AS me"), Credentials(user, password, tls))[0]["me"]
                assert name.startswith(user)
            local.rows("FLUSH PRIVILEGES")  # empties the cache
            on(local, lambda c: c.query("SELECT 1"), Credentials(user, password))
            with pytest.raises(SqlError) as refused:
                on(local, lambda c: c.query("SELECT 1"), Credentials(user, password + "x"))
            assert refused.value.code == 1045
            assert password not in repr(Credentials(user, password))
        finally:
            local.rows(f"DROP USER {user}")


def test_tls_required_is_never_plain(cluster: LocalCluster) -> None:
    local = cluster.shards[0].primary
    secure = Credentials("shardproxy", "shardproxy", "required")
    if cluster.flavor == "mariadb":  # the local MariaDB has no certificate
        with pytest.raises(BackendUnavailable):
            on(local, lambda c: c.query("SELECT 1"), secure)
    else:  # MySQL makes itself one
        [row] = on(local, lambda c: c.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'"), secure)
        assert row["value"]


def test_a_server_that_is_not_there_is_unavailable() -> None:
    nowhere = Server("x/primary", "127.0.0.1", 1, Role.PRIMARY, "x")
    with pytest.raises(BackendUnavailable, match=r"x/primary \(127\.0\.0\.1:1\)"):
        asyncio.run(open_control(nowhere, PROXY, 2.0))


def test_a_server_that_says_nothing_is_unavailable_in_time() -> None:
    async def go() -> None:
        silent = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(BackendUnavailable, match="no connection within"):
            await open_control(Server("x/primary", "127.0.0.1", port, Role.PRIMARY, "x"), PROXY, 0.2)
        silent.close()

    asyncio.run(go())


def test_tables_views_columns_and_keys(cluster: LocalCluster, database: str) -> None:
    for shard in cluster.shards:
        for statement in (
            "CREATE TABLE users (uid BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,"
            " Name VARCHAR(9) COLLATE utf8mb4_bin DEFAULT 'x',"
            " twice BIGINT GENERATED ALWAYS AS (LENGTH(Name) * 2) VIRTUAL, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
            " PRIMARY KEY (uid), UNIQUE KEY n (Name, uid), KEY a (at))",
            "CREATE VIEW names AS SELECT Name FROM users",
        ):
            shard.primary.rows(statement, database=database)
    loaded = asyncio.run(load_catalog(snapshot(cluster, database, {"users": {"key": "uid"}}), PROXY, 5.0, version=7))
    assert loaded.catalog.version == 7
    users = loaded.catalog.get(database, "users")
    names = loaded.catalog.get(database, "names")
    assert users
    assert names
    assert [c.name for c in users.columns] == ["uid", "Name", "twice", "at"]
    assert users.primary_key == ("uid",)
    assert set(users.unique_keys) == {("uid",), ("Name", "uid")}
    uid, name, twice, at = users.columns
    assert (uid.data_type, uid.nullable, uid.auto_increment, uid.charset) == ("bigint", False, True, None)
    assert uid.column_type.endswith("unsigned")
    assert (name.charset, name.collation, name.nullable) == ("utf8mb4", "utf8mb4_bin", True)
    assert (twice.generated, at.generated) == (True, False)
    assert (users.is_view, names.is_view, [c.name for c in names.columns]) == (False, True, ["Name"])
    assert loaded.unread == ()


def test_an_index_over_an_expression_is_no_unique_key_of_columns(cluster: LocalCluster, database: str) -> None:
    if cluster.flavor == "mariadb":
        extra = "v INT AS (k + 1), UNIQUE KEY u (v)"  # MariaDB indexes expressions as generated columns only
        want = {("k",), ("v",)}
    else:
        extra, want = "UNIQUE KEY u ((k + 1), k)", {("k",)}
    for shard in cluster.shards:
        shard.primary.rows(f"CREATE TABLE t (k INT NOT NULL PRIMARY KEY, {extra})", database=database)
    loaded = asyncio.run(load_catalog(snapshot(cluster, database, {"t": {"key": "k"}}), PROXY, 5.0))
    table = loaded.catalog.get(database, "t")
    assert table
    assert set(table.unique_keys) == want


def test_a_dead_first_shard_is_no_obstacle_and_a_single_table_comes_from_its_own(
    cluster: LocalCluster, database: str
) -> None:
    one, two = (shard.primary for shard in cluster.shards)
    for shard, column in ((one, "here"), (two, "there")):
        shard.rows("CREATE TABLE users (uid INT NOT NULL PRIMARY KEY)", database=database)
        shard.rows(f"CREATE TABLE settings ({column} INT)", database=database)
    tables: dict[str, Any] = {"users": {"key": "uid"}, "settings": {"single": "s1"}}
    loaded = asyncio.run(load_catalog(snapshot(cluster, database, tables), PROXY, 5.0))
    settings = loaded.catalog.get(database, "settings")
    assert settings
    assert [c.name for c in settings.columns] == ["there"]

    half = snapshot(cluster, database, tables, ["127.0.0.1:1", two.address])
    loaded = asyncio.run(load_catalog(half, PROXY, 5.0))
    assert loaded.catalog.get(database, "users")
    assert loaded.unread == ()

    half = snapshot(cluster, database, tables, [one.address, "127.0.0.1:1"])
    loaded = asyncio.run(load_catalog(half, PROXY, 5.0))
    assert loaded.catalog.get(database, "users")
    assert loaded.catalog.get(database, "settings") is None, "not the definition of another shard"
    [line] = loaded.unread
    assert line.startswith(f"{database}.settings: s1/primary (127.0.0.1:1)")

    with pytest.raises(BackendUnavailable, match=r"no primary answers: s0/primary .*; s1/primary "):
        asyncio.run(load_catalog(snapshot(cluster, database, tables, ["127.0.0.1:1", "localhost:1"]), PROXY, 5.0))


def test_collations_have_the_numbers_of_the_wire(cluster: LocalCluster) -> None:
    collations = on(cluster.shards[0].primary, read_collations)
    assert (collations[45].charset, collations[45].name) == ("utf8mb4", "utf8mb4_general_ci")
    assert collations[63].name == "binary"
    newest, number = ("utf8mb4_uca1400_ai_ci", 2304) if cluster.flavor == "mariadb" else ("utf8mb4_0900_ai_ci", 255)
    assert (collations[number].charset, collations[number].name) == ("utf8mb4", newest)
