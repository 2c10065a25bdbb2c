"""SELECTs of session state that only the proxy knows: LAST_INSERT_ID(), ROW_COUNT(), CONNECTION_ID(), USER() …"""

from __future__ import annotations

from shardproxy.executor.client import Client
from shardproxy.planner.plan import Local, Plan
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Cap, FieldType
from shardproxy.protocol.mysql.text import resultset

_UNSIGNED, _NOT_NULL, _BINARY = 32, 1, 128
_TEXT = (Local.USER, Local.CURRENT_USER)


def server_knows(plan: Plan) -> bool:
    """Whether the connection that a pinned session keeps can answer as well, and better: its own last statement's."""
    return all(what not in (Local.CONNECTION_ID, *_TEXT) for _, what in plan.local)


def answer(client: Client, plan: Plan) -> None:
    """Write the one row and finish."""
    session = client.session
    values: dict[Local, int | str] = {
        Local.LAST_INSERT_ID: session.insert_id,
        Local.ROW_COUNT: session.affected,
        Local.CONNECTION_ID: session.ident,
        Local.USER: f"{session.user}@{client.host}",
        Local.CURRENT_USER: f"{session.user}@%",
        Local.WARNING_COUNT: session.warnings,
        Local.ERROR_COUNT: sum(1 for c in session.conditions or () if c[0] == b"Error"),
    }
    columns = [_column(label, what, client.mariadb) for label, what in plan.local]
    row = [str(values[what]).encode() for _, what in plan.local]
    deprecate_eof = bool(session.profile.capabilities & Cap.DEPRECATE_EOF)
    client.write(resultset(columns, [row], client.status(), 0, deprecate_eof, client.seq))
    if all(what not in (Local.WARNING_COUNT, Local.ERROR_COUNT) for _, what in plan.local):
        session.affected = -1
        if not client.mariadb:  # MariaDB keeps them over statements without tables
            session.warnings = 0
            session.conditions = []
    client.finish()


def _column(label: str, what: Local, mariadb: bool) -> ColumnDefinition:
    """As the servers describe it."""
    name = label.encode()
    if what in _TEXT:
        return ColumnDefinition(name, FieldType.VAR_STRING, 45, 1536 if mariadb else 1152, 0, 39 if mariadb else 31)
    flags = _BINARY if what is Local.ROW_COUNT else _BINARY | _UNSIGNED
    if not label.startswith("@@"):
        flags |= _NOT_NULL
    return ColumnDefinition(name, FieldType.LONGLONG, 63, 21, flags, 0)
