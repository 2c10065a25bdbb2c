"""Binlog events to transactions, in the order in which they became permanent. Pure.

An XA branch's rows come with its PREPARE and are kept until its outcome; then they are handed out as a transaction at
the place of XA COMMIT. Transactions of our own (they write `_shardproxy.move`, `stream` or `stream_table`) are handed
out without their rows.
"""

from __future__ import annotations

import marshal
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple
from uuid import UUID

from shardproxy.errors import ReshardError
from shardproxy.reshard.columns import NULL, OPENINGS, Form, TableShape
from shardproxy.reshard.position import Coordinates, Gtid, Position, coordinates
from shardproxy.reshard.query_events import Says, meaning, stopped_by, xid_text
from shardproxy.reshard.row_image import (
    Decode,
    TableMap,
    decoders,
    packed_int,
    parse_table_map,
    read_identity,
    read_image,
    steps,
)
from shardproxy.topology.moving import MovingKeys

PART_BYTES = 4 << 20  # a transaction's rows are handed out in parts of about this size
_KEPT_IN_MEMORY = 32 << 20  # of one prepared branch; more goes to a temporary file

# Change: place of the table, primary key before, after (as literals for IN), row after (as "(…)"). None: no row.
Change = tuple[int, bytes | None, bytes | None, bytes | None]


class Piece(NamedTuple):
    """A transaction, or a part of a large one: `last` is false when more parts of it follow.

    gtid: None when only `place` is news; place: the end of it in the binlog files. restart: where to begin reading
    again after a crash, None for the end of this transaction. xid: of the branch that committed here. markers:
    (move id, epoch) of rows in `_shardproxy.marker`. undone: the parts handed out before must be rolled back.
    orphan: an XA COMMIT whose PREPARE came before the stream began.
    """

    gtid: Gtid | None
    place: Coordinates
    restart: str | None = None
    changes: list[Change] = []  # noqa: RUF012  a NamedTuple's default, never changed
    last: bool = True
    xid: bytes = b""
    markers: list[tuple[int, int]] = []  # noqa: RUF012
    undone: bool = False
    orphan: bool = False


_QUERY, _STOP, _ROTATE, _FORMAT, _XID, _TABLE_MAP, _INCIDENT, _HEARTBEAT = 2, 3, 4, 15, 16, 19, 26, 27
_ROWS_QUERY, _GTID, _ANONYMOUS, _PREVIOUS_GTIDS, _XA_PREPARE, _PARTIAL_UPDATE, _PAYLOAD = 29, 33, 34, 35, 38, 39, 40
_HEARTBEAT_2, _TAGGED_GTID = 41, 42
_ANNOTATE, _CHECKPOINT, _MARIA_GTID, _GTID_LIST, _START_ENCRYPTION = 160, 161, 162, 163, 164
_WRITE, _UPDATE, _DELETE = 0, 1, 2
_ROWS = {
    23: (_WRITE, 8), 24: (_UPDATE, 8), 25: (_DELETE, 8), 30: (_WRITE, 10), 31: (_UPDATE, 10), 32: (_DELETE, 10),
}  # fmt: skip
_SILENT = frozenset({_STOP, _ROWS_QUERY, _PREVIOUS_GTIDS, 36, 37, _ANNOTATE, _START_ENCRYPTION})
_REFUSED = {
    _ANONYMOUS: "a transaction without a GTID: gtid_mode must be ON",
    _TAGGED_GTID: "a transaction with a tagged GTID: they cannot be followed",
    _PARTIAL_UPDATE: "a partial JSON update: binlog_row_value_options must be empty",
    _PAYLOAD: "a compressed transaction: binlog_transaction_compression must be OFF, in every session too",
    _INCIDENT: "an incident: the binlog lacks changes; the copy must be made anew",
    **dict.fromkeys(range(165, 172), "a compressed event: log_bin_compress must be OFF"),
}
_STANDALONE, _COMMIT_ID, _PREPARED, _COMPLETED = 1, 2, 64, 128
_OWN = frozenset({"move", "stream", "stream_table"})
_ARTIFICIAL = 0x20


