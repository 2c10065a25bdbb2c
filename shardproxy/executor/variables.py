"""SET of session variables that every connection can be brought to, without pinning.

The text runs on a server in the session's state, so its meaning and its errors are the server's own; then the values
that it left are read back and carried as literals. The outcome of one text in one state is always the same, so it is
remembered: the second client that says SET NAMES utf8mb4 costs no round trip.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from shardproxy.errors import SessionError, SqlError
from shardproxy.executor import single, transaction
from shardproxy.executor.client import Client
from shardproxy.executor.diagnostics import fetch, insert_id
from shardproxy.executor.user_variables import assigned, with_assigned
from shardproxy.planner.plan import Plan
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import (
    CHARSET_VARIABLES,
    Profile,
    charset_assignments,
    is_wide,
    keeping,
    unreadable,
    with_variables,
    without,
)
from shardproxy.sql.session_text import CARRIED, INSERT_IDS, access_mode, assigned_variables

Work = Coroutine[Any, Any, None] | None
REMEMBERED = 1024
_NUMBERS = frozenset((FieldType.TINY, FieldType.SHORT, FieldType.LONG, FieldType.INT24, FieldType.LONGLONG,
                      FieldType.NEWDECIMAL, FieldType.DECIMAL, FieldType.FLOAT, FieldType.DOUBLE))  # fmt: skip


def assign(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """One SET statement. What cannot be carried (the plan has pins) pins the session."""
    session = client.session
    if plan.pins:
        return _pin_and_assign(client, plan, sql)
    known = client.known_profiles.get((session.profile, sql))
    if known is not None and client.held is None:
        _adopt(client, known)
        client.ok()
        return None
    return _assign(client, plan, sql)


async def _pin_and_assign(client: Client, plan: Plan, sql: bytes) -> None:
    """On the connection that the session keeps from now on; carried variables that are set with it are carried."""
    free = client.session.simple
    await single.take(client, plan, single.any_shard(client), False)
    try:
        await _assign(client, plan, sql)
    except SqlError:
        if free:
            client.let_go()  # nothing has been set that would have to be kept
        raise


async def _assign(client: Client, plan: Plan, sql: bytes) -> None:
    session = client.session
    names_set = assigned_variables(sql, session.modes, client.mariadb)
    names = tuple(name for name in names_set if name in CARRIED)
    before = session.profile
    held = client.held if client.spanning is None else None
    connection = held or await client.gateway.shards[single.any_shard(client)].primary.checkout(before)
    try:
        if plan.carries_insert_id and not session.pins:
            await single.expect_ok(connection, b"SET @@SESSION.last_insert_id=%d" % session.insert_id)
        reply = await connection.query(sql)
        if reply.failed:
            raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
        conditions = await fetch(connection, None) if reply.warnings else None
        values = await _values_set(connection, names, before, held is not None)
        user = await assigned(connection, plan.assigns, client.mariadb) if plan.assigns else {}
        wanted = with_variables(before, values)
        wanted = with_assigned(wanted, user)
        if "timestamp" in names and (await _read_back(connection, ("timestamp",)))["timestamp"] != values["timestamp"]:
            wanted = without(wanted, ("timestamp",))  # it was set to DEFAULT: the clock runs
        if any(name in CHARSET_VARIABLES for name in names):
            # So that results are described here as on every other connection with this profile.
            await single.expect_ok(connection, f"SET {', '.join(charset_assignments(wanted))}".encode())
        if not INSERT_IDS.isdisjoint(names_set):
            session.insert_id = await insert_id(connection)
    except BaseException:
        if held is None:
            connection.close()  # half of the assignments may have been made
        elif plan.assigns:
            connection.tainted = True
        raise
    if is_wide(wanted):
        if held is None:
            connection.close()  # nobody can bring it to another state
        else:
            await _undo_charsets(connection, before)
        raise SqlError(unreadable(wanted), 9103)
    connection.profile = keeping(connection.profile, wanted)
    if held is not None and unreadable(wanted):
        await held.switch(before)
    if held is None:
        connection.pool.checkin(connection)
        _remember(client, names_set, sql, wanted)
    if client.spanning is not None:
        await _bring_all(client, wanted)
    _adopt(client, wanted)
    if held is not None and not session.pins and not reply.status & 1:
        client.let_go()
    client.ok(warnings=reply.warnings, conditions=conditions)


def _remember(client: Client, names_set: tuple[str, ...], sql: bytes, wanted: Profile) -> None:
    """What this text does to this profile, where it does the same each time."""
    own = "timestamp" in names_set or not INSERT_IDS.isdisjoint(names_set)
    if own or wanted.personal or any(name.startswith("@") for name in names_set):
        return
    known = client.known_profiles
    if len(known) >= REMEMBERED:
        known.clear()
    known[client.session.profile, sql] = wanted


async def _bring_all(client: Client, wanted: Profile) -> None:
    """Bring a transaction on several shards to what SET has made elsewhere; switching autocommit on commits it."""
    if wanted.autocommit and not client.session.autocommit:
        await transaction.commit_all(client)
        return
    held = client.held
    if unreadable(wanted) or held is None:
        return
    failed = await held.switch(wanted)
    if failed is not None:
        await transaction.roll_back_all(client)
        raise SqlError(failed.error_message, failed.error_code, failed.sqlstate)
    await transaction.switch_all(client, wanted)


def _adopt(client: Client, wanted: Profile) -> None:
    problem = unreadable(wanted)
    if problem:
        raise SqlError(problem, 9103)
    session = client.session
    if wanted.autocommit and not session.autocommit and client.held is None:
        if session.begin and access_mode(session.begin[0], session.modes):
            # Servers keep the access mode for the statement that follows, which would not run in any transaction here.
            raise SessionError("SET autocommit = 1 right after START TRANSACTION READ ONLY or READ WRITE: COMMIT first")
        session.begin = None  # switching autocommit on commits
    client.adopt(wanted)


async def _values_set(connection: Any, names: tuple[str, ...], before: Profile, held: bool) -> dict[str, str]:
    """As `_read_back`. Raises SqlError where answers are in a character set that they cannot be read in; what is held
    is as before then."""
    values = await _read_back(connection, names)
    if not any("\0" in value for value in values.values()):
        return values
    if held:
        await _undo_charsets(connection, before)
    raise SqlError("character_set_results of two or four bytes a character is not supported: use utf8mb4", 9103)


async def _undo_charsets(connection: Any, before: Profile) -> None:
    await single.expect_ok(connection, f"SET {', '.join(charset_assignments(before))}".encode())


async def _read_back(connection: Any, names: tuple[str, ...]) -> dict[str, str]:
    """The values of these variables on the connection, as SQL literals."""
    if not names:
        return {}
    wanted = [n for n in names if n not in CHARSET_VARIABLES]
    if any(n in CHARSET_VARIABLES for n in names):
        wanted += CHARSET_VARIABLES
    reply = await connection.query("SELECT " + ", ".join(f"@@SESSION.{name}" for name in wanted) + " LIMIT 1")
    if reply.failed:
        raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
    result = parse_resultset(reply.data, connection.scanner.deprecate_eof)
    row = result.rows[0]
    values = {}
    for name, column, value in zip(wanted, result.columns, row, strict=True):
        if value is None:
            values[name] = "NULL"
        elif column.type in _NUMBERS:
            values[name] = value.decode()
        elif b"\\" in value:
            raise SqlError(f"the value of {name} holds a backslash, which cannot be carried between connections", 9103)
        else:
            values[name] = "'" + value.decode().replace("'", "''") + "'"
    return values
