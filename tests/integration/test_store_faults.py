"""The embedded map store in trouble: locked, removed, killed in the middle, on a bad disk. It says which, in time."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from shardproxy.app.handover import Handover
from shardproxy.app.map_watch import MapWatch
from shardproxy.errors import StoreConflict, StoreOutcomeUnknown, StoreUnavailable
from shardproxy.store.embedded import LOOK_EVERY
from shardproxy.store.interface import ABSENT, Change, Condition, Entry, Put
from shardproxy.store.settle import settle
from shardproxy.store.sqlite_file import SqliteFile
from shardproxy.topology.barrier import Acknowledgement
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.stored import ACKNOWLEDGEMENTS
from tests.stores import SLACK, WAIT, Place, embedded, fails, until, within

# ── the SQLite file ──


@pytest.fixture
def file(tmp_path: Path) -> Place:
    return embedded(tmp_path, "1s")


def test_a_locked_file_keeps_no_read_waiting_and_no_write_too_long(file: Place) -> None:
    async def main() -> None:
        async with file.store() as store:
            version = await store.put("a", {"n": 1}, ABSENT)
            other = sqlite3.connect(file.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(fails(store.put("a", {"n": 2}, version), StoreUnavailable))
            for _ in range(20):
                assert await store.get("a") == Entry("a", {"n": 1}, version)
            assert "locked" in await waiting
            assert await store.get("a") == Entry("a", {"n": 1}, version)
            other.execute("ROLLBACK")
            await store.put("a", {"n": 3}, version)
            other.close()

    within(WAIT, main)


@contextmanager
def stopped_writer(path: Path) -> Iterator[int]:
    """A process that is stopped in the middle of a change; its number."""
    begin = f"db = sqlite3.connect({str(path)!r}, isolation_level=None); db.execute('BEGIN IMMEDIATE')"
    stop = "print('stops', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    program = [sys.executable, "-c", f"import os, signal, sqlite3; {begin}; {stop}"]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"stops\n"
            os.waitpid(process.pid, os.WUNTRACED)
            yield process.pid
        finally:
            process.kill()


def test_a_process_that_stands_still_while_it_writes_is_named(file: Place) -> None:
    """Nobody can write then, but everybody can read, also who comes only now."""

    async def put(n: int, version: int) -> None:
        async with file.store() as store:
            await store.put("a", {"n": n}, version)

    async def meanwhile() -> None:
        async with file.store() as store:
            assert await store.get("a") == Entry("a", {"n": 1}, 1)
            why = await fails(store.put("a", {"n": 2}, 1), StoreUnavailable)
            assert f"process {writer}, which is stopped" in why

    within(WAIT, lambda: put(1, ABSENT))
    with stopped_writer(file.path) as writer:
        within(WAIT, meanwhile)
    within(WAIT, lambda: put(3, 1))


@pytest.mark.parametrize("damage", ["removed", "replaced"])
def test_a_file_that_is_gone_is_not_written_any_more(file: Place, damage: str) -> None:
    """Other processes would find another file there, with a map of its own."""

    async def main() -> None:
        async with file.store() as store:
            await store.put("a", {}, ABSENT)
            for path in file.path.parent.glob("maps*"):
                if path.is_file():
                    path.rename(path.with_name("old-" + path.name))
            if damage == "replaced":
                async with file.store() as other:
                    await other.put("a", {"another": True}, ABSENT)
            for call in (store.get("a"), store.put("b", {}, ABSENT), store.list(""), anext(store.watch("", 0))):
                assert "removed or replaced" in await fails(call, StoreUnavailable)

    within(WAIT, main)


def test_what_is_no_store_of_ours_is_refused(file: Place) -> None:
    async def main() -> None:
        file.path.write_bytes(b"not a database" * 1000)
        await fails(_open(file), StoreUnavailable)
        file.path.unlink()
        newer = sqlite3.connect(file.path)
        newer.executescript("CREATE TABLE store (format, revision, forgotten); INSERT INTO store VALUES (99, 0, 0)")
        newer.close()
        assert "format 99" in await fails(_open(file), StoreUnavailable)
        await fails(_open(file.having(path="missing/folder/maps")), StoreUnavailable)

    within(WAIT, main)


async def _open(place: Place) -> None:
    async with place.store():
        pass


def test_many_processes_may_make_the_file_at_once(file: Place) -> None:
    patient = file.having(timeout="20s")  # nothing says whose turn it is, and each commit waits for the disk
    processes = [patient.start("count", key="counter", times=5, writer=i) for i in range(4)]
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0

    async def main() -> None:
        async with file.store() as store:
            entry = await store.get("counter")
            assert entry is not None and entry.value["number"] == 20

    within(WAIT, main)


def test_a_writer_that_is_killed_anywhere_leaves_whole_commits(file: Place) -> None:
    """What was acknowledged is there, at most one commit more, and never a part of one."""
    dice = random.Random(7)

    async def main() -> None:
        async with file.store() as store:
            for _ in range(8):
                process = file.start("number_all", keys=20)
                assert process.stdout is not None
                process.stdout.readline()
                await asyncio.sleep(dice.uniform(0, 0.05))  # any instant will do
                process.kill()
                acknowledged = int((process.communicate()[0].split() or ["0"])[-1])
                entries = (await store.list("n/")).entries
                assert len(entries) == 20
                [number] = {entry.value["number"] for entry in entries}
                assert isinstance(number, int)
                assert (acknowledged <= number and number - acknowledged <= 1) or acknowledged == 0
                assert len({entry.version for entry in entries}) == 1

    within(180, main)  # eight programs start, one after the other


@pytest.mark.parametrize("before", [True, False])
def test_a_writer_that_is_killed_around_its_commit(file: Place, before: bool) -> None:
    """Killed before it, nothing has changed and nothing stays locked; killed after it and before it could ring, the
    change is seen all the same."""

    async def main() -> None:
        async with file.store() as store:
            revision = (await store.list("")).revision
            async with aclosing(store.watch("", revision)) as watch:
                seen = asyncio.ensure_future(anext(watch))
                process = file.start("die", key="a", before=before)
                await asyncio.to_thread(process.communicate)
                assert process.returncode == -9
                if before:
                    assert await store.get("a") is None
                    await store.put("a", {"alive": True}, ABSENT)
                died = time.monotonic()
                changes = await seen
                assert time.monotonic() - died < LOOK_EVERY + SLACK
                assert changes.changes == (Change("a", {"alive": True} if before else {"died": "after"}),)

    within(WAIT, main)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each commit, whether it waits for the disk."""
    found: list[bool] = []
    finish = SqliteFile.finish

    def noted(self: SqliteFile) -> None:
        [(level,)] = self._db.execute("PRAGMA synchronous").fetchall()
        found.append(level == 2)
        finish(self)

    monkeypatch.setattr(SqliteFile, "finish", noted)
    return found


