"""The binlog of a source, read by a replication connection: packets in, pieces of transactions out.

The connection is never made anew here: whoever reads begins again at the stream's own position, which is kept with
the rows that it brought.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from secrets import randbits
from uuid import uuid4

from shardproxy.errors import ReshardError, SqlError
from shardproxy.protocol.mysql.constants import Com
from shardproxy.reshard.binlog import BinlogReader, Piece
from shardproxy.reshard.columns import TableShape, quote
from shardproxy.reshard.link import Link, LinkLogin, connect
from shardproxy.reshard.position import MySQLPosition, parse_position
from shardproxy.topology.model import Server
from shardproxy.topology.moving import MovingKeys

_HAND_OUT = 1 << 20  # bytes of pieces that go out together, at most about


@dataclass(frozen=True)
class SourceSettings:
    """What is read and from where. applied, restart: positions as texts; silence: seconds without a byte after which
    the source counts as gone; heartbeats come four times as often, at least."""

    server: Server
    login: LinkLogin
    tables: tuple[TableShape, ...]
    moving: MovingKeys
    applied: str
    restart: str
    silence: float = 10.0


async def changes(settings: SourceSettings) -> AsyncIterator[list[Piece]]:
    """Pieces in the source's commit order, for ever. Raises ReshardError when the stream cannot go on at all,
    BackendError when the connection is lost."""
    async with await connect(settings.server, settings.login) as link:
        applied = parse_position(settings.applied, link.is_mariadb)
        restart = parse_position(settings.restart, link.is_mariadb)
        [checksum] = (await link.query(b"SELECT @@GLOBAL.binlog_checksum")).one()
        reader = BinlogReader(settings.tables, settings.moving, applied, restart, checksum != b"NONE")
        command = await _prepare(link, settings)
        try:
            async for packets in link.packets(command, settings.silence):
                for packet in packets:
                    reader.feed(packet)
                    if reader.waiting > _HAND_OUT:
                        yield _take(reader)
                if reader.pieces:
                    yield _take(reader)
        except SqlError as error:
            if error.code in (1236, 1373):
                raise ReshardError(
                    f"{error}: the binlogs that the stream needs are gone or damaged; the copy must be made anew"
                ) from error
            raise


def _take(reader: BinlogReader) -> list[Piece]:
    pieces, reader.pieces = reader.pieces, []
    reader.waiting = 0
    return pieces


async def _prepare(link: Link, settings: SourceSettings) -> bytes:
    """Tell the source how we want its binlog; the command that asks for it."""
    heartbeat = b"%d" % int(min(0.5, settings.silence / 4) * 1e9)
    await link.query(
        b"SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum, "
        b"@master_heartbeat_period = %s, @source_heartbeat_period = %s" % (heartbeat, heartbeat)
    )
    number = 0x40000000 | randbits(30)  # a replica's server id: two alike would end each other
    if link.is_mariadb:
        await link.query(
            b"SET @mariadb_slave_capability = 4, @slave_connect_state = %s, @slave_gtid_strict_mode = 1, "
            b"@slave_gtid_ignore_duplicates = 0" % quote(settings.restart.encode())
        )
        return bytes((Com.BINLOG_DUMP,)) + struct.pack("<IHI", 4, 0, number)
    await link.query(b"SET @replica_uuid = '%s', @slave_uuid = @replica_uuid" % str(uuid4()).encode())
    position = parse_position(settings.restart, False)
    assert isinstance(position, MySQLPosition)
    known = position.encoded()
    return (
        bytes((Com.BINLOG_DUMP_GTID,))
        + struct.pack("<HII", 4, number, 0)
        + struct.pack("<QI", 4, len(known))
        + known
    )  # fmt: skip


_WANTED: dict[str, tuple[str, ...]] = {
    "log_bin": ("1", "ON"),
    "binlog_format": ("ROW",),
    "binlog_row_image": ("FULL",),
    "gtid_mode": ("ON",),  # MySQL
    "binlog_transaction_compression": ("0", "OFF"),  # MySQL
    "binlog_row_value_options": ("",),  # MySQL
    "log_bin_compress": ("0", "OFF"),  # MariaDB
}


async def check_source(link: Link) -> list[str]:
    """What in a source's settings forbids to follow its binlog, a line each."""
    names = b",".join(quote(name.encode()) for name in _WANTED)
    rows = (await link.query(b"SHOW GLOBAL VARIABLES WHERE variable_name IN (" + names + b")")).values()
    found = {(name or b"").decode().lower(): (value or b"").decode() for name, value in rows}
    return [
        f"{link.server.name}: {name} is {found[name] or 'empty'}; it must be {wanted[-1] or 'empty'}"
        for name, wanted in _WANTED.items()
        if name in found and found[name].upper() not in wanted
    ]
