"""TPC-C's transactions through the proxy over four shards: as on one server, and consistent when many run at once.

SHARDPROXY_TPCC_REMOTE=1 python -m pytest tests/tpcc        orders and payments that write on two shards too
SHARDPROXY_TPCC_EACH=1000 python -m pytest tests/tpcc       a longer run of many clients
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.local.flavors import FlavorName
from tests.proxy import ProxyUnderTest, start_proxy
from tests.tpcc.consistency import violations
from tests.tpcc.inputs import Transaction, World, first_rows, transactions
from tests.tpcc.schema import DATABASE, DEFINITIONS, KEYS, keyspace_toml
from tests.tpcc.transactions import Rows, perform

TWO_SHARDS = True  # True: transactions over two shards are part of every run
REMOTE = TWO_SHARDS or os.environ.get("SHARDPROXY_TPCC_REMOTE") == "1"
SHARDS, WAREHOUSES_EACH = 4, 2
WORLD = World(SHARDS * WAREHOUSES_EACH)
SEED = 7
ONE_BY_ONE = 150  # transactions
CLIENTS, EACH = 6, int(os.environ.get("SHARDPROXY_TPCC_EACH", "40"))
_USER = "tpcc"
_AGAIN = (1205, 1213)  # lock wait timeout, deadlock: an application tries again
_ATTEMPTS = 100


class LoggedSession:
    """A connection that keeps what it was answered."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.log: list[tuple[str, int, Rows]] = []

    def run(self, sql: str, *values: object) -> Rows:
        with self.connection.cursor() as cursor:
            affected = cursor.execute(sql, values or None)
            rows = list(cursor.fetchall())
        self.log.append((sql, affected, rows))
        return rows


@pytest.fixture(scope="module")
def tpcc_proxy(flavor: FlavorName) -> Iterator[ProxyUnderTest]:
    with LocalCluster(flavor, shards=SHARDS, replicas=0) as cluster:
        for shard in cluster.shards:
            _create(shard.primary)
        yield start_proxy(
            cluster,
            "tpcc",
            users={_USER: {"password": _USER, "reads": "primary"}},
            keyspaces=keyspace_toml([shard.name for shard in cluster.shards], WAREHOUSES_EACH),
        )


@pytest.fixture(autouse=True)
def filled(tpcc_proxy: ProxyUnderTest, oracle: LocalServer) -> Iterator[None]:
    """Both sides with the rows of the start, those of the shards inserted through the proxy."""
    _create(oracle)
    with _through(tpcc_proxy) as connection, oracle.connect(DATABASE) as lone:
        _empty(connection)
        for side in (connection, lone):
            _fill(side)
    yield
    oracle.rows(f"DROP DATABASE {DATABASE}")


def test_the_same_sequence_leaves_the_same_rows(tpcc_proxy: ProxyUnderTest, oracle: LocalServer) -> None:
    work = list(islice(transactions(WORLD, SEED, REMOTE), ONE_BY_ONE))
    with _through(tpcc_proxy) as connection, oracle.connect(DATABASE) as lone:
        ours, theirs = LoggedSession(connection), LoggedSession(lone)
        for number, transaction in enumerate(work):
            perform(ours, transaction)
            perform(theirs, transaction)
            assert ours.log == theirs.log, f"transaction {number}: {transaction}"
            ours.log.clear()
            theirs.log.clear()
    together, on_one = _tables(_shards(tpcc_proxy)), _tables([oracle])
    for table in KEYS:
        assert _sorted(together[table]) == _sorted(on_one[table]), table
    assert violations(together) == []
    assert together["orders"] and together["history"], "nothing was done"
    _assert_at_home(tpcc_proxy)
    if REMOTE:
        assert any(row["s_remote_cnt"] for row in together["stock"])


