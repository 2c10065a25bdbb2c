"""Statements that name a row by the value of a lookup index: the index is asked first, then one shard.

Entry and row are read at two moments, and a transaction that moves a value to a row on another shard commits on one
shard a moment before the other. A row that is found is right whatever happens meanwhile, for the shard itself looked
at its columns; and a value that has no entry has no row, for it keeps one while it moves. What is left is an answer
without a row, or one that does not show whether there was a row (an aggregate), though there is an entry:

- Plain reads are then *certain* only beside a proof: the row is read by its value alone in the same snapshot. If it is
  there, the answer is right. If not, a move is about to become visible: entry and row are read again with shared locks,
  which waits for its commit, and all begins anew.
- Writes and reads with locks see the newest rows and wait for those that move here. They find none when the row has
  moved away: the entry, read again with a shared lock, is another one then, and all begins anew. An entry that is made
  anew has another version.

In a transaction a plain read has the entry from the transaction's own snapshot of that shard, and no such proof: there
the shards' snapshots are of different moments anyway. What locks or changes rows reads the newest entry, outside the
transaction unless this has been on the entry's shard already: then it may have changed the entry itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import SqlError
from shardproxy.executor import fenced, hidden_duplicates, lookup_reads, lookup_writes, scatter, several, shares, single
from shardproxy.executor.client import Client
from shardproxy.executor.enlist import enlisted
from shardproxy.executor.lookup_entries import found_rows, known_text_value, rows_of, text_value
from shardproxy.executor.request import Request
from shardproxy.executor.transaction import all_ok
from shardproxy.merge import counts
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_conditions import READ_AS
from shardproxy.planner.lookup_plan import Index, LookedUp, Part, PartKind
from shardproxy.planner.lookup_rows import FoundRow
from shardproxy.planner.plan import Plan, Spread, StatementKind, Value
from shardproxy.planner.sort_keys import is_padded
from shardproxy.planner.template import Piece, Template
from shardproxy.planner.unseen import key_condition
from shardproxy.router.route import Resolved, Route, route
from shardproxy.session.profile import Profile, with_variables
from shardproxy.topology.keys import KeyType, has_four_bytes
from shardproxy.topology.lookup import entry_value, home
from shardproxy.topology.maps import UnmappedKey

_ATTEMPTS = 8  # then every shard is asked, as without an index
_SHARED = b" LOCK IN SHARE MODE"
_EXCLUSIVE = b" FOR UPDATE"
_READ_VIEW = (b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", b"START TRANSACTION READ ONLY")
_ASCII = frozenset({"latin1", "ascii"})  # character sets that not every text can be converted to

Seen = tuple[bytes | None, bytes | None] | None  # an entry: shard key and version; None: there is none


class _ChangedError(Exception):
    """An entry is another one by now, or its row is not where it says."""


@dataclass(slots=True)
class _Asked:
    """What the indexes said. shards: for each condition; entries: what was read, to compare; proofs: condition,
    literals and bytes of each value that has an entry; outside: it was read in no transaction, so it may change any
    time; apart: none may be read in it."""

    shards: dict[LookedUp, frozenset[int]] = field(default_factory=dict)
    entries: dict[tuple[Index, bytes], Seen] = field(default_factory=dict)
    proofs: list[tuple[LookedUp, Sequence[Value], bytes]] = field(default_factory=list)
    outside: bool = False
    apart: bool = False


def start(request: Request) -> Coroutine[Any, Any, None] | None:
    """The rest of a command whose plan has lookups; a coroutine where it cannot be begun at once. Raises SqlError."""
    client, plan = request.client, request.plan
    if client.session.simple and not request.using and lookup_reads.serves(plan):
        [looked] = plan.lookups
        value = _known_value(request, looked.index, looked.values[0])
        if value is not None and lookup_reads.begin(request, value, lambda attempt: client.run(run(request, attempt))):
            return None
    return run(request)


async def run(request: Request, first: int = 0) -> None:
    """The same as a task. first: number of the attempt that it begins with. Raises SqlError."""
    client, plan = request.client, request.plan
    held = client.session.shard
    snapshot = client.map
    if not _settled(request, held):
        for attempt in range(first, _ATTEMPTS):
            asked = await _ask(request)
            found = route(plan, request.read, snapshot, held, asked.shards)
            if len(found.shards) != 1 or not _limited_to(request.plan, found.shards[0]):
                break
            try:
                await _on_one(request, found, asked, attempt > 0)
            except _ChangedError:
                continue
            return
    found = route(plan, request.read, snapshot, held)
    await _as_ever(request, found)


def _limited_to(plan: Plan, shard: int) -> bool:
    """Whether the shard that an index names can answer alone: it may have a row with the value that it hides, an older
    one or the one of the entry itself on its way. For the condition is on the value, not on the key."""
    return plan.text is not None or not plan.hides_on(shard)


async def resolve(request: Request) -> Resolved:
    """What the indexes say now, asked outside the session's transaction. Raises SqlError."""
    return (await _ask(request, apart=True)).shards


