"""The tables of the Redis port and of the cache in front of MySQL. The rules of models.py hold here too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from shardproxy.config.table import Name, PositiveDuration, ShardName, Table, UserName
from shardproxy.config.units import AddressText, Duration, Size

CommandRule = Annotated[str, Field(pattern=r"^[+-]@?[A-Za-z][A-Za-z0-9_|-]*$")]
Glob = Annotated[str, Field(pattern=r"^([^~%].*)?$", max_length=1000)]  # Redis's ~ and %R~ before it are not meant


class RedisNodeSettings(Table):
    """A Redis server that has a part of the keys. The table's name is the node's name, by which keys find it."""

    address: AddressText = Field(
        description="The server that takes writes, unless `shardctl redis promote` has put another into the map store.",
        examples=["10.0.0.1:6379"],
    )
    replicas: Annotated[tuple[AddressText, ...], Field(strict=False)] = Field(
        default=(),
        description='Its replicas, for reads of users with `reads = "replica"`.',
        examples=[["10.0.0.2:6379"]],
    )
    weight: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Its part of the keys, in proportion to the others', in the first map; then the store's counts.",
    )
    sentinel_name: str = Field(
        default="",
        max_length=255,
        description="The name under which `redis.sentinels` watch it; empty: this table's name.",
        examples=["mymaster"],
    )
    ketama_name: str = Field(
        default="",
        max_length=255,
        description='With `placement = "ketama"`: the name behind the weight in twemproxy\'s file; for a server '
        "without one its address there as `host:port`, or the host alone for port 11211.",
        examples=["10.0.0.1:6379"],
    )


class RedisUserSettings(Table):
    """A user of the Redis port; `AUTH` with a password alone means `default`. Exactly one password source."""

    password: SecretStr | None = Field(
        default=None, description="The password itself, readable by whoever reads this file. For trying things out."
    )
    password_env: Name | None = Field(
        default=None, description="Environment variable that holds the password.", examples=["REDIS_PASSWORD"]
    )
    password_file: Name | None = Field(
        default=None, description="File that holds the password, relative to this file.", examples=["redis.password"]
    )
    commands: tuple[CommandRule, ...] | None = Field(
        default=None,
        strict=False,
        description="What the user may run, as for Redis's `ACL SETUSER`, in order, beginning with nothing: `+get`, "
        "`-flushall`, `+@read`, `+@all`. Without it: all; with `keys` all but `@dangerous`, `SCAN` and `RANDOMKEY`, "
        "which concern keys of others.",
        examples=[["+@all", "-@dangerous"]],
    )
    keys: tuple[Glob, ...] | None = Field(
        default=None,
        strict=False,
        description="Patterns of the keys that commands of the user may name; without it: all. Commands on all keys "
        "(`SCAN`, `FLUSHALL`) name none: as in Redis they are a matter of `commands`.",
        examples=[["app:*"]],
    )
    channels: tuple[Glob, ...] | None = Field(
        default=None,
        strict=False,
        description="Patterns of the channels that the user may publish or subscribe to; without it: all.",
        examples=[["app:*"]],
    )
    reads: Literal["primary", "replica"] = Field(
        default="primary",
        description="`replica`: commands of `@read` on keys go to a replica of the keys' node, if one is not further "
        "behind than `redis.max_replica_lag`.",
    )
    read_your_writes: bool = Field(
        default=True,
        description='With `reads = "replica"`: a client that has written reads from the primaries until a replica '
        "is known to have what it wrote.",
    )
    scripts: bool = Field(
        default=False,
        description="Whether a user with any of these rules may use commands of `@scripting`: nodes do not know the "
        "rules, so a script can do what they forbid.",
    )


class RedisSettings(Table):
    """The Redis port: many Redis servers that look like one. Without this table there is no Redis port."""

    placement: Literal["ring", "ketama"] = Field(
        default="ring",
        description="How keys find their node: `ring`: 4096 buckets on a hash ring, as with `[keyspaces]`; `ketama`: "
        "where twemproxy has them with `distribution: ketama`, `hash: fnv1a_64` and nodes in the order of its file. "
        "Servers, too, count only for the first map: see [redis-moves.md](redis-moves.md#with-ketama).",
    )
    hash_tag: str = Field(
        default="",
        pattern=r"^([\x21-\x7e]{2})?$",
        description="twemproxy's `hash_tag`, two characters, for `ketama`; empty: none. A `ring` has always `{}`.",
        examples=["{}"],
    )
    nodes: dict[ShardName, RedisNodeSettings] = Field(min_length=1, description="The servers.", examples=[{}])
    users: dict[UserName, RedisUserSettings] = Field(
        default_factory=dict, description="Who may connect; none: everybody, without a password, on loopback only."
    )
    user: str = Field(default="", description="User to log in to the nodes as; empty: by the password alone.")
    password: SecretStr | None = Field(
        default=None,
        description="Password on the nodes, readable by whoever reads this file. One of three sources; none: no login.",
    )
    password_env: Name | None = Field(
        default=None,
        description="Environment variable that holds the password. One of the three sources.",
        examples=["SHARDPROXY_REDIS_PASSWORD"],
    )
    password_file: Name | None = Field(
        default=None,
        description="File that holds the password, relative to this file. One of the three sources.",
        examples=["redis-nodes.password"],
    )
    tls: Literal["off", "required"] = Field(default="off", description="TLS to the nodes: never, or always.")
    tls_ca: str = Field(
        default="",
        description="PEM file of the CA that nodes' certificates must come from, for the host by which `address` names "
        "the node; empty: any is taken.",
    )
    connections: int = Field(
        default=1, ge=1, le=64, description="Connections per node, worker and protocol version; clients share them."
    )
    own_connections: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Connections per node and worker for clients that need one of their own: they block, watch, "
        "subscribe or monitor. Beyond it such commands get an error.",
    )
    depth: int = Field(
        default=16384, ge=1, le=1_000_000, description="Commands in flight on one connection; clients wait for more."
    )
    connect_timeout: PositiveDuration = Field(default=2.0, description="Longest wait for a connection and its login.")
    timeout: PositiveDuration = Field(
        default=10.0, description="A connection that gives no reply this long is given up: its commands get errors."
    )
    sentinels: Annotated[tuple[AddressText, ...], Field(strict=False)] = Field(
        default=(),
        description="Sentinels that say where the nodes are, in place of `address`, and which replica is the node "
        "after a failover. They are asked without a login, and with TLS when nodes are.",
        examples=[["10.0.0.11:26379", "10.0.0.12:26379", "10.0.0.13:26379"]],
    )
    max_replica_lag: PositiveDuration = Field(
        default=5.0, ge=1, description="Replicas that are further behind, or of which that is not known, get no reads."
    )
    eject_after: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="A node that gives no reply, or no connection, so often in a row is ejected: commands for its "
        "keys do not wait for it but get an error at once, until it answers again. It is tried in pauses of up to 5s.",
    )
    mode: Literal["store", "cache"] = Field(
        default="store",
        description="`store`: keys never change their node. `cache`: while a node is ejected its keys are on the "
        "others, where they are not found at first; when it is back it may have old values; not while keys are being "
        "moved: see docs/operations.md.",
    )
    hold_timeout: PositiveDuration = Field(
        default=10.0,
        description="Longest wait of a command whose keys are being moved to another node, before its client gets an "
        "error (`TRYAGAIN`; the command was not sent).",
    )
    max_command: Size = Field(
        default=512 * 2**20 + 2**20, ge=2**10, description="Largest command that a client may send, with its values."
    )
    client_buffer: Size = Field(
        default=16 * 2**20,
        ge=2**16,
        description="Replies kept for a client that does not take them; then its nodes' connections wait for it …",
    )
    client_stall: PositiveDuration = Field(
        default=2.0, description="… this long, and then it is closed: other clients use these connections too."
    )
    max_channels: int = Field(
        default=100_000,
        ge=1,
        description="Channels and patterns, of all kinds, that one client may listen to at a time. Their "
        "names may have as many bytes as `client_buffer`. What goes beyond gets an error, and nothing is subscribed.",
    )

    @property
    def replicas_read(self) -> dict[str, list[str]]:
        """Node → the replicas that users read from, as host:port."""
        if all(user.reads == "primary" for user in self.users.values()):
            return {}
        found = {name: [f"{at.host}:{at.port}" for at in node.replicas] for name, node in self.nodes.items()}
        return {name: replicas for name, replicas in found.items() if replicas}


class CachedRowsSettings(Table):
    """Rows of one table as keys of the Redis port; the table's name here is for metrics. See [cache.md](cache.md)."""

    key: str = Field(
        min_length=2,
        max_length=200,
        description="What the keys look like: text, and the columns of the table's primary key, which are integers, in "
        "braces. Keys that begin with the text before the first brace belong to no Redis node any more.",
        examples=["users:{uid}"],
    )
    table: str = Field(pattern=r"^[^.]+\.[^.]+$", description="The table, with its keyspace.", examples=["main.users"])
    form: Literal["json", "hash"] = Field(
        default="json", description="What a row is for Redis clients: a string with a JSON document, or a hash."
    )
    ttl: PositiveDuration = Field(default=300.0, description="How long a row is kept that nobody writes.")
    absent_ttl: Duration = Field(
        default=30.0, description="How long it is kept that there is no such row; `0s`: not at all."
    )
    refresh_before: Duration = Field(
        default=0.0,
        description="A row that is read so long before the end of `ttl`, or later, is loaded anew by one client in the "
        "background; all are given what is there. `0s`: not. Less than `ttl`.",
    )
    stale_for: Duration = Field(
        default=0.0,
        description="A row whose `ttl` is over is given for so long while one client loads it anew; never one that was "
        "written. `0s`: not at all.",
    )
    write: bool = Field(
        default=False,
        description="`SET` (json), `HSET` (hash) and `DEL` write rows. In mode `bounded` a client may not read "
        "what it has written for as long as `bound`.",
    )


