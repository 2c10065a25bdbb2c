"""Prepared statements: the client has one id for life, each server connection its own, made when first needed.

The parameters' types are bound by the client once and remembered by the server connection; a packet without types is
patched in place where the connection has the same types, else they are put in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, BackendLost, RemoteProtocolError, RouteError, SqlError, UnsupportedError
from shardproxy.executor import local_answers, scatter, single
from shardproxy.executor.client import Client
from shardproxy.executor.variants import plain, variant
from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.key_values import NULLVALUE, UNROUTABLE, NoValue, key_value, text_key
from shardproxy.planner.plan import Plan, StatementKind, Value
from shardproxy.protocol.mysql.binary import (
    ExecuteParameters,
    integer_parameter,
    parse_execute,
    rebuild_execute,
    select_parameters,
    without_values,
)
from shardproxy.protocol.mysql.commands import PrepareOk, StmtClose, StmtPrepare, StmtSendLongData
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.response import PREPARE
from shardproxy.router.route import ValueReader
from shardproxy.session.profile import read_as, statement_key, with_schema
from shardproxy.session.session import PreparedStatement
from shardproxy.sql.modes import SqlModes, poorer
from shardproxy.topology.keys import KeyType, KeyValue

PER_CONNECTION = 256  # server statements kept open on one connection
PER_CLIENT = 16_382  # MySQL's max_prepared_stmt_count, for one client
LONG_DATA_PIECE = 1 << 20
LARGE = 0x1000003  # bytes on the wire from which a command takes several packets
_NO_CURSOR = b"\0"
# Types of columns that are none of parameters: MariaDB takes NULL and reads the next parameter from the bytes of this
# one, MySQL calls the packet malformed.
_UNREADABLE = frozenset((
    FieldType.INT24, FieldType.YEAR, FieldType.NEWDATE, FieldType.BIT, FieldType.GEOMETRY,
))  # fmt: skip
_BYTES_TYPES = frozenset((FieldType.TINY_BLOB, FieldType.MEDIUM_BLOB, FieldType.LONG_BLOB, FieldType.BLOB))

# Statements about the session have no result and no parameters: prepared, they are kept here and run as text.
SESSION_KINDS = frozenset((
    StatementKind.BEGIN, StatementKind.COMMIT, StatementKind.ROLLBACK, StatementKind.SAVEPOINT, StatementKind.SET,
    StatementKind.SET_TRANSACTION, StatementKind.USE, StatementKind.DDL,
))  # fmt: skip
# They are about the session too, and have a result or a parameter.
UNPREPARED = frozenset((StatementKind.SHOW_WARNINGS, StatementKind.KILL, StatementKind.EXPLAIN_ROUTE))


@dataclass(slots=True)
class ServerStatement:
    """A statement prepared on one connection. types: as last bound there; response: bytes of the PREPARE answer."""

    ident: int
    ident_bytes: bytes
    params: int
    response: bytes
    types: bytes = b""


Describe = Callable[[PreparedStatement], Awaitable[ServerStatement]]

# ── PREPARE ──


async def prepare(
    client: Client, entry: CachedPlan, sql: bytes, literals: list[bytes], describe: Describe | None = None
) -> None:
    """COM_STMT_PREPARE: the client gets an id of ours and the server's own description of parameters and columns.

    describe: asks for the description where no one shard can give it.
    """
    session = client.session
    plan = entry.plan
    if session.statements is not None and len(session.statements) >= PER_CLIENT:
        raise SqlError(f"Can't create more than {PER_CLIENT} prepared statements on one connection", 1461, "42000")
    positions, count = parameter_numbers(literals)
    ident = session.next_statement_id()
    statement = PreparedStatement(
        ident, sql, entry, literals, positions, count, session.profile, session.modes, client.plan_version
    )
    if plan.kind in SESSION_KINDS:
        if count:
            raise UnsupportedError("this statement takes no parameters")
        statement.local = True
        session.add_statement(statement)
        client.write(packet(PrepareOk(ident, 0, 0).build(), client.seq))
        client.finish()
        return
    if plan.kind is StatementKind.EMPTY:
        raise SqlError("Query was empty", 1065)
    if plan.kind in UNPREPARED:
        raise UnsupportedError(f"{plan.kind.value} cannot be prepared: send it as text")
    if plan.local:
        session.add_statement(statement)
        client.write(local_answers.describe(client, plan, ident))
        client.finish()
        return
    server = await (describe(statement) if describe is not None else described(client, plan, statement))
    if server.params != count:
        raise UnsupportedError(
            f"the server sees {server.params} parameters and the proxy {count}: the statement cannot be routed"
        )
    session.add_statement(statement)
    head = packet(PrepareOk.parse(first_packet(server.response)).build(), client.seq)
    body = server.response[len(head) :]
    client.write(head[:5] + ident.to_bytes(4, "little") + head[9:] + body)
    client.finish()


async def described(client: Client, plan: Plan, statement: PreparedStatement) -> ServerStatement:
    """The statement as a shard that has its tables describes it. Raises the server's error."""
    if _held_can_describe(client, plan) and client.held is not None:
        return await ensure(client.held, statement)
    shard = _some_shard(client, plan)
    pool = single.choose_pool(client, shard, plan.read and not plan.primary)
    connection = await pool.checkout(client.session.profile)
    try:
        server = await ensure(connection, statement)
    except BaseException:
        connection.pool.release(connection)
        raise
    connection.pool.give_back(connection)
    return server


