"""A command's way through the stages, on one screen: text → plan → route → shards → answer.

`query` and `execute` take the hot path themselves: one integer key, and autocommit with a connection at hand or the
connection of the session's transaction. Everything else goes through `run`, which costs a little more and can do
everything.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import SqlError
from shardproxy.executor import (
    ddl,
    everywhere,
    fence,
    local_answers,
    lookup_writes,
    lookups,
    moving,
    numbers,
    prepared,
    scatter,
    session_commands,
    several,
    single,
    sql_prepare,
)
from shardproxy.executor.request import prepared_request, text_request
from shardproxy.frontend.mysql import commands
from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.key_values import key_value
from shardproxy.planner.plan import Plan, Spread, StatementKind
from shardproxy.planner.sequence_plan import SequencePlan
from shardproxy.protocol.mysql.framing import packet
from shardproxy.router.route import Route, ValueReader, route, sole_key
from shardproxy.sql.digest import SOFT, SPLIT, scan, scan_hard
from shardproxy.sql.executable import has_code, without_code
from shardproxy.sql.last_integer import last_integer

if TYPE_CHECKING:
    from shardproxy.frontend.mysql.connection import ClientConnection

Work = Coroutine[Any, Any, None] | None
SHORT: Final = 4096  # bytes of a command up to which a digest is guessed: the guess may be in vain


def query(client: ClientConnection, wire: bytes) -> None:
    """COM_QUERY. wire: the command's packets as received."""
    client.started = perf_counter()
    if len(wire) <= SHORT:
        at, key = last_integer(wire)
        if at:
            known = client.plans.get(wire[5:at] + b"?")
            if known is not None and known.key_last:
                if not _forward(client, known, wire, key):
                    start(client, run, known, wire, wire[5:], [wire[at:]])
                return
    sql = wire[5:] if len(wire) < 0x1000003 else commands.payload_of(wire)[1:]
    parts = SPLIT(sql)
    literals = parts[1::2]
    if SOFT(literals):
        digest = b"?".join(parts[::2])
    else:
        digest, literals = scan_hard(sql, client.session.modes)
    entry = client.plans.get(digest)
    if entry is None:
        entry = client.plan(digest, sql)
    index = entry.key_index
    if index >= 0:
        try:
            number = int(literals[index])
        except ValueError:
            pass  # not a plain integer: the router knows
        else:
            if _forward(client, entry, wire, number):
                return
    start(client, run, entry, wire, sql, literals)


def _forward(client: ClientConnection, entry: CachedPlan, wire: bytes, key: int) -> bool:
    """The hot path of COM_QUERY, for a statement about this one key. False: not this time; nothing has been done."""
    if not entry.read and client.rights.read_only:
        return False
    try:
        shard = entry.lookup(key)  # type: ignore[misc]  # there is one wherever there is a key_index
    except (ValueError, LookupError):
        return False  # in no range: the router knows
    session = client.session
    if session.simple:
        pools = client.gateway.shards[shard]
        pool = pools.reader() if entry.read and not session.reads_primary else pools.primary
        profile = session.profile
        connection = (pool.share(profile) if entry.point else None) or pool.checkout_now(profile)
        if connection is None:
            if pool is not pools.primary:
                pools.unread()
            return False
        client.wire = wire if entry.read else None
        entry.series[pool.slot] += 1
        client.entry = entry
        client.source = connection
        client.relayed = False
        connection.send(wire, client)
    elif shard == session.shard and session.short and client.spanning is None:
        held = client.held
        if held is None:
            return False
        client.entry = entry  # the next statement of its transaction on this shard
        client.relay_from(held, wire, shard)
    else:
        return False
    load = client.gateway.load
    load.left -= 1
    if load.left < 0:
        load.note(entry.plan.groups[0].keyspace, key, not entry.read)
    return True


def redo(client: ClientConnection, wire: bytes) -> None:
    """A read whose connection was lost or stuck before a byte of its answer came: once more, the long way."""
    if wire[4] == 0x17:
        start(client, run_prepared, wire)
    else:
        sql = commands.payload_of(wire)[1:]
        digest, literals = scan(sql, client.session.modes)
        start(client, run, client.plan(digest, sql), wire, sql, literals)


