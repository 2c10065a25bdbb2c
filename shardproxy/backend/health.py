"""Watching the servers: is it up, and how far is the replica behind. In the supervisor, through control connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from shardproxy.backend.control import ControlConnection, Credentials, open_control
from shardproxy.errors import BackendError, SqlError
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Role, Server

Heard = Callable[[Server, ServerHealth], None]


async def watch(server: Server, credentials: Credentials, interval: float, patience: float, heard: Heard) -> None:
    """Look at one server every `interval` seconds until cancelled; each look ends in `heard(server, health)`.

    patience: seconds to wait for an answer.
    """
    connection: ControlConnection | None = None
    try:
        while True:
            try:
                if connection is None:
                    connection = await open_control(server, credentials, patience)
                health = await look(server, connection)
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


async def look(server: Server, connection: ControlConnection) -> ServerHealth:
    """One look. Raises BackendError, SqlError when the server does not answer."""
    if server.role is Role.PRIMARY:
        await connection.query("SELECT 1")
        return ServerHealth(True)
    rows = await connection.query("SHOW REPLICA STATUS")
    if not rows:
        return ServerHealth(True, None, "replication is not set up")
    return replica_health(rows[0])


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
