"""SELECTs of session state that only the proxy knows: LAST_INSERT_ID(), ROW_COUNT(), CONNECTION_ID(), USER() …"""

from __future__ import annotations

from shardproxy.errors import BackendError, UnsupportedError
from shardproxy.executor.client import Client
from shardproxy.planner.plan import Local, Plan
from shardproxy.protocol.mysql.binary import build_binary_row
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.commands import PrepareOk
from shardproxy.protocol.mysql.constants import Cap, FieldType
from shardproxy.protocol.mysql.packets import build_eof
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.protocol.mysql.text import join_packets, result_bytes, text_row

_UNSIGNED, _NOT_NULL, _BINARY = 32, 1, 128
_TEXT = (Local.USER, Local.CURRENT_USER)


_OURS = frozenset((Local.CONNECTION_ID, Local.FOUND_ROWS, *_TEXT))
_DEPRECATED = (
    b"Warning",
    b"1287",
    b"FOUND_ROWS() is deprecated and will be removed in a future release. Consider using COUNT(*) instead.",
)


def server_knows(plan: Plan) -> bool:
    """Whether the connection that a pinned session keeps can answer as well, and better: its own last statement's.

    Raises UnsupportedError when only the proxy knows the one half, and only the server the other.
    """
    asked = {what for _, what in plan.local}
    if asked & _OURS and asked - _OURS:
        raise UnsupportedError("in a session pinned to one shard, select these functions in separate statements")
    return not asked & _OURS


def answer(client: Client, plan: Plan, binary: bool = False) -> None:
    """Write the one row and finish. binary: as to an execution of a prepared statement."""
    session = client.session
    asked = [what for _, what in plan.local]
    if Local.FOUND_ROWS in asked and session.found < 0:
        raise UnsupportedError(
            "FOUND_ROWS() is known right after SELECT SQL_CALC_FOUND_ROWS only: write that, or SELECT COUNT(*)"
        )
    warnings = 0 if client.mariadb else asked.count(Local.FOUND_ROWS)
    values: dict[Local, int | str] = {
        Local.LAST_INSERT_ID: session.insert_id,
        Local.ROW_COUNT: session.affected,
        Local.FOUND_ROWS: session.found,
        Local.CONNECTION_ID: session.ident,
        Local.USER: f"{session.user}@{client.host}",
        Local.CURRENT_USER: f"{session.user}@%",
        Local.WARNING_COUNT: session.warnings,
        Local.ERROR_COUNT: sum(1 for c in session.conditions or () if c[0] == b"Error"),
    }
    _write(client, plan, [str(values[what]).encode() for what in asked], binary, warnings)
    if session.found >= 0:
        session.find(0 if session.profile.select_limit == 0 else 1)
    if all(what not in (Local.WARNING_COUNT, Local.ERROR_COUNT) for _, what in plan.local):
        session.affected = -1
        if not client.mariadb:  # MariaDB keeps them over statements without tables
            session.warnings = warnings
            session.conditions = [_DEPRECATED] * warnings
    client.finish()


async def ask_server(client: Client, plan: Plan, text: bytes) -> None:
    """The same of a prepared statement, by the connection that the session keeps."""
    assert client.held is not None
    reply = await client.held.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    [row] = parse_resultset(reply.data, client.held.scanner.deprecate_eof).rows
    _write(client, plan, [value or b"" for value in row], True)
    client.finish()


def describe(client: Client, plan: Plan, ident: int) -> bytes:
    """The answer to a PREPARE of such a SELECT."""
    payloads = [PrepareOk(ident, len(plan.local), 0).build(), *(c.build() for c in _columns(client, plan))]
    if not _deprecate_eof(client):
        payloads.append(build_eof(client.status(), 0))
    return join_packets(payloads, client.seq)


def _write(client: Client, plan: Plan, row: list[bytes], binary: bool, warnings: int = 0) -> None:
    columns = _columns(client, plan)
    if binary:
        values = [v if c.type == FieldType.VAR_STRING else int(v) for v, c in zip(row, columns, strict=True)]
        payload = build_binary_row(values, columns)
    else:
        payload = text_row(row)
    rows = [payload][: client.session.profile.select_limit]
    client.write(result_bytes(columns, rows, client.status(), warnings, _deprecate_eof(client), client.seq))


def _deprecate_eof(client: Client) -> bool:
    return bool(client.session.profile.capabilities & Cap.DEPRECATE_EOF)


def _columns(client: Client, plan: Plan) -> list[ColumnDefinition]:
    return [_column(label, what, client.mariadb) for label, what in plan.local]


def _column(label: str, what: Local, mariadb: bool) -> ColumnDefinition:
    """As the servers describe it."""
    name = label.encode()
    if what in _TEXT:
        return ColumnDefinition(name, FieldType.VAR_STRING, 45, 1536 if mariadb else 1152, 0, 39 if mariadb else 31)
    flags = _BINARY if what in (Local.ROW_COUNT, Local.FOUND_ROWS) else _BINARY | _UNSIGNED
    if what is Local.CONNECTION_ID and mariadb and not label.startswith("@@"):
        return ColumnDefinition(name, FieldType.LONG, 63, 10, flags | _NOT_NULL, 0)
    if not label.startswith("@@"):
        flags |= _NOT_NULL
    return ColumnDefinition(name, FieldType.LONGLONG, 63, 21, flags, 0)
