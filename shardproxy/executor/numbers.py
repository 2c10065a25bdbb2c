"""Statements into whose text numbers of a sequence are written: the numbers, and what the client is told of them.

A server that gets a row with its number has counted nothing: its OK packet names the last row's number, and its
LAST_INSERT_ID() stays. The client is told what one server that had counted would tell: the first number that the
statement made and stored.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendError, BackendLost, SessionError, UnsupportedError
from shardproxy.executor import diagnostics
from shardproxy.executor.client import Client
from shardproxy.executor.prepared import Execution, parameter_numbers
from shardproxy.executor.sequence import books, quoted
from shardproxy.executor.variants import variant
from shardproxy.planner.key_values import NULLVALUE
from shardproxy.planner.plan import PinReason, Value
from shardproxy.planner.sequence_plan import SequencePlan
from shardproxy.planner.template import Rewritten
from shardproxy.protocol.mysql.binary import append_integers, select_parameters
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_ok, parse_ok
from shardproxy.protocol.mysql.response import OK, ROWS
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.router.route import ValueReader
from shardproxy.session.session import PreparedStatement, Session
from shardproxy.sql.digest import scan
from shardproxy.topology.keys import KeyType

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Numbered:
    """made: the numbers that the statement makes, in the order of its rows; none when every row brings its own.
    rows: how many there are; written: the text with the numbers."""

    sequence: SequencePlan
    made: tuple[int, ...]
    rows: int
    written: Rewritten

    def reported(self, affected: int, insert_id: int) -> int:
        """The first number made and stored, of an OK with these counts; 0: none was; UNKNOWN: they do not tell.

        insert_id: as the server told it, the number of the last row that it stored.
        """
        if self.sequence.updates:
            if self.rows > 1:
                return UNKNOWN
            return self.made[0] if insert_id == self.made[0] else 0
        if not self.sequence.ignore or affected == self.rows:
            return self.made[0]
        return UNKNOWN if affected else 0


async def number(
    client: Client,
    sequence: SequencePlan,
    literals: Sequence[bytes],
    read: ValueReader,
    parameters: Sequence[int] = (),
    count: int = -1,
) -> Numbered:
    """Take the statement's numbers, and write them. parameters, count: see SequencePlan.render. Raises SqlError."""
    session = client.session
    values = [_own(sequence, value, read, session) for value in sequence.values()]
    if None in values and (PinReason.UNKNOWN_VARIABLE in session.pins or _steps(session)):
        raise SessionError(
            f"{sequence.table}.{sequence.column} is counted over all shards, and the session has set "
            "auto_increment_increment, or a variable that is not carried and may be one that counts (insert_id): use "
            "another connection"
        )
    counter = books(client).sequence(sequence.keyspace, sequence.table, sequence.column, sequence.largest)
    found = counter.now(values) or await counter.number(values)
    written = [have if value is None else None for value, have in zip(values, found, strict=True)]
    made = tuple(have for have in written if have is not None)
    return Numbered(sequence, made, len(values), sequence.render(literals, written, parameters, count))


def _steps(session: Session) -> bool:
    """Whether the session has asked for other steps than one."""
    names = ("auto_increment_increment", "auto_increment_offset")
    return any(session.profile.value(name) not in (None, "1") for name in names)


def _own(sequence: SequencePlan, value: Value | None, read: ValueReader, session: Session) -> int | None:
    """The number that a row brings, None when it gets the next."""
    if value is None:
        return None
    own = read(value, KeyType.INT)
    if own is NULLVALUE or (own == 0 and not session.modes.zero_is_value):
        return None
    if not isinstance(own, int):
        raise UnsupportedError(
            f"the value of the AUTO_INCREMENT column {sequence.table}.{sequence.column} must be a plain integer or NULL"
        )
    return own


async def numbered_execution(client: Client, execution: Execution, sequence: SequencePlan, read: ValueReader) -> Ready:
    """An execution with numbers as further parameters, and the statement that it is of. Raises SqlError."""
    old = execution.statement
    made = await number(client, sequence, old.literals, read, old.parameters, old.param_count)
    literals = scan(made.written.text, old.modes)[1]
    positions, count = parameter_numbers(literals)
    statement = PreparedStatement(
        0, made.written.text, old.entry, literals, positions, count, old.profile, old.modes, old.version
    )
    extended = append_integers(execution.parameters, made.made)
    parameters = select_parameters(extended, made.written.parameters)
    return Ready(made, Execution(statement, parameters, b"" if client.mariadb else variant(parameters)))


