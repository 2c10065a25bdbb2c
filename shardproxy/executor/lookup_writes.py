"""Writes to tables with lookup indexes: the rows and their entries change in one transaction.

The rows go first, as the statement says; then the servers are asked what they have stored, and the entries follow from
that. So an entry never differs from its row, whatever types, collations and triggers make of a value. That the value
is free on all shards the shard of its entry says: its primary key refuses a second one, and makes it wait for another
transaction that is about to take or free the same value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, RouteError, SqlError, UnsupportedError
from shardproxy.executor import changes, hidden_duplicates, lookup_entries, shares
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.executor.lookup_entries import Entry, asked_rows, found_rows
from shardproxy.executor.request import Request
from shardproxy.executor.scratch_write import scratch_write
from shardproxy.merge import counts
from shardproxy.planner import lookup_text
from shardproxy.planner.key_values import NULLVALUE
from shardproxy.planner.lookup_plan import ChangedRows, EnteredRows, Index
from shardproxy.planner.lookup_rows import FoundRow
from shardproxy.planner.plan import InsertId, Spread, Value
from shardproxy.planner.template import Piece, Template
from shardproxy.planner.write_plan import SplitRows
from shardproxy.router.route import Route
from shardproxy.topology.keys import KeyType

_AT_ONCE = 200  # rows that are read by one query
# The column's character set lacks characters of the value: cannot be compared, or (MySQL) converted.
_NO_COMPARISON = frozenset((1267, 1270, 1271, 3854))
Nothing = Callable[[], Awaitable[None]]


class _StoredOtherwiseError(UnsupportedError):
    """What became of a value is not known from the text."""


async def write(request: Request, found: Route, nothing: Nothing | None = None) -> None:
    """The statement on these shards, with its entries. nothing: called when it finds no row; may raise, which undoes.

    Raises SqlError; then nothing has changed.
    """
    match request.plan.entries:
        case EnteredRows() as entered:
            try:
                await _insert(request, found, entered)
            except SqlError as error:
                refused = hidden_duplicates.named(error, entered.indexes) if request.client.gateway.moving else None
                if refused is not None:
                    place = entered.indexes.index(refused)
                    given = [value for row in _given(request, entered) if (value := row[place]) is not None]
                    await hidden_duplicates.check(request, found.shards, refused, given, _select(refused))
                raise
        case ChangedRows() as changed:
            await _change(request, found, changed, nothing)
        case _:
            raise AssertionError(request.plan)


# ── INSERT ──


async def _insert(request: Request, found: Route, entered: EnteredRows) -> None:
    client, plan = request.client, request.plan
    values = _given(request, entered)

    async def enter(enlistment: Enlistment, of_shard: Mapping[int, Sequence[int]]) -> None:
        added: list[Entry] = []
        for shard, rows in of_shard.items():
            for place, index in enumerate(entered.indexes):
                mine = [given for row in rows if (given := values[row][place]) is not None]
                added += await _stored(request, enlistment.on(shard), index, mine, len(rows))
        await lookup_entries.change(request, enlistment, (), added)

    if isinstance(plan.write, SplitRows):
        try:
            await changes.split(request, found, plan.write, enter)
        except _StoredOtherwiseError:
            if plan.scratch is None:
                raise
            await scratch_write(request, found)
        return
    told = shares.Told()
    async with (
        enlisted(client, plan, found.shards, replica=False, write=True) as enlistment,
        shares.one_time(client, plan, enlistment.connections),
    ):
        connection = enlistment.connections[0]
        ok = await shares.take(told, client, connection, await request.run(connection))
        await enter(enlistment, {found.shards[0]: range(len(values))})
    if plan.insert_id is InsertId.REPORTED and ok.insert_id:
        client.session.insert_id = ok.insert_id
    client.ok(told.affected, ok.insert_id, told.warnings, told.info, told.sorted_conditions())


Given = tuple[Value, ...]


def _given(request: Request, entered: EnteredRows) -> list[tuple[Given | None, ...]]:
    """For each row and index the literals of its value; None when a part is NULL."""
    rows = []
    for row, shift in entered.each():
        given: list[Given | None] = []
        for values in row:
            shifted = None if values is None else tuple(Value(v.index + shift, v.negative) for v in values)
            null = shifted is None or any(request.read(value, KeyType.TEXT) is NULLVALUE for value in shifted)
            given.append(None if null else shifted)
        rows.append(tuple(given))
    return rows


def _select(index: Index) -> bytes:
    """A query for an index's columns, up to its condition."""
    return b"SELECT %s FROM %s.%s WHERE " % (
        lookup_text.select_list((index,), ()), lookup_text.name(index.schema), lookup_text.name(index.table)
    )  # fmt: skip


async def _stored(
    request: Request, connection: BackendConnection, index: Index, given: Sequence[Given], rows: int
) -> list[Entry]:
    """The entries of an index for rows that have just been stored with these values. Raises UnsupportedError when one
    was stored otherwise than given, so that nobody knows what became of it."""
    if len(given) < rows and not all(part.nullable for part in index.parts):
        raise _StoredOtherwiseError(
            f"NULL for a column of lookup index {index.name}, which is NOT NULL: give its value"
        )
    head = _select(index)
    entries: list[Entry] = []
    for at in range(0, len(given), _AT_ONCE):
        some = given[at : at + _AT_ONCE]
        pieces: list[Piece] = [head]
        for number, values in enumerate(some):
            pieces.append(b" OR (" if number else b"(")
            pieces += hidden_duplicates.equal_pieces(index, values)
            pieces.append(b")")
        pieces.append(lookup_text.ALL)
        otherwise = _StoredOtherwiseError(
            f"a value of lookup index {index.name} is stored otherwise than it is given (cut off, converted, or "
            "changed by a trigger): give it as it is to be stored"
        )
        try:
            found = await found_rows(request, connection, request.render(Template(tuple(pieces))), (index,), ())
        except SqlError as error:
            if error.code not in _NO_COMPARISON:
                raise
            raise otherwise from error
        if len(found) != len(some) or any(row.values[0] is None for row in found):
            raise otherwise
        entries += [Entry(index, row.values[0] or b"", row.key, row.shown[0], row.given[0]) for row in found]
    return entries


