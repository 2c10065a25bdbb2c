"""The proxy, in front of servers between which rows are on their way. A program of the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from shardproxy.app import supervisor
from shardproxy.cli.proxy import app
from shardproxy.config import Config
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot
from tests import moving


def _moving(config: Config) -> Snapshot:
    return moving.with_moves(build_snapshot(config), moving.read(Path(os.environ[moving.FILE])))


if __name__ == "__main__":
    vars(supervisor)["build_snapshot"] = _moving
    app()
