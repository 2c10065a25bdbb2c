"""The tables of `shardproxy.toml` as pydantic models.

Rules of this file: every field has a description, because docs/configuration.md and the starter file are made from
them; values are strict (an integer is no string) and unknown keys are errors; what involves more than one field is
not checked here but in `rules.py`, so that one mistake never hides another. Durations are seconds (float), sizes are
bytes (int).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
)

from shardproxy.config.passwords import PasswordHash, parse_password_hash, read_password
from shardproxy.config.redis_models import CacheTableSettings, RedisSettings
from shardproxy.config.table import Name, Port, PositiveDuration, ShardName, Table, UserName
from shardproxy.config.units import AddressText, Duration, RangeEdge, Size


def _hash_or_error(value: object) -> PasswordHash:
    if not isinstance(value, str):
        raise ValueError("a string with a password hash")
    return parse_password_hash(value)


def _not_reserved(name: str) -> str:
    if name.lower() in ("mysql", "information_schema", "performance_schema", "sys", "_shardproxy"):
        raise ValueError("the name of a database of yours (this one belongs to the servers or to shardproxy)")
    return name


DatabaseName = Annotated[str, Field(pattern=r"^[^\x00-\x1f`/\\.\x7f]{1,64}$"), AfterValidator(_not_reserved)]
StoredHash = Annotated[PasswordHash, BeforeValidator(_hash_or_error), PlainSerializer(repr)]


class MysqlListen(Table):
    """Where clients of the MySQL protocol connect."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` is every IPv4 address."
    )
    port: Port = Field(default=3307, description="TCP port; all workers share it.")
    tls_cert: str = Field(
        default="", description="PEM file with the certificate chain shown to clients; empty: no TLS."
    )
    tls_key: str = Field(default="", description="PEM file with the certificate's private key.")
    require_tls: bool = Field(default=False, description="Refuse clients that do not use TLS.")


class AdminListen(Table):
    """Where metrics, health and `shardctl` are answered. It has no passwords: keep it on loopback."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Port = Field(default=9307, description="TCP port of the admin HTTP server.")


class RedisListen(Table):
    """Where clients of the Redis protocol connect, if there is a table `[redis]`."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Port = Field(default=6379, description="TCP port; all workers share it.")
    socket: str = Field(default="", description="Unix socket to listen on too; empty: none.")
    tls_cert: str = Field(
        default="", description="PEM file with the certificate chain shown to clients of the TCP port; empty: no TLS."
    )
    tls_key: str = Field(default="", description="PEM file with the certificate's private key.")


class ListenSettings(Table):
    """The listeners."""

    mysql: MysqlListen = Field(default_factory=MysqlListen, description="The MySQL port.")
    admin: AdminListen = Field(default_factory=AdminListen, description="The admin port.")
    redis: RedisListen = Field(default_factory=RedisListen, description="The Redis port.")


