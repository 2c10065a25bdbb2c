"""How fast a move may go: by a rate, and by what the servers have to bear beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shardproxy.errors import BackendError, SqlError
from shardproxy.reshard.gentle import FIRST, Gentle
from shardproxy.reshard.link import Link, LinkLogin, connect, sent_to
from shardproxy.reshard.timing import Timing
from shardproxy.topology.model import Server


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """0 is no limit. rate: rows a second, of all streams together; lag: seconds that a replica may be behind; threads:
    statements that run on a primary at once; history: length of InnoDB's history list. gentle: go slower where the
    servers answer later than without copying (see reshard.gentle)."""

    rate: float = 0.0
    lag: float = 10.0
    threads: int = 0
    history: int = 0
    gentle: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What a server said. lag: None where it is no replica, infinity where replication has stopped."""

    threads: int
    history: int
    lag: float | None


# Seconds until it is known whether there is an application, between two looks while learning, between two judgements.
_FIRST_LOOK, _LEARN, _JUDGE = 0.3, 1.0, 2.0
_BURST = 0.03  # seconds of the rate that may be made up for at once
# Rows of one transaction, when there is a rate. It costs as much as 40 rows whatever is in it, and p99 tells of the
# one in a hundred of the statements that waits for it: beside 2,500 of them a second, p99 of updates was 2.6, 2.4,
# 1.9 and 2.0 ms at 1,000 rows a second by 100, 300, 600 and 1,000, and 1.6 ms without copying.
_TURN, _ENOUGH = 0.5, 500  # seconds that they may stand for, as long as they are not more than enough
_FAST_TURN = 0.01  # the same at high rates
FEW_CHANGES = 100  # of what costs more than a copied row, at the most
_LEAST_AT_ONCE = 20


class Pace(Protocol):
    """What the copier asks before it goes on."""

    async def wait(self, rows: int) -> None:
        """Return when the next `rows` rows may be written."""

    @property
    def at_once(self) -> int:
        """The most rows that may be written in one transaction; 0: any number."""

    @property
    def why(self) -> str:
        """Why it goes slowly or not at all, for people; "" when nothing but the operator's rate holds it."""


class Unlimited:
    """A pace without limits."""

    async def wait(self, rows: int) -> None:
        return

    @property
    def at_once(self) -> int:
        return 0

    @property
    def why(self) -> str:
        return ""


class Throttle:
    """`watch` and `be_gentle` look at the servers until they are cancelled; `wait` holds the copier back.

    reason: why it is held back now, for people; "" when it is not.
    """

    def __init__(self, limits: ThrottleLimits) -> None:
        self.limits = limits
        self.gentle: Gentle | None = None
        self.reason = ""
        self.paused = False  # by the operator
        self._free = asyncio.Event()
        self._free.set()
        self._ready_at = 0.0

    @property
    def why(self) -> str:
        return self.reason or (self.gentle.reason if self.gentle is not None else "")

    @property
    def rate(self) -> float:
        """Rows a second; 0: no limit."""
        limit = self.limits.rate
        gentle = self.gentle.rate if self.gentle is not None else 0.0
        return min(limit, gentle) if limit and gentle else limit or gentle

    @property
    def at_once(self) -> int:
        rate = self.rate or (FIRST if self.gentle is not None and self.gentle.learning else 0.0)
        return max(_LEAST_AT_ONCE, min(_ENOUGH, int(rate * _TURN)), int(rate * _FAST_TURN)) if rate else 0

    async def wait(self, rows: int) -> None:
        while self.reason or self.paused or (self.gentle is not None and self.gentle.learning):
            self._free.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._free.wait()
        if self.gentle is not None:
            self.gentle.copied(rows)
        rate = self.rate
        if rate > 0:
            now = asyncio.get_running_loop().time()
            due = max(self._ready_at, now - _BURST)
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

    async def be_gentle(self, servers: Sequence[Server], login: LinkLogin) -> None:
        """Time small statements on these servers, and judge the rate by them. One that does not answer is left out."""
        gentle = self.gentle = Gentle()
        times: dict[str, list[float]] = {}
        hearing = asyncio.create_task(_hear(servers, login, times))
        counting = _Counting(servers, login)
        loop = asyncio.get_running_loop()
        try:
            await counting.others()
            last, pause = loop.time(), _FIRST_LOOK
            while True:
                await asyncio.sleep(pause)
                others = await counting.others()
                now = loop.time()
                gentle.heard(times, others, now - last, now)
                times.clear()
                last, pause = now, _LEARN if gentle.learning else _JUDGE
        finally:
            self.gentle = None
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            counting.close()


async def _hear(servers: Sequence[Server], login: LinkLogin, times: dict[str, list[float]]) -> None:
    """Gather there what is measured. A process that ends is started again."""
    while True:
        with contextlib.suppress(BackendError, OSError):
            timing = await Timing.start(servers, login)
            try:
                while True:
                    for name, found in (await timing.read()).items():
                        times.setdefault(name, []).extend(found)
            finally:
                await timing.close()
        await asyncio.sleep(_JUDGE)


class _Counting:
    """Statements that others send to some servers."""

    def __init__(self, servers: Sequence[Server], login: LinkLogin) -> None:
        self._servers, self._login = servers, login
        self._links: dict[str, Link] = {}
        self._last: dict[str, tuple[float, int]] = {}

    async def others(self) -> float:
        """A second since the last call, on the server that has most of them."""
        rates = [await self._of(server) for server in self._servers]
        return max(rates, default=0.0)

    async def _of(self, server: Server) -> float:
        try:
            link = self._links.get(server.name)
            if link is None or link.closed:
                link = self._links[server.name] = await connect(server, self._login)
            answer = await link.query(b"SHOW GLOBAL STATUS LIKE 'Questions'")
        except (BackendError, SqlError):
            return 0.0
        asked = int(answer.values()[0][1] or 0) - sent_to(server.name)
        now = asyncio.get_running_loop().time()
        before, self._last[server.name] = self._last.get(server.name), (now, asked)
        return 0.0 if before is None or now <= before[0] else (asked - before[1]) / (now - before[0])

    def close(self) -> None:
        for link in self._links.values():
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
