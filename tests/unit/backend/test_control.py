"""Control connections to servers that die: whatever the driver raises then, it is a lost connection to us."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shardproxy.backend.control import ControlConnection, Credentials, open_control
from shardproxy.errors import BackendLost, BackendUnavailable
from shardproxy.topology.model import Role, Server


def server(port: int) -> Server:
    return Server("shard1/primary", "127.0.0.1", port, Role.PRIMARY, "shard1")


@pytest.mark.parametrize("greeting", [b"", b"\x00", b"\x01\x00\x00\x00\x0a", b"\x08\x00\x00\x00\x0a8.0.1\x00\x00"])
def test_a_greeting_that_is_cut_off(greeting: bytes) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async def connect() -> None:
        listening = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            with pytest.raises(BackendUnavailable, match="shard1/primary"):
                await open_control(server(port), Credentials("x", "x"), 5)

    asyncio.run(connect())


class _Dying:
    """A driver's connection whose socket has failed, and uvloop says so in its own way."""

    closed = False

    def get_server_info(self) -> str:
        return "8.0.1"

    def cursor(self, *_: Any) -> Any:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None:
        self.closed = True


def test_a_socket_that_has_failed_and_has_not_said_so() -> None:
    driver = _Dying()
    with pytest.raises(BackendLost, match="shard1/primary: unable to perform operation"):
        asyncio.run(ControlConnection(server(1), driver, 5).query("SELECT 1"))
    assert driver.closed
