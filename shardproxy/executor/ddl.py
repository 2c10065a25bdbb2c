"""Schema changes: on every shard in order, recorded before they start and after each shard.

A change over several shards is written down on the first shard of its keyspace (see backend.ddl_record) before a shard
runs it. Whatever happens then, to this process too, `shardctl ddl` knows which shards have it, and which to look at.
A change of one shard needs no record: the server does it whole or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shardproxy.backend import ddl_record
from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.ddl_record import NEUTRAL, Ask, Change, Row, State
from shardproxy.backend.lookup_record import delete_entries, mark_entries
from shardproxy.backend.pool import Pool
from shardproxy.backend.table_config import register, registration, unregister
from shardproxy.errors import BackendError, BackendLost, SessionError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.diagnostics import Condition, fetch
from shardproxy.executor.everywhere import count
from shardproxy.executor.session_commands import commit_held
from shardproxy.executor.transaction import to_the_end
from shardproxy.planner.ddl_plan import DdlPlan
from shardproxy.planner.plan import Plan
from shardproxy.protocol.mysql.response import ROWS
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import Profile, impersonal, profile, transition, with_variables
from shardproxy.topology.lookup import index_name


async def change(client: Client, plan: Plan, shards: tuple[int, ...], sql: bytes) -> None:
    """A schema change on these shards, in order. Stops at the first error, and says which shards have it."""
    await to_the_end(_change(client, plan, shards, sql))


async def _change(client: Client, plan: Plan, shards: tuple[int, ...], sql: bytes) -> None:
    session = client.session
    await commit_held(client)
    if client.held is not None:
        raise SessionError("a schema change cannot run in a session pinned to one shard: use another connection")
    wanted = session.profile if session.autocommit else with_variables(session.profile, {"autocommit": "1"})
    what = plan.ddl
    if what is None or (len(shards) == 1 and what.register is None):
        outcome = Outcome()
        await _run(client, client.gateway.shards[shards[0]].primary, wanted, sql, outcome)
        if what is not None:
            await _unregister_alone(client, what)
    else:
        outcome = await _recorded(client, what, shards, sql, wanted)
    await client.schema_changed()
    client.ok(warnings=outcome.warnings, conditions=outcome.conditions)


@dataclass(slots=True)
class Outcome:
    """What the client is told when all went well: the first shard's conditions."""

    warnings: int = 0
    conditions: list[Condition] | None = None


async def _run(
    client: Client, pool: Pool, wanted: Profile, sql: bytes, outcome: Outcome, task: _Task | None = None
) -> None:
    """The statement on one shard. task: where to note it, before and after."""
    connection = await pool.checkout(wanted)
    try:
        if task is not None:
            await task.starts(connection)
        count(client, connection)
        reply = await connection.query(sql)
        if reply.warnings and not reply.failed and outcome.conditions is None:
            outcome.conditions = await fetch(connection, None)
        outcome.warnings = max(outcome.warnings, reply.warnings)
    except BaseException:
        pool.release(connection)
        raise
    pool.checkin(connection)
    if reply.failed:
        raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)


# ── recorded ──


def neutral(like: Profile) -> Profile:
    """The state of connections that read and write records."""
    return profile(like.capabilities, None, tuple(sorted(NEUTRAL.items())))


def asking(connection: BackendConnection) -> Ask:
    """Statements of our own on this connection."""

    async def ask(sql: str) -> list[Row]:
        reply = await connection.query(sql)
        if reply.failed:
            raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
        if reply.outcome != ROWS:
            return []
        rows = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows
        return [[None if value is None else value.decode("utf-8", "replace") for value in row] for row in rows]

    return ask


@asynccontextmanager
async def _asked(client: Client, shard: int) -> AsyncIterator[Ask]:
    """A connection to a shard's primary for statements of our own."""
    pool = client.gateway.shards[shard].primary
    connection = await pool.checkout(neutral(client.session.profile))
    try:
        yield asking(connection)
    except BaseException:
        connection.close()  # it may hold a transaction or a lock
        raise
    pool.checkin(connection)


@dataclass(slots=True)
class _Task:
    """One shard's part of a recorded change."""

    client: Client
    record: Ask
    number: int
    place: int
    shard: int
    what: DdlPlan
    before: dict[str, str | None]
    started: bool = False

    async def look(self) -> dict[str, str | None]:
        async with _asked(self.client, self.shard) as ask:
            return await ddl_record.definitions(ask, self.what.keyspace.name, self.what.names)

    async def starts(self, connection: BackendConnection) -> None:
        """It is about to be sent."""
        await ddl_record.note_shard(
            self.record, self.number, self.place, State.RUNNING, "", connection.server_thread, self.before
        )
        self.started = True

    async def note(self, state: State, error: str = "") -> None:
        await ddl_record.note_shard(self.record, self.number, self.place, state, error)