@dataclass(slots=True)
class _Rows:
    """How rows of one table id are read. table: place among the moving tables."""

    table: int
    shape: TableShape
    decode: list[Decode]
    identity: list[tuple[Decode | None, int]]
    everything: range
    key: int
    primary: tuple[int, ...]
    plain_primary: int  # place of a primary key that is one number; -1
    written: list[tuple[int, int]]  # place, form
    within: tuple[int, bytes] | None  # place and value that rows must have to be looked at


@dataclass(slots=True)
class _Branch:
    """A prepared branch: its rows, where to begin reading to see it again."""

    restart: str
    own: bool
    markers: list[tuple[int, int]]
    rows: SpooledTemporaryFile[bytes] | None
    changes: list[Change] = field(default_factory=list)


class BinlogReader:
    """`feed` events; take `pieces` out.

    applied: everything before it has been applied, and is read only for prepared branches; restart: where the events
    begin; checksum: whether the first event, which comes before any says so, has one.
    """

    def __init__(
        self,
        tables: Sequence[TableShape],
        moving: MovingKeys,
        applied: Position,
        restart: Position,
        checksum: bool = False,
    ) -> None:
        self.pieces: list[Piece] = []
        self.waiting = 0  # bytes of the pieces, about
        self._tables = tuple(tables)
        self._index = {(t.database, t.name): i for i, t in enumerate(self._tables)}
        self._moving = moving
        self._applied = applied
        self._position = restart.copy()
        self._checksum = checksum
        self._file = ""
        self._place: Coordinates = (0, 0)
        self._maps: dict[int, tuple[bytes, _Rows | str | None]] = {}
        self._branches: dict[bytes, _Branch] = {}
        self._begin(None)

    def _begin(self, gtid: Gtid | None) -> None:
        self._gtid = gtid
        self._old = gtid is not None and self._applied.has(gtid)
        self._inside = False
        self._own = False
        self._changes: list[Change] = []
        self._size = 0
        self._parts = False
        self._xa = False
        self._spool: SpooledTemporaryFile[bytes] | None = None
        self._markers: list[tuple[int, int]] = []

    # ── events ──

    def feed(self, packet: bytes) -> None:
        """One packet of the dump: 0x00 and an event. Raises ReshardError when the stream must end here."""
        kind = packet[5]
        end = int.from_bytes(packet[14:18], "little")
        flags = packet[18] | packet[19] << 8
        if kind == _FORMAT:
            self._checksum = packet[-5] == 1
            return
        if self._checksum:
            if zlib.crc32(memoryview(packet)[1:-4]) != int.from_bytes(packet[-4:], "little"):
                raise ReshardError(f"an event at {self._file}:{end} is damaged (its checksum is wrong)")
            body = packet[20:-4]
        else:
            body = packet[20:]
        place = (self._place[0], end) if end and not flags & _ARTIFICIAL else self._place
        if kind in _ROWS:
            self._rows(kind, body)
        elif kind == _TABLE_MAP:
            self._table_map(body)
        elif kind == _XID:
            self._end(place)
        elif kind == _GTID:
            self._begin((_source(body[1:17]), int.from_bytes(body[17:25], "little")))
        elif kind == _MARIA_GTID:
            self._maria_gtid(body, packet)
        elif kind == _QUERY:
            self._query(body, place)
        elif kind == _XA_PREPARE:
            self._prepare(body, place)
        elif kind == _ROTATE:
            self._file = body[8:].decode()
            self._move_on(coordinates(self._file, int.from_bytes(body[:8], "little")))
        elif kind in (_HEARTBEAT, _HEARTBEAT_2):
            self._heartbeat(kind, body, end)
        elif kind in (_CHECKPOINT, _GTID_LIST):
            if self._gtid is None:
                self._move_on(place)
        elif kind not in _SILENT:
            why = _REFUSED.get(kind, f"an event of type {kind}, which is not known")
            raise ReshardError(f"the binlog has, at {self._file}:{end}, {why}")

    def _heartbeat(self, kind: int, body: bytes, end: int) -> None:
        if kind == _HEARTBEAT and self._gtid is None and end and body.decode() == self._file:
            self._move_on((self._place[0], end))

    def _move_on(self, place: Coordinates) -> None:
        if place > self._place:
            self._place = place
            self.pieces.append(Piece(None, place))

    def _maria_gtid(self, body: bytes, packet: bytes) -> None:
        number, domain, flags = struct.unpack_from("<QIB", body)
        server = int.from_bytes(packet[6:10], "little")
        self._begin((domain, server, number))
        self._inside = not flags & _STANDALONE
        self._xa = bool(flags & _PREPARED)

    def _query(self, body: bytes, place: Coordinates) -> None:
        schema_length = body[8]
        status_length = body[11] | body[12] << 8
        start = 13 + status_length
        text = body[start + schema_length + 1 :]
        says, xid = meaning(text)
        if says is Says.BEGIN:
            self._inside = True
        elif says is Says.COMMIT:
            self._end(place)
        elif says is Says.ROLLBACK:
            self._changes.clear()
            self._markers.clear()
            self._end(place, undone=True)
        elif says is Says.ROLLBACK_TO:
            if self._changes or self._parts:
                raise ReshardError(
                    f"the binlog has, at {self._file}:{place[1]}, ROLLBACK TO SAVEPOINT after rows that it undoes: a "
                    "transaction mixed tables with and without transactions; the copy must be made anew"
                )
        elif says is Says.XA_INSIDE:
            self._inside = self._xa = True
        elif says in (Says.XA_COMMIT, Says.XA_ROLLBACK):
            self._outcome(xid, says is Says.XA_COMMIT, place)
        else:
            schema = body[start : start + schema_length].decode("utf-8", "replace")
            why = None if self._old else stopped_by(text, schema, self._tables)
            if why:
                raise ReshardError(why)
            if not self._inside and self._gtid is not None:
                self._end(place)

    # ── rows ──

    def _table_map(self, body: bytes) -> None:
        table_id = int.from_bytes(body[:6], "little")
        rest = body[8:]
        known = self._maps.get(table_id)
        if known is None or known[0] != rest:
            seen = parse_table_map(rest)
            found: _Rows | str | None = None
            place = self._index.get((seen.database, seen.table))
            if place is not None:
                found = _reading(place, self._tables[place], seen)
            elif seen.database == "_shardproxy":
                found = "own" if seen.table in _OWN else "marker" if seen.table == "marker" else None
            if len(self._maps) > 4096:
                self._maps.clear()
            self._maps[table_id] = (rest, found)

    def _rows(self, kind: int, body: bytes) -> None:
        what, at = _ROWS[kind]
        if self._old and not self._xa:
            return
        known = self._maps.get(int.from_bytes(body[:6], "little"))
        if known is None:
            raise ReshardError(f"the binlog has rows of a table without its description, after {self._file}")
        rows = known[1]
        if rows is None:
            return
        if at == 10:
            at = 8 + (body[8] | body[9] << 8)
        width, at = packed_int(body, at)
        bitmap = (width + 7) // 8
        if rows == "own":
            if self._parts:
                raise ReshardError("a transaction of our own does not begin with its mark")
            self._own = True
            self._changes.clear()
            return
        if rows == "marker":
            if what == _WRITE:
                self._marker(body, at + bitmap)
            return
        if self._own:
            return
        assert isinstance(rows, _Rows)
        present = _present(rows, body, at, width)
        at += bitmap
        present_after = present
        if what == _UPDATE:
            present_after = _present(rows, body, at, width)
            at += bitmap
        self._images(rows, what, body, at, present, present_after)
        if self._size > PART_BYTES:
            self._part()

    def _marker(self, body: bytes, at: int) -> None:
        while at < len(body):
            at += 1  # three columns: one byte of NULL bits
            move_id, epoch = struct.unpack_from("<QQ", body, at)
            self._markers.append((move_id, epoch))
            at += 16 + 4 + 2  # TIMESTAMP(3)

    def _images(
        self, rows: _Rows, what: int, body: bytes, at: int, present: Sequence[int], present_after: Sequence[int]
    ) -> None:
        moving = (rows.shape.rows or self._moving).holds_text
        more = _more(rows)
        decode, identity, key, table = rows.decode, rows.identity, rows.key, rows.table
        nulls, nulls_after = (len(present) + 7) // 8, (len(present_after) + 7) // 8
        changes = self._changes
        size = len(body)
        while at < size:
            if what == _WRITE:
                values, at = read_image(body, at, present, decode, nulls)
                if moving(values[key]) and (more is None or more(values)):
                    changes.append((table, None, _primary(rows, values), self._literal(rows, values)))
                continue
            before, at = read_identity(body, at, present, identity, nulls)
            here = moving(before[key]) and (more is None or more(before))
            old = _primary(rows, before) if here else None
            if what == _DELETE:
                if here:
                    changes.append((table, old, None, None))
                    self._size += len(old or b"") + 40
                continue
            values, at = read_image(body, at, present_after, decode, nulls_after)
            if more is None and values[key] == before[key]:
                there = here
            else:
                there = moving(values[key]) and (more is None or more(values))
            if there:
                changes.append((table, old, _primary(rows, values), self._literal(rows, values)))
            elif here:
                changes.append((table, old, None, None))
                self._size += 60

    def _literal(self, rows: _Rows, values: list[bytes | None]) -> bytes:
        parts = []
        for place, form in rows.written:
            value = values[place]
            if value is None:
                parts.append(NULL)
            elif form:
                parts.append(OPENINGS[form] + value.replace(b"'", b"''") + b"'")
            else:
                parts.append(value)
        literal = b"(" + b",".join(parts) + b")"
        self._size += len(literal) + 80
        return literal

    def _part(self) -> None:
        """Hand out, or put aside, what there is of a large transaction."""
        if self._xa:
            if self._spool is None:
                self._spool = SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY)  # noqa: SIM115  closed with its branch
            marshal.dump(self._changes, self._spool)
        elif not self._old:
            self._give(Piece(self._gtid, self._place, self._restart(), self._changes, last=False))
            self._parts = True
        self._changes = []
        self._size = 0

    # ── ends ──

    def _restart(self) -> str | None:
        for branch in self._branches.values():
            return branch.restart
        return None

    def _give(self, piece: Piece, size: int = 0) -> None:
        self.pieces.append(piece)
        self.waiting += (size or self._size) + 100

    def _end(self, place: Coordinates, undone: bool = False) -> None:
        gtid = self._gtid
        if gtid is None:
            raise ReshardError(f"the binlog has, at {self._file}:{place[1]}, a transaction without a GTID")
        self._position.add(gtid)
        if place > self._place:
            self._place = place
        if not self._old:
            changes = [] if self._own else self._changes
            gone = undone and self._parts
            self._give(
                Piece(gtid, self._place, self._restart(), changes, markers=self._markers, undone=gone)
            )  # fmt: skip
        self._begin(None)

    def _prepare(self, body: bytes, place: Coordinates) -> None:
        one_phase, format_id, gtrid, bqual = struct.unpack_from("<BIII", body)
        data = body[13 : 13 + gtrid + bqual]
        if one_phase:
            self._commit_kept(b"", self._kept(), place)
            return
        xid = xid_text(format_id, data[:gtrid], data[gtrid:])
        if xid in self._branches:
            raise ReshardError(f"the binlog prepares the branch {xid.decode()} twice")
        self._branches[xid] = self._kept()
        self._changes, self._markers = [], []
        self._end(place)

    def _kept(self) -> _Branch:
        changes = [] if self._own else self._changes
        return _Branch(str(self._position), self._own, self._markers, self._spool, changes)

    def _outcome(self, xid: bytes, commit: bool, place: Coordinates) -> None:
        branch = self._branches.pop(xid, None)
        if commit and branch is not None:
            self._commit_kept(xid, branch, place)
            return
        if commit and not self._old:
            gtid = self._gtid
            assert gtid is not None
            self._position.add(gtid)
            self._place = max(place, self._place)
            self._give(Piece(gtid, self._place, self._restart(), xid=xid, orphan=True))
            self._begin(None)
            return
        if branch is not None and branch.rows is not None:
            branch.rows.close()
        self._end(place)

    def _commit_kept(self, xid: bytes, branch: _Branch, place: Coordinates) -> None:
        """The branch is permanent here."""
        gtid, old = self._gtid, self._old
        assert gtid is not None
        self._position.add(gtid)
        self._place = max(place, self._place)
        restart = self._restart()
        if not old:
            if branch.rows is not None and not branch.own:
                branch.rows.seek(0)
                while (part := _next_part(branch.rows)) is not None:
                    self._give(Piece(gtid, self._place, restart, part, last=False), PART_BYTES)
            size = sum(len(change[3] or b"") + 80 for change in branch.changes)
            self._give(Piece(gtid, self._place, restart, branch.changes, xid=xid, markers=branch.markers), size)
        if branch.rows is not None:
            branch.rows.close()
        self._begin(None)