def execute(client: ClientConnection, wire: bytes) -> None:
    """COM_STMT_EXECUTE."""
    client.started = perf_counter()
    if not prepared.execute_now(client, wire):
        start(client, run_prepared, wire)


def command(client: ClientConnection, wire: bytes) -> None:
    """Every other command."""
    client.started = perf_counter()
    start(client, commands.dispatch, wire)


def start(client: ClientConnection, step: Callable[..., Work], *arguments: object) -> None:
    """Take a step; what it cannot finish at once runs as a task; its errors answer the client."""
    try:
        work = step(client, *arguments)
    except SqlError as error:
        client.error(error)
    except Exception as error:
        client.front.report_defect(error)
        client.error(SqlError(f"internal error of shardproxy: {type(error).__name__}; it has been logged"))
    else:
        if work is not None:
            client.run(work)


def run(
    client: ClientConnection,
    entry: CachedPlan,
    wire: bytes,
    sql: bytes,
    literals: list[bytes],
    numbered: numbers.Numbered | None = None,
) -> Work:
    """One statement of any kind, as text. Raises SqlError with the client's answer.

    numbered: the text is the client's with numbers of a sequence written into it.
    """
    if has_code(sql) and numbered is None:
        read_as = without_code(sql, client.session.modes, client.mariadb)
        if read_as != sql and read_as.strip():
            digest, literals = scan(read_as, client.session.modes)
            return run(client, client.plan(digest, read_as), packet(b"\x03" + read_as, 0), read_as, literals)
    plan = entry.plan
    client.entry = entry
    client.map = client.gateway.snapshot
    client.crossing = ()
    client.check(plan)
    if client.session.found >= 0:
        _void_found(client, plan)
    if client.session.overtaken and fence.behind(client, plan):
        return _after(fence.catch_up(client), lambda: _run_anew(client, wire, sql, numbered))
    if plan.local:
        if client.held is not None and client.session.pins and local_answers.server_knows(plan):
            return single.forward(client, plan, client.session.shard, False, wire)
        local_answers.answer(client, plan)
        return None
    if plan.kind is StatementKind.PREPARE and plan.shard_hint is None:
        return _sql_prepared(client, plan, wire, sql)
    strict = client.strict
    handler = session_commands.HANDLERS.get(plan.kind)
    if handler is not None:
        if strict is not None and strict.due(plan):
            return _after(strict.before(plan), lambda: _run_anew(client, wire, sql, numbered))
        return handler(client, plan, sql, wire)
    modes = client.session.modes
    read: ValueReader = lambda value, key_type: key_value(literals[value.index], value.negative, key_type, modes)  # noqa: E731
    if plan.sequence is not None and numbered is None:
        return _number(client, plan.sequence, entry, wire, sql, literals, read)
    kept = client.front.kept if plan.cached is not None else None
    if kept is not None and kept.text(client, plan, sql, lambda: _run_anew(client, wire, sql, numbered)):
        return None
    if strict is not None and strict.due(plan):
        return _after(strict.before(plan, read), lambda: _run_anew(client, wire, sql, numbered))
    if client.session.overtaken and (gone := fence.outdated(client, plan, read)):
        return fence.refuse(client, gone)
    found = None if plan.lookups else route(plan, read, client.map, client.session.shard)
    if found is not None:
        _tell(client, numbered, found)
    if client.gateway.moving:
        met = moving.touches(client, plan, read, found)
        if met:
            again = lambda: start(client, _run_anew, wire, sql, numbered)  # noqa: E731
            return moving.write(text_request(client, plan, sql, literals, read, wire), found, met, again)
        moving.check_definitions(client, plan)
    if found is None:
        return lookups.start(text_request(client, plan, sql, literals, read, wire))
    if plan.entries is not None:
        if len(found.shards) == 1:
            _sample(client, plan, read)
        return lookup_writes.write(text_request(client, plan, sql, literals, read, wire), found)
    if plan.kind is StatementKind.DDL and not plan.pins:
        return ddl.change(client, plan, found.shards, sql)
    if len(found.shards) == 1 and (plan.groups or plan.spread is not Spread.SCRATCH):
        _allow_redo(client, plan, wire)
        _sample(client, plan, read)
        return single.forward(client, plan, found.shards[0], found.replica, wire)
    if plan.spread is Spread.ALL:
        return everywhere.write(client, plan, found.shards, lambda connection: connection.query(sql))
    if plan.spread is Spread.CONCAT and plan.text is None:
        return _scatter(client, plan, found, wire)
    return several.run(text_request(client, plan, sql, literals, read, wire), found)


