"""Loading TPC-H's rows: each row goes to the lone server and to the shard where the map puts it, past the proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from shardproxy.local import LocalServer
from shardproxy.topology.maps import ShardMap
from tests.tpch.rows import GENERATORS, Row, Scale, orders_and_lines
from tests.tpch.schema import DATABASE, TABLES, Table

_BATCH = 2000  # rows in one INSERT
_WAITING = 32  # INSERTs made and not yet run: bounds our memory


def create_tables(server: LocalServer) -> None:
    """The database with its eight empty tables; one that was there before is dropped."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        cursor.execute(f"CREATE DATABASE {DATABASE}")
        cursor.execute(f"USE {DATABASE}")
        for table in TABLES:
            cursor.execute(table.definition)


def load_rows(lone: LocalServer, shards: Sequence[LocalServer], places: ShardMap, scale: Scale, seed: int) -> None:
    """Fill the tables. shards: in the order of the indexes that `places` gives. Tables must be empty."""
    with _Loader([*shards, lone]) as loader:
        everywhere = len(shards)
        for table, rows in batches(scale, seed):
            parts: Mapping[int, list[Row]]
            if table.key < 0:
                parts = dict.fromkeys(range(everywhere), rows)
            else:
                parts = split(rows, table.key, places)
            loader.insert(everywhere, table, rows)
            for shard, mine in parts.items():
                loader.insert(shard, table, mine)
        loader.finish()


def batches(scale: Scale, seed: int) -> Iterator[tuple[Table, list[Row]]]:
    """All rows of all tables in pieces."""
    tables = {table.name: table for table in TABLES}
    for name, generate in GENERATORS.items():
        rows: list[Row] = []
        for row in generate(scale, seed):
            rows.append(row)
            if len(rows) >= _BATCH:
                yield tables[name], rows
                rows = []
        if rows:
            yield tables[name], rows
    orders: list[Row] = []
    lines: list[Row] = []
    for order, its_lines in orders_and_lines(scale, seed):
        orders.append(order)
        lines += its_lines
        if len(lines) >= _BATCH:
            yield tables["orders"], orders
            yield tables["lineitem"], lines
            orders, lines = [], []
    if orders:
        yield tables["orders"], orders
        yield tables["lineitem"], lines


def split(rows: Sequence[Row], key: int, places: ShardMap) -> dict[int, list[Row]]:
    """The rows by shard index. key: index of the key column."""
    parts: dict[int, list[Row]] = {}
    for row in rows:
        value = row[key]
        assert isinstance(value, int)
        parts.setdefault(places.lookup(value), []).append(row)
    return parts


class _Loader:
    """One connection and one thread for each server, so that servers work while rows are made."""

    def __init__(self, servers: Sequence[LocalServer]) -> None:
        self._connections: list[Any] = [server.connect(DATABASE, autocommit=False) for server in servers]
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"load {server.name}") for server in servers]
        self._under_way: set[Future[None]] = set()

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)
        for connection in self._connections:
            connection.close()

    def insert(self, server: int, table: Table, rows: Sequence[Row]) -> None:
        """Have rows inserted; waits when too much is under way. Raises pymysql's errors of earlier ones."""
        sql = f"INSERT INTO {table.name} VALUES " + ",".join([table.template % row for row in rows])
        self._under_way.add(self._threads[server].submit(self._run, server, sql))
        if len(self._under_way) > _WAITING:
            self._settle()

    def finish(self) -> None:
        """Wait for everything, commit, and let the servers look at the rows: plans are made from their statistics."""
        self._settle()
        for server, thread in enumerate(self._threads):
            self._under_way.add(thread.submit(self._end, server))
        self._settle()

    def _settle(self) -> None:
        done, _ = wait(self._under_way)
        self._under_way.clear()
        for future in done:
            future.result()

    def _run(self, server: int, sql: str) -> None:
        with self._connections[server].cursor() as cursor:
            cursor.execute(sql)

    def _end(self, server: int) -> None:
        self._connections[server].commit()
        with self._connections[server].cursor() as cursor:
            cursor.execute(f"ANALYZE TABLE {', '.join(table.name for table in TABLES)}")
            cursor.fetchall()
