"""The rows of `_shardproxy` that a stream keeps on the shard it writes to, and transactions that carry them.

Each of our transactions raises `move.writes` under its own generation first: that locks the row, proves that nobody
has taken the move over (R1), and marks the transaction in the binlog (R2).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from shardproxy.errors import BackendLost, NotOurs, SqlError
from shardproxy.reshard.columns import SQL_MODE, quote
from shardproxy.reshard.link import Answer, Link, LinkLogin, connect
from shardproxy.topology.model import Server

Direction = Literal["forward", "reverse"]
_AGAIN = frozenset({1205, 1213})  # lock wait time-out, deadlock
_TRIES = 100
_WHOLE = 2  # in stream_table.finished: nothing had to be copied


class Ownership(Protocol):
    """Whether the orchestrator's generation in the store is still ours."""

    async def check(self) -> None:
        """Raises NotOurs when another has taken the move."""


@dataclass(frozen=True)
class StreamName:
    """A stream, and the generation of the orchestrator that runs it."""

    move_id: int
    direction: Direction
    generation: int

    @property
    def where(self) -> bytes:
        return b"move_id = %d AND direction = '%s'" % (self.move_id, self.direction.encode())

    @property
    def claim(self) -> bytes:
        """The first statement of each transaction: it changes one row, or the move is no longer ours."""
        return b"UPDATE _shardproxy.move SET writes = writes + 1 WHERE move_id = %d AND generation = %d" % (
            self.move_id, self.generation,
        )  # fmt: skip


@dataclass(slots=True)
class TableProgress:
    """watermark: the primary key of the last copied row, as texts; None before the first. finished: it is above all."""

    watermark: tuple[bytes, ...] | None = None
    copied: int = 0
    finished: bool = False


@dataclass(slots=True)
class StreamState:
    """What the target's rows say. Positions are texts. whole: the target had all rows when the stream began."""

    position: str
    restart: str
    applied: int
    tables: dict[str, TableProgress]
    whole: bool = False


def encode_watermark(values: Sequence[bytes]) -> bytes:
    return json.dumps([value.hex() for value in values]).encode()


def decode_watermark(text: bytes) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(value) for value in json.loads(text))


async def open_writer(server: Server, login: LinkLogin) -> Link:
    """A connection that writes rows exactly as they are given. It never commits by itself: statements that were sent
    after one that failed are rolled back with it."""
    link = await connect(server, login)
    settings = [
        b"SET SESSION sql_mode = '" + SQL_MODE + b"', time_zone = '+00:00', foreign_key_checks = 0, "
        b"innodb_lock_wait_timeout = 5, lock_wait_timeout = 10, net_read_timeout = 600, net_write_timeout = 600, "
        b"eq_range_index_dive_limit = 1, autocommit = 0",
    ]  # fmt: skip
    if link.is_mariadb:
        settings.append(
            b"SET SESSION tx_isolation = 'READ-COMMITTED', in_predicate_conversion_threshold = 0, "
            b"optimizer_max_sel_arg_weight = 0, unique_checks = 1"
        )
    else:
        settings.append(b"SET SESSION transaction_isolation = 'READ-COMMITTED', range_optimizer_max_mem_size = 0")
    try:
        await link.queries(settings)
    except BaseException:
        link.close()
        raise
    return link


async def read_state(link: Link, name: StreamName) -> StreamState | None:
    """The stream as the target has it; None when there is no row: it has not begun, or it has ended.

    The row is read under its lock: a COMMIT of ours whose connection broke off may still be under way, and with what
    was read before it the next transaction would think that another moves the stream. Raises SqlError 1205 when that
    lasts.
    """
    stream, tables, _ = await link.queries(
        (
            b"SELECT position, restart_position, applied FROM _shardproxy.stream WHERE " + name.where + b" FOR UPDATE",
            b"SELECT table_name, watermark, copied_rows, finished FROM _shardproxy.stream_table WHERE " + name.where,
            b"COMMIT",
        )
    )
    rows = stream.values()
    if not rows:
        return None
    position, restart, applied = rows[0]
    progress = {
        (table or b"").decode(): TableProgress(
            None if mark is None else decode_watermark(mark), int(copied or 0), int(finished or 0) > 0
        )
        for table, mark, copied, finished in tables.values()
    }
    whole = all(int(row[3] or 0) == _WHOLE for row in tables.values())
    return StreamState((position or b"").decode(), (restart or b"").decode(), int(applied or 0), progress, whole)


Check = Callable[[Sequence[Answer]], None]


