"""What differs between MariaDB and MySQL: programs, options, replication statements.

A `Flavor` is chosen once per cluster; everything else in this package asks it and never tests a name.
"""

from __future__ import annotations

import functools
import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from shardproxy.errors import LocalError
from shardproxy.local.folders import cache_folder
from shardproxy.local.mysql_tree import ensure_tree, in_tree, inside, tree_unavailable, tree_version
from shardproxy.local.process import find_program, missing_program

FlavorName = Literal["mariadb", "mysql"]

_INSTALL_MARIADB = "apt-get install mariadb-server"

# Small and quick, yet safe against the death of the *process*: the log reaches the kernel at each commit (2), it is
# only not forced to the disk. With 0 a kill -9 would lose commits, and tests that kill servers would blame the proxy.
_COMMON_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--socket=server.sock",  # relative to the data folder: absolute paths may exceed the 107 bytes of a socket address
    "--pid-file=server.pid",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-method=fsync",
    "--max-connections=1000",
    "--max-allowed-packet=1G",
    "--log-bin=binlog",
    "--binlog-format=ROW",
    "--binlog-row-image=FULL",
    "--binlog-row-metadata=FULL",
    "--character-set-server=utf8mb4",
    "--local-infile=ON",
)


# MySQL shows lock waits in its performance_schema only. With nothing else in it that takes 15 MiB, not 250.
_LOCK_WAITS_ONLY = (
    "--performance-schema=ON",
    "--performance-schema-instrument=%=OFF",
    *(
        f"--performance-schema-{what}=0"
        for what in (
            "digests-size", "max-digest-length", "max-sql-text-length", "session-connect-attrs-size", "error-size",
            "events-statements-history-long-size", "events-statements-history-size", "events-waits-history-long-size",
            "events-stages-history-long-size", "events-transactions-history-long-size", "max-memory-classes",
            "max-statement-classes", "max-mutex-classes", "max-rwlock-classes", "max-cond-classes",
            "max-file-classes", "max-stage-classes",
        )
    ),
)  # fmt: skip


class Flavor(ABC):
    """One kind of server. `home` is the folder under which its data folders must lie."""

    name: FlavorName
    home: Path

    @property
    @abstractmethod
    def version(self) -> str:
        """The server program's version; names the template of a data folder."""

    @abstractmethod
    def seen(self, path: Path) -> str:
        """How the server sees the file `path`."""

    @abstractmethod
    def install_command(self, datadir: Path) -> list[str]:
        """argv that fills the missing folder `datadir` with an empty server."""

    @abstractmethod
    def bare_command(self, datadir: Path, port: int) -> list[str]:
        """argv of a server without binary log on a freshly installed data folder, to create its accounts."""

    @abstractmethod
    def server_command(self, datadir: Path, port: int, server_id: int, domain: int, replica: bool) -> list[str]:
        """argv of a server of a cluster. `domain` numbers its shard (MariaDB's GTID domain)."""

    @abstractmethod
    def respect_read_only(self) -> list[str]:
        """Statements with one parameter (user) after which an account with all privileges obeys read_only."""

    @abstractmethod
    def follow(self, port: int, user: str, password: str) -> list[str]:
        """Statements that make a server replicate from the primary on `port`, from the beginning, by GTID."""

    @abstractmethod
    def position(self) -> str:
        """Query for the GTIDs that a primary has written."""

    @abstractmethod
    def wait_for(self) -> str:
        """Query with two parameters (GTIDs, seconds) that waits on a replica; gives 0 when it has applied them."""


