"""One shard's binlog, followed for the cache: entries of rows that were written become tombstones, and marks say up to
when that was done. The rules are those of docs/cache.md.

A keeper keeps nothing itself. Each node has, beside the mark, the place up to which its entries are invalidated, and
the generation that began there; whoever follows goes on at that place. Where it cannot, a new generation begins, and
all entries of the old one are void.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex

from shardproxy import logs
from shardproxy.cache.entries import INVALIDATE, MARK, Names, two_values
from shardproxy.cache.node import CacheNode
from shardproxy.cache.patterns import CachedRows, CacheSettings
from shardproxy.errors import BackendError, BackendLost, ReshardError, SqlError
from shardproxy.reshard.binlog import Piece
from shardproxy.reshard.change_source import SourceSettings, changes, check_source
from shardproxy.reshard.columns import TableShape, WholeTable, quote
from shardproxy.reshard.link import Link, LinkLogin, connect
from shardproxy.reshard.position import Position, parse_position
from shardproxy.reshard.shapes import read_shape
from shardproxy.reshard.snapshot import source_position
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Server
from shardproxy.topology.moving import every_key
from shardproxy.topology.redis_ring import RedisRing

log = logs.Log("cache")

PAUSE = 0.25  # seconds after an error
MARKS = 5  # marks in the time of one `bound`
SILENCE = 10.0  # seconds without a word after which a server counts as gone
_AT_ONCE = 1000  # entries in one script
_WORD = re.compile(r"[^\W]+")
_INTEGERS = frozenset(("tinyint", "smallint", "mediumint", "int", "bigint"))


@dataclass
class _Kept:
    """What a node is for this shard. generation: b"" until there is one, which may begin at `since` of the loop's clock
    and the hold-off later."""

    node: CacheNode
    names: Names
    generation: bytes
    since: float


class ShardKeeper:
    """Follows one shard, for ever. rows, queried: those that it has. marked: of the loop's clock; invalidated: entries
    so far; problem: why there are no marks, for people."""

    def __init__(
        self,
        settings: CacheSettings,
        server: Server,
        login: LinkLogin,
        rows: Sequence[CachedRows],
        nodes: Sequence[CacheNode],
        ring: RedisRing,
        queried: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.server = server
        self.marked = 0.0
        self.invalidated = 0
        self.problem = "not begun"
        self._settings = settings
        self._login = login
        self._rows = rows
        self._queried = queried
        self._nodes = nodes
        self._ring = ring
        self._forget = False
        self._moved = asyncio.Event()  # the position has
        self._position: Position
        self._restart: str | None = None
        self._kept: dict[CacheNode, _Kept] = {}
        self._of_table: list[list[tuple[CachedRows, list[int]]]] = []  # and columns' places in the primary key
        self._tokens: list[tuple[str, str] | None] = []  # of each table, where it has one: its name

    async def run(self) -> None:
        """Follow, and begin again after every error."""
        while True:
            try:
                await self._once()
            except ReshardError as error:
                self._forget = True
                self._say(str(error))
            except (BackendError, SqlError, OSError, ValueError) as error:
                self._say(str(error))
            await asyncio.sleep(PAUSE)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("cache_not_kept", server=self.server.name, reason=problem)
        self.problem = problem

    async def _once(self) -> None:
        live = [node for node in self._nodes if node.usable]
        if not live:
            node = self._nodes[0]
            raise BackendLost(node.unfit or f"no Redis node can be reached: {node.why_down}")
        async with await connect(self.server, self._login) as link:
            shapes = await self._shapes(link)
            await self._begin(link, live)
            source = SourceSettings(
                self.server, self._login, shapes, every_key(KeyType.INT), str(self._position),
                self._restart or str(self._position), SILENCE,
            )  # fmt: skip
            tasks = [asyncio.create_task(self._follow(source)), asyncio.create_task(self._mark(link))]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    # ── the beginning ──

    async def _shapes(self, link: Link) -> tuple[TableShape, ...]:
        """The tables as they are now. Raises ReshardError when one cannot be kept."""
        wrong = await check_source(link)
        if wrong:
            raise ReshardError("; ".join(wrong))
        await _check_hold_off(link, self._settings.hold_off)
        tables = dict.fromkeys([*((rows.database, rows.table) for rows in self._rows), *self._queried])
        shapes = [await read_shape(link, database, table, None, WholeTable()) for database, table in tables]
        self._of_table = [[] for _ in shapes]
        self._tokens = [table if table in self._queried else None for table in tables]
        for rows in self._rows:
            place = list(tables).index((rows.database, rows.table))
            self._of_table[place].append((rows, _places(rows, shapes[place])))
        for shape in shapes:
            await _check_foreign_keys(link, shape)
        if self._settings.strict:
            for shape in shapes:
                await _check_engine(link, shape)
            await _check_triggers(link, shapes)
        return tuple(shapes)

    async def _begin(self, link: Link, live: Sequence[CacheNode]) -> None:
        """Find where to go on, and which node has which generation."""
        self._kept = {node: _Kept(node, Names(node.run, self._settings.digest), b"", 0.0) for node in live}
        shard = self.server.shard
        if self._forget:
            for kept in self._kept.values():
                await kept.node.ask([b"DEL", kept.names.mark(shard), kept.names.place(shard)])
            self._forget = False
        found: list[tuple[Position, str | None]] = []
        for kept in self._kept.values():
            known = _bulk(await kept.node.ask([b"GET", kept.names.place(shard)]))
            if known is not None:
                kept.generation, _, place = known.partition(b" ")
                position, _, restart = place.decode().partition("|")
                found.append((parse_position(position, link.is_mariadb), restart or None))
        first = [entry for entry in found if all(other.covers(entry[0]) for other, _ in found)]
        if found and not first:
            raise ReshardError("the nodes' places in the binlog are of two histories")
        if first:
            self._position, self._restart = first[0]
        else:
            self._position, self._restart = await source_position(link), None
        now = asyncio.get_running_loop().time()
        for kept in self._kept.values():
            kept.since = now  # what was written before it is visible a hold-off later

    # ── the binlog ──

    async def _follow(self, source: SourceSettings) -> None:
        async for pieces in changes(source):
            await self._invalidate(pieces)
            for piece in pieces:
                if piece.gtid is not None and piece.last:
                    self._position.add(piece.gtid)
                    self._restart = piece.restart
            self._moved.set()
        raise BackendLost(f"{self.server.name}: its binlog has ended")

    async def _invalidate(self, pieces: Sequence[Piece]) -> None:
        wanted: dict[CacheNode, dict[bytes, None]] = {}
        tokens: set[tuple[str, str]] = set()
        for piece in pieces:
            if piece.orphan:
                raise ReshardError(f"the XA branch {piece.xid.decode()} was prepared before its binlog was read")
            for table, before, after, _ in piece.changes:
                token = self._tokens[table]
                if token is not None:
                    tokens.add(token)
                if not self._of_table[table]:
                    continue
                for literal in {before, after}:
                    if literal is not None:
                        self._add(wanted, table, literal)
        if tokens:
            for kept in self._kept.values():
                wanted.setdefault(kept.node, {}).update((kept.names.queried(table), None) for table in tokens)
        hold_off = b"%d" % round(self._settings.hold_off * 1000)
        for node, entries in wanted.items():
            if node in self._kept:  # the others are without a generation until we begin anew with them
                names = list(entries)
                for i in range(0, len(names), _AT_ONCE):
                    await node.run_script(INVALIDATE, names[i : i + _AT_ONCE], [hold_off])
                self.invalidated += len(names)

    def _add(self, wanted: dict[CacheNode, dict[bytes, None]], table: int, literal: bytes) -> None:
        values = literal.strip(b"()").split(b",")
        for rows, places in self._of_table[table]:
            parts = [int(values[place]) for place in places]
            key = rows.key(parts)
            node = self._nodes[self._ring.node_of(key)]
            kept = self._kept.get(node)
            if kept is not None:
                wanted.setdefault(node, {})[kept.names.entry(rows.name, parts)] = None

    # ── marks ──

    async def _mark(self, link: Link) -> None:
        """Say, again and again, up to when entries are invalidated. Raises BackendLost to begin anew."""
        while True:
            clocks = {kept.node: await self._clock(kept) for kept in self._kept.values()}
            for node in self._nodes:
                if node not in self._kept and node.usable:
                    raise BackendLost(f"node {node.name} is there again")
            await self._read_to(await source_position(link))
            whole = True
            for kept in self._kept.values():
                whole &= await self._mark_node(kept, clocks[kept.node])
            if whole and len(self._kept) == len(self._nodes):
                self.marked = asyncio.get_running_loop().time()
                self.problem = ""
            await asyncio.sleep(self._settings.bound / MARKS)

    async def _read_to(self, goal: Position) -> None:
        """Wait until everything before a place has been invalidated."""
        clock = asyncio.get_running_loop().time
        late = clock() + self._settings.bound
        while not self._position.covers(goal):
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.bound):
                    await self._moved.wait()
            if clock() > late:
                self._say("its binlog cannot be read as fast as it is written")

    async def _clock(self, kept: _Kept) -> int:
        """The node's time, in milliseconds."""
        if not kept.node.usable or kept.node.run != kept.names.run:
            raise BackendLost(kept.node.unfit or f"node {kept.node.name} was lost: {kept.node.why_down or 'restarted'}")
        seconds, micros = two_values(await kept.node.ask([b"TIME"]))
        return int(seconds or 0) * 1000 + int(micros or 0) // 1000

    async def _mark_node(self, kept: _Kept, clock: int) -> bool:
        """Whether the node has a mark."""
        fresh = not kept.generation
        now = asyncio.get_running_loop().time()
        if fresh and now < kept.since + self._settings.hold_off:
            return False
        generation = kept.generation or token_hex(4).encode()
        keys = [kept.names.mark(self.server.shard), kept.names.place(self.server.shard)]
        until = clock + round(self._settings.bound * 1000)
        place = f"{self._position}|{self._restart or ''}".encode()
        done = await kept.node.run_script(MARK, keys, [generation, b"%d" % until, place, b"1" if fresh else b"0"])
        if done:
            kept.generation = generation
            return True
        if fresh:
            raise BackendLost(f"node {kept.node.name} has a generation of another keeper")
        kept.generation, kept.since = b"", now  # it has forgotten, perhaps tombstones too
        return False


