"""Connections that are opened before writes are held: none of them then waits for a login of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from shardproxy.reshard.bookkeeping import open_writer
from shardproxy.reshard.link import Link, LinkLogin
from shardproxy.reshard.together import together
from shardproxy.topology.model import Server


class WarmLinks:
    """Writers, by server. Without any that is ready, `writer` opens one."""

    def __init__(self, login: LinkLogin) -> None:
        self._login = login
        self._ready: dict[str, list[Link]] = {}

    async def have(self, servers: Iterable[Server]) -> None:
        """Have one for each server that is named, as often as it is; those that are ready count. Raises
        BackendUnavailable, SqlError."""
        missing = []
        left = {name: sum(not link.closed for link in links) for name, links in self._ready.items()}
        for server in servers:
            left[server.name] = left.get(server.name, 0) - 1
            if left[server.name] < 0:
                missing.append(server)
        await together(map(self._open, missing))

    async def _open(self, server: Server) -> None:
        link = await open_writer(server, self._login)
        self._ready.setdefault(server.name, []).append(link)

    @asynccontextmanager
    async def writer(self, server: Server) -> AsyncIterator[Link]:
        """A connection as `open_writer` makes it. It must be left without an open transaction; it is ready again then,
        and closed after an error."""
        ready = self._ready.setdefault(server.name, [])
        link = None
        while ready and link is None:
            last = ready.pop()
            link = None if last.closed else last
        if link is None:
            link = await open_writer(server, self._login)
        try:
            yield link
        except BaseException:
            link.close()
            raise
        ready.append(link)

    def close(self) -> None:
        for links in self._ready.values():
            for link in links:
                link.close()
        self._ready.clear()