async def _recorded(client: Client, what: DdlPlan, shards: tuple[int, ...], sql: bytes, wanted: Profile) -> Outcome:
    names = client.gateway.snapshot.shards
    _, settings = transition(neutral(wanted), impersonal(wanted))
    change = Change(
        what.keyspace.name,
        what.names,
        tuple(names[shard].name for shard in shards),
        sql,
        wanted.schema,
        settings or "",
        info(what, [shard.name for shard in names]),
    )
    async with _asked(client, what.keyspace.home) as record:
        number = await ddl_record.begin(record, change)
        await record(f"SELECT GET_LOCK('{ddl_record.lock_name(number)}', 0)")
        if what.emptied and not what.drops:
            await _marked(client, what, record, number)
        outcome = await _on_each(client, what, shards, sql, wanted, record, number)
        step, lacking = "registering", "not all know which tables there are now"
        try:
            await _registered(client, what)
            step, lacking = "entries", "entries of lookup indexes are left"
            async for ask, index in _emptied(client, what):
                await delete_entries(ask, what.keyspace.name, index, marked=not what.drops)
        except SqlError as error:
            await ddl_record.note(record, number, State.FAILED, f"{step}: {error}")
            await client.schema_changed()
            known = ddl_record.ident(what.keyspace.name, number)
            raise BackendError(
                f"{error} — all shards have the change, and {lacking}: `shardctl ddl resume {known}`"
            ) from error
        await ddl_record.note(record, number, State.DONE)
        await record(f"DO RELEASE_LOCK('{ddl_record.lock_name(number)}')")
    return outcome


async def _marked(client: Client, what: DdlPlan, record: Ask, number: int) -> None:
    """Mark the entries that there are before the rows go. Raises SqlError: nothing has changed then."""
    try:
        async for ask, index in _emptied(client, what):
            await mark_entries(ask, what.keyspace.name, index)
    except SqlError:
        await ddl_record.forget(record, number)
        raise


async def _emptied(client: Client, what: DdlPlan) -> AsyncIterator[tuple[Ask, str]]:
    """Each shard that may have entries, with each index whose rows go."""
    for shard in what.keyspace.shards if what.emptied else ():
        async with _asked(client, shard) as ask:
            for table, columns in what.emptied:
                yield ask, index_name(table, columns.split(","))


def info(what: DdlPlan, shards: list[str]) -> dict[str, object]:
    """What the record must know to go on or back without a plan."""
    back = what.reverse
    return {
        "names": list(what.names),
        "repeatable": what.repeatable,
        "drops": what.drops,
        "reverse": {
            "statements": list(back.statements),
            "empty": back.empty,
            "warning": back.warning,
            "why_not": back.why_not,
        },
        "register": None if what.register is None else registration(what.register, shards),
        "unregister": list(what.unregister),
        "emptied": [list(index) for index in what.emptied],
    }


async def _on_each(
    client: Client,
    what: DdlPlan,
    shards: tuple[int, ...],
    sql: bytes,
    wanted: Profile,
    record: Ask,
    number: int,
) -> Outcome:
    outcome = Outcome()
    done: list[str] = []
    for place, shard in enumerate(shards):
        task = _Task(client, record, number, place, shard, what, {})
        try:
            task.before = await task.look()
            await _run(client, client.gateway.shards[shard].primary, wanted, sql, outcome, task)
        except SqlError as error:
            await _failed(task, error, done, shards)
            raise AssertionError("_failed raises") from error
        done.append(client.gateway.shards[shard].name)
        try:
            await task.note(State.DONE)
        except SqlError as error:
            known = ddl_record.ident(what.keyspace.name, number)
            raise BackendError(
                f"{error} — the record of schema change {known} cannot be written, so it stopped; shards with it: "
                f"{', '.join(done)}: `shardctl ddl resume {known}`"
            ) from error
    return outcome


async def _failed(task: _Task, error: SqlError, done: list[str], shards: tuple[int, ...]) -> None:
    """Note it, and raise the client's error. A change that no shard has leaves no record."""
    client, number = task.client, task.number
    pools = client.gateway.shards
    name = pools[task.shard].name
    lost = isinstance(error, BackendLost) and task.started
    changed = lost
    if task.started and not lost:
        changed = await task.look() != task.before
    if not done and not changed:
        await ddl_record.forget(task.record, number)
        raise error
    if not lost:
        await task.note(State.FAILED if task.started else State.WAITING, str(error))
    await ddl_record.note(task.record, number, State.FAILED, f"{name}: {error}")
    await client.schema_changed()
    known = ddl_record.ident(task.what.keyspace.name, number)
    waiting = [pools[shard].name for shard in shards[task.place + 1 :]]
    here = "has perhaps a part of it" if changed and not lost else "is not known to have it" if lost else "failed"
    raise BackendError(
        f"{error} — schema change {known} is not finished: shards with it: {', '.join(done) or 'none'}; {name} {here}; "
        f"not begun: {', '.join(waiting) or 'none'}. `shardctl ddl resume {known}` runs it where it is missing, "
        f"`shardctl ddl revert {known}` undoes it",
        error.code,
        error.sqlstate,
    ) from error


async def _registered(client: Client, what: DdlPlan) -> None:
    """Write on every shard of the keyspace which tables there are now; on the first one last, for its copy counts."""
    if what.register is None and not what.unregister:
        return
    names = [shard.name for shard in client.gateway.snapshot.shards]
    for shard in reversed(what.keyspace.shards):
        async with _asked(client, shard) as ask:
            if what.register is not None:
                await register(ask, what.keyspace.name, registration(what.register, names))
            await unregister(ask, what.keyspace.name, what.unregister)


async def _unregister_alone(client: Client, what: DdlPlan) -> None:
    """A single table was dropped. Without bookkeeping schema it cannot have been registered."""
    try:
        await _registered(client, what)
    except SqlError as error:
        if error.code not in ddl_record.MISSING_TABLE:
            raise
