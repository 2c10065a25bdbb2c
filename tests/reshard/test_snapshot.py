"""Snapshots and their places: XA branches, and what MySQL's lock waits for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shardproxy.local.flavors import FlavorName
from shardproxy.reshard import stream as streams
from shardproxy.reshard.columns import TableShape
from shardproxy.reshard.link import connect
from shardproxy.reshard.query_events import meaning, xid_text
from shardproxy.reshard.shapes import read_shape
from shardproxy.reshard.snapshot import SourceSnapshot, prepared_branches, source_position, take_snapshot
from shardproxy.topology.keys import KeyType
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import LOGIN, Sides


@pytest.mark.parametrize("gtrid", [b"plain-1", b"\x00\xff'\\0x", b"0x41"])
def test_branches_are_named_as_in_the_binlog(sides: Sides, gtrid: bytes) -> None:
    sides.both("CREATE TABLE t (id INT PRIMARY KEY)")
    xid = f"X'{gtrid.hex()}',X'62',7"

    async def listed() -> frozenset[bytes]:
        async with await connect(sides.server(sides.source), LOGIN) as link:
            return await prepared_branches(link)

    with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
        for text in (f"XA START {xid}", "INSERT INTO t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"):
            cursor.execute(text)
        try:
            found = asyncio.run(listed())
        finally:
            cursor.execute(f"XA ROLLBACK {xid}")
    assert found == {xid_text(7, gtrid, b"b")} == {meaning(f"XA COMMIT {xid}".encode())[1]}


def test_a_snapshot_shows_its_place(sides: Sides, flavor: FlavorName) -> None:
    sides.both("CREATE TABLE t (id INT PRIMARY KEY)")
    sides.source.rows("INSERT INTO t VALUES (1)", database=sides.database)

    async def take() -> None:
        async with await connect(sides.server(sides.source), LOGIN) as link:
            shape = await read_shape(link, sides.database, "t", "id")
            snapshot = await take_snapshot(sides.server(sides.source), LOGIN, [shape])
            async with snapshot.link:
                here = await source_position(link)
                assert await snapshot.gtids() == here
                sides.source.rows("INSERT INTO t VALUES (2)", database=sides.database)
                later = await source_position(link)
                assert later.covers(here) and not here.covers(later)
                rows = await snapshot.link.query(b"SELECT id FROM " + shape.quoted)
                assert rows.values() == [[b"1"]]
                assert (snapshot.place != (0, 0)) == (flavor == "mariadb")

    asyncio.run(take())


def test_a_place_is_the_snapshots_own_whoever_else_asks(sides: Sides) -> None:
    """MariaDB's sessions share the variables from which SHOW STATUS answers: one that asks meanwhile leaves its place
    there, be it the newest or that of an older snapshot."""
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL)")
    sides.source.rows("INSERT INTO t VALUES (1, 0)", database=sides.database)
    over = threading.Event()

    def ask(begin: str) -> None:
        with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
            cursor.execute(begin)
            while not over.is_set():
                cursor.execute("SHOW STATUS LIKE 'binlog_snapshot%'")

    def write() -> None:
        with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("UPDATE t SET v = v + 1")

    async def one(shape: TableShape) -> int:
        """How many transactions the place has more than the rows."""
        snapshot = await take_snapshot(sides.server(sides.source), LOGIN, [shape])
        async with snapshot.link:
            rows = await snapshot.link.query(b"SELECT v FROM " + shape.quoted)
            return int(str(await snapshot.gtids()).rpartition("-")[2]) - int(rows.one()[0] or 0)

    async def take() -> set[int]:
        async with await connect(sides.server(sides.source), LOGIN) as link:
            shape = await read_shape(link, sides.database, "t", "id")
        found = {await one(shape)}
        with ThreadPoolExecutor() as pool:
            begins = ("DO 0", "START TRANSACTION WITH CONSISTENT SNAPSHOT")
            others = [pool.submit(write), *(pool.submit(ask, begin) for begin in begins)]
            try:
                for _ in range(300):
                    found.add(await one(shape))
            finally:
                over.set()
            for other in others:
                other.result()
        return found

    assert len(asyncio.run(take())) == 1


def test_doubts() -> None:
    snapshot = SourceSnapshot(None, None, (3, 500), b"", (3, 400), frozenset({b"listed"}))  # type: ignore[arg-type]
    assert snapshot.doubts(b"other", (3, 450))  # committed while the snapshot was taken
    assert not snapshot.doubts(b"other", (3, 400))  # done before we looked
    assert snapshot.doubts(b"listed", (3, 100))  # its COMMIT is in the binlog, and it was still listed
    assert not snapshot.doubts(b"listed", (3, 501))  # behind the snapshot: it comes with the stream


def test_nothing_behind_a_snapshot_is_applied_before_it_is_copied(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream has read the head of a binlog file and no transaction, and the next one comes behind the snapshot: if
    it were taken for a part of the copy, it would be lost. (The first heartbeat, half a second later, hides it.)"""
    sides.both("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL)")
    sides.source.rows("INSERT INTO t VALUES (1, 1)", database=sides.database)
    plan = sides.plan((("t", "id"),), MovingKeys(KeyType.INT, intervals=[(0, 100)]))

    async def taken(*arguments: Any) -> SourceSnapshot:
        snapshot = await take_snapshot(*arguments)
        sides.source.rows("UPDATE t SET v = 2", database=sides.database)
        return snapshot

    async def move() -> None:
        await streams.start_stream(plan)
        stream = await streams.Stream.open(plan)
        try:
            while not await stream.step(5.0):  # the head of the file
                pass
            monkeypatch.setattr(streams, "take_snapshot", taken)
            await stream.copy()
            monkeypatch.undo()
            await stream.catch_up()
        finally:
            await stream.close()

    asyncio.run(move())
    sides.assert_equal(plan)
