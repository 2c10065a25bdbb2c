"""The proxy, in front of servers between which rows are on their way. A program of the tests: it serves by the maps of
its store, as ever, and by the moves that it is told of beside."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from shardproxy.app import supervisor
from shardproxy.cli.proxy import app
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.model import Snapshot
from tests import moving

_with_stored = vars(supervisor)["with_stored"]


def _moving(snapshot: Snapshot, documents: Mapping[str, MapDocument]) -> Snapshot:
    return moving.with_moves(_with_stored(snapshot, documents), moving.read(Path(os.environ[moving.FILE])))


if __name__ == "__main__":
    vars(supervisor)["with_stored"] = _moving
    app()
