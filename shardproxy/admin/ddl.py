"""`shardctl ddl`: unfinished schema changes over several shards, run where they are missing or undone where they are.

Everything is asked of the servers themselves: it works whether a proxy runs or not. A running proxy notices what
changed by itself, within `backend.schema_interval`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shardproxy.admin.ddl_entries import EmptiedIndexes
from shardproxy.backend import ddl_record
from shardproxy.backend.catalog import asking
from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.backend.ddl_record import FINISHED, NEUTRAL, Ask, Recorded, ShardState, State, sql_name
from shardproxy.backend.table_config import register, unregister
from shardproxy.errors import ShardproxyError, SqlError
from shardproxy.topology.model import Keyspace, Snapshot

ALTER_SECONDS = 30 * 86_400.0  # a schema change may take as long as it takes
_SET_NEUTRAL = "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci, " + ", ".join(
    f"@@SESSION.{name}={value}" for name, value in NEUTRAL.items() if "character" not in name and "coll" not in name
)
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks: how to log in, how long to wait for an answer in seconds, and where to tell what is being done.

    has, lacks: shards of which the operator says that they have the change, or do not.
    """

    snapshot: Snapshot
    credentials: Credentials
    seconds: float
    tell: Told
    has: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()


async def list_changes(operator: Operator) -> list[Recorded]:
    """All records that are kept, unfinished ones first. Raises ShardproxyError."""
    found: list[Recorded] = []
    for keyspace in operator.snapshot.keyspaces.values():
        async with _home(operator, keyspace) as ask:
            found += await ddl_record.read_all(ask, keyspace.name)
    return sorted(found, key=lambda record: (record.state in FINISHED, record.change.keyspace, -record.number))


async def show_change(operator: Operator, ident: str) -> Recorded:
    """One record. Raises ShardproxyError when there is none."""
    keyspace, number = _parse(operator.snapshot, ident)
    async with _home(operator, keyspace) as ask:
        return await _read(ask, ident, number, keyspace)


async def resume(operator: Operator, ident: str) -> Recorded:
    """Run a change on the shards that lack it, in order. Raises ShardproxyError at the first that fails."""
    keyspace, number = _parse(operator.snapshot, ident)
    async with _unfinished(operator, ident, keyspace, number) as (ask, record):
        emptied = EmptiedIndexes(
            operator.snapshot, operator.credentials, operator.seconds, keyspace, record, operator.tell
        )
        fresh = True  # no shard has it, nothing has been deleted anywhere
        for shard in record.shards:
            if shard.state is State.DONE:
                fresh = False
                continue
            if await _has(operator, record, shard):
                fresh = False
                operator.tell(f"{shard.shard}: has it already")
            else:
                if shard is record.shards[0]:
                    await emptied.mark()
                operator.tell(f"{shard.shard}: running it")
                await _run_noted(operator, ask, record, shard)
            await ddl_record.note_shard(ask, number, shard.place, State.DONE)
        await _register(operator, record, keyspace, forth=True)
        await emptied.delete(all_marked=fresh)
        await ddl_record.note(ask, number, State.DONE)
        return await _read(ask, ident, number, keyspace)


async def revert(operator: Operator, ident: str) -> Recorded:
    """Undo a change on the shards that have it. Raises ShardproxyError when no safe reverse is known."""
    keyspace, number = _parse(operator.snapshot, ident)
    async with _unfinished(operator, ident, keyspace, number) as (ask, record):
        back = _reverse(record)
        if not back["statements"]:
            raise ShardproxyError(f"{ident} cannot be reverted: {back['why_not']}")
        if back["warning"]:
            operator.tell(f"note: {back['warning']}")
        await _register(operator, record, keyspace, forth=False)
        for shard in reversed(record.shards):
            has = shard.state is State.DONE or (
                shard.state is not State.WAITING and await _has(operator, record, shard)
            )
            if shard.before is not None and has and await _look(operator, record, shard) == dict(shard.before):
                has = False  # IF NOT EXISTS found it there
            if has:
                operator.tell(f"{shard.shard}: {'; '.join(back['statements'])}")
                await _undo(operator, record, shard)
            await ddl_record.note_shard(ask, number, shard.place, State.REVERTED)
        await ddl_record.note(ask, number, State.REVERTED)
        return await _read(ask, ident, number, keyspace)


