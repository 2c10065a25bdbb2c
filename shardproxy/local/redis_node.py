"""One running Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardproxy.local.process import Process


class RedisNode:
    """A Redis server on 127.0.0.1:`port` that keeps nothing on disk, unless `options` say so.

    command: argv of another program than Redis; directory: its working one, as it sees it, in place of `folder`;
    options: more of its own, such as "--tls-port", "6380".
    """

    host = "127.0.0.1"

    def __init__(
        self,
        name: str,
        folder: Path,
        port: int,
        mark: str,
        command: Sequence[str] = ("redis-server",),
        directory: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        self.process = Process(
            name,
            [
                *command,
                *("--port", str(port), "--bind", self.host, "--dir", directory or str(folder)),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                # Its changed title would overwrite the environment, where the mark is.
                *("--set-proc-title", "no"),
                *options,
            ],
            log=folder / "redis.log",
            port=port,
            mark=mark,
            hint="apt-get install redis-server",
        )

    @property
    def pid(self) -> int:
        """Pid of the server; changes with `restart`."""
        return self.process.pid

    @property
    def address(self) -> str:
        """host:port, as configuration files want it."""
        return f"{self.host}:{self.port}"

    def connect(self, **options: Any) -> Any:
        """A new redis-py client; `options` are redis.Redis's."""
        import redis  # a development dependency: only who asks for a client needs it

        return redis.Redis(host=self.host, port=self.port, **options)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()

    def stop(self) -> None:
        """Shut down in order."""
        self.process.stop()

    def restart(self, timeout: float = 30.0) -> None:
        """Shut down if it runs, then start on the same port, with what is on disk."""
        self.process.stop()
        self.process.start(timeout)