# ── UPDATE, DELETE ──


@dataclass(slots=True)
class _Changes:
    """removed, added: entries; freed, taken: (index name, value) → shard of the row that had or has it."""

    removed: list[Entry] = field(default_factory=list)
    added: list[Entry] = field(default_factory=list)
    freed: dict[tuple[str, bytes], int] = field(default_factory=dict)
    taken: dict[tuple[str, bytes], int] = field(default_factory=dict)


async def _change(request: Request, found: Route, changed: ChangedRows, nothing: Nothing | None) -> None:
    client, plan = request.client, request.plan
    if len(found.shards) > 1 and plan.spread is not Spread.EACH:
        if plan.scratch is None:
            raise RouteError(
                plan.spread_error
                or f"{plan.kind.value} over several shards that changes lookup indexes is not supported in this form"
            )
        await scratch_write(request, found)
        return
    head = b"SELECT " + lookup_text.select_list(changed.indexes, changed.primary, changed.source) + b" FROM "
    lock = head + changed.rows + lookup_text.ALL + b" FOR UPDATE"
    told, all_changes, rows = shares.Told(), _Changes(), 0
    async with (
        enlisted(client, plan, found.shards, replica=False, write=True) as enlistment,
        shares.one_time(client, plan, enlistment.connections),
    ):
        for shard in found.shards:
            connection = enlistment.on(shard)
            locking = request.render(lock, shard)
            before = await found_rows(request, connection, locking, changed.indexes, changed.primary)
            reply = await request.run(connection, request.for_shard(shard))
            ok = await shares.take(told, client, connection, reply)
            if counts.found(ok.info, ok.affected) != len(before):
                raise BackendError(
                    "rows came to the statement's conditions while it ran, so entries of lookup indexes are not known: "
                    "run it again"
                )
            rows += len(before)
            after = await _read_again(request, connection, changed, before) if changed.primary else {}
            _compare(changed.indexes, shard, before, after, all_changes)
        if not rows and nothing is not None:
            await nothing()
        _check_exchange(all_changes)
        if all_changes.removed or all_changes.added:
            await lookup_entries.change(request, enlistment, all_changes.removed, all_changes.added)
    client.ok(told.affected, 0, told.warnings, told.info, told.sorted_conditions())


async def _read_again(
    request: Request, connection: BackendConnection, changed: ChangedRows, before: Sequence[FoundRow]
) -> dict[tuple[bytes, ...], FoundRow]:
    """The updated rows by primary key."""
    index = changed.indexes[0]
    head = b"SELECT %s FROM %s.%s WHERE " % (
        lookup_text.select_list(changed.indexes, changed.primary),
        lookup_text.name(index.schema),
        lookup_text.name(index.table),
    )
    after: dict[tuple[bytes, ...], FoundRow] = {}
    for at in range(0, len(before), _AT_ONCE):
        conditions = []
        for row in before[at : at + _AT_ONCE]:
            terms = [
                lookup_text.name(part.column) + b" = " + lookup_text.primary_literal(part, value)
                for part, value in zip(changed.primary, row.primary, strict=True)
            ]
            conditions.append(b"(" + b" AND ".join(terms) + b")")
        text = head + b" OR ".join(conditions) + lookup_text.ALL
        for found in await asked_rows(connection, text, changed.indexes, changed.primary, request.client.mariadb):
            after[found.primary] = found
    if len(after) != len(before):
        raise BackendError("updated rows are not found by their primary key: entries of lookup indexes are not known")
    return after


def _compare(
    indexes: Sequence[Index],
    shard: int,
    before: Sequence[FoundRow],
    after: Mapping[tuple[bytes, ...], FoundRow],
    changes: _Changes,
) -> None:
    """Note what differs. after: by primary key; {}: the rows are gone."""
    for old in before:
        new = after.get(old.primary)
        for place, index in enumerate(indexes):
            was = old.values[place]
            now = None if new is None else new.values[place]
            if was == now:
                continue
            if was is not None:
                changes.removed.append(Entry(index, was, old.key, old.shown[place], old.given[place]))
                changes.freed[index.name, was] = shard
            if now is not None and new is not None:
                changes.added.append(Entry(index, now, new.key, new.shown[place], new.given[place]))
                changes.taken[index.name, now] = shard


def _check_exchange(changes: _Changes) -> None:
    """A value that goes from a row on one shard to a row on another within one UPDATE: one server takes rows one after
    the other, and refuses it or not by their order, which is not known here. Raises RouteError."""
    for (name, value), shard in changes.taken.items():
        if changes.freed.get((name, value), shard) != shard:
            raise RouteError(
                f"UPDATE that hands a value of lookup index {name} from a row on one shard to a row on another is not "
                "supported: use two statements"
            )
