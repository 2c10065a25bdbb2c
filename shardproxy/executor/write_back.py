"""What a write has changed in scratch tables, found by comparison, and written to the shards row by row.

Beside a table that was gathered stands a second one with the rows as they were. A row is known by its primary key.
Rows of the one that the other lacks were deleted or are new; the rest is compared byte by byte. A row whose shard key,
or other unique key, has changed is deleted and inserted anew. On the shards deletes come first, then updates, then
inserts, so that a value that one row gives up is free for another.

Every change is counted by the server that makes it: one that does not find its row fails the whole statement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import BackendError, BackendLost, RouteError
from shardproxy.executor.enlist import Enlistment
from shardproxy.executor.scatter import Part
from shardproxy.executor.scratch_columns import Column, Literal, quoted, string
from shardproxy.executor.scratch_load import PIECE, Rows
from shardproxy.planner.scratch_plan import Target
from shardproxy.protocol.mysql.framing import packet
from shardproxy.topology.keys import KeyType, canonical_text
from shardproxy.topology.maps import UnmappedKey
from shardproxy.topology.model import TableKind

_AT_ONCE = 500  # statements of one row each that are sent together
Run = Callable[["Changed", BackendConnection, list[bytes]], Awaitable[None]]
Form = Callable[[list[bytes]], bytes]
Homes = Callable[[bytes | None], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Changed:
    """One table that the statement may have changed. columns: those that are stored; before: the table of the rows as
    they were, b"" when it began empty; uncounted: the AUTO_INCREMENT column of new rows that the shard's server counts,
    in the order of the numbers that the scratch table gave."""

    target: Target
    columns: Sequence[Column]
    before: bytes
    uncounted: str = ""

    @property
    def table(self) -> bytes:
        """Its name, on home the scratch table's."""
        return quoted(self.target.keyspace.name) + b"." + quoted(self.target.table.name)

    # ── SQL: t is the table, b what it was before ──

    def deleted(self) -> bytes:
        """Key and primary key of rows to delete."""
        return b"SELECT %s,%s%s" % (self._key(b"b"), self._primary(b"b"), self.gone())

    def gone(self) -> bytes:
        """FROM … of those rows, in b."""
        return b" FROM %s b LEFT JOIN %s t ON %s WHERE t.%s IS NULL%s" % (
            self.before, self.table, self._joined(), self._first(),
            b" OR NOT (%s)" % self._same_identity() if self.target.identity else b"",
        )  # fmt: skip

    def updated(self) -> bytes:
        """Key, old primary key and new values of rows to update."""
        same = b" AND ".join(_of(c, b"t") + b" <=> " + _of(c, b"b") for c in self.columns)
        return b"SELECT %s,%s,%s FROM %s t JOIN %s b ON %s WHERE NOT (%s)%s" % (
            self._key(b"t"), self._primary(b"b"), self._values(), self.table, self.before, self._joined(), same,
            b" AND " + self._same_identity() if self.target.identity else b"",
        )  # fmt: skip

    def inserted(self) -> bytes:
        """Key and values of rows to insert."""
        values = b",".join(_of(column, b"t") for column in self._stored)
        order = b" ORDER BY t." + quoted(self.uncounted) if self.uncounted else b""
        return b"SELECT %s,%s%s%s" % (self._key(b"t"), values, self.new(), order)

    def new(self) -> bytes:
        """FROM … of those rows, in t."""
        head = b" FROM %s t" % self.table
        if not self.before:
            return head
        return head + b" LEFT JOIN %s b ON %s WHERE b.%s IS NULL%s" % (
            self.before, self._joined(), self._first(),
            b" OR NOT (%s)" % self._same_identity() if self.target.identity else b"",
        )  # fmt: skip

    def added(self, column: str) -> bytes:
        """Values of a column in rows that are new."""
        head = b"SELECT t.%s FROM %s t" % (quoted(column), self.table)
        if not self.before:
            return head
        return head + b" LEFT JOIN %s b ON %s WHERE b.%s IS NULL" % (self.before, self._joined(), self._first())

    def _key(self, alias: bytes) -> bytes:
        key = self.target.table.key
        return b"NULL" if key is None else b"CAST(%s.%s AS BINARY)" % (alias, quoted(key))

    def _first(self) -> bytes:
        return quoted(self.target.primary_key[0][0])

    def _joined(self) -> bytes:
        return b" AND ".join(b"t.%s = b.%s" % (quoted(name), quoted(name)) for name, _ in self.target.primary_key)

    def _same_identity(self) -> bytes:
        return b" AND ".join(
            b"CAST(t.%s AS BINARY) <=> CAST(b.%s AS BINARY)" % (quoted(name), quoted(name))
            for name in self.target.identity
        )

    def _by_name(self, name: str) -> Column:
        return next(c for c in self.columns if c.name.lower() == name.lower())

    def _primary(self, alias: bytes) -> bytes:
        return b",".join(_of(self._by_name(name), alias) for name, _ in self.target.primary_key)

    def _values(self) -> bytes:
        return b",".join(_of(column, b"t") for column in self.columns)

    # ── literals and statements made of them ──

    def primary_literals(self) -> list[Literal]:
        """For each column of the primary key; comparable without a look at all rows."""
        return [
            (_text(charset) if charset not in ("", "binary") else self._by_name(name).literal)
            for name, charset in self.target.primary_key
        ]

    def literals(self, new: bool = False) -> list[Literal]:
        """For each column; new: of those that new rows bring."""
        return [column.literal for column in (self._stored if new else self.columns)]

    def delete(self, values: list[bytes]) -> bytes:
        """DELETE of one row."""
        return b"DELETE FROM %s WHERE %s" % (self.table, self._is(values))

    def update(self, values: list[bytes]) -> bytes:
        """UPDATE of one row."""
        count = len(self.target.primary_key)
        sets = b",".join(
            quoted(column.name) + b"=" + value for column, value in zip(self.columns, values[count:], strict=True)
        )
        return b"UPDATE %s SET %s WHERE %s" % (self.table, sets, self._is(values[:count]))

    def insert(self, values: list[bytes]) -> bytes:
        """The row as it stands in VALUES."""
        return b"(" + b",".join(values) + b")"

    def insert_head(self) -> bytes:
        return b"INSERT INTO %s (%s) VALUES " % (self.table, b",".join(quoted(column.name) for column in self._stored))

    @property
    def _stored(self) -> list[Column]:
        """The columns whose values new rows bring."""
        return [column for column in self.columns if column.name != self.uncounted]

    def _is(self, values: list[bytes]) -> bytes:
        names = [quoted(name) for name, _ in self.target.primary_key]
        return b" AND ".join(name + b"=" + value for name, value in zip(names, values, strict=True))

    def homes(self, key: bytes | None) -> tuple[int, ...]:
        """The shards of a row with this shard key. Raises RouteError."""
        target = self.target
        table, keyspace = target.table, target.keyspace
        if table.kind is TableKind.REFERENCE:
            return keyspace.shards
        if table.shard is not None:
            return (table.shard,)
        if key is None:
            raise RouteError(f"the shard key {table.name}.{table.key} of a row would be NULL")
        try:
            if keyspace.key_type is KeyType.INT:
                return (keyspace.map.lookup(int(key)),)
            return (keyspace.map.lookup(canonical_text(key) if keyspace.key_type is KeyType.TEXT else key),)
        except UnmappedKey:
            raise RouteError(
                f"no range of keyspace '{keyspace.name}' holds the key {key.decode('utf-8', 'replace')}: add a range "
                f"to keyspaces.{keyspace.name}.ranges"
            ) from None


