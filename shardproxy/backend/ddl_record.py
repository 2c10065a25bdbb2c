"""The record of schema changes over several shards, in `_shardproxy` on the first shard of the keyspace.

The proxy writes it while it runs a change; `shardctl ddl` reads it and goes on from it. Both ask through an `Ask`: one
statement to one server, its rows as text. The statements here hold in every sql_mode: names in backticks are our own,
and values are hexadecimal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from shardproxy.errors import BackendError, SqlError

Row = Sequence[str | None]
Ask = Callable[[str], Awaitable[list[Row]]]

MISSING_TABLE = (1049, 1146)  # no such database, no such table
_DUPLICATE = 1062
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
# What all reading and writing of records happens in, so that definitions read twice compare equal.
NEUTRAL: Mapping[str, str] = {
    "autocommit": "1",
    "character_set_client": "'utf8mb4'",
    "character_set_connection": "'utf8mb4'",
    "character_set_results": "'utf8mb4'",
    "collation_connection": "'utf8mb4_general_ci'",
    "sql_mode": "''",
    "sql_quote_show_create": "1",
}


class State(Enum):
    """Of a change on one shard, and (without WAITING) of the change as a whole."""

    WAITING = "waiting"
    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"
    REVERTED = "reverted"


FINISHED = (State.DONE, State.REVERTED)
Definitions = Mapping[str, str | None]  # table → SHOW CREATE TABLE, None where there is none


@dataclass(frozen=True, slots=True)
class Change:
    """A change as its runner knows it. info: JSON-able, see executor.ddl. session: SET text or ""."""

    keyspace: str
    names: tuple[str, ...]
    shards: tuple[str, ...]
    statement: bytes
    schema: str | None
    session: str
    info: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ShardState:
    """thread: server connection that runs or ran it; before: definitions before it, None when it has not begun."""

    place: int
    shard: str
    state: State
    thread: int | None
    before: Definitions | None
    error: str
    changed_at: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change as its record has it. `ident` is for people: "main-7"."""

    number: int
    change: Change
    state: State
    error: str
    started_at: str
    changed_at: str
    shards: tuple[ShardState, ...]

    @property
    def ident(self) -> str:
        return ident(self.change.keyspace, self.number)


def ident(keyspace: str, number: int) -> str:
    """What people call a change: each keyspace's first shard counts for itself."""
    return f"{keyspace}-{number}"


def lock_name(number: int) -> str:
    """The named lock on the first shard that whoever runs a change holds."""
    return f"shardproxy.ddl.{number}"


def sql_text(value: str | bytes | None) -> str:
    """A literal of this value, in any sql_mode and character set of the connection."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return f"_utf8mb4 x'{value.encode().hex()}'"


def sql_name(*parts: str) -> str:
    """A name in backticks, its parts joined by dots."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


async def begin(ask: Ask, change: Change) -> int:
    """Record a change that is about to start; its number.

    Raises BackendError when the bookkeeping schema is missing or another change of the same tables is unfinished.
    """
    try:
        await ask("BEGIN")
        await ask(
            "INSERT INTO _shardproxy.ddl (keyspace, statement, in_schema, session, change_info, error) VALUES ("
            f"{sql_text(change.keyspace)}, {sql_text(change.statement)}, {sql_text(change.schema)}, "
            f"{sql_text(change.session)}, {sql_text(json.dumps(change.info))}, '')"
        )
        [[number]] = await ask("SELECT LAST_INSERT_ID()")
        assert number is not None
        # In order of name: two changes then never wait for each other.
        for name in sorted(change.names):
            await ask(
                "INSERT INTO _shardproxy.ddl_table (keyspace, table_name, ddl_id) VALUES "
                f"({sql_text(change.keyspace)}, {sql_text(name)}, {number})"
            )
        for place, shard in enumerate(change.shards):
            await ask(
                "INSERT INTO _shardproxy.ddl_shard (ddl_id, place, shard, error) VALUES "
                f"({number}, {place}, {sql_text(shard)}, '')"
            )
        await ask("COMMIT")
    except SqlError as error:
        if error.code == _DUPLICATE:
            await ask("ROLLBACK")
            raise await _pending(ask, change) from error
        if error.code in MISSING_TABLE:
            await ask("ROLLBACK")
            raise not_migrated(error) from error
        raise
    return int(number)


