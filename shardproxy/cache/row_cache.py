"""Rows of MySQL as Redis values, read through: entry, else lease, row, entry. One per worker.

The steps are those of docs/cache.md. A row is believed from an entry only together with the live mark of its shard,
which comes in the same reply. Whatever else is found, or cannot be asked, leads to the row itself, on the primary.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from secrets import token_hex
from typing import Any

from shardproxy import logs
from shardproxy.backend.gateway import Gateway
from shardproxy.cache.documents import hash_fields, json_document
from shardproxy.cache.entries import (
    FILL,
    FILL_STAMPED,
    STAMP,
    TAKE_LEASE,
    TOMBSTONE,
    Names,
    Script,
    State,
    is_lease,
    read,
    stamp_token,
    tag,
    three_values,
    two_values,
    value,
)
from shardproxy.cache.loads import Loads
from shardproxy.cache.looks import Looks
from shardproxy.cache.node import CacheNode
from shardproxy.cache.patterns import CachedRows, CacheSettings, Patterns
from shardproxy.cache.refresher import Refresher
from shardproxy.cache.sampler import Sampler
from shardproxy.errors import BackendError, RemoteProtocolError, SqlError
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.protocol.redis import encode
from shardproxy.session.profile import profile
from shardproxy.topology.maps import UnmappedKey
from shardproxy.topology.model import TableKind
from shardproxy.topology.redis_ring import RedisRing

log = logs.Log("cache")

_PROFILE = profile(
    int(Cap.DEPRECATE_EOF),
    None,
    (
        ("character_set_client", "'utf8mb4'"), ("character_set_connection", "'utf8mb4'"),
        ("character_set_results", "'utf8mb4'"), ("collation_connection", "'utf8mb4_general_ci'"),
    ),
)  # fmt: skip
_PLACES = 20_000  # about 10 MB
_TRIES = 3  # loads of one row while the map changes

Row = bytes | None
Done = Callable[[Row, str], None]


class Place:
    """Where a row and its entry are: shard, node and names, under one map. question: what is asked for each read."""

    __slots__ = (
        "entry", "mark", "node", "parts", "question", "rows", "run", "shard", "snapshot", "stamped", "table",
        "tagged", "words",
    )  # fmt: skip

    def __init__(self, cache: RowCache, rows: CachedRows, parts: Sequence[int], node: CacheNode) -> None:
        """Raises SqlError for a table that the map does not have, or a key that it places nowhere."""
        self.rows = rows
        self.parts = parts
        self.node = node
        self.stamped = rows.stamped
        self.snapshot = cache.gateway.snapshot
        self.shard = cache.shard_of(rows, parts)
        self.run = node.run
        names = Names(node.run, cache.digest)
        self.entry = names.entry(rows.name, parts)
        self.mark = names.mark(self.snapshot.shards[self.shard].name)
        self.table = names.table(rows.name) if cache.settings.strict else b""
        self.words = [b"MGET", self.entry, self.mark]
        if self.table:
            self.words.append(self.table)
        self.question = encode.command(self.words)
        self.tagged = (b"", b"")  # the mark that was seen last, and its tag

    def tag(self, mark: bytes) -> bytes:
        """What a value must have to be believed under a mark."""
        if self.tagged[0] != mark:
            self.tagged = (mark, tag(mark, self.snapshot.epochs.get(self.rows.database, 0)))
        return self.tagged[1]

    def row(self, state: State, payload: bytes) -> Row:
        """What a client gets of a payload; None: there is no such row."""
        if state is not State.VALUE:
            return None
        return payload[STAMP:] if self.stamped else payload

    def found(self, reply: bytes) -> tuple[Row, Row]:
        """Entry and mark from the reply to `question`; None for both when it is an error. Strict: the table's token
        goes with the mark, and where there is none the row is as one that was just written."""
        try:
            if not self.table:
                return two_values(reply)
            entry, mark, token = three_values(reply)
        except ValueError:
            return None, None
        if mark is None:
            return None, None
        if token is None:
            # The hold-off after a write is over, or nobody has read the table yet: a token that nobody has had before.
            fresh = [b"SET", self.table, token_hex(8).encode(), b"NX"]
            if self.node.usable and self.node.run == self.run:
                self.node.send(encode.command(fresh), _unheard)
            return TOMBSTONE, mark
        return (TOMBSTONE if token == TOMBSTONE else entry), b"%b.%b" % (mark, token)


def _unheard(reply: bytes) -> None:
    """Whether it was done, the next read sees."""


class RowCache:
    """hits, counts: what became of reads; counts: of those that were no hits, by outcome."""

    def __init__(self, settings: CacheSettings, nodes: Sequence[CacheNode], ring: RedisRing, gateway: Gateway) -> None:
        self.settings = settings
        self.patterns = Patterns(settings.rows)
        self.nodes = nodes
        self.gateway = gateway
        self.digest = settings.digest
        self.counts: Counter[str] = Counter()
        self.hits = 0
        self._ring = ring
        self._texts: dict[str, bytes] = {rows.name: _select(rows) for rows in settings.rows}
        self._places: dict[bytes, Place] = {}  # of rows that were read lately
        self._looks: Looks[tuple[Row, Row]] = Looks(self.later, _on_its_way)
        self._tasks: set[asyncio.Task[None]] = set()
        self._owner = token_hex(8)
        self._leases = 0
        self._loads = Loads(self._load, self.later)
        self.sampler = Sampler(settings, self._load, self.given, self.later)
        self._refresher = Refresher(settings, self.counts, self._load, self._current, self.later)

    def shard_of(self, rows: CachedRows, parts: Sequence[int]) -> int:
        """Raises SqlError as Place."""
        keyspace = self.gateway.snapshot.keyspaces.get(rows.database)
        table = None if keyspace is None else keyspace.tables.get(rows.table)
        if keyspace is None or table is None:
            raise SqlError(f"table {rows.label} of cache.rows.{rows.name} is in no keyspace: see shardctl topology")
        if table.kind is TableKind.SINGLE and table.shard is not None:
            return table.shard
        if table.kind is TableKind.REFERENCE:
            return keyspace.home
        if table.key not in rows.columns:
            raise SqlError(f"cache.rows.{rows.name}: the shard key {table.key} of {rows.label} is not in the pattern")
        try:
            return keyspace.map.lookup(parts[rows.columns.index(table.key)])
        except UnmappedKey as error:
            raise SqlError(f"{rows.label}: {error}") from error

    def read(self, key: bytes, rows: CachedRows, parts: Sequence[int], done: Done) -> None:
        """Give a row to `done`, with the text of an error when it cannot be had: (None, "") is no such row."""
        place = self.known(key)
        if place is None:
            try:
                place = Place(self, rows, parts, self.nodes[self._ring.node_of(key)])
            except SqlError as error:
                done(None, str(error))
                return
            if len(self._places) >= _PLACES:
                self._places.clear()
            self._places[key] = place
        self.ask(place, done)

    def known(self, key: bytes) -> Place | None:
        """The place of a row that was read under the present map, if it still is remembered."""
        place = self._places.get(key)
        if place is None or place.snapshot is not self.gateway.snapshot or place.run != place.node.run:
            return None
        return place

    def ask(self, place: Place, done: Done) -> None:
        """As `read`."""
        node = place.node
        if not node.usable:
            self.later(self._bypass(place, done), done)
            return
        node.send(place.question, lambda reply: self._looked(place, done, reply))

    def _looked(self, place: Place, done: Done, reply: bytes) -> None:
        """Entry and mark have come, or an error."""
        entry, mark = place.found(reply)
        if mark is None:
            self.later(self._bypass(place, done), done)
            return
        state, payload = read(entry, place.tag(mark))
        if state is State.VALUE or state is State.ABSENT:
            self.hits += 1
            row = place.row(state, payload)
            done(row, "")
            if place.stamped and row is not None:
                self._refresher.hit(place, place.tag(mark), payload)
            if self.hits == self.sampler.next:
                self.sampler.hit(self.hits, place, row)
        else:
            self.later(self._miss(place, done, state, mark), done)

    async def given(self, place: Place) -> tuple[bool, Row]:
        """Whether a read would be a hit now, and the row. Raises BackendError when that cannot be known."""
        if not self._current(place) or place.run != place.node.run:
            raise BackendError("the row is elsewhere now")
        entry, mark = place.found(await place.node.ask(place.words))
        if mark is None:
            return False, None
        state, payload = read(entry, place.tag(mark))
        return state in (State.VALUE, State.ABSENT), place.row(state, payload)

    def _current(self, place: Place) -> bool:
        return place.snapshot is self.gateway.snapshot

    def later(self, work: Coroutine[Any, Any, None], done: Done | None = None) -> None:
        """Run something as a task. done: of the read that it is for, which has an answer whatever happens."""
        task = asyncio.get_running_loop().create_task(self._answered(work, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answered(self, work: Coroutine[Any, Any, None], done: Done | None) -> None:
        try:
            await work
        except Exception as error:
            log.error("cache_defect", error)
            if done is not None:
                done(None, f"internal error: {type(error).__name__}; it has been logged")

    async def _bypass(self, place: Place, done: Done) -> None:
        self.counts["bypassed"] += 1
        await self._give(place, done)

    async def _give(self, place: Place, done: Done) -> None:
        """The row itself, which nobody keeps."""
        try:
            row = await self._loads.row(place)
        except (SqlError, BackendError, RemoteProtocolError) as error:
            done(None, str(error))
        else:
            done(row, "")

    async def _miss(self, place: Place, done: Done, state: State, mark: bytes) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.wait
        waited = False
        try:
            while state is not State.TOMBSTONE and loop.time() < deadline:
                wanted = place.tag(mark)
                if state is State.NOTHING:
                    self._leases += 1
                    token = b"%b-%d" % (self._owner.encode(), self._leases)
                    words = [token, b"%d" % round(self.settings.lease * 1000), wanted]
                    if await place.node.run_script(TAKE_LEASE, [place.entry], words):
                        await self._load_and_fill(place, done, token, wanted)
                        return
                waited = True
                seen = await self._looks.next(place.entry, lambda: self._look(place), deadline)
                entry, found = seen or (None, None)
                if found is None:
                    break
                mark = found
                state, payload = read(entry, place.tag(mark))
                if state is State.VALUE or state is State.ABSENT:
                    self.counts["coalesced"] += 1
                    done(place.row(state, payload), "")
                    return
        except BackendError:
            await self._bypass(place, done)
            return
        self.counts["waited in vain" if waited else "held off"] += 1
        await self._give(place, done)

    async def _look(self, place: Place) -> tuple[Row, Row]:
        """Entry and mark."""
        return place.found(await place.node.ask(place.words))

    async def _load_and_fill(self, place: Place, done: Done, token: bytes, wanted: bytes) -> None:
        self.counts["miss"] += 1
        try:
            row = await self._load(place)
        except (SqlError, BackendError, RemoteProtocolError) as error:
            done(None, str(error))
            await self._fill(place, [token, b"", b"0"])
            return
        done(row, "")
        rows = place.rows
        if not self._current(place):
            await self._fill(place, [token, b"", b"0"])  # loaded under another map than its tag says
        elif row is None or not rows.stamped:
            await self._fill(place, [token, value(wanted, row), b"%d" % (rows.absent_ttl if row is None else rows.ttl)])
        else:
            lives, due = b"%d" % (rows.ttl + rows.stale_for), b"%d" % (rows.ttl - rows.refresh_before)
            await self._fill(place, [token, value(wanted, b""), stamp_token(), row, lives, due], FILL_STAMPED)

    async def _fill(self, place: Place, words: Sequence[bytes], script: Script = FILL) -> None:
        try:
            if not await place.node.run_script(script, [place.entry], words):
                self.counts["fill refused"] += 1
        except BackendError as error:
            self.counts["fill failed"] += 1
            log.debug("cache_fill_failed", reason=str(error))
        self._looks.hurry(place.entry)

    async def _load(self, place: Place) -> Row:
        """The row as the primary has it now. Raises SqlError, BackendError, RemoteProtocolError."""
        for _ in range(_TRIES):
            snapshot = self.gateway.snapshot
            shard = self.shard_of(place.rows, place.parts)
            row = await self._select(place, shard)
            if snapshot is self.gateway.snapshot:
                return row
        raise BackendError(f"{place.rows.label}: the map keeps changing: try again")

    async def _select(self, place: Place, shard: int) -> Row:
        pool = self.gateway.shards[shard].primary
        text = self._texts[place.rows.name] % tuple(place.parts)
        connection = await pool.checkout(_PROFILE)
        try:
            reply = await connection.query(text)
        except BaseException:
            connection.close()
            raise
        deprecated = connection.scanner.deprecate_eof
        pool.give_back(connection)
        if reply.failed:
            raise BackendError(f"{pool.server.name}: {reply.error_message}", reply.error_code, reply.sqlstate)
        found = parse_resultset(reply.data, deprecated)
        if not found.rows:
            return None
        if len(found.rows) > 1:
            raise SqlError(f"cache.rows.{place.rows.name}: {place.rows.pattern} is no unique key of {place.rows.label}")
        make = json_document if place.rows.form == "json" else hash_fields
        return make(found.columns, found.rows[0])

    def close(self) -> None:
        """For good."""
        for task in list(self._tasks):
            task.cancel()
        for node in self.nodes:
            node.close()


def _on_its_way(seen: tuple[Row, Row]) -> bool:
    """Whether entry and mark say that somebody loads the row, to be believed when it comes."""
    entry, mark = seen
    return mark is not None and is_lease(entry)


def _select(rows: CachedRows) -> bytes:
    """The statement, with a place for each column's value."""

    def name(text: str) -> str:
        return "`" + text.replace("`", "``").replace("%", "%%") + "`"

    where = " AND ".join(f"{name(column)} = %d" for column in rows.columns)
    return f"SELECT * FROM {name(rows.database)}.{name(rows.table)} WHERE {where}".encode()  # noqa: S608  quoted names
