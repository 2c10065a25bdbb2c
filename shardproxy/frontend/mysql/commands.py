"""Commands other than COM_QUERY and COM_STMT_EXECUTE."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from shardproxy.errors import RemoteProtocolError, SqlError
from shardproxy.executor import prepared, scratch_home, session_commands, single
from shardproxy.planner.plan import Rung
from shardproxy.protocol.mysql.commands import FieldList, StmtSendLongData
from shardproxy.protocol.mysql.constants import Com
from shardproxy.protocol.mysql.framing import PacketReader, packet
from shardproxy.protocol.mysql.packets import build_eof, build_ok
from shardproxy.protocol.mysql.response import FIELDS
from shardproxy.sql.digest import scan
from shardproxy.sql.executable import has_code, without_code

if TYPE_CHECKING:
    from shardproxy.frontend.mysql.connection import ClientConnection

Work = Coroutine[Any, Any, None] | None


def payload_of(wire: bytes) -> bytes:
    """The payload of a command's wire bytes, joined when it took several packets."""
    if len(wire) < 0x1000003:
        return wire[4:]
    return PacketReader(len(wire)).feed(wire)[0][1]


def dispatch(client: ClientConnection, wire: bytes) -> Work:
    """Run one command. Raises SqlError with the client's answer."""
    code = wire[4] if len(wire) > 4 else -1
    handler = _HANDLERS.get(code)
    if handler is None:
        raise SqlError("Unknown command", 1047, "08S01")
    return handler(client, payload_of(wire))


def _quit(client: ClientConnection, payload: bytes) -> Work:
    client.close()
    return None


def _ping(client: ClientConnection, payload: bytes) -> Work:
    client.transport.write(packet(build_ok(0, 0, client.status(), 0), client.seq))
    client.finish()
    return None


def _init_db(client: ClientConnection, payload: bytes) -> Work:
    return session_commands.change_schema(client, payload[1:].decode("utf-8", "replace"))


def _statistics(client: ClientConnection, payload: bytes) -> Work:
    front = client.front
    text = (
        f"Uptime: {int(front.uptime())}  Threads: {len(front.clients)}  Questions: {front.questions()}  "
        f"Plans: {len(front.plans)}  Epoch: {front.gateway.snapshot.epoch}"
    )
    client.transport.write(packet(text.encode(), client.seq))
    client.finish()
    return None


def _reset_connection(client: ClientConnection, payload: bytes) -> Work:
    if client.held is not None:
        client.let_go()
    client.session.clear()
    client.refresh_plans()
    client.ok()
    return None


def _set_option(client: ClientConnection, payload: bytes) -> Work:
    if payload[1:3] != b"\x01\x00":
        raise SqlError("multi-statements are not supported: send one statement at a time", 9100)
    client.transport.write(packet(build_eof(client.status(), 0), client.seq))
    client.finish()
    return None


def _change_user(client: ClientConnection, payload: bytes) -> Work:
    try:
        client.front.change_user(client, payload)
    except RemoteProtocolError as error:
        raise SqlError("Malformed communication packet", 1835, "HY000") from error
    return None


def _field_list(client: ClientConnection, payload: bytes) -> Work:
    return _relay_field_list(client, payload)


async def _relay_field_list(client: ClientConnection, payload: bytes) -> None:
    """COM_FIELD_LIST: every shard describes a table alike."""
    try:
        FieldList.parse(payload)
    except RemoteProtocolError as error:
        raise SqlError("Malformed communication packet", 1835, "HY000") from error
    session = client.session
    if session.profile.schema is None:
        raise SqlError("No database selected", 1046, "3D000")
    connection = client.held
    if connection is None:
        connection = await client.gateway.shards[single.any_shard(client)].primary.checkout(session.profile)
    try:
        reply = await connection.command(payload, FIELDS)
    except BaseException:
        connection.close()
        raise
    if client.held is None:
        connection.pool.give_back(connection)
    client.write(reply.data)
    client.finish()


def _prepare(client: ClientConnection, payload: bytes) -> Work:
    sql = payload[1:]
    if has_code(sql):
        sql = without_code(sql, client.session.modes, client.mariadb)
    digest, literals = scan(sql, client.session.modes)
    entry = client.plan(digest, sql)
    if entry.plan.rung is Rung.ERROR:
        raise SqlError(entry.plan.error, entry.plan.error_code)
    client.check(entry.plan)
    return prepared.prepare(client, entry, sql, literals, scratch_home.describer(client, entry.plan))


def _send_long_data(client: ClientConnection, payload: bytes) -> Work:
    """No answer, also to a wrong one: the server keeps the error for the execution."""
    try:
        piece = StmtSendLongData.parse(payload)
    except RemoteProtocolError:
        client.finish()
        return None
    statement = (client.session.statements or {}).get(piece.statement_id)
    if statement is not None and piece.index < statement.param_count:
        if statement.long_data is None:
            statement.long_data = {}
        held = sum(map(len, statement.long_data.values()))
        if held + len(piece.data) > client.front.limits.max_packet:
            client.close()  # a server would keep an error for later; the client has gone past a limit it knows
            return None
        statement.long_data.setdefault(piece.index, bytearray()).extend(piece.data)
    client.finish()
    return None


def _close_statement(client: ClientConnection, payload: bytes) -> Work:
    if client.session.statements is not None and len(payload) >= 5:
        client.session.statements.pop(int.from_bytes(payload[1:5], "little"), None)
    client.finish()
    return None


def _reset_statement(client: ClientConnection, payload: bytes) -> Work:
    statement = (client.session.statements or {}).get(int.from_bytes(payload[1:5], "little"))
    if statement is None:
        raise SqlError("Unknown prepared statement handler given to mysqld_stmt_reset", 1243, "HY000")
    statement.long_data = None
    client.transport.write(packet(build_ok(0, 0, client.status(), 0), client.seq))
    client.finish()
    return None


def _fetch(client: ClientConnection, payload: bytes) -> Work:
    raise SqlError("The statement has no open cursor: shardproxy sends all rows with the execution", 1421, "HY000")


_HANDLERS: dict[int, Callable[[ClientConnection, bytes], Work]] = {
    Com.QUIT: _quit,
    Com.INIT_DB: _init_db,
    Com.FIELD_LIST: _field_list,
    Com.STATISTICS: _statistics,
    Com.PING: _ping,
    Com.CHANGE_USER: _change_user,
    Com.RESET_CONNECTION: _reset_connection,
    Com.SET_OPTION: _set_option,
    Com.STMT_PREPARE: _prepare,
    Com.STMT_SEND_LONG_DATA: _send_long_data,
    Com.STMT_CLOSE: _close_statement,
    Com.STMT_RESET: _reset_statement,
    Com.STMT_FETCH: _fetch,
}
