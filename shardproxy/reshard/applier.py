"""Applies the source's transactions to the target: in commit order, whole ones, with the position in the same
transaction. Small ones go together; one that comes in parts has a target transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardproxy.errors import BackendLost, ReshardError, SqlError
from shardproxy.reshard.binlog import Change, Piece
from shardproxy.reshard.bookkeeping import (
    StreamName,
    StreamState,
    TableProgress,
    begin,
    commit,
    position_update,
    transact,
)
from shardproxy.reshard.columns import TableShape, quote_name
from shardproxy.reshard.link import Answer, Link
from shardproxy.reshard.net_changes import NetChanges
from shardproxy.reshard.position import Coordinates, Position, parse_position
from shardproxy.reshard.rows import Expected
from shardproxy.reshard.snapshot import Pause
from shardproxy.reshard.touched import Touched

BATCH_TRANSACTIONS = 1000
BATCH_BYTES = 2 << 20
_LATE = 100  # changes behind a marker that are remembered
_REMEMBERED = 50_000  # branches whose outcome has been read

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})


@dataclass(slots=True)
class Applied:
    """Counts since the start of this process."""

    transactions: int = 0
    changes: int = 0
    commits: int = 0


@dataclass(slots=True)
class _Batch:
    """Whole transactions that are applied together."""

    changes: list[Change] = field(default_factory=list)
    transactions: int = 0
    size: int = 0


class Applier:
    """The end of a stream at its target.

    position: everything before it is applied, in memory; the target's row follows at each commit. place: the same in
    the source's binlog files, (0, 0) until the first transaction tells. touched: gets the keys that change.
    positions_apart: the mistake of committing rows and after this pause their position, for tests that must catch
    it. late: the first changes behind the newest marker.
    """

    def __init__(
        self,
        link: Link,
        name: StreamName,
        tables: Sequence[TableShape],
        state: StreamState,
        mariadb: bool,
        most: int,
        positions_apart: Pause | None = None,
        touched: Touched | None = None,
    ) -> None:
        self.touched = touched or Touched()
        self.position: Position = parse_position(state.position, mariadb)
        self.place: Coordinates = (0, 0)
        self.progress: Mapping[str, TableProgress] = state.tables
        self.markers: set[tuple[int, int]] = set()
        self.counts = Applied()
        # What has changed behind the newest marker: nobody who takes the fence has done that.
        self.late: list[Change] = []
        # Branches that committed with moving rows: xid → place of their XA COMMIT.
        self.branches: dict[bytes, Coordinates] = {}
        self._link = link
        self._name = name
        self._tables = tuple(tables)
        self._most = most
        self._apart = positions_apart
        self._whole = state.whole
        self._stored = state.position
        self._restart: str | None = None if state.restart == state.position else state.restart
        self._stored_restart = self._restart
        self._batch = _Batch()
        self._open = False  # a transaction that comes in parts has begun on the target
        self._order_tables: set[int] = set()

    @property
    def stored(self) -> str:
        """The position that the target's row has."""
        return self._stored

    @property
    def waiting(self) -> int:
        """How many changes have been taken that are not applied yet."""
        return len(self._batch.changes)

    @property
    def between(self) -> bool:
        """Whether the last piece was the end of a transaction."""
        return not self._open

    async def add(self, piece: Piece) -> None:
        """Take one piece; it is applied by the next `flush`, or now when the batch is full."""
        if piece.gtid is None:
            # A dump begins with the name and head of a file, and passes by in silence what we have: before the first
            # transaction a place tells nothing.
            if self.place != (0, 0):
                self.place = max(self.place, piece.place)
            return
        if self.markers and len(self.late) < _LATE:
            self.late += piece.changes
        if not piece.last:
            await self._part(piece.changes)
            return
        if piece.orphan:
            self._orphan(piece)
        if self._open:
            await self._end_parts(piece)
            return
        self._step(piece)
        batch = self._batch
        batch.transactions += 1
        if piece.changes:
            batch.changes += piece.changes
            batch.size += sum([len(change[3]) + 60 if change[3] is not None else 60 for change in piece.changes])
            if piece.xid:
                self._remember(piece)
        if batch.transactions >= BATCH_TRANSACTIONS or batch.size >= BATCH_BYTES:
            await self.flush()

    def _step(self, piece: Piece) -> None:
        assert piece.gtid is not None
        self.position.add(piece.gtid)
        self.place = max(self.place, piece.place)
        self._restart = piece.restart
        if piece.markers:
            self.markers.update(piece.markers)
            if any(move == self._name.move_id for move, _ in piece.markers):
                self.late = []

    def _remember(self, piece: Piece) -> None:
        self.branches[piece.xid] = piece.place
        if len(self.branches) > _REMEMBERED:
            for xid in list(self.branches)[: _REMEMBERED // 2]:
                del self.branches[xid]

    def _orphan(self, piece: Piece) -> None:
        # A stream that had all rows when it began did so while the moving keys were the other side's: a branch that
        # was prepared here before cannot have written them.
        if self._whole:
            return
        if any(progress.watermark is not None or progress.finished for progress in self.progress.values()):
            raise ReshardError(
                f"the source committed the XA branch {piece.xid.decode()}, whose rows came before the stream began: "
                "the copy lacks them; it must be made anew"
            )

    async def flush(self) -> None:
        """Apply what has been taken, and store the position. Raises ReshardError when the target's rows are not what
        the source had, NotOurs, BackendLost."""
        batch, self._batch = self._batch, _Batch()
        position = str(self.position)
        if position == self._stored and not batch.changes and self._restart == self._stored_restart:
            return
        expected = await self._expected(batch.changes)
        update = position_update(self._name, position, self._restart, batch.transactions)
        if self._apart is not None:
            await transact(self._link, self._name, self._stored, expected.statements, expected.check)
            await self._apart()
            await transact(self._link, self._name, self._stored, [update])
        else:
            statements = [*expected.statements, update]
            await transact(self._link, self._name, self._stored, statements, _Checked(expected))
        self._stored, self._stored_restart = position, self._restart
        self._count(batch.transactions, len(batch.changes))

    def _count(self, transactions: int, changes: int) -> None:
        self.counts.transactions += transactions
        self.counts.changes += changes
        self.counts.commits += 1

    # ── a transaction in parts ──

    async def _part(self, changes: Sequence[Change]) -> None:
        if not self._open:
            await self.flush()
        expected = await self._expected(changes)
        await self._write_part(expected.statements, expected)
        self.counts.changes += len(changes)

    async def _write_part(self, statements: Sequence[bytes], expected: Expected) -> None:
        if not self._open:
            answers = await begin(self._link, self._name, self._stored, statements)
            if answers is None:
                raise BackendLost(f"{self._link.server.name}: a deadlock within a large transaction")
            self._open = True
        else:
            whole = await self._link.attempts(statements, 600.0)
            failed = next((answer for answer in whole if isinstance(answer, SqlError)), None)
            if failed is not None:
                await self._link.query(b"ROLLBACK")
                if failed.code in (1205, 1213):
                    raise BackendLost(f"a large transaction lost its locks: {failed}") from failed
                raise failed
            answers = [answer for answer in whole if isinstance(answer, Answer)]
        expected.check(answers)

    async def _end_parts(self, piece: Piece) -> None:
        if piece.undone:
            await self._link.query(b"ROLLBACK")
            self._open = False
            self._step(piece)
            self._batch.transactions += 1
            return
        expected = await self._expected(piece.changes)
        self._step(piece)
        if piece.xid:
            self._remember(piece)
        position = str(self.position)
        update = position_update(self._name, position, self._restart, 1)
        await self._write_part([*expected.statements, update], expected)
        await commit(self._link)
        self._open = False
        self._stored, self._stored_restart = position, self._restart
        self._count(1, len(piece.changes))

    # ── from changes to statements ──

    async def _expected(self, changes: Sequence[Change]) -> Expected:
        if self.touched.noting:
            self.touched.add(changes)
        expected = Expected()
        by_table: dict[int, list[Change]] = {}
        for change in changes:
            by_table.setdefault(change[0], []).append(change)
        nets = []
        for number, mine in by_table.items():
            table = self._tables[number]
            net = NetChanges(f"{table.database}.{table.name}")
            net.add(mine, await self._above(number, mine))
            nets.append((table, net))
        for table, net in nets:
            expected.delete(table, net.gone())
        for table, net in nets:
            expected.insert(table, net.present(), self._most)
        return expected

    async def _above(self, number: int, changes: Sequence[Change]) -> frozenset[bytes]:
        """Keys above the table's watermark: their rows have not been copied, and come with the copy."""
        table = self._tables[number]
        progress = self.progress[table.label]
        if progress.finished:
            return frozenset()
        keys = {key for change in changes for key in change[1:3] if key is not None}
        if progress.watermark is None:
            return frozenset(keys)
        if len(table.primary) == 1 and table.columns[table.primary[0]].data_type in _INTEGERS:
            mark = int(progress.watermark[0])
            return frozenset(key for key in keys if int(key) > mark)
        return await self._above_by_server(number, table, progress.watermark, sorted(keys))

    async def _above_by_server(
        self, number: int, table: TableShape, watermark: Sequence[bytes], keys: Sequence[bytes]
    ) -> frozenset[bytes]:
        """The same in the server's own order of the key's types and collations."""
        name = quote_name(self._tables[0].database) + b"." + quote_name(f"_shardproxy_order_{number}")
        statements = []
        if number not in self._order_tables:
            names = b", ".join(table.primary_names)
            statements.append(
                b"CREATE TEMPORARY TABLE %s (_shardproxy_n BIGINT NOT NULL) "
                b"SELECT 0 AS _shardproxy_n, %s FROM %s LIMIT 0" % (name, names, table.quoted)
            )
            self._order_tables.add(number)
        values = b",".join(b"(%d,%s)" % (i, key.removeprefix(b"(").removesuffix(b")")) for i, key in enumerate(keys))
        statements += [
            b"INSERT INTO %s VALUES %s" % (name, values),
            b"SELECT _shardproxy_n FROM %s WHERE %s" % (name, table.behind(watermark)),
            b"DELETE FROM " + name,
            b"DO 0" if self._open else b"COMMIT",
        ]
        answers = await self._link.queries(statements)
        return frozenset(keys[int(row[0] or 0)] for row in answers[-3].values())


class _Checked:
    """Checks the rows' statements and that the position's row was changed."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected

    def __call__(self, answers: Sequence[Answer]) -> None:
        self._expected.check(answers)
        if answers[-1].affected != 1:
            raise ReshardError("the stream's row on the target could not be moved on")