def joined(wire: bytes) -> bytes:
    """The payload of wire bytes that take several packets."""
    return PacketReader(len(wire)).feed(wire)[0][1]


def first_packet(data: bytes) -> bytes:
    """Payload of the first packet of wire bytes."""
    return data[4 : 4 + int.from_bytes(data[:3], "little")]


def parameter_numbers(literals: list[bytes]) -> tuple[list[int], int]:
    """For each literal its parameter number or −1, and how many parameters there are."""
    numbers = []
    count = 0
    for literal in literals:
        if literal == b"?":
            numbers.append(count)
            count += 1
        else:
            numbers.append(-1)
    return numbers, count


def homes_in_common(plan: Plan) -> set[int] | None:
    """The shards that have all of the statement's tables; None when it names no place at all."""
    groups = list(plan.groups)
    if plan.scratch is not None:
        groups += [group for copy in plan.scratch.copies for group in copy.groups]
    homes = [{group.shard} if group.shard is not None else set(group.keyspace.shards) for group in groups]
    if plan.keyspace is not None:
        homes.append(set(plan.keyspace.shards))
    return set.intersection(*homes) if homes else None


def _held_can_describe(client: Client, plan: Plan) -> bool:
    """Whether the held connection's shard has the statement's tables. It may be executed elsewhere later."""
    homes = homes_in_common(plan)
    return homes is None or client.session.shard in homes


def _some_shard(client: Client, plan: Plan) -> int:
    """A shard whose servers can describe the statement."""
    if plan.shard_hint is not None:
        return client.gateway.snapshot.shard_index(plan.shard_hint)
    homes = homes_in_common(plan)
    if homes:
        return min(homes)
    if plan.groups:
        first = plan.groups[0]
        return first.shard if first.shard is not None else first.keyspace.home
    return single.any_shard(client)