@dataclass(frozen=True, slots=True)
class Ready:
    """A numbered execution. The caller plans its statement."""

    numbered: Numbered
    execution: Execution


def check_spread(numbered: Numbered) -> None:
    """Raise UnsupportedError where the answers of several shards would not tell which numbers were stored."""
    sequence = numbered.sequence
    if numbered.made and numbered.rows > 1 and (sequence.ignore or sequence.updates):
        raise UnsupportedError(
            f"INSERT IGNORE and ON DUPLICATE KEY UPDATE of several rows on several shards, with numbers for "
            f"{sequence.table}.{sequence.column}: which row's LAST_INSERT_ID() names is not known: insert the rows one "
            "by one, or give the numbers"
        )


class NumberedAnswer(Sink):
    """Relays the answer of one shard to the client, with the insert id that one server would give."""

    def __init__(self, client: NumberingClient, numbered: Numbered) -> None:
        self.client = client
        self.numbered = numbered
        self._before = client.session.insert_id

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        self.client.response_chunk(data, connection)

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        client = self.client
        client.numbered = None
        scanner = connection.scanner
        if scanner.outcome == OK:
            first = self.numbered.reported(scanner.affected, scanner.insert_id)
            if first == UNKNOWN and client.source is connection:
                client.run(self._ask(data, connection))
                return
            if first > 0:
                data = with_insert_id(data, first)
                client.session.insert_id = first
                client.keep_insert_id()
        elif scanner.outcome == ROWS:  # RETURNING: every row was stored, or the statement had failed
            client.session.insert_id = self.numbered.made[0]
            client.keep_insert_id()
        client.response_end(data, connection)

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        self.client.numbered = None
        self.client.response_lost(error, connection)

    def unwanted(self) -> bool:
        return self.client.unwanted()

    async def _ask(self, data: bytes, connection: BackendConnection) -> None:
        """Ask the server which of the numbers it stored, then answer."""
        client, scanner = self.client, connection.scanner
        ok = parse_ok(data[4 : 4 + int.from_bytes(data[:3], "little")], session_track=False)
        client.source = None
        try:
            conditions = await diagnostics.fetch(connection, None) if ok.warnings else []
            first = await first_stored(self.numbered, connection)
            insert_id = ok.insert_id
            if first:
                insert_id = client.session.insert_id = first
            elif self.numbered.sequence.updates:
                client.session.insert_id = await diagnostics.insert_id(connection)
        except BaseException:
            if client.held is None:
                connection.close()
            raise
        if client.held is None:  # else it is in the session's transaction
            connection.pool.give_back(connection)
        scanner.status = ok.status
        client.ok(ok.affected, insert_id, ok.warnings, ok.info, conditions)


async def first_stored(numbered: Numbered, connection: BackendConnection) -> int:
    """The first of the numbers made that has a row; 0: none has. Raises BackendError, BackendLost."""
    sequence = numbered.sequence
    column = quoted(sequence.column)
    reply = await connection.query(
        b"SELECT MIN(%s) FROM %s.%s WHERE %s IN (%s) LIMIT 1"
        % (
            column,
            quoted(sequence.keyspace),
            quoted(sequence.table),
            column,
            b",".join(b"%d" % n for n in numbered.made),
        )
    )
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    [[value]] = parse_resultset(reply.data, connection.scanner.deprecate_eof).rows
    return int(value or 0)


def with_insert_id(data: bytes, insert_id: int) -> bytes:
    """Wire bytes of an OK packet with another insert id."""
    ok = parse_ok(data[4 : 4 + int.from_bytes(data[:3], "little")], session_track=False)
    return packet(build_ok(ok.affected, insert_id, ok.status, ok.warnings, ok.info), data[3])


class NumberingClient(Client, Protocol):
    """What the relay of a numbered answer needs of a client besides."""

    numbered: Numbered | None

    def keep_insert_id(self) -> None:
        """The session's LAST_INSERT_ID() is right as it is, whatever the plan under way says."""

    def run(self, work: Coroutine[Any, Any, None]) -> None: ...

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None: ...

    def response_end(self, data: bytes, connection: BackendConnection) -> None: ...

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None: ...

    def unwanted(self) -> bool: ...
