"""A SELECT on several shards whose rows become one answer: sorted streams merged, in bounded memory.

Each shard is asked the statement with its sort keys as hidden columns in front (planner.merge_text); the rows go on as
the bytes they came as, without those columns. What the plan could not know, the types and collations of the keys, the
shards' own answers tell; where they tell of something that cannot be merged exactly, NotMergeable is raised before a
byte has gone out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, BackendLost, ProtocolError, SqlError
from shardproxy.executor import scatter
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.executor.merge_groups import check_rolled_up, grouped, sorted_payloads
from shardproxy.executor.merge_having import numbers
from shardproxy.executor.merge_keys import Described, NotMergeable, learn_blanks
from shardproxy.executor.request import Request
from shardproxy.executor.scatter import Part, twice
from shardproxy.executor.spill import Sorter
from shardproxy.merge import keys
from shardproxy.merge.concatenated import JoinError
from shardproxy.merge.grouped import Grouped
from shardproxy.merge.having import Exact
from shardproxy.merge.keys import KeyPart
from shardproxy.merge.ordered import NO_LIMIT, Ordered, Window, packed, packets_of
from shardproxy.merge.stream import ShardStream, first_values
from shardproxy.planner.merge_plan import FinalTerm, MergePlan, Number, SortKey
from shardproxy.planner.merge_text import shard_text
from shardproxy.planner.plan import Value
from shardproxy.planner.template import Template
from shardproxy.protocol.mysql.columns import same_shape
from shardproxy.protocol.mysql.commands import StmtPrepare
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_eof, build_err, build_ok, lenenc_int, parse_err
from shardproxy.protocol.mysql.response import PREPARE
from shardproxy.router.route import Route
from shardproxy.topology.keys import KeyType

# What a server says of names, groups and distinct rows: where the client's own text is fine, ours is not.
_OF_OUR_TEXT = frozenset({1052, 1054, 1055, 1056, 1064, 1111, 1140, 3029, 3065})
OUT = 1024  # rows that are packed at once


@dataclass(frozen=True, slots=True)
class Bound:
    """A merge plan with the values at hand."""

    text: Template
    keys: tuple[SortKey, ...]
    hidden: int  # how many columns are ours
    final: tuple[FinalTerm, ...]  # of groups, without positions
    limit: int
    offset: int
    numbers: dict[Number, Exact]  # of HAVING


async def merged(request: Request, found: Route) -> None:
    """Answer by a merge. Raises SqlError before the answer has begun; NotMergeable when there is another way to try."""
    plan = request.plan.merge
    assert plan is not None
    bound = bind(plan, request)

    async def send() -> None:
        async with enlisted(request.client, request.plan, found.shards, replica=found.replica, write=False) as taken:
            merging = _Merging(request, plan, bound, taken, request.client)
            await merging.run()
        request.client.write(merging.end)
        request.client.finish()

    await twice(request.client, send)


async def merged_on(request: Request, taken: Enlistment) -> bytes:
    """The merged answer of connections that are taken already, but for its end, which comes back: it is sent when
    nothing is held on the shards any more. Raises as `merged`."""
    plan = request.plan.merge
    assert plan is not None
    merging = _Merging(request, plan, bind(plan, request), taken, request.client)
    await merging.run()
    return merging.end


async def merged_rows(request: Request, taken: Enlistment) -> tuple[bytes, int]:
    """The wire bytes of the merged answer, which is short and goes to nobody, and its warnings. Raises as `merged`."""
    plan = request.plan.merge
    assert plan is not None
    kept = _Kept()
    merging = _Merging(request, plan, bind(plan, request), taken, kept)
    await merging.run()
    if merging.broken is not None:
        raise merging.broken
    return b"".join(kept.data) + merging.end, sum(stream.warnings for stream in merging.streams)


class Out(Protocol):
    """Where an answer goes: the client, or who asked for it."""

    def write(self, data: bytes) -> None:
        """More wire bytes."""

    async def drained(self) -> None:
        """Wait until there is room for more."""


class _Kept:
    """Keeps all."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.data.append(data)

    async def drained(self) -> None:
        return


