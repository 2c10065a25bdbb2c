"""The rows and statements of the scatter bench.

One table of a million facts and one of a thousand labels, on a lone server and, once for each number of shards, spread
by a hash of the key. The servers make the rows themselves (MariaDB's sequence tables), each what its shard holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shardproxy.local import LocalCluster, LocalServer
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.ring import place_buckets

LABELS = 1000
_FACTS = (
    "CREATE TABLE facts (id BIGINT NOT NULL PRIMARY KEY, grp INT NOT NULL, n INT NOT NULL, "
    "name VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL)"
)
_LABELS = (
    "CREATE TABLE labels (label_id BIGINT NOT NULL PRIMARY KEY, label_no INT NOT NULL, title VARCHAR(30) NOT NULL, "
    "KEY (label_no))"
)
_ACCOUNTS = "CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY, v INT NOT NULL DEFAULT 0)"
_NAMES = "'amber', 'Birch', 'cedar', 'Dune', 'Élan', 'fjord', 'Grove', 'heath', 'îlot', 'Jade'"
_FACT_ROW = (
    "SELECT seq, CRC32(CONCAT('g', seq)) % 1000, CRC32(CONCAT('n', seq)) % 1000000000, "
    f"CONCAT(ELT(1 + CRC32(CONCAT('w', seq)) % 10, {_NAMES}), ' ', LOWER(HEX(CRC32(CONCAT('t', seq))))) "
    "FROM seq_1_to_{rows}"
)
_LABEL_ROW = "SELECT seq, (seq * 37) % 1000, CONCAT('label ', seq) FROM seq_1_to_{rows}"
_ACCOUNT_ROW = "SELECT seq, 0 FROM seq_1_to_{rows}"


@dataclass(frozen=True, slots=True)
class Statement:
    """ordered: the answers are compared in order."""

    name: str
    sql: str
    ordered: bool = True


STATEMENTS = (
    Statement("COUNT(*)", "SELECT COUNT(*) FROM facts"),
    Statement(
        "filter, ORDER BY, LIMIT 100",
        "SELECT id, n FROM facts WHERE grp BETWEEN 100 AND 299 ORDER BY n DESC, id LIMIT 100",
    ),
    Statement(
        "GROUP BY, 1,000 groups",
        "SELECT grp, COUNT(*), SUM(n), MIN(name), AVG(n) FROM facts GROUP BY grp",
        ordered=False,
    ),
    Statement("top 100 by text", "SELECT id, name FROM facts ORDER BY name, id LIMIT 100"),
    Statement("100,000 rows in order", "SELECT id, n, name FROM facts WHERE id <= 100000 ORDER BY id"),
    Statement(
        "join on a non-key",
        "SELECT f.id, l.title FROM facts f JOIN labels l ON l.label_no = f.grp WHERE f.n < 5000000 ORDER BY f.id",
    ),
)
ALL_BY_NUMBER = Statement("all rows by integer", "SELECT id, n FROM facts ORDER BY id")
ALL_BY_TEXT = Statement("all rows by text", "SELECT id, name FROM facts ORDER BY name, id")


def keyspace(shards: int) -> str:
    """Name of the keyspace (and database) over so many shards."""
    return f"scatter{shards}"


def keyspace_toml(names: Sequence[str]) -> str:
    """The keyspace over these shards."""
    ring = ", ".join(f"{name} = 1" for name in names)
    return (
        f'[keyspaces.{keyspace(len(names))}]\nkey_type = "int"\nmap = "hash"\nring = {{ {ring} }}\n'
        'tables = { facts = { key = "id" }, labels = { key = "label_id" }, accounts = { key = "id" } }\n'
    )


def load_lone(server: LocalServer, rows: int) -> None:
    """Everything, in the database `scatter`."""
    _fill(server, "scatter", rows, "TRUE")


def load_shards(cluster: LocalCluster, shards: int, rows: int) -> BucketMap:
    """The keyspace's databases on the first `shards` shards of the cluster; the map that the proxy will have."""
    chosen = cluster.shards[:shards]
    names = [shard.name for shard in chosen]
    places = BucketMap(place_buckets(dict.fromkeys(names, 1), {name: i for i, name in enumerate(names)}))

    def load(index: int) -> None:
        buckets = ",".join(str(b) for b, shard in enumerate(places.buckets) if shard == index)
        _fill(chosen[index].primary, keyspace(shards), rows, f"CRC32(CRC32(seq)) % 4096 IN ({buckets})")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(load, range(shards)))
    return places


def _fill(server: LocalServer, database: str, rows: int, condition: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {database}")
        for definition, table, source, count in (
            (_FACTS, "facts", _FACT_ROW, rows),
            (_LABELS, "labels", _LABEL_ROW, LABELS),
            (_ACCOUNTS, "accounts", _ACCOUNT_ROW, 1000),
        ):
            cursor.execute(definition)
            cursor.execute(f"INSERT INTO {table} {source.format(rows=count)} WHERE {condition}")
            cursor.execute(f"ANALYZE TABLE {table}")