class ProxySettings(Table):
    """The proxy's own processes and limits."""

    workers: int = Field(default=2, ge=1, le=256, description="Worker processes; one uses about one CPU core.")
    max_clients: int = Field(
        default=10_000, ge=1, description="Client connections per worker; more are refused (1040)."
    )
    max_packet: Size = Field(
        default=64 * 2**20,
        ge=2**10,
        le=2**30,
        description="Largest statement accepted from a client, like max_allowed_packet.",
    )
    idle_timeout: PositiveDuration = Field(
        default=8 * 3600.0, description="A client that is silent this long is closed."
    )
    drain_timeout: Duration = Field(
        default=30.0, description="At SIGTERM, how long running transactions may still take."
    )
    worker_silence: Duration = Field(
        default=30.0,
        description="A worker process that stands still this long (stopped, or caught in something endless) is killed "
        "and replaced; `0s`: never.",
    )
    plan_cache: int = Field(default=5000, ge=16, description="Statement plans kept per worker.")
    server_version: str = Field(
        default="", max_length=60, description="Version told to clients; empty: that of the first shard's primary."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["json", "text"] = Field(default="json", description="`json` for machines, `text` for people.")


class TransactionSettings(Table):
    """Transactions over several shards."""

    recovery_interval: PositiveDuration = Field(
        default=2.0, description="Time between two looks for branches that a crash has left undecided."
    )
    deadlock_after: Duration = Field(
        default=0.1,
        description="A statement of such a transaction that waits this long makes its worker look for a deadlock over "
        "shards; `0s`: never.",
    )
    hold_timeout: PositiveDuration = Field(
        default=10.0,
        description="While keys move to another shard, writes to them wait for the switch; after this time they get "
        "error 9122.",
    )


class BackendSettings(Table):
    """How the proxy logs in to the MySQL servers, and its connections to them."""

    user: UserName = Field(description="Account of the proxy on every server.", examples=["shardproxy"])
    password: SecretStr | None = Field(
        default=None,
        description="The account's password, readable by whoever reads this file. One of the three sources.",
    )
    password_env: Name | None = Field(
        default=None,
        description="Environment variable that holds the password. One of the three sources.",
        examples=["SHARDPROXY_BACKEND_PASSWORD"],
    )
    password_file: Name | None = Field(
        default=None,
        description="File that holds the password, relative to this file. One of the three sources.",
        examples=["backend.password"],
    )
    tls: Literal["off", "preferred", "required"] = Field(
        default="off", description="TLS to the servers: never, where the server has it, or always."
    )
    tls_ca: str = Field(
        default="", description="PEM file of the CA that server certificates must come from; empty: any is taken."
    )
    connect_timeout: PositiveDuration = Field(default=5.0, description="Longest wait for a connection and its login.")
    pool_size: int = Field(default=32, ge=1, le=65535, description="Connections per server and worker.")
    pool_wait: PositiveDuration = Field(default=5.0, description="Longest wait for a free connection, then error 9111.")
    max_idle: PositiveDuration = Field(default=600.0, description="A connection unused this long is closed.")
    max_lag: PositiveDuration = Field(default=5.0, description="Replicas further behind get no reads.")
    health_interval: PositiveDuration = Field(default=1.0, description="Time between two health checks of a server.")
    schema_interval: Duration = Field(
        default=5.0,
        description="Time between two looks whether tables changed behind the proxy; `0s`: never, then restart it.",
    )
    shared_connections: int = Field(
        default=2,
        ge=0,
        le=1024,
        description="Connections per server and worker on which point reads of several clients queue; `0`: none.",
    )
    shared_depth: int = Field(default=16, ge=1, le=1024, description="Point reads in flight on one shared connection.")
    scatter_limit: int = Field(
        default=16,
        ge=1,
        le=65535,
        description="Shards that work for one statement at once, where their rows are handed on or gathered in turn.",
    )


class SequenceSettings(Table):
    """Numbers for AUTO_INCREMENT columns of tables with several shards."""

    block: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Numbers that a worker takes at once from `_shardproxy.sequence`; up to 64 times as many where "
        "they are used up within two seconds. A worker that ends loses the rest of its block.",
    )


class ScratchSettings(Table):
    """Scratch tables, into which rows are gathered for SELECTs that shards cannot answer together."""

    server: str = Field(
        default="",
        description="Server that has them, as `SHARD/primary` or as `shardctl` names a replica; it needs all "
        "databases. Empty: one of a shard of the statement.",
    )
    max_rows: int = Field(default=1_000_000, ge=1, description="Rows that one statement may gather, else error 9110.")
    max_bytes: Size = Field(default=256 << 20, description="Bytes that one statement may gather, else error 9110.")
    max_worker_bytes: Size = Field(
        default=1 << 30, description="Bytes that all statements of one worker may have gathered at once."
    )


class RebalanceSettings(Table):
    """How `shardctl rebalance` logs in to the MySQL servers, and whom it lets write there."""

    user: str = Field(
        default="",
        description="Its account, which no proxy uses: proxies that do not answer are shut out by theirs. "
        "Empty: that of `[backend]`.",
        examples=["shardproxy_moves"],
    )
    password: SecretStr | None = Field(
        default=None,
        description="The account's password, readable by whoever reads this file. One of the three sources.",
    )
    password_env: Name | None = Field(
        default=None,
        description="Environment variable that holds the password. One of the three sources.",
        examples=["SHARDPROXY_REBALANCE_PASSWORD"],
    )
    password_file: Name | None = Field(
        default=None,
        description="File that holds the password, relative to this file. One of the three sources.",
        examples=["rebalance.password"],
    )
    bypass: Literal["detect", "refuse", "ignore"] = Field(
        default="detect",
        description="Who writes moving keys to their shard directly, past the proxies: `detect` gives the switch up, "
        "and after it keeps such rows from being deleted; `refuse` also has the writes refused, by triggers, from just "
        "before the switch to the end of the move; `ignore` loses them.",
    )


