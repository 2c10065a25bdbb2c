"""KILL hits the statement that it was meant for, or none."""

from __future__ import annotations

import pytest

from shardproxy.backend import pool as pool_module
from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendUnavailable
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_ok
from tests.unit.backend.fake_server import AUTOCOMMIT, IN_TRANS, SHOP, Ears, FakeServer, settled, transport_of
from tests.unit.backend.pools import READ, in_loop, made, sharing, until


def kills(server: FakeServer) -> list[bytes]:
    """Collects the KILLs that reach the server; every command is answered with OK."""
    seen: list[bytes] = []

    def answer(payload: bytes) -> bytes:
        if payload.startswith(b"\x03KILL"):
            seen.append(payload[1:])
        return build_ok(0, 0, AUTOCOMMIT, 0)

    server.answer = answer
    return seen


@in_loop
async def test_a_connection_with_a_kill_under_way_goes_to_nobody_else() -> None:
    server = FakeServer(lambda: 3)
    seen = kills(server)
    pool = made(server)
    victim = await pool.checkout(SHOP)
    pool.kill(victim, True)
    pool.checkin(victim)
    assert victim.closed and pool.idle_count == 0
    await settled()
    assert seen == [b"KILL QUERY 1"]
    assert victim not in pool.connections and len(server.open) == 0


@in_loop
async def test_after_the_kill_has_struck_its_connection_is_as_good_as_any() -> None:
    server = FakeServer()
    seen = kills(server)
    pool = made(server)
    victim = await pool.checkout(SHOP)
    pool.kill(victim, True)
    await until(lambda: victim.killings == 0)
    pool.checkin(victim)
    assert seen == [b"KILL QUERY 1"] and pool.checkout_now(SHOP) is victim


@in_loop
async def test_a_kill_that_cannot_be_sent_is_over_too() -> None:
    server = FakeServer()
    pool = made(server)
    victim = await pool.checkout(SHOP)
    server.refuse = BackendUnavailable("down")
    pool.kill(victim, False)
    await until(lambda: victim.killings == 0)
    pool.checkin(victim)
    assert not victim.closed


@in_loop
async def test_an_abandoned_connection_is_closed_and_ended_on_the_server() -> None:
    server = FakeServer()
    seen = kills(server)
    pool = made(server)
    victim = await pool.checkout(SHOP)
    pool.abandon(victim)
    pool.abandon(victim)
    assert victim.closed
    await settled()
    assert seen == [b"KILL 1"]


class Gone(Ears):
    def unwanted(self) -> bool:
        return True


@in_loop
async def test_a_stuck_point_read_whose_client_has_gone_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "STUCK", 0.01)
    server = FakeServer()
    pool, stuck = await _stuck(server)
    seen = kills(server)
    other = Ears(redo=True)
    stuck.send(READ, Gone())
    stuck.send(READ, other)
    await until(lambda: bool(seen))
    assert stuck.closed and other.redone == 1
    assert seen == [b"KILL %d" % stuck.server_thread]
    await settled()
    assert stuck not in pool.connections


@in_loop
async def test_a_stuck_connection_never_comes_back_to_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first client gives it back while answers that nobody wants any more are still due."""
    monkeypatch.setattr(pool_module, "STUCK", 0.01)
    server = FakeServer()
    pool, stuck = await _stuck(server)
    for _ in range(2):
        stuck.send(READ, Ears(redo=True))
    await until(lambda: stuck.retiring)
    assert not stuck.shared, "it is the first command's alone"
    ok = packet(build_ok(0, 0, AUTOCOMMIT, 0), 1)
    transport_of(stuck).receive(ok)
    pool.checkin(stuck)
    assert not stuck.closed and pool.idle_count == 0
    transport_of(stuck).receive(ok)
    assert stuck.closed


async def _stuck(server: FakeServer) -> tuple[Pool, BackendConnection]:
    """A pool and its shared connection, which does not answer any more."""
    pool = await sharing(server)
    server.answer = lambda payload: None if payload.startswith(b"\x03SELECT") else build_ok(0, 0, AUTOCOMMIT, 0)
    stuck = pool.share(SHOP)
    assert stuck is not None
    monkey = transport_of(stuck)
    monkey.server = FakeServer()
    monkey.server.answer = lambda payload: None
    monkey.server.open = server.open
    return pool, stuck


@in_loop
async def test_without_autocommit_only_an_end_of_the_transaction_says_that_it_is_clean() -> None:
    from shardproxy.session.profile import with_variables

    server = FakeServer()
    pool = made(server)
    manual = with_variables(SHOP, {"autocommit": "0"})
    for profile, status, ended, clean in (
        (SHOP, AUTOCOMMIT, False, True),
        (SHOP, AUTOCOMMIT | IN_TRANS, False, False),
        (manual, 0, False, False),
        (manual, 0, True, True),
    ):
        connection = await pool.checkout(profile)
        connection.scanner.status = status
        before = len(transport_of(connection).commands)
        pool.give_back(connection, ended)
        await settled()
        said = transport_of(connection).commands[before:]
        assert said == ([] if clean else [b"\x03ROLLBACK"])
        assert pool.checkout_now(profile) is connection
        pool.checkin(connection)