TableName = Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]


class QueryRuleSettings(Table):
    """Queries whose answers are kept without a hint; the table's name here is for people. With both `query` and
    `tables` both must fit. The first rule that fits counts."""

    query: str = Field(
        default="",
        description="The query, with `?` for each literal, else to the letter; empty: any.",
        examples=["SELECT count(*) FROM orders WHERE state = ?"],
    )
    tables: Annotated[tuple[TableName, ...], Field(strict=False)] = Field(
        default=(), description="Queries that read no others than these tables; none: any.", examples=[["main.orders"]]
    )
    ttl: PositiveDuration = Field(
        description="How long an answer is kept, if nobody writes its tables.", examples=[30.0]
    )


class CachedQueriesSettings(Table):
    """Answers of queries of the MySQL port that are kept, where a hint `/*shardproxy: cache=30s*/` or a rule asks for
    it. See [cache.md](cache.md#queries)."""

    tables: Annotated[tuple[TableName, ...], Field(strict=False, min_length=1)] = Field(
        description="Tables, with their keyspaces, whose writes are followed: queries that read no others may be kept.",
        examples=[["main.orders", "main.users"]],
    )
    biggest: Size = Field(default=256 * 2**10, ge=2**10, description="Answers that are bigger are not kept.")
    rules: dict[ShardName, QueryRuleSettings] = Field(
        default_factory=dict, description="Queries without a hint.", examples=[{}]
    )


