"""Answers of queries from the cache (cache/answers.py), at the MySQL port.

Which they are, plans say (planner/query_cache.py); others pass by. A query whose answer is not there runs as it would
without the cache, and what its client is sent on the way is kept. So the bytes that are kept are a whole answer, for
clients alike: the key has all that changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from shardproxy.cache.answers import AnswerPlace, Answers, Found, Lease
from shardproxy.cache.entries import State
from shardproxy.planner.plan import Plan
from shardproxy.protocol.mysql.binary import ExecuteParameters
from shardproxy.protocol.mysql.constants import Cap, FieldType
from shardproxy.protocol.mysql.response import QUERY, ROWS, ResponseScanner
from shardproxy.session.profile import Profile
from shardproxy.session.session import PreparedStatement

if TYPE_CHECKING:
    from shardproxy.frontend.mysql.connection import ClientConnection

Work = Coroutine[Any, Any, None] | None

_ISOLATION = ("transaction_isolation", "tx_isolation")


class KeptAnswers:
    """One per worker."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self._profiles: WeakKeyDictionary[Profile, bytes | None] = WeakKeyDictionary()

    def text(self, client: ClientConnection, plan: Plan, sql: bytes, again: Callable[[], Work]) -> bool:
        """Answer a text query. False: nothing has been done, it goes on. again: runs it, when there is no answer."""
        return self._answer(client, plan, (b"text", sql), again)

    def prepared(
        self,
        client: ClientConnection,
        plan: Plan,
        statement: PreparedStatement,
        parameters: ExecuteParameters,
        again: Callable[[], Work],
    ) -> bool:
        """As `text`, of an execution."""
        # A parameter of type TIME becomes a DATETIME by today's date.
        if parameters.flags or parameters.long_data or FieldType.TIME in parameters.types[::2]:
            self.answers.counts["bypassed"] += 1
            return False
        read_as = repr(statement.key).encode()
        values = parameters.payload[parameters.values_at :]
        parts = (b"binary", statement.text, read_as, parameters.types, parameters.null_bitmap, values)
        return self._answer(client, plan, parts, again)

    def _answer(self, client: ClientConnection, plan: Plan, parts: Sequence[bytes], again: Callable[[], Work]) -> bool:
        caching = plan.cached
        assert caching is not None
        transport: Any = client.transport
        if isinstance(transport, _Passage) and transport.command == client.started:
            return False  # it has been looked for
        session = self._session(client)
        place = None if session is None else self.answers.place(_key(session, parts), caching.tables)
        if place is None:
            self.answers.counts["bypassed"] += 1
            return False
        self.answers.ask(place, lambda found: self._looked(client, place, caching.ttl, found, again))
        return True

    def _session(self, client: ClientConnection) -> bytes | None:
        """What of the session's state the answer depends on; None when it must not be kept, or not be a kept one."""
        session = client.session
        if not session.simple or session.pins or client.seq != 1 or client.redone is not None:
            return None
        profile = session.profile
        if profile not in self._profiles:
            levels = [profile.value(name) or "" for name in _ISOLATION]
            dirty = any("UNCOMMITTED" in level.upper() for level in levels)
            variables = [pair for pair in profile.variables if not pair[0].startswith("@")]  # no query has any
            state = repr((profile.capabilities, profile.schema, variables)).encode()
            self._profiles[profile] = None if dirty else state
        return self._profiles[profile]

    def _looked(
        self, client: ClientConnection, place: AnswerPlace, ttl: int, found: Found | None, again: Callable[[], Work]
    ) -> None:
        if client.closing:
            return
        if found is not None and found[0] is State.VALUE:
            self.answers.hits += 1
            give(client, found[1])
        else:
            client.run(self._miss(client, place, ttl, found, again))

    async def _miss(
        self, client: ClientConnection, place: AnswerPlace, ttl: int, found: Found | None, again: Callable[[], Work]
    ) -> None:
        brought: bytes | Lease | None = None
        if found is None:
            self.answers.counts["bypassed"] += 1
        else:
            brought = await self.answers.wait(place, found)
        if isinstance(brought, bytes):
            give(client, brought)
            return
        _Passage(client, self.answers, brought, ttl)
        work = again()
        if work is not None:
            await work


def give(client: ClientConnection, answer: bytes) -> None:
    """The command's answer is this one: rows, without warnings."""
    session = client.session
    session.affected = -1
    session.warnings = 0
    session.conditions = None
    client.write(answer)
    client.finish()


def _key(session: bytes, parts: Sequence[bytes]) -> bytes:
    """One for all that have the same parts."""
    made = sha256(session)
    for part in parts:
        made.update(b"%d:" % len(part))
        made.update(part)
    return made.hexdigest().encode()


class _Passage:
    """Stands in the client's transport until the end of the answer to a query that was looked for, so that it is looked
    for once, and keeps what goes through when there is a lease. The answer must be one result, whole, small enough,
    without warnings."""

    def __init__(self, client: ClientConnection, answers: Answers, lease: Lease | None, ttl: int) -> None:
        self.command = client.started
        self._client = client
        self._below: Any = client.transport
        self._answers = answers
        self._lease = lease
        self._ttl = ttl
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False
        self._scanner = ResponseScanner(bool(client.session.profile.capabilities & Cap.DEPRECATE_EOF))
        self._scanner.start(QUERY)
        self._put(self)

    def _put(self, transport: Any) -> None:
        client: Any = self._client
        client.transport = transport

    def write(self, data: bytes) -> None:
        self._below.write(data)
        if self._ended:
            return
        self._put(self)  # what is below may have taken itself away
        if self._lease is not None:
            self._size += len(data)
            if self._size > self._answers.settings.biggest:
                self._answers.counts["too big"] += 1
                self._give_back()
            else:
                self._chunks.append(data)
        end = self._scanner.scan(data, 0)
        if end < 0:
            return
        scanner = self._scanner
        if self._lease is not None and end == len(data) and scanner.outcome == ROWS and not scanner.warnings:
            self._answers.fill(self._lease, b"".join(self._chunks), self._ttl)
            self._lease = None
        self._give_back()
        self._ended = True
        self._put(self._below)

    def _give_back(self) -> None:
        lease, self._lease = self._lease, None
        self._chunks.clear()
        if lease is not None:
            self._answers.give_back(lease)

    def close(self) -> None:
        self._give_back()
        self._below.close()

    def abort(self) -> None:
        self._give_back()
        self._below.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)
