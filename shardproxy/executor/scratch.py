"""Rung 3: the rows that a SELECT needs are gathered into scratch tables on one server, and the SELECT runs there.

Scratch tables are temporary tables on a connection of their own, which is closed afterwards: nothing of them can meet
another statement. Rows stream from the shards into INSERTs; what runs ahead of them is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, BackendLost, ProtocolError, SessionError, SqlError, UnsupportedError
from shardproxy.executor import diagnostics, scratch_home, scratch_keys, scratch_tables, single, user_variables
from shardproxy.executor.diagnostics import Condition
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.executor.prepared import LARGE, first_packet, joined
from shardproxy.executor.request import Request
from shardproxy.executor.scatter import Part, twice
from shardproxy.executor.scratch_columns import Column, quoted
from shardproxy.executor.scratch_load import PIECE, Rows
from shardproxy.merge.concat import Concatenation
from shardproxy.planner.key_values import NoValue
from shardproxy.planner.plan import StatementKind, Value
from shardproxy.planner.scratch_plan import Copy, Kind, ScratchPlan
from shardproxy.planner.template import Template, Unseen
from shardproxy.planner.unseen import key_condition
from shardproxy.protocol.mysql.commands import PrepareOk, StmtClose, StmtPrepare
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.response import IN_TRANS, PREPARE
from shardproxy.router.route import Route, evaluate
from shardproxy.topology.keys import KeyType

_ALL = b" LIMIT 18446744073709551615"  # whatever sql_select_limit says
# Too many statements are prepared; this one can only be run as text.
_ONLY_WHEN_PREPARED = frozenset((1461, 1295))


async def scratch(request: Request, route: Route) -> None:
    """The whole command. Raises SqlError before anything has gone to the client."""
    client, plan = request.client, request.plan.scratch
    assert plan is not None
    if client.session.pins:
        why = ", ".join(reason.value for reason in client.session.pins)
        raise SessionError(
            f"the statement needs several shards, and the session is pinned to one ({why}): use another connection"
        )

    async def once() -> None:
        await Scratch(request, plan, route).run()

    if client.session.simple:
        await twice(client, once)
    else:
        await once()


class Scratch:
    """One run. shards: for each scratch table where its rows are."""

    def __init__(self, request: Request, plan: ScratchPlan, route: Route) -> None:
        self.request = request
        self.client = request.client
        self.plan = plan
        self.replica = route.replica
        self.bounds = self.client.gateway.scratch
        self.copies = [_filtered(request, copy) for copy in plan.copies]
        self.shards = [_homes(request, copy) for copy in plan.copies]
        self.rows = 0
        self.size = 0
        self.gathered: list[tuple[str, int, int, int]] = []  # for each table: name, rows, bytes, shards
        self.held = 0  # bytes for which the worker's bound is charged

    async def run(self) -> None:
        client = self.client
        pool = scratch_home.choose_pool(client, self.plan, self.shards, self.replica)
        everywhere = sorted({shard for shards in self.shards for shard in shards})
        async with scratch_home.opened(client, pool) as home:
            try:
                await self.over(home, everywhere)
            finally:
                self.bounds.hold("", -self.held)

    async def over(self, home: BackendConnection, everywhere: list[int]) -> None:
        """Tables, rows, answer."""
        client = self.client
        columns = await scratch_home.create_tables(client, home, self.plan, self.shards)
        self.check_json(columns)
        await self.check_text(home)
        if everywhere:
            async with enlisted(client, self.request.plan, everywhere, replica=self.replica, write=False) as enlistment:
                client.working = [*enlistment.connections, home]
                await self.fill(home, enlistment, columns)
        self.bounds.count(self.rows, self.size)
        client.working = [home]
        answer = self._collect if self.plan.into else self._relay
        await answer(home, await self.prepare(home))

    def check_json(self, columns: list[list[Column]]) -> None:
        """Raises UnsupportedError for a function that sees more of a JSON value than its text."""
        for copy, every in zip(self.plan.copies, columns, strict=True):
            json = next((c.name for c in wanted_columns(copy, every) if c.json), "")
            if self.plan.stored_json and json:
                raise UnsupportedError(
                    f"{self.plan.stored_json.upper()}() over several shards is not supported with tables that have a "
                    f"JSON column ({copy.database}.{copy.table}, column '{json}'): restrict the statement to one shard"
                )

    async def check_text(self, home: BackendConnection) -> None:
        """Prepare what will run, while the tables are empty: what is wrong with it shows before rows are gathered.

        Raises the server's error.
        """
        request, profile = self.request, self.client.session.profile
        await scratch_home.switch(home, profile)
        text = None if self.plan.text is None else request.render(self.plan.text)
        if request.execution is None:
            reply = await home.command(StmtPrepare(request.sql if text is None else text.text).build(), PREPARE)
            if not reply.failed:
                ok = PrepareOk.parse(first_packet(reply.data))
                home.say(packet(StmtClose(ok.statement_id).build(), 0))
            elif reply.error_code not in _ONLY_WHEN_PREPARED:
                raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        elif text is None:
            await request.execution.prepare(home)
        else:
            await request.execution.rewritten(text.text, text.parameters, self.client.mariadb).prepare(home)
        await scratch_home.switch(home, scratch_tables.loading(profile))

    async def fill(self, home: BackendConnection, enlistment: Enlistment, columns: list[list[Column]]) -> None:
        """All tables, those first whose rows say which ones of others are needed."""
        connections = dict(zip(enlistment.shards, enlistment.connections, strict=True))
        filled: dict[object, int] = {}
        rows: dict[int, int] = {}
        while (place := scratch_keys.next_place(self.copies, rows)) >= 0:
            before = self.rows
            rows[place] = 0
            copy = await scratch_keys.narrowed(home, self.copies, place, rows)
            if copy is None:
                continue
            narrowed = copy.where is not self.copies[place].where
            self.copies[place] = copy
            wanted = wanted_columns(copy, columns[place])
            of_rows = (copy.database, copy.table, copy.where, copy.where and copy.alias, copy.lock, self.shards[place])
            same = filled.setdefault((of_rows, copy.columns), place)
            if same == place and not narrowed:
                same = scratch_keys.whole(self.copies, place, rows)
            if same == place:
                await self.gather(home, copy, wanted, {shard: connections[shard] for shard in self.shards[place]})
                rows[place] = self.rows - before
            else:
                await _ok(home, _copy_text(self.copies[same], copy, wanted), copy)
                rows[place] = rows[same]

    async def gather(
        self, home: BackendConnection, copy: Copy, columns: list[Column], connections: Mapping[int, BackendConnection]
    ) -> None:
        """Fill one scratch table. connections: by shard."""
        select = _select(copy, columns)
        binary = self.request.binary and bool(self.request.render(select).parameters)
        insert = b"INSERT INTO %s (%s) VALUES " % (
            scratch_tables.full_name(copy), b",".join(quoted(column.name) for column in columns)
        )  # fmt: skip
        wires = []
        for shard, connection in connections.items():
            text = self.request.render(select, shard)
            if text.parameters:
                wires.append((connection, await self.request.wire_for(connection, text)))
            else:
                wires.append((connection, packet(b"\x03" + text.text, 0)))
        parts = [Part(connection) for connection in connections.values()]
        at_once = self.client.gateway.scatter_limit if copy.lock is None else 1  # locks are taken shard by shard
        started = 0
        literals = [column.literal for column in columns]
        rows_before, size_before = self.rows, self.size
        for turn, part in enumerate(parts):
            for connection, wire in wires[started : turn + at_once]:
                parts[started].start(wire)
                started += 1
                self.count(connection)
            rows = Rows(literals, bool(part.connection.scanner.deprecate_eof), binary)
            before_rows, before_size = self.rows, self.size
            held = 0
            while not rows.whole:
                data = await part.take()
                if not data:
                    raise BackendLost(f"an answer of {part.connection.pool.server.name} ended too early")
                try:
                    rows.feed(data)
                except UnsupportedError as error:
                    raise UnsupportedError(f"table {copy.database}.{copy.table}: {error}") from None
                self.rows, self.size = before_rows + rows.rows, before_size + rows.size
                self.within(copy, rows.size - held)
                held = rows.size
                if rows.pending >= PIECE:
                    await _ok(home, insert + rows.take(), copy)
            if rows.values:
                await _ok(home, insert + rows.take(), copy)
            _rest(part)
        name = f"{copy.database}.{copy.table}"
        self.gathered.append((name, self.rows - rows_before, self.size - size_before, len(parts)))

    def count(self, connection: BackendConnection) -> None:
        if self.client.entry is not None:
            self.client.entry.series[connection.pool.slot] += 1

    def within(self, copy: Copy, more: int) -> None:
        table = f"{copy.database}.{copy.table}"
        self.held += more
        self.bounds.hold(table, more)
        self.bounds.check(table, self.rows, self.size)

    async def prepare(self, home: BackendConnection) -> bytes:
        """Bring the connection into the session's state; what to send there."""
        session = self.client.session
        await scratch_home.switch(home, session.profile)
        if self.request.plan.needs_insert_id:
            await single.expect_ok(home, b"SET @@SESSION.last_insert_id=%d" % session.insert_id)
        text = self.plan.text
        return await self.request.wire_for(home, None if text is None else self.request.render(text))

    async def _collect(self, home: BackendConnection, wire: bytes) -> None:
        """The answer of SELECT … INTO, which has no rows."""
        client, plan = self.client, self.request.plan
        self.count(home)
        reply = await home.command(wire[4:] if len(wire) < LARGE else joined(wire))
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        conditions = await diagnostics.fetch(home, None) if reply.warnings else None
        if plan.found_rows:
            client.session.find(await diagnostics.found_rows(home))
        await user_variables.carry(client, home, plan.assigns)
        client.ok(reply.affected, warnings=reply.warnings, conditions=conditions)

    def _notes(self) -> list[Condition]:
        """What EXPLAIN ANALYZE says of the gathering, beside the server's own answer."""
        return [
            (b"Note", b"1003", f"gathered {rows} rows, {size} bytes of {table} from {shards} shards".encode())
            for table, rows, size, shards in self.gathered
        ]

    async def _relay(self, home: BackendConnection, wire: bytes) -> None:
        """The answer, streamed to the client."""
        client = self.client
        self.count(home)
        part = Part(home)
        home.send(wire, part)
        out = Concatenation(bool(home.scanner.deprecate_eof))
        notes = self._notes() if self.request.plan.kind is StatementKind.EXPLAIN else []
        try:
            while not part.ended or part.chunks:
                client.write(out.feed(await part.take()))
                await client.drained()
            out.next_part()
            out.status |= client.status() & IN_TRANS  # the answer's server has no part in the session's transaction
            if not out.failed:
                out.warnings += len(notes)
                client.write(out.end())
        except (SqlError, ProtocolError) as error:
            if isinstance(error, BackendLost) and not client.relayed:
                raise
            if out.mid_packet:
                client.abort()
                return
            client.write(out.error(error if isinstance(error, SqlError) else BackendError(str(error))))
        session = client.session
        session.affected = -1
        session.warnings = out.warnings
        session.conditions = None
        if part.ended and (out.warnings or out.failed):
            session.conditions = await diagnostics.fetch(home, None) + ([] if out.failed else notes)
            session.warnings = len(session.conditions) if out.failed else out.warnings
        if self.request.plan.found_rows and part.ended and not out.failed:
            session.find(await diagnostics.found_rows(home))
        if self.request.plan.assigns and part.ended:
            await user_variables.carry(client, home, self.request.plan.assigns)
        client.finish()


