"""What all MySQL client connections of one worker share."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from shardproxy.backend.gateway import Gateway
from shardproxy.counters import Counters
from shardproxy.errors import SqlError
from shardproxy.planner.cache import PlanCache
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.protocol.mysql.accounts import Account, FastAuthCache
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.protocol.mysql.server_auth import PasswordKey
from shardproxy.session.profile import Charsets, Profile
from shardproxy.sql.modes import SqlModes

if TYPE_CHECKING:
    from shardproxy.frontend.mysql.connection import ClientConnection
    from shardproxy.frontend.mysql.kept import KeptAnswers
    from shardproxy.frontend.mysql.strict import StrictSession

log = logging.getLogger(__name__)

# Offered to clients. Not offered: LOCAL_FILES, COMPRESS, SESSION_TRACK, QUERY_ATTRIBUTES, OPTIONAL_RESULTSET_METADATA.
CAPABILITIES = int(
    Cap.LONG_PASSWORD | Cap.FOUND_ROWS | Cap.LONG_FLAG | Cap.CONNECT_WITH_DB | Cap.IGNORE_SPACE | Cap.PROTOCOL_41
    | Cap.INTERACTIVE | Cap.TRANSACTIONS | Cap.SECURE_CONNECTION | Cap.MULTI_RESULTS | Cap.PS_MULTI_RESULTS
    | Cap.PLUGIN_AUTH | Cap.CONNECT_ATTRS | Cap.PLUGIN_AUTH_LENENC | Cap.DEPRECATE_EOF
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rights:
    """What one user may do. keyspaces None: all. max_connections 0: no limit (per worker)."""

    keyspaces: frozenset[str] | None
    default_keyspace: str
    reads_primary: bool
    read_only: bool
    max_connections: int


@dataclass(frozen=True, slots=True)
class Limits:
    """max_packet: bytes of one command; max_clients: connections of this worker; login: seconds to log in;
    idle: seconds without a command before the connection is closed."""

    max_packet: int
    max_clients: int
    login: float
    idle: float


SYSTEM_SCHEMAS = frozenset({"information_schema", "mysql", "performance_schema", "sys"})


def check_schema(front: Front, rights: Rights, schema: str | None, user: str, host: str) -> None:
    """Raise SqlError unless the default database exists and the user may use it."""
    if schema is None or schema in SYSTEM_SCHEMAS:
        return
    if schema not in front.gateway.snapshot.keyspaces:
        raise SqlError(f"Unknown database '{schema}'", 1049, "42000")
    if rights.keyspaces is not None and schema not in rights.keyspaces:
        raise SqlError(f"Access denied for user '{user}'@'{host}' to database '{schema}'", 1044, "42000")


# What a user who may only read can say beside reads: nothing here changes rows, definitions or locks.
_HARMLESS = frozenset((
    StatementKind.BEGIN, StatementKind.COMMIT, StatementKind.ROLLBACK, StatementKind.SAVEPOINT, StatementKind.SET,
    StatementKind.SET_TRANSACTION, StatementKind.USE, StatementKind.SHOW, StatementKind.SHOW_WARNINGS,
    StatementKind.DESCRIBE, StatementKind.KILL, StatementKind.EMPTY, StatementKind.EXPLAIN_ROUTE,
))  # fmt: skip


def check_rights(rights: Rights, plan: Plan, user: str) -> None:
    """Raise SqlError when the user may not run the statement.

    A statement with a shard hint goes to its server as it is, under the proxy's own account: nobody has looked at what
    it names, so a user with limits gets none of them past it.
    """
    if plan.shard_hint is not None and rights.keyspaces is not None:
        raise SqlError(f"user '{user}' may not use shard hints: they reach every database", 1044, "42000")
    if not rights.read_only or (plan.read and (plan.shard_hint is None or plan.kind is StatementKind.SELECT)):
        return
    if plan.shard_hint is not None or plan.kind not in _HARMLESS:
        raise SqlError(f"user '{user}' may only read (users.{user}.read_only)", 1290, "HY000")


class Neighbours(Protocol):
    """The rest of the proxy, as far as a client's statement can reach it."""

    async def kill(self, ident: int, query_only: bool, user: str) -> bool:
        """KILL of a connection that is another worker's. False: there is no such connection."""

    async def schema_changed(self) -> None:
        """A DDL statement ran: every worker must have the new catalog. Returns when it is on its way to all."""


