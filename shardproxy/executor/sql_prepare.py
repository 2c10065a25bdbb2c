"""PREPARE, EXECUTE and DEALLOCATE PREPARE as SQL, without a pin.

The session keeps the texts. An execution without parameters is the text itself, said by the client. One with parameters
is planned like a prepared statement, and each server that is asked prepares the text, or what is made from it, and
executes it USING the session's variables, which every connection has: so types, labels and rows are the server's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from shardproxy.errors import SqlError, UnsupportedError
from shardproxy.executor import everywhere, fence, moving, scratch_home, several, single
from shardproxy.executor.client import Client
from shardproxy.executor.prepared import described, parameter_numbers
from shardproxy.executor.request import Request
from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.key_values import NULLVALUE, UNROUTABLE, NoValue, key_value
from shardproxy.planner.plan import Plan, Rung, Spread, StatementKind, Value
from shardproxy.router.route import ValueReader, route
from shardproxy.session.profile import user_variables
from shardproxy.session.session import PreparedStatement, SqlStatement
from shardproxy.sql.digest import scan
from shardproxy.sql.literals import string_value
from shardproxy.sql.modes import SqlModes
from shardproxy.sql.session_text import PrepareText, parse_prepare
from shardproxy.topology.keys import KeyType, KeyValue, has_four_bytes

Work = Coroutine[Any, Any, None] | None
MOST = 1000  # prepared statements of a session
_KINDS = frozenset((
    StatementKind.SELECT, StatementKind.INSERT, StatementKind.REPLACE, StatementKind.UPDATE, StatementKind.DELETE,
))  # fmt: skip
_NUMBER = re.compile(r"CAST\('(-?\d+)' AS (?:UN)?SIGNED\)")
_TEXT = re.compile(r"_(?:utf8mb4|utf8mb3|ascii) x'([0-9A-F]*)' COLLATE \w+")


@dataclass(frozen=True, slots=True)
class Using:
    """An execution with parameters. literals, numbers: as a prepared statement's; names: of the variables, in order."""

    statement: SqlStatement
    literals: list[bytes]
    numbers: list[int]
    names: tuple[str, ...]


