"""Point reads of several clients share connections of the pool."""

from __future__ import annotations

import asyncio

import pytest

from shardproxy.backend import pool as pool_module
from shardproxy.backend.pool import Pool
from shardproxy.errors import AccessError, BackendUnavailable
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_ok
from tests.unit.backend.fake_server import (
    AUTOCOMMIT,
    SHOP,
    STRICT,
    Ears,
    FakeServer,
    settled,
    transport_of,
)
from tests.unit.backend.pools import READ, in_loop, made, sharing, until


@in_loop
async def test_point_reads_are_queued_on_one_connection_up_to_its_depth() -> None:
    server = FakeServer()
    pool = await sharing(server)
    ears = [Ears() for _ in range(4)]
    for one in ears:
        connection = pool.share(SHOP)
        assert connection is not None and connection.shared
        connection.send(READ, one)
    assert pool.share(SHOP) is None, "full"
    await until(lambda: all(one.ended for one in ears))
    assert pool.share(SHOP) is connection
    assert pool.share(STRICT) is None, "another profile has its own"


@in_loop
async def test_the_second_connection_is_used_when_the_first_is_half_full() -> None:
    server = FakeServer()
    server.answer = lambda payload: None
    pool = await sharing(server, connections=2, depth=4)
    used = []
    for _ in range(8):
        connection = pool.share(SHOP)
        assert connection is not None
        connection.send(READ, Ears())
        used.append(pool.shared[SHOP].index(connection))
    assert used == [0, 0, 1, 1, 0, 1, 0, 1]
    assert pool.share(SHOP) is None


@in_loop
async def test_sharing_can_be_switched_off() -> None:
    server = FakeServer()
    pool = made(server, shared_limit=0, shared_depth=16)
    assert pool.share(SHOP) is None
    await settled()
    assert server.dialed == 0 and pool.shared == {}


@in_loop
async def test_shared_connections_leave_half_of_the_pool_to_others() -> None:
    server = FakeServer()
    pool = made(server, limit=4, shared_limit=8, shared_depth=4)
    pool.share(SHOP)
    pool.share(STRICT)
    await until(lambda: not pool._tasks)
    assert sum(len(stack) for stack in pool.shared.values()) == 2
    others = [await pool.checkout(SHOP) for _ in range(2)]
    assert not any(connection.shared for connection in others)


@in_loop
async def test_a_stuck_connection_keeps_its_first_command_and_the_others_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "STUCK", 0.01)
    server = FakeServer()
    pool = await sharing(server)
    server.answer = lambda payload: None
    stuck = pool.share(SHOP)
    assert stuck is not None
    ears = [Ears(), Ears(redo=True), Ears(redo=False), Ears(redo=True)]
    for one in ears:
        stuck.send(READ, one)
    await until(lambda: stuck.retiring)
    assert [one.redone for one in ears] == [0, 1, 1, 1]
    await until(lambda: len(pool.shared[SHOP]) == 1)
    assert pool.shared[SHOP][0] is not stuck, "another takes its place"
    transport_of(stuck).receive(packet(build_ok(0, 0, AUTOCOMMIT, 0), 1) * 4)
    assert [one.ended for one in ears] == [1, 0, 1, 0], "an answer to what was sent again goes to nobody"
    assert stuck.closed, "it is not used again"
    await settled()
    assert not any(one.lost for one in ears)
    assert stuck not in pool.connections


@in_loop
async def test_a_slow_connection_that_still_answers_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "STUCK", 60.0)  # the looks are taken here: a busy machine may sleep over two
    server = FakeServer()
    pool = await sharing(server, depth=100)
    server.answer = lambda payload: None
    slow = pool.share(SHOP)
    assert slow is not None
    ears = [Ears(redo=True) for _ in range(30)]
    for one in ears:
        slow.send(READ, one)
    await settled()
    for _ in ears:
        look(pool)
        transport_of(slow).receive(packet(build_ok(0, 0, AUTOCOMMIT, 0), 1))
    assert not slow.retiring and [one.ended for one in ears] == [1] * 30
    look(pool)
    assert pool._watching is None


def look(pool: Pool) -> None:
    """Take the look that is due in STUCK seconds now."""
    due = pool._watching
    assert due is not None
    due._run()
    due.cancel()


@pytest.mark.parametrize("error", [BackendUnavailable("down"), AccessError("denied")])
@in_loop
async def test_shared_connections_that_cannot_be_made_are_asked_for_again(
    error: BackendUnavailable | AccessError,
) -> None:
    pool_module_retry, pool_module.RETRY = pool_module.RETRY, 0.01
    try:
        server = FakeServer()
        server.refuse = error
        pool = made(server, 8, shared_limit=1, shared_depth=4)
        assert pool.share(SHOP) is None
        await until(lambda: SHOP not in pool.shared)
        server.refuse = None
        assert pool.share(SHOP) is None
        await until(lambda: bool(pool.shared[SHOP]))
        assert pool.share(SHOP) is not None
    finally:
        pool_module.RETRY = pool_module_retry


@in_loop
async def test_a_shared_connection_that_is_lost_is_made_anew() -> None:
    server = FakeServer()
    pool = await sharing(server)
    server.answer = lambda payload: None
    connection = pool.share(SHOP)
    assert connection is not None
    ears = [Ears(), Ears()]
    for one in ears:
        connection.send(READ, one)
    await asyncio.sleep(0)
    transport_of(connection).close()
    await settled()
    assert [len(one.lost) for one in ears] == [1, 1]
    assert pool.share(SHOP) is None
    await until(lambda: bool(pool.shared[SHOP]))
    assert pool.share(SHOP) is not connection
