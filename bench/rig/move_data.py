"""The table whose rows move: about 200 bytes each, made by the servers themselves, each what its shard holds."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.ring import place_buckets

TABLE = "moved"
_DEFINITION = (
    f"CREATE TABLE {TABLE} (id BIGINT NOT NULL PRIMARY KEY, customer BIGINT NOT NULL, amount DECIMAL(12,2) NOT NULL, "
    "made DATETIME NOT NULL, writes INT NOT NULL DEFAULT 0, note VARCHAR(200) NOT NULL)"
)
_ROW = (
    "n, n * 7 % 100003, n % 100000 / 100, '2020-01-01' + INTERVAL n SECOND, 0, "
    "CONCAT(REPEAT(SHA2(n, 256), 2), ' it''s ', LPAD(n, 24, 'no. '))"
)
# Numbers 0 to 9,999,999 by a join of digits: both flavors can, and nothing of it is kept.
_DIGITS = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
_NUMBERS = (
    "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d + 100000 * f.d + 1000000 * g.d AS n FROM "
    + ", ".join(f"({_DIGITS}) AS {name}" for name in "abcdefg")
)
MOST_ROWS = 10_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """A keyspace over the first shards: its TOML, and of each of them the condition of the rows `n` that it has."""

    keyspace: str
    toml: str
    conditions: tuple[str, ...]
    rows: int


def by_ring(keyspace: str, shards: Sequence[str], rows: int) -> Layout:
    """A hash map; every shard with the same weight."""
    ring = ", ".join(f"{name} = 1" for name in shards)
    places = BucketMap(place_buckets(dict.fromkeys(shards, 1), {name: i for i, name in enumerate(shards)}))
    conditions = tuple(
        f"CRC32(CRC32(n)) % 4096 IN ({','.join(str(b) for b, owner in enumerate(places.buckets) if owner == i)})"
        for i in range(len(shards))
    )
    return Layout(keyspace, _toml(keyspace, f'map = "hash"\nring = {{ {ring} }}'), conditions, rows)


def by_range(keyspace: str, shards: Sequence[str], rows: int) -> Layout:
    """A range map; every shard with as many rows."""
    edges = [rows * i // len(shards) for i in range(len(shards) + 1)]
    ranges, conditions = [], []
    for i, name in enumerate(shards):
        low = '"min"' if i == 0 else edges[i]
        high = '"max"' if i == len(shards) - 1 else edges[i + 1]
        ranges.append(f'{{ from = {low}, to = {high}, shard = "{name}" }}')
        conditions.append(f"n >= {edges[i]} AND n < {edges[i + 1]}")
    return Layout(keyspace, _toml(keyspace, f'map = "range"\nranges = [{", ".join(ranges)}]'), tuple(conditions), rows)


def _toml(keyspace: str, placed: str) -> str:
    return f'[keyspaces.{keyspace}]\nkey_type = "int"\n{placed}\ntables = {{ {TABLE} = {{ key = "id" }} }}\n'


def load(cluster: LocalCluster, layout: Layout) -> None:
    """Databases and rows on the shards. The rows are not in the binlogs: they were always there."""

    def one(index: int) -> None:
        _fill(cluster.shards[index].primary, layout, layout.conditions[index])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(len(layout.conditions))))


def _fill(server: LocalServer, layout: Layout, condition: str) -> None:
    digits = len(str(max(layout.rows - 1, 1)))
    numbers = _NUMBERS
    for place, name in enumerate("abcdefg"):
        if place >= digits:  # leave out joins that give zeros only
            numbers = numbers.replace(f" + 1{'0' * place} * {name}.d", "").replace(f", ({_DIGITS}) AS {name}", "")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(f"CREATE DATABASE {layout.keyspace} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {layout.keyspace}")
        cursor.execute(_DEFINITION)
        step = 250_000  # of ids: one transaction of millions would need a large redo log
        for start in range(0, layout.rows, step):
            part = f"n >= {start} AND n < {min(start + step, layout.rows)} AND ({condition})"
            cursor.execute(f"INSERT INTO {TABLE} SELECT {_ROW} FROM ({numbers}) AS numbers WHERE {part} ORDER BY n")
        cursor.execute(f"ANALYZE TABLE {TABLE}")
        # It writes all pages: what is measured afterwards is not to be measured beside that.
        cursor.execute(f"FLUSH TABLES {TABLE} FOR EXPORT")
        cursor.execute("UNLOCK TABLES")


def count(server: LocalServer, keyspace: str, what: str = "COUNT(*)") -> int:
    """Of the whole table on one server; 0 where there is none."""
    there = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
    if not server.rows(there, (keyspace, TABLE)):
        return 0
    [(found,)] = server.rows(f"SELECT {what} FROM {TABLE}", database=keyspace)
    return int(found or 0)
