"""From the configuration to what workers are told."""

from __future__ import annotations

from hashlib import sha256

from shardproxy.app.settings import LOGIN_SECONDS, PoolSettings, RedisWorkerSettings
from shardproxy.cache.patterns import CachedRows, CacheSettings
from shardproxy.config import Config
from shardproxy.config.passwords import HashKind, PasswordHash
from shardproxy.config.redis_models import QueryRuleSettings
from shardproxy.errors import ConfigError
from shardproxy.executor.redis.local_answers import digest
from shardproxy.frontend.mysql.front import Limits, Rights
from shardproxy.planner.query_cache import QueryRule
from shardproxy.planner.redis.permissions import Permissions, UserRules
from shardproxy.protocol.mysql.accounts import Account
from shardproxy.protocol.mysql.passwords import NativeHash
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.ring import place_buckets


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
    weights = {name: node.weight for name, node in r.nodes.items()}
    password = config.redis_password()
    return RedisWorkerSettings(
        nodes=[(name, node.address.host, node.address.port) for name, node in r.nodes.items()],
        sentinels=[(address.host, address.port) for address in r.sentinels],
        watched=[node.sentinel_name or name for name, node in r.nodes.items()],
        replicas=[[(address.host, address.port) for address in node.replicas] for node in r.nodes.values()],
        replica_readers={name: u.read_your_writes for name, u in r.users.items() if u.reads == "replica"},
        max_replica_lag=r.max_replica_lag,
        weights=weights,
        owners=place_buckets(weights, {name: i for i, name in enumerate(weights)}) if r.placement == "ring" else (),
        routing=None,
        users={name: digest(config.redis_secret(name).encode()) for name in r.users},
        rules={name: rules for name in r.users if (rules := _redis_rules(config, name)).limit_anything},
        user=r.user,
        password=None if password is None else password.encode(),
        tls=r.tls,
        tls_ca=str(config.resolve(r.tls_ca)) if r.tls_ca else "",
        eject_after=r.eject_after,
        cache=r.mode == "cache",
        connections=r.connections,
        own_connections=r.own_connections,
        depth=r.depth,
        connect_timeout=r.connect_timeout,
        timeout=r.timeout,
        max_command=r.max_command,
        max_clients=config.proxy.max_clients,
        client_buffer=r.client_buffer,
        client_stall=r.client_stall,
        max_channels=r.max_channels,
        idle_timeout=config.proxy.idle_timeout,
        tls_cert=str(config.resolve(listen.tls_cert)) if listen.tls_cert else "",
        tls_key=str(config.resolve(listen.tls_key)) if listen.tls_key else "",
        hold_timeout=r.hold_timeout,
    )


def _redis_rules(config: Config, name: str) -> UserRules:
    assert config.redis is not None
    user = config.redis.users[name]
    rules = UserRules(user.commands, user.keys, user.channels, user.scripts)
    try:
        Permissions(rules)
    except ValueError as error:
        raise ConfigError(f"{config.source}: redis.users.{name}.commands: {error}") from error
    return rules


def cache_of(config: Config, redis: RedisWorkerSettings | None) -> CacheSettings | None:
    """None without `[cache]`, or without anything to be cached."""
    c = config.cache
    if c is None or redis is None or not (c.rows or c.queries):
        return None
    rows = []
    for name, one in c.rows.items():
        database, table = _table_name(one.table)
        lives, absent = round(one.ttl * 1000), round(one.absent_ttl * 1000)
        before, after = round(one.refresh_before * 1000), round(one.stale_for * 1000)
        rows.append(CachedRows(name, one.key, database, table, one.form, lives, absent, one.write, before, after))
    placement = sha256(repr((redis.nodes, redis.owners)).encode()).hexdigest()
    strict = c.mode == "strict"
    q = c.queries
    return CacheSettings(
        tuple(rows), c.hold_off, c.bound, c.lease, c.wait, placement, strict, c.write_wait, c.sample,
        tuple(sorted({_table_name(table) for table in q.tables})) if q is not None else (),
        q.biggest if q is not None else 0,
        tuple(_query_rule(rule) for rule in q.rules.values()) if q is not None else (),
    )  # fmt: skip


def _table_name(text: str) -> tuple[str, str]:
    database, _, table = text.partition(".")
    return database, table


def _query_rule(rule: QueryRuleSettings) -> QueryRule:
    digest = scan(rule.query.strip().encode(), SqlModes())[0].decode()
    return QueryRule(digest, frozenset(map(_table_name, rule.tables)), round(rule.ttl * 1000))


def greeted_version(version: str) -> str:
    """A server's version as its greeting has it. MariaDB 10 puts 5.5.5- before its own, and drivers that know it tell
    by this what the server can do (a driver that reads "10.11" takes it for a MySQL newer than 8)."""
    return f"5.5.5-{version}" if version.startswith("10.") and "mariadb" in version.lower() else version