def prepare(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Work:
    """PREPARE and DEALLOCATE; EXECUTE is `opened`. Raises SqlError."""
    said = parse_prepare(sql, client.session.modes, client.mariadb)
    if said is None:
        raise SqlError("cannot read this PREPARE, EXECUTE or DEALLOCATE", 1064, "42000")
    kept = client.session.sql_statements
    if said.verb == "DEALLOCATE":
        if kept.pop(said.name, None) is None:
            raise _unknown(said.name, "DEALLOCATE PREPARE")
        client.ok()
        return None
    kept.pop(said.name, None)  # also when the new text has a mistake
    if len(kept) >= MOST:
        raise SqlError(f"Can't create more than {MOST} prepared statements on one connection", 1461, "42000")
    return _prepare(client, said.name, _text(client, said))


def _text(client: Client, said: PrepareText) -> bytes:
    session = client.session
    if said.variable:
        literal = dict(user_variables(session.profile)).get(said.variable, "")
        found = _TEXT.fullmatch(literal)
        if found is None or session.modes.single_byte:
            raise UnsupportedError(f"PREPARE FROM {said.variable}: its value is no text in utf8mb4")
        kept = bytes.fromhex(found.group(1))
        if session.modes.three_bytes and has_four_bytes(kept):
            raise UnsupportedError(f"PREPARE FROM {said.variable}: its value has characters that utf8mb3 lacks")
        return kept
    text = string_value(said.literal, session.modes)
    if text is None:
        raise UnsupportedError("PREPARE takes a plain string, or a variable")
    return text


async def _prepare(client: Client, name: str, text: bytes) -> None:
    """Plan it, and let a server read it. Raises the error that the server has for it."""
    session = client.session
    digest, literals = scan(text, session.modes)
    entry = client.plan(digest, text)
    plan = entry.plan
    positions, count = parameter_numbers(literals)
    if plan.rung is Rung.ERROR:
        raise SqlError(plan.error, plan.error_code)
    if plan.kind is StatementKind.PREPARE:
        raise SqlError("This command is not supported in the prepared statement protocol yet", 1295)
    if count and (plan.kind not in _KINDS or plan.sequence is not None or plan.local):
        raise UnsupportedError("this statement cannot be prepared with parameters as SQL: use the driver's statements")
    if plan.kind in _KINDS and not plan.local:
        statement = PreparedStatement(
            0, text, entry, literals, positions, count, session.profile, session.modes, client.plan_version
        )
        describe = scratch_home.describer(client, plan)
        server = await (describe(statement) if describe is not None else described(client, plan, statement))
        if server.params != count:
            raise UnsupportedError(f"the server sees {server.params} parameters and the proxy {count}")
    session.sql_statements[name] = SqlStatement(text, session.modes, session.profile.schema)
    client.ok(info=b"Statement prepared")


def opened(client: Client, sql: bytes) -> Using | None:
    """What an EXECUTE executes; None for other statements. Raises SqlError 1243, 1210."""
    session = client.session
    said = parse_prepare(sql, session.modes, client.mariadb)
    if said is None or said.verb != "EXECUTE":
        return None
    statement = session.sql_statements.get(said.name)
    if statement is None:
        raise _unknown(said.name, "EXECUTE")
    if statement.modes != session.modes or statement.schema != session.profile.schema:
        raise UnsupportedError(f"sql_mode, character set or default database have changed since PREPARE {said.name}")
    _, literals = scan(statement.text, session.modes)
    numbers, count = parameter_numbers(literals)
    if count != len(said.using):
        raise SqlError("Incorrect arguments to EXECUTE", 1210)
    return Using(statement, literals, numbers, said.using)


def reader(client: Client, using: Using) -> ValueReader:
    """Key values: literals of the text, and variables where they are plain integers or texts."""
    variables = dict(user_variables(client.session.profile))
    modes = client.session.modes

    def read(value: Value, key_type: KeyType) -> KeyValue | NoValue:
        number = using.numbers[value.index]
        if number < 0:
            return key_value(using.literals[value.index], value.negative, key_type, modes)
        return _bound(variables.get(using.names[number], ""), value.negative, key_type, modes)

    return read


def _bound(literal: str, negative: bool, key_type: KeyType, modes: SqlModes) -> KeyValue | NoValue:
    if not literal:
        return NULLVALUE
    if key_type is KeyType.INT:
        number = _NUMBER.fullmatch(literal)
        return UNROUTABLE if number is None else int(number.group(1)) * (-1 if negative else 1)
    text = _TEXT.fullmatch(literal)
    raw = bytes.fromhex(text.group(1)) if text is not None else b"\\"
    return UNROUTABLE if b"\\" in raw else key_value(b"'" + raw.replace(b"'", b"''") + b"'", negative, key_type, modes)


def execute(client: Client, using: Using, entry: CachedPlan, wire: bytes, again: Callable[[], None]) -> Work:
    """An EXECUTE with parameters. again: runs it anew, under the newest map. Raises SqlError."""
    plan = entry.plan
    if plan.sequence is not None:
        raise UnsupportedError("rows that the proxy numbers cannot be stored by an EXECUTE with parameters")
    read = reader(client, using)
    if client.session.overtaken and (gone := fence.outdated(client, plan, read)):
        return fence.refuse(client, gone)
    found = route(plan, read, client.map, client.session.shard)
    text = using.statement.text
    request = Request(client, plan, text, using.literals, read, wire, None, using.numbers, using.names)
    if client.gateway.moving:
        met = moving.touches(client, plan, read, found)
        if met:
            return moving.write(request, found, met, again)
    if len(found.shards) == 1 and (plan.groups or plan.spread is not Spread.SCRATCH):
        return _one(client, request, found.shards[0], found.replica)
    if plan.spread is Spread.ALL:
        return everywhere.write(client, plan, found.shards, request.run)
    return several.run(request, found)


async def _one(client: Client, request: Request, shard: int, replica: bool) -> None:
    connection = await single.take(client, request.plan, shard, replica)
    try:
        wire = await request.wire_for(connection)
    except BaseException:
        if client.held is None:
            connection.pool.release(connection)
        raise
    client.relay_from(connection, wire, shard)


def _unknown(name: str, verb: str) -> SqlError:
    return SqlError(f"Unknown prepared statement handler ({name}) given to {verb}", 1243)