# ── records ──


def _parse(snapshot: Snapshot, ident: str) -> tuple[Keyspace, int]:
    name, _, number = ident.rpartition("-")
    keyspace = snapshot.keyspaces.get(name)
    if keyspace is None or not number.isdigit():
        known = ", ".join(snapshot.keyspaces)
        raise ShardproxyError(f"found {ident!r}; expected KEYSPACE-NUMBER of: {known}")
    return keyspace, int(number)


@asynccontextmanager
async def _home(operator: Operator, keyspace: Keyspace) -> AsyncIterator[Ask]:
    async with await _open(operator, operator.snapshot.shards[keyspace.home].name) as connection:
        try:
            yield asking(connection)
        except SqlError as error:
            if error.code in ddl_record.MISSING_TABLE and "_shardproxy" in str(error):
                raise ddl_record.not_migrated(error) from error
            raise


async def _read(ask: Ask, ident: str, number: int, keyspace: Keyspace) -> Recorded:
    record = await ddl_record.read(ask, number)
    if record is None or record.change.keyspace != keyspace.name:
        raise ShardproxyError(f"there is no schema change {ident}; `shardctl ddl` lists them")
    return record


@asynccontextmanager
async def _unfinished(
    operator: Operator, ident: str, keyspace: Keyspace, number: int
) -> AsyncIterator[tuple[Ask, Recorded]]:
    """The record, with the lock that keeps everybody else away from the change."""
    async with _home(operator, keyspace) as ask:
        await _read(ask, ident, number, keyspace)
        name = ddl_record.lock_name(number)
        [[taken]] = await ask(f"SELECT GET_LOCK('{name}', 0)")
        if taken != "1":
            [[thread]] = await ask(f"SELECT IS_USED_LOCK('{name}')")
            raise ShardproxyError(f"{ident} is being run now, by connection {thread} of the first shard: wait for it")
        record = await _read(ask, ident, number, keyspace)
        if record.state in FINISHED:
            raise ShardproxyError(f"{ident} is {record.state.value}: there is nothing left to do")
        yield ask, record
        await ask(f"DO RELEASE_LOCK('{name}')")


def _reverse(record: Recorded) -> dict[str, list[str] | str]:
    found = record.change.info["reverse"]
    assert isinstance(found, dict)
    return found


async def _register(operator: Operator, record: Recorded, keyspace: Keyspace, forth: bool) -> None:
    """Tables of the change become known to the proxies (forth), or what it had registered is taken back."""
    table = record.change.info.get("register")
    gone = record.change.info.get("unregister") if forth else [table["name"]] if isinstance(table, dict) else []
    if not table and not gone:
        return
    for index in reversed(keyspace.shards):
        async with await _open(operator, operator.snapshot.shards[index].name) as connection:
            ask = asking(connection)
            if forth and isinstance(table, dict):
                await register(ask, keyspace.name, table)
            if isinstance(gone, list):
                await unregister(ask, keyspace.name, gone)


# ── one shard ──


async def _open(operator: Operator, shard: str) -> ControlConnection:
    """A connection to a shard's primary, in the state in which records are read."""
    found = next((s for s in operator.snapshot.shards if s.name == shard), None)
    if found is None:
        raise ShardproxyError(f"the record names shard {shard}, which is not in the file")
    connection = await open_control(found.primary, operator.credentials, operator.seconds)
    try:
        await connection.execute(_SET_NEUTRAL)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _look(operator: Operator, record: Recorded, shard: ShardState) -> dict[str, str | None]:
    async with await _open(operator, shard.shard) as connection:
        return await ddl_record.definitions(asking(connection), record.change.keyspace, record.change.names)


