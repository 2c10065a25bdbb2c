"""Writes over scratch tables: gather under locks, run the statement there, write what it changed to the shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, BackendLost, SessionError, UnsupportedError
from shardproxy.executor import diagnostics, lookup_entries, scratch_home, scratch_tables
from shardproxy.executor.diagnostics import Condition
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.executor.lookup_entries import Entry, asked_rows, entries_of, without_common
from shardproxy.executor.prepared import LARGE, first_packet, joined
from shardproxy.executor.request import Request
from shardproxy.executor.scratch import Scratch
from shardproxy.executor.scratch_columns import Column, quoted
from shardproxy.executor.sequence import books, literal
from shardproxy.executor.single import expect_ok
from shardproxy.executor.write_back import Changed, WriteBack
from shardproxy.merge.concat import Concatenation
from shardproxy.planner.bounds import integer_range
from shardproxy.planner.lookup_text import ALL, select_list
from shardproxy.planner.plan import StatementKind
from shardproxy.planner.scratch_plan import Copy, ScratchPlan, ScratchWrite, Target
from shardproxy.protocol.mysql.commands import PrepareOk, StmtClose, StmtPrepare
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import Ok, parse_ok
from shardproxy.protocol.mysql.response import IN_TRANS, OK, PREPARE
from shardproxy.router.route import Route
from shardproxy.topology.model import TableKind

_INSERTS = (StatementKind.INSERT, StatementKind.REPLACE)
# Lock wait time-out, deadlock, KILL, time-out of a statement.
_NO_ROWS_FAULT = frozenset((1205, 1206, 1213, 1317, 1402, 1614, 1969, 3024))
_SYNTAX = 1064
_OURS = 9100  # from here on numbers are ours and not the servers'
_NOT_PREPARED = frozenset((1461, 1295))  # too many statements are prepared; it can only be run as text


async def scratch_write(request: Request, found: Route) -> None:
    """The whole command. Raises SqlError; then nothing has changed."""
    client, plan = request.client, request.plan.scratch
    assert plan is not None
    assert plan.write is not None
    if client.session.pins:
        why = ", ".join(reason.value for reason in client.session.pins)
        raise SessionError(
            f"the statement needs several shards, and the session is pinned to one ({why}): use another connection"
        )
    one = _ScratchWrite(request, plan, plan.write, Route(found.shards, False))
    try:
        await one.run()
    except BackendError as error:
        wholly = _all_gathered(plan.write)
        if wholly is None or error.code in _NO_ROWS_FAULT or isinstance(error, BackendLost):
            raise
        # Which row fails first, and how, is certain only beside the rows that are there already.
        one = _ScratchWrite(request, plan, wholly, Route(found.shards, False))
        try:
            await one.run()
        except BackendError as exact:
            raise (error if exact.code >= _OURS else exact) from None  # too many rows to look at, perhaps
    one.answer()


def _all_gathered(write: ScratchWrite) -> ScratchWrite | None:
    """The same, beside all rows of its targets; None when it is so already, or cannot be."""
    if all(target.gathered for target in write.targets) or not all(target.primary_key for target in write.targets):
        return None
    return replace(write, targets=tuple(replace(target, gathered=True) for target in write.targets))


class _ScratchWrite(Scratch):
    """One run."""

    def __init__(self, request: Request, plan: ScratchPlan, write: ScratchWrite, route: Route) -> None:
        super().__init__(request, plan, route)
        self.write = write
        for i, target in enumerate(write.targets):
            if not target.gathered:
                self.shards[i] = ()
            elif target.table.kind is TableKind.REFERENCE:
                self.shards[i] = target.keyspace.shards[:1]
        self.reply: Reply | None = None
        self.ok = Ok(0, 0, 0, 0, b"")
        self.insert_id = 0
        self.conditions: list[Condition] = []
        self.deprecate_eof = False

    async def over(self, home: BackendConnection, everywhere: list[int]) -> None:
        client, write = self.client, self.write
        wrong = await self._check_original(home)
        written = {shard for target in write.targets for shard in _may_be_on(target)}
        shards = sorted({*everywhere, *written})
        async with enlisted(
            client, self.request.plan, shards, replica=False, write=True, write_later=True
        ) as enlistment:
            client.working = [*enlistment.connections, home]
            await self._check_writable(enlistment)
            if wrong is not None and write.checked:
                raise wrong
            columns = await scratch_home.create_tables(client, home, self.plan, self.shards)
            self.check_json(columns)
            await self.check_text(home)
            await self._check_rules(enlistment.connections[0])
            await self.fill(home, enlistment, columns)
            self.bounds.count(self.rows, self.size)
            changed = [await self._remember(home, i, target, columns[i]) for i, target in enumerate(write.targets)]
            await self._run(home)
            await scratch_home.switch(home, scratch_tables.loading(client.session.profile))
            changed = [await self._number(home, one) for one in changed]
            await self._write_back(home, enlistment, changed)
            await self._change_entries(home, enlistment, changed)

    async def _check_original(self, home: BackendConnection) -> BackendError | None:
        """The error that the server has for the statement over the tables themselves. Raises it at once where the
        text cannot be read: then not even a transaction begins."""
        await scratch_home.switch(home, self.client.session.profile)
        reply = await home.command(StmtPrepare(self.request.sql).build(), PREPARE)
        await scratch_home.switch(home, scratch_tables.loading(self.client.session.profile))
        if not reply.failed:
            ok = PrepareOk.parse(first_packet(reply.data))
            home.say(packet(StmtClose(ok.statement_id).build(), 0))
            return None
        if reply.error_code in _NOT_PREPARED:
            return None
        error = BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        if reply.error_code == _SYNTAX:
            raise error
        return error

    async def _check_writable(self, enlistment: Enlistment) -> None:
        """Raises the server's error in a read-only transaction, also where no row would change."""
        connections = dict(zip(enlistment.shards, enlistment.connections, strict=True))
        for target in self.write.targets:
            name = quoted(target.keyspace.name) + b"." + quoted(target.table.name)
            await expect_ok(connections[_may_be_on(target)[0]], b"DELETE FROM %s WHERE FALSE" % name)

    async def _check_rules(self, connection: BackendConnection) -> None:
        """Raises UnsupportedError where a row that is written back would set off something else than the statement."""
        if self.request.plan.kind is StatementKind.DELETE:
            return
        for target in self.write.targets:
            if not target.gathered:
                continue
            names = literal(target.keyspace.name.encode()), literal(target.table.name.encode())
            rows = await _rows(connection, _RULES % (*names, *names))
            if rows:
                what = (rows[0][0] or b"").decode()
                raise UnsupportedError(
                    f"this {self.request.plan.kind.value} over several shards is not supported for table "
                    f"{target.keyspace.name}.{target.table.name}, which has {what}: restrict it to one shard"
                )

    async def gather(
        self, home: BackendConnection, copy: Copy, columns: list[Column], connections: Mapping[int, BackendConnection]
    ) -> None:
        """Also: a condition that gives warnings might give errors in a write, over rows that were not gathered."""
        await super().gather(home, copy, columns, connections)
        if copy.where is not None and any(connection.scanner.warnings for connection in connections.values()):
            await expect_ok(home, b"DELETE FROM " + scratch_tables.full_name(copy))
            whole = Copy(copy.database, copy.table, copy.name, copy.groups, copy.reference, lock=copy.lock)
            await super().gather(home, whole, columns, connections)

    async def _remember(self, home: BackendConnection, index: int, target: Target, columns: list[Column]) -> Changed:
        """Keep the rows as they are now; numbers that the statement makes begin where they can be told from others."""
        before = b""
        table = quoted(target.keyspace.name) + b"." + quoted(target.table.name)
        texts = []
        if target.gathered:
            before = quoted(target.keyspace.name) + b".`shp_scratch_before_%d`" % index
            names = b",".join(quoted(column.name) for column in columns)
            texts += [
                b"CREATE TEMPORARY TABLE %s LIKE %s" % (before, table),
                b"INSERT INTO %s (%s) SELECT %s FROM %s" % (before, names, names, table),
            ]
        if target.counted is not None:
            texts.append(b"ALTER TABLE %s AUTO_INCREMENT = %d" % (table, _base(target)))
        for reply in await home.queries(texts) if texts else ():
            if reply.failed:
                raise BackendError(f"scratch table: {reply.error_message}", reply.error_code, reply.sqlstate)
        return Changed(target, columns, before)

    async def _run(self, home: BackendConnection) -> None:
        """The statement itself. Raises the server's error."""
        self.client.working.append(home)
        wire = await self.prepare(home)
        self.count(home)
        reply = await home.command(wire[4:] if len(wire) < LARGE else joined(wire))
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        self.deprecate_eof = bool(home.scanner.deprecate_eof)
        self.reply = reply
        if reply.outcome == OK:
            self.ok = parse_ok(first_packet(reply.data), session_track=False)
        if reply.warnings:
            self.conditions = await diagnostics.fetch(home, None)
        if self.request.plan.kind in _INSERTS or self.request.plan.carries_insert_id:
            self.insert_id = await diagnostics.insert_id(home)

    async def _number(self, home: BackendConnection, one: Changed) -> Changed:
        """Give rows whose numbers the scratch table has counted numbers of the sequence of all shards, or leave them to
        the server that counts."""
        column = one.target.counted
        if column is None:
            return one
        base = _base(one.target)
        new = sorted(int(row[0] or 0) for row in await _rows(home, one.added(column.name)))
        made = [number for number in new if number >= base]
        mixed = one.target.by_server and (len(made) < len(new) or bool(one.before))
        counted = list(range(base, base + len(made)))
        if made and (made != counted or mixed or (one.target.given and self.insert_id != base)):
            raise UnsupportedError(
                f"{one.target.table.name}.{column.name} is AUTO_INCREMENT, and it is not certain which rows of this "
                f"{self.request.plan.kind.value} bring their own number: give none or all of them"
            )
        if one.target.by_server:
            return replace(one, uncounted=column.name) if made else one
        table, keyspace = one.target.table.name, one.target.keyspace.name
        sequence = books(self.client).sequence(keyspace, table, column.name, integer_range(column)[1])
        own = [number for number in reversed(new) if 0 < number < base]
        if own:
            await sequence.number(list(own))
        if not made:
            return one
        [first, *_] = taken = await sequence.number([None] * len(made))
        if taken != list(range(first, first + len(made))):
            raise BackendError(f"numbers for {table}.{column.name} have gaps: try again")
        name = quoted(column.name)
        text = b"UPDATE %s SET %s = %s - %d WHERE %s >= %d ORDER BY %s"
        await expect_ok(home, text % (one.table, name, name, base - first, name, base, name))
        self._reported(base, first)
        return one

    def _reported(self, base: int, first: int) -> None:
        """What the client is told of numbers from `base` on: they begin at `first`."""
        if self.insert_id >= base:
            self.insert_id += first - base
        ok = self.ok
        if ok.insert_id >= base:
            self.ok = Ok(ok.affected, ok.insert_id + first - base, ok.status, ok.warnings, ok.info)

    async def _write_back(self, home: BackendConnection, enlistment: Enlistment, changed: list[Changed]) -> None:
        profiles = [connection.profile for connection in enlistment.connections]
        try:
            for connection in enlistment.connections:
                await scratch_home.switch(connection, scratch_tables.exact(connection.profile))
            back = WriteBack(home, enlistment)
            await back.write(changed)
            counted = next((one.target for one in changed if one.uncounted), None)
            if counted is not None:
                self._reported(_base(counted), back.first_counted)
        finally:
            for connection, profile in zip(enlistment.connections, profiles, strict=True):
                if not connection.closed and not connection.sinks:
                    await scratch_home.switch(connection, profile)

    async def _change_entries(self, home: BackendConnection, enlistment: Enlistment, changed: list[Changed]) -> None:
        """Entries of lookup indexes follow the rows that were deleted and inserted. Raises SqlError."""
        removed: list[Entry] = []
        added: list[Entry] = []
        for one in changed:
            indexes = one.target.indexes
            if not indexes:
                continue
            for found, source, rows in ((removed, "b", one.gone() if one.before else b""), (added, "t", one.new())):
                if rows:
                    text = b"SELECT " + select_list(indexes, (), source) + rows + ALL
                    found += entries_of(indexes, await asked_rows(home, text, indexes, (), self.client.mariadb))
        if removed or added:
            await lookup_entries.change(self.request, enlistment, *without_common(removed, added))

    def answer(self) -> None:
        """Tell the client; all is committed, or in its transaction."""
        client, reply = self.client, self.reply
        assert reply is not None
        session = client.session
        if self.request.plan.kind in _INSERTS or self.request.plan.carries_insert_id:
            session.insert_id = self.insert_id
        if reply.outcome == OK:
            client.ok(self.ok.affected, self.ok.insert_id, self.ok.warnings, self.ok.info, self.conditions)
            return
        out = Concatenation(self.deprecate_eof)
        client.write(out.feed(reply.data))
        out.next_part()
        out.status |= client.status() & IN_TRANS
        client.write(out.end())
        session.affected = -1
        session.warnings = reply.warnings
        session.conditions = self.conditions or None
        client.finish()


_RULES = b"""
SELECT CONCAT('the trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS
WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s AND LEFT(TRIGGER_NAME, 12) <> '_shardproxy_'
UNION ALL
SELECT CONCAT('rows that follow it by the foreign key ', CONSTRAINT_NAME)
FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA = %s AND REFERENCED_TABLE_NAME = %s
AND (DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION')) LIMIT 1"""


def _may_be_on(target: Target) -> tuple[int, ...]:
    """Shards that rows of the table may be written to."""
    if target.table.shard is not None:
        return (target.table.shard,)
    if target.table.kind is TableKind.REFERENCE:
        return target.keyspace.shards
    return tuple(target.keyspace.map.all_shards)


def _base(target: Target) -> int:
    """From here on the scratch table counts: far above numbers that rows have."""
    assert target.counted is not None
    return integer_range(target.counted)[1] // 2 + 1


async def _rows(connection: BackendConnection, text: bytes) -> list[list[bytes | None]]:
    reply = await connection.query(text)
    return [list(row) for row in scratch_tables.result(reply, connection).rows]