class StoreSettings(Table):
    """The map store: where the newest maps, and the state of moves between shards, are kept."""

    kind: Literal["embedded", "etcd"] = Field(
        default="embedded",
        description="A file, for any number of proxies on one machine that name the same file; or an etcd cluster "
        "(version 3.4 or later), for proxies on several machines.",
    )
    path: str = Field(
        default="shardproxy.store",
        min_length=1,
        description="Embedded: the file, on a local disk. It is made when it is missing.",
    )
    endpoints: Annotated[tuple[AddressText, ...], Field(strict=False)] = Field(
        default=(), description="etcd: its members' client addresses.", examples=[["10.0.0.7:2379"]]
    )
    prefix: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        default="shardproxy/", description="etcd: what all our keys begin with; another for each cluster of shards."
    )
    user: str = Field(default="", description="etcd: user to log in as; empty: without a login.")
    password: SecretStr | None = Field(
        default=None, description="The user's password, readable by whoever reads this file. One of the three sources."
    )
    password_env: Name | None = Field(
        default=None,
        description="Environment variable that holds the password. One of the three sources.",
        examples=["SHARDPROXY_STORE_PASSWORD"],
    )
    password_file: Name | None = Field(
        default=None,
        description="File that holds the password, relative to this file. One of the three sources.",
        examples=["store.password"],
    )
    tls: bool = Field(default=False, description="etcd: speak TLS (`https`).")
    tls_ca: str = Field(
        default="", description="PEM file of the CA that etcd's certificates must come from; empty: the system's CAs."
    )
    tls_cert: str = Field(default="", description="PEM file with a certificate to show to etcd; empty: none.")
    tls_key: str = Field(default="", description="PEM file with that certificate's private key.")
    timeout: PositiveDuration = Field(
        default=5.0, description="The longest that a request to the store takes; then it is an error."
    )


class UserSettings(Table):
    """A user of the proxy. The table's name is the user name; exactly one password source."""

    password_hash: StoredHash | None = Field(
        default=None,
        description="Stored hash: `*` and 40 hex digits, or `$A$005$…` (raw or `0x…`); see `shardctl hash-password`.",
        examples=["*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"],
    )
    password_env: Name | None = Field(
        default=None, description="Environment variable that holds the password.", examples=["APP_PASSWORD"]
    )
    password_file: Name | None = Field(
        default=None, description="File that holds the password, relative to this file.", examples=["app.password"]
    )
    password: SecretStr | None = Field(
        default=None, description="The password itself, readable by whoever reads this file. For trying things out."
    )
    keyspaces: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        default=(), description="Keyspaces that the user may use; empty: all.", examples=[["main"]]
    )
    default_keyspace: str = Field(default="", description="Keyspace of a client that names none when it connects.")
    reads: Literal["replica", "primary"] = Field(default="replica", description="Where reads outside transactions go.")
    read_only: bool = Field(default=False, description="Refuse every statement that writes.")
    max_connections: int = Field(default=0, ge=0, description="Connections of this user per worker; `0`: no limit.")


class ShardSettings(Table):
    """One primary and its replicas."""

    primary: AddressText = Field(description="The server that takes writes.", examples=["10.0.0.1:3306"])
    replicas: Annotated[tuple[AddressText, ...], Field(strict=False)] = Field(
        default=(), description="Servers that replicate from the primary and take reads.", examples=[["10.0.0.2:3306"]]
    )


class KeyRangeSettings(Table):
    """Keys from `from` (included) to `to` (not included) live on `shard`."""

    start: RangeEdge = Field(alias="from", description='First key of the range, or `"min"`.', examples=["min"])
    end: RangeEdge = Field(alias="to", description='First key after the range, or `"max"`.', examples=[1_000_000])
    shard: ShardName = Field(description="Shard that holds these keys.", examples=["a"])


class TableSettings(Table):
    """How one table is spread; exactly one of the three."""

    key: Name | None = Field(
        default=None, description="Sharded: rows live where this column's value says.", examples=["uid"]
    )
    reference: bool = Field(
        default=False, description="Reference: `true` puts all rows on every shard of the keyspace."
    )
    single: ShardName | None = Field(default=None, description="Single: all rows live on this shard.", examples=["a"])
    lookups: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        default=(),
        description="Of a sharded table: unique keys without the key column that are kept unique over all shards, and "
        'lead to the one shard of a row. An entry is a column, or several: `"tenant, name"`. See '
        "[lookup indexes](sql.md#lookup-indexes).",
        examples=[["email"]],
    )


class KeyspaceSettings(Table):
    """A database whose tables share one key type and one map. Its name is the database's name on every shard."""

    key_type: Literal["int", "text", "binary"] = Field(
        description="Type of the key columns: integers, text with a `_bin` collation, or binary strings.",
        examples=["int"],
    )
    map: Literal["range", "hash"] = Field(
        description="How keys find their shard: sorted ranges of integers, or 4096 buckets on a hash ring.",
        examples=["hash"],
    )
    ranges: Annotated[tuple[KeyRangeSettings, ...], Field(strict=False)] = Field(
        default=(), description='With `map = "range"`: the ranges, in any order; a key in a gap is an error.'
    )
    ring: dict[ShardName, Annotated[int, Field(ge=1, le=100)]] = Field(
        default_factory=dict,
        description='With `map = "hash"`: each shard and its weight, 1 to 100.',
        examples=[{"a": 1, "b": 1}],
    )
    tables: dict[DatabaseName, TableSettings] = Field(
        default_factory=dict, description="Every table of the database that clients may use.", examples=[{}]
    )

    @property
    def shard_names(self) -> tuple[str, ...]:
        """Every shard that the map or a single table names, in order of first mention."""
        named = [r.shard for r in self.ranges] if self.map == "range" else list(self.ring)
        named += [t.single for t in self.tables.values() if t.single is not None]
        return tuple(dict.fromkeys(named))


