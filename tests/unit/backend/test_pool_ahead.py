"""Connections that are made before anybody asks for them, because keys are about to come to a shard."""

from __future__ import annotations

import pytest

from shardproxy.backend import pool as pool_module
from shardproxy.errors import BackendUnavailable
from shardproxy.protocol.mysql.packets import build_err, build_ok
from tests.unit.backend.fake_server import AUTOCOMMIT, SHOP, STRICT, FakeServer, settled
from tests.unit.backend.pools import in_loop, made, sharing, until


@in_loop
async def test_a_pool_gets_as_many_of_each_kind_as_the_others_have_at_most() -> None:
    giver, quiet = await sharing(FakeServer(), connections=2, limit=16), made(FakeServer(), 16)
    borrowed = [await giver.checkout(SHOP) for _ in range(3)]
    giver.checkin(borrowed.pop())  # busy ones count
    for connection in [await quiet.checkout(SHOP), await quiet.checkout(STRICT)]:
        quiet.checkin(connection)
    taker = made(FakeServer(), 16, shared_limit=2, shared_depth=4)
    taker.checkin(await taker.checkout(SHOP))
    taker.prepare_for([giver, quiet])
    await until(lambda: len(taker.connections) == 6 and len(taker.shared[SHOP]) == 2)
    await settled()
    assert {profile: len(stack) for profile, stack in taker.idle.items()} == {SHOP: 3, STRICT: 1}
    taker.prepare_for([giver, quiet])
    await settled()
    assert len(taker.connections) == 6, "they are there"


@in_loop
async def test_those_that_are_being_made_are_not_made_again() -> None:
    giver, server = made(FakeServer(), 16), FakeServer()
    borrowed = [await giver.checkout(SHOP) for _ in range(2)]
    taker = made(server, 16)
    taker.prepare_for([giver])
    borrowed.append(await giver.checkout(SHOP))
    taker.prepare_for([giver])
    await until(lambda: taker.idle_count == 3)
    await settled()
    assert taker.idle_count == len(taker.connections) == len(borrowed) == 3
    for connection in list(taker.connections):
        connection.close()
    taker.prepare_for([giver])
    await until(lambda: taker.idle_count == 3)


@in_loop
async def test_the_server_makes_what_a_transaction_needs_before_anybody_waits_for_it() -> None:
    giver, server = made(FakeServer()), FakeServer()
    giver.checkin(await giver.checkout(SHOP))
    taker = made(server, 4)
    taker.prepare_for([giver])
    await until(lambda: taker.idle_count == 1)
    [transport] = server.open
    assert transport.commands[-2:] == [b"\x03" + text for text in pool_module._FIRST]


@in_loop
async def test_one_that_cannot_be_used_is_not_kept() -> None:
    giver, server = made(FakeServer()), FakeServer()
    giver.checkin(await giver.checkout(SHOP))
    server.answer = lambda payload: (
        build_err(1290, "HY000", "not now") if payload.startswith(b"\x03START") else build_ok(0, 0, AUTOCOMMIT, 0)
    )
    taker = made(server, 4)
    taker.prepare_for([giver])
    await until(lambda: server.dialed == 1)
    await settled()
    assert not taker.connections and not server.open


@pytest.mark.parametrize(("limit", "most"), [(40, pool_module._AHEAD), (6, 3)])
@in_loop
async def test_not_more_than_a_few_and_half_of_the_limit(limit: int, most: int) -> None:
    giver, taker = made(FakeServer(), 40), made(FakeServer(), limit)
    borrowed = [await giver.checkout(SHOP) for _ in range(30)]
    taker.prepare_for([giver])
    await until(lambda: taker.idle_count == most)
    await settled()
    assert taker.idle_count == len(taker.connections) == most
    assert len(borrowed) == 30


@in_loop
async def test_a_server_that_does_not_answer_keeps_nobody_waiting() -> None:
    giver, server = made(FakeServer()), FakeServer()
    giver.checkin(await giver.checkout(SHOP))
    server.refuse = BackendUnavailable("nobody listens there")
    taker = made(server)
    taker.prepare_for([giver])
    await settled()
    assert (taker.dialing, len(taker.connections)) == (0, 0)
