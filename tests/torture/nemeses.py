"""What goes wrong while rows move. Each nemesis strikes at once, and heals by itself or in `calm`."""

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
    """`strike` one by name. `disturbed(since)`: whether one was at work at any time since then."""

    def __init__(self, scene: Scene, dice: random.Random) -> None:
        self._scene, self._dice = scene, dice
        self._healing: list[threading.Thread] = []
        self._frozen: set[int] = set()
        self._last = 0.0  # when the last one had healed
        self.struck: list[str] = []
        self.kinds: dict[str, Callable[[], None]] = {
            "proxy stopped": self.stop_proxy,
            "store cut off": self.cut_store,
            "dumps killed": self.kill_dumps,
            "shard killed": self.kill_shard,
            "binlogs rotated": self.rotate,
        }

    def strike(self, name: str) -> None:
        self.struck.append(name)
        self.kinds[name]()
        self._last = time.monotonic()

    def disturbed(self, since: float) -> bool:
        return self._last > since or any(thread.is_alive() for thread in self._healing)

    def calm(self) -> None:
        """Wait until all is healed."""
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

    def stop_proxy(self) -> None:
        """SIGSTOP of a whole proxy, or of its first process alone: its workers go on under the map they have. It comes
        back soon, or so late that it has been shut out."""
        number = self._dice.randrange(len(self._scene.proxies))
        if number in self._frozen:
            return
        stop(self._scene.proxies[number], self._dice.random() < 0.5)
        self._frozen.add(number)

        def back() -> None:
            go_on(self._scene.proxies[number])
            self._frozen.discard(number)

        self._later(back, self._dice.choice((0.3, 1.0, 5.0)))

    def cut_store(self) -> None:
        """The etcd is stopped, or somebody holds the file's lock, for a while."""
        seconds = self._dice.choice((0.3, 1.0, 3.0))
        etcd = self._scene.etcd
        if etcd is not None:
            member = etcd.members[0].process
            member.suspend()
            self._later(member.resume, seconds)
            return
        locked = threading.Event()

        def hold() -> None:
            with closing(sqlite3.connect(self._scene.store_file, timeout=10, isolation_level=None)) as file:
                file.execute("BEGIN EXCLUSIVE")
                locked.set()
                time.sleep(seconds)  # how long the fault lasts
                file.execute("ROLLBACK")

        self._later(hold)
        locked.wait(10)

    def kill_dumps(self) -> None:
        """The connections over which binlogs are read end."""
        for shard in range(SHARDS):
            with suppress(pymysql.MySQLError):  # it may be down
                for (ident,) in self._scene.on_shard(
                    shard, "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
                ):
                    with suppress(pymysql.MySQLError):  # it has ended by itself
                        self._scene.on_shard(shard, f"KILL {ident}")

    def kill_shard(self) -> None:
        """kill -9 of a server, which starts again."""
        server = self._scene.cluster.shards[self._dice.randrange(SHARDS)].primary
        if not server.running:
            return
        server.kill()
        self._later(server.start)

    def rotate(self) -> None:
        for shard in range(SHARDS):
            with suppress(pymysql.MySQLError):
                self._scene.on_shard(shard, "FLUSH BINARY LOGS")


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