def test_only_commits_that_are_to_last_wait_for_the_disk(file: Place, synced: list[bool]) -> None:
    async def main() -> None:
        async with file.store() as store:
            version = ABSENT
            for lasting in (False, True, False, True):
                version = await settle(store, [Condition("a", version)], [Put("a", {})], WAIT, lasting=lasting)
            await store.put("a", {}, version)

    within(WAIT, main)
    assert synced == [False, True, False, True, True]


def test_an_acknowledgement_does_not_wait_for_the_disk(file: Place, synced: list[bool]) -> None:
    """At a switch writes wait for it; and it is worth nothing when its process has ended."""

    async def shut() -> None:
        raise AssertionError("nobody is shut out")

    async def main() -> None:
        async with file.store() as store:
            watch = MapWatch(file.config, build_snapshot(file.config), Handover(), lambda documents: None, shut)
            await watch._store_acknowledgement(store, "p", {"main": 7})
            [entry] = (await store.list(ACKNOWLEDGEMENTS)).entries
            assert Acknowledgement.read(entry.key, entry.value).epochs == {"main": 7}

    within(WAIT, main)
    assert synced == [False]


def test_bells_of_dead_watchers_are_removed(file: Place) -> None:
    bells = file.path.with_name("maps-watchers")

    async def main() -> None:
        async with file.store() as store:
            process = file.start("acknowledge", request="map", answer="ack")
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)
            version = await store.put("map", {"n": 0}, ABSENT)

            async def acknowledged() -> bool:
                return await store.get("ack") is not None

            await until(acknowledged)
            assert len(list(bells.iterdir())) == 1
            process.kill()
            process.communicate()
            await store.put("map", {"n": 1}, version)
            assert list(bells.iterdir()) == []

    within(WAIT, main)