def bind(plan: MergePlan, request: Request) -> Bound:
    """The plan with this request's positions and LIMIT. Raises NotMergeable."""
    if any(request.literals[a] != request.literals[b] for a, b in plan.same):
        raise NotMergeable("expressions that are equal but for a constant in them")
    having = numbers(plan.groups.having, request) if plan.groups is not None else {}
    chosen: list[SortKey] = []
    positions: list[int] = []
    for term in plan.order:
        key, position = term.key, term.item
        if term.position is not None:
            position = _position(request, term.position)
            key = plan.item_keys[position - 1] if 1 <= position <= len(plan.item_keys) else None
        if key is None:
            raise NotMergeable("ORDER BY a position that cannot be merged over several shards")
        chosen.append(key)
        positions.append(position)
    group_positions = [0 if term.position is None else _position(request, term.position) for term in plan.group]
    limit = NO_LIMIT if plan.limit is None else _number(request, plan.limit)
    offset = 0 if plan.offset is None else _number(request, plan.offset)
    most = -1 if plan.limit is None or plan.limited_late else min(limit + offset, NO_LIMIT - 1)
    text = shard_text(plan, chosen, positions, group_positions, most)
    hidden = sum(len(key.columns) for key in chosen) + (len(plan.groups.hidden) if plan.groups is not None else 0)
    return Bound(text, tuple(chosen), hidden, _final(plan, request), limit, offset, having)


def _final(plan: MergePlan, request: Request) -> tuple[FinalTerm, ...]:
    """The terms by which groups are sorted afterwards, positions replaced by what they mean."""
    terms: list[FinalTerm] = []
    for term in plan.groups.final if plan.groups is not None else ():
        if term.position is not None and plan.groups is not None:
            number = _position(request, term.position)
            if not 1 <= number <= len(plan.groups.choices):
                raise NotMergeable("ORDER BY a position that is not in the select list")
            term = replace(plan.groups.choices[number - 1], descending=term.descending)
        terms.append(term)
    return tuple(terms)


def _position(request: Request, value: Value) -> int:
    """The select item that a plain number means; of a parameter or a text in its place the servers decide."""
    literal = request.literals[value.index]
    if not literal.isdigit():
        raise NotMergeable("ORDER BY and GROUP BY of a constant over several shards")
    return int(literal)


def _number(request: Request, value: Value) -> int:
    """Of LIMIT: a plain number, or a parameter that is one."""
    literal = request.literals[value.index]
    number = request.read(value, KeyType.INT) if literal.isdigit() or literal == b"?" else None
    if not isinstance(number, int) or not 0 <= number < 1 << 64:
        raise NotMergeable("LIMIT over several shards must be a plain number")
    return number


