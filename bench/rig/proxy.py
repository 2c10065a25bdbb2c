"""Starting shardproxy itself, as an operator would, and asking it how it is."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardproxy.admin.migrations import migrate, migrations_folder, read_migrations
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalError, Process
from shardproxy.local.proxy_environment import is_ready, proxy_environment
from shardproxy.topology.build import build_snapshot

USER, PASSWORD = "bench", "bench"


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A shardproxy that serves. Its supervisor is `process`; it ends with the cluster."""

    process: Process
    mysql_port: int
    admin_port: int
    config: Path

    def status(self) -> dict[str, Any]:
        """What `shardctl status --json` shows."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/api/status", timeout=5) as answer:
            shown: dict[str, Any] = json.load(answer)
        return shown

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]


def start_proxy(
    cluster: LocalCluster,
    keyspaces: str,
    *,
    workers: int,
    python: str = sys.executable,
    proxy: Mapping[str, str | int] | None = None,
    backend: Mapping[str, str | int] | None = None,
    name: str = "shardproxy",
    package: Path | None = None,
    extra: str = "",
) -> RunningProxy:
    """Start the proxy for the cluster under the interpreter `python`, and wait until it is ready.

    keyspaces: TOML text; proxy, backend: further entries of those tables. name: of the process, its configuration and
    its log, for a second one. package: folder to import shardproxy from in place of the present one. extra:
    more TOML text. Raises LocalError.
    """
    config = cluster.config_toml(
        keyspaces,
        proxy={"workers": workers, "log_level": "warning", **(proxy or {})},
        backend=backend,
        users={USER: {"password": PASSWORD}},
        name=f"{name}.toml",
        extra=extra,
    )
    _migrate(config.path)

    command = [python, "-m", "shardproxy.cli.proxy", "run", "--config", str(config.path)]
    environment = proxy_environment()
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    process = cluster.program(name, command, ready=lambda: is_ready(config.admin_port), environment=environment)
    process.start()
    return RunningProxy(process, config.mysql_port, config.admin_port, config.path)


def _migrate(config: Path) -> None:
    """What an operator does first: `shardctl migrate`."""
    settings = load(config, {})
    files = read_migrations(migrations_folder())
    for report in asyncio.run(migrate(build_snapshot(settings), Credentials.of(settings), 30.0, files)):
        if report.error:
            raise LocalError(f"migrations on {report.shard}: {report.error}")
