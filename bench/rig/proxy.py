"""Starting shardproxy itself, as an operator would, and asking it how it is."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardproxy.local import LocalCluster, Process
from shardproxy.local.proxy_environment import proxy_environment

USER, PASSWORD = "bench", "bench"


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A shardproxy that serves. Its supervisor is `process`; it ends with the cluster."""

    process: Process
    mysql_port: int
    admin_port: int

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
) -> RunningProxy:
    """Start the proxy for the cluster under the interpreter `python`, and wait until it is ready.

    keyspaces: TOML text; proxy, backend: further entries of those tables. Raises LocalError.
    """
    config = cluster.config_toml(
        keyspaces,
        proxy={"workers": workers, "log_level": "warning", **(proxy or {})},
        backend=backend,
        users={USER: {"password": PASSWORD}},
    )

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{config.admin_port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    command = [python, "-m", "shardproxy.cli.proxy", "run", "--config", str(config.path)]
    process = cluster.program("shardproxy", command, ready=ready, environment=proxy_environment())
    process.start()
    return RunningProxy(process, config.mysql_port, config.admin_port)