class _Merging:
    """One attempt at it."""

    def __init__(self, request: Request, plan: MergePlan, bound: Bound, taken: Enlistment, out: Out) -> None:
        self.client = request.client
        self.out = out
        self.broken: SqlError | None = None  # what ended the answer after it had begun
        self.request = request
        self.plan = plan
        self.bound = bound
        self.taken = taken
        self.deprecate_eof = bool(taken.connections[0].scanner.deprecate_eof)
        self.parts = [Part(connection) for connection in taken.connections]
        self.streams = [ShardStream(self.deprecate_eof, request.binary) for _ in self.parts]
        self.rolled_up: ShardStream | None = None  # the head of the answer, where the shards' differ from it
        self.seq = 1
        self.began = False
        self.end = b""  # the last packet: it goes out when nothing is held on the shards any more

    async def run(self) -> None:
        """The whole answer."""
        await self._columns()
        await self._send()
        try:
            await self._heads()
            described = await self._describe()
            parts = self._decode(described)
            window = Window(self.bound.limit, self.bound.offset)
            groups = self._groups(described, parts) if self.plan.groups is not None else None
            sorts = self.plan.groups is not None and self.plan.groups.whole
            if not sorts:
                self._begin()
            if groups is None:
                await self._rows(window)
            elif sorts:
                await self._sorted_groups(groups, window)
            else:
                while not groups.done and not window.full:
                    await self._feed(groups.hungry())
                    await self._write(window.cut(groups.round()[1]))
            self._end()
        except JoinError as error:
            self._failed(NotMergeable(str(error)))
        except (SqlError, ProtocolError) as error:
            self._failed(error)

    async def _columns(self) -> None:
        """Of WITH ROLLUP a shard tells the columns, from the client's own text. Raises SqlError."""
        rollup = self.plan.groups.rollup if self.plan.groups is not None else None
        if rollup is None:
            return
        reply = await self.request.run(self.taken.connections[0], self.request.render(rollup.described))
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        told = ShardStream(self.deprecate_eof, self.request.binary)
        told.feed(reply.data)
        self.rolled_up = told

    async def _rows(self, window: Window) -> None:
        merge = Ordered(self.streams, self.plan.distinct)
        while not merge.done and not window.full:
            await self._feed(merge.hungry())
            await self._write(window.cut(merge.round()))

    async def _sorted_groups(self, groups: Grouped, window: Window) -> None:
        count = 0
        with Sorter(self.bound.limit + self.bound.offset) as sorter:
            while not groups.done:
                await self._feed(groups.hungry())
                keys, rows = groups.round()
                if not self.bound.final:  # whole before the first goes out, in the order in which they come
                    keys = [number.to_bytes(8, "big") for number in range(count, count + len(rows))]
                    count += len(rows)
                sorter.add(keys, rows)
            self._begin()
            for rows in sorter.sorted():
                await self._write(window.cut(rows))
                if window.full:
                    break

    async def _send(self) -> None:
        client, request = self.client, self.request
        await learn_blanks(self.taken.connections[0], self._all_keys(), client.mariadb)
        wires = []
        plain = request.render(self.bound.text)
        for shard, connection in zip(self.taken.shards, self.taken.connections, strict=True):
            text = request.render(self.bound.text, shard) if self.bound.text.differs_on(shard) else plain
            try:
                wires.append(await request.wire_for(connection, text))
            except BackendError as error:
                if isinstance(error, BackendLost):
                    raise
                raise await self._own_error(connection, error) from error
        for part, wire in zip(self.parts, wires, strict=True):
            if client.entry is not None:
                client.entry.series[part.connection.pool.slot] += 1
            part.start(wire)
            if request.plan.locks:
                await part.far()  # it has its locks: the shards are locked in order

    async def _heads(self) -> None:
        for part, stream in zip(self.parts, self.streams, strict=True):
            while not stream.headed and not stream.ended:
                stream.feed(await part.take())
            if stream.error:
                self._release(part)
                err = parse_err(stream.error)
                raise await self._own_error(part.connection, BackendError(err.text, err.code, err.sqlstate))
        first = self.streams[0].definitions
        for stream in self.streams[1:]:
            if len(stream.definitions) != len(first):
                raise BackendError("the shards give different numbers of columns: run `shardctl check`")
            for i, (ours, theirs) in enumerate(zip(first, stream.definitions, strict=True)):
                if not same_shape(ours, theirs):
                    shown = i + 1 - self.bound.hidden
                    raise BackendError(
                        f"the shards describe column {shown} of the result differently: run `shardctl check`"
                    )

    async def _own_error(self, connection: BackendConnection, error: BackendError) -> SqlError:
        """The error that the client's own text gets: ours may name columns that are not the client's."""
        pool = connection.pool
        for part in self.parts:
            self._release(part)
        other = await pool.checkout(self.client.session.profile)
        try:
            reply = await other.command(StmtPrepare(self.request.sql).build(), PREPARE)
        except BaseException:
            pool.release(other)
            raise
        other.tainted = not reply.failed
        pool.release(other) if other.tainted else pool.checkin(other)
        if reply.failed:
            return BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        if error.code in _OF_OUR_TEXT:
            return NotMergeable(f"a server does not take the statement with sort keys put in ({error})")
        return error

    async def _describe(self) -> Described:
        """The columns, with the first row of any shard when a key needs it."""
        definitions = self.streams[0].definitions
        row = await self._first_row() if any(len(key.columns) > 1 for key in self._all_keys()) else b""
        values = first_values(row, self.bound.hidden, definitions, self.request.binary) if row else []
        return Described(definitions, values, self.client.mariadb, self.request.binary)

    def _all_keys(self) -> list[SortKey]:
        """Those of the terms, and those by which cells are compared."""
        cells = self.plan.groups.cells if self.plan.groups is not None else ()
        return [*self.bound.keys, *(cell.key for cell in cells if cell.key is not None)]

    async def _first_row(self) -> bytes:
        for part, stream in zip(self.parts, self.streams, strict=True):
            while not (row := stream.first_row()):
                data = await part.take()
                if not data:
                    break
                stream.feed(data)
            if row:
                return row
        return b""

    def _decode(self, described: Described) -> list[KeyPart]:
        whole = self.plan.distinct or self.plan.groups is not None
        parts: list[KeyPart] = []
        at = 0
        for key, term in zip(self.bound.keys, self.plan.order, strict=True):
            part = described.part(key, at, term.descending, whole)
            if self.plan.branches and part.kind == keys.DOUBLE:
                raise NotMergeable("a UNION sorted or told apart by floating-point numbers")
            parts.append(part)
            at += len(key.columns)
        for stream in self.streams:
            stream.decode(parts, at)
        return parts

    def _groups(self, described: Described, parts: list[KeyPart]) -> Grouped:
        assert self.plan.groups is not None
        return grouped(self.plan.groups, self.bound.final, self.bound.numbers, self.streams, described, parts)

    def _begin(self) -> None:
        hidden = self.bound.hidden
        payloads = self.streams[0].payloads[hidden:]
        if self.rolled_up is not None:
            check_rolled_up(self.rolled_up.definitions, self.streams[0].definitions[hidden:])
            payloads = self.rolled_up.payloads
        elif self.plan.groups is not None:
            payloads = sorted_payloads(self.plan.groups, payloads, self.streams[0].definitions[hidden:])
        head = [lenenc_int(len(payloads)), *payloads]
        if not self.deprecate_eof:
            head.append(build_eof(2, 0))
        self.began = True
        self.out.write(b"".join([packet(payload, seq) for seq, payload in enumerate(head, 1)]))
        self.seq = len(head) + 1

    async def _feed(self, hungry: Sequence[ShardStream]) -> None:
        for stream in hungry:
            part = self.parts[self.streams.index(stream)]
            while not stream.ended and not stream.waiting:
                stream.feed(await part.take())
            if stream.ended:
                self._release(part)
        for stream in self.streams:  # an error may have come together with a shard's first rows
            if stream.error:
                err = parse_err(stream.error)
                raise BackendError(err.text, err.code, err.sqlstate)

    async def _write(self, rows: list[bytes]) -> None:
        for start in range(0, len(rows), OUT):
            some = rows[start : start + OUT]
            self.out.write(packed(some, self.seq))
            self.seq = (self.seq + packets_of(some)) & 0xFF
            await self.out.drained()

    def _end(self) -> None:
        warnings = min(sum(stream.warnings for stream in self.streams), 0xFFFF)
        session = self.client.session
        session.affected = -1
        session.warnings = warnings
        status = scatter.status_told(self.client, self.streams[0].status)
        self._release_all()
        if self.deprecate_eof:
            self.end = packet(build_ok(0, 0, status, warnings, header=0xFE), self.seq)
        else:
            self.end = packet(build_eof(status, warnings), self.seq)

    def _failed(self, error: SqlError | ProtocolError) -> None:
        """Before the answer has begun the error is the caller's; after, it ends the answer."""
        self._release_all()
        told = error if isinstance(error, SqlError) else BackendError(str(error))
        if not self.began:
            raise told
        self.broken = told
        self.client.session.affected = -1
        self.out.write(packet(build_err(told.code, told.sqlstate, str(told)), self.seq))

    def _release_all(self) -> None:
        for part in self.parts:
            self._release(part)

    def _release(self, part: Part) -> None:
        part.finish(self.taken)
