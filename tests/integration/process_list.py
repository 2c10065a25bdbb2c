"""Connections and statements of a server: waiting for them, and killing those of the proxy."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pymysql

from shardproxy.local import LocalServer
from tests.proxy import eventually


def wait_gone(server: LocalServer, what: str) -> None:
    """Wait until no connection of the server runs a statement that holds `what`."""
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE %s AND info NOT LIKE '%%processlist%%'"
    eventually(lambda: server.rows(sql, (f"%{what}%",)) == [(0,)], f"{what} still runs on {server.name}")


def wait_running(server: LocalServer, what: str) -> None:
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE %s AND info NOT LIKE '%%processlist%%'"
    eventually(lambda: server.rows(sql, (f"%{what}%",)) != [(0,)], f"{what} does not run on {server.name}")


def kill_servers_clients(server: LocalServer, seen: bool = True) -> None:
    """KILL every connection of the proxy's clients to a server, and wait until both ends have seen that.

    Not `seen`: the proxy stands still; wait until it has that before it.
    """
    sql = "SELECT id FROM information_schema.processlist WHERE user = 'shardproxy' AND db = 'main'"
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        idents = [ident for (ident,) in cursor.fetchall()]
        for ident in idents:
            with contextlib.suppress(pymysql.err.MySQLError):
                cursor.execute(f"KILL {ident}")

        def gone() -> bool:
            cursor.execute(sql)
            left = {ident for (ident,) in cursor.fetchall()} & set(idents)
            return not left and _half_closed(server.port) is not seen

        eventually(gone, f"connections of {server.name} end")


def _half_closed(port: int) -> bool:
    """Whether connections to this port have been closed by the server and not yet by the other side."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(there.endswith(f":{port:04X}") and state == "08" for _, _, there, state, *_ in sockets)
