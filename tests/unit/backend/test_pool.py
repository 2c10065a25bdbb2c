"""The pool hands out each connection to one at a time, loses none, and keeps its limit, whatever happens."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from shardproxy.backend.connection import BackendConnection
from shardproxy.errors import BackendError, BackendLost, BackendUnavailable, PoolTimeout
from shardproxy.protocol.mysql.packets import build_ok
from tests.unit.backend.fake_server import (
    AUTOCOMMIT,
    FOUND,
    IN_TRANS,
    PLAIN,
    SHOP,
    STRICT,
    Answer,
    Ears,
    FakeServer,
    refused,
    settled,
    transport_of,
)
from tests.unit.backend.pools import READ, in_loop, made, sharing, until

# ── taking and giving back ──


@in_loop
async def test_a_connection_given_back_is_taken_again() -> None:
    server = FakeServer()
    pool = made(server)
    assert pool.checkout_now(SHOP) is None
    one = await pool.checkout(SHOP)
    assert (one.profile, pool.idle_count, server.dialed) == (SHOP, 0, 1)
    pool.checkin(one)
    assert pool.idle_count == 1
    assert pool.checkout_now(STRICT) is None
    assert pool.checkout_now(SHOP) is one
    assert pool.checkout_now(SHOP) is None


@in_loop
async def test_a_connection_is_brought_to_the_wanted_profile() -> None:
    server = FakeServer()
    pool = made(server)
    one = await pool.checkout(PLAIN)
    assert transport_of(one).commands == []
    pool.checkin(one)
    assert await pool.checkout(STRICT) is one
    assert one.profile is STRICT
    assert transport_of(one).commands == [b"\x02shop", b"\x03SET @@SESSION.sql_mode='ANSI'"]
    assert server.dialed == 1


@in_loop
async def test_one_of_the_wrong_kind_makes_room() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    pool.checkin(one)
    other = await pool.checkout(FOUND)
    assert one.closed and not other.closed
    assert pool.connections == {other}
    waiting = asyncio.create_task(pool.checkout(PLAIN))  # a schema cannot be unset
    await settled()
    pool.checkin(other)
    third = await waiting
    assert other.closed and pool.connections == {third}


@in_loop
async def test_an_error_of_the_server_closes_the_connection_and_is_told() -> None:
    server = FakeServer()
    server.answer = lambda payload: refused()
    pool = made(server, limit=1)
    with pytest.raises(BackendError) as caught:
        await pool.checkout(STRICT)
    assert (caught.value.code, caught.value.sqlstate, str(caught.value)) == (1049, "42000", "no")
    assert not pool.connections and not server.open
    server.answer = FakeServer().answer
    assert await pool.checkout(STRICT)


@in_loop
async def test_a_connection_that_died_in_the_pool_is_replaced() -> None:
    server = FakeServer()
    pool = made(server)
    one = await pool.checkout(SHOP)
    pool.checkin(one)
    server.answer = lambda payload: BackendLost if server.dialed == 1 else build_ok(0, 0, 2, 0)
    two = await pool.checkout(STRICT)
    assert one.closed and two is not one and pool.connections == {two}


@in_loop
async def test_a_server_that_drops_every_connection_is_not_asked_for_ever() -> None:
    server = FakeServer()
    server.answer = lambda payload: BackendLost
    pool = made(server)
    with pytest.raises(BackendLost):
        await pool.checkout(STRICT)
    assert server.dialed == 1 and not pool.connections


@in_loop
async def test_a_server_that_cannot_be_reached_frees_the_place() -> None:
    server = FakeServer()
    server.refuse = BackendUnavailable("down")
    pool = made(server, limit=1)
    callers = [asyncio.create_task(pool.checkout(SHOP)) for _ in range(3)]
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(answer) for answer in answers] == [BackendUnavailable] * 3
    assert pool.dialing == 0 and not pool.connections
    server.refuse = None
    assert await pool.checkout(SHOP)


@in_loop
async def test_a_new_connection_takes_the_place_of_an_idle_or_a_borrowed_one() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    pool.checkin(one)
    two = await pool.checkout_new(STRICT)
    assert one.closed and two.profile is STRICT and pool.connections == {two}
    waiting = asyncio.create_task(pool.checkout_new(SHOP))
    await settled()
    assert not waiting.done()
    pool.checkin(two)
    three = await waiting
    assert two.closed and pool.connections == {three}


# ── waiting ──


@in_loop
async def test_the_limit_holds_and_waiters_are_served_in_order() -> None:
    server = FakeServer()
    pool = made(server, limit=2)
    first = [await pool.checkout(SHOP) for _ in range(2)]
    served: list[int] = []

    async def client(number: int) -> None:
        connection = await pool.checkout(SHOP)
        served.append(number)
        await settled(3)
        pool.checkin(connection)

    clients = [asyncio.create_task(client(i)) for i in range(6)]
    await settled()
    assert served == [] and pool.waits == 6
    for connection in first:
        pool.checkin(connection)
    await asyncio.gather(*clients)
    assert served == list(range(6))
    assert server.dialed == 2 and pool.idle_count == 2


@in_loop
async def test_who_was_woken_for_nothing_keeps_the_first_place() -> None:
    server = FakeServer()
    pool = made(server, limit=2)
    one, two = [await pool.checkout(SHOP) for _ in range(2)]
    served: list[str] = []

    async def client(name: str) -> None:
        await pool.checkout(SHOP)
        served.append(name)

    clients = [asyncio.create_task(client("first")), asyncio.create_task(client("second"))]
    await settled()
    two.close()  # wakes the first,
    barging = await pool.checkout(SHOP)  # but somebody else takes the room
    await settled()
    assert served == [] and pool.waits == 2
    pool.checkin(one)
    await settled()
    assert served == ["first"]
    pool.checkin(barging)
    await asyncio.gather(*clients)
    assert len(pool.connections) == 2


@in_loop
async def test_a_connection_that_closes_makes_room_for_a_waiter() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    waiting = asyncio.create_task(pool.checkout(SHOP))
    await settled()
    transport_of(one).close()
    two = await waiting
    assert two is not one and pool.connections == {two}


@in_loop
async def test_waiting_ends_in_time_and_says_why() -> None:
    server = FakeServer()
    pool = made(server, limit=1, wait=0.01)
    one = await pool.checkout(SHOP)
    with pytest.raises(PoolTimeout, match=r"a/primary: no connection became free within 0\.01 s \(limit 1"):
        await pool.checkout(SHOP)
    assert pool.timeouts == 1 and not pool._waiters
    pool.checkin(one)
    assert await pool.checkout(SHOP) is one


@in_loop
async def test_a_connection_handed_to_one_who_is_gone_goes_to_the_next() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    gone, next_one = (asyncio.create_task(pool.checkout(SHOP)) for _ in range(2))
    await settled()
    pool.checkin(one)  # handed to the first,
    gone.cancel()  # who leaves before it runs
    assert await next_one is one
    assert gone.cancelled()
    late = asyncio.create_task(pool.checkout(SHOP))
    await settled()
    pool.checkin(one)
    late.cancel()
    await asyncio.wait([late])
    assert pool.idle_count == 1


@in_loop
async def test_room_told_to_one_who_is_gone_is_told_to_the_next() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    gone, next_one = (asyncio.create_task(pool.checkout(SHOP)) for _ in range(2))
    await settled()
    one.closed = True
    pool.forget(one)
    gone.cancel()
    assert (await next_one).profile is SHOP


@in_loop
async def test_a_connection_that_closes_on_the_way_to_a_waiter_is_not_handed_out() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    waiting = asyncio.create_task(pool.checkout(SHOP))
    await settled()
    pool.checkin(one)
    one.close()
    two = await waiting
    assert two is not one and not two.closed


@in_loop
async def test_cancelled_while_dialing_or_switching_loses_nothing() -> None:
    server = FakeServer(turns=lambda: 3)
    pool = made(server, limit=1)
    for turns in range(12):
        task = asyncio.create_task(pool.checkout(STRICT))
        await settled(turns)
        task.cancel()
        (done,) = (await asyncio.wait([task]))[0]
        if not done.cancelled():
            pool.checkin(done.result())
        await settled()
        assert pool.dialing == 0 and len(pool.connections) == pool.idle_count
    assert (await pool.checkout(STRICT)).profile is STRICT


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_under_random_use(seed: int) -> None:
    """Clients that take, use, break, release and leave at random; afterwards every connection is back or closed."""
    dice = random.Random(seed)

    @in_loop
    async def run() -> None:
        server = FakeServer(turns=lambda: dice.randrange(4))
        pool = made(server, limit=dice.randint(1, 4), wait=dice.choice([0.002, 5.0]))
        held: set[BackendConnection] = set()
        taken = 0

        def answer(payload: bytes) -> bytes | type[Exception]:
            luck = dice.random()
            return BackendLost if luck < 0.03 else refused() if luck < 0.06 else build_ok(0, 0, AUTOCOMMIT, 0)

        async def client() -> None:
            nonlocal taken
            for _ in range(dice.randint(1, 4)):
                await settled(dice.randrange(10))
                server.refuse = BackendUnavailable("down") if dice.random() < 0.05 else None
                wanted = dice.choice([PLAIN, SHOP, STRICT, FOUND])
                take = pool.checkout_new if dice.random() < 0.1 else pool.checkout
                try:
                    connection = await take(wanted)
                except BackendError:
                    continue
                assert connection not in held and connection.profile is wanted and not connection.closed
                taken += 1
                held.add(connection)
                assert len(pool.connections) + pool.dialing <= pool.limit
                try:
                    await settled(dice.randrange(6))
                finally:
                    held.discard(connection)
                    dice.choice([pool.checkin, pool.checkin, pool.release, BackendConnection.close])(connection)

        server.answer = answer
        clients = [asyncio.create_task(client()) for _ in range(40)]
        while running := [task for task in clients if not task.done()]:
            if dice.random() < 0.3:
                dice.choice(running).cancel()
            await asyncio.wait(running, timeout=0.0005, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: not pool._tasks)
        await settled()
        for task in clients:
            assert task.cancelled() or task.exception() is None
        assert taken and pool.dialing == 0 and not pool._waiters
        assert len(pool.connections) == pool.idle_count == len(server.open)
        server.answer, server.refuse = FakeServer().answer, None
        everything = [await pool.checkout(SHOP) for _ in range(pool.limit)]
        assert len(set(everything)) == pool.limit

    run()


# ── giving back what is not clean ──


@in_loop
async def test_release_rolls_back_before_anybody_gets_the_connection() -> None:
    server = FakeServer()
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    pool.release(one)
    assert pool.idle_count == 0
    assert await pool.checkout(SHOP) is one
    assert transport_of(one).commands == [b"\x03ROLLBACK"]


@pytest.mark.parametrize(
    "answer",
    [refused(), build_ok(0, 0, AUTOCOMMIT | IN_TRANS, 0), BackendLost, None],
    ids=["err", "open", "lost", "never"],
)
@in_loop
async def test_what_cannot_be_rolled_back_is_closed(answer: Answer) -> None:
    server = FakeServer()
    server.answer = lambda payload: answer if payload == b"\x03ROLLBACK" else build_ok(0, 0, AUTOCOMMIT, 0)
    pool = made(server, limit=1, wait=0.02)
    one = await pool.checkout(SHOP)
    pool.release(one)
    await until(lambda: one.closed)
    assert not pool.idle_count
    assert await pool.checkout(SHOP) is not one


@in_loop
async def test_what_others_may_not_get_is_closed() -> None:
    server = FakeServer()
    server.answer = lambda payload: None
    pool = made(server, limit=3)
    tainted, busy, lost = [await pool.checkout(SHOP) for _ in range(3)]
    tainted.tainted = True
    ears = Ears()
    busy.send(READ, ears)
    transport_of(lost).close()
    await asyncio.sleep(0)
    for connection in (tainted, busy, lost):
        pool.release(connection)
        pool.checkin(connection)
    await settled()
    assert tainted.closed and busy.closed and lost.closed
    assert not pool.connections and not pool.idle_count
    assert len(ears.lost) == 1 and not ears.ended


@pytest.mark.parametrize(("status", "ended", "rolled"), [(2, False, False), (3, False, True), (3, True, True)])
@in_loop
async def test_give_back_rolls_an_open_transaction_back(status: int, ended: bool, rolled: bool) -> None:
    server = FakeServer()
    pool = made(server)
    one = await pool.checkout(SHOP)
    server.answer = lambda payload: build_ok(0, 0, status if payload == b"\x03BEGIN" else AUTOCOMMIT, 0)
    await one.query("BEGIN")
    pool.give_back(one, ended)
    await settled()
    assert transport_of(one).commands[1:] == [b"\x03ROLLBACK"] * rolled
    assert pool.idle_count == 1


@in_loop
async def test_a_statement_that_nobody_waits_for_is_ended_on_the_server() -> None:
    server = FakeServer()
    server.answer = lambda payload: None if b"SLEEP" in payload else build_ok(0, 0, AUTOCOMMIT, 0)
    pool = made(server, limit=1)
    one = await pool.checkout(SHOP)
    asking = asyncio.create_task(one.query("SELECT SLEEP(9)"))
    await settled(3)
    killed: list[bytes] = []

    def note(payload: bytes) -> bytes:
        killed.append(payload)
        return build_ok(0, 0, AUTOCOMMIT, 0)

    server.answer = note
    asking.cancel()
    await until(lambda: not pool._tasks and asking.done())
    assert one.closed and killed == [b"\x03KILL 1"]
    await settled()
    assert not server.open and not pool.connections


# ── upkeep ──


@in_loop
async def test_idle_connections_are_reaped() -> None:
    server = FakeServer()
    pool = made(server, limit=3)
    one, two, busy = [await pool.checkout(SHOP) for _ in range(3)]
    pool.checkin(one)
    pool.reap(100.0, 10.0)
    pool.checkin(two)
    pool.reap(105.0, 10.0)
    assert pool.idle_count == 2
    pool.reap(110.5, 10.0)
    assert one.closed and not two.closed and not busy.closed
    pool.reap(200.0, 10.0)
    assert two.closed and pool.idle == {} and pool.connections == {busy}


@pytest.mark.parametrize("other", [SHOP, STRICT])
@in_loop
async def test_use_ends_idleness(other: Any) -> None:
    """Also of a connection that was brought to another profile."""
    pool = made(FakeServer())
    one = await pool.checkout(SHOP)
    pool.checkin(one)
    pool.reap(100.0, 10.0)
    assert await pool.checkout(other) is one
    pool.reap(105.0, 10.0)
    pool.checkin(one)
    pool.reap(200.0, 10.0)
    pool.reap(205.0, 10.0)
    assert not one.closed


@in_loop
async def test_a_pool_that_drains_closes_each_connection_when_it_is_free() -> None:
    server = FakeServer()
    pool = await sharing(server)
    idle, busy, dirty = [await pool.checkout(SHOP) for _ in range(3)]
    pool.checkin(idle)
    shared = pool.share(SHOP)
    assert shared is not None
    ears = Ears()
    shared.send(READ, ears)
    pool.close()
    assert idle.closed and not busy.closed and not shared.closed
    assert pool.share(SHOP) is None
    await until(lambda: shared.closed)
    assert ears.ended == 1 and not ears.lost, "its command was answered first"
    pool.checkin(busy)
    pool.release(dirty)
    await settled()
    assert busy.closed and dirty.closed and not pool.connections and not server.open


@in_loop
async def test_a_shared_connection_that_is_made_while_the_pool_drains_is_closed() -> None:
    server = FakeServer(turns=lambda: 5)
    pool = made(server, 8, shared_limit=1, shared_depth=4)
    pool.share(SHOP)
    await settled(2)
    pool.close()
    await until(lambda: not pool._tasks)
    await settled()
    assert not server.open and not pool.connections
    pool.share(STRICT)
    await until(lambda: not pool._tasks)
    assert server.dialed == 1