class Config(Table):
    """The whole file. Made by `load` or `parse`, which also run the rules between tables."""

    listen: ListenSettings = Field(default_factory=ListenSettings, description="Where to listen.")
    proxy: ProxySettings = Field(default_factory=ProxySettings, description="Processes and limits.")
    backend: BackendSettings = Field(description="Login and connections to the servers.")
    sequences: SequenceSettings = Field(default_factory=SequenceSettings, description="Numbers over shards.")
    scratch: ScratchSettings = Field(default_factory=ScratchSettings, description="Scratch tables.")
    transactions: TransactionSettings = Field(
        default_factory=TransactionSettings, description="Transactions over several shards."
    )
    store: StoreSettings = Field(default_factory=StoreSettings, description="The map store.")
    rebalance: RebalanceSettings = Field(
        default_factory=RebalanceSettings, description="The account of `shardctl rebalance`, and writers beside it."
    )
    users: dict[UserName, UserSettings] = Field(min_length=1, description="Who may connect.")
    shards: dict[ShardName, ShardSettings] = Field(min_length=1, description="The servers.")
    keyspaces: dict[DatabaseName, KeyspaceSettings] = Field(min_length=1, description="The databases and their maps.")

    redis: RedisSettings | None = Field(default=None, description="The Redis port.")
    cache: CacheTableSettings | None = Field(default=None, description="The cache in front of MySQL.")

    _source: str = PrivateAttr("shardproxy.toml")
    _base: Path = PrivateAttr(default_factory=Path)
    _environ: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def source(self) -> str:
        """The file's name, for messages."""
        return self._source

    def resolve(self, file: str) -> Path:
        """A file named in the configuration: relative names are relative to the configuration's folder."""
        return self._base / file

    def backend_password(self) -> str:
        """The proxy's password on the servers. Raises ConfigError when its variable or file is missing."""
        b = self.backend
        where = f"{self._source}: backend"
        return read_password(where, b.password, b.password_env, b.password_file, self._environ, self._base)

    def rebalance_login(self) -> tuple[str, str]:
        """User and password with which rows are moved. Raises ConfigError as backend_password."""
        r = self.rebalance
        if not r.user:
            return self.backend.user, self.backend_password()
        where = f"{self._source}: rebalance"
        return r.user, read_password(where, r.password, r.password_env, r.password_file, self._environ, self._base)

    def store_login(self) -> tuple[str, str] | None:
        """User and password for etcd, None without a login. Raises ConfigError as backend_password."""
        s = self.store
        if not s.user:
            return None
        where = f"{self._source}: store"
        return s.user, read_password(where, s.password, s.password_env, s.password_file, self._environ, self._base)

    def redis_password(self) -> str | None:
        """Our password on the Redis nodes, None without one. Raises ConfigError as backend_password."""
        r = self.redis
        if r is None or (r.password, r.password_env, r.password_file) == (None, None, None):
            return None
        where = f"{self._source}: redis"
        return read_password(where, r.password, r.password_env, r.password_file, self._environ, self._base)

    def redis_secret(self, name: str) -> str:
        """The password of a user of the Redis port. Raises KeyError, and ConfigError as backend_password."""
        assert self.redis is not None
        u = self.redis.users[name]
        where = f"{self._source}: redis.users.{name}"
        return read_password(where, u.password, u.password_env, u.password_file, self._environ, self._base)

    def user_secret(self, name: str) -> str | PasswordHash:
        """A user's password, or its hash. Raises KeyError for an unknown user, ConfigError as backend_password."""
        u = self.users[name]
        if u.password_hash is not None:
            return u.password_hash
        where = f"{self._source}: users.{name}"
        return read_password(where, u.password, u.password_env, u.password_file, self._environ, self._base)

    def remember_origin(self, source: str, base: Path, environ: Mapping[str, str]) -> None:
        """Note where the file came from; of the environment only the variables that the file names are kept."""
        names = {
            self.backend.password_env,
            self.store.password_env,
            self.rebalance.password_env,
            *(user.password_env for user in self.users.values()),
            *((self.redis.password_env, *(u.password_env for u in self.redis.users.values())) if self.redis else ()),
        } - {None}
        self._source, self._base = source, Path(os.path.abspath(base))
        self._environ = {name: value for name, value in environ.items() if name in names}