def _sample(client: ClientConnection, plan: Plan, read: ValueReader) -> None:
    """What the hot path does with its key, for a statement that goes to one shard the long way."""
    load = client.gateway.load
    load.left -= 1
    if load.left < 0:
        key = sole_key(plan, read)
        if key is None:
            load.skip()
        else:
            load.note(plan.groups[0].keyspace, key, not plan.read)


def _run_anew(client: ClientConnection, wire: bytes, sql: bytes, numbered: numbers.Numbered | None) -> Work:
    """Planned again: the map may be a newer one."""
    digest, literals = scan(sql, client.session.modes)
    return run(client, client.plan(digest, sql), wire, sql, literals, numbered)


def _sql_prepared(client: ClientConnection, plan: Plan, wire: bytes, sql: bytes) -> Work:
    """SQL's PREPARE, EXECUTE, DEALLOCATE. Raises SqlError."""
    using = sql_prepare.opened(client, sql)
    if using is None:
        return sql_prepare.prepare(client, plan, sql, wire)
    text = using.statement.text
    digest, literals = scan(text, client.session.modes)
    entry = client.plan(digest, text)
    if not using.names:
        return run(client, entry, packet(b"\x03" + text, 0), text, literals)
    client.entry = entry
    client.check(entry.plan)
    strict = client.strict
    if strict is not None and strict.due(entry.plan):
        before = strict.before(entry.plan, sql_prepare.reader(client, using))
        return _after(before, lambda: _sql_prepared(client, plan, wire, sql))
    again = lambda: start(client, _run_anew, wire, sql, None)  # noqa: E731
    return sql_prepare.execute(client, using, entry, wire, again)


def _void_found(client: ClientConnection, plan: Plan) -> None:
    """What FOUND_ROWS() was told ends with the next statement, but for those that ask about the last one."""
    if not plan.local and plan.kind is not StatementKind.SHOW_WARNINGS:
        client.session.find(-1)


async def _number(
    client: ClientConnection,
    sequence: SequencePlan,
    entry: CachedPlan,
    wire: bytes,
    sql: bytes,
    literals: list[bytes],
    read: ValueReader,
) -> None:
    """Give the rows their numbers; then the statement is one that brings them."""
    numbered = await numbers.number(client, sequence, literals, read)
    if numbered.made:
        sql = numbered.written.text
        wire = packet(b"\x03" + sql, 0)
    digest, literals = scan(sql, client.session.modes)
    entry = client.plan(digest, sql)  # under the newest map, like its route
    work = run(client, entry, wire, sql, literals, numbered)
    if work is not None:
        await work


def _tell(client: ClientConnection, numbered: numbers.Numbered | None, found: Route) -> None:
    if numbered is not None and numbered.made:
        if len(found.shards) > 1:
            numbers.check_spread(numbered)
        client.numbered = numbered


def _allow_redo(client: ClientConnection, plan: Plan, wire: bytes) -> None:
    """Let a read of one shard be sent again, once, should its server die before it answers."""
    if plan.read and client.session.simple and not plan.pins and plan.shard_hint is None and wire is not client.redone:
        client.wire = wire


async def _scatter(client: ClientConnection, plan: Plan, found: Route, wire: bytes) -> None:
    async def as_sent(connection: BackendConnection, shard: int) -> bytes:
        return wire

    async def send() -> None:
        await scatter.scatter(client, plan, found.shards, found.replica, as_sent)

    await scatter.twice(client, send)


