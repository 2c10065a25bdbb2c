"""Rules about servers: each one's settings, and that all agree on what would change an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from shardproxy.admin.check.facts import ServerFacts
from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.config import Config
from shardproxy.sql.session_text import ASSUMED
from shardproxy.topology.model import Role, Snapshot

Rule = Callable[[Config, Snapshot, Sequence[ServerFacts]], Iterator[Finding]]


def server_findings(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """All findings about servers. `facts`: one for each server of the snapshot."""
    for fact in facts:
        if fact.error is not None:
            yield error(
                fact.server.name,
                f"cannot be asked: {fact.error}",
                "start it, or correct its address; the proxy's account (backend.user) must exist on it",
            )
    answered = [f for f in facts if f.error is None]
    for rule in RULES:
        yield from rule(config, snapshot, answered)


def one_flavor(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """MySQL and MariaDB answer some statements differently, so one topology has only one of them."""
    maria = [f.server.name for f in facts if f.is_mariadb]
    mysql = [f.server.name for f in facts if not f.is_mariadb]
    if maria and mysql:
        yield error(
            "all servers",
            f"MySQL and MariaDB are mixed (MySQL: {', '.join(mysql)}; MariaDB: {', '.join(maria)})",
            "use one of them everywhere: their answers, collations and replication differ",
        )


def _series(fact: ServerFacts) -> str:
    """ "10.11" of "10.11.19-MariaDB-…": servers of one series answer alike."""
    match = re.match(r"\d+\.\d+", fact.version)
    return match[0] if match else fact.version


def _time_zone(fact: ServerFacts) -> str:
    zone = fact.variables.get("time_zone", "")
    return f"SYSTEM ({fact.variables.get('system_time_zone', '')})" if zone == "SYSTEM" else zone


def _isolation(fact: ServerFacts) -> str:
    return fact.variables.get("transaction_isolation") or fact.variables.get("tx_isolation", "")


def _sql_mode(fact: ServerFacts) -> str:
    return ",".join(sorted(fact.variables.get("sql_mode", "").split(",")))


def _variable(name: str) -> Callable[[ServerFacts], str]:
    return lambda fact: fact.variables.get(name, "")


_EQUAL: tuple[tuple[str, Callable[[ServerFacts], str], Callable[[str, str, str], Finding], str], ...] = (
    ("version", _series, warning, "bring all servers to one series"),
    ("sql_mode", _sql_mode, error, "set the same sql_mode everywhere: it decides what statements mean and accept"),
    ("time_zone", _time_zone, error, "set the same time_zone everywhere: NOW() and TIMESTAMP columns depend on it"),
    (
        "lower_case_table_names",
        _variable("lower_case_table_names"),
        error,
        "it is fixed when a server is initialised: build the differing servers anew",
    ),
    ("transaction isolation", _isolation, warning, "set the same transaction_isolation everywhere"),
    (
        "collation_server",
        _variable("collation_server"),
        warning,
        "set the same collation_server everywhere: comparisons of literals depend on it",
    ),
    *(
        (
            name,
            _variable(name),
            error,
            f"set the same {name} everywhere: sessions of the proxy begin with that of the first shard",
        )
        for name in ASSUMED
    ),
)


def equal_settings(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """Settings that change answers are the same on all servers."""
    for name, value_of, finding, fix in _EQUAL:
        groups: dict[str, list[str]] = {}
        for fact in facts:
            groups.setdefault(value_of(fact), []).append(fact.server.name)
        if len(groups) > 1:
            shown = "; ".join(f"{value or 'unset'} on {', '.join(names)}" for value, names in groups.items())
            yield finding("all servers", f"{name} differs: {shown}", fix)


def strict_mode(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """Without strict mode a server stores a key other than the one that the row was routed by (cut off, clamped)."""
    for fact in facts:
        modes = fact.variables.get("sql_mode", "").split(",")
        if not {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(modes):
            yield error(
                fact.server.name,
                "sql_mode is not strict: a key value that does not fit its column is changed while it is stored, and "
                "the row ends up on another shard than its key says",
                "add STRICT_TRANS_TABLES to sql_mode",
            )


def session_defaults(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """What sessions begin with at the server, and not at the proxy."""
    for fact in facts:
        completion = fact.variables.get("completion_type", "NO_CHAIN")
        if completion != "NO_CHAIN":
            yield warning(
                fact.server.name,
                f"completion_type is {completion}: sessions of the proxy begin with NO_CHAIN",
                "SET GLOBAL completion_type = NO_CHAIN, and SET SESSION where an application needs the other",
            )
        if fact.variables.get("init_connect"):
            yield warning(
                fact.server.name,
                "init_connect is set: sessions of the proxy begin with the global autocommit, sql_mode, time_zone and "
                "their clients' character sets; other variables may be as it sets them or as the global ones are",
                "SET GLOBAL init_connect = '', and what it sets as global variables",
            )


def case_of_names(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """Names are matched as written, like a server on Linux does."""
    for fact in facts:
        value = fact.variables.get("lower_case_table_names", "0")
        if value != "0":
            yield warning(
                fact.server.name,
                f"lower_case_table_names = {value}: the server ignores case in table names, the proxy does not",
                "write table names in statements exactly as in the file",
            )


def writable_primaries(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """A primary takes writes."""
    for fact in facts:
        if fact.server.role is Role.PRIMARY and _on(fact, "read_only"):
            yield error(
                fact.server.name,
                "it is the primary but read_only is on",
                "SET GLOBAL read_only = OFF, or name the server that is the primary now",
            )


def no_server_twice(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """Two addresses of one server would be two shards with the same rows."""
    seen: dict[tuple[str, ...], str] = {}
    for fact in facts:
        identity = tuple(fact.variables.get(v, "") for v in ("server_uuid", "hostname", "port", "datadir"))
        if identity in seen:
            yield error(
                fact.server.name,
                f"it is the same server as {seen[identity]} (same host name, port and data folder)",
                "give each its own server",
            )
        seen.setdefault(identity, fact.server.name)


def binlog_for_moving(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """What moving rows between shards will need of the binlog of every primary."""
    for fact in facts:
        if fact.server.role is not Role.PRIMARY:
            continue
        name, wanted = fact.server.name, _BINLOG_MARIADB if fact.is_mariadb else _BINLOG_MYSQL
        if not _on(fact, "log_bin"):
            yield warning(name, "log_bin is off: rows cannot be moved off this shard", "start the server with log_bin")
            continue
        for variable, value in wanted:
            found = fact.variables.get(variable, "unset")
            if found.upper() != value:
                yield warning(
                    name,
                    f"{variable} is {found}: rows cannot be moved off this shard",
                    f"SET GLOBAL {variable} = {value}, and the same in the server's option file",
                )


_BINLOG_MYSQL = (
    ("binlog_format", "ROW"),
    ("binlog_row_image", "FULL"),
    ("binlog_row_metadata", "FULL"),
    ("gtid_mode", "ON"),
    ("enforce_gtid_consistency", "ON"),
    ("binlog_transaction_compression", "OFF"),
)
_BINLOG_MARIADB = (
    ("binlog_format", "ROW"),
    ("binlog_row_image", "FULL"),
    ("binlog_row_metadata", "FULL"),
    ("log_bin_compress", "OFF"),
)


def durable_commits(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """With 0 a crash of the server process alone loses commits and prepared transactions."""
    for fact in facts:
        if fact.server.role is Role.PRIMARY and fact.variables.get("innodb_flush_log_at_trx_commit") == "0":
            yield warning(
                fact.server.name,
                "innodb_flush_log_at_trx_commit is 0: a crash loses transactions that clients were told are committed",
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1 (2 survives a crash of the server, not of the machine)",
            )


def lock_waits(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """A deadlock over shards is found by the lock waits of all of them."""
    if len(snapshot.shards) < 2 or not config.transactions.deadlock_after:
        return
    for fact in facts:
        if fact.lock_waits:
            yield warning(
                fact.server.name,
                f"its lock waits cannot be read ({fact.lock_waits}): a deadlock over shards is not found there "
                "and ends by innodb_lock_wait_timeout",
                "GRANT PROCESS ON *.* to the proxy's account"
                + ("" if fact.is_mariadb else ", and SELECT ON performance_schema.*; performance_schema must be ON"),
            )


def branches_can_be_ended(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """MariaDB's branches are ended only when its engine's transactions can be read (`backend.engine_hold`)."""
    if len(snapshot.shards) < 2:
        return
    for fact in facts:
        if fact.is_mariadb and fact.lock_waits:
            yield error(
                fact.server.name,
                f"its transactions cannot be read ({fact.lock_waits}): prepared branches that a crash leaves there are "
                "not ended, and keep their locks",
                "GRANT PROCESS ON *.* to the proxy's account",
            )


def room_for_pools(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """All workers' connections and the largest statement fit the servers' limits."""
    most = config.proxy.workers * (config.backend.pool_size + config.backend.shared_connections)
    for fact in facts:
        limit = int(fact.variables.get("max_connections", most))
        if most > limit:
            yield warning(
                fact.server.name,
                f"max_connections is {limit}, but {config.proxy.workers} workers may open {most}",
                "raise max_connections, or lower backend.pool_size or proxy.workers",
            )
        packet = int(fact.variables.get("max_allowed_packet", config.proxy.max_packet))
        if config.proxy.max_packet > packet:
            yield warning(
                fact.server.name,
                f"max_allowed_packet is {packet} bytes, but clients may send {config.proxy.max_packet} "
                "(proxy.max_packet): the server drops the connection on a larger statement",
                "raise max_allowed_packet, or lower proxy.max_packet",
            )


def _on(fact: ServerFacts, variable: str) -> bool:
    return fact.variables.get(variable, "").upper() in ("ON", "1", "YES")


RULES: tuple[Rule, ...] = (
    one_flavor,
    no_server_twice,
    writable_primaries,
    equal_settings,
    strict_mode,
    session_defaults,
    case_of_names,
    binlog_for_moving,
    durable_commits,
    lock_waits,
    branches_can_be_ended,
    room_for_pools,
)