class MariaDB(Flavor):
    """Debian's mariadbd, run in place."""

    name: FlavorName = "mariadb"

    def __init__(self) -> None:
        self.home = cache_folder()
        self._program = find_program("mariadbd", _INSTALL_MARIADB)

    @functools.cached_property
    def version(self) -> str:
        command = [self._program, "--no-defaults", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or " Ver " not in done.stdout:
            raise LocalError(f"mariadbd --version ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout.partition(" Ver ")[2].split()[0]

    def seen(self, path: Path) -> str:
        return str(path)

    def install_command(self, datadir: Path) -> list[str]:
        return [
            find_program("mariadb-install-db", _INSTALL_MARIADB),
            "--no-defaults",
            f"--datadir={datadir}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=16M",
            *self._as_root(),
        ]

    def bare_command(self, datadir: Path, port: int) -> list[str]:
        return [
            self._program,
            "--no-defaults",
            f"--datadir={datadir}",
            f"--tmpdir={datadir}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--socket=server.sock",
            "--skip-log-bin",
            "--innodb-log-file-size=16M",
            *self._as_root(),
        ]

    def server_command(self, datadir: Path, port: int, server_id: int, domain: int, replica: bool) -> list[str]:
        return [
            self._program,
            "--no-defaults",
            f"--datadir={datadir}",
            f"--tmpdir={datadir}",  # a server that starts deletes what others have in a folder for all
            f"--port={port}",
            f"--server-id={server_id}",
            f"--gtid-domain-id={domain}",
            "--gtid-strict-mode=ON",
            "--log-slave-updates=ON",
            "--innodb-log-file-size=16M",
            "--slave-net-timeout=10",
            "--performance-schema=OFF",
            *_COMMON_OPTIONS,
            *self._as_root(),
            *(["--read-only=ON"] if replica else []),
        ]

    def follow(self, port: int, user: str, password: str) -> list[str]:
        return [
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{user}', "
            f"MASTER_PASSWORD='{password}', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
            "START REPLICA",
        ]

    def respect_read_only(self) -> list[str]:
        return ["REVOKE READ_ONLY ADMIN ON *.* FROM %s@'%%'"]

    def position(self) -> str:
        return "SELECT @@gtid_binlog_pos"

    def wait_for(self) -> str:
        return "SELECT MASTER_GTID_WAIT(%s, %s)"

    def _as_root(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


class MySQL(Flavor):
    """MySQL 9.x from Debian unstable, run by chroot in its tree."""

    name: FlavorName = "mysql"

    def __init__(self) -> None:
        self._tree = ensure_tree()
        self.home = self._tree / "srv/shardproxy"  # the chroot sees nothing else

    @property
    def version(self) -> str:
        return tree_version(self._tree)

    def seen(self, path: Path) -> str:
        return inside(self._tree, path)

    def install_command(self, datadir: Path) -> list[str]:
        return self._mysqld(datadir, "--initialize-insecure", "--innodb-redo-log-capacity=64M")

    def bare_command(self, datadir: Path, port: int) -> list[str]:
        return self._mysqld(
            datadir,
            f"--tmpdir={self.seen(datadir)}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--socket=server.sock",
            "--pid-file=server.pid",
            "--skip-log-bin",
            "--innodb-redo-log-capacity=16M",
        )

    def server_command(self, datadir: Path, port: int, server_id: int, domain: int, replica: bool) -> list[str]:
        return self._mysqld(
            datadir,
            f"--tmpdir={self.seen(datadir)}",
            f"--port={port}",
            f"--server-id={server_id}",
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--log-replica-updates=ON",
            "--innodb-redo-log-capacity=16M",
            "--replica-net-timeout=10",
            *_LOCK_WAITS_ONLY,
            *_COMMON_OPTIONS,
            *(["--super-read-only=ON"] if replica else []),
        )

    def follow(self, port: int, user: str, password: str) -> list[str]:
        return [
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='{user}', "
            f"SOURCE_PASSWORD='{password}', SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, "
            "SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            "START REPLICA",
        ]

    def respect_read_only(self) -> list[str]:
        return []  # super_read_only holds for everybody

    def position(self) -> str:
        return "SELECT @@global.gtid_executed"

    def wait_for(self) -> str:
        return "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)"

    def _mysqld(self, datadir: Path, *options: str) -> list[str]:
        fixed = ["--no-defaults", "--user=root", f"--datadir={self.seen(datadir)}", "--secure-file-priv="]
        return in_tree(self._tree, "mysqld", *fixed, "--mysqlx=OFF", *options)


def flavor_named(name: FlavorName) -> Flavor:
    """The flavour `name`. Raises LocalError when its programs are missing; builds the MySQL tree when it has to."""
    if name == "mariadb":
        return MariaDB()
    if name == "mysql":
        return MySQL()
    raise ValueError(f'flavor must be "mariadb" or "mysql", not {name!r}')


def unavailable(name: FlavorName) -> str | None:
    """Why servers of the flavour cannot run on this machine, with what to do about it; None when they can."""
    if name == "mysql":
        return tree_unavailable()
    return missing_program("mariadbd", _INSTALL_MARIADB)