def test_sums_hold_when_many_run_at_once(tpcc_proxy: ProxyUnderTest) -> None:
    stop = threading.Event()

    def client(number: int) -> int:
        try:
            with _through(tpcc_proxy) as connection:
                session = LoggedSession(connection)
                return sum(
                    _until_done(session, transaction, stop)
                    for transaction in islice(transactions(WORLD, 100 + number, REMOTE), EACH)
                )
        except BaseException:
            stop.set()  # the others' work proves nothing then
            raise

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = sum(pool.map(client, range(CLIENTS)))
    assert done == CLIENTS * EACH
    together = _tables(_shards(tpcc_proxy))
    assert violations(together) == []
    assert together["orders"] and together["history"], "nothing was done"
    _assert_at_home(tpcc_proxy)
    for server in _shards(tpcc_proxy):
        assert server.rows("XA RECOVER") == [], "a prepared branch is left"


def _until_done(session: LoggedSession, transaction: Transaction, stop: threading.Event) -> int:
    """Tries again after a deadlock or lock wait timeout; 1 when done, 0 when another client has failed."""
    for _ in range(_ATTEMPTS):
        if stop.is_set():
            return 0
        try:
            perform(session, transaction)
        except pymysql.err.OperationalError as error:
            if error.args[0] not in _AGAIN:
                raise
            session.run("ROLLBACK")
        else:
            session.log.clear()
            return 1
    raise AssertionError(f"{_ATTEMPTS} attempts were not enough for {transaction}")


def _create(server: LocalServer) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        cursor.execute(f"CREATE DATABASE {DATABASE}")
        cursor.execute(f"USE {DATABASE}")
        for definition in DEFINITIONS:
            cursor.execute(definition)


def _empty(connection: Any) -> None:
    """Delete all rows through the proxy, a warehouse at a time."""
    with connection.cursor() as cursor:
        for table, key in KEYS.items():
            for condition in [f"{key} = {w}" for w in range(1, WORLD.warehouses + 1)] if key else ["TRUE"]:
                cursor.execute(f"DELETE FROM {table} WHERE {condition}")


def _fill(connection: Any) -> None:
    with connection.cursor() as cursor:
        for table, rows in first_rows(WORLD, SEED):
            values = ",".join(cursor.mogrify("(" + ",".join(["%s"] * len(row)) + ")", row) for row in rows)
            cursor.execute(f"INSERT INTO {table} VALUES {values}")


def _through(proxy: ProxyUnderTest) -> Any:
    return proxy.connect(user=_USER, password=_USER, database=DATABASE)


def _shards(proxy: ProxyUnderTest) -> list[LocalServer]:
    return [shard.primary for shard in proxy.cluster.shards]


def _tables(servers: Sequence[LocalServer]) -> dict[str, list[dict[str, Any]]]:
    """All rows of all servers, by table; of `item`, which is whole everywhere, those of the first, checked."""
    found: dict[str, list[dict[str, Any]]] = {table: [] for table in KEYS}
    for server in servers:
        with (
            server.connect(DATABASE, cursorclass=pymysql.cursors.DictCursor) as connection,
            connection.cursor() as cursor,
        ):
            for table, key in KEYS.items():
                cursor.execute(f"SELECT * FROM {table}")
                rows = list(cursor.fetchall())
                if not key and found[table]:
                    assert _sorted(rows) == _sorted(found[table]), f"the copies of {table} differ"
                else:
                    found[table] += rows
    return found


def _sorted(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, rows))


def _assert_at_home(proxy: ProxyUnderTest) -> None:
    """Every row is on the shard of its warehouse."""
    for index, server in enumerate(_shards(proxy)):
        first = index * WAREHOUSES_EACH + 1
        for table, key in KEYS.items():
            if key:
                condition = f"{key} NOT BETWEEN {first} AND {first + WAREHOUSES_EACH - 1}"
                assert server.rows(f"SELECT * FROM {DATABASE}.{table} WHERE {condition} LIMIT 1") == []
