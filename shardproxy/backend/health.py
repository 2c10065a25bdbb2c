"""Watching the servers: is it up, and how far is the replica behind. In the supervisor, through control connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.errors import BackendError, SqlError
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Role, Server

Heard = Callable[[Server, ServerHealth], None]


async def watch(
    server: Server,
    credentials: Credentials,
    interval: float,
    patience: float,
    heard: Heard,
    positions: Callable[[], frozenset[str]] = frozenset,
) -> None:
    """Look at one server every `interval` seconds until cancelled; each look ends in `heard(server, health)`.

    patience: seconds to wait for an answer. positions: those that the newest map asks of the shard's replicas.
    """
    connection: ControlConnection | None = None
    try:
        while True:
            try:
                if connection is None:
                    connection = await open_control(server, credentials, patience)
                health = await look(server, connection, positions())
            except (BackendError, SqlError) as error:
                if connection is not None:
                    connection.abort()
                    connection = None
                health = ServerHealth(False, None, str(error))
            heard(server, health)
            await asyncio.sleep(interval)
    finally:
        if connection is not None:
            connection.abort()


async def look(server: Server, connection: ControlConnection, positions: frozenset[str] = frozenset()) -> ServerHealth:
    """One look. Raises BackendError, SqlError when the server does not answer."""
    if server.role is Role.PRIMARY:
        await connection.query("SELECT 1")
        return ServerHealth(True)
    rows = await connection.query("SHOW REPLICA STATUS")
    if not rows:
        return ServerHealth(True, None, "replication is not set up")
    health = replica_health(rows[0])
    if not positions:
        return health
    reached = await applied(connection, positions)
    reason = health.reason if reached == positions else health.reason or "it has not applied yet what the map asks for"
    return replace(health, applied=reached, reason=reason)


async def applied(connection: ControlConnection, positions: Iterable[str]) -> frozenset[str]:
    """Those of the positions that a replica has applied. Raises BackendError, SqlError."""
    if connection.is_mariadb:
        rows = await connection.query("SELECT @@GLOBAL.gtid_slave_pos AS position")
        reached = last_of_domains(str(text(rows[0]["position"]) or ""))
        return frozenset(p for p in positions if all(reached.get(d, -1) >= n for d, n in last_of_domains(p).items()))
    found = set()
    for position in positions:
        rows = await connection.query("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed) AS applied", (position,))
        if int(rows[0]["applied"] or 0):
            found.add(position)
    return frozenset(found)


def last_of_domains(position: str) -> dict[int, int]:
    """Domain → number of its last transaction, of "0-1-100,1-2-7"."""
    parts = [part.split("-") for part in position.split(",") if part.strip()]
    return {int(domain): int(number) for domain, _, number in parts}


def replica_health(row: Mapping[str, Any]) -> ServerHealth:
    """From a row of SHOW REPLICA STATUS (lower-case names, MySQL's or MariaDB's)."""

    def value(*names: str) -> str:
        return next((str(row[name]) for name in names if row.get(name) is not None), "")

    receiving = value("replica_io_running", "slave_io_running")
    applying = value("replica_sql_running", "slave_sql_running")
    if receiving != "Yes" or applying != "Yes":
        problem = value("last_io_error") or value("last_sql_error") or f"receiver: {receiving}, applier: {applying}"
        return ServerHealth(True, None, f"replication does not run ({problem})")
    behind = value("seconds_behind_source", "seconds_behind_master")
    if not behind:
        return ServerHealth(True, None, "the replica does not know its lag")
    return ServerHealth(True, float(behind))