@lru_cache(256)
def _source(uuid: bytes) -> str:
    return str(UUID(bytes=uuid))


def _next_part(rows: Any) -> list[Change] | None:
    try:
        part: list[Change] = marshal.load(rows)  # noqa: S302  our own file
    except EOFError:
        return None
    return part


def _reading(table: int, shape: TableShape, seen: TableMap) -> _Rows:
    decode = decoders(shape, seen)
    plain = shape.primary[0] if len(shape.primary) == 1 and shape.columns[shape.primary[0]].form is Form.NUMBER else -1
    written = [(i, int(shape.columns[i].form)) for i in shape.written]
    within = None
    if shape.rows is not None and shape.rows.within is not None:
        column, value = shape.rows.within
        within = next(i for i, c in enumerate(shape.columns) if c.name == column), value
    wanted = {shape.key, *shape.primary}
    if within is not None:
        wanted.add(within[0])
    if shape.also is not None:
        wanted.add(shape.also[0])
    identity = steps(seen, decode, wanted)
    return _Rows(table, shape, decode, identity, range(len(decode)), shape.key, shape.primary, plain, written, within)


def _more(rows: _Rows) -> Callable[[Sequence[bytes | None]], bool] | None:
    """What a row must be, beside having a moving key, in order to go; None: nothing."""
    within, also = rows.within, rows.shape.also
    if within is not None:
        place, value = within
        return lambda values: values[place] == value
    if also is not None:
        other, keys = also[0], also[1].holds_text
        return lambda values: keys(values[other])
    return None


def _primary(rows: _Rows, values: list[bytes | None]) -> bytes:
    if rows.plain_primary >= 0:
        value = values[rows.plain_primary]
        assert value is not None
        return value
    return rows.shape.primary_literal([values[i] or b"" for i in rows.primary])


def _present(rows: _Rows, body: bytes, at: int, width: int) -> Sequence[int]:
    """Places of the columns in an image. Raises ReshardError when one that we need is missing."""
    bits = int.from_bytes(body[at : at + (width + 7) // 8], "little") & ((1 << width) - 1)
    if bits == (1 << width) - 1:
        return rows.everything
    shape = rows.shape
    missing = [
        column.name
        for i, column in enumerate(shape.columns)
        if not bits >> i & 1 and (not column.generated or i in (shape.key, shape.also and shape.also[0]))
    ]
    if missing:
        raise ReshardError(
            f"the binlog has rows of {shape.database}.{shape.name} without {', '.join(missing)}: binlog_row_image must "
            "be FULL, in every session too; the copy must be made anew"
        )
    return [i for i in range(width) if bits >> i & 1]