async def ensure(connection: BackendConnection, statement: PreparedStatement, variant: bytes = b"") -> ServerStatement:
    """The statement on this connection, prepared now if it is not yet, as it was meant when the client prepared it.

    variant: see executor.variants; b"" for a statement that has not been executed. Raises the server's error.
    """
    key = (statement.key, variant)
    found: ServerStatement | None = connection.statements.get(key)
    if found is None and variant:
        found = connection.statements.pop((statement.key, b""), None)
        if found is not None:
            connection.statements[key] = found
    if found is not None:
        return found
    profile = connection.profile
    await _switch(connection, read_as(profile, statement.profile))
    reply = await connection.command(StmtPrepare(statement.text).build(), PREPARE)
    await _switch(connection, profile if profile.schema is not None else with_schema(profile, statement.profile.schema))
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    ok = PrepareOk.parse(first_packet(reply.data))
    while len(connection.statements) >= PER_CONNECTION:
        oldest = next(iter(connection.statements))
        gone = connection.statements.pop(oldest)
        connection.say(packet(StmtClose(gone.ident).build(), 0))
    made = ServerStatement(ok.statement_id, ok.statement_id.to_bytes(4, "little"), ok.params, reply.data)
    connection.statements[key] = made
    return made


async def _switch(connection: BackendConnection, wanted: Any) -> None:
    failed = await connection.switch(wanted)
    if failed is not None:
        raise BackendError(failed.error_message, failed.error_code, failed.sqlstate)


# ── EXECUTE ──


def execute_now(client: Client, wire: bytes) -> bool:
    """The hot path of COM_STMT_EXECUTE: one integer key, a connection at hand that knows the statement. False: not
    this time; nothing has been done."""
    session = client.session
    statements = session.statements
    if statements is None or not session.simple or not 14 <= len(wire) < LARGE:
        return False
    statement = statements.get(int.from_bytes(wire[5:9], "little"))
    if statement is None or statement.long_data or statement.version != client.plan_version:
        return False
    entry = statement.entry
    index = entry.key_index
    if index < 0 or wire[9] or not (entry.read or client.may_write):
        return False
    number = statement.parameters[index]
    if number < 0:
        return False
    types_at = 14 + (statement.param_count + 7 >> 3)
    if types_at >= len(wire):
        return False
    bound = wire[types_at]
    if bound:
        types = wire[types_at + 1 : types_at + 1 + 2 * statement.param_count]
        if types != statement.types and not _UNREADABLE.isdisjoint(types[::2]):
            return False
    else:
        types = statement.types
    try:
        key = integer_parameter(wire[4:], statement.param_count, types, number)
        if key is None or entry.lookup is None:
            return False
        shard = entry.lookup(key)
    except (LookupError, RemoteProtocolError):
        return False
    if client.mariadb:
        key_there = statement.plain_key
    else:
        if types != statement.plain_key[1]:
            if not plain(types):
                return False
            statement.plain_key = (statement.key, types)
        if any(wire[14:types_at]):
            return False  # a NULL makes another variant
        key_there = statement.plain_key
    pools = client.gateway.shards[shard]
    pool = pools.reader() if entry.read and not session.reads_primary else pools.primary
    connection = (pool.share(session.profile) if entry.point else None) or pool.checkout_now(session.profile)
    if connection is None:
        if pool is not pools.primary:
            pools.unread()
        return False
    server = connection.statements.get(key_there)
    if server is None:
        if connection.shared:
            _prepare_shared(connection, statement, key_there[1])
        else:
            pool.checkin(connection)
        if pool is not pools.primary:
            pools.unread()
        return False
    if bound or server.types == types:
        ready = b"".join((wire[:5], server.ident_bytes, wire[9:]))
    else:
        ready = packet(rebuild_execute(wire[4:], server.ident, statement.param_count, types), 0)
    server.types = statement.types = types
    client.entry = entry
    client.wire = wire if entry.read else None
    client.relay_from(connection, ready, shard)
    load = client.gateway.load
    load.left -= 1
    if load.left < 0:
        load.note(entry.plan.groups[0].keyspace, key, not entry.read)
    return True


def _prepare_shared(connection: BackendConnection, statement: PreparedStatement, variant: bytes) -> None:
    """Let a shared connection learn the statement, for the next execution."""
    key = (statement.key, variant)
    if statement_key(connection.profile, statement.text) == statement.key and key not in connection.preparing:
        connection.preparing.add(key)
        connection.pool.in_background(_learn(connection, statement, variant))