class CacheTableSettings(Table):
    """The cache in front of MySQL, on the nodes of `[redis]`; the same for all proxies. See [cache.md](cache.md)."""

    mode: Literal["bounded", "strict"] = Field(
        default="bounded",
        description="`bounded`: a row may be older than the last write by `bound`. `strict`: a read after a write that "
        "was acknowledged by any of the proxies never has what was there before; writes of cached tables wait for the "
        "Redis nodes.",
    )
    bound: Annotated[PositiveDuration, Field(ge=0.2)] = Field(
        default=2.0,
        description="A row from the cache was true at some time in so long a time before the read. When the binlogs "
        "cannot be read that fast, rows come from MySQL.",
    )
    hold_off: Annotated[PositiveDuration, Field(ge=0.2)] = Field(
        default=1.0,
        description="A row that was written is not kept for so long. Must be longer than the time between a "
        "transaction's place in the binlog and its being visible.",
    )
    lease: PositiveDuration = Field(
        default=5.0, description="One client loads a row, others wait for it; after this time another one loads it."
    )
    wait: PositiveDuration = Field(default=1.0, description="How long they wait before they read the row themselves.")
    write_wait: PositiveDuration = Field(
        default=5.0,
        description="`strict`: how long a write of a cached table waits for a Redis node that cannot be reached; then "
        "it gets an error and is not done.",
    )
    sample: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="The share of hits that is compared with the row at its primary, to measure how stale the cache "
        "is; `0`: none. A worker compares at most four at once.",
    )
    rows: dict[ShardName, CachedRowsSettings] = Field(default_factory=dict, description="Tables.", examples=[{}])
    queries: CachedQueriesSettings | None = Field(default=None, description="Answers of queries.")
