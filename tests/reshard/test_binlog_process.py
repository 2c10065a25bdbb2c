"""The processes that read binlogs: their births and deaths."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardproxy.backend.control import Credentials
from shardproxy.errors import BackendError
from shardproxy.reshard import binlog_process
from shardproxy.reshard.binlog_process import BinlogProcess, _Nursery
from shardproxy.reshard.change_source import SourceSettings
from shardproxy.reshard.link import LinkLogin
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Role, Server
from shardproxy.topology.moving import every_key
from tests.proxy import eventually


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Nursery]:
    found = _Nursery()
    monkeypatch.setattr(binlog_process, "_nursery", found)
    yield found
    found.close()


@pytest.fixture
def settings() -> Iterator[SourceSettings]:
    """Of a server that takes connections and says nothing: whoever reads from it waits."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server("a/primary", "127.0.0.1", listening.getsockname()[1], Role.PRIMARY, "a")
        login = LinkLogin(Credentials("nobody", ""), 60.0)
        yield SourceSettings(server, login, (), every_key(KeyType.INT), "", "")


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent …; none when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between open and read
        return []
    return text[text.rindex(")") + 2 :].split()


def parent_of(pid: int) -> int:
    return int(stat(pid)[1])


def lives(pid: int) -> bool:
    return bool(stat(pid)) and stat(pid)[0] not in "ZX"


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_children_are_forked_by_one_process_and_end_when_they_are_closed(
    nursery: _Nursery, settings: SourceSettings
) -> None:
    async def run() -> tuple[int, int, int]:
        first, second = await BinlogProcess.start(settings), await BinlogProcess.start(settings)
        mother = parent_of(first.pid)
        assert parent_of(second.pid) == mother != os.getpid()
        await first.close()
        assert not lives(first.pid)
        assert lives(second.pid)
        os.kill(second.pid, signal.SIGSTOP)
        await second.close()  # even one that does nothing any more
        return mother, first.pid, second.pid

    mother, *pids = asyncio.run(run())
    assert not any(map(lives, pids))
    eventually(lambda: not children(mother), "that the dead are buried")


def test_what_ends_a_child_is_raised(nursery: _Nursery, settings: SourceSettings) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        child = await BinlogProcess.start(
            SourceSettings(
                Server("b/primary", "127.0.0.1", port, Role.PRIMARY, "b"), settings.login, (), settings.moving, "", ""
            )
        )
        try:
            with pytest.raises(BackendError, match="b/primary"):
                await child.read()
        finally:
            await child.close()

    asyncio.run(run())


def test_a_nursery_that_was_killed_is_replaced_and_its_children_go_on(
    nursery: _Nursery, settings: SourceSettings
) -> None:
    async def run() -> None:
        first = await BinlogProcess.start(settings)
        mother = parent_of(first.pid)
        os.kill(mother, signal.SIGKILL)
        second = await BinlogProcess.start(settings)
        assert parent_of(second.pid) not in (mother, os.getpid())
        assert lives(first.pid)
        await first.close()
        await second.close()

    asyncio.run(run())


def test_a_child_that_nobody_waits_for_any_more_ends(nursery: _Nursery, settings: SourceSettings) -> None:
    async def run() -> int:
        first = await BinlogProcess.start(settings)
        starting = asyncio.create_task(BinlogProcess.start(settings))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        mother = parent_of(first.pid)
        await first.close()
        return mother

    mother = asyncio.run(run())
    eventually(lambda: not children(mother), "the end of both")


def test_nursery_and_children_end_when_their_parent_has_vanished(nursery: _Nursery, settings: SourceSettings) -> None:
    async def run() -> tuple[int, int]:
        child = await BinlogProcess.start(settings)
        mother = parent_of(child.pid)
        assert nursery._control is not None
        nursery._control.close()  # what the kernel does for who was killed
        child._writer.close()
        await child._writer.wait_closed()
        return mother, child.pid

    mother, child = asyncio.run(run())
    eventually(lambda: not lives(mother) and not lives(child), "the end of both")
