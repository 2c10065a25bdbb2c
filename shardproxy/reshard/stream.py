"""One stream: everything that moves from a source to a target, until somebody ends it.

    start      empty the target's moving rows, store an exact position (once)
    cycle      apply freely · snapshot with its place · apply up to that place · copy · again until all is copied
    follow     apply for ever

Whatever fails, the state is what the target's rows say: a new `Stream` begins there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from shardproxy.errors import NotOurs, ReshardError
from shardproxy.reshard.applier import Applier
from shardproxy.reshard.binlog import Piece
from shardproxy.reshard.binlog_process import BinlogProcess
from shardproxy.reshard.bookkeeping import (
    StreamName,
    open_writer,
    read_state,
    stream_inserts,
    transact,
)
from shardproxy.reshard.change_source import SourceSettings, check_source
from shardproxy.reshard.columns import EntryRows, TableShape, WholeTable
from shardproxy.reshard.copier import CHUNK_BYTES, Copier, primary_of, select_rows
from shardproxy.reshard.link import Link, LinkLogin, connect
from shardproxy.reshard.position import Position
from shardproxy.reshard.shapes import read_shape
from shardproxy.reshard.snapshot import (
    Pause,
    SourceSnapshot,
    prepared_branches,
    session_settings,
    source_position,
    take_snapshot,
    xa_statements_ended,
)
from shardproxy.reshard.throttle import FEW_CHANGES, Pace, Unlimited
from shardproxy.reshard.touched import FEW, Touched, settle, sweep
from shardproxy.reshard.verify import Verified, verify_table
from shardproxy.topology.model import Server
from shardproxy.topology.moving import MovingKeys

CYCLE_SECONDS = 10.0  # how long one snapshot is copied from: the source keeps old row versions as long
_SNAPSHOTS = 200  # taken anew because their place was not good
_SWEEPS = 5  # comparisons of what has changed, before the rest is left for the switch
_GATHER = 0.05  # seconds for which changes are gathered into one transaction, when they keep coming
# Between two snapshots the changes of a whole cycle come at once. With a rate they go in by few, with
# pauses: else the target has no time for anybody else meanwhile. Not more than so many pauses, should ever more come.
_BREATH, _BREATHS = 0.03, 30  # seconds, and pauses of one cycle
_STORE_EVERY = 1.0  # seconds after which a position without changes is stored


@dataclass(frozen=True)
class Mutations:
    """Mistakes on purpose, for tests that must catch them."""

    position_first: Pause | None = None  # the position is read, and after this pause the snapshot taken
    positions_apart: Pause | None = None  # rows are committed, and after this pause their position


@dataclass(frozen=True)
class StreamPlan:
    """What a stream moves. tables: name and key column; database: the keyspace's. source, target: primaries.
    references: tables that go whole; entries: values whose lookup entries go; alone: the move is one of this one table;
    also: see TableShape, of that.

    silence: seconds without a byte of the source's after which it counts as gone. cycle_seconds: how long one snapshot
    is copied from; chunk_bytes: what one transaction on the target inserts, about.
    """

    name: StreamName
    source: Server
    target: Server
    login: LinkLogin
    database: str
    tables: tuple[tuple[str, str], ...]
    moving: MovingKeys
    references: tuple[str, ...] = ()
    entries: MovingKeys | None = None
    silence: float = 10.0
    cycle_seconds: float = CYCLE_SECONDS
    chunk_bytes: int = CHUNK_BYTES
    mutations: Mutations = field(default_factory=Mutations)
    alone: bool = False
    also: tuple[str, MovingKeys] | None = None

    async def shapes(self, link: Link) -> list[TableShape]:
        """The definitions of all its tables, as a server has them. Raises ReshardError."""
        found = [await read_shape(link, self.database, table, key, also=self.also) for table, key in self.tables]
        found += [await read_shape(link, self.database, table, None, WholeTable()) for table in self.references]
        if self.entries is not None:
            rows = EntryRows(self.database, self.entries)
            found.append(await read_shape(link, "_shardproxy", "lookup", "value", rows))
        return found


async def start_stream(plan: StreamPlan, pace: Pace | None = None) -> None:
    """Step 2 of the protocol: begin a forward stream, unless it has begun. May be done again after a crash.

    Raises ReshardError when the source's settings do not allow to follow it.
    """
    pace = pace or Unlimited()
    async with await open_writer(plan.target, plan.login) as target:
        if await read_state(target, plan.name) is not None:
            return
        async with await connect(plan.source, plan.login) as source:
            found = await check_source(source)
            if found:
                raise ReshardError("; ".join(found))
            shapes = await plan.shapes(source)
        for shape in shapes:
            await delete_moving(target, plan.name, shape, plan.moving, pace)
        snapshot = await take_snapshot(plan.source, plan.login, shapes)
        with_position = await snapshot.gtids()
        snapshot.link.close()
        names = [shape.label for shape in shapes]
        await transact(
            target, plan.name, None, stream_inserts(plan.name, plan.source.shard, str(with_position), names, False)
        )


async def delete_moving(
    link: Link, name: StreamName, table: TableShape, moving: MovingKeys, pace: Pace, chunk: int = 2000,
    sure: Callable[[], Awaitable[None]] | None = None,
) -> int:  # fmt: skip
    """Delete a table's moving rows in marked transactions of at most `chunk` rows; how many there were.

    sure: asked before each COMMIT, when nobody else can change the rows any more; what it raises rolls back.
    """
    total = 0
    while found := await _delete_once(link, name, table, moving, pace, chunk, sure):
        total += found  # again: what was inserted meanwhile before the place where it was
    return total


async def _delete_once(
    link: Link, name: StreamName, table: TableShape, moving: MovingKeys, pace: Pace, chunk: int,
    sure: Callable[[], Awaitable[None]] | None,
) -> int:  # fmt: skip
    """From the table's begin to its end. Each transaction begins where the one before it ended: else each would read
    all rows that stay, and all that are deleted and not purged, up to there."""
    total = 0
    after: tuple[bytes, ...] | None = None
    while True:
        rows = min(chunk, pace.at_once or chunk)
        await pace.wait(rows)
        last = (await link.query(select_rows(table, moving, after, 1, skip=rows - 1), 600.0)).rows
        sql = b"DELETE FROM %s WHERE %s ORDER BY %s LIMIT %d" % (
            table.quoted, table.condition_behind(moving, after), b", ".join(table.primary_names), rows,
        )  # fmt: skip
        [answer] = await transact(link, name, None, [sql], sure=sure)
        total += answer.affected
        if not last:
            return total
        after = primary_of(table, last[0])


class Stream:
    """A running stream. Made by `open`; then `copy` until it returns, and `follow`. Close it whatever happens."""

    def __init__(
        self, plan: StreamPlan, tables: Sequence[TableShape], target: Link, source: Link, applier: Applier,
        copier: Copier, process: BinlogProcess, pace: Pace,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.tables = tuple(tables)
        self.applier = applier
        self.copier = copier
        self.cycles = 0
        self.thrown_away = 0  # snapshots that were not good
        self._target = target
        self._source = source
        self._process = process
        self._pace = pace
        self._breaths = 0  # pauses that may still be made
        self._pieces: deque[Piece] = deque()
        self._reading: asyncio.Task[list[Piece]] | None = None
        self._stored_at = 0.0
        self._readers: tuple[Link, Link] | None = None  # of `sweep` and `settle`, source and target

    @classmethod
    async def open(cls, plan: StreamPlan, pace: Pace | None = None, touched: Touched | None = None) -> Stream:
        """Begin where the target's rows say. touched: of this stream before it was opened again. Raises NotOurs when
        there is no such stream."""
        opened: list[Link] = []
        try:
            target = await open_writer(plan.target, plan.login)
            opened.append(target)
            state = await read_state(target, plan.name)
            if state is None:
                raise NotOurs(
                    f"{plan.target.name}: there is no {plan.name.direction} stream of move {plan.name.move_id}"
                )
            source = await connect(plan.source, plan.login)
            opened.append(source)
            # After the position is known: a definition that changes later stands in the binlog behind it.
            tables = await plan.shapes(source)
            most = int((await target.query(b"SELECT @@max_allowed_packet")).one()[0] or 0)
            settings = SourceSettings(
                plan.source, plan.login, tuple(tables), plan.moving, state.position, state.restart, plan.silence
            )
            process = await BinlogProcess.start(settings)
        except BaseException:
            for link in opened:
                link.close()
            raise
        apart = plan.mutations.positions_apart
        applier = Applier(target, plan.name, tables, state, source.is_mariadb, most, apart, touched)
        pace = pace or Unlimited()
        copier = Copier(target, plan.name, plan.moving, pace, most, plan.chunk_bytes)
        return cls(plan, tables, target, source, applier, copier, process, pace)

    async def close(self) -> None:
        """End the process and the connections; what is not committed is rolled back."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        for link in (self._target, self._source, *(self._readers or ())):
            link.close()
        await self._process.close()

    @property
    def copied(self) -> bool:
        """Whether every table has been copied."""
        return all(self.applier.progress[table.label].finished for table in self.tables)

    # ── copying ──

    async def copy(self) -> None:
        """Cycles until all tables are copied. Raises what ends the stream; BackendError when it may be opened anew."""
        if not self.copied:
            await self._wait_for_branches()
        while not self.copied:
            self._breaths = _BREATHS
            await self.catch_up()
            self._breaths = 0
            unfinished = [table for table in self.tables if not self.applier.progress[table.label].finished]
            snapshot = await self._good_snapshot(unfinished)
            try:
                with self._process.left_alone():
                    await self._copy_from(snapshot)
            finally:
                snapshot.link.close()
            self.cycles += 1

    async def _wait_for_branches(self) -> None:
        """No snapshot before the branches that are prepared now are resolved (step 3). The stream goes on meanwhile."""
        if self._source.is_mariadb:
            await xa_statements_ended(self._source)  # branches whose PREPARE is behind us, and that are not listed yet
        left = await prepared_branches(self._source)
        while left:
            await self._apply_some(0.1)
            left &= await prepared_branches(self._source)

    async def _good_snapshot(self, tables: Sequence[TableShape]) -> SourceSnapshot:
        """A snapshot that is not older than what has been applied, with everything up to its place applied."""
        for _ in range(_SNAPSHOTS):
            snapshot = await take_snapshot(
                self.plan.source, self.plan.login, tables, self.plan.mutations.position_first
            )
            try:
                if await self._not_behind(snapshot):
                    await self._apply_to(snapshot)
                    if not any(snapshot.doubts(*branch) for branch in self.applier.branches.items()):
                        return snapshot
            except BaseException:
                snapshot.link.close()
                raise
            snapshot.link.close()
            self.thrown_away += 1
        raise ReshardError(
            f"{self.plan.source.name}: {_SNAPSHOTS} snapshots in turn were not usable: XA branches committed during "
            "each of them"
        )

    async def _not_behind(self, snapshot: SourceSnapshot) -> bool:
        """Whether the snapshot shows at least what has been applied: events can be read before they are visible."""
        applier = self.applier
        if snapshot.position is not None:
            return snapshot.position.covers(applier.position)
        if applier.place != (0, 0):
            return snapshot.place >= applier.place
        return (await snapshot.gtids()).covers(applier.position)

    async def _apply_to(self, snapshot: SourceSnapshot) -> None:
        """Apply up to the snapshot's place and not further; store it."""
        applier = self.applier
        goal: Position | None = snapshot.position
        if goal is None and applier.place == (0, 0):
            # Nothing has come since the stream was opened: the next transaction may already be behind the snapshot.
            goal = await snapshot.gtids()
        while True:
            while not (applier.position.covers(goal) if goal is not None else applier.place >= snapshot.place):
                if not self._pieces:
                    break
                await applier.add(self._pieces.popleft())
            else:
                break
            self._pieces.extend(await self._read())
        await applier.flush()

    async def _copy_from(self, snapshot: SourceSnapshot) -> None:
        deadline = asyncio.get_running_loop().time() + self.plan.cycle_seconds
        for table in self.tables:
            progress = self.applier.progress[table.label]
            if progress.finished:
                continue
            await self.copier.copy(snapshot.link, table, progress, self.applier.stored, deadline)
            if snapshot.link.closed or asyncio.get_running_loop().time() >= deadline:
                return

    # ── applying ──

    async def _read(self) -> list[Piece]:
        """The next pieces of the source; may be cancelled without losing any."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._process.read())
        pieces = await asyncio.shield(self._reading)
        self._reading = None
        return pieces

    async def _apply_some(self, patience: float) -> bool:
        """Apply what has come; wait up to `patience` seconds for more. Whether anything came."""
        if not self._pieces:
            try:
                async with asyncio.timeout(patience):
                    self._pieces.extend(await self._read())
            except TimeoutError:
                await self._store()
                return False
        loop = asyncio.get_running_loop()
        until = loop.time() + _GATHER
        while self._pieces:
            while self._pieces:
                piece = self._pieces.popleft()
                await self.applier.add(piece)
                if piece.markers:
                    until = 0.0  # writes are held until it is applied
                few = min(self._pace.at_once, FEW_CHANGES)
                if self._breaths and self.applier.between and 0 < few <= self.applier.waiting:
                    await self.applier.flush()
                    self._breaths -= 1
                    await asyncio.sleep(_BREATH)
            # What has come meanwhile goes into the same batch: the more we are behind, the larger it is.
            if loop.time() < until and await self._ready():
                self._pieces.extend(await self._read())
        if self.applier.between:
            await self._store()
        return True

    async def _ready(self) -> bool:
        """Whether more has come already."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._process.read())
        await asyncio.sleep(0)
        return self._reading.done()

    async def _store(self) -> None:
        """Flush changes at once, a bare position now and then."""
        now = asyncio.get_running_loop().time()
        if self.applier.waiting or now - self._stored_at > _STORE_EVERY:
            await self.applier.flush()
            self._stored_at = now

    async def catch_up(self) -> None:
        """Apply everything up to where the source is now, and store it."""
        await self._pass(await source_position(self._source))

    async def _pass(self, goal: Position) -> None:
        while not (self.applier.position.covers(goal) and self.applier.between):
            await self._apply_some(1.0)
        await self.applier.flush()

    async def follow(self) -> None:
        """Apply for ever."""
        while True:
            await self._apply_some(_STORE_EVERY)

    async def step(self, patience: float = _STORE_EVERY) -> bool:
        """Apply what has come, once; wait for it for so many seconds. Whether anything came."""
        return await self._apply_some(patience)

    async def reach_marker(self, epoch: int) -> None:
        """Apply until the marker of this epoch has been passed, and store the position (step 7).

        The marker is on the source when this is called, so it lies before the place where the source is now: that holds
        for a stream too that has passed it before a crash, and does not see it again.
        """
        mine = b"SELECT epoch FROM _shardproxy.marker WHERE move_id = %d AND epoch = %d"
        rows = await self._source.query(mine % (self.plan.name.move_id, epoch))
        if not rows.rows:
            raise ReshardError(f"{self.plan.source.name} has no marker of epoch {epoch}")
        await self._pass(await source_position(self._source))

    # ── comparing ──

    async def verify(self, pace: Pace | None = None) -> Verified:
        """Compare all tables at one position, while writers go on. The stream is held only for the moment in which
        both sides are seen at the same place. Raises as `copy`; what differs is in the answer."""
        done = Verified()
        await self.catch_up()
        snapshot = await self._good_snapshot(self.tables)
        self.applier.touched.begin()
        target = await connect(self.plan.target, self.plan.login)
        try:
            await target.queries((session_settings(target.is_mariadb), b"START TRANSACTION WITH CONSISTENT SNAPSHOT"))
            comparing = asyncio.create_task(self._compare(snapshot.link, target, done, pace))
            try:
                while not comparing.done():
                    await self._apply_some(0.1)
                await comparing
            finally:
                comparing.cancel()
                await asyncio.gather(comparing, return_exceptions=True)
        finally:
            target.close()
            snapshot.link.close()
        self.applier.touched.whole = self.applier.touched.noting
        return done

    async def sweep(self) -> None:
        """After `verify`: compare what has changed since, while writers go on, until few rows are left for `settle`."""
        touched = self.applier.touched
        readers = await self._both()  # `settle` needs them too, and has no time to open them
        for _ in range(_SWEEPS):
            if len(touched) <= FEW:
                return
            chunks = touched.chunks()
            await self.catch_up()
            await sweep(*readers, self.tables, self.plan.moving, touched, chunks)

    async def settle(self) -> None:
        """After `reach_marker`, while writes are held: compare what is left. Nothing to do without `verify`. Raises
        RowsDiffer."""
        touched = self.applier.touched
        if not touched.whole:
            return
        done = await settle(*await self._both(), self.tables, self.plan.moving, touched)
        done.raise_if_different()

    async def _both(self) -> tuple[Link, Link]:
        if self._readers is None or any(link.closed for link in self._readers):
            source = await self._reader(self.plan.source)
            self._readers = source, await self._reader(self.plan.target)
        return self._readers

    async def _reader(self, server: Server) -> Link:
        link = await connect(server, self.plan.login)
        try:
            await link.queries((session_settings(link.is_mariadb), b"SET SESSION innodb_lock_wait_timeout = 1"))
        except BaseException:
            link.close()
            raise
        return link

    async def _compare(self, source: Link, target: Link, done: Verified, pace: Pace | None) -> None:
        for table in self.tables:
            await verify_table(source, target, table, self.plan.moving, done, pace)
