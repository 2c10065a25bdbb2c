"""What a worker needs to know to start. Nothing here imports the configuration's models: workers have no use for them,
and they take 15 MiB."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardproxy.cache.patterns import CacheSettings
from shardproxy.frontend.mysql.front import Limits, Rights
from shardproxy.planner.redis.permissions import UserRules
from shardproxy.protocol.mysql.accounts import Account
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Snapshot
from shardproxy.topology.redis_routing import Routing
from shardproxy.topology.schema import Catalog

LOGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """As in `[backend]` of the configuration."""

    user: str
    password: bytes = field(repr=False)
    size: int
    wait: float
    connect_timeout: float
    max_idle: float
    max_lag: float
    shared_connections: int
    shared_depth: int
    tls: str
    tls_ca: str
    sequence_block: int = 100
    scratch_server: str = ""
    scratch_rows: int = 1_000_000
    scratch_bytes: int = 256 << 20
    scratch_worker_bytes: int = 1 << 30
    deadlock_after: float = 0.1
    hold_timeout: float = 10.0
    scatter_limit: int = 16


@dataclass(frozen=True, slots=True)
class RedisWorkerSettings:
    """The Redis port, as in `[redis]`. nodes: (name, host, port); weights: by their names, in their order; owners:
    bucket → place of its node, of placement "ring", as the file has it: entries of cached rows are placed by it.
    routing: where the store has clients' keys. users: name → SHA-256 of the password; rules: of those who have any.
    replicas: (host, port), of each node. replica_readers: users whose reads go to replicas → whether they see their own
    writes. watched: of each node the name that the sentinels have for it. routing, identity, name are set for each
    start of a worker; see LinkSettings."""

    nodes: Sequence[tuple[str, str, int]]
    sentinels: Sequence[tuple[str, int]]
    watched: Sequence[str]
    replicas: Sequence[Sequence[tuple[str, int]]]
    replica_readers: Mapping[str, bool]
    max_replica_lag: float
    weights: Mapping[str, int]
    owners: Sequence[int]
    routing: Routing | None
    users: Mapping[str, bytes] = field(repr=False)
    rules: Mapping[str, UserRules]
    user: str
    password: bytes | None = field(repr=False)
    tls: str
    tls_ca: str
    eject_after: int
    cache: bool
    connections: int
    own_connections: int
    depth: int
    connect_timeout: float
    timeout: float
    max_command: int
    max_clients: int
    client_buffer: int
    client_stall: float
    max_channels: int
    idle_timeout: float
    tls_cert: str
    tls_key: str
    hold_timeout: float
    identity: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything that a worker is told at its start; later messages change snapshot, catalog and health.

    coordinator: the worker's identity in transactions over shards, never used before. collations: id → (character set,
    collation). session_defaults: variables that sessions begin with, as SQL literals, where the servers have them
    otherwise than is taken for granted. decoy_key: secret from which unknown users get stand-in accounts.
    """

    index: int
    coordinator: str
    snapshot: Snapshot
    catalog: Catalog
    collations: Mapping[int, tuple[str, str]]
    server_version: str
    mariadb: bool
    sql_mode: str
    session_defaults: Mapping[str, str]
    health: Mapping[str, ServerHealth]
    accounts: Mapping[str, Account] = field(repr=False)
    rights: Mapping[str, Rights]
    limits: Limits
    plan_cache: int
    pool: PoolSettings
    rsa_pem: bytes = field(repr=False)
    decoy_key: bytes = field(repr=False)
    tls_cert: str
    tls_key: str
    require_tls: bool
    drain_timeout: float
    log_level: str
    log_format: str
    redis: RedisWorkerSettings | None = None
    cache: CacheSettings | None = None


def client_tls(cert: str, key: str) -> ssl.SSLContext | None:
    """What clients are offered; None without a certificate. Raises OSError, ssl.SSLError for unusable files."""
    if not cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key or None)
    return context


def server_tls(tls: str, ca: str) -> ssl.SSLContext | None:
    """How servers are verified: by their CA when one is given; else encrypted only. None for "off". Raises OSError,
    ssl.SSLError for an unusable file."""
    if tls == "off":
        return None
    context = ssl.create_default_context(cafile=ca or None)
    context.check_hostname = bool(ca)
    if not ca:
        context.verify_mode = ssl.CERT_NONE
    return context
