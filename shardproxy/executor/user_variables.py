"""User variables (@a) that a statement has assigned: read back from its connection, to be set on every other one.

A variable is a type, a value, and for strings a character set and a collation; all are in the SQL literal that is kept,
so that reading it elsewhere gives the same answer to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, SessionError
from shardproxy.executor import transaction
from shardproxy.executor.client import Client
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.profile import Profile, user_variables, with_variables

MOST_BYTES = 256 * 1024  # of the literals of all variables of a session
_NUMBERS = frozenset((FieldType.LONGLONG, FieldType.DOUBLE, FieldType.NEWDECIMAL, FieldType.DECIMAL))
_STRINGS = frozenset((
    FieldType.VARCHAR, FieldType.VAR_STRING, FieldType.STRING, FieldType.TINY_BLOB, FieldType.BLOB,
    FieldType.MEDIUM_BLOB, FieldType.LONG_BLOB, FieldType.GEOMETRY,
))  # fmt: skip
_UNDEFINED = 16_777_216  # MariaDB's length of a variable that has never been set; NULL is one shorter


async def assigned(connection: BackendConnection, names: Sequence[str], mariadb: bool) -> dict[str, str]:
    """Literals of these variables as the connection has them, without those that it does not have.

    Raises BackendError, BackendLost; SessionError for more than can be carried.
    """
    items = (f"@`{name[1:]}`, HEX(@`{name[1:]}`), CHARSET(@`{name[1:]}`), COLLATION(@`{name[1:]}`)" for name in names)
    reply = await connection.query("SELECT " + ", ".join(items) + " LIMIT 1")
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    result = parse_resultset(reply.data, connection.scanner.deprecate_eof)
    [row] = result.rows
    found = {}
    for i, name in enumerate(names):
        value, digits, charset, collation = (None if v is None else v.decode("latin1") for v in row[4 * i : 4 * i + 4])
        column = result.columns[4 * i]
        charset, collation = charset or "binary", collation or "binary"
        if column.type not in _NUMBERS and column.type not in _STRINGS:
            raise SessionError(f"user variable {name} has the type {column.type}, which cannot be carried")
        if value is not None:
            found[name] = _literal(column, value, digits or "", charset, collation)
        elif column.length != _UNDEFINED if mariadb else column.type != FieldType.VAR_STRING:
            first = "0" if column.type in _NUMBERS else _text("", charset, collation)
            # A variable keeps its collation, and on MariaDB its type, when it becomes NULL: first they are set.
            found[name] = f"{first}, @`{name[1:]}`={_null(column, charset)}"
    return found


def _literal(column: ColumnDefinition, value: str, digits: str, charset: str, collation: str) -> str:
    """An expression of the variable's type and value."""
    if column.type == FieldType.LONGLONG:
        return f"CAST('{value}' AS {'UNSIGNED' if column.unsigned else 'SIGNED'})"
    if column.type == FieldType.DOUBLE:
        return value if "e" in value else value + "e0"
    if column.type in (FieldType.NEWDECIMAL, FieldType.DECIMAL):
        return f"CAST('{value}' AS DECIMAL(65,{len(value.partition('.')[2])}))"
    if column.type == FieldType.GEOMETRY:
        reference = int.from_bytes(bytes.fromhex(digits[:8]), "little")
        return f"ST_GeomFromWKB(x'{digits[8:]}', {reference})"
    return _text(digits, charset, collation)


def _text(digits: str, charset: str, collation: str) -> str:
    return f"x'{digits}'" if charset == "binary" else f"_{charset} x'{digits}' COLLATE {collation}"


def _null(column: ColumnDefinition, charset: str) -> str:
    """NULL of the variable's type; not NULL alone, which has none."""
    if column.type == FieldType.LONGLONG:
        return f"CAST(NULL AS {'UNSIGNED' if column.unsigned else 'SIGNED'})"
    if column.type == FieldType.DOUBLE:
        return "NULL+0e0"
    if column.type in (FieldType.NEWDECIMAL, FieldType.DECIMAL):
        return "CAST(NULL AS DECIMAL)"
    return "CAST(NULL AS BINARY)" if charset == "binary" else f"CAST(NULL AS CHAR CHARACTER SET {charset})"


def with_assigned(before: Profile, values: dict[str, str]) -> Profile:
    """The profile with these variables. Raises SessionError when they are too large together."""
    wanted = with_variables(before, values)
    if sum(len(name) + len(literal) for name, literal in user_variables(wanted)) > MOST_BYTES:
        raise SessionError(
            f"the session's user variables take more than {MOST_BYTES // 1024} KiB, which is too much to be carried "
            "between connections: set them to NULL when they are not needed any more"
        )
    return wanted


async def carry(client: Client, connection: BackendConnection, names: Sequence[str]) -> None:
    """After a statement on this connection that assigns these variables: the session has them now, and so has every
    connection of its transaction. Raises BackendError, BackendLost, SessionError."""
    values = await assigned(connection, names, client.mariadb)
    if not values:
        return
    wanted = with_assigned(client.session.profile, values)
    if not connection.closed:
        connection.profile = with_variables(connection.profile, values)
    client.adopt(wanted)
    others = client.spanning.connections if client.spanning is not None else [client.held]
    for other in others:
        if other is not None and other is not connection:
            await transaction.expect_switch(other, with_variables(other.profile, values))
