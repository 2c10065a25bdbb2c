"""What the executor needs to know of a client connection. The frontend implements it; nothing here looks upward."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.gateway import Gateway
from shardproxy.errors import BackendLost, SqlError
from shardproxy.executor.diagnostics import Condition
from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.plan import PinReason
from shardproxy.router.moving import Touch
from shardproxy.session.profile import Profile
from shardproxy.session.session import Session
from shardproxy.topology.model import Snapshot

if TYPE_CHECKING:
    from shardproxy.executor.numbers import Numbered
    from shardproxy.executor.transaction import Transaction


class Client(Protocol):
    """A logged-in client with one command under way.

    It is the sink of relayed answers. Exactly one of `finish`, `error`, `ok` ends a command; a relayed answer ends it
    by itself.

    held: the server connection that a transaction or a pin keeps; `session.shard` is its shard.
    """

    session: Session
    gateway: Gateway
    held: BackendConnection | None
    source: BackendConnection | None  # whose answer is being relayed
    spanning: Transaction | None  # the transaction that `held` is in, once it is on several shards
    working: list[BackendConnection]  # other connections that the command under way runs on, for KILL
    entry: CachedPlan | None  # plan of the statement under way
    wire: bytes | None  # the command under way, when it is a read that could be sent again
    redone: bytes | None  # set while a read is run again because its server was lost: on primaries
    relayed: bool  # some of the answer has gone to the client
    map: Snapshot  # under which the statement under way was planned
    touching: float  # the last command that had to do with moving keys
    crossing: tuple[Touch, ...]  # of the statement under way: moves whose fence it needs (executor.fence)
    numbered: Numbered | None  # numbers that the statement under way has got
    waiting: Future[None] | None  # the statement under way waits for a newer map
    started: float  # when the command under way came; no two have the same
    waited: tuple[float, float]  # `started` of the last command that waited so, and the loop's time when it began to
    seq: int  # sequence id of the answer's first packet
    host: str  # the client's address

    @property
    def mariadb(self) -> bool:
        """The servers are MariaDB."""

    @property
    def may_write(self) -> bool:
        """The user is not read-only."""

    @property
    def plan_version(self) -> int:
        """Changes when plans made before hold no more as they are."""

    @property
    def known_profiles(self) -> dict[tuple[Profile, bytes], Profile]:
        """What a SET text does to a profile, once known; shared by the worker's clients."""

    def plan(self, digest: bytes, sql: bytes) -> CachedPlan:
        """The plan of a text with this digest: kept, or made now."""

    def write(self, data: bytes) -> None:
        """Send wire bytes to the client."""

    async def drained(self) -> None:
        """Wait until the client has read enough for more to be sent."""

    def abort(self) -> None:
        """Close the client's connection: the bytes sent cannot be completed to an answer."""

    def redo(self) -> bool:
        """Run the command of `wire` again. False when it may not be, or has been already."""

    def finish(self) -> None:
        """The command is done and its answer is written."""

    def error(self, error: SqlError, conditions: list[Condition] | None = None) -> None:
        """Answer with ERR and finish. conditions: what SHOW WARNINGS shows, if not the error alone."""

    def ok(
        self,
        affected: int = 0,
        insert_id: int = 0,
        warnings: int = 0,
        info: bytes = b"",
        conditions: list[Condition] | None = None,
    ) -> None:
        """Answer with OK and finish. conditions: what SHOW WARNINGS shows, where there are warnings."""

    def hold(self, connection: BackendConnection, shard: int, pins: tuple[PinReason, ...] = ()) -> None:
        """Keep a connection from now on, as a transaction or because of pins."""

    def let_go(self) -> None:
        """Give the held connection back to its pool, cleansed."""

    def forget_held(self) -> None:
        """The held connection is gone."""

    def adopt(self, profile: Profile) -> None:
        """The session's carried state has changed, and with it how its texts are read."""

    def status(self) -> int:
        """Server status flags for answers made here."""

    def check_schema(self, schema: str) -> None:
        """Raise SqlError unless the user may make it the default schema."""

    async def kill(self, ident: int, query_only: bool) -> bool:
        """End another client's statement or connection. False: there is none with this id that is the user's."""

    async def schema_changed(self) -> None:
        """A DDL statement ran: returns when plans made from now on see it."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the rest of a command as a task; its errors answer the client."""

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        """Relay some bytes of the answer of `source`."""

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        """Relay the last bytes, and finish."""

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        """The rest of a relayed answer will not come."""

    def relay_from(self, connection: BackendConnection, wire: bytes, shard: int) -> None:
        """Send wire bytes to a server and stream its answer to the client."""
