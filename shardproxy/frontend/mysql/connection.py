"""A logged-in MySQL client: bytes to commands, answers back, flow control both ways.

Rules of this file: one command at a time; bytes that arrive meanwhile wait in a bounded buffer; what a command does
is the pipeline's business. `data_received` and `response_end` are on the path of every query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.backend.gateway import Gateway
from shardproxy.backend.tls import Transport
from shardproxy.errors import BackendLost, ShardproxyError, SqlError
from shardproxy.executor import diagnostics, user_variables
from shardproxy.executor.fence import read_moved
from shardproxy.executor.numbers import Numbered, NumberedAnswer
from shardproxy.executor.transaction import ROLLED_BACK, Transaction, roll_back_all
from shardproxy.frontend.mysql.front import Front, Rights, check_rights, check_schema
from shardproxy.frontend.mysql.pipeline import command, execute, query, redo
from shardproxy.planner.cache import CachedPlan, Space, SpaceKey
from shardproxy.planner.plan import InsertId, Opcode, PinReason, Plan, Rung
from shardproxy.planner.statement import plan_statement
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_err, build_ok, parse_err
from shardproxy.protocol.mysql.response import ERR, IN_TRANS, OK, ROWS
from shardproxy.router.moving import Touch
from shardproxy.session.profile import Profile
from shardproxy.session.session import PreparedStatement, Session
from shardproxy.sql.digest import scan
from shardproxy.topology.model import Snapshot

if TYPE_CHECKING:
    from shardproxy.frontend.mysql.strict import StrictSession

READ_AHEAD = 64 * 1024  # bytes of later commands that a client may send while one is under way
AUTOCOMMIT = 2


class ClientConnection(Sink):
    """Implements executor.client.Client; an asyncio protocol by its methods.

    wire: the command under way, when it is a read that could be sent again.
    """

    __slots__ = (
        "_reading_paused", "_stepping", "_task", "_writable", "_write_paused", "buffer", "busy", "capabilities",
        "closing", "crossing", "entry", "front", "gateway", "held", "host", "map", "numbered", "plans",
        "read_ended", "redone", "relayed", "rights", "seq", "session", "source", "spanning", "started", "strict",
        "touching", "transport", "waited", "waiting", "wire", "working",
    )  # fmt: skip

    def __init__(
        self, front: Front, transport: Transport, session: Session, rights: Rights, capabilities: int, host: str
    ) -> None:
        self.front = front
        self.transport = transport
        self.session = session
        self.rights = rights
        self.capabilities = capabilities
        self.gateway: Gateway = front.gateway
        self.map: Snapshot = front.gateway.snapshot  # under which the statement under way was planned
        self.crossing: tuple[Touch, ...] = ()  # moves whose fence it needs
        self.touching = -1.0  # the last command that had to do with moving keys
        self.waiting: asyncio.Future[None] | None = None  # it waits for a newer map
        self.waited = (0.0, 0.0)  # the last command that did, and since when
        self.plans: Space = front.plans.space(self._space())
        self.buffer: bytearray | None = None
        self.busy = False
        self.closing = False
        self.held: BackendConnection | None = None
        self.spanning: Transaction | None = None  # what `held` is in, once it is on several shards
        self.source: BackendConnection | None = None  # whose answer is being relayed
        self.working: list[BackendConnection] = []  # other connections that the command under way runs on
        self.relayed = False  # some of the answer has gone to the client
        self.seq = 1  # sequence id of the answer's first packet
        self.started = 0.0
        self.read_ended = -1.0  # the command that was ended because keys have moved
        self.entry: CachedPlan | None = None  # plan of the statement under way
        self.host = host
        self.wire: bytes | None = None
        self.redone: bytes | None = None  # the command that is being sent again: once, and to the primary
        self.numbered: Numbered | None = None  # numbers that the statement under way has got
        self.strict: StrictSession | None = None if front.strict is None else front.strict(self)
        self._reading_paused = False
        self._stepping = False  # `_next` is at work further up: a client that pipelines nests no calls
        self._write_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        front.clients[session.ident] = self
        self._count_user(1)

    def become(self, session: Session, rights: Rights) -> None:
        """Another user on the same connection (COM_CHANGE_USER): nothing of the old session stays."""
        if self.held is not None:
            self.let_go()
        self._count_user(-1)
        self.session = session
        self.rights = rights
        self._count_user(1)
        self.refresh_plans()

    def _count_user(self, by: int) -> None:
        per_user, user = self.front.per_user, self.session.user
        count = per_user.get(user, 0) + by
        if count > 0:
            per_user[user] = count
        else:
            per_user.pop(user, None)

    # ── from the client ──

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if (
            not self.busy
            and self.buffer is None
            and size > 4
            and (data[0] | data[1] << 8 | data[2] << 16) + 4 == size
            and data[3] == 0
        ):
            self.busy = True
            self.seq = 1
            code = data[4]
            if code == 3:
                query(self, data)
            elif code == 0x17:
                execute(self, data)
            else:
                command(self, data)
            return
        if self.closing:
            return
        if self.buffer is None:
            self.buffer = bytearray(data)
        else:
            self.buffer += data
        if not self.busy:
            self._next()
        elif len(self.buffer) > READ_AHEAD and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _next(self) -> None:
        """Run the commands that the buffer holds whole, as long as each ends at once."""
        if self._stepping:
            return
        self._stepping = True
        while not self.busy and not self._write_paused and self.buffer is not None and not self.closing:
            wire = self._take_command()
            if wire is None:
                break
            self.busy = True
            code = wire[4] if len(wire) > 4 else -1
            if code == 3:
                query(self, wire)
            elif code == 0x17:
                execute(self, wire)
            else:
                command(self, wire)
        self._stepping = False
        if self._reading_paused and (self.buffer is None or not self.busy):
            self._read_on()

    def _take_command(self) -> bytes | None:
        """The first whole command in the buffer, as wire bytes; None while it is incomplete."""
        buffer = self.buffer
        assert buffer is not None
        pos = seq = 0
        while True:
            if len(buffer) < pos + 4:
                return None
            length = buffer[pos] | buffer[pos + 1] << 8 | buffer[pos + 2] << 16
            if buffer[pos + 3] != seq & 0xFF:
                self._break_off(SqlError("Got packets out of order", 1156, "08S01"), seq)
                return None
            pos += 4 + length
            if pos > self.front.limits.max_packet:
                self._break_off(SqlError("Got a packet bigger than 'max_allowed_packet' bytes", 1153, "08S01"), seq)
                return None
            seq += 1
            if length < 0xFFFFFF:
                break
        if len(buffer) < pos:
            return None
        wire = bytes(buffer[:pos])
        if len(buffer) == pos:
            self.buffer = None
        else:
            del buffer[:pos]
        self.seq = seq
        return wire

    def _break_off(self, error: SqlError, seq: int) -> None:
        """The client's byte stream can no longer be followed: say why, and close."""
        self.count_error(error.code)
        self.transport.write(packet(build_err(error.code, error.sqlstate, str(error)), seq + 1))
        self.close()

    def pause_writing(self) -> None:
        """The client does not read its answers: until it does, neither its server's bytes nor its commands are read."""
        self._write_paused = True
        source = self.source
        if source is not None and not source.shared and not source.closed:
            source.transport.pause_reading()
        if not self._reading_paused and not self.closing:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        source = self.source
        if source is not None and not source.closed and not source.shared:
            source.transport.resume_reading()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self.busy:
            if self.buffer is not None:
                self._next()
            else:
                self._read_on()
        elif self.buffer is None or len(self.buffer) <= READ_AHEAD:
            self._read_on()

    def _read_on(self) -> None:
        if self._reading_paused and not self._write_paused and not self.closing:
            self._reading_paused = False
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """The client has said all it will say; it gets no more answers, as from a server."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        front = self.front
        if front.clients.pop(self.session.ident, None) is not None:
            self._count_user(-1)
        if self._task is not None:
            self._task.cancel()
        source, self.source = self.source, None
        if source is not None and not source.shared:
            # Its answer is still under way and nobody reads it: end the statement on the server, not only our side.
            source.pool.abandon(source)
        if self.held is not None:
            self.let_go()

    # ── answers of servers (executor's Sink) ──

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        if self.source is connection:
            self.relayed = True
            self.transport.write(data)
            if self._write_paused and not connection.shared:
                connection.transport.pause_reading()

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        if self.source is not connection:
            return  # the client has gone; a shared connection's answer is dropped
        # First of all: a write that fills the client's buffer pauses the source, and this one goes back to its pool.
        self.source = None
        if self._write_paused and not connection.shared:
            connection.transport.resume_reading()
        self.transport.write(data)
        scanner = connection.scanner
        session = self.session
        outcome = scanner.outcome
        if not session.conditions or outcome == ERR or scanner.warnings or not self._keeps_conditions():
            session.conditions = None
            session.warnings = scanner.warnings
        if outcome == ROWS:
            session.affected = -1
        elif outcome == ERR:
            session.affected = -1
            self.count_error(scanner.error_code)
        else:
            session.affected = scanner.affected
        entry = self.entry
        ended = asks = False
        if entry is not None:
            # An INSERT that fails may have counted. Only the server knows, and tells, what a pinned session has.
            asks = entry.asks and (entry.asks_pinned or not session.pins)
            if outcome == OK:
                ended = entry.ends
                if scanner.insert_id and entry.reports:
                    session.insert_id = scanner.insert_id
            entry.latencies.append(connection.read_at() - self.started)
            self.entry = None
        self.wire = self.redone = None
        if asks:
            assert entry is not None
            self.run(self._settle(connection, outcome, entry.plan))
            return
        if connection is self.held:
            if self.spanning is not None:
                self.spanning.last = connection
            if not session.pins and (outcome == ERR or not scanner.status & IN_TRANS):
                if outcome == ERR or session.warnings or self.spanning is not None:
                    self.run(self._settle(connection, outcome, None))
                    return
                self._end_transaction()
                connection.pool.give_back(connection, ended)
        elif self.spanning is not None:
            self.spanning.last = connection
            if outcome == ERR:
                self.run(self._settle(connection, outcome, None))
                return
        elif connection.shared:
            if outcome == ERR:
                err = parse_err(scanner.error)
                session.conditions = [(b"Error", b"%d" % err.code, err.text.encode())]
        elif outcome == ERR or scanner.warnings:
            self.run(self._settle(connection, outcome, None))
            return
        elif scanner.status & IN_TRANS:
            connection.pool.release(connection)
        else:
            connection.pool.checkin(connection)
        self.busy = False
        if self.buffer is not None:
            self._next()

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        if connection is self.held or (self.spanning is not None and self.spanning.has(connection)):
            # The transaction, or what the session had pinned, is gone. A client that went on would not know: its next
            # statements would run outside the transaction. So the session ends, as it does when a server dies. At once:
            # what is on its way to another server (it may have had no turn yet) would take itself for outside, too.
            told = self.source is connection or (self.busy and self.source is None)
            self.busy = True
            if self._task is not None:
                self._task.cancel()
            if connection is self.held:
                self.forget_held()
            else:
                self.let_go()
            if told and not self.relayed:
                self.count_error(error.code)
                self.transport.write(packet(build_err(error.code, error.sqlstate, str(error)), self.seq))
            self.source = None
            self.close()
            return
        if self.source is not connection:
            return
        self.source = None
        if self.relayed:
            self.abort()
        elif not self.redo():
            self.error(error)

    def redo(self) -> bool:
        """Send the read under way again, on a connection of its own."""
        wire = self.wire
        if wire is None:
            return False
        self.wire = self.source = None
        self.redone = wire
        self.busy = True
        redo(self, wire)
        return True

    def unwanted(self) -> bool:
        return self.closing

    def _end_transaction(self) -> None:
        """The held connection has no transaction any more and is nobody's."""
        session = self.session
        if self.held is not None:
            self.held.holder = None
        self.held = None
        session.shard = -1
        session.refresh()

    async def _settle(self, connection: BackendConnection, outcome: int, asked: Plan | None) -> None:
        """Ask for what the last statement left on its connection before that goes to somebody else: its conditions,
        and where there is a plan, `asked`: FOUND_ROWS(), user variables, or else LAST_INSERT_ID(). The client has its
        answer already.

        An ERR does not say whether the transaction still is (a deadlock has ended it); the answers to these do.
        """
        session = self.session
        error = None
        found = -1
        if outcome == ERR:
            err = parse_err(connection.scanner.error)
            error = (err.code, err.text)
        try:
            conditions: list[diagnostics.Condition] = []
            if outcome == ERR or session.warnings:
                conditions = await diagnostics.fetch(connection, error)
            if outcome == ERR:
                session.warnings = len(conditions)  # an ERR carries no count
            if asked is not None and asked.found_rows and outcome != ERR:
                found = await diagnostics.found_rows(connection)
            if asked is not None and asked.assigns:
                await user_variables.carry(self, connection, asked.assigns)
            elif asked is not None and not asked.found_rows:
                session.insert_id = await diagnostics.insert_id(connection)
        except (ShardproxyError, OSError):
            connection.close()
            self.abort()  # what LAST_INSERT_ID() is now, nobody knows
            return
        except BaseException:
            connection.close()
            raise
        session.conditions = conditions
        if found >= 0:
            session.find(found)
        if self.spanning is not None:
            lost = connection is self.held and not connection.scanner.status & IN_TRANS
            if lost or (error is not None and error[0] in ROLLED_BACK):
                await roll_back_all(self)
            self.finish()
            return
        if connection is self.held:
            if session.pins or connection.scanner.status & IN_TRANS:
                self.finish()
                return
            self._end_transaction()
        connection.pool.give_back(connection)
        self.finish()

    # ── for the executor ──

    def write(self, data: bytes) -> None:
        if data:
            self.relayed = True
            self.transport.write(data)

    async def drained(self) -> None:
        if self._write_paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def relay_from(self, connection: BackendConnection, wire: bytes, shard: int) -> None:
        self.source = connection
        self.relayed = False
        if self.entry is not None:
            self.entry.series[connection.pool.slot] += 1
        numbered = self.numbered
        connection.send(wire, self if numbered is None else NumberedAnswer(self, numbered))

    def keep_insert_id(self) -> None:
        entry = self.entry
        if entry is not None and entry.plan.insert_id is not InsertId.KEPT:
            kept = CachedPlan(replace(entry.plan, insert_id=InsertId.KEPT), entry.series, entry.latencies)
            self.entry = kept

    def hold(self, connection: BackendConnection, shard: int, pins: tuple[PinReason, ...] = ()) -> None:
        session = self.session
        if self.held is None:
            session.hold(shard, self.map, self.gateway.snapshot)
        self.held = connection
        connection.holder = self
        session.shard = shard
        if pins:
            connection.tainted = True
            for reason in pins:
                if reason not in session.pins:
                    self.front.counters.add("shardproxy_pins_total", (reason.value,))
            session.pin(pins)
        session.refresh()

    def let_go(self) -> None:
        connection = self.held
        self.forget_held()
        if connection is not None:
            connection.pool.release(connection)

    def forget_held(self) -> None:
        spanning, self.spanning = self.spanning, None
        if spanning is not None:
            spanning.drop()
        if self.held is not None:
            self.held.holder = None
        self.held = None
        session = self.session
        session.shard = -1
        session.pins = ()
        session.refresh()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the rest of a command as a task. Nothing that goes wrong in it leaves the client without an answer."""
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._task = task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except SqlError as error:
            self.error(error)
        except (ShardproxyError, OSError) as error:
            self.error(SqlError(str(error)))
        except Exception as error:
            self.front.report_defect(error)
            self.error(SqlError(f"internal error of shardproxy: {type(error).__name__}; it has been logged"))

    def error(self, error: SqlError, conditions: list[diagnostics.Condition] | None = None) -> None:
        if not self.busy:
            return
        if error.code == 1317 and self.read_ended == self.started:
            error = read_moved()
        self.count_error(error.code)
        session = self.session
        session.affected = -1
        text = str(error)
        session.conditions = conditions or [(b"Error", b"%d" % error.code, text.encode("utf-8", "replace"))]
        session.warnings = len(session.conditions)
        if self.relayed:
            self.abort()
            return
        self.transport.write(packet(build_err(error.code, error.sqlstate, text), self.seq))
        self.finish()

    def ok(
        self,
        affected: int = 0,
        insert_id: int = 0,
        warnings: int = 0,
        info: bytes = b"",
        conditions: list[diagnostics.Condition] | None = None,
    ) -> None:
        session = self.session
        session.affected = affected
        numbered = self.numbered
        if numbered is not None:
            first = numbered.reported(affected, insert_id)
            if first > 0:
                insert_id = session.insert_id = first
        if warnings or not self._keeps_conditions():
            session.warnings = warnings
            session.conditions = conditions or []
        self.transport.write(packet(build_ok(affected, insert_id, self.status(), warnings, info), self.seq))
        self.finish()

    def _keeps_conditions(self) -> bool:
        """Whether the statement under way leaves SHOW WARNINGS as it was: on MariaDB one without tables does."""
        return self.mariadb and (self.entry is None or self.entry.plan.opcode is Opcode.NONE)

    def status(self) -> int:
        """Server status flags for answers that the proxy makes itself."""
        session = self.session
        # With autocommit off, a savepoint alone does not begin a transaction.
        begin = session.begin
        in_transaction = begin is not None and (session.autocommit or begin[0].lstrip()[:9].upper() != b"SAVEPOINT")
        if self.held is not None:
            in_transaction = in_transaction or not session.pins or bool(self.held.scanner.status & IN_TRANS)
        return (AUTOCOMMIT if session.autocommit else 0) | (IN_TRANS if in_transaction else 0)

    def finish(self) -> None:
        self.wire = self.redone = None
        self.numbered = None
        if self.entry is not None:
            self.entry.latencies.append(perf_counter() - self.started)
            self.entry = None
        self.source = None
        self.working = []
        self.relayed = False
        self.busy = False
        if self.buffer is not None:
            self._next()
        elif self._reading_paused:
            self._read_on()

    def count_error(self, code: int) -> None:
        self.front.counters.add("shardproxy_errors_total", (str(code),))

    # ── plans and rights ──

    @property
    def mariadb(self) -> bool:
        return self.front.plans.context.mariadb

    @property
    def may_write(self) -> bool:
        return not self.rights.read_only

    @property
    def plan_version(self) -> int:
        return self.front.plans.version

    @property
    def known_profiles(self) -> dict[tuple[Profile, bytes], Profile]:
        return self.front.profiles

    def plan(self, digest: bytes, sql: bytes) -> CachedPlan:
        """The plan of a digest: kept, or made now."""
        entry = self.plans.get(digest)
        if entry is None:
            entry = self.front.plans.plan(plan_statement, self._space(), digest, sql)
        return entry

    def plan_again(self, statement: PreparedStatement) -> CachedPlan:
        """The plan of a prepared statement after a new map or catalog, its text read as it was at PREPARE."""
        space = (statement.profile.schema, statement.modes, self.rights.keyspaces)
        digest = scan(statement.text, statement.modes)[0]
        plans = self.front.plans
        return plans.space(space).get(digest) or plans.plan(plan_statement, space, digest, statement.text)

    def _space(self) -> SpaceKey:
        return (self.session.profile.schema, self.session.modes, self.rights.keyspaces)

    def check(self, plan: Plan) -> None:
        """Raise what the plan or the user's rights forbid."""
        if plan.rung is Rung.ERROR:
            raise SqlError(plan.error, plan.error_code)
        check_rights(self.rights, plan, self.session.user)

    def adopt(self, profile: Profile) -> None:
        self.session.use_profile(profile)
        self.refresh_plans()

    def refresh_plans(self) -> None:
        """The session reads texts differently from now on (schema, sql_mode)."""
        self.plans = self.front.plans.space(self._space())

    def check_schema(self, schema: str) -> None:
        check_schema(self.front, self.rights, schema, self.session.user, self.host)

    async def kill(self, ident: int, query_only: bool) -> bool:
        return await self.front.kill(ident, query_only, self.session.user)

    async def schema_changed(self) -> None:
        await self.front.neighbours.schema_changed()

    # ── the end ──

    def close(self) -> None:
        """Close after what is written has gone out."""
        self.closing = True
        self.transport.close()

    def abort(self) -> None:
        self.closing = True
        self.transport.abort()