class Disk:
    """A disk that is slow, or fails, at the next commits of this process; `failures` counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.mode = "slow"
        self.failures = 0
        finish = SqliteFile.finish

        def troubled(file: SqliteFile) -> None:
            if self.mode == "slow":
                self.go_on.wait()
            if self.mode != "failing":
                finish(file)
            if self.mode.startswith("failing"):
                self.failures += 1
                raise sqlite3.OperationalError("disk I/O error")

        async def has_failed() -> bool:
            return self.failures > 0

        self.has_failed = has_failed

        monkeypatch.setattr(SqliteFile, "finish", troubled)


def test_a_commit_that_does_not_end_is_of_unknown_outcome_and_may_come_later(
    file: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with file.store() as store:
            disk = Disk(monkeypatch)
            assert "read what is there" in await fails(store.put("a", {"n": 1}, ABSENT), StoreOutcomeUnknown)
            # What waits behind it was never begun: it is told so, and never comes.
            assert "nothing was changed" in await fails(store.put("b", {"n": 1}, ABSENT), StoreUnavailable)
            assert await store.get("a") is None
            disk.mode = "fine"
            disk.go_on.set()
            await store.put("c", {}, ABSENT)
            assert [entry.key for entry in (await store.list("")).entries] == ["a", "c"]

    within(WAIT, main)


@pytest.mark.parametrize("mode", ["failing", "failing after"])
def test_settle_finds_out_what_a_failed_commit_has_done(
    file: Place, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    async def main() -> None:
        async with file.store() as store:
            disk = Disk(monkeypatch)
            disk.mode = mode
            settling = asyncio.create_task(settle(store, [Condition("a", ABSENT)], [Put("a", {"by": "me"})], WAIT))
            await until(disk.has_failed)
            disk.mode = "fine"
            version = await settling
            assert await store.get("a") == Entry("a", {"by": "me"}, version)
            assert (await store.list("")).revision == version, "it was made once"

    within(WAIT, main)


def test_settle_does_not_take_another_writers_change_for_its_own(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with file.store() as store:
            version = await store.put("a", {"by": "nobody"}, ABSENT)
            disk = Disk(monkeypatch)
            disk.mode = "failing"
            settling = asyncio.create_task(settle(store, [Condition("a", version)], [Put("a", {"by": "me"})], WAIT))
            await until(disk.has_failed)
            other_file = sqlite3.connect(file.path, isolation_level=None)  # the disk is fine for others
            other_file.execute("BEGIN IMMEDIATE")
            other_file.execute("UPDATE store SET revision = revision + 1")
            other_file.execute('UPDATE entry SET version = version + 1, value = \'{"by":"other"}\'')
            other_file.execute("COMMIT")
            other_file.close()
            with pytest.raises(StoreOutcomeUnknown):
                await settling
            assert await store.get("a") == Entry("a", {"by": "other"}, version + 1)

    within(WAIT, main)


def test_settle_tells_plain_errors_as_they_are(file: Place) -> None:
    async def main() -> None:
        async with file.store() as store:
            await store.put("a", {}, ABSENT)
            with pytest.raises(StoreConflict):
                await settle(store, [Condition("a", ABSENT)], [Put("a", {"by": "me"})], WAIT)
            with pytest.raises(ValueError):
                await settle(store, [], [Put("a", {"by": "me"})], WAIT)
            other = sqlite3.connect(file.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            await fails(settle(store, [Condition("b", ABSENT)], [Put("b", {"by": "me"})], WAIT), StoreUnavailable)
            other.close()

    within(WAIT, main)
