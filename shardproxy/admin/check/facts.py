"""What was read from the servers: plain values for the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shardproxy.topology.model import Server
from shardproxy.topology.schema import TableSchema

# Global variables that rules look at; a server that does not know one leaves it out.
VARIABLES = (
    "autocommit",
    "binlog_expire_logs_auto_purge",
    "binlog_expire_logs_seconds",
    "binlog_format",
    "binlog_order_commits",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_transaction_compression",
    "character_set_server",
    "collation_server",
    "completion_type",
    "datadir",
    "enforce_gtid_consistency",
    "gtid_mode",
    "hostname",
    "init_connect",
    "innodb_flush_log_at_trx_commit",
    "log_bin",
    "log_bin_compress",
    "log_bin_trust_function_creators",
    "lower_case_table_names",
    "max_allowed_packet",
    "max_connections",
    "max_sort_length",
    "port",
    "read_only",
    "server_id",
    "server_uuid",
    "sql_auto_is_null",
    "sql_buffer_result",
    "sql_mode",
    "sql_select_limit",
    "sync_binlog",
    "system_time_zone",
    "time_zone",
    "transaction_isolation",
    "tx_isolation",
)


@dataclass(frozen=True, slots=True)
class Replication:
    """The state of a replica, in the same words for MySQL and MariaDB.

    source_id: server_id of the server it replicates from; source_uuid: its server_uuid (empty on MariaDB).
    lag: seconds, None when the server does not know. by_gtid: it finds its position by GTID.
    last_error: empty when there is none.
    """

    source_id: str
    source_uuid: str
    receiving: bool
    applying: bool
    lag: float | None
    by_gtid: bool
    last_error: str


@dataclass(frozen=True, slots=True)
class Index:
    """One index. parts: columns in order, with prefix length and descending order, or the expression in brackets."""

    name: str
    unique: bool
    kind: str
    parts: tuple[str, ...]
    columns: tuple[str | None, ...]  # whole or prefixed column of each part; None for an expression


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table's definition without counters and comments."""

    schema: TableSchema
    engine: str
    collation: str
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict)  # generated column → its expression


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Everything asked from one server. `error` is set when it could not be asked at all; the rest is empty then.

    refused: questions that our account may not ask, as (what, the server's message).
    lock_waits: why the lock waits of a primary cannot be read; empty when they can.
    databases: database → its default collation. tables: (database, table) → definition; primaries only.
    """

    server: Server
    error: str | None = None
    version: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    replication: Replication | None = None
    databases: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[tuple[str, str], TableFacts] = field(default_factory=dict)
    refused: tuple[tuple[str, str], ...] = ()
    lock_waits: str = ""

    @property
    def is_mariadb(self) -> bool:
        return "mariadb" in self.version.lower()
