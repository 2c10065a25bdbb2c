"""What goes wrong while rows move. Each nemesis strikes at once, and heals by itself, when it is told, or in `calm`."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import pymysql

from tests.proxy import ProxyUnderTest, eventually
from tests.torture.moving_scene import Scene
from tests.torture.traffic import SHARDS


class Nemeses:
    """`strike` one by its name (deal.py). `disturbed(since)`: whether one was at work at any time since then.

    longest: seconds that a stopped proxy stays away at most. One that is away for more than ten counts no more as
    living, and is shut out before writes are held. concerned: numbers of the shards that take part in the move; they
    are struck more often.
    """

    def __init__(self, scene: Scene, dice: random.Random, longest: float = 5.0) -> None:
        self.concerned: Sequence[int] = ()
        self._scene, self._dice, self._longest = scene, dice, longest
        self._healing: list[threading.Thread] = []
        self._stopped: set[int] = set()
        self._frozen: int | None = None  # the proxy that goes on when it is told
        self.freezing = ""  # how it was stopped, by name; "" when none is
        self._last = 0.0  # when the last one had healed

    def strike(self, name: str) -> str:
        """What it did, in words."""
        match name:
            case "proxy stopped":
                said = self._stop_proxy()
            case "store cut off":
                said = self._cut_store()
            case "dumps killed":
                said = self._kill_dumps()
            case "shard killed":
                said = self._kill_shard()
            case "binlogs rotated":
                said = self._rotate()
            case "proxy frozen" | "first process frozen":
                said = self._freeze(name == "proxy frozen")
                self.freezing = name
            case "it goes on":
                said = self._thaw()
            case _:
                raise ValueError(name)
        self._last = time.monotonic()
        return said

    def disturbed(self, since: float) -> bool:
        if self._frozen is not None or any(thread.is_alive() for thread in self._healing):
            return True
        return self._last > since

    def calm(self) -> None:
        """Wait until all is healed."""
        if self._frozen is not None:
            self._thaw()
        for thread in self._healing:
            thread.join(60)
            assert not thread.is_alive()
        self._healing.clear()

    def _later(self, heal: Callable[[], None], seconds: float = 0.0) -> None:
        def run() -> None:
            time.sleep(seconds)  # how long the fault lasts
            heal()
            self._last = time.monotonic()

        self._healing.append(threading.Thread(target=run))
        self._healing[-1].start()

    # ── the kinds ──

    def _stop_proxy(self) -> str:
        """SIGSTOP of a whole proxy, or of its first process alone: its workers go on under the map they have. It comes
        back soon, or so late that it has been shut out."""
        number, whole = self._running(), self._dice.random() < 0.5
        seconds = self._dice.choice((0.3, 1.0, self._longest))
        stop(self._scene.proxies[number], whole)
        self._stopped.add(number)

        def back() -> None:
            go_on(self._scene.proxies[number])
            self._stopped.discard(number)

        self._later(back, seconds)
        return f"proxy{number + 1}, {'workers too, ' if whole else ''}{seconds:g} s"

    def _running(self) -> int:
        """A proxy that is not stopped; when all are, one that goes on soon."""
        numbers = range(len(self._scene.proxies))
        return self._dice.choice([n for n in numbers if n not in self._stopped and n != self._frozen] or numbers)

    def _freeze(self, whole: bool) -> str:
        number = self._frozen = self._running()
        stop(self._scene.proxies[number], whole)
        return f"proxy{number + 1}"

    def _thaw(self) -> str:
        number, self._frozen, self.freezing = self._frozen, None, ""
        assert number is not None
        go_on(self._scene.proxies[number])
        return f"proxy{number + 1}"

    def _cut_store(self) -> str:
        """The etcd is stopped, or somebody holds the file's lock, for a while."""
        seconds = self._dice.choice((0.3, 1.0, 3.0))
        etcd = self._scene.etcd
        if etcd is not None:
            member = etcd.members[0].process
            member.suspend()
            self._later(member.resume, seconds)
            return f"{seconds:g} s"
        locked = threading.Event()

        def hold() -> None:
            with closing(sqlite3.connect(self._scene.store_file, timeout=10, isolation_level=None)) as file:
                file.execute("BEGIN EXCLUSIVE")
                locked.set()
                time.sleep(seconds)  # how long the fault lasts
                file.execute("ROLLBACK")

        self._later(hold)
        assert locked.wait(15)
        return f"{seconds:g} s"

    def _kill_dumps(self) -> str:
        """The connections over which binlogs are read end."""
        killed = 0
        for shard in range(SHARDS):
            with suppress(pymysql.MySQLError):  # it may be down
                for (ident,) in self._scene.on_shard(
                    shard, "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
                ):
                    with suppress(pymysql.MySQLError):  # it has ended by itself
                        self._scene.on_shard(shard, f"KILL {ident}")
                        killed += 1
        return f"{killed} of them"

    def _kill_shard(self) -> str:
        """kill -9 of a server, which starts again."""
        shards = self.concerned if self.concerned and self._dice.random() < 0.7 else range(SHARDS)
        number = self._dice.choice(shards)
        server = self._scene.cluster.shards[number].primary
        if not server.running:
            return f"shard{number + 1} is down already"
        server.kill()
        self._later(server.start)
        return f"shard{number + 1}"

    def _rotate(self) -> str:
        for shard in range(SHARDS):
            with suppress(pymysql.MySQLError):
                self._scene.on_shard(shard, "FLUSH BINARY LOGS")
        return "on all shards that are up"


# ── what no move survives ──


def change_table(scene: Scene, shards: Sequence[int]) -> None:
    """DDL behind the proxies."""
    for shard in shards:
        scene.on_shard(shard, "ALTER TABLE entry ADD COLUMN more INT")


def change_back(scene: Scene, shards: Sequence[int]) -> None:
    for shard in shards:
        scene.on_shard(shard, "ALTER TABLE entry DROP COLUMN more")


def purge(scene: Scene, shards: Sequence[int]) -> None:
    """The binlogs up to now are lost."""
    for shard in shards:

        def only_one(shard: int = shard) -> bool:
            scene.on_shard(shard, "FLUSH BINARY LOGS")
            newest = scene.on_shard(shard, "SHOW BINARY LOGS")[-1][0]
            scene.on_shard(shard, f"PURGE BINARY LOGS TO '{newest}'")  # not those that somebody still reads
            return len(scene.on_shard(shard, "SHOW BINARY LOGS")) == 1

        eventually(only_one, "older binlogs are gone", 30)


def stop(proxy: ProxyUnderTest, whole: bool) -> None:
    """whole: the workers too."""
    if whole:
        os.killpg(proxy.process.pid, signal.SIGSTOP)
    else:
        proxy.process.suspend()


def go_on(proxy: ProxyUnderTest) -> None:
    os.killpg(proxy.process.pid, signal.SIGCONT)
