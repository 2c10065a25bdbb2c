"""The statement under way, however it came: as text or as an execution of a prepared statement.

What several shards are asked is often another text than the client's. A Request sends either to any connection, with
the client's own parameters, and its rows come back in the protocol (text or binary) that the client expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.prepared import LARGE, Execution, joined
from shardproxy.planner.plan import Plan
from shardproxy.planner.template import Rewritten, Template
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.framing import packet
from shardproxy.router.route import ValueReader


@dataclass(frozen=True, slots=True)
class Request:
    """sql: the statement's text; literals: of it, `?` where a parameter stands; numbers: for each literal its
    parameter number, else −1 (empty for text); wire: the command as the client sent it; read: reads key values; using:
    of an SQL EXECUTE the variables that are its parameters."""

    client: Client
    plan: Plan
    sql: bytes
    literals: Sequence[bytes]
    read: ValueReader
    wire: bytes
    execution: Execution | None = None
    numbers: Sequence[int] = ()
    using: Sequence[str] = ()

    @property
    def binary(self) -> bool:
        """Rows are in the binary protocol."""
        return self.execution is not None

    def render(self, template: Template, shard: int = -1) -> Rewritten:
        """The template's text with this request's literals. shard: for which it is, where rows are hidden on some."""
        return template.render(self.literals, self.numbers, 0, shard)

    def for_shard(self, shard: int) -> Rewritten | None:
        """The statement's own text for a shard that hides rows which are on their way; None: as the client sent it."""
        text = self.plan.text
        return None if text is None or not text.differs_on(shard) else self.render(text, shard)

    async def prepared_on(self, connection: BackendConnection, shard: int) -> None:
        """Prepare the statement's own text there, where it is an execution. Raises BackendError, BackendLost."""
        if self.execution is None:
            return
        execution, other = self.execution, self.for_shard(shard)
        if other is not None:
            execution = execution.rewritten(other.text, other.parameters, self.client.mariadb)
        await execution.prepare(connection)

    async def wire_on(self, connection: BackendConnection, shard: int) -> bytes:
        """Wire bytes of the statement itself for a shard's connection. Raises BackendError, BackendLost."""
        return await self.wire_for(connection, self.for_shard(shard))

    async def wire_for(self, connection: BackendConnection, other: Rewritten | None = None) -> bytes:
        """Wire bytes of the command for this connection: of the statement itself, or of another text made from it.

        For a prepared statement the text is prepared there first. Raises BackendError, BackendLost.
        """
        if self.using:
            return await self._using(connection, other)
        if self.execution is None:
            return self.wire if other is None else packet(b"\x03" + other.text, 0)
        execution = self.execution
        if other is not None:
            execution = execution.rewritten(other.text, other.parameters, self.client.mariadb)
        return await execution.wire_for(connection)

    async def _using(self, connection: BackendConnection, other: Rewritten | None) -> bytes:
        """As an EXECUTE of the server's own, with the variables that the connection has."""
        text, names = self.sql, self.using
        if other is not None:
            text, names = other.text, [self.using[number] for number in other.parameters]
            if not names:
                return packet(b"\x03" + text, 0)
        quoted = text.replace(b"'", b"''")
        if "NO_BACKSLASH_ESCAPES" not in (connection.profile.value("sql_mode") or ""):
            quoted = quoted.replace(b"\\", b"\\\\")
        reply = await connection.query(b"PREPARE `_shardproxy` FROM '" + quoted + b"'")
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        variables = ",".join(f"@`{name[1:]}`" for name in names)
        return packet(b"\x03EXECUTE `_shardproxy` USING " + variables.encode(), 0)

    async def run(self, connection: BackendConnection, other: Rewritten | None = None) -> Reply:
        """Run it for an answer that we collect whole; that may be an ERR. Raises BackendError, BackendLost."""
        wire = await self.wire_for(connection, other)
        return await connection.command(wire[4:] if len(wire) < LARGE else joined(wire))


def text_request(
    client: Client, plan: Plan, sql: bytes, literals: Sequence[bytes], read: ValueReader, wire: bytes
) -> Request:
    """A COM_QUERY."""
    return Request(client, plan, sql, literals, read, wire if wire[4] == 3 else packet(b"\x03" + sql, 0))


def prepared_request(client: Client, plan: Plan, execution: Execution, read: ValueReader, wire: bytes) -> Request:
    """A COM_STMT_EXECUTE. Raises SqlError 1210 for a type that MariaDB does not know: each shard would say so, but only
    when those before it have run."""
    if client.mariadb and FieldType.JSON in execution.parameters.types[::2]:
        raise SqlError("Incorrect arguments to mysqld_stmt_execute", 1210)
    statement = execution.statement
    return Request(
        client, plan, statement.text, statement.literals, read, wire, execution, statement.parameters
    )  # fmt: skip