def _settled(request: Request, held: int) -> bool:
    """Whether one shard comes out without asking an index; or more is wanted of its connection than an answer."""
    if request.client.session.pins or request.plan.pins or request.plan.found_rows or request.plan.assigns:
        return True
    try:
        return len(route(request.plan, request.read, request.client.map, held).shards) == 1
    except SqlError:
        return False


async def _as_ever(request: Request, found: Route) -> None:
    """As a plan without lookups."""
    client, plan = request.client, request.plan
    if plan.entries is not None:
        await lookup_writes.write(request, found)
    elif len(found.shards) == 1 and client.crossing and fenced.alone(client):
        await fenced.one(request, found.shards[0])
    elif len(found.shards) == 1 and (plan.groups or plan.spread is not Spread.SCRATCH):
        connection = await single.take(client, plan, found.shards[0], found.replica)
        try:
            wire = await request.wire_for(connection)
        except BaseException:
            if client.held is None:
                connection.pool.release(connection)
            raise
        client.relay_from(connection, wire, found.shards[0])
    else:
        await several.run(request, found)


# ── asking ──


async def _ask(request: Request, apart: bool = False) -> _Asked:
    """The entries of all values that the statement names. apart: never in the transaction. Raises SqlError."""
    asked = _Asked(apart=apart)
    for looked in request.plan.lookups:
        shards: set[int] = set()
        for values in looked.values:
            value = await _value(request, looked.index, values)
            shard = -1 if value is None else await _shard_of(request, looked.index, value, asked)
            if shard == _ANYWHERE:
                break
            if shard >= 0 and value is not None:
                shards.add(shard)
                asked.proofs.append((looked, values, value))
        else:
            asked.shards[looked] = frozenset(shards)
    return asked


_ANYWHERE = -1
_NOWHERE = -2


async def _shard_of(request: Request, index: Index, value: bytes, asked: _Asked) -> int:
    keyspace = lookup_reads.keyspace_of(request.plan, index)
    entry = asked.entries[index, value] = await _read_entry(request, index, value, asked)
    if entry is None or entry[0] is None:
        return _NOWHERE
    try:
        return keyspace.map.lookup(lookup_text.key_of(index, entry[0]))
    except (UnmappedKey, ValueError):
        return _ANYWHERE


async def _read_entry(request: Request, index: Index, value: bytes, asked: _Asked) -> Seen:
    client, plan = request.client, request.plan
    shard = home(lookup_reads.keyspace_of(plan, index), value)
    if client.session.simple or asked.apart:
        asked.outside = True
        return await _outside(client, shard, lookup_text.entry_read(index, value))
    plain = plan.kind is StatementKind.SELECT and plan.read
    if not plain and not _takes_part(client, shard):
        asked.outside = True
        return await _outside(client, shard, lookup_text.entry_read(index, value))
    lock = b"" if plain else _EXCLUSIVE if plan.entries is not None else _SHARED
    async with enlisted(client, plan, (shard,), replica=False, write=False) as enlistment:
        rows = await rows_of(enlistment.connections[0], lookup_text.entry_read(index, value, lock))
    return _seen(rows)


