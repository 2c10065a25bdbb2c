"""`python -m shardproxy.local.demo`: cluster, data, proxy, tour; then up until Ctrl-C.

Rules of this file: whatever happens (an error, Ctrl-C at any moment, SIGTERM, the terminal gone), nothing is left
behind. The first signal raises `Ended`; from then on signals are ignored, for what follows is cleaning up.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType

import pymysql

from shardproxy.admin import migrations
from shardproxy.backend.control import Credentials
from shardproxy.config import load as load_config
from shardproxy.errors import LocalError, ShardproxyError
from shardproxy.local.cluster import ConfigFile, LocalCluster
from shardproxy.local.demo.sample import BORDER, KEYSPACE, KEYSPACE_TOML, load, total_rows
from shardproxy.local.demo.screen import Screen
from shardproxy.local.demo.tour import PASSWORD, USER, Visitor, show_explain, stops, walk
from shardproxy.local.process import Process
from shardproxy.topology.build import build_snapshot

WORKERS = 2
DRAIN = 3  # seconds that the demo's clients get at its end
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL = 0.1


class Ended(BaseException):
    """A signal asks for the end. Not an Exception: nothing on the way may take it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: list[str]) -> int:
    """Run the demo. Returns the exit status: 0; 1 after a failure; 128 + signal when ended before it was up."""
    parser = argparse.ArgumentParser(
        prog="./dev demo",
        description="Start a local cluster with sample data and the proxy, and walk through what it does.",
    )
    parser.add_argument("--once", action="store_true", help="end after the tour instead of staying up until Ctrl-C")
    once = parser.parse_args(arguments).once
    demo = Demo(Screen())
    for number in _SIGNALS:
        signal.signal(number, _end)
    try:
        try:
            demo.run(once)
        finally:
            _ignore_signals()
            demo.clean()
    except Ended as ended:
        return 0 if demo.up else 128 + ended.number
    except (ShardproxyError, pymysql.err.MySQLError, OSError) as error:
        demo.screen.complain(f"demo failed: {error}")
        return 1
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    _ignore_signals()
    raise Ended(number)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Demo:
    """up: the tour is over and everything runs; a signal is then the regular end."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.up = False
        self._cluster = LocalCluster("mariadb", shards=2, replicas=1)
        self._proxy: Process | None = None

    def run(self, once: bool) -> None:
        """Everything up to the end of the tour, and unless `once` the waiting. Raises LocalError, pymysql's errors."""
        screen, cluster = self.screen, self._cluster
        with screen.work("start two MariaDB shards, a primary and a replica each") as say:
            cluster.start()
            say(", ".join(f"{server.name} on {server.port}" for server in cluster.servers))
        with screen.counting("load users, orders and countries", total_rows()) as count:
            load(cluster, count)
        config = cluster.config_toml(
            KEYSPACE_TOML,
            proxy={"workers": WORKERS, "drain_timeout": f"{DRAIN}s", "log_format": "text"},
            users={USER: {"password": PASSWORD, "default_keyspace": KEYSPACE}},
        )
        with screen.work("create the schema _shardproxy (shardctl migrate)"):
            _migrate(config)
        with screen.work(f"start the proxy with {WORKERS} workers") as say:
            self._start_proxy(config)
            say(f"MySQL protocol on {config.mysql_port}, admin HTTP on {config.admin_port}")
        screen.line(f"  users 1 to {BORDER - 1} and their orders are on shard1, all others on shard2")
        with closing(Visitor(config.mysql_port, config.admin_port)) as visitor:
            tour = stops(cluster)
            walk(screen, visitor, tour)
            screen.heading(f"{len(tour) + 1}. Explain: where a statement would go, without running it")
            sql = "SELECT u.name, o.total FROM users u JOIN orders o USING (uid) WHERE u.uid = 42"
            show_explain(screen, visitor, sql, f'{_shardctl("explain", config)} "{sql}"')
        if not once:
            self.up = True
            self._invite(config)
            self._wait()

    def _start_proxy(self, config: ConfigFile) -> None:
        command = [sys.executable, "-m", "shardproxy.cli.proxy", "run", "--config", str(config.path)]
        self._proxy = self._cluster.program("shardproxy", command, ready=lambda: _all_ready(config.admin_port))
        self._proxy.start()

    def _invite(self, config: ConfigFile) -> None:
        """How to try things out."""
        client = "mysql" if shutil.which("mysql") else "mariadb"
        admin = f"http://127.0.0.1:{config.admin_port}"
        self.screen.heading("It is yours now")
        for what, command in (
            ("connect (--comments keeps hints such as /*shardproxy: primary*/)",
             f"{client} -h 127.0.0.1 -P {config.mysql_port} -u {USER} -p{PASSWORD} --comments {KEYSPACE}"),
            ("how the proxy and its servers are", _shardctl("status", config)),
            ("which keys live where", _shardctl("topology", config)),
            ("metrics for Prometheus", f"curl -s {admin}/metrics"),
            ("ready for clients?", f"curl -s {admin}/readyz"),
            ("the proxy's log", f"tail -f {shlex.quote(str(config.path.with_name('shardproxy.log')))}"),
        ):  # fmt: skip
            self.screen.note(what)
            self.screen.line(f"  {command}")
        self.screen.line()
        self.screen.line("Ctrl-C ends all of it and removes its files.")

    def _wait(self) -> None:
        """Stay until a signal raises Ended. Raises LocalError when the proxy or a server ends by itself."""
        programs = [self._proxy, *(server.process for server in self._cluster.servers)]
        while True:
            for program in programs:
                if program is not None and not program.running:
                    log = program.log_tail()
                    raise LocalError(f"{program.name} has ended by itself; last lines of its log:\n{log}")
            time.sleep(_POLL)

    def clean(self) -> None:
        """End all processes and remove all files. Never raises for a terminal that is gone."""
        with suppress(OSError):
            self.screen.line()
            self.screen.line("ending the proxy and the servers, removing their files …")
        if self._proxy is not None:
            self._proxy.stop(grace=DRAIN + 2)
        self._cluster.stop()


def _all_ready(admin_port: int) -> bool:
    """Whether the proxy takes clients and has seen every replica replicate."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        response.read()
        if response.status != http.HTTPStatus.OK:
            return False
        connection.request("GET", "/api/status")
        status = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return all(s["up"] and (s["role"] == "primary" or s["lag_s"] is not None) for s in status["servers"])


def _migrate(config: ConfigFile) -> None:
    settings = load_config(config.path, os.environ)
    files = migrations.read_migrations(migrations.migrations_folder())
    reports = asyncio.run(migrations.migrate(build_snapshot(settings), Credentials.of(settings), 30, files))
    failed = next((report.error for report in reports if report.error is not None), None)
    if failed is not None:
        raise LocalError(failed)


def _shardctl(command: str, config: ConfigFile) -> str:
    """The shell's words for a shardctl command about this proxy."""
    installed, here = Path(sys.executable).with_name("shardctl"), Path.cwd()
    program = str(installed.relative_to(here) if installed.is_relative_to(here) else installed)
    if not installed.exists():
        program = "shardctl"
    return f"{shlex.quote(program)} {command} --config {shlex.quote(str(config.path))}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
