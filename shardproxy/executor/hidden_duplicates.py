"""Values that a row has on a shard only where it is hidden.

While rows move they are on two servers, and follow on one of them some moments later. A client that gives a value of a
lookup index up and takes it again for a row on that shard would be told by the hidden row that it is taken. Who has it
really, its entry says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import MovingError, SqlError
from shardproxy.executor.client import Client
from shardproxy.executor.lookup_entries import found_rows, rows_of
from shardproxy.executor.request import Request
from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_plan import Index
from shardproxy.planner.plan import Value
from shardproxy.planner.template import Piece, Template
from shardproxy.session.profile import with_variables
from shardproxy.topology.lookup import home

_DUPLICATE = 1062


def named(error: SqlError, indexes: Iterable[Index]) -> Index | None:
    """The lookup index whose unique key refuses a value; None where it is another key's error."""
    if error.code != _DUPLICATE:
        return None
    text = str(error)
    return next((i for i in indexes if text.endswith((f"'{i.unique}'", f"'{i.table}.{i.unique}'"))), None)


async def check(
    request: Request, shards: Sequence[int], index: Index, given: Sequence[tuple[Value, ...]], select: bytes
) -> None:
    """Raise MovingError when only hidden rows that lag behind have one of these values on these shards.

    select: the beginning of a query for an index's columns, up to WHERE; given: the literals of each value.
    """
    client = request.client
    move = client.map.keyspaces[index.schema].move
    hiding = [shard for shard in shards if move is not None and shard in move.hidden]
    if move is None or not hiding:
        return
    stale = False
    for shard in hiding:
        for values in given:
            pieces: list[Piece] = [select, *equal_pieces(index, values), lookup_text.ALL]
            connection = await _check_out(client, shard)
            try:
                rows = await found_rows(request, connection, request.render(Template(tuple(pieces))), (index,), ())
            except BaseException:
                connection.pool.release(connection)
                raise
            connection.pool.checkin(connection)
            for row in rows:
                hidden = any(keys.holds_text(row.key) for keys in move.hidden[shard])
                if not hidden or await _has_entry(client, index, row.values[0] or b""):
                    return
                stale = True
    if stale:
        raise MovingError(
            f"a row that moves to another shard (move {move.ident}) had the same value in {index.name} a moment ago: "
            "try again"
        )


async def _has_entry(client: Client, index: Index, value: bytes) -> bool:
    connection = await _check_out(client, home(client.map.keyspaces[index.schema], value))
    try:
        found = bool(await rows_of(connection, lookup_text.entry_read(index, value)))
    except BaseException:
        connection.pool.release(connection)
        raise
    connection.pool.checkin(connection)
    return found


async def _check_out(client: Client, shard: int) -> BackendConnection:
    """A connection outside the session's transaction: what has been committed is to be seen."""
    profile = with_variables(client.session.profile, {"autocommit": "1"})
    return await client.gateway.shards[shard].primary.checkout(profile)


def equal_pieces(index: Index, values: Sequence[Value]) -> list[Piece]:
    """The condition that a row has these values of an index."""
    pieces: list[Piece] = []
    for i, (part, value) in enumerate(zip(index.parts, values, strict=True)):
        pieces.append((b" AND " if i else b"") + lookup_text.name(part.column) + b" = ")
        pieces += [b"-", value.index] if value.negative else [value.index]
    return pieces