def _takes_part(client: Client, shard: int) -> bool:
    """Whether the session's transaction is on this shard."""
    if client.held is None:
        return False
    return client.session.shard == shard or (client.spanning is not None and client.spanning.on(shard) is not None)


async def _outside(client: Client, shard: int, text: bytes) -> Seen:
    """From the primary, in no transaction: replicas may be behind each other."""
    pool = client.gateway.shards[shard].primary
    connection = await pool.checkout(_autocommitting(client))
    try:
        rows = await rows_of(connection, text)
    except BaseException:
        pool.release(connection)
        raise
    pool.checkin(connection)
    return _seen(rows)


def _seen(rows: Sequence[Sequence[bytes | None]]) -> Seen:
    return (rows[0][0], rows[0][1]) if rows else None


def _autocommitting(client: Client) -> Profile:
    session = client.session
    return session.profile if session.autocommit else with_variables(session.profile, {"autocommit": "1"})


async def _value(request: Request, index: Index, values: Sequence[Value]) -> bytes | None:
    """The bytes of an entry from the statement's literals; None when these may equal other values, too."""
    parts = []
    for part, value in zip(index.parts, values, strict=True):
        found = await _part(request, index, part, value)
        if found is None:
            return None
        parts.append(found)
    return entry_value(parts)


def _known_value(request: Request, index: Index, values: Sequence[Value]) -> bytes | None:
    """As `_value`; None also when a server must be asked."""
    parts = []
    for part, value in zip(index.parts, values, strict=True):
        read = _read(request, part, value)
        if read is not None and part.kind is PartKind.TEXT:
            read = known_text_value(part, read, request.client.mariadb)
        if read is None:
            return None
        parts.append(read)
    return entry_value(parts)


def _read(request: Request, part: Part, value: Value) -> bytes | None:
    """The bytes of a part, of a text those that its weights are made of; None when it may equal other values, too."""
    read = request.read(value, READ_AS[part.kind])
    if isinstance(read, int):
        return b"%d" % read
    if not isinstance(read, bytes) or part.kind is PartKind.BINARY:
        return read if isinstance(read, bytes) else None
    if not read.isascii() and (part.charset in _ASCII or (part.charset == "utf8mb3" and has_four_bytes(read))):
        return None
    if not is_padded(part.collation):
        whole = request.read(value, KeyType.BINARY)  # blanks at the end count
        return whole if isinstance(whole, bytes) else None
    return read


async def _part(request: Request, index: Index, part: Part, value: Value) -> bytes | None:
    read = _read(request, part, value)
    if read is None or part.kind is not PartKind.TEXT:
        return read
    client = request.client
    known = known_text_value(part, read, client.mariadb)
    if known is not None:
        return known
    pool = client.gateway.shards[lookup_reads.keyspace_of(request.plan, index).shards[0]].primary
    connection = await pool.checkout(_autocommitting(client))
    try:
        found = await text_value(connection, part, read, client.mariadb)
    except BaseException:
        pool.release(connection)
        raise
    pool.checkin(connection)
    return found


# ── the statement itself ──


async def _on_one(request: Request, found: Route, asked: _Asked, certain: bool) -> None:
    """On the one shard that came out. certain: with proof. Raises SqlError, and _ChangedError when nothing has been
    done or told."""
    plan, client = request.plan, request.client
    check = partial(_check, request, asked)
    if plan.entries is not None:
        await lookup_writes.write(request, found, check)
    elif plan.kind in (StatementKind.UPDATE, StatementKind.DELETE):
        await _write(request, found, check)
    elif not plan.read or not client.session.simple or not any(asked.entries.values()):
        await _select(request, found, check)
    elif certain or not lookup_reads.shows_rows(plan):
        await _read_certainly(request, found.shards[0], asked)
    else:
        await _select(request, found, _doubt)


async def _doubt() -> None:
    raise _ChangedError


