"""Statements that name a row by the value of a lookup index: the index is asked first, then one shard.

Entry and row are read at two moments. What the entry said may be wrong by the second: the row is gone, or the value is
another row's, on another shard. A row that is found is right whatever happened meanwhile, for the shard itself looked
at its columns. An answer without it is believed only when the entry, read again, has not changed: an entry that is
made anew has another version. Else it all begins again.

In a transaction a plain read has the entry from the transaction's own snapshot of that shard. What locks or changes
rows sees the newest rows, so it reads the newest entry, outside the transaction unless this has been on the entry's
shard already: then it may have changed the entry itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import SqlError
from shardproxy.executor import lookup_writes, scatter, several, shares, single
from shardproxy.executor.client import Client
from shardproxy.executor.enlist import enlisted
from shardproxy.executor.lookup_entries import known_text_value, rows_of, text_value
from shardproxy.executor.request import Request
from shardproxy.merge import counts
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_conditions import READ_AS
from shardproxy.planner.lookup_plan import Index, LookedUp, Part, PartKind
from shardproxy.planner.plan import Plan, Spread, StatementKind, Value
from shardproxy.planner.sort_keys import is_padded
from shardproxy.router.route import Resolved, Route, route
from shardproxy.session.profile import Profile, with_variables
from shardproxy.topology.keys import KeyType
from shardproxy.topology.lookup import entry_value, home
from shardproxy.topology.maps import UnmappedKey

_ATTEMPTS = 8  # then every shard is asked, as without an index
_SHARED = b" LOCK IN SHARE MODE"
_EXCLUSIVE = b" FOR UPDATE"
_ASCII = frozenset({"latin1", "ascii"})  # character sets that not every text can be converted to

Seen = tuple[bytes | None, bytes | None] | None  # an entry: shard key and version; None: there is none


class _ChangedError(Exception):
    """An entry is another one by now; or its row is not on a replica yet."""


@dataclass(slots=True)
class _Asked:
    """What the indexes said. shards: for each condition; entries: what was read, to compare; outside: it was read in
    no transaction, so it may change any time; apart: none may be read in it."""

    shards: dict[LookedUp, frozenset[int]] = field(default_factory=dict)
    entries: dict[tuple[Index, bytes], Seen] = field(default_factory=dict)
    outside: bool = False
    apart: bool = False


async def run(request: Request) -> None:
    """The rest of a command whose plan has lookups. Raises SqlError."""
    client, plan = request.client, request.plan
    held = client.session.shard
    snapshot = client.gateway.snapshot
    if not _settled(request, held):
        fresh = False
        for _ in range(_ATTEMPTS):
            asked = await _ask(request)
            found = route(plan, request.read, snapshot, held, asked.shards)
            if len(found.shards) != 1:
                break
            try:
                await _on_one(request, Route(found.shards, found.replica and not fresh), asked)
            except _ChangedError:
                fresh = True
                continue
            return
    found = route(plan, request.read, snapshot, held)
    await _as_ever(request, found)


async def resolve(request: Request) -> Resolved:
    """What the indexes say now, asked outside the session's transaction. Raises SqlError."""
    return (await _ask(request, apart=True)).shards


def _settled(request: Request, held: int) -> bool:
    """Whether one shard comes out without asking an index; or the session must not go to other shards to ask."""
    if request.client.session.pins or request.plan.pins:
        return True
    try:
        return len(route(request.plan, request.read, request.client.gateway.snapshot, held).shards) == 1
    except SqlError:
        return False


async def _as_ever(request: Request, found: Route) -> None:
    """As a plan without lookups."""
    client, plan = request.client, request.plan
    if plan.entries is not None:
        await lookup_writes.write(request, found)
    elif len(found.shards) == 1 and (plan.groups or plan.spread is not Spread.SCRATCH):
        connection = await single.take(client, plan, found.shards[0], found.replica)
        try:
            wire = await request.wire_for(connection)
        except BaseException:
            if client.held is None:
                connection.pool.release(connection)
            raise
        client.relay_from(connection, wire, found.shards[0])
    elif plan.spread is Spread.CONCAT:

        async def send() -> None:
            await scatter.scatter(client, plan, found.shards, found.replica, request.wire_for, _prepared(request))

        await scatter.twice(client, send)
    else:
        await several.run(request, found)


