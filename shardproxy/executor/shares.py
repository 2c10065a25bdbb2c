"""One write as several shares, one a shard: run, and told to the client as one server would tell the whole.

Shards run one after the other, in order: the first shard's row locks put concurrent writers in one order for all, so
that two of them do not wait for each other in a ring.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, SessionError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.clock import clock, running
from shardproxy.executor.diagnostics import KEPT, Condition, fetch
from shardproxy.executor.everywhere import count
from shardproxy.merge import counts
from shardproxy.planner.plan import Plan
from shardproxy.protocol.mysql.packets import Ok, parse_ok
from shardproxy.protocol.mysql.response import OK

# Warnings about the text and not about a row: deprecated syntax, character sets. One server gives them once.
_ABOUT_TEXT = frozenset((b"1287", b"1681", b"3719", b"3720", b"3778"))
WITHOUT_DEFAULT = _ABOUT_TEXT | {b"1364"}  # also of a column that a statement leaves out


@dataclass(slots=True)
class Told:
    """What the shares have said so far: their OK packets, and what SHOW WARNINGS shows; once: numbers of warnings that
    a statement gets once; repeated: those of them that an earlier share gave too."""

    oks: list[Ok] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    once: frozenset[bytes] = _ABOUT_TEXT
    repeated: int = 0

    @property
    def affected(self) -> int:
        return sum(ok.affected for ok in self.oks)

    @property
    def warnings(self) -> int:
        return sum(ok.warnings for ok in self.oks) - self.repeated

    @property
    def info(self) -> bytes:
        """Of shares whose infos have one form."""
        return counts.summed([ok.info for ok in self.oks], self.repeated)

    def add(self, found: list[Condition], rows: Sequence[int] | None) -> None:
        """One share's warnings."""
        earlier = {c for c in self.conditions if c[1] in self.once}
        new = [condition for condition in found if condition not in earlier]
        self.repeated += len(found) - len(new)
        self.conditions += [(level, code, counts.renumbered(message, rows)) for level, code, message in new]

    def sorted_conditions(self) -> list[Condition]:
        """In the order of the rows that they name."""
        return sorted(self.conditions, key=lambda condition: counts.row_of(condition[2]))[:KEPT]


async def take(
    told: Told, client: Client, connection: BackendConnection, reply: Reply, rows: Sequence[int] | None = None
) -> Ok:
    """Add one share's answer. rows: the numbers of its rows in the whole statement.

    Raises the share's error, its row number set right, and BackendError for an answer with rows.
    """
    count(client, connection)
    if reply.failed:
        message = counts.renumbered(reply.error_message.encode("utf-8", "replace"), rows)
        raise SqlError(message.decode("utf-8", "replace"), reply.error_code, reply.sqlstate)
    if reply.outcome != OK:
        raise BackendError("a write that returns rows cannot run on several shards")
    ok = parse_ok(reply.data[4 : 4 + int.from_bytes(reply.data[:3], "little")], session_track=False)
    told.oks.append(ok)
    if ok.warnings:
        told.add(await fetch(connection, None), rows)
    return ok


@asynccontextmanager
async def one_time(client: Client, plan: Plan, connections: Sequence[BackendConnection]) -> AsyncIterator[None]:
    """Inside, NOW() and its kin are the same on all connections, where the plan reads the clock.

    Raises SessionError when the session has set a time of its own, which only its own connection knows.
    """
    if not plan.fixed_time:
        yield
        return
    if client.session.pins:
        raise SessionError(
            "a write over several shards that reads the clock cannot run in a session pinned to one shard "
            f"({', '.join(reason.value for reason in client.session.pins)}): use another connection"
        )
    stamp = await clock(connections[0])
    for connection in connections:
        await _set(connection, b"SET timestamp=" + stamp)
    try:
        yield
    finally:
        for connection in connections:
            if not connection.closed and not connection.sinks:
                await _set(connection, running(connection))


async def _set(connection: BackendConnection, text: bytes) -> None:
    reply = await connection.query(text)
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