def run_prepared(client: ClientConnection, wire: bytes) -> Work:
    """One execution of a prepared statement. Raises SqlError with the client's answer."""
    statement = prepared.find(client, wire)
    gathered = client.session.modes.gathered
    if statement.version != client.plan_version or statement.modes.gathered is not gathered:
        statement.modes = replace(statement.modes, gathered=gathered, auto_is_null=client.session.modes.auto_is_null)
        statement.entry = client.plan_again(statement)
        statement.version = client.plan_version
    entry = client.entry = statement.entry
    plan = entry.plan
    client.check(plan)
    if client.session.found >= 0:
        _void_found(client, plan)
    if statement.local:
        return run(client, entry, packet(b"\x03" + statement.text, 0), statement.text, statement.literals)
    if plan.local:
        if client.held is not None and client.session.pins and local_answers.server_knows(plan):
            return local_answers.ask_server(client, plan, statement.text)
        local_answers.answer(client, plan, binary=True)
        return None
    execution = prepared.open_execution(statement, commands.payload_of(wire), client.mariadb)
    if plan.sequence is not None:
        return _number_prepared(client, plan.sequence, entry, wire, execution)
    return _execute(client, entry, wire, execution, None)


async def _number_prepared(
    client: ClientConnection, sequence: SequencePlan, entry: CachedPlan, wire: bytes, execution: prepared.Execution
) -> None:
    """Give the rows of a prepared INSERT their numbers, as further parameters."""
    ready = await numbers.numbered_execution(client, execution, sequence, prepared.value_reader(client, execution))
    if ready.numbered.made:
        execution = ready.execution
    work = _execute_anew(client, wire, execution, ready.numbered)
    if work is not None:
        await work


def _execute_anew(
    client: ClientConnection, wire: bytes, execution: prepared.Execution, numbered: numbers.Numbered | None
) -> Work:
    """Planned again: the map may be a newer one."""
    return _execute(client, client.plan_again(execution.statement), wire, execution, numbered)


async def _after(first: Coroutine[Any, Any, None], step: Callable[[], Work]) -> None:
    await first
    work = step()
    if work is not None:
        await work


def _execute(
    client: ClientConnection,
    entry: CachedPlan,
    wire: bytes,
    execution: prepared.Execution,
    numbered: numbers.Numbered | None,
) -> Work:
    plan = entry.plan
    client.entry = entry
    client.map = client.gateway.snapshot
    client.crossing = ()
    client.check(plan)
    if client.session.overtaken and fence.behind(client, plan):
        return _after(fence.catch_up(client), lambda: _execute_anew(client, wire, execution, numbered))
    kept = client.front.kept if plan.cached is not None else None
    if kept is not None and kept.prepared(
        client, plan, execution.statement, execution.parameters, lambda: _execute_anew(client, wire, execution, None)
    ):
        return None
    read = prepared.value_reader(client, execution)
    strict = client.strict
    if strict is not None and strict.due(plan):
        return _after(strict.before(plan, read), lambda: _execute_anew(client, wire, execution, numbered))
    if client.session.overtaken and (gone := fence.outdated(client, plan, read)):
        return fence.refuse(client, gone)
    found = None if plan.lookups else route(plan, read, client.map, client.session.shard)
    if found is not None:
        _tell(client, numbered, found)
    if client.gateway.moving:
        met = moving.touches(client, plan, read, found)
        if met:
            again = lambda: start(client, _execute_anew, wire, execution, numbered)  # noqa: E731
            return moving.write(prepared_request(client, plan, execution, read, wire), found, met, again)
    if found is None:
        return lookups.start(prepared_request(client, plan, execution, read, wire))
    if plan.entries is not None:
        if len(found.shards) == 1:
            _sample(client, plan, read)
        return lookup_writes.write(prepared_request(client, plan, execution, read, wire), found)
    if len(found.shards) == 1 and (plan.groups or plan.spread is not Spread.SCRATCH):
        if not execution.parameters.long_data:
            _allow_redo(client, plan, wire)
        _sample(client, plan, read)
        return prepared.execute_one(client, plan, execution, found.shards[0], found.replica)
    if plan.spread is Spread.ALL:
        return everywhere.write(client, plan, found.shards, execution.run)
    if plan.spread is not Spread.CONCAT or plan.text is not None:
        return several.run(prepared_request(client, plan, execution, read, wire), found)
    return prepared.execute_scattered(client, plan, execution, found.shards, found.replica)
