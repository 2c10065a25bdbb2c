"""The statement under way, however it came: as text or as an execution of a prepared statement.

What several shards are asked is often another text than the client's. A Request sends either to any connection, with
the client's own parameters, and its rows come back in the protocol (text or binary) that the client expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.executor.client import Client
from shardproxy.executor.prepared import LARGE, Execution, joined
from shardproxy.planner.plan import Plan
from shardproxy.planner.template import Rewritten, Template
from shardproxy.protocol.mysql.framing import packet
from shardproxy.router.route import ValueReader


@dataclass(frozen=True, slots=True)
class Request:
    """sql: the statement's text; literals: of it, `?` where a parameter stands; numbers: for each literal its
    parameter number, else −1 (empty for text); wire: the command as the client sent it; read: reads key values."""

    client: Client
    plan: Plan
    sql: bytes
    literals: Sequence[bytes]
    read: ValueReader
    wire: bytes
    execution: Execution | None = None
    numbers: Sequence[int] = ()

    @property
    def binary(self) -> bool:
        """Rows are in the binary protocol."""
        return self.execution is not None

    def render(self, template: Template) -> Rewritten:
        """The template's text with this request's literals."""
        return template.render(self.literals, self.numbers)

    async def wire_for(self, connection: BackendConnection, other: Rewritten | None = None) -> bytes:
        """Wire bytes of the command for this connection: of the statement itself, or of another text made from it.

        For a prepared statement the text is prepared there first. Raises BackendError, BackendLost.
        """
        if self.execution is None:
            return self.wire if other is None else packet(b"\x03" + other.text, 0)
        execution = self.execution
        if other is not None:
            execution = execution.rewritten(other.text, other.parameters, self.client.mariadb)
        return await execution.wire_for(connection)

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
    """A COM_STMT_EXECUTE."""
    statement = execution.statement
    return Request(
        client, plan, statement.text, statement.literals, read, wire, execution, statement.parameters
    )  # fmt: skip