async def _has(operator: Operator, record: Recorded, shard: ShardState) -> bool:
    """Whether a shard has the change, by its definitions then and now. Raises when that cannot be told."""
    if shard.shard in operator.has | operator.lacks:
        return shard.shard in operator.has
    if shard.state is State.WAITING or shard.before is None:
        return False
    await _not_running(operator, record, shard)
    now = await _look(operator, record, shard)
    changed = [name for name, definition in now.items() if definition != shard.before.get(name)]
    if record.change.info.get("drops"):
        return all(definition is None for definition in now.values())
    if len(changed) == len(now):
        return True
    if not changed and (shard.state is State.FAILED or record.change.info.get("repeatable")):
        return False
    why = f"{', '.join(changed)} changed, and not the others" if changed else "no definition would show it"
    raise ShardproxyError(
        f"{shard.shard}: whether it has {record.ident} cannot be told ({why}): look there, then say "
        f"--has {shard.shard} or --lacks {shard.shard}"
    )


async def _not_running(operator: Operator, record: Recorded, shard: ShardState) -> None:
    """Raises while the connection that the change was sent on still runs it: it outlives the proxy's death."""
    if shard.thread is None:
        return
    async with await _open(operator, shard.shard) as connection:
        rows = await connection.query(
            f"SELECT info FROM information_schema.processlist WHERE id = {shard.thread} AND command = 'Query'"
        )
    wanted = record.change.statement.decode("utf-8", "replace")
    if any((text(row["info"]) or "")[:60] == wanted[:60] for row in rows):
        raise ShardproxyError(f"{shard.shard}: connection {shard.thread} still runs the statement: wait, or KILL it")


async def _run_noted(operator: Operator, ask: Ask, record: Recorded, shard: ShardState) -> None:
    """Run the statement where it is missing, noting before and after."""
    number = record.number
    before = shard.before if shard.before is not None else await _look(operator, record, shard)
    found = next(s for s in operator.snapshot.shards if s.name == shard.shard)
    async with await open_control(
        found.primary, operator.credentials, operator.seconds, record.change.schema
    ) as connection:
        await connection.execute(_SET_NEUTRAL)
        if record.change.session:
            await connection.execute(record.change.session)
        [row] = await connection.query("SELECT CONNECTION_ID() AS id")
        await ddl_record.note_shard(ask, number, shard.place, State.RUNNING, "", int(row["id"]), before)
        # The client's own bytes: a text that is not UTF-8 goes through as it came.
        statement = record.change.statement.decode("utf-8", "surrogateescape")
        try:
            await connection.execute(statement, seconds=ALTER_SECONDS)
        except SqlError as error:
            await ddl_record.note_shard(ask, number, shard.place, State.FAILED, str(error))
            await ddl_record.note(ask, number, State.FAILED, str(error))
            raise ShardproxyError(f"{shard.shard}: {error}; mend it and resume {record.ident} again") from error


async def _undo(operator: Operator, record: Recorded, shard: ShardState) -> None:
    back = _reverse(record)
    statements: Sequence[str] = list(back["statements"])
    async with await _open(operator, shard.shard) as connection:
        if back["empty"]:
            # Under a lock: no row comes between the look and the DROP.
            table = sql_name(record.change.keyspace, str(back["empty"]))
            await connection.execute(f"LOCK TABLES {table} WRITE")
            if await connection.query(f"SELECT 1 AS n FROM {table} LIMIT 1"):
                raise ShardproxyError(
                    f"{shard.shard}: {table} has rows by now: resume {record.ident}, or move the rows and DROP it there"
                )
        for statement in statements:
            await connection.execute(statement, seconds=ALTER_SECONDS)
    if shard.before is not None and await _look(operator, record, shard) != dict(shard.before):
        operator.tell(f"{shard.shard}: the definition is not quite what it was; compare with `shardctl ddl show`")
