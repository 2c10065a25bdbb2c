"""A plain SELECT by a lookup index outside transactions: two point reads one after the other, without a task.

What it cannot do leaves nothing behind, and `lookups.run` does it: a connection that is not at hand, a value whose
weights are not known yet, a server that is lost, and an answer without a row although there is an entry.
"""

from __future__ import annotations

from collections.abc import Callable

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendLost
from shardproxy.executor import single
from shardproxy.executor.request import Request
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_plan import Index, LookedUp
from shardproxy.planner.plan import Plan, Spread, StatementKind
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.response import IN_TRANS, ROWS
from shardproxy.protocol.mysql.text import parse_text_row
from shardproxy.router.route import route
from shardproxy.topology.lookup import home
from shardproxy.topology.model import Keyspace

Else = Callable[[int], None]  # does it the long way, from this attempt on


def serves(plan: Plan) -> bool:
    """Whether a statement of this plan is such a SELECT, of one value."""
    return (
        plan.read
        and plan.kind is StatementKind.SELECT
        and shows_rows(plan)
        and len(plan.groups) == 1
        and isinstance(plan.groups[0].condition, LookedUp)
        and len(plan.groups[0].condition.values) == 1
        and plan.text is None
        and not (plan.locks or plan.snapshot or plan.pins or plan.found_rows or plan.assigns or plan.needs_insert_id)
    )


def shows_rows(plan: Plan) -> bool:
    """Whether an answer of one shard has rows if and only if there are some: an aggregate has one even so."""
    return plan.spread is Spread.CONCAT or (
        plan.spread is Spread.MERGE and plan.merge is not None and plan.merge.groups is None
    )


def keyspace_of(plan: Plan, index: Index) -> Keyspace:
    """The keyspace of an index as the plan knows it: a statement goes by one map from its first read to its last, for
    which of its rows a shard hides goes by the same."""
    return next(group.keyspace for group in plan.groups if group.keyspace.name == index.schema)


def begin(request: Request, value: bytes, otherwise: Else) -> bool:
    """Ask for the entry of this value; the rest follows by itself. False: nothing has been done."""
    client = request.client
    [looked] = request.plan.lookups
    keyspace = keyspace_of(request.plan, looked.index)
    pool = client.gateway.shards[home(keyspace, value)].primary
    connection = pool.share(client.session.profile) or pool.checkout_now(client.session.profile)
    if connection is None:
        return False
    client.source = connection
    client.relayed = False
    wire = packet(b"\x03" + lookup_text.entry_read(looked.index, value), 0)
    connection.send(wire, _Entry(request, connection, otherwise))
    return True


def first_row(data: bytes, deprecate_eof: bool) -> int:
    """Where the first packet behind the column definitions begins in a result set; −1 when that is not all there."""
    if len(data) < 7 or data[4] in (0xFB, 0xFD, 0xFE, 0xFF):
        return -1
    left = 1 + (data[4] if data[4] < 0xFB else data[5] | data[6] << 8) + (not deprecate_eof)
    at = 0
    while left and at + 4 <= len(data):
        at += 4 + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
        left -= 1
    return at if not left and at + 5 <= len(data) else -1


def is_row(data: bytes, at: int, deprecate_eof: bool) -> bool:
    """Whether the packet there is a row, and not the end of rows."""
    length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
    return data[at + 4] != 0xFF and (data[at + 4] != 0xFE or length >= (0xFFFFFF if deprecate_eof else 9))


class _Reading(Sink):
    """A part of it that is under way. The client's `source` is the connection, as if the answer were relayed: so it is
    ended with the client, and by KILL."""

    def __init__(self, request: Request, connection: BackendConnection, otherwise: Else) -> None:
        self.request = request
        self.connection = connection
        self.otherwise = otherwise

    def unwanted(self) -> bool:
        return self.request.client.source is not self.connection

    def redo(self) -> bool:
        if self.unwanted():
            return False
        self.request.client.source = None
        self.otherwise(0)
        return True

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        self.redo()

    def give_back(self) -> None:
        """The answer is whole, and has not been relayed."""
        connection = self.connection
        self.request.client.source = None
        if connection.shared:
            return
        connection.transport.resume_reading()  # the client may have stopped it
        if connection.scanner.status & IN_TRANS:
            connection.pool.release(connection)
        else:
            connection.pool.checkin(connection)


class _Entry(_Reading):
    """The entry. `held`: what has come of it."""

    held = b""

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        self.held += data

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        if self.unwanted():
            return
        data = self.held + data
        deprecate_eof = bool(connection.scanner.deprecate_eof)
        at = first_row(data, deprecate_eof) if connection.scanner.outcome == ROWS else -1
        self.give_back()
        if at < 0:
            self.otherwise(0)
            return
        try:
            key = None
            if is_row(data, at, deprecate_eof):
                end = at + 4 + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
                key = parse_text_row(data[at + 4 : end], 2)[0]
            if self._read_row(key):
                return
        except Exception:  # noqa: S110 — whatever it is, the long way meets it too, and tells the client
            pass
        self.otherwise(0)

    def _read_row(self, key: bytes | None) -> bool:
        """Send the statement to the row's shard; to any one when there is no entry. False: not this time."""
        request = self.request
        client, plan = request.client, request.plan
        [looked] = plan.lookups
        snapshot = client.map
        shards: frozenset[int] = frozenset()
        if key is not None:
            keyspace = keyspace_of(plan, looked.index)
            shards = frozenset((keyspace.map.lookup(lookup_text.key_of(looked.index, key)),))
        found = route(plan, request.read, snapshot, -1, {looked: shards})
        [shard] = found.shards
        pool = single.choose_pool(client, shard, found.replica)
        connection = (pool.share(client.session.profile) if plan.point else None) or pool.checkout_now(
            client.session.profile
        )
        if connection is None:
            return False
        wire = None
        try:
            wire = request.wire if request.execution is None else request.execution.wire_now(connection)
        finally:
            if wire is None and not connection.shared:
                pool.checkin(connection)
        if wire is None:
            return False
        client.source = connection
        if client.entry is not None:
            client.entry.series[pool.slot] += 1
        connection.send(wire, _Row(request, connection, self.otherwise, key is not None))
        return True


class _Row(_Reading):
    """The statement itself. Its answer is held back until a row has come. expected: there is an entry."""

    held = b""

    def __init__(self, request: Request, connection: BackendConnection, otherwise: Else, expected: bool) -> None:
        super().__init__(request, connection, otherwise)
        self.passing = not expected

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        if not self.passing:
            data = self.held = self.held + data
            self.passing = _has_row(data, connection)
        if self.passing:
            self.request.client.response_chunk(data, connection)

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        if self.unwanted():
            return
        if not self.passing:
            data = self.held + data
            if connection.scanner.outcome == ROWS and not _has_row(data, connection):
                self.give_back()
                self.otherwise(1)
                return
        self.request.client.response_end(data, connection)

    def redo(self) -> bool:
        return not self.request.client.relayed and super().redo()

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        if not self.redo():
            self.request.client.response_lost(error, connection)


def _has_row(data: bytes, connection: BackendConnection) -> bool:
    """Whether the beginning of an answer shows that it has a row. (An ERR in place of definitions is none.)"""
    deprecate_eof = bool(connection.scanner.deprecate_eof)
    at = first_row(data, deprecate_eof)
    return at >= 0 and is_row(data, at, deprecate_eof)
