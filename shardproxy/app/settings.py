"""What a worker needs to know to start, made by the supervisor from the configuration and the servers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardproxy.config import Config
from shardproxy.config.passwords import HashKind, PasswordHash
from shardproxy.frontend.mysql.front import Limits, Rights
from shardproxy.protocol.mysql.accounts import Account
from shardproxy.protocol.mysql.passwords import NativeHash
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Snapshot
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


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything that a worker is told at its start; later messages change snapshot, catalog and health.

    collations: id → (character set, collation). decoy_key: secret from which unknown users get stand-in accounts.
    """

    index: int
    snapshot: Snapshot
    catalog: Catalog
    collations: Mapping[int, tuple[str, str]]
    server_version: str
    mariadb: bool
    sql_mode: str
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


def accounts_of(config: Config) -> dict[str, Account]:
    """Accounts by user name. Raises ConfigError when a password's variable or file is missing."""
    accounts = {}
    for name in config.users:
        secret = config.user_secret(name)
        if isinstance(secret, PasswordHash):
            if secret.kind is HashKind.NATIVE:
                accounts[name] = Account(name, native=NativeHash(secret.value))
            else:
                accounts[name] = Account.from_hash(name, secret.value.decode("latin-1"))
        else:
            accounts[name] = Account(name, plaintext=secret.encode())
    return accounts


def rights_of(config: Config) -> dict[str, Rights]:
    """Rights by user name."""
    return {
        name: Rights(
            keyspaces=frozenset(user.keyspaces) or None,
            default_keyspace=user.default_keyspace,
            reads_primary=user.reads == "primary",
            read_only=user.read_only,
            max_connections=user.max_connections,
        )
        for name, user in config.users.items()
    }


def limits_of(config: Config) -> Limits:
    return Limits(config.proxy.max_packet, config.proxy.max_clients, LOGIN_SECONDS, config.proxy.idle_timeout)


def pool_of(config: Config) -> PoolSettings:
    """Raises ConfigError when the backend password's variable or file is missing."""
    b = config.backend
    return PoolSettings(
        user=b.user,
        password=config.backend_password().encode(),
        size=b.pool_size,
        wait=b.pool_wait,
        connect_timeout=b.connect_timeout,
        max_idle=b.max_idle,
        max_lag=b.max_lag,
        shared_connections=b.shared_connections,
        shared_depth=b.shared_depth,
        tls=b.tls,
        tls_ca=str(config.resolve(b.tls_ca)) if b.tls_ca else "",
    )


def greeted_version(version: str) -> str:
    """A server's version as its greeting has it. MariaDB 10 puts 5.5.5- before its own, and drivers that know it tell
    by this what the server can do (a driver that reads "10.11" takes it for a MySQL newer than 8)."""
    return f"5.5.5-{version}" if version.startswith("10.") and "mariadb" in version.lower() else version


def client_tls(cert: str, key: str) -> ssl.SSLContext | None:
    """What clients are offered; None without a certificate. Raises OSError, ssl.SSLError for unusable files."""
    if not cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key or None)
    return context


def server_tls(settings: PoolSettings) -> ssl.SSLContext | None:
    """How servers are verified: by their CA when one is given; else encrypted only."""
    if settings.tls == "off":
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca or None)
    context.check_hostname = bool(settings.tls_ca)
    if not settings.tls_ca:
        context.verify_mode = ssl.CERT_NONE
    return context
