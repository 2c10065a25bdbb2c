"""Changes that somebody makes to moved rows behind the proxies, after the switch, at the shard that gave them away.

Nobody sees such rows, and `complete` would delete them. From the place in the binlog at which the stream from there
has ended, every change of moving rows is our own, which is marked (R2), or such a one: proxies write them elsewhere.
The place is kept in a row beside the streams' own. It never goes beyond a change that was found, so whoever reads
again finds it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from shardproxy.errors import BackendError, ReshardError, SqlError
from shardproxy.reshard.binlog import Change, Piece
from shardproxy.reshard.binlog_process import BinlogProcess
from shardproxy.reshard.bookkeeping import StreamName, open_writer, transact
from shardproxy.reshard.change_source import SourceSettings
from shardproxy.reshard.columns import EntryRows, TableShape, quote
from shardproxy.reshard.link import Link, connect
from shardproxy.reshard.position import Position, parse_position
from shardproxy.reshard.shard_rows import MOST_STREAMS
from shardproxy.reshard.snapshot import source_position
from shardproxy.reshard.stream import StreamPlan

log = logging.getLogger(__name__)
MOST_SHOWN = 10
_MOST = 1000  # rows that are remembered
_PAUSE = 1.0  # seconds before the binlog is read again after an error
_STORE_EVERY = 1.0
_PATIENCE = 60.0  # seconds without news from the source's binlog, while it is waited for

Told = Callable[[str], Awaitable[None]]


def _where(name: StreamName) -> bytes:
    # Numbers from the middle on are no stream's: a move has not so many.
    return b"move_id = %d AND direction = '%s'" % (_number(name), name.direction.encode())


def _number(name: StreamName) -> int:
    return name.move_id + MOST_STREAMS // 2


def watch_inserts(name: StreamName) -> list[bytes]:
    """The statement that keeps the place of a stream, in the transaction that ends it. Does nothing without it."""
    return [
        b"INSERT INTO _shardproxy.stream (move_id, direction, source_shard, position, restart_position) "
        b"SELECT %d, direction, source_shard, position, restart_position FROM _shardproxy.stream AS ended WHERE %s "
        b"ON DUPLICATE KEY UPDATE position = VALUES(position), restart_position = VALUES(restart_position)"
        % (_number(name), name.where)
    ]


def watch_deletes(name: StreamName) -> list[bytes]:
    """The statement that forgets it."""
    return [b"DELETE FROM _shardproxy.stream WHERE " + _where(name)]


def shown(tables: tuple[TableShape, ...], changes: list[Change]) -> list[str]:
    """Rows that changes are of: tables and primary keys, each once, without entries of lookup indexes."""
    found: dict[str, None] = {}
    for table, old, new, _ in changes:
        shape = tables[table]
        if isinstance(shape.rows, EntryRows):
            continue
        key = (new if new is not None else old) or b""
        found[f"{shape.name} {key.decode('utf-8', 'backslashreplace')}"] = None
    return list(found)


class Watch:
    """Reads the binlog of the source of a stream that has ended. Made by `begin`; `close` it.

    told: called with a text when something is found, the first time.
    """

    def __init__(self, plan: StreamPlan, told: Told) -> None:
        # Reference tables are written on both sides from the switch on; entries nobody but proxies knows.
        self.plan = replace(plan, references=(), entries=None)
        self.found: list[str] = []
        self._told = told
        self._position: Position | None = None
        self._restart: str | None = None
        self._stored = ""
        self._read = asyncio.Event()
        self._parts: list[Change] = []  # of a transaction that comes in parts
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it; the place stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def none(self) -> None:
        """Everything that the source's binlog has now is read. Raises ReshardError when rows were written, or that
        cannot be known."""
        async with await connect(self.plan.source, self.plan.login) as link:
            goal = await source_position(link)
        await self.none_before(goal)

    async def none_before(self, goal: Position) -> None:
        """The same up to a place."""
        while not (self.found or self._failure or (self._position is not None and self._position.covers(goal))):
            self._read.clear()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._read.wait()
            except TimeoutError:
                raise ReshardError(f"{self.plan.source.name}: nothing of its binlog can be read; try again") from None
        if self.found:
            raise ReshardError(self._text())
        if self._failure is not None:
            raise ReshardError(
                f"whether somebody wrote moved rows to {self.plan.source.name} directly cannot be known: "
                f"{self._failure}; compare them with those on {self.plan.target.name}, then `complete` with "
                "--despite-direct-writes deletes them"
            )

    def _text(self) -> str:
        more = f" and {len(self.found) - MOST_SHOWN} more" if len(self.found) > MOST_SHOWN else ""
        return (
            f"somebody wrote moved rows to {self.plan.source.name} directly, where nobody sees them: "
            f"{', '.join(self.found[:MOST_SHOWN])}{more}. Nothing of them is deleted: write what they should have "
            "through a proxy, and end who wrote them; then `complete` with --despite-direct-writes deletes them"
        )

    # ── reading ──

    async def _run(self) -> None:
        while True:
            try:
                await self._once()
            except (BackendError, SqlError, OSError) as error:
                log.warning("watching %s: %s; its binlog is read again", self.plan.source.name, error)
            except Exception as error:
                self._failure = error
                self._read.set()
                return
            await asyncio.sleep(_PAUSE)

    async def _once(self) -> None:
        async with await open_writer(self.plan.target, self.plan.login) as link:
            row = b"SELECT position, restart_position FROM _shardproxy.stream WHERE " + _where(self.plan.name)
            rows, _ = await link.queries((row, b"COMMIT"))
            if not rows.rows:
                raise ReshardError("the place from which on its binlog must be read is not kept")
            [position, restart] = [(value or b"").decode() for value in rows.one()]
            async with await connect(self.plan.source, self.plan.login) as source:
                tables = tuple(await self.plan.shapes(source))
                self._position = parse_position(position, source.is_mariadb)
            self._stored, self._restart, self._parts = position, None if restart == position else restart, []
            settings = SourceSettings(
                self.plan.source, self.plan.login, tables, self.plan.moving, position, restart, self.plan.silence
            )
            process = await BinlogProcess.start(settings)
            try:
                await self._follow(process, tables, link)
            finally:
                await process.close()

    async def _follow(self, process: BinlogProcess, tables: tuple[TableShape, ...], link: Link) -> None:
        clock = asyncio.get_running_loop().time
        stored = clock()
        while True:
            for piece in await process.read():
                await self._take(piece, tables)
            self._read.set()
            if clock() - stored > _STORE_EVERY:
                await self._store(link)
                stored = clock()

    async def _take(self, piece: Piece, tables: tuple[TableShape, ...]) -> None:
        if piece.gtid is None:
            return
        if not piece.last:
            self._parts += piece.changes[:MOST_SHOWN]
            return
        changes = [] if piece.undone else [*self._parts, *piece.changes]
        self._parts = []
        rows = shown(tables, changes)
        if piece.orphan and self.plan.name.direction == "forward":
            rows.append(f"those of the XA branch {piece.xid.decode()}")
        if rows:
            first = not self.found
            self.found += [row for row in rows if row not in self.found][: _MOST - len(self.found)]
            if first:
                log.warning("%s", self._text())
                await self._told(self._text())
        assert self._position is not None
        self._position.add(piece.gtid)
        self._restart = piece.restart

    async def _store(self, link: Link) -> None:
        position = str(self._position)
        if self.found or self._parts or position == self._stored:
            return
        restart = position if self._restart is None else self._restart
        text = b"UPDATE _shardproxy.stream SET position = %s, restart_position = %s WHERE %s" % (
            quote(position.encode()), quote(restart.encode()), _where(self.plan.name),
        )  # fmt: skip
        await transact(link, self.plan.name, None, [text])
        self._stored = position