async def _learn(connection: BackendConnection, statement: PreparedStatement, variant: bytes) -> None:
    try:
        await ensure(connection, statement, variant)
    except SqlError:
        pass  # the execution itself, on a connection of its own, tells the client
    finally:
        connection.preparing.discard((statement.key, variant))


def find(client: Client, wire: bytes) -> PreparedStatement:
    """The client's statement that a COM_STMT_… packet names. Raises SqlError 1243."""
    ident = int.from_bytes(wire[5:9], "little") if len(wire) >= 9 else 0
    statement = (client.session.statements or {}).get(ident)
    if statement is None:
        raise SqlError(f"Unknown prepared statement handler ({ident}) given to mysqld_stmt_execute", 1243, "HY000")
    return statement


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution that can be sent to any connection."""

    statement: PreparedStatement
    parameters: ExecuteParameters
    variant: bytes = b""

    async def prepare(self, connection: BackendConnection) -> ServerStatement:
        """The statement on this connection, of the execution's variant."""
        return await ensure(connection, self.statement, self.variant)

    async def wire_for(self, connection: BackendConnection) -> bytes:
        """Prepare it there if need be, send long data ahead, and give the packet to send."""
        parameters = self.parameters
        server = await self.prepare(connection)
        for index, value in parameters.long_data.items():
            for at in range(0, max(len(value), 1), LONG_DATA_PIECE):
                piece = StmtSendLongData(server.ident, index, value[at : at + LONG_DATA_PIECE])
                connection.say(packet(piece.build(), 0))
        return self._packet(server)

    def wire_now(self, connection: BackendConnection) -> bytes | None:
        """As `wire_for` on a connection that knows the statement; else None. A shared one learns it meanwhile."""
        if self.parameters.long_data:
            return None
        server = connection.statements.get((self.statement.key, self.variant))
        if server is not None:
            return self._packet(server)
        if connection.shared:
            _prepare_shared(connection, self.statement, self.variant)
        return None

    def _packet(self, server: ServerStatement) -> bytes:
        parameters = self.parameters
        # Cursors are not offered: with the flag off the server sends all rows, as it may for any statement.
        payload = parameters.payload[:5] + _NO_CURSOR + parameters.payload[6:]
        server.types = parameters.types
        count = self.statement.param_count
        return packet(rebuild_execute(payload, server.ident, count, parameters.types or None), 0)

    def rewritten(self, text: bytes, numbers: tuple[int, ...], mariadb: bool) -> Execution:
        """The execution of another text made from this one. numbers: for each ? the client's parameter number."""
        old = self.statement
        statement = PreparedStatement(
            0, text, old.entry, [], [], len(numbers), old.profile, old.modes, old.version
        )  # fmt: skip
        parameters = select_parameters(self.parameters, numbers)
        return Execution(statement, parameters, b"" if mariadb else variant(parameters))

    async def run(self, connection: BackendConnection) -> Reply:
        """Execute it for an answer of our own."""
        wire = await self.wire_for(connection)
        return await connection.command(first_packet(wire) if len(wire) < LARGE else joined(wire))


def open_execution(statement: PreparedStatement, payload: bytes, mariadb: bool) -> Execution:
    """The parameters of a COM_STMT_EXECUTE; takes the long data sent ahead. Raises SqlError for a broken packet."""
    long_data = {i: bytes(v) for i, v in (statement.long_data or {}).items()}
    statement.long_data = None
    known = statement.types or statement.odd_types or None
    try:
        parameters = parse_execute(payload, statement.param_count, known, long_data)
        kept_apart = b"" if mariadb else variant(parameters)
    except RemoteProtocolError as error:
        raise SqlError(f"Malformed communication packet: {error}", 1835, "HY000") from error
    if _UNREADABLE.isdisjoint(parameters.types[::2]):
        statement.types = parameters.types
    else:
        parameters = _as_mariadb_reads(parameters, mariadb)
        statement.types, statement.odd_types = b"", parameters.types  # not for `execute_now`
    return Execution(statement, parameters, kept_apart)


