"""How many rows and bytes there are in which keys, within a bound on time.

Counting reads an index, not the rows. What cannot be counted in time is estimated, and said to be: on hash maps from
the number of buckets, on range maps by the server's own estimate for a range of an index. Bytes are the server's figure
for a whole table, data and indexes, in proportion to the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.errors import SqlError
from shardproxy.topology.goals import Change
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.levelling import Piece
from shardproxy.topology.maps import BucketMap, KeyRange, RangeMap
from shardproxy.topology.model import Keyspace, Snapshot, Table, TableKind
from shardproxy.topology.moves import Stream
from shardproxy.topology.moving import MovingKeys

SLICES = 64  # of a range, in which its rows are counted
_TIMED_OUT = frozenset({1969, 3024, 1317, 1205})  # max_statement_time, max_execution_time, killed, table locked
_LEAST = 0.05  # seconds that are not worth a question
_SIZES = (
    "SELECT table_name AS name, COALESCE(table_rows, 0) AS n, "
    "COALESCE(data_length, 0) + COALESCE(index_length, 0) AS b "
    "FROM information_schema.tables WHERE table_schema = %s AND table_type <> 'VIEW'"
)


@dataclass(frozen=True, slots=True)
class Size:
    """Rows and bytes; exact: the rows were counted. Bytes never are."""

    rows: int = 0
    bytes: int = 0
    exact: bool = True

    def __add__(self, other: Size) -> Size:
        return Size(self.rows + other.rows, self.bytes + other.bytes, self.exact and other.exact)


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes through one stream, by table."""

    stream: Stream
    tables: Mapping[str, Size]

    @property
    def size(self) -> Size:
        return sum(self.tables.values(), Size())


@dataclass(frozen=True, slots=True)
class Ruler:
    """Whom to ask, and for how long: `seconds` for each answer, `budget` for all counting on one shard (0: none)."""

    snapshot: Snapshot
    keyspace: Keyspace
    credentials: Credentials
    seconds: float
    budget: float

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for table in self.keyspace.tables.values() if table.kind is TableKind.SHARDED and table.key)