class Front:
    """One per worker. `clients`: connection id → connection, logged-in ones only."""

    def __init__(
        self,
        worker: int,
        gateway: Gateway,
        plans: PlanCache,
        charsets: Charsets,
        accounts: Callable[[str], Account],
        rights: Callable[[str], Rights],
        limits: Limits,
        rsa: PasswordKey,
        server_version: str,
        default_modes: SqlModes,
        neighbours: Neighbours,
        change_user: Callable[[ClientConnection, bytes], object],
        tls: ssl.SSLContext | None = None,
        require_tls: bool = False,
        session_defaults: Mapping[str, str] | None = None,
    ) -> None:
        self.worker = worker
        self.gateway = gateway
        self.plans = plans
        self.charsets = charsets
        self.accounts = accounts
        self.rights = rights
        self.limits = limits
        self.rsa = rsa
        self.server_version = server_version
        self.default_modes = default_modes
        self.neighbours = neighbours
        self._change_user = change_user
        self.tls = tls
        self.require_tls = require_tls
        self.session_defaults = dict(session_defaults or {})  # variables that sessions begin with
        self.fast_auth = FastAuthCache()
        self.counters = Counters()
        self.clients: dict[int, ClientConnection] = {}
        self.connecting = 0
        self.per_user: dict[str, int] = {}
        self.accepted = 0
        self.profiles: dict[tuple[Profile, bytes], Profile] = {}  # SET texts seen: see executor.variables
        self.draining = False
        self.strict: Callable[[ClientConnection], StrictSession] | None = None  # the cache is
        self.kept: KeptAnswers | None = None  # answers of queries are
        self._next_ident = 0
        self._born = monotonic()

    @property
    def capabilities(self) -> int:
        return CAPABILITIES | (int(Cap.SSL) if self.tls else 0)

    def new_ident(self) -> int:
        """A connection id: the worker's number in the upper 8 bits, so that KILL finds its way."""
        while True:
            self._next_ident = self._next_ident % 0xFFFFFF + 1
            ident = self.worker << 24 | self._next_ident
            if ident not in self.clients:
                return ident

    def uptime(self) -> float:
        """Seconds since the worker started."""
        return monotonic() - self._born

    def questions(self) -> int:
        """Statements routed so far."""
        return sum(sum(counts) for counts in self.plans.series.values())

    def change_user(self, client: ClientConnection, payload: bytes) -> None:
        """COM_CHANGE_USER: authentication starts anew on this connection."""
        self._change_user(client, payload)

    async def kill(self, ident: int, query_only: bool, user: str) -> bool:
        """KILL from a client of this worker. False: no such connection, or another user's."""
        if ident >> 24 != self.worker:
            return await self.neighbours.kill(ident, query_only, user)
        return self.kill_here(ident, query_only, user)

    def kill_here(self, ident: int, query_only: bool, user: str) -> bool:
        """End a statement, or the whole connection, of a client of this worker."""
        client = self.clients.get(ident)
        if client is None or client.session.user != user:
            return False
        for source in (client.source, *client.working):
            if source is not None and not source.shared and not source.closed:
                source.pool.kill(source, query_only)
        if client.waiting is not None and not client.waiting.done():
            client.waiting.set_exception(SqlError("Query execution was interrupted", 1317, "70100"))
        if not query_only:
            client.close()
        return True

    def overtake(self) -> None:
        """There is a new map, and transactions that are older."""
        for client in self.clients.values():
            client.session.overtake()

    def report_defect(self, error: BaseException) -> None:
        """Something that must not happen, with its trace."""
        log.error("internal error", exc_info=error)