def _bulk(reply: bytes) -> bytes | None:
    """The text of a bulk string. Raises ValueError when it is none."""
    if reply[:1] != b"$":
        raise ValueError("a bulk string was due")
    if reply == b"$-1\r\n":
        return None
    return reply[reply.index(b"\r\n") + 2 : -2]


def _places(rows: CachedRows, shape: TableShape) -> list[int]:
    """For each column of the pattern its place in the primary key. Raises ReshardError."""
    primary = [shape.columns[i] for i in shape.primary]
    names = [column.name.lower() for column in primary]
    if sorted(names) != sorted(column.lower() for column in rows.columns):
        raise ReshardError(
            f"cache.rows.{rows.name}: the columns of {rows.pattern} must be the primary key of {rows.label}, "
            f"which is ({', '.join(names)})"
        )
    odd = [column.name for column in primary if column.data_type not in _INTEGERS]
    if odd:
        raise ReshardError(f"cache.rows.{rows.name}: {rows.label}.{odd[0]} is no integer: such rows are not cached yet")
    return [names.index(column.lower()) for column in rows.columns]


async def _check_hold_off(link: Link, hold_off: float) -> None:
    """Raises ReshardError when semi-synchronous replication may keep a transaction longer than the hold-off between its
    place in the binlog and its being visible."""
    rows = (await link.query(b"SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%'")).values()
    sides = (b"rpl_semi_sync_master_", b"rpl_semi_sync_source_")  # MariaDB's name and MySQL's for the same
    found = {(name or b"")[len(sides[0]) :]: value or b"" for name, value in rows if (name or b"").startswith(sides)}
    waits = found.get(b"enabled") in (b"ON", b"1") and found.get(b"wait_point") == b"AFTER_SYNC"
    seconds = int(found.get(b"timeout", b"0")) / 1000
    if waits and seconds >= hold_off:
        raise ReshardError(
            f"{link.server.name}: semi-synchronous replication (AFTER_SYNC) may keep a transaction for {seconds:g} s "
            f"in the binlog and not visible: cache.hold_off must be longer, and is {hold_off:g} s"
        )


