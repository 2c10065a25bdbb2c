"""From the configuration to what workers are told."""

from __future__ import annotations

from shardproxy.app.settings import LOGIN_SECONDS, PoolSettings, RedisWorkerSettings
from shardproxy.config import Config
from shardproxy.config.passwords import HashKind, PasswordHash
from shardproxy.executor.redis.local_answers import digest
from shardproxy.frontend.mysql.front import Limits, Rights
from shardproxy.protocol.mysql.accounts import Account
from shardproxy.protocol.mysql.passwords import NativeHash


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
        sequence_block=config.sequences.block,
        scratch_server=config.scratch.server,
        scratch_rows=config.scratch.max_rows,
        scratch_bytes=config.scratch.max_bytes,
        scratch_worker_bytes=config.scratch.max_worker_bytes,
        deadlock_after=config.transactions.deadlock_after,
        hold_timeout=config.transactions.hold_timeout,
        scatter_limit=b.scatter_limit,
    )


def redis_of(config: Config) -> RedisWorkerSettings | None:
    """None without `[redis]`. Raises ConfigError when a password's variable or file is missing."""
    r, listen = config.redis, config.listen.redis
    if r is None:
        return None
    password = config.redis_password()
    return RedisWorkerSettings(
        nodes=[(name, node.address.host, node.address.port) for name, node in r.nodes.items()],
        weights={name: node.weight for name, node in r.nodes.items()},
        routing=None,
        users={name: digest(config.redis_secret(name).encode()) for name in r.users},
        user=r.user,
        password=None if password is None else password.encode(),
        connections=r.connections,
        depth=r.depth,
        connect_timeout=r.connect_timeout,
        timeout=r.timeout,
        max_command=r.max_command,
        max_clients=config.proxy.max_clients,
        client_buffer=r.client_buffer,
        client_stall=r.client_stall,
        idle_timeout=config.proxy.idle_timeout,
        tls_cert=str(config.resolve(listen.tls_cert)) if listen.tls_cert else "",
        tls_key=str(config.resolve(listen.tls_key)) if listen.tls_key else "",
        hold_timeout=r.hold_timeout,
    )


def greeted_version(version: str) -> str:
    """A server's version as its greeting has it. MariaDB 10 puts 5.5.5- before its own, and drivers that know it tell
    by this what the server can do (a driver that reads "10.11" takes it for a MySQL newer than 8)."""
    return f"5.5.5-{version}" if version.startswith("10.") and "mariadb" in version.lower() else version