def _of(column: Column, alias: bytes) -> bytes:
    """The column's expression for the table with this alias."""
    name = quoted(column.name)
    return column.expression.replace(name, alias + b"." + name)


def _text(charset: str) -> Literal:
    def literal(value: bytes) -> bytes:
        return b"_" + charset.encode() + string(value)

    return literal


def _key_literal(value: bytes) -> bytes:
    """Not NULL, whatever it is."""
    return b"=" + value


class _Placed(Rows):
    """Rows with the shard key in front, as statements by shard."""

    def __init__(
        self,
        literals: Sequence[Literal],
        deprecate_eof: bool,
        homes: Callable[[bytes | None], Sequence[int]],
        form: Form,
    ) -> None:
        super().__init__((_key_literal, *literals), deprecate_eof, False)
        self._homes = homes
        self._form = form
        self.of: dict[int, list[bytes]] = {}

    def add(self, literals: list[bytes]) -> None:
        key = literals[0]
        text = self._form(literals[1:])
        self.pending += len(text)
        for shard in self._homes(None if key == b"NULL" else key[1:]):
            self.of.setdefault(shard, []).append(text)


class WriteBack:
    """One statement's changes on their way to the shards. Connections are in the state `scratch_tables.exact`."""

    def __init__(self, home: BackendConnection, enlistment: Enlistment) -> None:
        self._home = home
        self._enlistment = enlistment
        self.first_counted = 0  # the first number that a shard's server has counted
        self._connections: Mapping[int, BackendConnection] = dict(
            zip(enlistment.shards, enlistment.connections, strict=True)
        )

    async def write(self, tables: Sequence[Changed]) -> None:
        """Raises SqlError; the caller then undoes all."""
        gathered = [one for one in tables if one.before]
        for one in gathered:
            await self._each(one, one.deleted(), one.primary_literals(), one.delete, self._singly)
        for one in gathered:
            literals = [*one.primary_literals(), *one.literals()]
            await self._each(one, one.updated(), literals, one.update, self._singly)
        for one in tables:
            await self._each(one, one.inserted(), one.literals(new=True), one.insert, self._together)

    async def _each(
        self,
        one: Changed,
        text: bytes,
        literals: Sequence[Literal],
        form: Form,
        run: Run,
    ) -> None:
        home = self._home
        rows = _Placed(literals, bool(home.scanner.deprecate_eof), one.homes, form)
        part = Part(home)
        home.send(packet(b"\x03" + text, 0), part)
        while not rows.whole:
            data = await part.take()
            if not data:
                raise BackendLost(f"an answer of {home.pool.server.name} ended too early")
            rows.feed(data)
            if rows.pending >= PIECE:
                await self._flush(one, rows, run)
        await self._flush(one, rows, run)
        if part.paused:
            home.transport.resume_reading()

    async def _flush(self, one: Changed, rows: _Placed, run: Run) -> None:
        rows.pending = 0
        texts, rows.of = rows.of, {}
        for shard in sorted(texts):
            self._enlistment.writes((shard,))
            await run(one, self._connections[shard], texts[shard])

    async def _singly(self, one: Changed, connection: BackendConnection, texts: list[bytes]) -> None:
        for i in range(0, len(texts), _AT_ONCE):
            for reply in await connection.queries(texts[i : i + _AT_ONCE]):
                _check(one, connection, reply, 1)

    async def _together(self, one: Changed, connection: BackendConnection, texts: list[bytes]) -> None:
        reply = await connection.query(one.insert_head() + b",".join(texts))
        _check(one, connection, reply, len(texts))
        if one.uncounted and not self.first_counted:
            self.first_counted = reply.insert_id


def _check(one: Changed, connection: BackendConnection, reply: Reply, rows: int) -> None:
    if reply.failed:
        raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
    if reply.affected != rows:
        raise BackendError(
            f"{one.table.decode('utf-8', 'replace')} on {connection.pool.server.name}: a row that the statement "
            "changes is not where its shard key says; run `shardctl check`"
        )
