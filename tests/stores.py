"""Map stores for tests: where they are, how long to wait for them, a process that writes into them, a relay that loses
what passes it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import uvloop

from shardproxy.config import Config, parse
from shardproxy.store.interface import MapStore
from shardproxy.store.opening import open_store

TIMEOUT = 1.0  # seconds, as configured for the stores here
SLACK = 1.0  # more than that, on a busy machine
WAIT = 20.0


def within(seconds: float, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await main()

    uvloop.run(limited())


async def fails(call: Coroutine[Any, Any, object], kind: type[Exception], seconds: float = TIMEOUT) -> str:
    """The call raises this error within its time; the message."""
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        await call
    assert time.monotonic() - begun < seconds + SLACK
    return str(caught.value)


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    deadline = time.monotonic() + WAIT
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Place:
    """A store by the entries of [store]."""

    settings: Mapping[str, Any]
    folder: Path = field(default_factory=Path)

    @property
    def config(self) -> Config:
        data = {
            "backend": {"user": "proxy", "password": "x"},
            "users": {"app": {"password": "x"}},
            "shards": {"a": {"primary": "127.0.0.1:1"}},
            "keyspaces": {"main": {"key_type": "int", "map": "hash", "ring": {"a": 1}}},
            "store": dict(self.settings),
        }
        return parse(data, base=self.folder)

    @property
    def kind(self) -> str:
        return str(self.settings["kind"])

    @property
    def path(self) -> Path:
        """The embedded store's file."""
        return self.folder / str(self.settings["path"])

    def having(self, **settings: Any) -> Place:
        """The same place with other settings."""
        return replace(self, settings={**self.settings, **settings})

    @asynccontextmanager
    async def store(self) -> AsyncIterator[MapStore]:
        store = await open_store(self.config)
        try:
            yield store
        finally:
            await store.close()

    def start(self, work: str, **arguments: Any) -> subprocess.Popen[str]:
        """A process of its own that runs the function `work` of tests/store_work.py; it prints what it has done."""
        given = json.dumps({"settings": dict(self.settings), "folder": str(self.folder), "arguments": arguments})
        return subprocess.Popen(
            [sys.executable, "-m", "tests.store_work", work, given], stdout=subprocess.PIPE, text=True
        )


def embedded(folder: Path, timeout: str = "5s") -> Place:
    return Place({"kind": "embedded", "path": "maps", "timeout": timeout}, folder)


class Relay:
    """A TCP relay to `target`. mode: what it does with what comes in from now on.

    pass: hand it on. deaf: take requests and keep them. mute: hand requests on, and lose the answers. slow: hand
    requests on, and keep the answers until it does something else. kept: pieces of answers that it keeps now.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.mode: Literal["pass", "deaf", "mute", "slow"] = "pass"
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.requests = 0  # pieces that clients have sent
        self.kept = 0

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        for source, sink, answers in ((reader, back, False), (there, writer, True)):
            task = asyncio.create_task(self._carry(source, sink, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(65536):
                self.requests += not answers
                if answers:
                    await self._keep()
                if self.mode == "pass" or (self.mode in ("mute", "slow") and not answers):
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def _keep(self) -> None:
        self.kept += 1
        while self.mode == "slow":  # noqa: ASYNC110 — a test says when
            await asyncio.sleep(0.005)
        self.kept -= 1
