"""Statements about the session: transactions, variables, the default schema, warnings, KILL.

Each handler ends the command at once or returns what is left to do. BEGIN reaches a server only with the first
statement that names a shard: until then nobody knows which.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from shardproxy.errors import SessionError, SqlError, UnsupportedError
from shardproxy.executor import explain_route, snapshot, transaction, variables
from shardproxy.executor.client import Client
from shardproxy.executor.diagnostics import Condition
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Cap, FieldType
from shardproxy.protocol.mysql.text import resultset
from shardproxy.session.profile import with_schema
from shardproxy.sql.session_text import (
    Kill,
    WarningsRequest,
    access_mode,
    parse_kill,
    parse_savepoint,
    parse_show_warnings,
    parse_use,
    savepoints_after,
)

Work = Coroutine[Any, Any, None] | None
Handler = Callable[[Client, Plan, bytes, bytes], Work]


def begin(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """BEGIN, START TRANSACTION: an open transaction is committed first, as a server does."""
    session = client.session
    if plan.snapshot:
        return _begin_snapshot(client, sql)
    if client.held is not None and session.pins:
        session.opened = access_mode(sql, session.modes)
        session.savepoints = ()
        client.relay_from(client.held, wire, session.shard)
        return None
    if client.held is not None:
        return _commit_then_begin(client, sql)
    session.begin = (sql,)
    session.refresh()
    client.ok()
    return None


async def _begin_snapshot(client: Client, sql: bytes) -> None:
    snapshot.check_session(client)
    asked = client.session.next_transaction
    if client.held is not None:
        asked = ()
        await commit_held(client)
    await snapshot.begin(client, sql, asked)
    client.ok()


async def _commit_then_begin(client: Client, sql: bytes) -> None:
    await commit_held(client)
    client.session.begin = (sql,)
    client.session.refresh()
    client.ok()


async def commit_held(client: Client) -> None:
    """The implicit commit of statements that end a transaction. Raises the server's error."""
    held = client.held
    session = client.session
    session.begin = None
    session.next_transaction = ()
    session.refresh()
    if held is None:
        return
    if client.spanning is not None:
        await transaction.commit_all(client)
        return
    reply = await held.query(b"COMMIT")
    if reply.failed:
        client.let_go()
        raise SqlError(reply.error_message, reply.error_code, reply.sqlstate)
    if not session.pins:
        client.let_go()


