"""Which commands no map of a switch is kept waiting by: writes that are known to be of keys that stay."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shardproxy.app.in_flight import stays
from shardproxy.frontend.mysql.connection import ClientConnection
from shardproxy.planner.statement import plan_statement
from shardproxy.topology.model import Snapshot
from shardproxy.topology.moves import Phase
from tests.unit.planner.moving_world import moving_context

STAYING = "UPDATE users SET country = 5 WHERE uid = 10"


def client(sql: str, phase: Phase = Phase.ARMED, **more: Any) -> ClientConnection:
    plan = plan_statement(sql.encode(), moving_context(phase=phase))
    found = {"entry": SimpleNamespace(plan=plan), "started": 7.5, "touching": 3.0, **more}
    return cast(ClientConnection, SimpleNamespace(**found))


def after(phase: Phase, epoch: int = 1) -> Snapshot:
    snapshot = moving_context(phase=phase).snapshot
    keyspaces = {
        name: k if k.move is None else replace(k, move=replace(k.move, epoch=epoch))
        for name, k in snapshot.keyspaces.items()
    }
    return replace(snapshot, keyspaces=keyspaces)


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.SWITCHED])
@pytest.mark.parametrize(
    "sql",
    [
        STAYING,
        "INSERT INTO users (uid, name) VALUES (10, 'a')",
        "DELETE FROM users WHERE uid = 10 AND country = 3",
    ],
)
def test_a_write_of_keys_that_stay(sql: str, phase: Phase) -> None:
    assert stays(client(sql), after(phase))
    assert not stays(client(sql, touching=7.5), after(phase)), "it was found to touch keys that move"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM users WHERE uid = 10",
        "SELECT * FROM users WHERE uid = 10 FOR UPDATE",
        "/*shardproxy: shard=a*/ UPDATE users SET country = 5 WHERE uid = 10",
        "UPDATE accounts SET email = 'a' WHERE uid = 10",  # a lookup index
        "UPDATE users SET uid = 150 WHERE uid = 10",
        "INSERT INTO users (uid, name) SELECT uid, what FROM events WHERE uid = 10 ORDER BY RAND() LIMIT 1",
        "UPDATE countries SET name = 'x'",
        "COMMIT",
    ],
)
def test_others_are_in_flight(sql: str) -> None:
    assert not stays(client(sql), after(Phase.SWITCHED))


def test_only_under_the_fence_that_counts() -> None:
    assert not stays(client(STAYING, Phase.COPYING), after(Phase.ARMED)), "nobody has looked yet"
    assert not stays(client(STAYING), after(Phase.ARMED, 2))
    assert not stays(client(STAYING), after(Phase.OPEN, 0))
    assert not stays(client(STAYING), replace(after(Phase.SWITCHED), keyspaces={}))
    assert not stays(client(STAYING, entry=None), after(Phase.SWITCHED))
