"""How fast a move may go: by a rate, and by what the servers have to bear beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shardproxy.errors import BackendError, SqlError
from shardproxy.reshard.link import Link, LinkLogin, connect
from shardproxy.topology.model import Server


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """0 is no limit. rate: rows a second; lag: seconds that a replica may be behind; threads: statements that run on
    a primary at once; history: length of InnoDB's history list."""

    rate: float = 0.0
    lag: float = 10.0
    threads: int = 0
    history: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What a server said. lag: None where it is no replica, infinity where replication has stopped."""

    threads: int
    history: int
    lag: float | None


class Pace(Protocol):
    """What the copier asks before it goes on."""

    async def wait(self, rows: int) -> None:
        """Return when the next `rows` rows may be written."""


class Unlimited:
    """A pace without limits."""

    async def wait(self, rows: int) -> None:
        return


class Throttle:
    """`watch` looks at the servers until it is cancelled; `wait` holds the copier back.

    reason: why it is held back now, for people; "" when it is not.
    """

    def __init__(self, limits: ThrottleLimits) -> None:
        self.limits = limits
        self.reason = ""
        self.paused = False  # by the operator
        self._free = asyncio.Event()
        self._free.set()
        self._ready_at = 0.0

    async def wait(self, rows: int) -> None:
        while self.reason or self.paused:
            self._free.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._free.wait()
        rate = self.limits.rate
        if rate > 0:
            now = asyncio.get_running_loop().time()
            due = max(self._ready_at, now - 0.1)
            self._ready_at = due + rows / rate
            if due > now:
                await asyncio.sleep(due - now)

    def judge(self, loads: Sequence[tuple[str, Load]]) -> None:
        """Take what the servers said: (name, load)."""
        self.reason = next(filter(None, (self._too_much(name, load) for name, load in loads)), "")
        if not self.reason:
            self._free.set()

    def _too_much(self, name: str, load: Load) -> str:
        limits = self.limits
        if load.lag is not None and limits.lag and load.lag > limits.lag:
            behind = "has stopped to replicate" if load.lag == float("inf") else f"is {load.lag:g} s behind"
            return f"{name} {behind}"
        if limits.threads and load.threads > limits.threads:
            return f"{name} runs {load.threads} statements at once"
        if limits.history and load.history > limits.history:
            return f"{name} has a history list of {load.history}"
        return ""

    async def watch(self, servers: Sequence[Server], login: LinkLogin, every: float = 1.0) -> None:
        """Look at the servers every so many seconds. One that does not answer holds the copier back."""
        links: dict[str, Link] = {}
        try:
            while True:
                loads: list[tuple[str, Load]] = []
                for server in servers:
                    try:
                        link = links.get(server.name)
                        if link is None or link.closed:
                            link = links[server.name] = await connect(server, login)
                        loads.append((server.name, await read_load(link)))
                    except (BackendError, SqlError):
                        loads.append((server.name, Load(0, 0, float("inf"))))
                self.judge(loads)
                await asyncio.sleep(every)
        finally:
            for link in links.values():
                link.close()


async def read_load(link: Link) -> Load:
    """Ask one server."""
    status = b"SHOW GLOBAL STATUS WHERE variable_name IN ('Threads_running', 'Innodb_history_list_length')"
    history = (
        b"DO 0" if link.is_mariadb
        else b"SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'"
    )  # fmt: skip
    named, metric = await link.queries((status, history))
    values = {(name or b"").decode().lower(): int(value or 0) for name, value in named.values()}
    length = values.get("innodb_history_list_length", 0)
    if not link.is_mariadb:
        rows = metric.values()
        length = int(rows[0][0] or 0) if rows else 0
    return Load(values.get("threads_running", 0), length, await _lag(link))


async def _lag(link: Link) -> float | None:
    answer = await link.query(b"SHOW REPLICA STATUS")
    rows = answer.values()
    if not rows:
        return None
    row = dict(zip(answer.names(), rows[0], strict=True))
    seconds = row.get(b"Seconds_Behind_Source", row.get(b"Seconds_Behind_Master"))
    return float("inf") if seconds is None else float(seconds)