def end(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """COMMIT, ROLLBACK."""
    session = client.session
    if client.spanning is not None:
        return _end_all(client, plan.kind is StatementKind.COMMIT)
    if client.held is not None:
        client.relay_from(client.held, wire, session.shard)
        return None
    session.begin = None
    session.next_transaction = ()
    session.refresh()
    client.ok()
    return None


async def _end_all(client: Client, commit: bool) -> None:
    if commit:
        await transaction.commit_all(client)
    else:
        await transaction.roll_back_all(client)
    client.ok()


async def _savepoint_all(client: Client, sql: bytes) -> None:
    assert client.spanning is not None
    await transaction.savepoint_all(client.spanning, sql)
    client.ok()


def savepoint(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO. Before the first statement they wait with BEGIN."""
    session = client.session
    if client.held is not None:
        session.savepoints = savepoints_after(session.savepoints, (sql,), session.modes)
        if client.spanning is not None:
            return _savepoint_all(client, sql)
        client.relay_from(client.held, wire, session.shard)
        return None
    waiting = session.begin or ()
    verb, name = parse_savepoint(sql, session.modes, client.mariadb)
    if verb != "SAVEPOINT" and name.lower() not in savepoints_after((), waiting, session.modes):
        raise SqlError(f"SAVEPOINT {name} does not exist", 1305, "42000")
    if len(waiting) >= _MOST_WAITING:
        raise SessionError(f"more than {_MOST_WAITING} savepoints before the transaction's first statement")
    if session.begin is not None or not session.autocommit:
        session.begin = (*waiting, sql)
        session.refresh()
    client.ok()
    return None


_MOST_WAITING = 1000


def set_transaction(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """SET TRANSACTION …: for the next transaction only."""
    session = client.session
    if client.held is not None:
        client.relay_from(client.held, wire, session.shard)
        return None
    if session.begin is not None:
        raise SqlError("Transaction characteristics can't be changed while a transaction is in progress", 1568, "25001")
    session.next_transaction = (*session.next_transaction, sql)
    session.refresh()
    client.ok()
    return None


def use(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """USE schema."""
    return change_schema(client, parse_use(sql, client.session.modes, client.mariadb))


def change_schema(client: Client, schema: str) -> Work:
    """USE and COM_INIT_DB. Raises SqlError 1049, 1044."""
    session = client.session
    client.check_schema(schema)
    wanted = with_schema(session.profile, schema)
    if client.held is not None:
        return _switch_held(client, wanted)
    client.adopt(wanted)
    client.ok()
    return None


async def _switch_held(client: Client, wanted: Any) -> None:
    held = client.held
    assert held is not None
    failed = await held.switch(wanted)
    if failed is not None:
        client.forget_held()
        raise SqlError(failed.error_message, failed.error_code, failed.sqlstate)
    client.adopt(wanted)
    await transaction.switch_all(client, wanted)
    client.ok()


def show_warnings(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """SHOW WARNINGS | ERRORS | COUNT(*) …, from the held connection or from what was kept."""
    session = client.session
    if client.held is not None and session.conditions is None:
        last = client.held if client.spanning is None else client.spanning.last
        client.relay_from(last, wire, session.shard)
        return None
    request = parse_show_warnings(sql, session.modes, client.mariadb)
    if request is None:
        raise SqlError("SHOW WARNINGS and SHOW ERRORS take LIMIT [offset,] rows and nothing else", 1064, "42000")
    rows = [c for c in session.conditions or [] if not request.errors_only or c[0] == b"Error"]
    deprecate_eof = bool(session.profile.capabilities & Cap.DEPRECATE_EOF)
    columns, values = _warning_rows(request, rows, session.warnings, client.mariadb)
    if request.count:
        values = values[: session.profile.select_limit]
    client.write(resultset(columns, values, client.status(), 0, deprecate_eof, client.seq))
    client.finish()
    return None


def _warning_rows(
    request: WarningsRequest, rows: list[Condition], total: int, mariadb: bool
) -> tuple[list[ColumnDefinition], list[list[bytes | None]]]:
    if request.count:
        number = len(rows) if request.errors_only else total
        label = "@@session.error_count" if request.errors_only else "@@session.warning_count"
        return [ColumnDefinition(label.encode(), FieldType.LONGLONG, 63, 21, 160, 0)], [[b"%d" % number]]
    chosen = rows[request.offset :]
    if request.limit is not None:
        chosen = chosen[: request.limit]
    decimals = 39 if mariadb else 31
    columns = [
        ColumnDefinition(b"Level", FieldType.VAR_STRING, 45, 28, 1, decimals),
        ColumnDefinition(b"Code", FieldType.LONG, 63, 4 if mariadb else 5, 161, 0),
        ColumnDefinition(b"Message", FieldType.VAR_STRING, 45, 2048, 1, decimals),
    ]
    return columns, [list(row) for row in chosen]


def kill(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """KILL [QUERY] id, of a connection of this proxy. Never passed on: a server's ids mean other clients."""
    request = parse_kill(sql, client.session.modes, client.mariadb)
    if request is None:
        raise UnsupportedError("KILL needs the connection id that CONNECTION_ID() gives: KILL [CONNECTION | QUERY] id")
    return _kill(client, request)


async def _kill(client: Client, request: Kill) -> None:
    if not await client.kill(request.ident, request.query_only):
        raise SqlError(f"Unknown thread id: {request.ident}", 1094, "HY000")
    client.ok()


def empty(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """Blanks are an error to a server, comments are not."""
    if not sql.strip(b" \t\r\n\f\v;"):
        raise SqlError("Query was empty", 1065)
    client.ok()
    return None


HANDLERS: dict[StatementKind, Handler] = {
    StatementKind.BEGIN: begin,
    StatementKind.COMMIT: end,
    StatementKind.ROLLBACK: end,
    StatementKind.SAVEPOINT: savepoint,
    StatementKind.SET: variables.assign,
    StatementKind.SET_TRANSACTION: set_transaction,
    StatementKind.USE: use,
    StatementKind.SHOW_WARNINGS: show_warnings,
    StatementKind.KILL: kill,
    StatementKind.EMPTY: empty,
    StatementKind.EXPLAIN_ROUTE: explain_route.answer,
}