def _as_mariadb_reads(parameters: ExecuteParameters, mariadb: bool) -> ExecuteParameters:
    """Parameters of which some have a type that is none of a parameter. Raises SqlError 1210."""
    wrong = [number for number in range(parameters.count) if parameters.types[2 * number] in _UNREADABLE]
    if mariadb and parameters.long_data.keys().isdisjoint(wrong):
        try:
            return without_values(parameters, _UNREADABLE)
        except RemoteProtocolError:
            pass  # what MariaDB makes of the rest is not known
    raise SqlError(
        f"Incorrect arguments to mysqld_stmt_execute: a parameter has the type "
        f"{FieldType(parameters.types[2 * wrong[0]]).name}, which servers do not read: bind it as LONG or LONGLONG, as "
        "DATE, or as a string",
        1210,
    )


async def execute_one(client: Client, plan: Plan, execution: Execution, shard: int, replica: bool) -> None:
    """Rung 1 for a prepared statement."""
    connection = await single.take(client, plan, shard, replica)
    try:
        wire = await execution.wire_for(connection)
    except BaseException as error:
        if client.held is None:
            connection.pool.release(connection)
            if isinstance(error, BackendLost) and client.redo():
                return
        raise
    client.relay_from(connection, wire, shard)


async def execute_scattered(
    client: Client, plan: Plan, execution: Execution, shards: tuple[int, ...], replica: bool
) -> None:
    """A plain SELECT on several shards, prepared on each."""

    async def as_sent(connection: BackendConnection, shard: int) -> bytes:
        return await execution.wire_for(connection)

    async def prepare(connection: BackendConnection, shard: int) -> None:
        await execution.prepare(connection)

    async def send() -> None:
        # From the first long data on nothing may fail: the server would keep it for the next execution.
        await scatter.scatter(client, plan, shards, replica, as_sent, prepare)

    await scatter.twice(client, send)


def value_reader(client: Client, execution: Execution) -> ValueReader:
    """Literals from the text, parameters from the packet."""
    statement, parameters = execution.statement, execution.parameters
    modes = statement.modes
    bound_under = modes if client.session.modes is modes else poorer(modes, client.session.modes)

    def read(value: Value, key_type: KeyType) -> KeyValue | NoValue:
        number = statement.parameters[value.index]
        if number < 0:
            return key_value(statement.literals[value.index], value.negative, key_type, modes)
        try:
            bound = parameters.parameter(number)
        except RemoteProtocolError as error:
            raise RouteError(f"parameter {number + 1} cannot be read: {error}") from error
        is_bytes = parameters.types[2 * number] in _BYTES_TYPES
        return bound_value(bound, value.negative, key_type, is_bytes, bound_under)

    return read


def bound_value(bound: object, negative: bool, key_type: KeyType, blob: bool, modes: SqlModes) -> KeyValue | NoValue:
    """The key of a bound parameter; as `sql.literals.key_value`, a value is exact or UNROUTABLE."""
    if bound is None:
        return NULLVALUE
    if key_type is KeyType.INT:
        if isinstance(bound, bool):
            return UNROUTABLE
        if isinstance(bound, int):
            return -bound if negative else bound
        if isinstance(bound, bytes) and not negative and len(bound) <= 15 and bound.isdigit():
            return int(bound) if bound == b"0" or not bound.startswith(b"0") else UNROUTABLE
        return UNROUTABLE
    if not isinstance(bound, bytes) or negative:
        return UNROUTABLE
    if key_type is KeyType.BINARY:
        return bound if blob or bound.isascii() else UNROUTABLE
    return UNROUTABLE if blob else text_key(bound, modes)