async def _pending(ask: Ask, change: Change) -> BackendError:
    names = ", ".join(sql_text(name) for name in change.names)
    rows = await ask(
        "SELECT table_name, ddl_id FROM _shardproxy.ddl_table WHERE keyspace = "
        f"{sql_text(change.keyspace)} AND table_name IN ({names}) ORDER BY table_name LIMIT 1"
    )
    if not rows:
        return BackendError("another schema change of the same table has just ended: try again")
    name, number = rows[0]
    known = f"{change.keyspace}-{number}"
    return BackendError(
        f"schema change {known} of table '{change.keyspace}.{name}' is not finished: wait for it, or see "
        f"`shardctl ddl show {known}`, then resume or revert it"
    )


def not_migrated(error: SqlError) -> BackendError:
    """The bookkeeping schema is not there, or too old."""
    return BackendError(
        "schema changes over several shards are recorded in _shardproxy, which is missing or too old: run "
        f"`shardctl migrate` once ({error})"
    )


async def note_shard(
    ask: Ask,
    number: int,
    place: int,
    state: State,
    error: str = "",
    thread: int | None = None,
    before: Definitions | None = None,
) -> None:
    """Record what became of a change on one shard. thread and before: kept when not given."""
    more = "" if thread is None else f", thread = {thread}"
    if before is not None:
        more += f", before_it = {sql_text(json.dumps(before))}"
    await ask(
        f"UPDATE _shardproxy.ddl_shard SET state = '{state.value}', error = {sql_text(error[:8000])}{more} "
        f"WHERE ddl_id = {number} AND place = {place}"
    )


async def note(ask: Ask, number: int, state: State, error: str = "") -> None:
    """Record what became of a change as a whole; a finished one gives its tables free."""
    await ask("BEGIN")
    await ask(
        f"UPDATE _shardproxy.ddl SET state = '{state.value}', error = {sql_text(error[:8000])} WHERE id = {number}"
    )
    if state in FINISHED:
        await ask(f"DELETE FROM _shardproxy.ddl_table WHERE ddl_id = {number}")
    await ask("COMMIT")


async def forget(ask: Ask, number: int) -> None:
    """Take back the record of a change that no shard has."""
    await ask("BEGIN")
    for table, column in (("ddl_table", "ddl_id"), ("ddl_shard", "ddl_id"), ("ddl", "id")):
        await ask(f"DELETE FROM _shardproxy.{table} WHERE {column} = {number}")
    await ask("COMMIT")


async def definitions(ask: Ask, database: str, names: Sequence[str]) -> dict[str, str | None]:
    """How the tables and views are defined on this server now. Counters of AUTO_INCREMENT are left out."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            [row] = await ask(f"SHOW CREATE TABLE {sql_name(database, name)}")
        except SqlError as error:
            if error.code not in MISSING_TABLE:
                raise
            found[name] = None
        else:
            found[name] = _COUNTER.sub("", row[1] or "", count=1)
    return found


_COLUMNS = "id, keyspace, state, HEX(statement), in_schema, session, change_info, error, started_at, changed_at"


async def read(ask: Ask, number: int) -> Recorded | None:
    """One record, None when there is none."""
    found = await _read(ask, f"WHERE id = {number}")
    return found[0] if found else None


async def read_all(ask: Ask, keyspace: str, limit: int = 100) -> list[Recorded]:
    """The newest records of a keyspace, newest first, and every unfinished one."""
    where = f"WHERE keyspace = {sql_text(keyspace)}"
    newest = await _read(ask, f"{where} ORDER BY id DESC LIMIT {limit}")
    open_ones = await _read(ask, f"{where} AND state IN ('running', 'failed') ORDER BY id DESC")
    known = {record.number for record in newest}
    return newest + [record for record in open_ones if record.number not in known]


async def _read(ask: Ask, where: str) -> list[Recorded]:
    rows = await ask(f"SELECT {_COLUMNS} FROM _shardproxy.ddl {where}")
    found = []
    for number, keyspace, state, statement, schema, session, info, error, started, changed in rows:
        known = json.loads(info or "{}")
        shards = await _read_shards(ask, int(number or 0))
        change = Change(
            keyspace or "",
            tuple(known.get("names", ())),
            tuple(shard.shard for shard in shards),
            bytes.fromhex(statement or ""),
            schema,
            session or "",
            known,
        )
        found.append(
            Recorded(int(number or 0), change, State(state), error or "", started or "", changed or "", shards)
        )
    return found


async def _read_shards(ask: Ask, number: int) -> tuple[ShardState, ...]:
    rows = await ask(
        "SELECT place, shard, state, thread, before_it, error, changed_at FROM _shardproxy.ddl_shard "
        f"WHERE ddl_id = {number} ORDER BY place"
    )
    return tuple(
        ShardState(
            int(place or 0),
            shard or "",
            State(state),
            None if thread is None else int(thread),
            None if before is None else json.loads(before),
            error or "",
            changed or "",
        )
        for place, shard, state, thread, before, error, changed in rows
    )