async def _check_foreign_keys(link: Link, shape: TableShape) -> None:
    """Raises ReshardError when rows change without a trace in the binlog."""
    text = (
        b"SELECT constraint_name FROM information_schema.referential_constraints WHERE constraint_schema = %s AND "
        b"table_name = %s AND (delete_rule NOT IN ('RESTRICT', 'NO ACTION') OR "
        b"update_rule NOT IN ('RESTRICT', 'NO ACTION'))"
    )
    rows = (await link.query(text % (quote(shape.database.encode()), quote(shape.name.encode())))).values()
    if rows:
        name = (rows[0][0] or b"").decode()
        raise ReshardError(
            f"{shape.database}.{shape.name} cannot be cached: its foreign key {name} changes rows by CASCADE or SET "
            "NULL, of which the binlog says nothing"
        )


async def _check_engine(link: Link, shape: TableShape) -> None:
    """Strict mode. Raises ReshardError when rows change before their transaction is committed."""
    text = b"SELECT engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
    rows = (await link.query(text % (quote(shape.database.encode()), quote(shape.name.encode())))).values()
    engine = (rows[0][0] or b"").decode() if rows else ""
    if engine.lower() != "innodb":
        raise ReshardError(
            f"{shape.database}.{shape.name} cannot be cached strictly: its engine is not InnoDB but {engine}"
        )


async def _check_triggers(link: Link, shapes: Sequence[TableShape]) -> None:
    """Strict mode. Raises ReshardError when a statement may write a cached row that it does not name."""
    text = (
        b"SELECT trigger_schema, trigger_name, action_statement, action_timing, event_object_table "
        b"FROM information_schema.triggers WHERE trigger_name NOT LIKE '\\_shardproxy\\_%'"  # those are of moves
    )
    cached = {shape.name.lower() for shape in shapes}
    for schema, name, statement, timing, table in (await link.query(text)).values():
        words = set(_WORD.findall((statement or b"").decode(errors="replace").lower()))
        own = (table or b"").decode(errors="replace").lower() in cached
        if "call" in words or not words.isdisjoint(cached) or (own and timing == b"BEFORE" and "set" in words):
            raise ReshardError(
                f"trigger {(schema or b'').decode()}.{(name or b'').decode()} may change cached rows that a statement "
                'does not name: drop it, or take cache.mode = "bounded"'
            )
