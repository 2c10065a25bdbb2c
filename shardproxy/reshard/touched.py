"""Keys that have changed since the rows were compared, so that a switch need not compare all of them again.

What is written while a comparison runs, and after it, is applied by the stream and noted here. Before the switch the
noted rows are compared while writers go on, until few are left; those are compared while writes are held, by locking
reads: an event can be in the binlog, and be applied, before its row is visible at the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shardproxy.reshard.binlog import Change
from shardproxy.reshard.columns import TableShape
from shardproxy.reshard.link import Link
from shardproxy.reshard.verify import Verified, compare, show
from shardproxy.topology.moving import MovingKeys

# Keys that may be left for the moment in which writes are held. With 300 it took 10 ms longer than after a fast
# comparison, which leaves few anyway; a gentle one takes seconds (median of 24 switches, 500 writes/s).
FEW = 40
_MOST = 500_000  # keys that are noted; with more, all rows are compared again
# Keys that are compared at once; of not too many keys few, as one row that has just been written leaves all of them.
_CHUNK, _SMALL_CHUNK, _NOT_MANY = 200, 20, 4000


class Touched:
    """The keys of one stream, by table. noting: a comparison has begun; whole: no key since then is missing."""

    def __init__(self) -> None:
        self.noting = False
        self.whole = False
        self._keys: dict[int, dict[bytes, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """All rows are compared from here on."""
        self.noting = True
        self.whole = False
        self._keys, self._count = {}, 0

    def add(self, changes: Iterable[Change]) -> None:
        """Note the keys of changes: primary keys as literals, before and after."""
        for table, old, new, _ in changes:
            mine = self._keys.setdefault(table, {})
            for key in (old, new):
                if key is not None and key not in mine:
                    mine[key] = None
                    self._count += 1
        if self._count > _MOST:
            self.noting = self.whole = False
            self._keys, self._count = {}, 0

    def chunks(self, held: bool = False) -> list[tuple[int, list[bytes]]]:
        """All noted keys by table, some together; none are noted then. held: while writes are, and none differs."""
        size = _SMALL_CHUNK if self._count <= _NOT_MANY and not held else _CHUNK
        found = []
        for table, keys in self._keys.items():
            every = list(keys)
            found += [(table, every[at : at + size]) for at in range(0, len(every), size)]
        self._keys, self._count = {}, 0
        return found

    def put_back(self, table: int, keys: Iterable[bytes]) -> None:
        """Keys that are to be compared again."""
        mine = self._keys.setdefault(table, {})
        before = len(mine)
        mine.update(dict.fromkeys(keys))
        self._count += len(mine) - before


async def sweep(
    source: Link, target: Link, tables: Sequence[TableShape], moving: MovingKeys, touched: Touched,
    chunks: Sequence[tuple[int, Sequence[bytes]]],
) -> None:  # fmt: skip
    """Compare rows while writers go on: what differs is noted again, for it may just have been written."""
    left = list(chunks)
    try:
        while left:
            table, keys = left[-1]
            _, equal = await compare(source, target, tables[table], _where(tables[table], moving, keys))
            left.pop()
            if not equal:
                touched.put_back(table, keys)
    finally:
        for table, keys in left:
            touched.put_back(table, keys)


async def settle(
    source: Link, target: Link, tables: Sequence[TableShape], moving: MovingKeys, touched: Touched
) -> Verified:
    """Compare the rows that are left, while nobody writes them and the stream has applied everything. What differs
    stays noted: the switch may have been given up meanwhile."""
    done = Verified()
    left = touched.chunks(held=True)
    differing: list[tuple[int, list[bytes]]] = []
    try:
        while left:
            table, keys = left[-1]
            where = _where(tables[table], moving, keys)
            rows, equal = await compare(source, target, tables[table], where, locking=True)
            done.rows += rows
            done.chunks += 1
            if not equal:
                differing.append(left[-1])
                await show(source, target, tables[table], where, done)
            left.pop()
    finally:
        for table, keys in (*left, *differing):
            touched.put_back(table, keys)
    return done


def _where(table: TableShape, moving: MovingKeys, keys: Sequence[bytes]) -> bytes:
    # A row whose shard key has changed may still be there under its primary key, and move no more.
    return b"%s IN (%s) AND %s" % (table.primary_row, b",".join(keys), table.condition(moving))