async def transact(
    link: Link, name: StreamName, position: str | None, statements: Sequence[bytes], check: Check | None = None,
    sure: Callable[[], Awaitable[None]] | None = None,
) -> list[Answer]:  # fmt: skip
    """Run statements in one transaction of ours; made again after a deadlock. The answers to `statements`.

    position: what the stream's row must say, else NotOurs; None for a transaction that is no stream's. check: called
    with the answers before COMMIT, and sure after that; what they raise rolls back. Raises BackendLost when it is not
    known whether the transaction was committed.
    """
    for attempt in range(_TRIES):
        answers = await begin(link, name, position, statements)
        if answers is None:
            await asyncio.sleep(min(0.5, 0.01 * (attempt + 1)))
            continue
        try:
            if check is not None:
                check(answers)
            if sure is not None:
                await sure()
        except BaseException:
            await link.query(b"ROLLBACK")
            raise
        await commit(link)
        return answers
    raise BackendLost(f"{link.server.name}: locks for the move's rows could not be had {_TRIES} times")


async def begin(link: Link, name: StreamName, position: str | None, statements: Sequence[bytes]) -> list[Answer] | None:
    """The first part of `transact`, without COMMIT. None after a deadlock: all is rolled back, try again."""
    own = [name.claim]
    if position is not None:
        own.append(b"SELECT position FROM _shardproxy.stream WHERE " + name.where + b" FOR UPDATE")
    answers = await link.attempts([*own, *statements], 600.0)
    failed = next((answer for answer in answers if isinstance(answer, SqlError)), None)
    if failed is not None:
        await link.query(b"ROLLBACK")
        if failed.code in _AGAIN:
            return None
        raise failed
    whole = [answer for answer in answers if isinstance(answer, Answer)]
    try:
        if whole[0].affected != 1:
            raise NotOurs(
                f"{link.server.name}: move {name.move_id} is not of generation {name.generation} any more: another "
                "orchestrator has taken it"
            )
        if position is not None:
            rows = whole[1].values()
            if not rows:
                raise NotOurs(f"{link.server.name}: the {name.direction} stream of move {name.move_id} has ended")
            if (rows[0][0] or b"").decode() != position:
                raise NotOurs(
                    f"{link.server.name}: another has moved the {name.direction} stream of move {name.move_id}"
                )
    except NotOurs:
        await link.query(b"ROLLBACK")
        raise
    return whole[len(own) :]


async def commit(link: Link) -> None:
    """COMMIT. An error, even one that the server gives, leaves the outcome to be read from the stream's row."""
    try:
        await link.query(b"COMMIT", 600.0)
    except SqlError as error:
        link.close()
        raise BackendLost(f"{link.server.name}: COMMIT failed: {error}") from error


def position_update(name: StreamName, position: str, restart: str | None, applied: int) -> bytes:
    """The statement that moves the stream's row on. restart: None for the position itself."""
    return b"UPDATE _shardproxy.stream SET position = %s, restart_position = %s, applied = applied + %d WHERE %s" % (
        quote(position.encode()), quote((position if restart is None else restart).encode()), applied, name.where,
    )  # fmt: skip


def progress_update(name: StreamName, table: str, progress: TableProgress) -> bytes:
    """The statement that notes how far a table has been copied."""
    mark = b"NULL" if progress.watermark is None else quote(encode_watermark(progress.watermark))
    return b"UPDATE _shardproxy.stream_table SET watermark = %s, copied_rows = %d, finished = %d WHERE %s AND %s" % (
        mark, progress.copied, progress.finished, name.where, b"table_name = " + quote(table.encode()),
    )  # fmt: skip


def stream_inserts(
    name: StreamName, source_shard: str, position: str, tables: Sequence[str], whole: bool
) -> list[bytes]:
    """The statements that begin a stream. whole: the target has all rows (a reverse stream)."""
    head = b"%d, '%s'" % (name.move_id, name.direction.encode())
    text = quote(position.encode())
    rows = b", ".join(b"(%s, %s, %d)" % (head, quote(table.encode()), _WHOLE if whole else 0) for table in tables)
    return [
        b"INSERT INTO _shardproxy.stream (move_id, direction, source_shard, position, restart_position) VALUES "
        b"(%s, %s, %s, %s)" % (head, quote(source_shard.encode()), text, text),
        b"INSERT INTO _shardproxy.stream_table (move_id, direction, table_name, finished) VALUES " + rows,
    ]


def stream_deletes(name: StreamName) -> list[bytes]:
    """The statements that end a stream."""
    return [
        b"DELETE FROM _shardproxy.stream_table WHERE " + name.where,
        b"DELETE FROM _shardproxy.stream WHERE " + name.where,
    ]
