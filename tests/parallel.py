"""A whole run by several processes, for `./dev test` and `pytest -n`: how pytest-xdist hands tests out.

A unit of work is a file's tests on one kind of server. The long ones come first and the small ones last, so that no
process ends long before the others; a process goes on with the kind of server that it has running. What measures time,
or counts what runs on the machine, is marked `alone`: it runs last, when all other processes have ended.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

ALONE = "alone"  # the unit of all tests with this mark
# Where each process writes which tests have it: the one that hands the tests out collects none itself.
_FOLDER: pytest.StashKey[tempfile.TemporaryDirectory[str]] = pytest.StashKey()
_LIST = "shardproxy_alone"
_FLAVOR = re.compile(r"[\[-](mariadb|mysql)(?=[-\]])")
# The units that take longest, by the beginning of their names; whatever is not here comes after them in its own order.
_LONG = (
    "tests/differential/test_differential.py",
    "tests/torture/",
    "tests/reshard/",
    "tests/rebalance/",
    "tests/differential/",
    "tests/tpc",
    "tests/integration/",
    "tests/plans/",
)
_PORTS = (20_000, 32_000)


def ports_of(worker: str, processes: int) -> str:
    """The ports of a process ("gw0", "gw1", …) for SHARDPROXY_PORTS: no other process takes one that is free for a
    moment while a server starts anew."""
    first, last = _PORTS
    each = (last - first) // processes
    begin = first + int(worker.removeprefix("gw")) % processes * each
    return f"{begin}-{begin + each - 1}"


def is_one_of_several(config: pytest.Config) -> bool:
    """Whether this process runs what another one hands out and reports."""
    return hasattr(config, "workerinput")


def configure_process(config: pytest.Config) -> None:
    """To be called first in each process: a share of the ports for those of several."""
    told = getattr(config, "workerinput", None)
    if told is not None:
        os.environ["SHARDPROXY_PORTS"] = ports_of(told["workerid"], told["workercount"])


def configure_node(node: WorkerController) -> None:
    """To be called for each process before it starts."""
    stash = node.config.stash
    if _FOLDER not in stash:
        stash[_FOLDER] = tempfile.TemporaryDirectory(prefix="shardproxy-tests-")
    node.workerinput[_LIST] = stash[_FOLDER].name


def tell_alone(config: pytest.Config, items: list[pytest.Item]) -> None:
    """To be called in each process when it has collected its tests."""
    told = getattr(config, "workerinput", {})
    if _LIST in told:
        alone = [item.nodeid for item in items if item.get_closest_marker(ALONE) is not None]
        (Path(told[_LIST]) / told["workerid"]).write_text("\n".join(alone))


def unit_of(test: str) -> str:
    """The unit of a test that may run beside others: its file, and the kind of server if its name says one."""
    file, _, rest = test.partition("::")
    found = _FLAVOR.search(rest)
    return f"{file}::{found[1]}" if found else file


def flavor_of(unit: str) -> str:
    """ "mariadb", "mysql", or "" for a unit without servers of one kind."""
    return unit.partition("::")[2]


def weight(unit: str) -> int:
    """The smaller the earlier."""
    if unit == ALONE:
        return len(_LONG) + 1
    return next((place for place, begin in enumerate(_LONG) if unit.startswith(begin)), len(_LONG))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Hands out units."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._alone: set[str] = set()

    def schedule(self) -> None:
        """All processes have collected their tests."""
        for file in Path(self.config.stash[_FOLDER].name).iterdir():
            self._alone.update(file.read_text().splitlines())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return ALONE if nodeid in self._alone else unit_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        unit = next_unit(list(self.workqueue), list(self.assigned_work.get(node, ())))
        if unit == ALONE and len(self.nodes) > 1:
            self._end_but_one(node)
            return
        self.workqueue.move_to_end(unit, last=False)
        super()._assign_work_unit(node)

    def _end_but_one(self, node: WorkerController) -> None:
        """Only what runs alone is left: a process ends with its last tests, unless it is the last one."""
        if sum(not other.shutting_down for other in self.nodes) > 1:
            node.shutdown()

    def remove_node(self, node: WorkerController) -> str | None:
        """A process has ended: the last one may go on with what runs alone."""
        crashed: str | None = super().remove_node(node)
        if self.workqueue:
            for other in self.nodes:
                self._reschedule(other)
        return crashed


def next_unit(waiting: list[str], had: list[str]) -> str:
    """Which of the units a process gets that had those. waiting: at least one."""
    flavor = next((flavor_of(unit) for unit in reversed(had) if flavor_of(unit)), "")
    first = min(weight(unit) for unit in waiting)
    heaviest = [unit for unit in waiting if weight(unit) == first]
    return next((unit for unit in heaviest if flavor_of(unit) == flavor), heaviest[0])
