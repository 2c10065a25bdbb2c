"""A SELECT whose subqueries run first (planner.subqueries): their results stand in its text, which is then planned.

All of it runs on one connection a shard. Outside transactions these are in a transaction that only reads, so that
what a shard says in the second step is of the same moment as in the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, SqlError
from shardproxy.executor import scatter
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.executor.merge_keys import NotMergeable
from shardproxy.executor.merged import merged_on, merged_rows
from shardproxy.executor.prepared import first_packet
from shardproxy.executor.request import Request, text_request
from shardproxy.executor.scatter import twice
from shardproxy.executor.transaction import ROLLED_BACK, all_ok
from shardproxy.merge.concat import Concatenation
from shardproxy.planner.key_values import NoValue, key_value
from shardproxy.planner.plan import Plan, Rung, Spread, StatementKind, Value
from shardproxy.planner.subquery_plan import Compared, SubqueriesFirst, Subquery
from shardproxy.planner.subquery_values import Cell, in_place, limited
from shardproxy.protocol.mysql.commands import PrepareOk, StmtClose, StmtPrepare
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.response import PREPARE
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.router.route import Route, route
from shardproxy.sql.digest import scan
from shardproxy.topology.keys import KeyType, KeyValue

READ_VIEW = (b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", b"START TRANSACTION READ ONLY")
_LOCK_WAIT = 1205


class _AnotherWay(Exception):
    """Not with the values, types or shards at hand; nothing has been told to the client."""


async def subqueries_first(request: Request, found: Route) -> bool:
    """Answer so. False: it cannot be done so, and nothing has gone to the client. Raises SqlError."""
    client, first = request.client, request.plan.subqueries
    if first is None or request.binary or request.using or request.plan.kind is not StatementKind.SELECT:
        return False
    if client.session.pins:
        return False
    done = False

    async def once() -> None:
        nonlocal done
        done = await _Steps(request, first, found).run()

    try:
        await twice(client, once)
    except NotMergeable:
        return False
    return done


class _Lent(Enlistment):
    """Some connections of an enlistment. keep: they are needed once more."""

    def __init__(self, taken: Enlistment, shards: Sequence[int], keep: bool) -> None:
        super().__init__(shards, [taken.on(shard) for shard in shards])
        self._taken = taken
        self._keep = keep

    def release(self, connection: BackendConnection, ended: bool) -> None:
        if not (ended and self._keep):
            self._taken.release(connection, ended)


class _Steps:
    """One attempt."""

    def __init__(self, request: Request, first: SubqueriesFirst, found: Route) -> None:
        self.request = request
        self.client = request.client
        self.first = first
        self.found = found

    async def run(self) -> bool:
        client, found = self.client, self.found
        out: Concatenation | None = None
        end = b""
        async with enlisted(client, self.request.plan, found.shards, replica=found.replica, write=False) as taken:
            if client.session.simple:
                taken.read_view = True
                await asyncio.gather(*(all_ok(connection, READ_VIEW) for connection in taken.connections))
            try:
                if self.first.checked:
                    await self._check(taken.connections[0])
                texts = [await self._result(taken, one) for one in self.first.first]
                rest, shards = self._planned(self._text(texts), taken)
            except _AnotherWay:
                return False
            if rest.plan.spread is Spread.MERGE and len(shards) > 1:
                end = await merged_on(rest, _Lent(taken, shards, False))
            else:
                wires = [(taken.on(shard), rest.wire) for shard in shards]
                out = await scatter.relay(client, taken, wires, client.gateway.scatter_limit)
        if end:
            client.write(end)
            client.finish()
        else:
            scatter.end(client, out)
        return True

    async def _check(self, connection: BackendConnection) -> None:
        """A server takes the statement as it was written."""
        reply = await connection.command(StmtPrepare(self.request.sql).build(), PREPARE)
        if reply.failed:
            raise _AnotherWay
        connection.say(packet(StmtClose(PrepareOk.parse(first_packet(reply.data)).statement_id).build(), 0))

    def _text(self, texts: Sequence[bytes]) -> bytes:
        around = [self.request.render(one).text for one in self.first.around]
        pieces = [around[0]]
        for text, behind in zip(texts, around[1:], strict=True):
            pieces += [text, b" ", behind]
        return b"".join(pieces).rstrip()

    def _planned(self, text: bytes, taken: Enlistment) -> tuple[Request, tuple[int, ...]]:
        """A text as a statement of its own, and its shards."""
        client = self.client
        modes = client.session.modes
        digest, literals = scan(text, modes)
        plan = client.plan(digest, text).plan

        def read(value: Value, key_type: KeyType) -> KeyValue | NoValue:
            return key_value(literals[value.index], value.negative, key_type, modes)

        if not _reads_rows(plan) or client.gateway.snapshot is not client.map:
            raise _AnotherWay  # a statement has one map
        try:
            shards = route(plan, read, client.map, client.session.shard).shards
        except SqlError as error:
            raise _AnotherWay from error
        if len(shards) == 1 and shards[0] not in taken.shards and plan.spread is Spread.ANY:
            there = set(taken.shards) & set(plan.keyspace.shards if plan.keyspace is not None else taken.shards)
            shards = tuple(sorted(there))[:1]
        if not shards or not set(shards) <= set(taken.shards):
            raise _AnotherWay
        if len(shards) > 1 and plan.spread not in (Spread.CONCAT, Spread.MERGE):
            raise _AnotherWay
        return text_request(client, plan, text, literals, read, packet(b"\x03" + text, 0)), shards

    # ── the subqueries ──

    async def _result(self, taken: Enlistment, one: Subquery) -> bytes:
        """The text that stands for the subquery."""
        if one.compared is Compared.TEXT and self.client.session.profile.value("character_set_results") != "'utf8mb4'":
            raise _AnotherWay
        query, shards = self._planned(self.request.render(one.text).text, taken)
        if one.whole and len(shards) > 1:
            if query.plan.spread is not Spread.MERGE:
                raise _AnotherWay
            data, warnings = await merged_rows(query, _Lent(taken, shards, True))
            answers = [(data, warnings, taken.connections[0])]
        else:
            answers = await self._asked(taken, shards, query.sql + limited(one))
        types: list[int] = []
        values: list[Cell] = []
        for data, warnings, connection in answers:
            result = parse_resultset(data, connection.scanner.deprecate_eof)
            if warnings or not result.columns:
                raise _AnotherWay
            types.append(result.columns[0].type)
            values += [row[0] for row in result.rows]
        text = in_place(one, types, values)
        if text is None:
            raise _AnotherWay
        return text

    async def _asked(
        self, taken: Enlistment, shards: Sequence[int], text: bytes
    ) -> list[tuple[bytes, int, BackendConnection]]:
        """The answers of these shards: their bytes and warnings."""
        answers: list[tuple[bytes, int, BackendConnection]] = []
        at_once = self.client.gateway.scatter_limit
        for start in range(0, len(shards), at_once):
            asked = [taken.on(shard) for shard in shards[start : start + at_once]]
            for connection in asked:
                if self.client.entry is not None:
                    self.client.entry.series[connection.pool.slot] += 1
            replies: list[Reply] = await asyncio.gather(*(connection.query(text) for connection in asked))
            for connection, reply in zip(asked, replies, strict=True):
                if reply.failed and (reply.error_code in ROLLED_BACK or reply.error_code == _LOCK_WAIT):
                    raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
                if reply.failed:
                    raise _AnotherWay  # as a whole statement it may be right, or have another error
                answers.append((reply.data, reply.warnings, connection))
        return answers


def _reads_rows(plan: Plan) -> bool:
    """Whether it only reads, has one time for all shards whatever happens, and needs nothing else of the session."""
    return (
        plan.kind is StatementKind.SELECT and plan.read and plan.rung is not Rung.ERROR and plan.shard_hint is None
        and not plan.local and not plan.pins and not plan.fixed_time and not plan.found_rows and not plan.assigns
        and not plan.carries_insert_id and plan.text is None
    )  # fmt: skip
