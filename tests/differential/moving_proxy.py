"""The proxy, in front of servers between which rows are on their way. A program of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from shardproxy.app import supervisor
from shardproxy.cli.proxy import app
from shardproxy.config import Config
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot
from tests.differential.moves import from_environment


def _moving(config: Config) -> Snapshot:
    return from_environment(build_snapshot(config))


if __name__ == "__main__":
    vars(supervisor)["build_snapshot"] = _moving
    app()