def _prepared(request: Request) -> Callable[[BackendConnection], Awaitable[object]] | None:
    return None if request.execution is None else request.execution.prepare


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
            if shard >= 0:
                shards.add(shard)
        else:
            asked.shards[looked] = frozenset(shards)
    return asked


_ANYWHERE = -1
_NOWHERE = -2


async def _shard_of(request: Request, index: Index, value: bytes, asked: _Asked) -> int:
    client = request.client
    keyspace = client.gateway.snapshot.keyspaces[index.schema]
    entry = asked.entries[index, value] = await _read_entry(request, index, value, asked)
    if entry is None or entry[0] is None:
        return _NOWHERE
    try:
        return keyspace.map.lookup(lookup_text.key_of(index, entry[0]))
    except (UnmappedKey, ValueError):
        return _ANYWHERE


async def _read_entry(request: Request, index: Index, value: bytes, asked: _Asked) -> Seen:
    client, plan = request.client, request.plan
    shard = home(client.gateway.snapshot.keyspaces[index.schema], value)
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


async def _part(request: Request, index: Index, part: Part, value: Value) -> bytes | None:
    read = request.read(value, READ_AS[part.kind])
    if isinstance(read, int):
        return b"%d" % read
    if not isinstance(read, bytes) or part.kind is PartKind.BINARY:
        return read if isinstance(read, bytes) else None
    if part.charset in _ASCII and not read.isascii():
        return None
    if not is_padded(part.collation):
        whole = request.read(value, KeyType.BINARY)  # blanks at the end count
        if not isinstance(whole, bytes):
            return None
        read = whole
    known = known_text_value(part, read, request.client.mariadb)
    if known is not None:
        return known
    client = request.client
    pool = client.gateway.shards[client.gateway.snapshot.keyspaces[index.schema].shards[0]].primary
    connection = await pool.checkout(_autocommitting(client))
    try:
        found = await text_value(connection, part, read, client.mariadb)
    except BaseException:
        pool.release(connection)
        raise
    pool.checkin(connection)
    return found


# ── the statement itself ──


async def _on_one(request: Request, found: Route, asked: _Asked) -> None:
    """On the one shard that came out. Raises SqlError, and _ChangedError when nothing has been done or told."""

    async def check() -> None:
        if found.replica and any(asked.entries.values()):
            raise _ChangedError
        if asked.outside:
            now = _Asked()
            for (index, value), before in asked.entries.items():
                if await _read_entry(request, index, value, now) != before:
                    raise _ChangedError

    plan = request.plan
    if plan.entries is not None:
        await lookup_writes.write(request, found, check)
    elif plan.kind in (StatementKind.UPDATE, StatementKind.DELETE):
        await _write(request, found, check)
    else:
        await _read(request, found, check)


async def _write(request: Request, found: Route, check: Callable[[], Awaitable[None]]) -> None:
    """UPDATE or DELETE that changes no entry."""
    client, plan = request.client, request.plan
    told = shares.Told()
    async with enlisted(client, plan, found.shards, replica=False, write=True) as enlistment:
        connection = enlistment.connections[0]
        ok = await shares.take(told, client, connection, await request.run(connection))
        if not counts.found(ok.info, ok.affected):
            await check()
    if ok.insert_id:
        client.session.insert_id = ok.insert_id
    client.ok(told.affected, ok.insert_id, told.warnings, told.info, told.sorted_conditions())


async def _read(request: Request, found: Route, check: Callable[[], Awaitable[None]]) -> None:
    """SELECT: its rows, once it is certain that they come from the right shard."""
    client, plan = request.client, request.plan

    async def send() -> None:
        await scatter.scatter(
            client, plan, found.shards, found.replica, request.wire_for, _prepared(request), _when_empty(plan, check)
        )

    await scatter.twice(client, send)


def _when_empty(plan: Plan, check: Callable[[], Awaitable[None]]) -> scatter.First:
    """Look again, unless there is a row that only the right shard can have: an aggregate has one of no rows, too."""

    async def first(rows: bool) -> None:
        if not rows or plan.spread is not Spread.CONCAT:
            await check()

    return first