def _homes(request: Request, copy: Copy) -> tuple[int, ...]:
    """The shards that have the rows of a scratch table."""
    found: set[int] = set()
    for group in copy.groups:
        if group.shard is not None:
            found.add(group.shard)
        elif copy.reference:
            found.add(group.keyspace.home)
        else:
            found |= evaluate(group.condition, group.keyspace, request.read)
    return tuple(sorted(found))


_KINDS = {
    Kind.NUMBER: re.compile(rb"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?"),
    Kind.TEXT: re.compile(rb"['\"].*", re.DOTALL),
    Kind.MOMENT: re.compile(rb"'[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])( [01][0-9]:[0-5][0-9]:[0-5][0-9])?'"),
}


def _filtered(request: Request, copy: Copy) -> Copy:
    """The copy without its filter where a literal is none of the kind that can be compared in silence."""
    if all(_is_of_kind(request, index, kind) for index, kind in copy.literals):
        return copy
    return replace(copy, where=None, literals=())


def _is_of_kind(request: Request, index: int, kind: Kind) -> bool:
    literal = request.literals[index]
    if literal != b"?":
        return _KINDS[kind].fullmatch(literal) is not None
    if kind is Kind.MOMENT:
        return False
    return not isinstance(request.read(Value(index), KeyType.INT if kind is Kind.NUMBER else KeyType.TEXT), NoValue)


