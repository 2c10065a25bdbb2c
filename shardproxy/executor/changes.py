"""Writes over several shards that each shard can do by itself: UPDATE and DELETE of its rows, INSERT of its rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from shardproxy.backend.connection import BackendConnection, Reply
from shardproxy.errors import RouteError, UnsupportedError
from shardproxy.executor import shares
from shardproxy.executor.enlist import Enlistment, enlisted
from shardproxy.executor.request import Request
from shardproxy.executor.scratch_write import scratch_write
from shardproxy.merge import counts
from shardproxy.planner.plan import InsertId, KeyIn
from shardproxy.planner.template import Rewritten
from shardproxy.planner.write_plan import Limited, SplitRows
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.router.route import Route
from shardproxy.router.rows import place
from shardproxy.topology.keys import KeyType

_BAD_NULL = 1048  # Column cannot be null
_CHECK_FAILED = 4025  # MariaDB's CONSTRAINT failed: with IGNORE an error when there is one row, else a warning
Then = Callable[[Enlistment, Mapping[int, Sequence[int]]], Awaitable[None]]


async def each(request: Request, found: Route) -> None:
    """UPDATE or DELETE as it is on every shard. Raises SqlError; then nothing has changed."""
    client, plan = request.client, request.plan
    told = shares.Told()
    async with (
        enlisted(client, plan, found.shards, replica=False, write=True) as enlistment,
        shares.one_time(client, plan, enlistment.connections),
    ):
        for shard, connection in zip(enlistment.shards, enlistment.connections, strict=True):
            await shares.take(told, client, connection, await request.run(connection, request.for_shard(shard)))
    client.ok(told.affected, 0, told.warnings, told.info, told.sorted_conditions())


async def write(request: Request, found: Route) -> None:
    """A write as its plan says. Raises SqlError; then nothing has changed."""
    match request.plan.write:
        case SplitRows() as rows:
            await split(request, found, rows)
        case Limited() as limited:
            await some(request, found, limited)
        case _:
            raise AssertionError(request.plan)


async def some(request: Request, found: Route, limited: Limited) -> None:
    """UPDATE or DELETE of a number of rows, whichever: the shards in order, until there are as many. Raises SqlError;
    then nothing has changed."""
    client, plan = request.client, request.plan
    wanted = request.read(limited.limit, KeyType.INT)
    if not isinstance(wanted, int) or wanted < 0:
        raise RouteError("LIMIT over several shards must be a plain number")
    told = shares.Told()
    async with (
        enlisted(client, plan, found.shards, replica=False, write=True) as enlistment,
        shares.one_time(client, plan, enlistment.connections),
    ):
        for shard, connection in zip(enlistment.shards, enlistment.connections, strict=True):
            text = request.render(limited.text, shard)
            share = Rewritten(text.text + b"%d" % wanted, text.parameters)
            ok = await shares.take(told, client, connection, await request.run(connection, share))
            wanted -= counts.found(ok.info, ok.affected)
            if wanted <= 0:
                break
    client.ok(told.affected, 0, told.warnings, told.info, told.sorted_conditions())


async def split(request: Request, found: Route, rows: SplitRows, then: Then | None = None) -> None:
    """INSERT or REPLACE, each shard its rows. then: called when all are stored, before they are committed, with the
    numbers of each shard's rows, from 0. Raises SqlError; then nothing is stored."""
    client, plan = request.client, request.plan
    [group] = plan.groups
    assert isinstance(group.condition, KeyIn)
    try:
        placed = place(plan, group.condition.values, group.keyspace, request.read)
    except RouteError:
        if plan.scratch is None:
            raise
        await scratch_write(request, found)
        return
    of_shard: dict[int, list[int]] = {}
    for row, shard in enumerate(placed):
        of_shard.setdefault(shard, []).append(row)
    shards = sorted(of_shard)
    texts = _texts(request, rows, [of_shard[shard] for shard in shards])
    told = shares.Told(once=shares.WITHOUT_DEFAULT) if rows.omits else shares.Told()
    duplicates = 0
    async with (
        enlisted(client, plan, shards, replica=False, write=True) as enlistment,
        shares.one_time(client, plan, enlistment.connections),
    ):
        for shard, text, connection in zip(shards, texts, enlistment.connections, strict=True):
            reply = await request.run(connection, text)
            numbers = [row + 1 for row in of_shard[shard]]
            if reply.error_code == _BAD_NULL and reply.failed and len(numbers) == 1:
                await _check_lone_null(connection, reply)
            if reply.error_code == _CHECK_FAILED and reply.failed and rows.ignores and len(numbers) == 1:
                raise UnsupportedError(
                    f"{reply.error_message} in a row that is alone on its shard; one server would leave it out, "
                    "because other rows are inserted with it: leave it out yourself"
                )
            ok = await shares.take(told, client, connection, reply, numbers)
            duplicates += counts.duplicates(ok.info, ok.affected, ignored=rows.ignores)
        if then is not None:
            await then(enlistment, of_shard)
    last = told.oks[shards.index(placed[-1])]
    if plan.insert_id is InsertId.REPORTED and last.insert_id:
        client.session.insert_id = last.insert_id
    info = counts.records(len(placed), duplicates, told.warnings) if len(placed) > 1 else told.info
    client.ok(told.affected, last.insert_id, told.warnings, info, told.sorted_conditions())


async def _check_lone_null(connection: BackendConnection, reply: Reply) -> None:
    """Servers take NULL for a NOT NULL column as an error when it stands in the only row. In a lax sql_mode they store
    the column's implicit default when there are several, as the client's statement has. Raises UnsupportedError then.
    """
    asked = await connection.query(b"SELECT @@SESSION.sql_mode LIMIT 1")
    if asked.failed:
        return
    mode = parse_resultset(asked.data, connection.scanner.deprecate_eof).rows[0][0] or b""
    if b"STRICT_" not in mode:
        raise UnsupportedError(
            f"{reply.error_message} in a row that is alone on its shard; one server would store an implicit default "
            "under this sql_mode, because other rows are inserted with it: give the value"
        )


def _texts(request: Request, rows: SplitRows, wanted: list[list[int]]) -> list[Rewritten]:
    """For each shard the statement with these rows, numbered from 0."""
    head = rows.head.render(request.literals, request.numbers)
    tail = rows.tail.render(request.literals, request.numbers, rows.behind)
    each = [row.render(request.literals, request.numbers, shift) for row, shift in rows.each()]
    made = []
    for numbers in wanted:
        mine = [each[number] for number in numbers]
        text = b"".join((head.text, b", ".join([row.text for row in mine]), tail.text))
        used = [number for part in (head, *mine, tail) for number in part.parameters]
        made.append(Rewritten(text, tuple(used)))
    return made
