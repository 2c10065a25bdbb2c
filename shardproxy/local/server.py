"""One running MariaDB or MySQL server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pymysql

from shardproxy.errors import LocalError
from shardproxy.local.process import Process

HOST = "127.0.0.1"
ADMIN_USER = "root"
ADMIN_PASSWORD = "root"  # noqa: S105  loopback only, thrown away with the server
PROXY_USER = "shardproxy"
PROXY_PASSWORD = "shardproxy"  # noqa: S105


def plain(options: Mapping[str, object]) -> bool:
    """Whether pymysql's `options` want no TLS. It would read the machine's certificates for each connection: 40 ms."""
    return not any(name.startswith("ssl") for name in options)


class LocalServer:
    """A server on 127.0.0.1:`port`. `root` and `shardproxy` may do everything over TCP, but only `root` may
    write to a MariaDB replica.

    name      such as "shard1-primary", for messages
    command   argv of the server
    datadir   its data folder on this machine
    log       file for its error log
    mark      id of the cluster it belongs to
    """

    host = HOST
    admin_user = ADMIN_USER
    admin_password = ADMIN_PASSWORD

    def __init__(
        self, name: str, command: Sequence[str], *, port: int, datadir: Path, log: Path, mark: str = ""
    ) -> None:
        self.name = name
        self.process = Process(name, command, log=log, port=port, ready=self._lets_us_in, mark=mark)
        self.port = port
        self.datadir = datadir

    @property
    def pid(self) -> int:
        """Pid of the server; changes with `restart`."""
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.running

    @property
    def address(self) -> str:
        """host:port, as configuration files want it."""
        return f"{self.host}:{self.port}"

    @property
    def socket(self) -> str:
        """Path of the Unix socket on this machine."""
        return str(self.datadir / "server.sock")

    def connect(self, database: str | None = None, **options: Any) -> Any:
        """A new pymysql connection: as root, with autocommit, without TLS unless pymysql's `options` say otherwise."""
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.admin_user,
            "password": self.admin_password,
            "database": database,
            "autocommit": True,
            "charset": "utf8mb4",
            "connect_timeout": 10,
            "ssl_disabled": plain(options),
        }
        return pymysql.connect(**{**settings, **options})

    def rows(
        self, sql: str, parameters: tuple[Any, ...] | None = None, database: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement as root on a connection of its own; gives its rows ([] if it has none)."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and wait until it accepts logins. Raises LocalError."""
        self.process.start(timeout)

    def stop(self) -> None:
        """Shut the server down in order."""
        self.process.stop()

    def kill(self) -> None:
        """End the server as a power cut of the process would (SIGKILL); returns when it is gone."""
        self.process.kill()

    def restart(self, timeout: float = 60.0) -> None:
        """Shut down if it runs, then start on the same port and data."""
        self.process.stop()
        self.process.start(timeout)

    def _lets_us_in(self) -> bool:
        """Ready condition: root can log in, and it is this very server that answers on the port."""
        try:
            [(datadir,)] = self.rows("SELECT @@datadir")
        except pymysql.err.OperationalError as error:
            if error.args[0] == 1045:  # a stranger on our port: waiting does not help
                raise LocalError(f"{self.name}: port {self.port} answers {error.args[1]!r}") from error
            return False
        # A chrooted server names the end of the path only.
        return str(self.datadir).endswith(str(datadir).rstrip("/"))