async def _check(request: Request, asked: _Asked) -> None:
    """Raise _ChangedError when an entry that was read outside transactions is another one by now; waits for those who
    are changing it."""
    for (index, value), before in asked.entries.items() if asked.outside else ():
        if before is None:
            continue
        shard = home(lookup_reads.keyspace_of(request.plan, index), value)
        if await _outside(request.client, shard, lookup_text.entry_read(index, value, _SHARED)) != before:
            raise _ChangedError


async def _write(request: Request, found: Route, check: Callable[[], Awaitable[None]]) -> None:
    """UPDATE or DELETE that changes no entry."""
    client, plan = request.client, request.plan
    told = shares.Told()
    async with enlisted(client, plan, found.shards, replica=False, write=True) as enlistment:
        connection = enlistment.connections[0]
        reply = await request.run(connection, request.for_shard(found.shards[0]))
        ok = await shares.take(told, client, connection, reply)
        if not counts.found(ok.info, ok.affected):
            await check()
    if ok.insert_id:
        client.session.insert_id = ok.insert_id
    client.ok(told.affected, ok.insert_id, told.warnings, told.info, told.sorted_conditions())


async def _select(request: Request, found: Route, check: Callable[[], Awaitable[None]]) -> None:
    """SELECT: its rows; check: called when there are none, or they do not show whether there is a row."""
    client, plan = request.client, request.plan

    async def first(rows: bool) -> None:
        if not rows or not lookup_reads.shows_rows(plan):
            await check()

    async def send() -> None:
        ready = None if request.execution is None else request.prepared_on
        await scatter.scatter(client, plan, found.shards, found.replica, request.wire_on, ready, first)

    await scatter.twice(client, send)


async def _read_certainly(request: Request, shard: int, asked: _Asked) -> None:
    """SELECT on the primary, in one snapshot with a proof that the rows of the entries are there."""
    client, plan = request.client, request.plan

    async def prove(connection: BackendConnection, shard: int) -> None:
        await all_ok(connection, _READ_VIEW)
        for looked, values, value in asked.proofs:
            rows = await _rows_with(request, connection, shard, looked, values)
            if [row.values[0] for row in rows] != [value]:
                raise _ChangedError
        await request.prepared_on(connection, shard)

    async def send() -> None:
        await scatter.scatter(client, plan, (shard,), False, request.wire_on, prove, read_view=True)

    try:
        await scatter.twice(client, send)
    except _ChangedError:
        await _wait(request, shard, asked)
        raise


async def _wait(request: Request, shard: int, asked: _Asked) -> None:
    """Wait for the commits of transactions that have changed rows or entries on one shard and not yet on the other."""
    client = request.client
    for looked, values, value in asked.proofs:
        at_home = home(lookup_reads.keyspace_of(request.plan, looked.index), value)
        await _outside(client, at_home, lookup_text.entry_read(looked.index, value, _SHARED))
        pool = client.gateway.shards[shard].primary
        connection = await pool.checkout(_autocommitting(client))
        try:
            await _rows_with(request, connection, shard, looked, values, _SHARED)
        except BaseException:
            pool.release(connection)
            raise
        pool.checkin(connection)


async def _rows_with(
    request: Request,
    connection: BackendConnection,
    shard: int,
    looked: LookedUp,
    values: Sequence[Value],
    lock: bytes = b"",
) -> list[FoundRow]:
    """The rows of a shard with these values of the index, whatever else the statement asks of them; without those that
    it hides."""
    index = looked.index
    pieces: list[Piece] = [
        b"SELECT %s FROM %s.%s WHERE "
        % (lookup_text.select_list((index,), ()), lookup_text.name(index.schema), lookup_text.name(index.table))
    ]
    pieces += hidden_duplicates.equal_pieces(index, values)
    hidden = key_condition(lookup_reads.keyspace_of(request.plan, index), index.table, b" AND ")
    if hidden is not None:
        pieces.append(hidden)
    pieces.append(lookup_text.ALL + lock)
    return await found_rows(request, connection, request.render(Template(tuple(pieces)), shard), (index,), ())