class Shard:
    """One shard's tables while they are measured."""

    def __init__(self, ruler: Ruler, connection: ControlConnection, totals: Mapping[str, Size]) -> None:
        self.ruler = ruler
        self.connection = connection
        self.totals = totals
        self._end = monotonic() + ruler.budget
        self._buckets: dict[str, dict[int, int]] = {}

    @property
    def tables(self) -> list[Table]:
        """Those that exist, small ones first: they are counted, whatever the time."""
        found = [table for table in self.ruler.tables if table.name in self.totals]
        return sorted(found, key=lambda table: self.totals[table.name].bytes)

    async def count(self, sql: str) -> list[dict[str, object]] | None:
        """The rows of a statement that counts; None when the time does not suffice."""
        left = self._end - monotonic()
        if left < _LEAST:
            return None
        if self.connection.is_mariadb:
            await self.connection.execute(f"SET SESSION max_statement_time = {left:.3f}")
        else:
            await self.connection.execute(f"SET SESSION max_execution_time = {max(1, int(left * 1000))}")
        try:
            return await self.connection.query(sql, seconds=left + self.ruler.seconds)
        except SqlError as error:
            if error.code not in _TIMED_OUT:
                raise
            return None

    async def buckets(self, table: Table) -> dict[int, int] | None:
        """Bucket → rows, of those buckets that have some."""
        if table.name not in self._buckets:
            column = _name(table.key or "")
            value = f"RTRIM({column})" if self.ruler.keyspace.key_type is KeyType.TEXT else column
            rows = await self.count(
                f"SELECT CRC32(CRC32({value})) % {BUCKETS} AS k, COUNT(*) AS n FROM {self.name(table)} "  # noqa: S608
                f"WHERE {column} IS NOT NULL GROUP BY k"
            )
            if rows is None:
                return None
            self._buckets[table.name] = {_int(row["k"]): _int(row["n"]) for row in rows}
        return self._buckets[table.name]

    async def rows_of(self, table: Table, keys: MovingKeys) -> tuple[int, bool]:
        """Rows with these keys, and whether they were counted."""
        if keys.buckets is not None and keys.intervals is None:
            found = await self.buckets(table)
            if found is not None:
                return sum(found.get(bucket, 0) for bucket in keys.buckets), True
            return self._expected(table, keys.buckets), False
        condition = keys.condition(table.key or "").decode()
        rows = await self.count(f"SELECT COUNT(*) AS n FROM {self.name(table)} WHERE {condition}")  # noqa: S608
        if rows is not None:
            return _int(rows[0]["n"]), True
        if keys.buckets is not None and isinstance(self.ruler.keyspace.map, RangeMap):  # all its keys, by buckets
            return self.totals[table.name].rows * len(keys.buckets) // BUCKETS, False
        assert keys.intervals is not None
        return sum([await self.estimated(table, *interval) for interval in keys.intervals]), False

    async def estimated(self, table: Table, start: int, end: int) -> int:
        """The server's own estimate of the rows in a range of keys."""
        form = "" if self.connection.is_mariadb else "FORMAT=TRADITIONAL"  # MySQL's default is a text
        [plan, *_] = await self.connection.query(
            f"EXPLAIN {form} SELECT 1 FROM {self.name(table)} WHERE {_name(table.key or '')} "  # noqa: S608
            f"BETWEEN {start} AND {end - 1}"
        )
        return min(_int(plan["rows"] or 0), self.totals[table.name].rows)

    async def edges(self, table: Table, r: KeyRange) -> tuple[int, int] | None:
        """The least and the greatest key of a range that have a row."""
        column = _name(table.key or "")
        [row] = await self.connection.query(
            f"SELECT MIN({column}) AS low, MAX({column}) AS high FROM {self.name(table)} "  # noqa: S608
            f"WHERE {column} BETWEEN {r.start} AND {r.end - 1}"
        )
        return None if row["low"] is None else (_int(row["low"]), _int(row["high"]))

    def share(self, table: Table, rows: int, exact: bool) -> Size:
        """The size of so many rows of a table."""
        total = self.totals[table.name]
        whole = max(total.rows, rows)
        counted = self._buckets.get(table.name)
        if counted is not None:
            whole = max(sum(counted.values()), rows)
        return Size(rows, total.bytes * rows // whole if whole else 0, exact)

    def _expected(self, table: Table, buckets: frozenset[int]) -> int:
        index = self.ruler.snapshot.shard_index(self.connection.server.shard)
        assert isinstance(self.ruler.keyspace.map, BucketMap)
        owners = self.ruler.keyspace.map.buckets
        ours = all(owners[bucket] == index for bucket in buckets)  # else the rows are placed by another column
        return self.totals[table.name].rows * len(buckets) // (max(1, owners.count(index)) if ours else BUCKETS)

    def name(self, table: Table) -> str:
        return f"{_name(self.ruler.keyspace.name)}.{_name(table.name)}"


async def open_shard(ruler: Ruler, shard: int) -> Shard:
    """A connection to a shard's primary, with the figures of its tables. Raises BackendError, SqlError."""
    server = ruler.snapshot.shards[shard].primary
    connection = await open_control(server, ruler.credentials, ruler.seconds)
    try:
        if not connection.is_mariadb:  # else its figures may be a day old
            await connection.execute("SET SESSION information_schema_stats_expiry = 0")
        await connection.execute("SET SESSION lock_wait_timeout = 2")  # a table that is locked holds nobody up
        await connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        rows = await connection.query(_SIZES, (ruler.keyspace.name,))
    except BaseException:
        await connection.close()
        raise
    sizes = {str(text(row["name"])): Size(_int(row["n"]), _int(row["b"]), False) for row in rows}
    return Shard(ruler, connection, sizes)


class Measure:
    """All that is measured for one plan; each shard is asked through one connection. Use as `async with`."""

    def __init__(self, ruler: Ruler) -> None:
        self.ruler = ruler
        self._open: dict[int, Shard] = {}

    async def __aenter__(self) -> Measure:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for shard in self._open.values():
            await shard.connection.close()

    async def shard(self, index: int) -> Shard:
        if index not in self._open:
            self._open[index] = await open_shard(self.ruler, index)
        return self._open[index]

    async def totals(self) -> dict[int, Size]:
        """Shard → its sharded tables together, as the servers have it."""
        found = {}
        for index in self.ruler.keyspace.map.all_shards:
            shard = await self.shard(index)
            found[index] = sum((shard.totals[table.name] for table in shard.tables), Size())
        return found

    async def pieces(self) -> tuple[list[Piece], bool]:
        """Bytes in pieces of all keys, or in each bucket, and whether the rows were counted."""
        owners = self.ruler.keyspace.map.all_shards
        found = await asyncio.gather(*[self._pieces_of(await self.shard(index), index) for index in owners])
        return [piece for pieces, _ in found for piece in pieces], all(exact for _, exact in found)

    async def flows(self, change: Change) -> list[Flow]:
        """What goes through each stream of a change."""
        by_source: dict[int, list[Stream]] = {}
        for stream in change.streams:
            by_source.setdefault(stream.source, []).append(stream)
        found = await asyncio.gather(
            *[self._flows_of(await self.shard(source), streams) for source, streams in by_source.items()]
        )
        return [flow for flows in found for flow in flows]

    async def _flows_of(self, shard: Shard, streams: Sequence[Stream]) -> list[Flow]:
        sizes: dict[int, dict[str, Size]] = {i: {} for i in range(len(streams))}
        for table in shard.tables:
            for i, stream in enumerate(streams):
                rows, exact = await shard.rows_of(table, stream.keys)
                sizes[i][table.name] = shard.share(table, rows, exact)
        return [Flow(stream, sizes[i]) for i, stream in enumerate(streams)]

    async def _pieces_of(self, shard: Shard, index: int) -> tuple[list[Piece], bool]:
        if isinstance(self.ruler.keyspace.map, RangeMap):
            found: list[Piece] = []
            exact = True
            for r in self.ruler.keyspace.map.ranges:
                if r.shard == index:
                    pieces, counted = await _slices(shard, r)
                    found += pieces
                    exact = exact and counted
            return found, exact
        owned = [bucket for bucket, owner in enumerate(self.ruler.keyspace.map.buckets) if owner == index]
        sizes = dict.fromkeys(owned, 0.0)
        exact = True
        for table in shard.tables:
            rows = await shard.buckets(table)
            total = shard.totals[table.name].bytes
            if rows is None:
                exact = False
                rows = dict.fromkeys(owned, 1)
            whole = sum(rows.values())
            for bucket in owned:
                sizes[bucket] += total * rows.get(bucket, 0) / whole if whole else 0.0
        return [Piece(bucket, bucket + 1, size) for bucket, size in sizes.items()], exact


async def _slices(shard: Shard, r: KeyRange) -> tuple[list[Piece], bool]:
    """A range in slices with their bytes; slices that hold much are cut again, once."""
    edges = [found for table in shard.tables if (found := await shard.edges(table, r))]
    if not edges:
        return [], True
    pieces, exact = await _counted(shard, min(low for low, _ in edges), max(high for _, high in edges) + 1)
    total = sum(piece.size for piece in pieces)
    out: list[Piece] = []
    for piece in pieces:
        if piece.size * SLICES > 4 * total and piece.end - piece.start > 1:
            finer, counted = await _counted(shard, piece.start, piece.end)
            out += finer
            exact = exact and counted
        else:
            out.append(piece)
    return out, exact


async def _counted(shard: Shard, low: int, high: int) -> tuple[list[Piece], bool]:
    """The keys from low to high (not included) in slices of one width."""
    width = max(1, -(-(high - low) // SLICES))
    count = -(-(high - low) // width)
    sizes = [0.0] * count
    exact = True
    for table in shard.tables:
        column = _name(table.key or "")
        rows = await shard.count(
            f"SELECT CAST(FLOOR((CAST({column} AS DECIMAL(30)) - {low}) / {width}) AS SIGNED) AS k, "  # noqa: S608
            f"COUNT(*) AS n FROM {shard.name(table)} WHERE {column} BETWEEN {low} AND {high - 1} GROUP BY k"
        )
        if rows is not None:
            counts = {_int(row["k"]): _int(row["n"]) for row in rows}
        else:
            exact = False
            starts = [low + i * width for i in range(count)]
            counts = {i: await shard.estimated(table, at, min(high, at + width)) for i, at in enumerate(starts)}
        total = shard.totals[table.name]
        whole = max(total.rows, sum(counts.values()))
        for i, n in counts.items():
            sizes[i] += total.bytes * n / whole
    return [Piece(low + i * width, min(high, low + (i + 1) * width), size) for i, size in enumerate(sizes)], exact


def _name(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _int(value: object) -> int:
    return int(value)  # type: ignore[call-overload,no-any-return]  # a driver's number or digits
