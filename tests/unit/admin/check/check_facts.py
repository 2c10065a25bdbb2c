"""A healthy topology of two shards as facts, for the rules' tests to break one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shardproxy.admin.check.facts import Index, Replication, ServerFacts, TableFacts
from shardproxy.config import Config, parse
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Role, Server, Snapshot
from shardproxy.topology.schema import Column, TableSchema

MYSQL = {
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "binlog_transaction_compression": "OFF",
    "collation_server": "utf8mb4_0900_ai_ci",
    "enforce_gtid_consistency": "ON",
    "gtid_mode": "ON",
    "hostname": "h",
    "datadir": "/var/lib/mysql/",
    "innodb_flush_log_at_trx_commit": "1",
    "log_bin": "ON",
    "lower_case_table_names": "0",
    "max_allowed_packet": "67108864",
    "max_connections": "151",
    "sql_mode": "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION",
    "system_time_zone": "UTC",
    "time_zone": "SYSTEM",
    "transaction_isolation": "REPEATABLE-READ",
}
MARIADB = {
    **{k: v for k, v in MYSQL.items() if k not in ("gtid_mode", "enforce_gtid_consistency", "transaction_isolation")},
    "log_bin_compress": "OFF",
    "tx_isolation": "REPEATABLE-READ",
}
VERSIONS = {"mysql": "9.7.4", "mariadb": "10.11.19-MariaDB-log"}

UID = Column("uid", "bigint", "bigint unsigned", nullable=False)
NAME = Column("name", "varchar", "varchar(40)", charset="utf8mb4", collation="utf8mb4_bin")
PRIMARY = Index("PRIMARY", True, "BTREE", ("uid",), ("uid",))


def table(name: str, columns: tuple[Column, ...] = (UID, NAME), indexes: tuple[Index, ...] = (PRIMARY,)) -> TableFacts:
    """A table of database `main`, unique keys taken from its indexes."""
    unique = tuple(tuple(c for c in i.columns if c) for i in indexes if i.unique)
    schema = TableSchema("main", name, columns, unique, unique[0] if unique else ())
    return TableFacts(schema, "InnoDB", "utf8mb4_bin", indexes)


def config_data(**keyspace: Any) -> dict[str, Any]:
    return {
        "backend": {"user": "proxy", "password": "x"},
        "users": {"app": {"password": "x"}},
        "shards": {
            "a": {"primary": "10.0.0.1:3306", "replicas": ["10.0.0.2:3306"]},
            "b": {"primary": "10.0.1.1:3306", "replicas": ["10.0.1.2:3306"]},
        },
        "keyspaces": {
            "main": {
                "key_type": "int",
                "map": "hash",
                "ring": {"a": 1, "b": 1},
                "tables": {
                    "users": {"key": "uid"},
                    "countries": {"reference": True},
                    "settings": {"single": "a"},
                },
                **keyspace,
            }
        },
    }


def config() -> Config:
    return parse(config_data())


def snapshot() -> Snapshot:
    return build_snapshot(config())


def healthy(flavor: str = "mysql") -> dict[str, ServerFacts]:
    """Facts by server name; nothing is wrong with them."""
    servers = [s for shard in snapshot().shards for s in shard.servers]
    return {s.name: _facts(s, i, flavor) for i, s in enumerate(servers, 1)}


def _facts(server: Server, number: int, flavor: str) -> ServerFacts:
    variables = dict(MYSQL if flavor == "mysql" else MARIADB)
    variables |= {"server_id": str(number), "port": str(3306 + number)}
    if flavor == "mysql":
        variables["server_uuid"] = f"uuid-{number}"
    replication = None
    tables: dict[tuple[str, str], TableFacts] = {}
    if server.role is Role.REPLICA:
        variables["read_only"] = "ON"
        uuid = f"uuid-{number - 1}" if flavor == "mysql" else ""
        replication = Replication(str(number - 1), uuid, True, True, 0.0, True, "")
    else:
        variables["read_only"] = "OFF"
        names = ["users", "countries"] + (["settings"] if server.shard == "a" else [])
        tables = {("main", name): table(name) for name in names}
    return ServerFacts(
        server,
        version=VERSIONS[flavor],
        variables=variables,
        replication=replication,
        databases={"main": "utf8mb4_bin"},
        tables=tables,
    )


def changed(fact: ServerFacts, **variables: str) -> ServerFacts:
    """The same server with other variables."""
    return replace(fact, variables={**fact.variables, **variables})


def with_tables(fact: ServerFacts, tables: Mapping[str, TableFacts | None]) -> ServerFacts:
    """The same server with tables of `main` replaced, added or (None) removed."""
    merged = {**fact.tables, **{("main", name): t for name, t in tables.items()}}
    return replace(fact, tables={key: t for key, t in merged.items() if t is not None})
