"""A write of one shard and no transaction, while keys of it move: in a transaction of its own, behind the fence.

Two round trips: BEGIN and the fence's row; when its answer has been read, the statement, SHOW WARNINGS and COMMIT. The
client is told what the statement's own answer says. What must be asked of the connection before anybody else gets it
(LAST_INSERT_ID(), user variables, which numbers were stored) is asked before COMMIT, which is sent alone then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.backend.connection import BackendConnection, Collector, Reply
from shardproxy.errors import BackendError, MovingError, SqlError
from shardproxy.executor import diagnostics, fence, numbers, single, transaction, user_variables
from shardproxy.executor.client import Client
from shardproxy.executor.diagnostics import Condition
from shardproxy.executor.everywhere import count
from shardproxy.executor.fence import Mode
from shardproxy.executor.prepared import first_packet
from shardproxy.executor.request import Request
from shardproxy.merge.concat import Concatenation
from shardproxy.planner.plan import InsertId, PinReason, StatementKind
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import parse_ok
from shardproxy.protocol.mysql.response import IN_TRANS, OK, QUERY
from shardproxy.protocol.mysql.resultset import parse_resultset

_BEGIN = b"START TRANSACTION"
# What a transaction of our own around it changes nothing for.
_ROWS = frozenset((
    StatementKind.SELECT, StatementKind.INSERT, StatementKind.REPLACE, StatementKind.UPDATE, StatementKind.DELETE,
    StatementKind.DO,
))  # fmt: skip


def alone(client: Client) -> bool:
    """Whether the next statement is a transaction by itself."""
    session, held = client.session, client.held
    if not session.autocommit or session.begin is not None or client.spanning is not None:
        return False
    return held is None or not held.scanner.status & IN_TRANS


def check_kind(request: Request) -> None:
    """Raise MovingError for a statement that cannot be put behind a fence."""
    client, plan = request.client, request.plan
    if plan.kind not in _ROWS:
        raise MovingError(f"{plan.kind.value} cannot run while {_named(client)}: try again later")
    if PinReason.LOCK_TABLES in client.session.pins:
        raise MovingError(f"a session that has locked tables cannot write while {_named(client)}: UNLOCK TABLES")


def _named(client: Client) -> str:
    touch = client.crossing[0]
    return f"it may reach {fence.moving_keys(touch.keyspace, touch.move)}"


async def one(request: Request, shard: int) -> None:
    """The whole command. Raises SqlError; then nothing has changed."""
    client, plan, session = request.client, request.plan, request.client.session
    first: tuple[bytes, ...] = ()
    if session.next_transaction and client.held is None:
        first, session.next_transaction = session.next_transaction, ()
        session.refresh()
    if client.held is not None or plan.pins:
        if client.held is not None and session.shard != shard:
            transaction.check_pins(client, shard)
        crossing, client.crossing = client.crossing, ()
        try:
            connection = await single.take(client, plan, shard, False)
        finally:
            client.crossing = crossing
    else:
        connection = await single.checkout(client, shard, False)
    kept = connection is client.held
    client.working = [connection]
    try:
        if plan.needs_insert_id and not session.pins:
            await single.expect_ok(connection, b"SET @@SESSION.last_insert_id=%d" % session.insert_id)
        await _begin(client, connection, shard, first)
        answer = _Answer(request, connection)
        await answer.run()
    except BaseException as error:
        if isinstance(error, MovingError):
            session.next_transaction = first
            session.refresh()
        if not kept:
            connection.pool.release(connection)
        elif not connection.sinks and not connection.closed:
            await connection.query(b"ROLLBACK")
        raise
    client.working = []
    if not kept:
        connection.pool.give_back(connection, True)
    answer.tell()


async def _begin(client: Client, connection: BackendConnection, shard: int, first: Sequence[bytes]) -> None:
    """Begin, and read the fence; tests see what happens when its answer is not read. Raises SqlError."""
    if first:
        connection.tainted = True  # until the transaction has used it up
    fences = fence.texts(client.crossing, shard)
    replies = await connection.queries([*first, _BEGIN, *(text for _, _, text in fences)])
    for reply in replies[: len(first) + 1]:
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    if first:
        connection.tainted = False
    if fence.mode is Mode.BLIND:
        return
    for (keyspace, move, _), reply in zip(fences, replies[len(first) + 1 :], strict=True):
        if reply.failed:
            raise fence.unreadable(reply.error_message, reply.error_code, reply.sqlstate)
        fence.check(keyspace, move, parse_resultset(reply.data, connection.scanner.deprecate_eof).rows)


class _Answer:
    """The statement's run, and what the client is told when it is committed."""

    def __init__(self, request: Request, connection: BackendConnection) -> None:
        self.request = request
        self.connection = connection
        self.deprecate_eof = bool(connection.scanner.deprecate_eof)
        self.reply: Reply
        self.conditions: list[Condition] = []
        self.insert_id = -1  # as asked
        self.found = -1
        self.first_number = 0  # of a numbered statement, as asked

    async def run(self) -> None:
        """Run and commit it. Raises SqlError when it could not be committed, or nobody knows; an error of the statement
        itself is its answer."""
        request, connection = self.request, self.connection
        client, plan = request.client, request.plan
        numbered = client.numbered
        count(client, connection)
        wire = await request.wire_for(connection)
        if numbered is None and not plan.found_rows and not plan.assigns and plan.insert_id is not InsertId.ASKED:
            self.reply, warnings, commit = await _together(
                connection, (wire, packet(b"\x03SHOW WARNINGS", 0), packet(b"\x03COMMIT", 0))
            )
            if not warnings.failed and (self.reply.failed or self.reply.warnings):
                self.conditions = diagnostics.conditions(warnings, self.deprecate_eof, self._error())
        else:
            self.reply = (await _together(connection, (wire,)))[0]
            if self.reply.failed or self.reply.warnings:
                self.conditions = await diagnostics.fetch(connection, self._error())
            await self._ask(numbered)
            commit = await connection.query(b"ROLLBACK" if self.reply.failed else b"COMMIT")
        if commit.failed and not self.reply.failed:
            connection.close()
            raise SqlError(commit.error_message, commit.error_code, commit.sqlstate)

    def _error(self) -> tuple[int, str] | None:
        reply = self.reply
        return (reply.error_code, reply.error_message) if reply.failed else None

    async def _ask(self, numbered: numbers.Numbered | None) -> None:
        plan, connection, client = self.request.plan, self.connection, self.request.client
        reply = self.reply
        if plan.found_rows and not reply.failed:
            self.found = await diagnostics.found_rows(connection)
        if plan.assigns:
            await user_variables.carry(client, connection, plan.assigns)
        elif plan.insert_id is InsertId.ASKED and not plan.found_rows:
            self.insert_id = await diagnostics.insert_id(connection)
        if numbered is None or reply.outcome != OK:
            return
        if numbered.reported(reply.affected, reply.insert_id) == numbers.UNKNOWN:
            self.first_number = await numbers.first_stored(numbered, connection)
            if not self.first_number and numbered.sequence.updates:
                self.insert_id = await diagnostics.insert_id(connection)

    def tell(self) -> None:
        """Tell the client; all is committed."""
        client, plan, reply = self.request.client, self.request.plan, self.reply
        session = client.session
        numbered = client.numbered
        if self.insert_id >= 0:
            session.insert_id = self.insert_id
        if reply.failed:
            client.error(SqlError(reply.error_message, reply.error_code, reply.sqlstate), self.conditions)
            return
        if reply.outcome == OK:
            ok = parse_ok(first_packet(reply.data), session_track=False)
            insert_id = ok.insert_id
            if self.first_number:
                insert_id = session.insert_id = self.first_number
            elif insert_id and numbered is None and plan.insert_id is InsertId.REPORTED:
                session.insert_id = insert_id
            client.ok(ok.affected, insert_id, ok.warnings, ok.info, self.conditions)
            return
        if numbered is not None:  # RETURNING: every row was stored, or the statement had failed
            session.insert_id = numbered.made[0]
        out = Concatenation(self.deprecate_eof)
        client.write(out.feed(reply.data))
        out.next_part()
        out.status = (out.status & ~IN_TRANS) | (client.status() & IN_TRANS)
        client.write(out.end())
        session.affected = -1
        session.warnings = reply.warnings
        session.conditions = self.conditions
        if self.found >= 0:
            session.find(self.found)
        client.finish()


async def _together(connection: BackendConnection, wires: Sequence[bytes]) -> list[Reply]:
    """Several commands at once, and their answers. Raises BackendLost."""
    loop = asyncio.get_running_loop()
    collectors = [Collector(loop, QUERY) for _ in wires]
    for wire, collector in zip(wires, collectors, strict=True):
        connection.send(wire, collector)
    try:
        return list(await asyncio.gather(*(collector.future for collector in collectors)))
    except asyncio.CancelledError:
        connection.pool.abandon(connection)
        raise