def wanted_columns(copy: Copy, columns: list[Column]) -> list[Column]:
    if copy.columns is None:
        return columns
    return [c for c in columns if not c.optional or c.name.lower() in copy.columns] or columns[:1]


def _select(copy: Copy, columns: Iterable[Column]) -> Template:
    table = quoted(copy.database) + b"." + quoted(copy.table)
    head = b"SELECT " + b",".join(column.expression for column in columns) + b" FROM " + table
    text = Template((head,))
    if copy.where is not None:
        text = text + b" AS " + quoted(copy.alias) + b" WHERE "
        unseen = _unseen(copy, b"", b" AND (")
        if unseen is None:
            text += copy.where
        else:
            text += Template((unseen, *copy.where.pieces, replace(unseen, before=b")", column=b"")))
    elif (unseen := _unseen(copy, b" WHERE ")) is not None:
        text += Template((unseen,))
    text += _ALL
    return text if copy.lock is None else text + copy.lock


def _unseen(copy: Copy, before: bytes, after: bytes = b"") -> Unseen | None:
    """The condition for shards that have rows of the table which are on their way and must not be seen."""
    keyspaces = {g.keyspace.name: g.keyspace for g in copy.groups if copy.table in g.keyspace.tables}
    keyspace = keyspaces.get(copy.database)
    return None if keyspace is None else key_condition(keyspace, copy.table, before, after)


def _copy_text(source: Copy, target: Copy, columns: Iterable[Column]) -> bytes:
    """Rows of one scratch table for another one of the same table."""
    names = b",".join(quoted(column.name) for column in columns)
    return b"INSERT INTO %s (%s) SELECT %s FROM %s" % (
        scratch_tables.full_name(target), names, names, scratch_tables.full_name(source)
    )  # fmt: skip


async def _ok(home: BackendConnection, text: bytes, copy: Copy) -> None:
    reply = await home.query(text)
    if reply.failed:
        raise BackendError(
            f"scratch table for {copy.database}.{copy.table} on {home.pool.server.name}: {reply.error_message}",
            reply.error_code,
            reply.sqlstate,
        )


def _rest(part: Part) -> None:
    """The connection is used again: it must not stay paused."""
    if part.paused:
        part.connection.transport.resume_reading()
